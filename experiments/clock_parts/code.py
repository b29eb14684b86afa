"""What kind of code XLA wrote for a program: its floating-point instructions by the width of their registers."""

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

# x86's arithmetic on floats: packed (ps, pd) or of one number (ss, sd), in SSE's or AVX's spelling.
_ARITHMETIC = re.compile(r"v?(?:add|sub|mul|div|max|min|sqrt|fn?m(?:add|sub)\d*)(ps|pd|ss|sd)$")
_WIDTHS = {"zmm": 512, "ymm": 256, "xmm": 128}
DUMP = "--xla_dump_to={} --xla_dump_hlo_as_text"


def disassemble(folder: Path) -> list[str] | None:
    """Lines of assembly of all object files of a dump; None where there is no disassembler."""
    tool = next((found for name in ("llvm-objdump", "objdump") if (found := shutil.which(name))), None)
    files = [str(file) for file in sorted(folder.glob("*.o"))]
    if tool is None or not files:
        return None
    done = subprocess.run([tool, "-d", "--no-show-raw-insn", *files], capture_output=True, text=True, check=False)
    return done.stdout.splitlines() if done.returncode == 0 else None


def widths(lines: Iterable[str]) -> dict[str, dict[int, int]]:
    """Counts instructions of float arithmetic by object file and by bits: 32 for one number at a time, 128, 256, 512.

    A kernel without any is left out.
    """
    found: dict[str, Counter[int]] = {}
    file = ""
    for line in lines:
        if "file format" in line and ":" in line:
            file = line.partition(":")[0]
            continue
        name, *operands = " ".join(line.split("\t")[1:]).split(None, 1) or [""]
        match = _ARITHMETIC.match(name)
        if match is None:
            continue
        wide = next((bits for kind, bits in _WIDTHS.items() if kind in " ".join(operands)), 128)
        found.setdefault(file, Counter())[32 if match[1] in ("ss", "sd") else wide] += 1
    return {file: dict(sorted(counts.items())) for file, counts in found.items()}


def describe(found: dict[str, dict[int, int]] | None) -> str:
    """The counts in words: "no vector instruction in 33 of 37 kernels, up to 128 bits in the others"."""
    if not found:
        return "its code was not looked at"
    scalar = sum(max(counts) == 32 for counts in found.values())
    widest = max(max(counts) for counts in found.values())
    kernels = f"{len(found)} kernel{'s' if len(found) > 1 else ''}"
    if scalar == len(found):
        return f"no vector instruction in any of {kernels}"
    if not scalar:
        return f"vectors of up to {widest} bits in all of {kernels}"
    return f"no vector instruction in {scalar} of {kernels}, up to {widest} bits in the others"
