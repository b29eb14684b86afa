"""Rows of single kernels: products, collectives and copies, predicted from a card's terms alone. No JAX import."""

from __future__ import annotations

import math
import re

from llmjax.cycles import terms as known
from llmjax.cycles.device import Device, peak
from llmjax.cycles.gpu import kind_of, unit
from llmjax.cycles.kernels import product
from llmjax.cycles.published.chips import Chip, chip_of
from llmjax.cycles.published.models import model_of
from llmjax.cycles.published.pricing import between_slices, collective
from llmjax.cycles.published.table import Row

_PRODUCT = re.compile(r"GEMM \((\d+),(\d+),(\d+)\)|matmul (\d+)\^3")
_COLLECTIVE = re.compile(
    r"(all_?reduce|all_?gather|reduce_?scatter|all_?to_?all|psum_ici|psum_dcn) (.*)", re.IGNORECASE
)
_COPY = re.compile(r"HBM copy (\d+) bytes")
_LAYER = re.compile(r"(\S+) (\w+), (\d+) tokens")
_ARRAY = re.compile(r"(f32|bf16)\[([\d,]+)\]")
_NAMES = {"all_reduce": "all-reduce", "all_gather": "all-gather", "reduce_scatter": "reduce-scatter"}
_NAMES |= {"alltoall": "all-to-all", "all_to_all": "all-to-all", "psum_ici": "all-reduce"}
_BYTES = {"f32": 4, "bf16": 2, "half": 2, "fp16": 2}
_DTYPES = {"fp32": "f32", "tf32": "tf32", "fp16": "f16"}


def kernel_seconds(row: Row) -> tuple[float, float, Chip] | str:
    """Predicted and published seconds of a row's kernel and its chip, or why there are none."""
    chip = chip_of(row.hardware)
    if chip is None:
        return f"no card of {row.hardware}"
    if found := _PRODUCT.search(row.model):
        m, n, k = (int(each) for each in (found.groups()[:3] if found[1] else (found[4],) * 3))
        return _pair(row, _product(m, n, k, _DTYPES.get(row.dtype, "bf16"), chip.device), 0.0, chip)
    if found := _COPY.search(row.model):
        return _pair(row, _copy(2.0 * int(found[1]) / chip.devices, chip.device), 2.0 * int(found[1]), chip)
    if found := _LAYER.search(row.model):
        seconds = _of_layer(found[2], int(found[3]), found[1], _DTYPES.get(row.dtype, "bf16"), chip.device)
        return seconds if isinstance(seconds, str) else _pair(row, seconds, 0.0, chip)
    if found := _COLLECTIVE.search(row.model):
        return _exchanged(row, found[1].lower(), found[2], chip)
    return f"{row.model} is none of the kernels that are read (GEMM (m,n,k), matmul n^3, HBM copy, collectives)"


def _pair(row: Row, seconds: float, moved: float, chip: Chip) -> tuple[float, float, Chip] | str:
    """With the published time; `moved` are the bytes that a published bandwidth counts."""
    scale = {"s": 1.0, "ms": 1e-3, "us": 1e-6}.get(row.unit)
    if scale is not None:
        return seconds, row.value * scale, chip
    if row.unit.startswith("GB/s") and moved:
        return seconds, moved / (row.value * 1e9), chip
    return f"{row.metric} in {row.unit} is not read as a time"


def _product(m: int, n: int, k: int, dtype: str, device: Device) -> float:
    terms = known.values(device)
    if device.kind == "tpu":
        memory = 2 * (m * k + k * n + m * n) / (device.main_memory.bandwidth.value * terms["hbm.bandwidth"])
        return terms["op.start"] + max(
            2 * m * n * k / (peak(device.matmul, dtype).value * terms["product.share"]), memory
        )
    kind = kind_of(device, dtype)
    machine = unit(device, dtype, terms[f"{kind}.bandwidth"])
    memory = (m * k + k * n + m * n) * machine.width / machine.bandwidth
    return product((m, n, k, 1), memory, machine, terms, kind).total


def _of_layer(op: str, tokens: int, name: str, dtype: str, device: Device) -> float | str:
    """An operation of a named model's layer, by Vidur's names (Agrawal et al. 2024)."""
    model = model_of(name)
    if model is None:
        return f"the sizes of {name} are not known"
    mixed = model.heads * model.head_width
    products = {
        "attn_pre_proj": (mixed + 2 * model.groups * model.head_width, model.width),
        "attn_post_proj": (model.width, mixed),
        "mlp_up_proj": (model.inner, model.width),
        "mlp_down_proj": (model.width, model.inner),
    }
    if op in products:
        return _product(tokens, *products[op], dtype, device)
    streams = {"add": (3 * model.width, "stream"), "mlp_act": (2 * model.inner, "stream")}
    streams |= {"layernorm": (2 * model.width, "reduce"), "rms_norm": (2 * model.width, "reduce")}
    if op not in streams or device.kind != "gpu":
        return f"{op} is no operation that is read"
    elements, share = streams[op]
    terms = known.values(device)
    rate = device.main_memory.bandwidth.value * terms[f"{share}.bandwidth"]
    return terms["stream.start"] + 2.0 * tokens * elements / rate


def _copy(moved: float, device: Device) -> float:
    terms = known.values(device)
    start, share = ("op.start", "hbm.bandwidth") if device.kind == "tpu" else ("stream.start", "stream.bandwidth")
    return terms[start] + moved / (device.main_memory.bandwidth.value * terms[share])


def _exchanged(row: Row, name: str, what: str, chip: Chip) -> tuple[float, float, Chip] | str:
    """A collective: "all_gather 1048576 (message_size)" counts elements, "f32[64,8,128]->f32[256,8,128]" has shapes."""
    arrays = [_BYTES[d] * math.prod(int(n) for n in dims.split(",")) for d, dims in _ARRAY.findall(what)]
    group = row.chips
    counted = re.match(r"(\d+) \(message_size\)", what)
    square = re.match(r"(bf16|f32) (\d+)\^2", what)
    if counted:
        size = float(int(counted[1]) * _BYTES.get(row.dtype, 2))
    elif square:
        size = float(_BYTES[square[1]] * int(square[2]) ** 2)
    elif arrays:
        size, group = float(max(arrays)), max(arrays) // min(arrays)
    else:
        return f"the size of {row.model} is not read"
    if name == "psum_dcn":
        return _pair(row, between_slices(chip.device, 2, size), size, chip)
    if group == 1:
        return "how many devices take part is not said"
    seconds = collective(chip.device, _NAMES[name], group, size, 1, row.chips)
    return _pair(row, seconds, chip.devices * size * (group - 1) / group, chip)  # each device of a chip sends its own
