"""Published kernel times as arrays: aiconfigurator's tables (Apache-2.0), and NeuSight's from a folder of the user's.

Tables are read, no code of either project is run, and no row of them is kept here.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from llmjax.errors import UserError
from llmjax.packages import Package, fetch

VERSION = "0.12.0"
_ROOT = "aiconfigurator_core/systems/data"
# Our cards that it has tables of, by its name.
CHIPS = {
    "gpu:a100": "a100_sxm",
    "gpu:h100": "h100_sxm",
    "gpu:h200": "h200_sxm",
    "gpu:b200": "b200_sxm",
    "gpu:b300": "b300_sxm",
    "gpu:l40s": "l40s",
    "gpu:rtx-pro-6000": "rtx_pro_6000_server",
}
_TABLES = ("gemm_perf", "context_attention_perf", "generation_attention_perf", "nccl_perf", "scale_matrix_perf")
WHEEL = Package(
    name="aiconfigurator-core",
    version=VERSION,
    archive=f"aiconfigurator_core-{VERSION}-cp311-abi3-manylinux_2_28_x86_64.whl",
    sha256="aadc4aad0a00bf8a61c477c62bef43de479849c3aa0b1c3078068e08309eccc4",
    take=tuple(f"{_ROOT}/*/{table}.parquet" for table in _TABLES),
)
SOURCE = f"aiconfigurator-core {VERSION} (NVIDIA, Apache-2.0, 2026)"

Array = np.ndarray


class Products(NamedTuple):
    """Matrix products of a chip: rows, columns, terms of a sum, batch, seconds, and who measured each."""

    m: Array
    n: Array
    k: Array
    batch: Array
    seconds: Array
    source: Array


class Attentions(NamedTuple):
    """Fused attention kernels, causal: a prompt where `queries` > 1, decoding where it is 1.

    `keys` counts what a row attends to at most, `heads` and `groups` those of queries and of keys.
    """

    batch: Array
    queries: Array
    keys: Array
    heads: Array
    groups: Array
    width: Array
    seconds: Array
    source: Array


class Collectives(NamedTuple):
    """Collectives by one algorithm of NCCL: devices, bytes of the whole message, seconds, version of NCCL."""

    group: Array
    bytes: Array
    seconds: Array
    source: Array


class Streams(NamedTuple):
    """Kernels that read and write each element once or so: bytes moved, seconds, name of the operation."""

    bytes: Array
    seconds: Array
    name: Array


def tables(cache: Path | None = None) -> Path:
    """Returns the folder of aiconfigurator's tables, fetched by pip where they are not there yet."""
    return fetch(WHEEL, "configs/fit_card.py", "name chips of NeuSight's only", cache) / _ROOT


def products(folder: Path, chip: str) -> Products:
    """Products in bfloat16 of a card's chip. Those in 8 bits are left: frameworks round operands to them meanwhile."""
    found = _read(folder / CHIPS[chip], "gemm_perf")
    keep = (found["gemm_dtype"] == "bfloat16") & (found["latency"] > 0)
    m, n, k = (found[name][keep].astype(float) for name in ("m", "n", "k"))
    return Products(m, n, k, np.ones_like(m), found["latency"][keep] * 1e-3, found["source"][keep])


def typical(rows: Products) -> Products:
    """One row a shape: the median of those who measured it."""
    shapes, inverse = np.unique(np.stack(rows[:4]), axis=1, return_inverse=True)
    order = np.lexsort((rows.seconds, inverse))
    starts = np.searchsorted(inverse[order], np.arange(shapes.shape[1]))
    counts = np.diff(np.append(starts, len(order)))
    low, high = (rows.seconds[order][starts + half] for half in ((counts - 1) // 2, counts // 2))
    m, n, k, batch = shapes
    return Products(m, n, k, batch, np.sqrt(low * high), np.full(len(starts), "median", dtype=object))


def attentions(folder: Path, chip: str) -> Attentions:
    """Attention kernels in bfloat16 of head widths 64 and 128 over whole sequences, prompts from their first token."""
    parts = []
    for table in ("context_attention_perf", "generation_attention_perf"):
        found = _read(folder / CHIPS[chip], table)
        decode = table.startswith("generation")
        keep = (found["attn_dtype"] == "bfloat16") & (found["kv_cache_dtype"] == "bfloat16") & (found["latency"] > 0)
        keep &= np.isin(found["head_dim"], (64, 128)) & (np.nan_to_num(found["window_size"].astype(float)) == 0)
        keep &= np.ones_like(keep) if decode else found["step"] == 0
        batch, length, heads, groups, width = (
            found[name][keep].astype(float)
            for name in ("batch_size", "isl", "num_heads", "num_key_value_heads", "head_dim")
        )
        keys = found["step"][keep].astype(float) + 1 if decode else length
        queries = np.ones_like(length) if decode else length
        groups = np.where(groups == 0, heads, groups)
        seconds = found["latency"][keep] * 1e-3
        parts.append(Attentions(batch, queries, keys, heads, groups, width, seconds, found["source"][keep]))
    return Attentions(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


_NCCL = {
    "all-reduce": "all_reduce",
    "all-gather": "all_gather",
    "reduce-scatter": "reduce_scatter",
    "all-to-all": "alltoall",
}


def collectives(folder: Path, chip: str, name: str) -> Collectives:
    """Collectives in half precision; `message_size` counts elements there, two bytes each."""
    found = _read(folder / CHIPS[chip], "nccl_perf")
    keep = (found["op_name"] == _NCCL[name]) & (found["nccl_dtype"] == "half") & (found["latency"] > 0)
    group, size = found["num_gpus"][keep].astype(float), 2.0 * found["message_size"][keep].astype(float)
    return Collectives(group, size, found["latency"][keep] * 1e-3, found["source"][keep])


def scalings(folder: Path, chip: str, cache: float) -> Streams:
    """Scaling of a matrix to 8 bits, by TensorRT-LLM and vLLM: 2 bytes of each element are read and 1 is written.

    Rows repeat on the same data: those are kept that are too small to matter where they lie, or far above the `cache`.
    """
    found = _read(folder / CHIPS[chip], "scale_matrix_perf")
    if not found:
        return Streams(np.zeros(0), np.zeros(0), np.zeros(0, dtype=object))
    moved = 3.0 * found["m"] * found["k"]
    keep = np.array([not str(source).startswith("sglang") for source in found["source"]]) & (found["latency"] > 0)
    keep &= (moved < 1e6) | (moved > 24 * cache)
    return Streams(moved[keep], found["latency"][keep] * 1e-3, found["source"][keep])


def _read(chip: Path, table: str) -> dict[str, Array]:
    """Columns of all versions' files of a table; `source` is framework/version, a column that one lacks NaN there."""
    import pyarrow.parquet as parquet

    parts = []
    for path in sorted(chip.glob(f"*/*/*/{table}.parquet")):
        columns = {name: column.to_numpy() for name, column in _columns(parquet.read_table(path)).items()}
        rows = len(columns["latency"])
        parts.append(columns | {"source": np.full(rows, "/".join(path.parts[-3:-1]), dtype=object)})
    names = sorted({name for part in parts for name in part})
    return {
        name: np.concatenate([part.get(name, np.full(len(part["latency"]), np.nan)) for part in parts])
        for name in names
    }


def _columns(table):  # pyarrow has no types
    return {name: table.column(name) for name in table.column_names}


# NeuSight's devices whose data sheet differs from our card's: the card, and the bandwidth that theirs has, in bytes/s.
NEUSIGHT: Mapping[str, tuple[str, float]] = {
    "NVIDIA A100 80GB PCIe": ("gpu:a100", 1935e9),
    "NVIDIA H100 80GB HBM3": ("gpu:h100", 3.35e12),
    "NVIDIA L4": ("gpu:l4", 300e9),
    "Tesla T4": ("gpu:t4", 320e9),
    "Tesla V100-PCIE-32GB": ("gpu:v100", 900e9),
}
NEUSIGHT_SOURCE = "NeuSight's measurements (S. Lee et al., ASPLOS 2025; MIT), float32 without TF32"
# Arrays that each operation reads and writes, of the size it is given ("u": by a scalar).
_TOUCHES = {"add": 3, "div": 3, "mul": 3, "pow": 3}


def neusight(folder: Path, device: str) -> tuple[Products, Streams, Streams]:
    """Products in full float32, elementwise operations, and softmax and layer norm, of one of NEUSIGHT's devices.

    `folder` holds its `dataset` (scripts/asplos/data/dataset): any CSV files under it that have these columns.
    """
    rows = [row for row in _csv(folder) if row.get("Device") == device]
    matrix = [row for row in rows if row["OPName"] in ("linear", "bmm")]
    m, n, k, batch = (np.array([float(row[name]) for row in matrix]) for name in ("M", "N", "K", "B"))
    seconds = np.array([float(row["Latency"]) * 1e-3 for row in matrix])
    names = np.array([row["OPName"] for row in matrix], dtype=object)
    wide = [row for row in rows if row["OPName"] not in ("linear", "bmm") and row.get("H")]
    elementwise = [row for row in wide if row["OPName"] not in ("softmax", "ln")]
    rowwise = [row for row in wide if row["OPName"] in ("softmax", "ln")]
    return Products(m, n, k, batch, seconds, names), _streams(elementwise), _streams(rowwise)


def _streams(rows: Sequence[Mapping[str, str]]) -> Streams:
    touched = np.array([4.0 * float(r["B"]) * float(r["H"]) * _TOUCHES.get(r["OPName"], 2) for r in rows])
    seconds = np.array([float(r["Latency"]) * 1e-3 for r in rows])
    return Streams(touched, seconds, np.array([r["OPName"] for r in rows], dtype=object))


def _csv(folder: Path) -> list[dict[str, str]]:
    found: dict[tuple[str, ...], dict[str, str]] = {}
    for path in sorted(folder.rglob("*.csv")):
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if row.get("OPName") and row.get("Latency"):
                    key = tuple(str(row.get(name)) for name in ("Device", "OPName", "B", "M", "N", "K", "H", "Latency"))
                    found[key] = row
    if not found:
        raise UserError(f"neusight={str(folder)!r} holds no CSV file with the columns OPName and Latency.")
    return list(found.values())
