"""Damaged texts: a module or an HloParseError, never another exception, never more than a second.

`LLMJAX_FUZZ=20000 pytest tests/hlo/test_fuzz.py` tries that many mutations in place of 2000.
"""

import os
import random
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmjax.hlo import HloParseError, parse
from tests.hlo.wounds import TOKENS, mutate

COUNT = int(os.environ.get("LLMJAX_FUZZ", "2000"))
FILES = sorted((Path(__file__).resolve().parent.parent / "testdata" / "hlo").glob("*.hlo"))
# A loaded machine may stop for longer than hypothesis allows an example.
CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def trial(text):
    """Seconds taken; any exception but HloParseError is the test's failure."""
    start = time.process_time()
    try:
        module = parse(text)
    except HloParseError as error:
        assert error.line >= 1 and error.column >= 1
        assert error.line <= text.count("\n") + 1
    else:
        assert module.entry.root.name in module.entry.by_name
        for computation in module.computations.values():
            assert all(name in computation.by_name for i in computation for name in i.operands)
            assert all(c in module.computations for i in computation for c in i.called_computations)
    return time.process_time() - start


@pytest.mark.parametrize("part", range(8))
def test_mutations_of_real_texts(part):
    rng = random.Random(part)
    texts = [path.read_text() for path in FILES]
    for _ in range(COUNT // 8):
        text = rng.choice(texts)
        if rng.random() < 0.7:  # a small module: the head, and some of the text
            at = rng.randrange(len(text))
            text = text[: text.index("\n") + 1] + text[text.find("\n", at) + 1 :][: rng.choice([300, 3000, 30000])]
        text = mutate(text, rng)
        assert trial(text) < 1.0


@settings(CALM)
@given(st.text())
def test_any_text(text):
    trial(text)


@settings(CALM, max_examples=200)
@given(st.lists(st.sampled_from(TOKENS), max_size=60).map("".join))
def test_any_tokens_in_any_place(tokens):
    trial(tokens)
    trial("HloModule m\nENTRY e {\n p = f32[2] parameter(0)" + tokens + "\n}")
    trial("HloModule m, " + tokens + "\nENTRY e { p = f32[2] parameter(0)\n}")
