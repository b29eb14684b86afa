import json

from llmjax.report.board import ACCURACY, PERPLEXITY, Row, best_of, board_page, pareto, why
from llmjax.report.page import to_html, to_json
from llmjax.report.page_charts import figure


def row(strategy: str, quality: float, seconds: float, **more) -> Row:
    usual = {"parameters": 100, "weights": 400, "flops": 1e9, "bytes": 1e6}
    return Row(strategy=strategy, quality=quality, low=quality, high=quality, seconds=seconds, **{**usual, **more})


ROWS = [
    row("full", 0.90, 1.0, trained=100, train_seconds=30.0, predicted={"tpu:v5e:1x1": 1e-3}),
    row("full+wanda-50", 0.88, 1.0, predicted={"tpu:v5e:1x1": 1e-3}),
    row("full+mlp-50", 0.85, 0.6, flops=6e8, bytes=8e5, predicted={"tpu:v5e:1x1": 7e-4}),
    row("slow", 0.86, 0.9, predicted={}),
]


def test_the_front_holds_what_nothing_beats_in_both() -> None:
    assert [one.strategy for one in pareto(ROWS, ACCURACY)] == ["full+mlp-50", "slow", "full"]
    # Of perplexity less is better: the fast row is then best in both.
    assert [one.strategy for one in pareto(ROWS, PERPLEXITY)] == ["full+mlp-50"]
    assert best_of(ROWS, ACCURACY).strategy == "full" and best_of(ROWS, PERPLEXITY).strategy == "full+mlp-50"


def test_a_row_of_equal_quality_and_time_does_not_hide_another() -> None:
    twins = [row("a", 0.9, 1.0), row("b", 0.9, 1.0)]
    assert len(pareto(twins, ACCURACY)) == 2


def test_sentences_say_what_is_saved_or_that_nothing_is() -> None:
    assert "nothing is saved when it runs" in why(ROWS[1], ROWS[0], ACCURACY)
    assert "0.60 of the time of full: 40% fewer FLOPs and 20% fewer bytes" in why(ROWS[2], ROWS[0], ACCURACY)


def test_the_page_has_a_row_and_a_point_a_strategy_and_predictions_where_there_are_some() -> None:
    page = board_page("minilm", ACCURACY, ROWS, ("a note",))
    found = json.loads(to_json(page))["sections"][0]
    assert len(found["tables"][0]["rows"]) == 4
    titles = [plot["title"] for plot in found["plots"]]
    assert titles[1] == "accuracy against predicted time on tpu:v5e:1x1"
    assert len(found["plots"][1]["series"]) == 3
    assert "full+mlp-50" in to_html(page)


def test_many_points_stand_beside_their_names_and_few_have_a_legend() -> None:
    many = board_page("m", ACCURACY, [row(f"way-{n}", 0.8 + n / 100, 1.0 + n) for n in range(9)])
    few = board_page("m", ACCURACY, ROWS)
    named, plain = (figure(page.sections[0].plots[0]) for page in (many, few))
    assert not named["layout"]["showlegend"] and plain["layout"]["showlegend"]
    assert [trace["text"] for trace in named["traces"][:9]] == [[f"way-{n}"] for n in range(9)]


def test_the_ranks_that_adalora_chose_are_pictured() -> None:
    rows = [*ROWS, row("adalora", 0.89, 1.0, ranks={"h_0/attn/query": 3, "h_0/mlp/up": 8})]
    plots = json.loads(to_json(board_page("minilm", ACCURACY, rows)))["sections"][0]["plots"]
    assert plots[-1]["title"] == "The ranks that adalora chose"
    assert plots[-1]["series"][0]["y"] == [3, 8]
