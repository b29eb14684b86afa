"""The small inputs of shared/wild that costs, memories and names decide: each gives the value its README says."""

from pathlib import Path

import pytest

from llmjax.analysis import where
from llmjax.cost import cost_module
from llmjax.cost.attribution import attribute
from llmjax.cycles.device import load_device
from llmjax.cycles.features import features
from llmjax.cycles.model import predict
from llmjax.hlo import parse


@pytest.fixture(scope="module")
def wild() -> Path:
    root = Path(__file__).resolve().parents[2]
    places = (root.parent / "shared" / "wild", root.parent.parent / "shared" / "wild")
    found = next((place for place in places if place.is_dir()), None)
    if found is None:
        pytest.skip("shared/wild is not beside this checkout")
    return found


def counted(wild: Path, name: str):
    return cost_module(parse((wild / f"{name}.hlo").read_text()))


def test_vmem_resident(wild):
    assert counted(wild, "vmem_resident").totals.bytes == 32_768


def test_host_offload(wild):
    found = counted(wild, "host_offload")
    assert found.totals.host_bytes == 2**30
    assert predict(found, load_device("gpu:a100")).overlapped == pytest.approx(43e-3, rel=0.05)


def test_cudnn_int8x32(wild):
    assert counted(wild, "cudnn_int8x32").totals.flops == 1_102_315_520


def test_ragged_dot_batched_contracting(wild):
    assert counted(wild, "ragged_dot_batched_contracting").totals.flops == 196_608


def test_rfft_irfft(wild):
    there, back = counted(wild, "rfft_irfft").ops
    assert there.cost.flops == back.cost.flops == 5 * 64 * 1024 * 10 // 2
    assert counted(wild, "fft_c64").totals.flops == 8 * 64 * 1024 * 10


def test_complex_dot(wild):
    dot, product = counted(wild, "complex_dot").ops
    assert dot.cost.matmul_flops == 8 * 128 * 64 * 32
    assert product.cost.vector_flops == 6 * 128 * 32


def test_call_start(wild):
    assert counted(wild, "call_start").totals.flops == 1000


def test_loop_transpose_uncoalesced(wild):
    found = counted(wild, "loop_transpose_uncoalesced")
    (op,) = features(found, load_device("gpu:a100"))
    assert op.minor_moves and op.strided


def test_torch_xla_metadata(wild):
    (op,) = attribute(counted(wild, "torch_xla_metadata"))
    assert op.place.source == "/home/me/net/linear.py:114"
    assert op.place.role != "unattributed"
    assert where(op) == "linear.py:114"


def test_torch_xla_scope(wild):
    (op,) = attribute(counted(wild, "torch_xla_scope"))
    assert op.place.module_path == "BertModel/encoder/dense"
    assert op.place.source == "/home/me/net/linear.py:114"


def test_conv_groups_dilated(wild):
    grouped, dilated = counted(wild, "conv_groups_dilated").ops
    assert grouped.cost.matmul_flops == 2 * 4 * 32 * (3 * 16 - 2) ** 2  # a tap falls off at each end
    assert dilated.cost.matmul_flops == 2 * 4 * 32 * 64 * (3 * 12) ** 2


def test_a_transpose_that_no_cache_mends(wild):
    found = counted(wild, "loop_transpose_uncoalesced")
    (op,) = predict(found, load_device("gpu:a100")).ops
    assert 0.03 < op.seconds < 0.1 and op.bound == "memory:HBM"
    moved = found.totals.bytes / load_device("gpu:a100").main_memory.bandwidth.value
    assert op.seconds > 4 * moved  # 8 bytes are used of every 64 that are fetched
