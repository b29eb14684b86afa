"""Names of chips, and the descriptions of GPUs."""

import re

import pytest

from llmjax.cycles.device import load_device
from llmjax.errors import UserError
from llmjax.targets.names import GPUS, TPUS, gpu_names, parse_target, target_names


@pytest.mark.parametrize("name", target_names())
def test_every_listed_target_is_one_and_has_a_device(name):
    target = parse_target(name)
    assert target.name == name
    assert target.attached == (name in ("gpu", "tpu"))
    if ":" in name:
        assert load_device(target.name).kind == name.partition(":")[0]


def test_the_chips_asked_for_are_there():
    assert {"t4", "l4", "a100", "h100", "h200", "b200"} <= set(gpu_names())
    assert {"v2", "v3", "v4", "v5e", "v5p", "v6e", "tpu7x"} == set(TPUS)


@pytest.mark.parametrize(
    ("name", "topology"),
    [
        ("tpu:v5e", "v5e:2x2"),
        ("tpu:v5e:16x16", "v5e:16x16"),
        ("TPU:v7x", "tpu7x:2x2x1"),
        ("tpu:v5p:8x8x8", "v5p:8x8x8"),
    ],
)
def test_topologies(name, topology):
    target = parse_target(name)
    assert (target.platform, target.topology, target.name) == ("tpu", topology, f"tpu:{topology}")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gpu:h10", "Did you mean 'gpu:h100'?"),
        ("tpu:v9:2x2", "is none of cpu, gpu, tpu, gpu:a100"),
        ("tpu:v5e:2", "written tpu:v5e:2x2"),
        ("tpu:v4:2x2", "written tpu:v4:2x2x1"),
        ("tpu:v5e:0x2", "written tpu:v5e:2x2"),
        ("", "is none of cpu"),
    ],
)
def test_mistakes(name, said):
    with pytest.raises(UserError) as error:
        parse_target(name)
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", gpu_names())
def test_gpu_descriptions_agree_with_the_devices(name):
    text = (GPUS / f"{name}.txtpb").read_text()
    number = {key: float(value) for key, value in re.findall(r"^ *(\w+): ([\d.]+)", text, re.MULTILINE)}
    device = load_device(f"gpu:{name}")
    assert number["core_count"] == device.cores.value
    assert number["clock_rate_ghz"] * 1e9 == pytest.approx(device.clock_hz.value)
    assert number["memory_bandwidth"] == device.main_memory.bandwidth.value
    assert number["device_memory_size"] == device.main_memory.capacity.value
    assert number["l2_cache_size"] == device.memory[-2].capacity.value
    peak = 2 * number["core_count"] * number["fpus_per_core"] * number["clock_rate_ghz"] * 1e9
    assert device.vector["f32"].value == pytest.approx(peak, rel=0.05)
    inside = text.split("gpu_device_info {\n")[1].split("\n}\n")[0]
    assert all("#" in line for line in inside.splitlines()), "a number without its source"
