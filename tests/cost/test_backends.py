"""The same functions, as compilers for the CPU, a TPU v5e and an H100 make them: the same matrix FLOPs."""

from pathlib import Path

import pytest

from llmjax.cost import ModuleCost, cost_module
from llmjax.hlo.parser import parse

HLO = Path(__file__).parent.parent / "testdata" / "hlo"
FIXTURES = sorted(path.stem for path in HLO.glob("*.hlo"))
BATCH, LENGTH, WIDTH, INNER, LAYERS = 2, 16, 64, 256, 2
BLOCK = LAYERS * (
    2 * BATCH * LENGTH * (4 * WIDTH * WIDTH + 2 * WIDTH * INNER) + 2 * 2 * BATCH * LENGTH * LENGTH * WIDTH
)


def cost(stem: str) -> ModuleCost:
    return cost_module(parse((HLO / f"{stem}.hlo").read_text()))


@pytest.mark.parametrize("stem", FIXTURES)
def test_everything_is_modelled(stem):
    found = cost(stem)
    assert found.coverage == 1 and not found.lower_bound
    assert all(loop.trip_count is not None for loop in found.loops)


@pytest.mark.parametrize("stem", [stem for stem in FIXTURES if "_block_" in stem])
def test_block(stem):
    assert cost(stem).totals.matmul_flops == pytest.approx(BLOCK, rel=0.01)


@pytest.mark.parametrize("stem", [stem for stem in FIXTURES if "_scan_" in stem])
def test_scan(stem):
    found = cost(stem)
    assert found.totals.matmul_flops == pytest.approx(cost("cpu_0.12.0.1_scan_f32").totals.matmul_flops, rel=0.01)
    assert [loop.trip_count for loop in found.loops] == [3]


@pytest.mark.parametrize("stem", [stem for stem in FIXTURES if "_sharded_" in stem])
def test_sharded(stem):
    found, reference = cost(stem).totals, cost("cpu_0.12.0.1_sharded_f32").totals
    assert found.matmul_flops == pytest.approx(reference.matmul_flops, rel=0.01)
    assert found.collective_bytes == reference.collective_bytes > 0


@pytest.mark.parametrize("stem", [stem for stem in FIXTURES if "_conv_" in stem])
def test_conv(stem):
    """GPU and TPU compilers pad images and fill dilated kernels with zeros: they really compute more, never less."""
    least = cost("cpu_0.12.0.1_conv_f32").totals.matmul_flops
    found = cost(stem).totals.matmul_flops
    assert found == least if stem.startswith("cpu") else least < found < 2 * least
