"""Real texts of every backend (tests/testdata/README.md): read whole, and the same program read in each."""

import math
import re
from pathlib import Path

import pytest

from llmjax.hlo import Module, parse
from llmjax.hlo.attributes import ReplicaGroups
from llmjax.hlo.ir import NO_METADATA

FOLDER = Path(__file__).resolve().parent.parent / "testdata" / "hlo"
FILES = sorted(FOLDER.glob("*.hlo"))


@pytest.fixture(scope="module")
def modules() -> dict[str, Module]:
    return {path.stem: parse(path.read_text(), path.name) for path in FILES}


def named(modules, part):
    found = {name: m for name, m in modules.items() if part in name}
    assert len(found) >= 4
    return found


def instructions(module):
    return [i for c in module.computations.values() for i in c]


def test_every_backend_is_there(modules):
    assert len(modules) >= 25
    for backend in ("cpu_0.4.", "cpu_0.10.", "cpu_0.12.", "tpu_", "gpu_"):
        assert any(name.startswith(backend) for name in modules), backend


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_nothing_is_lost(path):
    """Counts of the parsed module against counts taken from the text by simpler means."""
    text = path.read_text()
    module = parse(text)
    lines = [line for line in text.splitlines() if re.match(r"\s+(ROOT )?%?[\w.\-]+ = ", line)]
    found = instructions(module)
    assert len(lines) == len(found) == module.instruction_count
    for line, i in zip(lines, found, strict=True):
        assert re.match(rf"\s+(ROOT )?%?{re.escape(i.name)} = ", line)
        assert re.search(rf"[)}}\]] {i.opcode}\(", line)
        assert str(i.shape) in re.sub(r"/\*.*?\*/", "", line)
        assert ("metadata=" in line) == (i.metadata != NO_METADATA)
        assert ("backend_config=" in line) == (i.backend_config is not None)
        assert text.splitlines()[i.line - 1] == line
    assert len(re.findall(r"^(ENTRY )?%?[\w.\-]+ .*\{$|^(ENTRY )?[\w.\-]+ \{$", text, re.M)) == len(module.computations)


def test_references_resolve(modules):
    for module in modules.values():
        for computation in module.computations.values():
            assert computation.root in computation.instructions
            numbers = [p.parameter_number for p in computation.parameters]
            assert numbers == list(range(len(numbers)))
            for i in computation:
                assert len(computation.operands(i)) == len(i.operands)
                assert all(c.name in module.computations for c in module.called(i))
                if i.opcode in ("fusion", "call"):
                    (callee,) = module.called(i)
                    assert [p.shape.dims for p in callee.parameters] == [o.shape.dims for o in computation.operands(i)]
                    assert [s.dims for s in callee.root.shape.leaves] == [s.dims for s in i.shape.leaves]
                if i.opcode == "get-tuple-element":
                    assert computation.operands(i)[0].shape.tuple_shapes[i.attr("index")].dims == i.shape.dims


def test_signature_and_layout_agree_with_the_instructions(modules):
    for module in modules.values():
        entry = module.entry
        layout = module.entry_computation_layout
        if layout is not None:
            assert [s.dims for _, s in layout.parameters] == [p.shape.dims for p in entry.parameters]
            assert [s.dims for s in layout.result.leaves] == [s.dims for s in entry.root.shape.leaves]
        for computation in module.computations.values():
            if computation.signature:
                found = [(name, shape.dims) for name, shape in computation.signature.parameters]
                assert [dims for _, dims in found] == [p.shape.dims for p in computation.parameters]


def matmul_flops(module):
    """2 x outputs x contracted length, of dots and convolutions, wherever they stand."""
    total = 0
    for computation in module.computations.values():
        for i in computation:
            operands = computation.operands(i)
            if i.opcode == "dot":
                contracted = math.prod(operands[0].shape.dims[d] for d in i.dot_dims.lhs_contracting)
            elif i.opcode == "convolution":
                dims = i.attr("dim_labels")
                kernel = operands[1].shape.dims
                contracted = kernel[dims.rhs_input] * math.prod(kernel[d] for d in dims.rhs_spatial)
            else:
                continue
            total += 2 * i.shape.elements * contracted
    return total


@pytest.mark.parametrize("name", ["block_f32", "block_bf16"])
def test_block_has_the_matmuls_of_two_layers(modules, name):
    """Where matmuls are dots or convolutions, their FLOPs are those of make.py's sizes (GPU libraries hide theirs)."""
    b, length, d, f, layers = 2, 16, 64, 256, 2
    weights = 2 * b * length * (3 * d * d + d * d + 2 * d * f)
    attention = 2 * 2 * b * length * length * d
    checked = 0
    for key, module in modules.items():
        if name in key and 'custom_call_target="__cublas' not in (FOLDER / f"{key}.hlo").read_text():
            if key.startswith("tpu"):
                continue  # a batched dot is a convolution over a padded window there: the cost analysis's own tests
            assert matmul_flops(module) == layers * (weights + attention), key
            checked += 1
    assert checked >= 1


def test_source_and_scopes(modules):
    for key, module in named(modules, "block_").items():
        found = instructions(module)
        if "unoptimised" not in key:
            scopes = " ".join(i.metadata.op_name for i in found)
            for scope in ("h_0/attn", "h_0/mlp", "h_1/attn", "h_1/mlp"):
                assert scope in scopes, (key, scope)
        else:
            continue  # that text has no metadata
        places = [p for p in map(module.source, found) if p]
        assert sum(p.file.endswith("make.py") and p.line > 0 for p in places) >= 20, key
        if module.tables.frames:
            assert any(p.function == "attention" for p in places), key
            stacks = [module.stack(i) for i in found if i.metadata.stack_frame_id]
            assert any([p.function for p in s][:2] == ["layer_norm", "block"] for s in stacks), key


def test_loops(modules):
    for key, module in named(modules, "scan_f32").items():
        loops = [i for i in instructions(module) if i.opcode == "while"]
        assert len(loops) == 1, key
        assert len(loops[0].called_computations) == 2
        if key.startswith("cpu_0.1"):
            assert loops[0].backend_config["known_trip_count"] == {"n": "3"}


def test_convolutions(modules):
    for key, module in named(modules, "conv_f32").items():
        found = [i for i in instructions(module) if i.opcode == "convolution" or "conv" in i.custom_call_target]
        assert len(found) >= 2, key
        for i in found:
            assert i.window.rank >= 2
            assert i.attr("dim_labels") is not None
        assert any(i.attr("feature_group_count") == 4 for i in found) or key.startswith("tpu"), key


def test_collectives(modules):
    for key, module in named(modules, "sharded_f32").items():
        assert module.num_partitions == (1 if "0.4." in key else 4), key  # old text does not say
        found = [i for i in instructions(module) if i.opcode in ("all-reduce", "all-reduce-start")]
        assert found, key
        groups = found[0].attr("replica_groups")
        assert isinstance(groups, ReplicaGroups)
        assert sorted(groups.groups) == [(0, 1), (2, 3)], key


def test_clocks_of_the_compilers(modules):
    """The TPU compiler's own estimate, and that of XLA's GPU cost model, stay readable."""
    cycles = [
        int(i.backend_config["window_config"]["estimated_cycles"])
        for i in instructions(modules["tpu_block_f32"])
        if isinstance(i.backend_config, dict) and i.backend_config.get("window_config", {}).get("estimated_cycles")
    ]
    assert len(cycles) >= 5
    assert min(cycles) > 0
    costs = [
        i.backend_config["reification_cost"]
        for i in instructions(modules["gpu_block_f32"])
        if isinstance(i.backend_config, dict) and "reification_cost" in i.backend_config
    ]
    assert any(entry["end_to_end_cycles"] > 0 for cost in costs for entry in cost)


def test_tpu_layouts(modules):
    shapes = [s for i in instructions(modules["tpu_block_f32"]) for s in i.shape.leaves if s.layout]
    assert any(s.layout.tiles and s.padded_bytes > s.bytes for s in shapes)
    assert any(s.memory_space == 1 for s in shapes)
