"""Custom calls: by target name, as they declare themselves, or unmodelled by name."""

import json

import pytest

from llmjax.cost import Cost, OpCost, cost_module
from llmjax.hlo.parser import parse


def call(target: str, operands: str, result: str, config: object = None, extra: str = "") -> OpCost:
    shapes = operands.split(" ")
    parameters = "\n".join(f"p{n} = {shape} parameter({n})" for n, shape in enumerate(shapes))
    names = ", ".join(f"p{n}" for n in range(len(shapes)))
    text = config if isinstance(config, str) else json.dumps(config)
    written = f", backend_config={text}" if config is not None else ""
    body = f'ROOT y = {result} custom-call({names}), custom_call_target="{target}"{extra}{written}'
    (op,) = cost_module(parse(f"HloModule m\n\nENTRY main {{\n{parameters}\n{body}\n}}\n")).ops
    return op


NUMBERS = {
    "lhs_contracting_dimensions": ["1"],
    "rhs_contracting_dimensions": ["0"],
    "lhs_batch_dimensions": [],
    "rhs_batch_dimensions": [],
}
GEMM = {"alpha_real": 1, "beta": 0, "dot_dimension_numbers": NUMBERS, "epilogue": "DEFAULT"}


@pytest.mark.parametrize("config", [{"gemm_backend_config": GEMM}, GEMM, None])
def test_cublas(config):
    op = call("__cublas$gemm", "f32[64,96] f32[96,128]", "(f32[64,128], s8[4194304])", config)
    assert op.cost == Cost(2 * 64 * 96 * 128, 0, 0, (64 * 96 + 96 * 128) * 4, 64 * 128 * 4)
    assert op.library == "cublas"


def test_cublaslt_epilogue_and_accumulation():
    config = {"gemm_backend_config": {**GEMM, "beta": 1, "epilogue": "BIAS_RELU"}}
    op = call("__cublas$lt$matmul", "bf16[64,96] bf16[96,128] bf16[64,128] bf16[128]", "bf16[64,128]", config)
    assert op.cost.matmul_flops == 2 * 64 * 96 * 128
    assert op.cost.vector_flops == 3 * 64 * 128


def test_cublaslt_f8():
    config = {
        "gemm_backend_config": {**GEMM, "dot_dimension_numbers": {**NUMBERS, "rhs_contracting_dimensions": ["1"]}}
    }
    op = call("__cublas$lt$matmul$f8", "f8e4m3fn[64,96] f8e4m3fn[128,96] f32[] f32[]", "f32[64,128]", config)
    assert op.cost.matmul_flops == 2 * 64 * 96 * 128


CONV = ", window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_o01i->b01f"
CONV_FLOPS = 2 * 2 * 8 * 16 * (3 * 10 - 2) ** 2  # without the taps that fall off the image


@pytest.mark.parametrize(
    ("target", "operands", "result", "flops"),
    [
        ("convForward", "f32[2,10,10,8] f32[16,3,3,8]", "(f32[2,10,10,16], u8[0])", CONV_FLOPS),
        ("convBackwardInput", "f32[2,10,10,16] f32[16,3,3,8]", "(f32[2,10,10,8], u8[0])", CONV_FLOPS),
        ("convBackwardFilter", "f32[2,10,10,8] f32[2,10,10,16]", "(f32[16,3,3,8], u8[0])", CONV_FLOPS),
        ("convBiasActivationForward", "f32[2,10,10,8] f32[16,3,3,8] f32[16]", "(f32[2,10,10,16], u8[0])", CONV_FLOPS),
    ],
)
def test_cudnn_convolution(target, operands, result, flops):
    op = call(f"__cudnn${target}", operands, result, {"cudnn_conv_backend_config": {"activation_mode": "kRelu"}}, CONV)
    assert op.cost.matmul_flops == flops
    assert op.library == "cudnn"


def test_cudnn_attention():
    config = {"cudnn_fmha_backend_config": {"intermediate_tensor_shape": {"dimensions": ["2", "6", "1024", "512"]}}}
    q, k = "bf16[2,6,1024,64]", "bf16[2,6,512,64]"
    scores = 2 * 6 * 1024 * 512
    forward = call("__cudnn$fmhaSoftmax", f"{q} {k} {k}", f"({q}, u8[0])", config)
    assert forward.cost.matmul_flops == 2 * 2 * scores * 64
    assert forward.cost.transcendentals == scores
    backward = call("__cudnn$fmhaSoftmaxBackward", f"{q} {k} {k} {q} {q}", f"({q}, {k}, {k}, u8[0])", config)
    assert backward.cost.matmul_flops == 5 * 2 * scores * 64


def test_transformer_engine_attention():
    fields = "attn_heads = 32 : i64, input_batch = 2 : i64, kv_max_seqlen = 8192 : i64, num_gqa_groups = 8 : i64, "
    fields += "q_max_seqlen = 4096 : i64, qk_head_dim = 192 : i64, v_head_dim = 128 : i64"
    q, kv = "bf16[2,4096,32,192]", "bf16[2,8192,8,192]"
    scores = 2 * 32 * 4096 * 8192
    forward = call("te_fused_attn_forward_ffi", f"{q} {kv} {kv}", q, "{" + fields + "}")
    assert forward.cost.matmul_flops == 2 * scores * (192 + 128)
    backward = call("te_fused_attn_backward_ffi", f"{q} {kv} {kv} {q}", q, "{" + fields + "}")
    assert backward.cost.matmul_flops == 2 * scores * (3 * 192 + 2 * 128)


def test_onednn():
    config = {"onednn_matmul_config": {"fusions": {"ops": ["BIAS", "GELU_TANH"]}}}
    op = call("__onednn$matmul", "f32[64,96] f32[96,128] f32[128]", "f32[64,128]", config)
    assert (op.cost.matmul_flops, op.cost.transcendentals) == (2 * 64 * 96 * 128, 64 * 128)
    assert op.library == "onednn"
    config = {"onednn_matmul_config": {"transpose_a": True}}
    assert call("__onednn$matmul", "f32[96,64] f32[96,128]", "f32[64,128]", config).cost.flops == 2 * 64 * 96 * 128
    config = {"onednn_conv_config": {"kernel": {"filter": {"output_feature_dim": "4"}}}}
    op = call("__onednn$convolution", "f32[2,10,10,8] f32[3,3,8,16]", "f32[2,8,8,16]", config)
    assert op.cost.matmul_flops == 2 * (2 * 8 * 8 * 16) * (3 * 3 * 8)


@pytest.mark.parametrize(
    ("target", "operands", "result", "flops"),
    [
        ("lapack_spotrf_ffi", "f32[5,60,60]", "(f32[5,60,60], s32[5])", 5 * 60**3 // 3),
        ("lapack_dgetrf_ffi", "f64[60,60]", "(f64[60,60], s32[60], s32[])", 2 * 60**3 // 3),
        ("lapack_sgeqrf_ffi", "f32[80,60]", "(f32[80,60], f32[60])", 2 * 80 * 60**2 - 2 * 60**3 // 3),
        ("lapack_sorgqr_ffi", "f32[60,60] f32[60]", "f32[60,60]", 4 * 60**3 // 3),
        ("lapack_ssyevd_ffi", "f32[60,60]", "(f32[60,60], f32[60], s32[])", 9 * 60**3),
        ("blas_strsm", "f32[60,60] f32[60,7]", "f32[60,7]", 60 * 60 * 7),
        ("__cublas$triangularSolve", "f32[3,60,60] f32[3,60,7]", "(f32[3,60,7], s8[64])", 3 * 60 * 60 * 7),
        ("lapack_cgetrf_ffi", "c64[60,60]", "(c64[60,60], s32[60], s32[])", 4 * 2 * 60**3 // 3),
        ("cusolver_getrf_ffi", "f32[60,60]", "(f32[60,60], s32[60], s32[])", 2 * 60**3 // 3),
        ("Qr", "f32[60,60]", "(f32[60,60], f32[60])", 4 * 60**3 // 3),
    ],
)
def test_lapack(target, operands, result, flops):
    op = call(target, operands, result)
    assert not op.unmodelled
    assert op.cost.flops == flops


def test_top_k_threefry_and_sort():
    assert call("TopK", "f32[8,1000]", "(f32[8,5], s32[8,5])").cost.flops == 8000 * 3
    assert call("cu_threefry2x32_ffi", "u32[] u32[] u32[64] u32[64]", "(u32[64], u32[64])").cost.flops == 64 * 117
    op = call("__cub$DeviceRadixSort", "f32[1000]", "(f32[1000], u8[4096])")
    assert op.cost == Cost(0, 10_000, 0, 4000, 4000)


def test_pallas_declares_its_cost():
    estimate = {"flops": "1000000", "transcendentals": "500", "bytes_accessed": "30000"}
    config = {"custom_call_config": {"body": "TUzvUg==", "cost_estimate": estimate}}
    op = call("tpu_custom_call", "f32[64,64] f32[64,64]", "f32[64,64]", config)
    assert op.cost == Cost(1_000_000, 0, 500, 30_000 - 64 * 64 * 4, 64 * 64 * 4)
    assert op.library == "mosaic" and not op.unmodelled


@pytest.mark.parametrize("target", ["tpu_custom_call", "my_kernel", "xla_ffi_python_cpu_callback", "__triton"])
def test_what_no_rule_knows_is_listed_with_its_bytes(target):
    op = call(target, "f32[64] f32[64]", "f32[64]")
    assert target in op.unmodelled
    assert op.cost == Cost(0, 0, 0, 512, 256)


@pytest.mark.parametrize("target", ["Sharding", "SPMDFullToShardShape", "xla.sdy.FuncResultSharding", "MoveToHost"])
def test_markers_are_free(target):
    assert call(target, "f32[64]", "f32[64]").cost == Cost()


CUTLASS = {"fusion_backend_config": {"kind": "__custom_fusion", "custom_fusion_config": {"name": "cutlass_gemm"}}}


@pytest.mark.parametrize(
    ("config", "library"),
    [
        ({"fusion_config": {"kind": "__ynn_fusion"}}, "ynnpack"),
        ({"fusion_config": {"kind": "__onednn_fusion"}}, "onednn"),
        ({"fusion_backend_config": {"kind": "__triton_gemm"}}, "triton"),
        ({"fusion_backend_config": {"kind": "__cudnn$fusion"}}, "cudnn"),
        (CUTLASS, "cutlass"),
        ({"fusion_backend_config": {"kind": "__triton_nested_gemm_fusion"}}, "triton"),
        ({}, None),
    ],
)  # fmt: skip
def test_library_fusions_count_their_interiors(config, library):
    text = f"""HloModule m

fused {{
  a = f32[64,96] parameter(0)
  b = f32[96,128] parameter(1)
  ROOT d = f32[64,128] dot(a, b), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}
}}

ENTRY main {{
  a = f32[64,96] parameter(0)
  b = f32[96,128] parameter(1)
  ROOT f = f32[64,128] fusion(a, b), kind=kCustom, calls=fused, backend_config={json.dumps(config)}
}}
"""
    (op,) = cost_module(parse(text)).ops
    assert op.cost == Cost(2 * 64 * 96 * 128, 0, 0, (64 * 96 + 96 * 128) * 4, 64 * 128 * 4)
    assert op.library == library


@pytest.mark.parametrize(("elements", "bound"), [(100, False), (10_000, True)])
def test_an_unknown_call_of_few_bytes_makes_no_total_a_lower_bound(elements, bound):
    text = f"""HloModule m
ENTRY e {{
  a = f32[1000000] parameter(0)
  b = f32[{elements}] parameter(1)
  c = f32[{elements}] custom-call(b), custom_call_target="nobody_knows"
  d = f32[1000000] negate(a)
  ROOT t = (f32[1000000], f32[{elements}]) tuple(d, c)
}}
"""
    found = cost_module(parse(text))
    assert [op.name for op in found.unmodelled] == ["c"]
    assert found.lower_bound is bound
    assert found.coverage == pytest.approx(1 - elements / (1_000_000 + elements))
