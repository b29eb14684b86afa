"""A pod from here: names of pods, what two compiled programs come to, and the job on programs that are not compiled."""

import json

import pytest

import experiments._plan as planning
from configs.plan import get_config
from experiments import plan
from experiments._plan import Found, Job, pod_of
from llmjax.errors import UserError
from llmjax.targets.local import MemoryUse, Program


def config_of(variant, **settings):
    config = get_config(variant)
    with config.unlocked():
        for name, value in settings.items():
            config[name] = value
    return config


@pytest.mark.parametrize(
    ("name", "devices", "chip"),
    [("tpu:v5e:4x4", 16, "tpu:v5e"), ("gpu:h100:8x8", 64, "gpu:h100"), ("gpu:a100:4", 4, "gpu:a100"),
     ("tpu:v3:2x2", 8, "tpu:v3")],
)  # fmt: skip
def test_pods_by_name(name, devices, chip):
    pod = pod_of(name)
    assert (pod.devices, pod.device.name) == (devices, chip)


@pytest.mark.parametrize("name", ["gpu:h100", "gpu:h100:8x", "cpu", "tpu:v9:2x2"])
def test_other_names_are_one_line(name):
    with pytest.raises(UserError) as error:
        pod_of(name)
    assert "\n" not in str(error.value)


def test_all_layers_follow_from_two_programs_of_few():
    job = Job(plan.named_config("gpt2", n_layer=11), None, None, None)
    first, second = Found(3.0, 2.0, 4.0, 10.0, {"data": 1.0}), Found(5.0, 4.0, 6.0, 14.0, {"data": 1.5, "fsdp": 2.0})
    whole = planning._whole(job, [first, second])
    assert (whole.seconds, whole.memory) == (3.0 + 10 * 1.0, 10.0 + 10 * 2.0)
    assert whole.sends == {"data": 1.0 + 10 * 0.25, "fsdp": 10.0}


@pytest.fixture
def compiled(repo, monkeypatch):
    """Stands in for compilers: one kept program, with the memory that the test says."""
    text = (repo / "tests/testdata/hlo/tpu_sharded_f32.hlo").read_text()
    needed = MemoryUse(2**30, 0, 0, 0)

    def compile_lowered(target, lowered):
        return Program(text, "tpu", None, needed, 1.0, target.name)

    monkeypatch.setattr(planning, "compile_lowered", compile_lowered)


def test_a_training_plan_is_written_and_shown(compiled, tmp_path, capsys):
    config = config_of("tiny", prices={"tpu:v5e": 2.0}, best=2)
    plan.run(config, str(tmp_path))
    found = json.loads((tmp_path / "plan.json").read_text())
    assert found["schema"] == "llmjax.plan/1" and found["purpose"] == "train" and len(found["meshes"]) == 2
    for mesh in found["meshes"]:
        assert mesh["fits"] and mesh["seconds"] > 0 and mesh["low"] <= mesh["seconds"] <= mesh["high"]
        assert mesh["cost"] == pytest.approx(mesh["days"] * 24 * 2.0 * 4)
        assert mesh["tokens_per_second"] == pytest.approx(512 / mesh["seconds"])
    assert [point["devices"] for point in found["scaling"]["tpu:v5e:2x2"]] == [1, 2, 4, 8]
    assert "Fastest: tpu:v5e:2x2" in capsys.readouterr().out
    assert "<html" in (tmp_path / "plan.html").read_text()


def test_a_serving_plan_says_how_many_devices_a_load_needs(compiled, tmp_path):
    config = config_of(
        "serve", model="tiny", targets="tpu:v5e:2x2", length=16, new_tokens=8, requests=1e5, batches=(1, 4)
    )
    plan.run(config, str(tmp_path))
    rows = json.loads((tmp_path / "plan.json").read_text())["rows"]
    assert {(row["share"], row["batch"]) for row in rows} == {(1, 1), (1, 4), (2, 1), (2, 4)}  # it has two heads
    for row in rows:
        each = row["batch"] / (row["batch"] * row["first"] + 8 * row["token"])
        assert row["requests"] == pytest.approx(each * 4 / row["share"])
        assert row["devices_needed"] >= 1e5 / each * row["share"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"tokens": 500}, "must be a multiple of length=32"),
        ({"dtype": "int8"}, "training computes in float32 or bfloat16"),
        ({"length": 4096, "tokens": 4096}, "are more than tiny's"),
        ({"tokens": 32}, "cannot be divided over 4 devices"),
    ],
)
def test_what_cannot_be_planned_is_one_line(settings, said, tmp_path):
    with pytest.raises(UserError, match=said):
        plan.run(config_of("tiny", **settings), str(tmp_path))
