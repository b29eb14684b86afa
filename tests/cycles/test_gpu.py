"""The form of a GPU known by its terms: which unit and which roof, on small programs."""

import json
from dataclasses import replace

import pytest

from llmjax.cost import cost_module
from llmjax.cycles.device import load_device
from llmjax.cycles.features import features
from llmjax.cycles.model import predict
from llmjax.hlo import parse

H100 = load_device("gpu:h100")


def dot(m, k, n, dtype="f32", more=""):
    return f"""HloModule m
ENTRY main {{
  x = {dtype}[{m},{k}] parameter(0)
  w = {dtype}[{k},{n}] parameter(1)
  ROOT y = {dtype}[{m},{n}] dot(x, w), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}{more}
}}
"""


def only(text, device=H100):
    cost = cost_module(parse(text))
    (op,) = predict(cost, device).ops
    return op, features(cost, device)[0]


@pytest.mark.parametrize(
    ("more", "dtype", "passes"),
    [
        ("", "tf32", 1),
        (", operand_precision={high,high}", "tf32", 1),
        (", operand_precision={highest,highest}", "f32", 1),
        (", algorithm=dot_f32_f32_f32", "f32", 1),
        (", algorithm=dot_tf32_tf32_f32_x3", "tf32", 3),
        (", algorithm=dot_bf16_bf16_f32_x6", "bf16", 6),
    ],
)
def test_precision_chooses_the_peak(more, dtype, passes):
    op, f = only(dot(8192, 8192, 8192, "f32", more))
    assert (f.dtype, f.matmul) == (dtype, passes * 2 * 8192**3)
    assert op.bound == "compute"
    assert 1 / 0.95 < op.seconds / (f.matmul / H100.matmul[dtype].value) < 1 / 0.5


def test_full_float32_takes_several_times_as_long():
    fast, full = (only(dot(4096, 4096, 4096, "f32", m))[0] for m in ("", ", operand_precision={highest,highest}"))
    assert full.seconds > 4 * fast.seconds


def test_one_row_is_bound_by_memory_or_by_latency():
    assert only(dot(1, 8192, 50257, "bf16"))[0].bound == "memory:HBM"
    assert only(dot(1, 768, 768, "bf16"))[0].bound == "overhead"
    assert only(dot(8192, 8192, 8192, "bf16"))[0].bound == "compute"


def test_a_batch_is_not_one_large_product():
    text = """HloModule m
ENTRY main {
  q = bf16[144,1024,64] parameter(0)
  k = bf16[144,1024,64] parameter(1)
  ROOT s = (bf16[144,1024,1024], s8[4096]) custom-call(q, k), custom_call_target="__cublas$gemm", backend_config=CONFIG
}
""".replace(
        "CONFIG",
        '{"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["2"],'
        '"rhs_contracting_dimensions":["2"],"lhs_batch_dimensions":["0"],"rhs_batch_dimensions":["0"]},'
        '"precision_config":{"operand_precision":["DEFAULT","DEFAULT"]}}}',
    )
    _, f = only(text)
    assert (f.m, f.n, f.k, f.batch) == (1024, 1024, 64, 144)


REDUCE = """HloModule m, num_partitions=DEVICES
add { a = f32[] parameter(0)
  b = f32[] parameter(1)
  ROOT c = f32[] add(a, b) }
ENTRY main {
  x = f32[SIZE] parameter(0)
  ROOT y = f32[SIZE] all-reduce(x), channel_id=1, GROUPS, to_apply=add
}
""".replace("GROUPS", "replica_groups=[1,DEVICES]<=[DEVICES], use_global_device_ids=true")


def reduce(size, devices, device=H100):
    return only(REDUCE.replace("SIZE", str(size)).replace("DEVICES", str(devices)), device)[0]


def test_collectives_have_latency_links_and_hosts():
    small, large = reduce(256, 8), reduce(2**27, 8)
    assert small.bound == "overhead" and 5e-6 < small.seconds < 5e-5
    assert large.bound == "link" and large.seconds > 2 * 7 / 8 * 2**29 / H100.link.value
    assert reduce(256, 64).seconds > small.seconds
    slow = replace(H100, network=replace(H100.network, value=1e9))
    assert reduce(2**27, 8, slow).seconds == large.seconds  # eight are in one host
    assert reduce(2**27, 64, slow).seconds > 5 * reduce(2**27, 64).seconds


def test_two_devices_of_two_hosts_pay_the_network_and_two_of_one_do_not():
    def pairs(first, second):
        listed = f"replica_groups={{{{{first},{second}}}}}, use_global_device_ids=true"
        text = REDUCE.replace("replica_groups=[1,DEVICES]<=[DEVICES], use_global_device_ids=true", listed)
        return only(text.replace("SIZE", str(2**27)).replace("DEVICES", "16"))

    (near, f), (far, g) = pairs(0, 1), pairs(7, 8)
    assert (f.nodes, f.group, g.nodes, g.group) == (1, 2, 2, 2)
    assert far.seconds > 2**29 / H100.network.value and far.seconds > 5 * near.seconds


CONFIG = {"mask_type": "MASK", "intermediate_tensor_shape": {"dimensions": ["4", "16", "2048", "2048"]}}
ATTENTION = """HloModule m
ENTRY main {
  q = bf16[4,2048,16,128] parameter(0)
  k = bf16[4,2048,16,128] parameter(1)
  v = bf16[4,2048,16,128] parameter(2)
  ROOT o = (bf16[4,2048,16,128], u8[0]) custom-call(q, k, v), custom_call_target="__cudnn$fmhaSoftmax", CONFIG
}
""".replace("CONFIG", "backend_config=" + json.dumps({"cudnn_fmha_backend_config": CONFIG}))


def test_fused_attention_is_one_kernel_and_a_mask_halves_it():
    full, f = only(ATTENTION.replace('"MASK"', '"NO_MASK"'))
    causal, _ = only(ATTENTION.replace('"MASK"', '"CAUSAL"'))
    assert f.term == "attention" and f.attention.blocks == 4 * 16 * 16 and f.attention.queries == 2048
    roof = f.matmul / H100.matmul["bf16"].value
    assert full.seconds > roof and causal.seconds > roof / 2 and 1.5 < full.seconds / causal.seconds < 2.1


def test_a_library_product_in_an_attention_layer_is_a_product():
    text = """HloModule m
ENTRY main {
  x = bf16[4096,1024] parameter(0)
  w = bf16[1024,1024] parameter(1)
  ROOT y = (bf16[4096,1024], s8[4194304]) custom-call(x, w), custom_call_target="__cublas$lt$matmul",
    metadata={op_name="jit(f)/layer_0/attention/query/dot_general"}, backend_config={"gemm_backend_config":
    {"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"],"rhs_contracting_dimensions":["0"],
    "lhs_batch_dimensions":[],"rhs_batch_dimensions":[]},"epilogue":"DEFAULT"}}
}
"""
    op, f = only(text)
    assert (f.term, f.m, f.n, f.k) == ("gemm", 4096, 1024, 1024)
    assert op.seconds == pytest.approx(only(dot(4096, 1024, 1024, "bf16"))[0].seconds, rel=0.01)
