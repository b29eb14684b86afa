"""Jobs on a mesh: what they say of it, and what of a target it uses."""

import json

import pytest

from configs import compare, cost
from experiments import compare as compare_job
from experiments import cost as cost_job
from experiments._mesh import check_rows, mesh_for, on_devices, use_told
from llmjax.errors import UserError
from llmjax.models.families import from_size
from llmjax.models.weights import write_config
from llmjax.parallel.mesh import abstract_mesh, on_mesh


@pytest.mark.parametrize(
    ("target", "sizes", "said"),
    [
        ("tpu:v5e:16x16", (1, 1, 1), "1 of its 256 devices"),
        ("tpu:v5e:16x16", (-1, 1, 1), "256 devices: data 256"),
        ("tpu:v5e:16x16", (2, 4, 2), "16 of its 256 devices: data 2 x fsdp 4 x tensor 2"),
        ("tpu:tpu7x:2x2x1", (1, 1, -1), "8 devices: tensor 8"),
        ("gpu:h100", (8, 1, 1), "8 devices: data 8"),
        ("gpu:h100", (1, 1, 1), ""),
        ("cpu", (1, 1, 1), ""),
    ],
)
def test_what_of_a_target_a_program_uses(target, sizes, said):
    mesh = mesh_for(target, dict(zip(("data", "fsdp", "tensor"), sizes, strict=True)))
    assert use_told(target, mesh) == said


def test_more_than_a_target_has_is_refused():
    with pytest.raises(UserError, match="more than there are"):
        mesh_for("tpu:v5e:2x2", {"data": 8, "fsdp": 1, "tensor": 1})


def test_rows_that_do_not_divide_are_one_line():
    with (
        on_mesh(abstract_mesh((2, 2, 1))),
        pytest.raises(UserError, match=r"train.batch_size=6 .* = 4 devices: take 8,"),
    ):
        check_rows("train.batch_size", 6)
    check_rows("train.batch_size", 6)


def test_one_device_needs_no_mesh(capsys):
    with on_devices({"data": -1, "fsdp": 1, "tensor": 1}):
        pass
    assert capsys.readouterr().err == ""


def test_cost_of_a_sharded_program(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0")  # of the child that compiles
    write_config(tmp_path, from_size("tiny", n_layer=1, vocab_size=256), "lm", None)
    config = cost.get_config("tiny")
    config.model, config.phase, config.batch, config.target = str(tmp_path), "lm", 8, "cpu"
    config.mesh.data = config.mesh.tensor = 2
    cost_job.run(config, str(tmp_path / "cost"))
    shown = capsys.readouterr().out
    assert "4 devices: data 2 x tensor 2" in shown
    assert "all-reduce" in shown and "sent a device" in shown


def test_compare_says_how_many_devices_are_used(tmp_path, capsys):
    config = compare.get_config("tiny")
    config.mesh.data, config.batch = 2, 2
    compare_job.run(config, str(tmp_path))
    (row,) = json.loads((tmp_path / "compare.json").read_text())["chips"]
    assert row["use"] == "2 devices: data 2"
    assert "2 devices: data 2: cpu" in capsys.readouterr().out
