"""Structures of pytrees as JSON: what was described is rebuilt, and nothing else."""

import json
from typing import NamedTuple

import jax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmjax.infer.tree_json import described, rebuilt
from llmjax.kernels.formats import Rows


class Pair(NamedTuple):
    first: object
    second: object


LEAVES = st.just(0.5) | st.none()
TREES = st.recursive(
    LEAVES,
    lambda part: st.one_of(
        st.lists(part, max_size=3),
        st.lists(part, max_size=3).map(tuple),
        st.dictionaries(st.text(max_size=3), part, max_size=3),
        st.builds(Pair, part, part),
        st.builds(Rows, part, part),
    ),
)


@given(TREES)
def test_a_structure_survives_json(tree):
    structure = jax.tree.structure(tree)
    text = json.dumps(described(structure, (Pair, Rows)))
    assert jax.tree.structure(rebuilt(json.loads(text), (Pair, Rows))) == structure


@pytest.mark.parametrize("tree", [Pair(1, 2), {1: 2}, [Rows(1)]])
def test_other_kinds_are_refused(tree):
    with pytest.raises(ValueError, match="cannot be described"):
        described(jax.tree.structure(tree))


@pytest.mark.parametrize("text", ['["Path", null, ["*"]]', '["dict", ["a"], []]', '"x"', "[]", "{}", "0"])
def test_other_json_is_refused(text):
    with pytest.raises((ValueError, TypeError)):
        rebuilt(json.loads(text), (Pair,))
