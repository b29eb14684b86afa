"""What files and folders hold: text, protos, StableHLO, several modules, dumps."""

import gzip

import jax
import jax.numpy as jnp
import pytest

from llmjax.analyser import analyze_hlo
from llmjax.errors import UserError
from llmjax.inputs.files import once, read_sources
from tests.inputs.protobuf import message

TEXT = """HloModule {name}, is_scheduled=true

ENTRY e {{
  x = f32[{size}]{{0}} parameter(0)
  ROOT n = f32[{size}]{{0}} negate(x)
}}
"""


def hlo(name="jit_f", size=8):
    return TEXT.format(name=name, size=size)


@pytest.fixture(scope="module")
def lowered():
    spec = jax.ShapeDtypeStruct((16, 32), jnp.float32)
    return jax.jit(lambda x: jnp.tanh(x).sum(0)).lower(spec)


@pytest.fixture(scope="module")
def proto(lowered):
    return lowered.compile().runtime_executable().hlo_modules()[0].as_serialized_hlo_module_proto()


def labels(path, **more):
    return [source.label for source in read_sources(path, "", **more).sources]


@pytest.mark.parametrize("wrap", [lambda p: p, lambda p: message((1, p)), lambda p: message((1, message((1, p))))])
@pytest.mark.parametrize("name", ["m.hlo_proto", "m.hlo.pb", "m.pb.gz", "m.bin"])
def test_protos_are_what_their_text_is(tmp_path, proto, lowered, wrap, name):
    data = wrap(proto)
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    found, text = analyze_hlo(tmp_path / name), analyze_hlo(lowered.compile().as_text())
    assert (found.name, found.totals) == (text.name, text.totals)


def test_stablehlo_is_compiled(tmp_path, lowered):
    from jax._src.interpreters import mlir

    exported = jax.export.export(jax.jit(lambda x: jnp.tanh(x).sum(0)))(jax.ShapeDtypeStruct((16, 32), jnp.float32))
    (tmp_path / "a.mlir").write_text(lowered.as_text())
    (tmp_path / "b.mlirbc").write_bytes(mlir.module_to_bytecode(lowered.compiler_ir("stablehlo")))
    (tmp_path / "c.mlirbc").write_bytes(exported.mlir_module_serialized)
    found = read_sources(tmp_path, "")
    assert not found.left_out and [source.backend for source in found.sources] == ["cpu"] * 3
    for source in found.sources:
        assert "tanh" in source.text


@pytest.mark.parametrize(
    ("text", "says"),
    [("module {\n  func.func @main() {\n    oops\n  }\n}\n", "does not read as StableHLO"),
     ("module @m {\n}\n", "without a public function")],
)  # fmt: skip
def test_mlir_that_cannot_be_compiled_says_so(tmp_path, text, says):
    (tmp_path / "a.mlir").write_text(text)
    with pytest.raises(UserError, match=says):
        read_sources(tmp_path / "a.mlir", "")


def test_a_dump_is_read_largest_first_and_by_a_pattern(tmp_path):
    for number, (name, size) in enumerate((("jit_small", 8), ("jit_train_step", 123456), ("jit_train_eval", 64))):
        (tmp_path / f"module_{number:04}.{name}.cpu_after_optimizations.txt").write_text(hlo(name, size))
        (tmp_path / f"module_{number:04}.{name}.before_optimizations.txt").write_text("HloModule x\n")
    said = []
    found = labels(tmp_path, say=lambda number, of, name: said.append((number, of)))
    assert len(found) == 3 and "jit_train_step" in found[0] and said == [(1, 3), (2, 3), (3, 3)]
    assert len(labels(tmp_path, only="jit_train*")) == 2
    with pytest.raises(UserError, match="no module's name is like 'nothing'"):
        labels(tmp_path, only="nothing")


def test_of_a_dump_that_holds_a_trace_too_the_modules_are_read(tmp_path):
    (tmp_path / "module_0.jit_f.cpu_after_optimizations.txt").write_text(hlo())
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "host.xplane.pb").write_bytes(b"")
    assert len(labels(tmp_path)) == 1


def test_modules_of_one_text_are_one(tmp_path):
    for number in range(3):
        (tmp_path / f"module_{number}.jit_f.cpu_after_optimizations.txt").write_text(hlo())
    (tmp_path / "module_9.jit_f.cpu_after_optimizations.txt").write_text(hlo(size=9))
    assert sorted(source.copies for source in once(read_sources(tmp_path, "").sources)) == [1, 3]


def test_what_cannot_be_read_is_left_out_and_said(tmp_path):
    (tmp_path / "a.after_optimizations.txt").write_text(hlo())
    (tmp_path / "b.after_optimizations.txt").write_text("HloModule b\n\nENTRY e {\n")
    found = read_sources(tmp_path, "")
    assert [source.module.name for source in found.sources] == ["jit_f"]
    assert "cut off" in str(found.left_out[0])


def test_several_modules_of_a_file_have_their_own_labels(tmp_path):
    (tmp_path / "log.txt").write_text(hlo("jit_a") + "\n" + hlo("jit_b") + "\n" + hlo("jit_b"))
    assert labels(tmp_path / "log.txt") == ["log.jit_a", "log.jit_b", "log.jit_b.2"]
    with pytest.raises(UserError, match=r"holds 3 modules \(jit_a, jit_b\)"):
        analyze_hlo(tmp_path / "log.txt")


def test_a_path_that_is_not_there(tmp_path):
    (tmp_path / "module.hlo").write_text(hlo())
    with pytest.raises(UserError, match=r"--config.hlo='.*' does not exist. Did you mean 'module.hlo'\?"):
        read_sources(tmp_path / "modul.hlo", "--config.hlo=")
