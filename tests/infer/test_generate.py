"""Whole generations: the same tokens as the full forward pass and transformers, alone, in batches and streamed."""

import dataclasses

import jax
import numpy as np
import pytest

from llmjax.data import load_tokenizer
from llmjax.errors import UserError
from llmjax.infer import loop
from llmjax.infer.generate import Generator, batch_shape, load_generator
from llmjax.infer.sampling import Sampling
from llmjax.models.config import ModelConfig
from llmjax.models.families import from_size
from llmjax.models.gpt2 import SIZES
from llmjax.models.params import Params
from llmjax.models.weights import save_pretrained
from tests.infer.models import TESTDATA, full_logits, golden_model, greedy, random_model, size_model, size_prompts

PROMPTS = ["abc", "Hello there, my good friend", "é", "0 1 2 3"]
DRAWS = Sampling(temperature=1.0, top_k=50, top_p=0.95, repetition_penalty=1.1, seed=5)


class Bytes:
    """A tokenizer of single bytes (ids above 255 are one letter more): any token sequence has a text."""

    def __call__(self, text: str, **options) -> dict[str, list[int]]:
        return {"input_ids": list(text.encode())}

    def decode(self, ids: list[int], **options) -> str:
        return bytes(i % 256 for i in ids).decode(errors="replace")


@pytest.fixture(scope="module")
def generator():
    config, params = random_model(n_layer=1, eos_token_id=299)
    return Generator.from_params(config, params, Bytes())


def ids_of(prompt_ids, new):
    """Greedy tokens to the end-of-text token, by full forward passes."""
    config, params = random_model(n_layer=1, eos_token_id=299)
    ids = greedy(config, params, prompt_ids, new)
    return ids[: ids.index(299)] if 299 in ids else ids


def test_greedy_tokens_are_those_of_the_full_forward_pass(generator):
    done = generator.generate(PROMPTS, 24)
    assert [one.prompt for one in done] == PROMPTS
    for row, one in enumerate(done):
        assert one.token_ids == ids_of(list(PROMPTS[row].encode()), 24)
        assert one.finish_reason == ("length" if len(one.token_ids) == 24 else "end")
        assert one.logprobs is None


@pytest.mark.parametrize("name", ["plain", "variant"])
def test_greedy_tokens_are_those_of_transformers(name, tmp_path):
    config, params, golden = golden_model(name, tmp_path)
    config = dataclasses.replace(config, eos_token_id=None)
    made = tokens_of(
        config, params, [row[mask].tolist() for row, mask in zip(golden["tokens"], golden["mask"], strict=True)], 14
    )
    np.testing.assert_array_equal(made, golden["new"])


def tokens_of(config: ModelConfig, params: Params, prompts: list[list[int]], new: int) -> list[list[int]]:
    """Greedy tokens after prompts of ids, through the generator."""
    generator = Generator.from_params(config, params, Ids(prompts))
    return [one.token_ids for one in generator.generate([str(row) for row in range(len(prompts))], new)]


class Ids:
    """A tokenizer whose texts are row numbers and whose tokens are given."""

    def __init__(self, rows: list[list[int]]) -> None:
        self.rows = rows

    def __call__(self, text: str, **options) -> dict[str, list[int]]:
        return {"input_ids": self.rows[int(text)]}

    def decode(self, ids: list[int], **options) -> str:
        return " ".join(map(str, ids))


@pytest.mark.parametrize("size", [size for size in SIZES if size != "distilgpt2"])  # whose layers are those of gpt2
def test_64_greedy_tokens_of_every_width_are_those_of_transformers(size):
    config, params = size_model(size)
    golden = np.load(TESTDATA / "generate_golden.npz")[f"sizes/{size}"]
    assert len({tuple(row) for row in golden}) == 3 and all(len(set(row.tolist())) > 1 for row in golden)
    np.testing.assert_array_equal(tokens_of(config, params, size_prompts(), 64), golden)


@pytest.mark.parametrize("size", ["tiny"])
def test_64_greedy_tokens_are_those_of_torch_here(size):
    pytest.importorskip("torch", reason="needs the `reference` extra")
    from tests.testdata.make_generate_golden import size_case

    config, params = size_model(size)
    np.testing.assert_array_equal(tokens_of(config, params, size_prompts(), 64), size_case(size))


@pytest.mark.parametrize("sampling", [Sampling(), DRAWS])
def test_a_text_does_not_change_with_its_batch(generator, sampling):
    together = generator.generate(PROMPTS, 20, sampling)
    three = generator.generate(PROMPTS, 20, sampling, batch_size=3)  # and one
    alone = [generator.generate([prompt], 20, sampling, first_row=row)[0] for row, prompt in enumerate(PROMPTS)]
    assert together == three == alone


def test_a_seed_decides_the_draws(generator):
    first = generator.generate(["abc"], 20, DRAWS)
    assert first == generator.generate(["abc"], 20, DRAWS)
    assert first != generator.generate(["abc"], 20, dataclasses.replace(DRAWS, seed=6))
    twins = generator.generate(["abc", "abc"], 20, DRAWS)
    assert twins[0].token_ids != twins[1].token_ids


@pytest.mark.parametrize("sampling", [Sampling(), DRAWS])
@pytest.mark.parametrize("stop", [(), ("e",), ("zzzz", "\ufffd")])
def test_a_stream_is_the_text_of_the_batch(generator, sampling, stop):
    batch = generator.generate(PROMPTS, 20, sampling, stop)
    for row, prompt in enumerate(PROMPTS):
        *pieces, (done, speed) = generator.stream(prompt, 20, sampling, stop, row=row)
        assert "".join(pieces) == done.text
        assert done == batch[row]
        assert all(pieces)
        assert speed.decoded_tokens <= 19


def test_a_stop_string_ends_the_text_before_it(generator):
    whole = generator.generate(PROMPTS, 40)
    stop = whole[1].text[5:7]
    for full, cut in zip(whole, generator.generate(PROMPTS, 40, stop=[stop]), strict=True):
        if stop in full.text:
            assert cut.finish_reason == "stop"
            assert cut.text == full.text[: full.text.index(stop)]
            size = len(cut.token_ids)
            assert cut.token_ids == full.token_ids[:size]
            assert stop in Bytes().decode(cut.token_ids) and stop not in Bytes().decode(cut.token_ids[:-1])
        else:
            assert cut == full
    assert whole[1].text.index(stop) >= 0


def test_the_end_of_text_token_ends_a_row_and_is_left_out():
    config, params = random_model(n_layer=1, eos_token_id=299)
    plain = greedy(config, params, list(b"abc"), 12)
    ended = dataclasses.replace(config, eos_token_id=plain[6])
    (one,) = Generator.from_params(ended, params, Bytes()).generate(["abc"], 12)
    assert one.token_ids == plain[: plain.index(plain[6])]
    assert one.finish_reason == "end"


def test_log_probabilities_are_those_of_the_full_forward_pass(generator):
    config, params = random_model(n_layer=1, eos_token_id=299)
    (one,) = generator.generate(["abc"], 12, dataclasses.replace(DRAWS, logprobs=True))
    ids = [*b"abc", *one.token_ids]
    want = jax.nn.log_softmax(full_logits(config, params, ids))
    assert one.logprobs == pytest.approx([float(want[2 + i, token]) for i, token in enumerate(one.token_ids)], abs=1e-4)


def test_one_token_and_a_full_context(generator):
    (one,) = generator.generate(["abc"], 1)
    assert len(one.token_ids) == 1 and one.finish_reason == "length"
    prompt = "x" * 70
    (full,) = generator.generate([prompt], 96 - 70)
    assert full.token_ids == ids_of(list(prompt.encode()), 96 - 70)


def test_a_prompt_that_is_too_long_is_refused_or_trimmed(generator):
    with pytest.raises(UserError, match=r"prompt 1 has 90 tokens; with max_new_tokens=10 .* model's 96"):
        generator.generate(["y" * 50 + "z" * 40], 10)
    (trimmed,) = generator.generate(["y" * 50 + "z" * 40], 10, trim=True)
    assert trimmed.token_ids == generator.generate(["y" * 46 + "z" * 40], 10)[0].token_ids


@pytest.mark.parametrize(
    ("call", "line"),
    [
        ({"prompts": ["a", ""], "max_new_tokens": 4}, "prompt 2 is empty"),
        ({"prompts": ["a"], "max_new_tokens": 0}, "max_new_tokens=0 must be between 1 and 95"),
        ({"prompts": ["a"], "max_new_tokens": 96}, "max_new_tokens=96 must be"),
        ({"prompts": ["a"], "max_new_tokens": 4, "stop": ["b", ""]}, "an empty string would stop"),
        ({"prompts": ["abcd"], "max_new_tokens": 4, "cache_length": 7}, "cache_length=7 cannot hold"),
    ],
)
def test_requests_that_cannot_work_are_named(generator, call, line):
    with pytest.raises(UserError, match=line):
        generator.generate(**call)


def test_the_cache_may_be_as_short_as_prompt_and_new_tokens(generator):
    assert generator.generate(["abc"], 9, cache_length=12) == generator.generate(["abc"], 9)


def test_a_second_run_compiles_nothing(generator, tmp_path):
    """Neither the same shapes again in a process, nor a new process with a cache on disk."""
    events: list[str] = []
    jax.monitoring.register_event_listener(lambda name, **_: events.append(name))
    jax.monitoring.register_event_duration_secs_listener(lambda name, *_, **__: events.append(name))
    generator.generate(["abc"], 20)
    events.clear()
    generator.generate(["defgh"], 18)
    assert not any("compil" in event for event in events)

    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    try:
        counts, texts = [], []
        for _ in range(2):
            loop._compile.cache_clear()
            jax.clear_caches()
            events.clear()
            texts.append(generator.generate(["abc"], 20))
            counts.append(sum("trace" in event or "backend_compile" in event for event in events))
        assert counts[0] >= 2 and counts[1] == 0
        assert texts[0] == texts[1]
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


def test_few_shapes_are_compiled():
    shapes = {batch_shape([length] * rows, new) for rows in range(1, 9) for length in range(1, 65) for new in (40, 64)}
    assert len(shapes) <= 4 * 3 * 4
    assert batch_shape([3, 70], 50).batch == 2


def test_a_folder_is_loaded_with_its_tokenizer(tmp_path):
    config = from_size("tiny", n_layer=1, n_positions=64)
    _, params = random_model(n_layer=1, vocab_size=50257, n_positions=64)
    save_pretrained(tmp_path / "lm", config, params, "lm", load_tokenizer("gpt2"))
    generator = load_generator(tmp_path / "lm", format="int8")
    (one,) = generator.generate(["Hello"], 4)
    assert len(one.token_ids) == 4
    save_pretrained(tmp_path / "bare", config, params, "lm")
    with pytest.raises(UserError, match="has no tokenizer files"):
        load_generator(tmp_path / "bare")
    save_pretrained(tmp_path / "classifier", config, {**params, "score": {"kernel": np.zeros((64, 2))}}, "classifier")
    with pytest.raises(UserError, match=r"holds a classifier .*cannot continue texts"):
        load_generator(tmp_path / "classifier", tokenizer="gpt2")
