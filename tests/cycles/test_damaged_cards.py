"""A damaged device card is refused in one line, or what was damaged does not matter."""

import copy
import json

import pytest

from llmjax.cost import cost_module
from llmjax.cycles.device import FOLDER, load_device
from llmjax.cycles.model import predict
from llmjax.errors import UserError
from llmjax.hlo import parse

VALUES = (None, "x", -1, [], {}, [None], True, "nan", [["a", 1]])


def places(value, prefix=()):
    """Where a card can be damaged: everything, but of alike things the first."""
    if prefix:
        yield prefix
    if isinstance(value, dict):
        few = list(value.items())[: 2 if prefix else None]
        for key, item in few:
            yield from places(item, (*prefix, key))
    elif isinstance(value, list) and value:
        yield from places(value[0], (*prefix, 0))


@pytest.fixture(scope="module")
def cost(repo):
    return cost_module(parse((repo / "tests" / "testdata" / "hlo" / "cpu_0.12.0.1_block_f32.hlo").read_text()))


@pytest.mark.parametrize("name", ["tpu-v5e", "gpu-h100"])
def test_a_damaged_card_is_one_line_or_still_predicts(name, cost, tmp_path):
    whole = json.loads((FOLDER / f"{name}.json").read_text())
    whole.setdefault("fit", {})
    if "terms" in whole["fit"]:
        whole["fit"]["table"] = {next(iter(whole["fit"]["terms"])): [[[1.0, 2.0, 3.0, 4.0], "dot", 1.1]]}
    file = tmp_path / "card.json"
    refused = 0
    for place in places(whole):
        for value in VALUES:
            damaged = copy.deepcopy(whole)
            at = damaged
            for key in place[:-1]:
                at = at[key]
            at[place[-1]] = value
            file.write_text(json.dumps(damaged))
            try:
                device = load_device(file)
            except UserError as error:
                refused += 1
                assert "\n" not in str(error) and len(str(error)) < 600
                assert str(file) in str(error)
            else:
                assert predict(cost, device).sequential >= 0
    assert refused > 100


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", b'{"schema": "llmjax.device/2"}', b'{"schema": NaN}'])
def test_what_is_no_card_is_told_with_its_file(tmp_path, data):
    (tmp_path / "card.json").write_bytes(data)
    with pytest.raises(UserError, match=r"card\.json") as error:
        load_device(tmp_path / "card.json")
    assert "\n" not in str(error.value)
