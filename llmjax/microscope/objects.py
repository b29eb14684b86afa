"""Files of a dump (`--xla_dump_to`) and the llvm tools: the effects of the microscope. No JAX import.

XLA:CPU writes `module_0000.NAME.obj-file.KERNEL.o` for each kernel it compiles, among them kernels that several ops of
the same shape share; which function is whose is told by the symbols in them.
"""

from __future__ import annotations

import json
import platform
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmjax.errors import UserError
from llmjax.microscope.x86 import Instruction

VERSIONS = range(40, 11, -1)  # llvm-mca's JSON is there from version 12 on
ITERATIONS = 100
_SYMBOL = re.compile(r"^[0-9a-f]+ (?=.{0,8}F)[\w !]{7}\s+\S+\s+[0-9a-f]+(?:\s+\.hidden)?\s+(\S+)$")
_FILE = re.compile(r"^(.+):\s+file format (\S+)")
_SUFFIX = "after_optimizations.txt"
_RETURNS = ("ret", "ud2", "call")


@dataclass(frozen=True, slots=True)
class Tools:
    """The programs that disassemble and simulate, and LLVM's version, which both have."""

    objdump: str
    mca: str
    version: str


@dataclass(frozen=True, slots=True)
class Module:
    """A module of a dump: the file of its optimised HLO and the object files of its kernels."""

    hlo: Path
    objects: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Simulation:
    """What llvm-mca says of code that repeats: cycles of an iteration and where they go.

    `pressure` has the cycles an iteration keeps each unit of the processor busy, equal units on average. `throughput`
    is what an iteration takes at least, by its units and by the width of the front end. Where `cycles` are well above
    it, instructions wait for one another's results. `unsupported` says why there are no figures, "" where there are.
    """

    cycles: float
    throughput: float
    micro_ops: float
    pressure: Mapping[str, float]
    unsupported: str = ""


def find_tools() -> Tools:
    """Finds llvm-objdump and llvm-mca of one version, the newest there is.

    Raises:
        UserError: one of them is not installed.
    """
    for suffix in [*(f"-{version}" for version in VERSIONS), ""]:
        found = [shutil.which(f"{name}{suffix}") for name in ("llvm-objdump", "llvm-mca")]
        if found[0] and found[1]:
            return Tools(found[0], found[1], _version(found[1]))
    # Homebrew keeps LLVM out of the PATH.
    for folder in ("/opt/homebrew/opt/llvm/bin", "/usr/local/opt/llvm/bin"):
        found = [shutil.which(name, path=folder) for name in ("llvm-objdump", "llvm-mca")]
        if found[0] and found[1]:
            return Tools(found[0], found[1], _version(found[1]))
    install = "brew install llvm" if platform.system() == "Darwin" else "apt-get install llvm"
    raise UserError(f"the microscope reads machine code with llvm-objdump and llvm-mca: {install}")


def _version(tool: str) -> str:
    m = re.search(r"LLVM version (\S+)", _run([tool, "--version"]).stdout)
    return m[1] if m else "unknown"


def modules(dump: Path) -> tuple[Module, ...]:
    """The optimised modules of a dump that have object files, or the one whose HLO file is named.

    Raises:
        UserError: there is no such folder, or none in it.
    """
    if dump.is_file():
        folder, texts = dump.parent, [dump]
    elif dump.is_dir():
        folder, texts = dump, sorted(dump.glob(f"*{_SUFFIX}"))
    else:
        raise UserError(f"--config.dump={str(dump)!r} does not exist.")
    found = []
    for text in texts:
        stem = re.sub(rf"\.(cpu_)?{_SUFFIX}$", "", text.name)
        objects = sorted(p for p in folder.glob(f"{_escaped(stem)}.*.o") if ".obj-file." in p.name)
        if objects or dump.is_file():
            found.append(Module(text, tuple(objects)))
    if not found:
        wanted = "XLA_FLAGS='--xla_dump_to=FOLDER --xla_dump_hlo_as_text'"
        raise UserError(
            f"--config.dump={str(dump)!r} holds no HLO with object files of a CPU: dump with {wanted}, and an empty"
            " JAX_COMPILATION_CACHE_DIR (what is taken from a cache is not compiled)."
        )
    return tuple(found)


def _escaped(stem: str) -> str:
    return re.sub(r"([\[\]*?])", r"[\1]", stem)


def symbols(tools: Tools, objects: Sequence[Path]) -> dict[str, Path]:
    """Functions of object files and the file each is in.

    Raises:
        UserError: the files are of another processor than x86-64.
    """
    if not objects:
        return {}
    done = _run([tools.objdump, "--syms", *map(str, objects)])
    found: dict[str, Path] = {}
    file = objects[0]
    for line in done.stdout.splitlines():
        if m := _FILE.match(line):
            file = Path(m[1])
            if "x86-64" not in m[2] and "x86_64" not in m[2]:
                raise UserError(f"{file.name} is code for {m[2]}; the microscope reads x86-64 only.")
        elif m := _SYMBOL.match(line):
            found.setdefault(m[1], file)
    return found


def disassemble(tools: Tools, file: Path) -> str:
    """The code of an object file in AT&T syntax."""
    done = _run([tools.objdump, "-d", "--no-show-raw-insn", "--x86-asm-syntax=att", str(file)])
    if done.returncode or "file format" not in done.stdout:
        done = _run([tools.objdump, "-d", "--no-show-raw-insn", str(file)])
    if done.returncode:
        raise UserError(f"llvm-objdump cannot read {file.name}: {_first(done.stderr)}")
    return done.stdout


def assembly(regions: Sequence[Sequence[Instruction]]) -> str:
    """Assembler text with a region for llvm-mca of each list of instructions; jumps go to labels.

    Returns and calls are left out: llvm-mca has no cost for what they lead to.
    """
    lines = []
    for k, instructions in enumerate(regions):
        lines += [f"# LLVM-MCA-BEGIN {k}", f".L{k}:"]
        for i in instructions:
            if not i.mnemonic.startswith(_RETURNS):
                lines.append(f"{i.mnemonic} .L{k}" if i.is_jump else i.text)
        lines.append("# LLVM-MCA-END")
    return "\n".join(lines) + "\n"


def simulate(
    tools: Tools, regions: Sequence[Sequence[Instruction]], cpu: str = "", iterations: int = ITERATIONS
) -> tuple[str, tuple[Simulation, ...]]:
    """Simulates each region as a loop that repeats, by llvm-mca; caches always hit.

    Args:
        cpu: a processor that LLVM knows (`znver4`), empty = this machine's.

    Returns:
        the name of the processor that was simulated, and a result for each region.

    Raises:
        UserError: LLVM does not know the processor.
    """
    if not regions:
        return cpu, ()
    done = _mca(tools, assembly(regions), cpu, iterations)
    if "not a recognized processor" in done.stderr or "unable to find target" in done.stderr:
        raise UserError(
            f"--config.cpu={cpu!r}: LLVM {tools.version} knows no such processor; `{tools.mca} -mcpu=help` lists them."
        )
    found = _json(done.stdout)
    if found is not None and len(found["CodeRegions"]) == len(regions):
        return found["TargetInfo"]["CPUName"], tuple(_simulation(region, found) for region in found["CodeRegions"])
    # One instruction that LLVM cannot schedule stops it all: each region by itself.
    if len(regions) > 1:
        each = [simulate(tools, [region], cpu, iterations) for region in regions]
        return each[0][0], tuple(result for _, (result,) in each)
    return cpu, (Simulation(0.0, 0.0, 0.0, {}, _first(done.stderr) or "llvm-mca says nothing"),)


def _mca(tools: Tools, text: str, cpu: str, iterations: int) -> subprocess.CompletedProcess[str]:
    command = [tools.mca, "-mtriple=x86_64", f"-mcpu={cpu or 'native'}", f"-iterations={iterations}", "-json"]
    return _run(command, text)


def _json(text: str) -> Any:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) and found.get("CodeRegions") else None


def _simulation(region: Mapping[str, Any], found: Mapping[str, Any]) -> Simulation:
    summary, names = region["SummaryView"], found["TargetInfo"]["Resources"]
    whole = len(region["Instructions"])
    pressure: dict[str, float] = {}
    counts = Counter(map(_unit, names))
    for usage in region["ResourcePressureView"]["ResourcePressureInfo"]:
        if usage["InstructionIndex"] == whole:
            name = _unit(names[usage["ResourceIndex"]])
            pressure[name] = pressure.get(name, 0.0) + float(usage["ResourceUsage"]) / counts[name]
    turns = summary["Iterations"]
    cycles, throughput = summary["TotalCycles"] / turns, float(summary["BlockRThroughput"])
    return Simulation(cycles, throughput, summary["TotaluOps"] / turns, pressure)


def _unit(name: str) -> str:
    """`Zn4FP45.\\x00` -> `FP45`, `SKXPort05` -> `Port05`: without the processor's prefix and the number of an equal."""
    name = re.sub(r"\.[\x00-\x1f\d]+$", "", name)
    return re.sub(r"^(?:Zn\d|[A-Z]{2,5}(?=Port|Divider|FP)|J(?=[A-Z]))", "", name)


def _run(command: Sequence[str], text: str | None = None) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    except OSError as error:
        raise UserError(f"{command[0]} cannot be run: {error.strerror or error}.") from error


def _first(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return next((line for line in lines if "error:" in line), lines[0] if lines else "")[:200]
