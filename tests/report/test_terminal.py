"""Tables on a terminal: figures are whole at any width, columns and names give way."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from llmjax.report.terminal import Figures, Names, shortened, table

TEXT = st.text(st.characters(blacklist_categories=("C", "Z")), max_size=60)


def printed(width: int, *columns: Names | Figures) -> list[str]:
    screen = Console(width=400, color_system=None)
    with screen.capture() as shown:
        screen.print(table(width, *columns))
    return [line.rstrip() for line in shown.get().splitlines()]


@given(st.lists(TEXT, min_size=1, max_size=4), st.integers(40, 130), st.integers(0, 9))
def test_figures_are_never_cut(names: list[str], width: int, columns: int) -> None:
    figures = [Figures(f"column {k}", [f"{k}23,456.7"] * len(names), k) for k in range(columns + 1)]
    lines = printed(width, Names("name", names), *figures)
    assert max(map(cell_len, lines)) <= width
    assert all("023,456.7" in line for line in lines[2:]), "rank 0 never gives way"
    shown = [k for k in range(columns + 1) if f"{k}23,456.7" in lines[-1]]
    assert shown == list(range(len(shown))), "the highest rank gives way first"


def test_names_keep_what_they_need_before_figures_give_way() -> None:
    columns = (Names("name", ["a" * 30], 20), Figures("first", ["1"], 1), Figures("second", ["2" * 12], 2))
    assert "222222222222" in printed(50, *columns)[-1]
    assert printed(34, *columns)[-1].split() == ["a" * 26 + "…", "1"]


@pytest.mark.parametrize(
    ("text", "size", "end", "said"),
    [
        ("GPT2/h_0/mlp", 12, True, "GPT2/h_0/mlp"),
        ("GPT2/h_0/mlp", 6, True, "…0/mlp"),
        ("fusion.123", 6, False, "fusio…"),
        ("[/x] and [left]", 80, False, "[/x] and [left]"),
    ],
)
def test_shortened(text: str, size: int, end: bool, said: str) -> None:
    assert shortened(text, size, end) == said
    assert said in printed(100, Names("n", [said]))[-1]


@given(TEXT, st.integers(1, 30), st.booleans())
def test_shortened_fits(text: str, size: int, end: bool) -> None:
    assert cell_len(shortened(text, size, end)) <= size
