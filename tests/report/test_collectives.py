"""What a sharded program sends, by mesh axis."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from llmjax.analysis import analysis_of
from llmjax.cost.collectives import axes_crossed, exchanges
from llmjax.cycles.device import load_device
from llmjax.cycles.links import links_of
from llmjax.hlo import parse
from llmjax.parallel.mesh import abstract_mesh
from llmjax.report.collectives import collectives, collectives_table
from llmjax.report.export import to_object
from llmjax.report.html import Program, to_html
from llmjax.report.terminal import console
from llmjax.targets.aot import compile_for

MESH = {"data": 2, "fsdp": 2, "tensor": 2}


@pytest.mark.parametrize(
    ("groups", "axes"),
    [
        (((0, 1), (2, 3)), ("tensor",)),
        (((0, 2), (1, 3)), ("fsdp",)),
        (((0, 4), (1, 5)), ("data",)),
        (((0, 2, 4, 6),), ("data", "fsdp")),
        (((0, 1, 2, 3, 4, 5, 6, 7),), ("data", "fsdp", "tensor")),
        (((0, 8),), ()),
        ((), ()),
    ],
)
def test_axes_that_a_group_crosses(groups, axes):
    assert axes_crossed(groups, MESH) == axes


def test_collectives_of_a_program_for_eight_devices():
    mesh = abstract_mesh((2, 2, 2))

    def array(*spec):
        return jax.ShapeDtypeStruct((64, 64), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec(*spec)))

    def f(x, w):
        with jax.named_scope("M/h_0/mlp"):
            return ((x @ w) ** 2).sum()

    program = compile_for("cpu", jax.jit(f), array(("data", "fsdp"), "tensor"), array("tensor", None))
    report = analysis_of(parse(program.text), backend=program.backend, mesh=MESH)
    found = collectives(report)
    assert {row.axes for row in found} >= {"tensor"} and {row.opcode for row in found} == {"all-reduce"}
    (sums,) = [row for row in found if row.axes == "tensor"]
    assert sums.bytes == 16 * 64 * 4  # of two devices' rows each sends half twice
    assert (sums.runs, sums.beside, sums.seconds, sums.links) == (1, 0, None, "") and "mlp" in sums.most_for
    (op, *_) = [op.op for op in report.ops if exchanges(op.op, report.cost.module)]
    links = {chip: links_of(op, report.cost.module, load_device(chip)) for chip in ("tpu:v5e", "gpu:h100")}
    assert links["tpu:v5e"].endswith(" ICI") and links["gpu:h100"] == "in a host"
    assert found == sorted(found, key=lambda row: -row.bytes)
    cost = to_object(report)
    assert cost["mesh"] == MESH and [row["axes"] for row in cost["collectives"]] == [row.axes for row in found]
    page = to_html([Program("step", cost, program.text)])
    assert "What devices send each other" in page and "mesh data 2 x fsdp 2 x tensor 2" in page
    assert "What devices send each other" not in to_html([Program("step", to_object(replace(report, mesh={})))])
    screen = console()
    with screen.capture() as capture:
        screen.print(collectives_table(report, 80))
    assert "all-reduce" in capture.get() and "mlp" in capture.get()
