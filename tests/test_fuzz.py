"""Damaged programs through the whole analyser: an analysis in every form, or one clear line; never anything else.

`pytest -m slow tests/test_fuzz.py` tries 20,000 (LLMJAX_FUZZ=N: so many); the suite a quick sample of them.
"""

from __future__ import annotations

import json
import os
import random
import re
import resource
import time
from pathlib import Path

import pytest

from llmjax.analysis import analysis_of
from llmjax.cycles.device import device_names, load_device
from llmjax.errors import UserError
from llmjax.hlo import parse, split_modules
from llmjax.hlo.document import decode
from llmjax.report.export import to_csv, to_json
from llmjax.report.html import Program, to_html
from llmjax.report.table import to_text
from llmjax.report.trace import to_trace
from tests.conftest import ROOT
from tests.hlo.wounds import distort, mutate

MANY = int(os.environ.get("LLMJAX_FUZZ", "20000"))
FEW = 160
PARTS = 8
SECONDS = 10  # of this process, for one text; a hundredth of it is usual
BYTES = 2 << 30  # that the process may grow by in a part of the run
_COMPUTATION_RE = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) [^\n]*\{\n(?:[^}\n][^\n]*\n|\n)*\}[^\n]*\n", re.MULTILINE)


def corpus() -> list[str]:
    """Texts of every backend, and of strangers where they lie beside the checkout."""
    files = sorted((ROOT / "tests" / "testdata" / "hlo").glob("*.hlo"))
    wild = ROOT.parent / "shared" / "wild"
    files += sorted(path for path in wild.glob("*") if path.suffix != ".md") if wild.is_dir() else []
    return [path.read_bytes().decode("utf-8-sig", "replace") for path in files]


def small(text: str, rng: random.Random) -> str:
    """The head of a module, a computation of it, and those that it calls."""
    blocks = {m[1]: m[0] for m in _COMPUTATION_RE.finditer(text)}
    if not blocks or len(text) < 8000:
        return text
    name = rng.choice(list(blocks))
    wanted, stack = {}, [name]
    while stack:
        block = blocks[stack.pop()]
        for callee in re.findall(r"=\{?%([\w.\-]+)", block):
            if callee in blocks and callee not in wanted and callee != name:
                wanted[callee] = blocks[callee]
                stack.append(callee)
    return text[: text.index("\n") + 1] + "\n" + "".join(wanted.values()) + blocks[name]


def analysed(text: str, device: str) -> None:
    """All that the cost job does with a text."""
    programs = []
    for part in split_modules(decode(text.encode("utf-8", "replace"), "fuzz")):
        report = analysis_of(parse(part, "fuzz"), device=load_device(device), text=part)
        cost = json.loads(to_json(report))
        for row in (cost["totals"], *cost["ops"]):
            assert all(value >= 0 for name, value in row.items() if name.endswith(("flops", "bytes")) and value), row
        to_csv(report).encode()
        to_text(report, 80).encode()
        programs.append(Program(f"p{len(programs)}", cost, part))
    assert to_html(programs).startswith("<!")
    json.loads(to_trace({program.label: program.cost for program in programs}) or "{}")


def trial(text: str, device: str) -> bool:
    """Whether the text is analysed; a UserError's line is a person's, all else the test's failure."""
    start = time.process_time()
    try:
        analysed(text, device)
        return True
    except UserError as error:
        line = str(error)
        assert "\n" not in line and 10 < len(line) < 1000, line
        return False
    finally:
        assert time.process_time() - start < SECONDS


def damaged(texts: list[str], rng: random.Random) -> str:
    text = rng.choice(texts)
    if rng.random() < 0.95:
        text = small(text, rng)
    return (distort if rng.random() < 0.75 else mutate)(text, rng)


def part_of_a_run(part: int, count: int) -> None:
    rng, texts, devices = random.Random(part), corpus(), [name for name in device_names() if name != "cpu"]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    done = 0
    for k in range(count):
        text = damaged(texts, rng)
        try:
            done += trial(text, rng.choice(devices))
        except BaseException:
            Path(os.environ.get("LLMJAX_FUZZ_KEEP", os.devnull)).write_text(text, "utf-8", "replace")
            print(f"part {part}, text {k}:\n{text[:2000]}")
            raise
    assert done > count // 10  # most damage must get past the parser for the rest to be tried at all
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10 < BYTES


HUGE = "999999999999999999"


def entry(*lines: str, header: str = "") -> str:
    return f"HloModule m{header}\nENTRY e {{\n  p = f32[8] parameter(0)\n  " + "\n  ".join(lines) + "\n}\n"


def nest(depth: int) -> str:
    """Loops inside one another, each of 2^53 iterations."""
    trips = 'backend_config={"known_trip_count":{"n":"9007199254740992"}}'
    loops = [f"w = f32[8] while(p), condition=k, body=b{k}, {trips}" for k in range(depth)]
    bodies = ["w = f32[8] negate(p)", *loops[:-1]]
    return (
        "HloModule m\nk {\n  p = f32[8] parameter(0)\n  ROOT c = pred[] constant(true)\n}\n"
        + "".join(f"b{k} {{\n  p = f32[8] parameter(0)\n  ROOT {body}\n}}\n" for k, body in enumerate(bodies))
        + entry(f"ROOT {loops[-1]}").partition("\n")[2]
    )


WINDOW = "x".join([HUGE] * 60)
ADD = "{ a = f32[] parameter(0) b = f32[] parameter(1) ROOT c = f32[] add(a, b) }"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (entry(f"q = f32[{HUGE},{HUGE}] parameter(1)"), "fewer than 2^63 bytes"),
        (entry(f"z = f32[] constant(0) r = f32[8] reduce-window(p, z), window={{size={WINDOW}}}, to_apply={ADD}"),
         "which no machine does; the text is damaged"),
        (nest(25), "a trip count is wrong (w x9007199254740992"),
        (nest(3), ""),
        (entry(f"r = f32[8] all-to-all(p), replica_groups=[1,{HUGE}]<=[{HUGE}], dimensions={{0}}, channel_id=1",
               header=f", num_partitions={HUGE}, replica_count={HUGE}"), ""),
        (entry("r = f32[8] all-gather(p), dimensions={0}, channel_id=1", header=", num_partitions=-5"), ""),
        (entry('r = f32[8] negate(p), backend_config={"outer_dimension_partitions":["x",-1],"window_config":'
               '{"estimated_cycles":"1e999"},"reification_cost":[{"end_to_end_cycles":NaN}]}'), ""),
        (entry("r = f32[8]{0:E(999999999)T(0)} negate(p)"), ""),
        (entry("k = f32[3,1,1] constant({...}) x = f32[1,8,1] reshape(p) r = f32[1,8,1] convolution(x, k),"
               " window={size=-3 stride=-1 pad=9_9}, dim_labels=b0f_0io->b0f"), ""),
        (entry("r = f32[8]{0:S(" + "2-" * 2000 + ")} negate(p)"), "a number in S("),
        (entry("r = f32[8] get-tuple-element(p), index=-9"), ""),
        (entry("r = f32[8] dot(p), lhs_contracting_dims={0}"), "2 operands of 'dot' (it has 1)"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("device", ["gpu:h100", "tpu:v5e"])
def test_absurd_figures(text, said, device):
    if not said:
        assert trial(text, device)
        return
    with pytest.raises(UserError) as caught:
        analysed(text, device)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_sample():
    part_of_a_run(0, FEW)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(1, PARTS + 1))
def test_many(part):
    part_of_a_run(part, MANY // PARTS)
