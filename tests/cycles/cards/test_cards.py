"""Cards fitted to published kernel times: tables as they are published, made up; fits that find what made them."""

import csv
from dataclasses import replace

import numpy as np
import pyarrow
import pyarrow.parquet as parquet
import pytest

from llmjax.cycles import terms as known
from llmjax.cycles.cards import build, fit, tables
from llmjax.cycles.cards.fit import check, products_kind
from llmjax.cycles.device import load_device
from llmjax.errors import UserError

H100 = replace(load_device("gpu:h100"), terms={})
TYPICAL = known.values(H100)
TRUE = TYPICAL | {"product.start": 4e-6, "product.share": 0.6, "product.step": 300.0, "product.bandwidth": 0.7}


def shapes():
    sizes = np.array(
        [[m, n, k] for m in (1, 16, 300, 4096) for n in (256, 1024, 3000, 8192) for k in (512, 4096)], float
    )
    return sizes.T


def made_up(sources=("a/1", "b/2")):
    m, n, k = (np.tile(size, len(sources)) for size in shapes())
    source = np.repeat(np.array(sources, dtype=object), len(m) // len(sources))
    rows = tables.Products(m, n, k, np.ones_like(m), np.ones_like(m), source)
    seconds = products_kind(rows, H100, "bf16").predict(TRUE, np.arange(len(m)))
    return rows._replace(seconds=seconds)


def test_a_fit_finds_the_terms_that_made_the_times():
    kind = products_kind(made_up(), H100, "bf16")
    terms = fit.fit(kind, H100, TYPICAL)
    for name in ("product.start", "product.share", "product.bandwidth"):
        assert terms[name] == pytest.approx(TRUE[name], rel=0.05), name
    error = check(kind, TYPICAL | terms)
    assert error.error < 0.02 and error.kernels == kind.held.sum() > 0
    assert check(kind, TYPICAL).error > 0.1


def test_what_is_held_out_is_not_fitted():
    kind = products_kind(made_up(), H100, "bf16")
    spoiled = replace(kind, seconds=np.where(kind.held, 1.0, kind.seconds))
    assert fit.fit(spoiled, H100, TYPICAL) == fit.fit(kind, H100, TYPICAL)


def test_a_source_is_left_out_of_its_own_check():
    rows = made_up()
    doubled = rows._replace(seconds=np.where(rows.source == "b/2", 2 * rows.seconds, rows.seconds))
    apart = fit.by_source(products_kind(doubled, H100, "bf16"), H100, TYPICAL)
    assert apart is not None and apart.error > 0.4
    assert fit.by_source(products_kind(made_up(["a/1"]), H100, "bf16"), H100, TYPICAL) is None


def test_no_term_leaves_its_range():
    rows = made_up()
    kind = products_kind(rows._replace(seconds=rows.seconds / 1000), H100, "bf16")
    for name, value in fit.fit(kind, H100, TYPICAL).items():
        term = known.TERMS["gpu"][name]
        assert term.low <= value <= term.high, name


def test_those_who_measured_a_shape_are_heard_together():
    columns = ([1, 1, 1, 2], [8] * 4, [4] * 4, [1] * 4, [3, 1, 2, 9])
    rows = tables.Products(*(np.array(column, float) for column in columns), np.array(list("abca"), dtype=object))
    found = tables.typical(rows)
    assert list(found.m) == [1, 2] and list(found.seconds) == [2, 9]


def write(folder, chip, framework, table, columns):
    path = folder / tables.CHIPS[chip] / "kind" / framework / "1.0" / f"{table}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.table(columns), path)


def publish(folder, chip):
    m, n, k = shapes()
    seconds = products_kind(made_up(["x"]), H100, "bf16").predict(TRUE, np.arange(len(m)))
    gemm = {"m": m, "n": n, "k": k, "latency": seconds * 1e3}
    for framework in ("one", "two"):
        write(folder, chip, framework, "gemm_perf", gemm | {"gemm_dtype": ["bfloat16"] * len(m)})
    lengths = [128, 512, 1024, 2048, 4096, 8192]
    base = {"attn_dtype": ["bfloat16"] * 6, "kv_cache_dtype": ["bfloat16"] * 6, "head_dim": [128] * 6}
    base |= {"batch_size": [4] * 6, "num_heads": [32] * 6, "num_key_value_heads": [8] * 6, "window_size": [0] * 6}
    latency = [0.02, 0.03, 0.06, 0.2, 0.7, 2.5]
    write(folder, chip, "one", "context_attention_perf", base | {"isl": lengths, "step": [0] * 6, "latency": latency})
    once = base | {"isl": [1] * 6, "step": lengths, "latency": [0.012, 0.013, 0.02, 0.03, 0.05, 0.09]}
    write(folder, chip, "one", "generation_attention_perf", once)
    sizes = 2 ** np.arange(8, 28)
    ops = {"message_size": np.tile(sizes, 4), "num_gpus": [8] * 80, "nccl_dtype": ["half"] * 80}
    ops |= {"op_name": np.repeat(["all_reduce", "all_gather", "reduce_scatter", "alltoall"], 20).tolist()}
    write(folder, chip, "one", "nccl_perf", ops | {"latency": 0.02 + 2e-8 * ops["message_size"]})


def test_a_card_comes_out_of_published_tables(tmp_path):
    publish(tmp_path, "gpu:h100")
    results = build.fit_chips(("gpu:h100",), tmp_path, None, lambda what: None)
    kinds = [result.kind for result in results]
    assert kinds == ["product", "prompt attention", "decode attention", "collective"]
    assert results[0].by_source is not None and results[0].by_chip is None
    device = build.card("gpu:h100", results)
    assert device.terms.keys() == known.TERMS["gpu"].keys()
    share = device.terms["product.share"]
    assert share.provenance == "published" and "aiconfigurator-core" in share.source
    assert share.value == pytest.approx(0.6, rel=0.1)
    assert device.matmul == H100.matmul and device.memory == H100.memory


def test_a_chip_takes_what_was_not_measured_of_it_from_chips_with_its_kind_of_memory():
    def result(chip, share):
        error = fit.Check(0.1, 0.0, 1)
        return build.Result(chip, "product", tables.SOURCE, {"product.share": share}, error, None)

    results = [result("gpu:h100", 0.8), result("gpu:h200", 0.7), result("gpu:l40s", 0.5)]
    assert build.card("gpu:v100", results).terms["product.share"].value == pytest.approx(0.75)
    assert build.card("gpu:l4", results).terms["product.share"].value == pytest.approx(0.5)


def test_neusights_csv_files_are_read_once(tmp_path):
    fields = ("OPName", "Latency", "Device", "B", "M", "N", "K", "H")
    rows = [
        ("linear", 1.0, "Tesla T4", 1, 64, 128, 256, ""),
        ("bmm", 2.0, "Tesla T4", 8, 64, 128, 256, ""),
        ("add", 3.0, "Tesla T4", 10, "", "", "", 100),
        ("relu", 3.0, "Tesla T4", 10, "", "", "", 100),
        ("ln", 4.0, "Tesla T4", 10, "", "", "", 100),
        ("add", 9.0, "NVIDIA L4", 10, "", "", "", 100),
    ]
    for name in ("a.csv", "deeper/b.csv"):  # the same rows in two files are one measurement each
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([fields, *rows])
    products, elementwise, rowwise = tables.neusight(tmp_path, "Tesla T4")
    assert list(products.batch) == [1, 8] and list(products.seconds) == [1e-3, 2e-3]
    assert list(elementwise.bytes) == [3 * 4000, 2 * 4000] and list(rowwise.name) == ["ln"]


def test_a_folder_without_measurements_is_told(tmp_path):
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="holds no CSV file with the columns OPName and Latency"):
        tables.neusight(tmp_path, "Tesla T4")
