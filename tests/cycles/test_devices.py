"""The chips that come with llmjax: every number is there, has a source, and has the size of its kind."""

import pytest

from llmjax.cycles import terms
from llmjax.cycles.device import Figure, Memory, device_names, load_device

NAMES = device_names()
# Smallest and largest that any chip of these years could have.
CLOCK = (0.5e9, 6e9)
FLOPS = (1e11, 1e16)
BANDWIDTH = (5e9, 1e15)
CAPACITY = (1e4, 1e12)


def figures(device):
    """Every figure of a device, with the range it must lie in."""
    yield "clock", device.clock_hz, CLOCK
    yield "cores", device.cores, (1, 1000)
    yield "transcendental", device.transcendental, (1e8, 1e14)
    yield "launch", device.launch, (1e-9, 1e-4)
    if device.link is not None:
        yield "link", device.link, BANDWIDTH
    for unit in ("matmul", "vector"):
        for dtype, figure in getattr(device, unit).items():
            yield f"{unit} {dtype}", figure, FLOPS
    for level in device.memory:
        yield f"{level.name} capacity", level.capacity, CAPACITY
        yield f"{level.name} bandwidth", level.bandwidth, BANDWIDTH


def test_every_chip_is_there():
    assert {f"gpu:{n}" for n in ("v100", "t4", "l4", "l40s", "rtx-pro-6000")} <= set(NAMES)
    assert {f"gpu:{n}" for n in ("a100", "h100", "h200", "b200", "b300")} <= set(NAMES)
    assert {f"tpu:{n}" for n in ("v2", "v3", "v4", "v5e", "v5p", "v6e", "tpu7x")} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_numbers_have_their_size_and_source(name):
    device = load_device(name)
    assert device.name == name and device.title and device.kind == name.partition(":")[0]
    for what, figure, (low, high) in figures(device):
        assert isinstance(figure, Figure) and low <= figure.value <= high, f"{what}: {figure}"
        assert figure.provenance in ("datasheet", "estimate", "published"), what
        assert len(figure.source) > 6, what


@pytest.mark.parametrize("name", NAMES)
def test_levels_and_peaks_are_in_order(name):
    device = load_device(name)
    assert all(isinstance(level, Memory) for level in device.memory) and len(device.memory) >= 2
    bandwidths = [level.bandwidth.value for level in device.memory]
    assert bandwidths == sorted(bandwidths, reverse=True) and len(set(bandwidths)) == len(bandwidths)
    capacities = [level.capacity.value for level in device.memory]
    assert capacities[-1] == max(capacities)
    assert {"f32", "bf16", "f16", "s8"} <= set(device.matmul) and {"f32", "bf16"} <= set(device.vector)
    for dtype in ("f32", "bf16"):
        assert device.matmul[dtype].value >= device.vector[dtype].value
    assert device.matmul["f16"].value >= device.matmul.get("tf32", device.matmul["f32"]).value
    assert device.matmul["s8"].value >= device.vector["f32"].value  # Volta and Blackwell Ultra have few units for int8
    if device.kind == "gpu":  # in full, float32 is not for the matrix unit
        assert device.matmul["f32"].value == device.vector["f32"].value
    # FLOPs a byte of main memory at which a bf16 product stops to wait for it: 20 to 1000 on every chip ever made.
    assert 20 < device.matmul["f16"].value / device.main_memory.bandwidth.value < 1000


@pytest.mark.parametrize("name", [name for name in NAMES if load_device(name).kind in terms.TERMS])
def test_every_term_is_inside_its_physical_range(name):
    device = load_device(name)
    known = terms.TERMS[device.kind]
    assert device.terms.keys() == known.keys()
    for what, figure in device.terms.items():
        term = known[what]
        assert term.holds(figure.value) and term.low <= figure.value <= term.high, f"{what}: {figure}"
        assert figure.provenance in ("published", "estimate") and len(figure.source) > 6
    assert any(figure.provenance == "published" for figure in device.terms.values())


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("gpu:")])
def test_nothing_waits_between_kernels_in_an_l1(name):
    assert load_device(name).memory[0].name == "L2"


@pytest.mark.parametrize(("name", "cores"), [("tpu:v2", 1), ("tpu:v3", 1), ("tpu:v4", 2), ("tpu:tpu7x", 1)])
def test_figures_belong_to_a_jax_device(name, cores):
    assert load_device(name).cores.value == cores
