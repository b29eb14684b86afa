"""Tables of published figures: what is read, and what is refused in one line."""

from pathlib import Path

import pytest

from llmjax.cycles.published.chips import chip_of
from llmjax.cycles.published.table import read_table
from llmjax.errors import UserError

TINY = Path(__file__).parents[2] / "testdata" / "published" / "tiny.csv"


def test_a_row_has_its_figure_and_its_words():
    first, *_, last = read_table(TINY)
    assert (first.id, first.tier, first.value, first.unit, first.chips) == ("t1", "K", 5.0, "us", 1)
    assert last.model == "GPT-2 124M" and last.batch == "4"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id,tier\n1,K\n", "has no column 'hardware'"),
        ("id,tier,hardware,model,phase,value,unit\n", "holds no figure"),
        ("id,tier,hardware,model,phase,value,unit\n1,X,H100,m,op,1,s\n", "row 1: tier='X' must be one of"),
        ("id,tier,hardware,model,phase,value,unit\n1,K,H100,m,op,fast,s\n", "row 1: value and n_chips must be numbers"),
        ("id,tier,hardware,model,phase,value,unit\n1,K,H100,m,op,nan,s\n", "row 1: value=nan must be above 0"),
        ("id,tier,hardware,model,phase,value,unit\n1,K,H100,m,op,1,s\n1,K,H100,m,op,1,s\n", "two rows have the id '1'"),
    ],
)
def test_mistakes_are_one_line(tmp_path, text, said):
    file = tmp_path / "t.csv"
    file.write_text(text)
    with pytest.raises(UserError) as error:
        read_table(file)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_no_such_file(tmp_path):
    with pytest.raises(UserError, match="cannot be read: No such file"):
        read_table(tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("hardware", "card", "devices"),
    [
        ("A100-80GB (pclk 1410, mclk 1593)", "gpu:a100", 1),
        ("NVIDIA_L4", "gpu:l4", 1),
        ("L40S", "gpu:l40s", 1),
        ("Tesla_V100-PCIE-32GB", "gpu:v100", 1),
        ("TPU7x Ironwood", "tpu:tpu7x", 2),
        ("TPU v3-8", "tpu:v3", 2),
    ],
)
def test_hardware_is_found_by_its_usual_names(hardware, card, devices):
    chip = chip_of(hardware)
    assert chip and (chip.device.name, chip.devices) == (card, devices)


def test_boards_differ_in_bandwidth_and_unknown_ones_have_no_card():
    small, large = chip_of("NVIDIA_A100-PCIE-40GB"), chip_of("A100-80GB SXM")
    assert small and large and small.device.main_memory.bandwidth.value == 1555e9
    assert large.device.main_memory.bandwidth.value > 2e12
    assert chip_of("Apple M3 Max CPU") is None
