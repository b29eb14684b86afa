"""Files of a dump, and the llvm tools where they are installed."""

import pytest

from llmjax.errors import UserError
from llmjax.microscope import objects
from llmjax.microscope.x86 import parse
from tests.microscope.code import NESTED


@pytest.fixture
def tools():
    try:
        return objects.find_tools()
    except UserError as error:
        pytest.skip(str(error))


def test_missing_tools_are_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(objects.shutil, "which", lambda name, path=None: None)
    with pytest.raises(UserError, match=r"llvm-objdump and llvm-mca: (apt-get|brew) install llvm$"):
        objects.find_tools()


def test_the_newest_pair_of_tools_is_taken(monkeypatch):
    there = {"llvm-objdump", "llvm-mca", "llvm-objdump-14", "llvm-mca-14", "llvm-objdump-19"}
    monkeypatch.setattr(objects.shutil, "which", lambda name, path=None: f"/bin/{name}" if name in there else None)
    monkeypatch.setattr(objects, "_version", lambda tool: "14.0.6")
    assert objects.find_tools() == objects.Tools("/bin/llvm-objdump-14", "/bin/llvm-mca-14", "14.0.6")


def test_modules_of_a_dump(tmp_path):
    kernel = "module_0001.jit_f.obj-file.a_kernel_module.o"
    texts = [f"{name}.cpu_after_optimizations.txt" for name in ("module_0001.jit_f", "module_0002.jit_g")]
    for name in (kernel, *texts, "module_0001.jit_f.before_optimizations.txt"):
        (tmp_path / name).write_text("")
    (found,) = objects.modules(tmp_path)
    assert found.hlo.name == "module_0001.jit_f.cpu_after_optimizations.txt"
    assert [p.name for p in found.objects] == [kernel]
    assert objects.modules(found.hlo) == (found,)
    for wrong in (tmp_path / "nowhere", tmp_path / "empty"):
        if wrong.name == "empty":
            wrong.mkdir()
        with pytest.raises(UserError, match=r"--config\.dump="):
            objects.modules(wrong)


def test_symbols_are_read_of_any_section(monkeypatch, tmp_path):
    table = (
        "a.o:\tfile format elf64-x86-64\n\nSYMBOL TABLE:\n"
        "0000000000000000 l    df *ABS*\t0000000000000000 __compute_module_f\n"
        "0000000000000000 g     F .ltext\t000000000000010e exp_fusion.47\n"
        "b.o:\tfile format elf64-x86-64\n"
        "0000000000000010 l     F .text\t0000000000000010 .hidden helper\n"
    )
    monkeypatch.setattr(objects, "_run", lambda command, text=None: type("Done", (), {"stdout": table})())
    found = objects.symbols(objects.Tools("objdump", "mca", "19"), [tmp_path / "a.o"])
    assert {name: file.name for name, file in found.items()} == {"exp_fusion.47": "a.o", "helper": "b.o"}
    table = table.replace("elf64-x86-64", "elf64-littleaarch64")
    with pytest.raises(UserError, match="elf64-littleaarch64; the microscope reads x86-64 only"):
        objects.symbols(objects.Tools("objdump", "mca", "19"), [tmp_path / "a.o"])


def test_jumps_become_labels_and_calls_are_left_out():
    (function,) = parse(NESTED + "      48:      \tcallq\t*%rax\n")
    text = objects.assembly([function.instructions])
    assert "jne .L0" in text and "call" not in text and "ret" not in text and "<scale" not in text


def test_simulation(tools):
    (function,) = parse(NESTED)
    code = function.instructions[6:12]
    cpu, (found, chain) = objects.simulate(tools, [code, [function.instructions[7]]], "znver3")
    assert cpu == "znver3" and not found.unsupported
    assert found.throughput <= found.cycles + 1e-6 and found.cycles >= 1  # it stores once
    assert chain.cycles > chain.throughput  # each multiply-add waits for the one before
    assert found.pressure and all(name.isprintable() for name in found.pressure)


def test_an_unknown_processor_is_one_line(tools):
    with pytest.raises(UserError, match=r"--config.cpu='znver99': LLVM .* knows no such processor"):
        objects.simulate(tools, [parse(NESTED)[0].instructions[6:12]], "znver99")


def test_code_that_cannot_be_simulated_costs_only_itself(tools):
    good = parse(NESTED)[0].instructions[6:12]
    bad = parse("0000000000000000 <f>:\n   0:      \tfrobnicate\t%rax\n")[0].instructions
    _, (first, second) = objects.simulate(tools, [good, bad])
    assert not first.unsupported and first.cycles > 0 and second.unsupported
