"""A row of a table -> what is to be compiled and added up for it, and the published seconds; or why not.

No JAX import.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from llmjax.cycles.published.chips import DEVICES_A_CHIP, Chip, chip_of
from llmjax.cycles.published.models import Model, model_of, step_flops
from llmjax.cycles.published.table import Row

HALF = 2  # bytes of what is cached, and of activations, weights and their gradients on the links
LESS_WORK = "the published time is shorter than the chips' data sheet allows for what the row says: it is of less work"
SAME = 0.02  # by which two published times may differ that are taken for the same
PHASES = ("forward", "gradients", "train", "prefill", "decode")


@dataclass(frozen=True, slots=True)
class Program:
    """One device's program: a model, or its share of one, and what it works on.

    `phase` is one of PHASES: "forward" gives logits of all positions, "gradients" has no optimiser. `dtype` is
    "float32" (in full), "tf32", "float16", "bfloat16" or "int8". `fused`: attention is left out of what is compiled
    and priced as one fused kernel. `remat`: each layer is computed again in the backward pass. `head`: with the
    vocabulary's product.
    """

    model: Model
    phase: str
    batch: int
    length: int
    dtype: str
    fused: bool = False
    remat: bool = False
    head: bool = True


@dataclass(frozen=True, slots=True)
class Layout:
    """How a program is spread: devices that share each layer, that share each weight, replicas, and slices of pods.

    `steps` is how often the program runs before gradients are exchanged.
    """

    tensor: int = 1
    fsdp: int = 1
    data: int = 1
    slices: int = 1
    steps: int = 1

    @property
    def devices(self) -> int:
        """All of them."""
        return self.tensor * self.fsdp * self.data * self.slices


@dataclass(frozen=True)
class Case:
    """What a row is of: programs and how often each runs, where, and the seconds that were published for all of it.

    `told` says what the case takes for granted.
    """

    row: Row
    chip: Chip
    programs: tuple[tuple[Program, float], ...]
    layout: Layout
    seconds: float
    told: tuple[str, ...] = ()


def case_of(row: Row) -> Case | str:
    """The case of a row, or the reason why there is none."""
    chip = chip_of(row.hardware)
    if chip is None:
        return f"no card of {row.hardware}"
    if row.metric == "wall time":
        return "the wall time of a whole run, with compilation: a bound, not a step's time"
    model = model_of(row.model)
    if model is None:
        return f"the sizes or blocks of {row.model} are not among llmjax's"
    dtype = _dtype(row, chip)
    if not dtype:
        return f"{row.dtype} is not computed by llmjax's models on this chip"
    batch, length = _whole(row.batch), _whole(row.length)
    if batch is None or length is None or batch < 1:
        return "rows of a step or tokens of a row are not said"
    layout = _layout(row, model, chip)
    if layout is None:
        return f"how it is spread over {row.chips} chips ({row.parallel or 'not said'}) is not known here"
    made = _programs(row, model, dtype, (batch, length), layout, chip.device.main_memory.capacity.value)
    if isinstance(made, str):
        return made
    programs, tokens, layout = made
    seconds = _seconds(row, model, (batch, length), tokens)
    if seconds is None:
        return f"{row.metric} in {row.unit} is not read as a time"
    if seconds < _roof(model, programs, layout, chip, batch):
        return LESS_WORK
    return Case(row, chip, programs, layout, seconds, _told(row, chip, programs, layout))


def of_less_work(rows: Sequence[Row]) -> frozenset[str]:
    """Ids of rows whose time is that of a longer one that `LESS_WORK` rules out, all else the same.

    What does not grow with the length that the table gives is not of that length.
    """
    series: dict[Row, list[Row]] = {}
    for row in rows:
        kind = replace(row, id="", length="", value=0.0, source="", note="")
        series.setdefault(kind, []).append(row)
    found: set[str] = set()
    for alike in series.values():
        refuted = [row for row in alike if case_of(row) == LESS_WORK] if len(alike) > 1 else []
        found |= {r.id for r in alike for other in refuted if abs(r.value / other.value - 1) <= SAME}
    return frozenset(found)


def _roof(model: Model, programs: tuple[tuple[Program, float], ...], layout: Layout, chip: Chip, batch: int) -> float:
    """The least seconds that a data sheet allows: products of the weights at its highest peak; of decoding, weights and
    the cache from main memory at its whole bandwidth. Other work is left out."""
    peak = max(figure.value for figure in chip.device.matmul.values()) * layout.devices
    bandwidth = chip.device.main_memory.bandwidth.value * layout.devices
    weights = model.layers * model.layer_parameters
    whole = 0.0
    for program, times in programs:
        rows = min(batch, program.batch * layout.devices // layout.tensor)
        if program.phase == "decode":
            width = {"int8": 1, "float32": 4, "tf32": 4}.get(program.dtype, 2)
            cache = 2 * HALF * rows * program.length * model.groups * model.head_width * model.layers
            whole += times * (width * weights + cache) / bandwidth
        else:
            passes = 3 if program.phase in ("gradients", "train") else 1
            whole += times * 2 * passes * weights * rows * program.length / peak
    return whole


def _whole(text: str) -> int | None:
    return int(float(text)) if re.fullmatch(r"\d+(\.0*)?", text) else None


def _dtype(row: Row, chip: Chip) -> str:
    """The dtype of the program; "" where it cannot be built."""
    text = row.dtype.lower()
    if "fp8" in text or "int4" in text:
        return ""
    if "int8" in text:
        return "int8"
    if "tf32" in text and "no tf32" not in text:
        return "tf32"
    if "fp32" in text and "bf16" not in text:
        return "float32"
    half = "fp16" in text or text == "half"
    narrow = chip.device.name in ("gpu:t4", "gpu:v100")  # no bfloat16 there
    return ("" if not half else "float16") if narrow else "bfloat16"


def _layout(row: Row, model: Model, chip: Chip) -> Layout | None:
    """From words as "TP8", "DP64 FSDP1 TP1", "2 slice(s), fsdp16 x tp16", "FULL_SHARD"; None where it is not said."""
    devices = row.chips * chip.devices
    if devices == 1:
        return Layout()
    text = row.parallel.lower()
    slices = int(found[1]) if (found := re.search(r"(\d+) slice", text)) else 1
    tensor = int(found[1]) if (found := re.search(r"tp(\d+)", text)) else (devices if text == "tp" else 1)
    if model.heads % tensor or devices % (tensor * slices):
        return None
    left = devices // (tensor * slices)
    fsdp = int(found[1]) if (found := re.search(r"fsdp(\d+)", text)) else 0
    if not fsdp and ("fsdp" in text or "full_shard" in text):
        fsdp = left
    data = left // max(fsdp, 1)
    said = fsdp or re.search(r"dp\d+", text) or left == 1
    if not said or max(fsdp, 1) * data != left:
        return None
    return Layout(tensor, max(fsdp, 1), data, slices)


def _programs(
    row: Row, model: Model, dtype: str, sizes: tuple[int, int], layout: Layout, memory: float
) -> tuple[tuple[tuple[Program, float], ...], float, Layout] | str:
    """Programs of one device and how often each runs, tokens that they make or read on all, and the layout."""
    batch, length = sizes
    replicas = layout.fsdp * layout.data * layout.slices
    rows, phase = max(1, batch // replicas), row.phase.lower()
    share = model.shared(layout.tensor)
    program = Program(share, "forward", rows, length, dtype, _fused(row), head=model.vocabulary > 0)
    if phase.startswith("train step") or "backward" in phase:
        return _training(row, program, layout, batch * length, memory)
    if replicas > 1:
        return "inference over replicas is not read"
    if phase.startswith("decode"):
        slots = _whole(row.more) or length  # "decode one token" counts the past apart, a step of many has the cache
        return ((replace(program, phase="decode", length=slots, fused=False), 1.0),), float(batch), layout
    if phase.startswith("prefill+generate") or phase == "generate":
        new = _whole(row.more)
        if not new:
            return "how many tokens are generated is not said"
        decode = replace(program, phase="decode", length=length + new // 2 + 1, fused=False)
        return ((replace(program, phase="prefill"), 1.0), (decode, float(new - 1))), float(batch * new), layout
    if phase.startswith("prefill"):
        return ((replace(program, phase="prefill"), 1.0),), float(batch * length), layout
    if phase.startswith("encoder forward"):
        return ((replace(program, head=False), 1.0),), float(batch * length), layout
    if phase.startswith("forward"):
        return ((program, 1.0),), float(batch * length), layout
    return f"{row.phase} is none of the phases that are built"


def _fused(row: Row) -> bool:
    """Whether the row's attention is one fused kernel.

    Of "materialised for 126M, flash for 5B" the part that names the row's model counts; of "flash from row 5" the rows
    count that add something to those before them, as "+ flash attention" in the dtype's column.
    """
    text = row.attention.lower()
    for part in text.split(","):
        form, _, models = part.partition(" for ")
        if any(name and name.strip() in row.model.lower() for name in models.split("/")):
            text = form
    if " from row" in text:
        return row.dtype.startswith("+")
    return bool(re.search("flash|splash|sdpa|cudnn", text))


def _training(
    row: Row, program: Program, layout: Layout, tokens: float, memory: float
) -> tuple[tuple[tuple[Program, float], ...], float, Layout]:
    text = f"{row.parallel} {row.note}".lower()
    steps = int(found[1]) if (found := re.search(r"grad accum (\d+)", text)) else 1
    if steps == 1 and (found := re.search(r"microbatch (\d+)", text)):
        steps = max(1, round(program.batch / int(found[1])))
    alone = layout.devices == 1 and row.phase.startswith("train")
    phase = "train" if alone else "gradients"
    program = replace(program, phase=phase, batch=max(1, program.batch // steps))
    said = _recomputes(row)
    remat = _kept_bytes(program, layout) > memory if said is None else said
    return ((replace(program, remat=remat), float(steps)),), tokens, replace(layout, steps=steps)


def _recomputes(row: Row) -> bool | None:
    """Whether layers are computed again in the backward pass; None where the row does not say."""
    text = f"{row.parallel} {row.note}".lower()
    if not re.search("act ckpt|remat", text):
        return None
    return "act ckpt true" in text or ("remat" in text and "minimal" not in text)


def _kept_bytes(program: Program, layout: Layout) -> float:
    """Bytes that a step of one text needs at least if it computes nothing again: weights, gradients, what layers keep.

    A layer keeps 34 bytes a token and column of its width, in 16 bits, and 2 a score that is written (Korthikanti et
    al. 2022, "Reducing Activation Recomputation in Large Transformer Models", eq. 1, without dropout on scores).
    """
    model, tokens = program.model, program.length
    weights = 8.0 * model.layers * model.layer_parameters / layout.fsdp
    scores = 0 if program.fused else 2 * tokens**2 * model.heads
    width = 2 if program.dtype in ("float32", "tf32") else 1
    return weights + model.layers * width * (34 * tokens * model.width / layout.tensor + scores)


def _seconds(row: Row, model: Model, sizes: tuple[int, int], tokens: float) -> float | None:
    """Published seconds of one execution; `tokens` are those that all chips make or read in it."""
    unit, (batch, length) = row.unit, sizes
    scale = {"ms": 1e-3, "us": 1e-6, "s": 1.0}.get(unit.split(" ")[0].split("(")[0])
    if scale is not None and row.metric != "throughput":
        return row.value * scale
    if unit in ("tok/s", "tokens/s"):
        return tokens / row.value
    if unit == "tokens/s/GPU":
        return tokens / row.value / row.chips
    if unit == "sequences/s":
        return batch / row.value
    if unit == "tok/s/seq":
        return 1 / row.value
    if unit in ("TFLOP/s/chip", "TFLOP/s/GPU"):
        return step_flops(model, batch, length) / (row.value * 1e12 * row.chips)
    return None


def _told(row: Row, chip: Chip, programs: tuple[tuple[Program, float], ...], layout: Layout) -> tuple[str, ...]:
    said = []
    if not chip.target.startswith(chip.device.name):
        said.append(f"compiled for {chip.target}, the nearest chip that has a compiler here")
    if any(p.fused and p.phase != "decode" for p, _ in programs):
        said.append("attention priced as one fused kernel")
    if "fp16" in row.dtype.lower() and programs[0][0].dtype == "bfloat16":
        said.append("computed in bfloat16, whose rates are float16's there")
    if re.search(r"mpt|opt", row.model, re.IGNORECASE):
        said.append("blocks of GPT-2 in the model's sizes")
    if any(p.remat for p, _ in programs) and _recomputes(row) is None:
        said.append("layers computed again in the backward pass, as memory does not hold what they keep")
    if layout.devices > 1:
        said.append(f"one device's share of {layout.devices}, collectives added by the card's links")
    if DEVICES_A_CHIP.get(chip.device.name, 1) > 1:
        said.append("two devices a chip")
    return tuple(said)
