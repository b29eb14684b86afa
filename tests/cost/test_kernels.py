"""Hand-written kernels by name and shapes: names, operands and results as JAX 0.10 writes them for TPU v5e and H100."""

import pytest

from llmjax.cost import Cost, OpCost
from tests.cost.test_library import call

B, H, L, D = 2, 4, 1024, 128
SCORES = B * H * L * L
PRODUCT = 2 * SCORES * D  # one product of scores and a width
QKV = "bf16[2,4,1024,128] " * 3
MASK = "s8[1,8,8] s8[1,8,8] "
PART = "f32[2,128,128], "


def kernel(name: str, operands: str, result: str, target: str = "tpu_custom_call", config: object = None) -> OpCost:
    place = f', metadata={{op_name="jit(f)/{name}/pallas_call"}}'
    return call(target, operands.strip(), result, config, place)


@pytest.mark.parametrize(
    ("name", "operands", "result", "products"),
    [
        ("splash_mha_fwd_residuals", MASK + QKV + "s32[1024,128]", f"({PART}{PART}bf16[2,4,1024,128])", 2),
        (
            "splash_mha_dkv_no_residuals",
            MASK + QKV + "f32[2,4,8,1024] bf16[2,4,1024,128]",
            f"({PART}bf16[2,4,1024,128], bf16[2,4,1024,128])",
            4,
        ),
        ("splash_mha_dq_no_residuals", MASK + QKV + "f32[2,4,1,1024]", f"({PART}bf16[2,4,1024,128])", 3),
        ("flash_attention", QKV, "bf16[2,4,1024,128]", 2),
        ("jvp(jit(flash_attention))", QKV, "(bf16[2,4,1024,128], f32[2,4,1024,128], f32[2,4,1024,128])", 2),
        ("flash_mha_bwd_dkv_block_q=128", QKV + "f32[2,4,1024,8]", "(bf16[2,4,1024,128], bf16[2,4,1024,128])", 4),
        ("flash_mha_bwd_dq_block_q=128", QKV + "f32[2,4,1024,8]", "bf16[2,4,1024,128]", 3),
    ],
)
def test_attention_on_a_tpu(name, operands, result, products):
    op = kernel(name, operands, result)
    assert not op.unmodelled and op.library == "mosaic"
    seen = B * H * L * (L + 1) // 2 if operands.startswith(MASK) else SCORES  # its mask is computed: causal
    assert op.cost.matmul_flops == products * 2 * seen * D
    assert op.cost.transcendentals == seen
    assert op.dense_flops == (products * PRODUCT + (4 if products == 2 else 8) * SCORES if seen < SCORES else None)


@pytest.mark.parametrize(
    ("name", "mask", "causal"),
    [
        ("causal_flash_attention", "", True),
        ("flash_attention_non_causal", "", False),
        ("splash_mha_fwd_no_residuals", "", False),  # no mask
        ("splash_mha_fwd_no_residuals", "s8[1,8,3] s8[1,8,3] ", False),  # a window: it may leave out anything
        ("splash_mha_fwd_no_residuals", MASK + "s8[1,8,8] s8[3,128,128] ", False),  # masks as arrays
        ("flash_attention", MASK, False),
    ],
)
def test_a_causal_mask_is_told_by_name_or_by_splash_attentions_operands(name, mask, causal):
    op = kernel(name, mask + QKV, "bf16[2,4,1024,128]")
    assert op.cost.matmul_flops == 2 * 2 * D * (B * H * L * (L + 1) // 2 if causal else SCORES)
    assert (op.dense_flops is not None) == causal


def test_one_head_of_keys_for_many_of_queries():
    op = kernel("splash_mqa_fwd_no_residuals", "bf16[2,2,4,64,32] bf16[2,2,48,32] bf16[2,2,48,32]", "bf16[2,2,4,64,32]")
    assert op.cost.matmul_flops == 2 * 2 * (2 * 2 * 4 * 64 * 48) * 32


TRITON = "__gpu$xla.gpu.triton"


@pytest.mark.parametrize(
    ("name", "operands", "result", "products"),
    [
        ("mha_forward", "bf16[2,1024,4,128] " * 3, "bf16[2,1024,4,128]", 2),
        ("mha_backward", "bf16[2,1024,4,128] " * 5, "(" + ", ".join(["bf16[2,1024,4,128]"] * 3) + ")", 5),
    ],
)
def test_attention_on_a_gpu(name, operands, result, products):
    config = f'{{debug = false, grid_x = 8 : i32, name = "{name}", num_stages = 2 : i32}}'
    for target in (TRITON, "triton_kernel_call_ffi"):
        op = call(target, operands.strip(), result, config)
        assert not op.unmodelled and op.library == "triton"
        assert op.cost.matmul_flops == products * PRODUCT


def test_decoding_reads_keys_in_parts():
    config = '{name = "mha_forward"}'
    operands = "bf16[2,8,128] bf16[2,16,64,128] bf16[2,16,64,128]"
    op = call(TRITON, operands, "(bf16[2,16,8,128], f32[2,16,8])", config)
    assert op.cost.matmul_flops == 2 * 2 * (2 * 8 * 16 * 64) * 128


GROUPS = "s32[] s32[9] s32[15] "


@pytest.mark.parametrize(
    ("name", "operands", "result"),
    [
        ("jit(gmm)", GROUPS + "bf16[1024,256] bf16[8,256,512]", "f32[1024,512]"),
        ("transpose(jvp(jit(gmm)))", GROUPS + "f32[1024,512] bf16[8,256,512]", "bf16[1024,256]"),
        ("transpose(jvp(jit(tgmm)))", GROUPS + "bf16[1024,256] f32[1024,512]", "bf16[8,256,512]"),
        ("ragged_dot_kernel_128", "bf16[1024,256] bf16[8,256,512] s32[8]", "bf16[1024,512]"),
        ("hopper_matmul", "bf16[1024,256] bf16[256,512]", "bf16[1024,512]"),
    ],
)
def test_products_of_groups_and_of_matrices(name, operands, result):
    assert kernel(name, operands, result).cost.matmul_flops == 2 * 1024 * 256 * 512


def test_rows():
    assert kernel("_vmappable_softmax_kernel", "f32[64,1024]", "f32[64,1024]").cost == Cost(
        0, 4 * 65536, 65536, 4 * 65536, 4 * 65536
    )
    assert kernel("rms_forward", "f32[64,1024] f32[1024]", "f32[64,1024]").cost.flops == 4 * 65536


@pytest.mark.parametrize(
    ("name", "reason"),
    [("paged_attention", "known at run time"), ("attention/rope_kernel", "no rule for the kernel 'y', 'rope_kernel'")],
)
def test_what_is_not_known_is_said(name, reason):
    assert reason in kernel(name, QKV, "bf16[2,4,1024,128]").unmodelled


def test_a_declared_cost_goes_first_and_is_read_of_all_operands():
    config = {
        "custom_call_config": {"cost_estimate": {"flops": "77", "transcendentals": "3", "bytes_accessed": "1000"}}
    }
    op = kernel("flash_attention", "bf16[10,10] bf16[20,10]", "bf16[10,5]", config=config)
    assert op.cost == Cost(77, 0, 3, 900, 100)
    assert op.traffic.reads == (300, 600)


CUDNN = {
    "fmha_scale": 1.0,
    "intermediate_tensor_shape": {"element_type": "BF16", "dimensions": ["2", "4", "1024", "1024"]},
}


@pytest.mark.parametrize(
    ("mask", "window", "seen"),
    [
        ("NO_MASK", 0, L * L),
        ("CAUSAL", 0, L * (L + 1) // 2),
        ("PADDING_CAUSAL", 0, L * (L + 1) // 2),
        ("CAUSAL", 256, 256 * 257 // 2 + (L - 256) * 256),
    ],
)
@pytest.mark.parametrize(("target", "products"), [("__cudnn$fmhaSoftmax", 2), ("__cudnn$fmhaSoftmaxBackward", 5)])
def test_cudnn_leaves_out_what_a_mask_hides(mask, window, seen, target, products):
    config = {"cudnn_fmha_backend_config": CUDNN | {"mask_type": mask, "sliding_window_length": window}}
    op = call(target, ("bf16[2,1024,4,128] " * 3).strip(), "(bf16[2,4,1024,128], u8[0])", config)
    assert op.cost.matmul_flops == products * 2 * B * H * seen * D
    if seen == L * L:
        assert op.dense_flops is None
    else:
        assert op.dense_flops == products * PRODUCT + (4 if products == 2 else 8) * SCORES


@pytest.mark.parametrize(
    ("kind", "queries", "keys", "left", "seen"),
    [
        (0, 64, 96, -1, 64 * 96),
        (2, 64, 96, -1, 64 * 65 // 2),
        (5, 64, 96, -1, 64 * 65 // 2 + 64 * 32),  # the last query sees all keys
        (2, 64, 64, 7, 8 * 9 // 2 + 56 * 8),
    ],
)
def test_transformer_engine_leaves_out_what_a_mask_hides(kind, queries, keys, left, seen):
    config = (
        f"{{attn_heads = 3 : i64, input_batch = 2 : i64, q_max_seqlen = {queries} : i64, kv_max_seqlen = {keys} : i64"
    )
    config += (
        f", qk_head_dim = 16 : i64, v_head_dim = 24 : i64, mask_type = {kind} : i64, window_size_left = {left} : i64"
    )
    config += ", window_size_right = -1 : i64}"
    op = call("te_fused_attn_forward_ffi", "bf16[2,64,3,16]", "(bf16[2,64,3,24], u8[8])", config)
    assert op.cost.matmul_flops == 2 * (2 * 3 * seen) * (16 + 24)
    assert (op.dense_flops is None) == (seen == queries * keys)


@pytest.mark.parametrize(
    ("target", "flops", "transcendentals"),
    [
        ("te_scaled_softmax_forward_ffi", 5, 1),
        ("te_scaled_masked_softmax_forward", 5, 1),
        ("te_scaled_upper_triang_masked_softmax_backward_ffi", 5, 0),
        ("AwsNeuronSoftmax", 4, 1),
        ("AwsNeuronGelu", 8, 1),
        ("AwsNeuronSilu", 1, 1),
        ("AwsNeuronTransferWithStaticRing", 0, 0),
        ("AwsNeuronModuleMarkerStart-Forward", 0, 0),
        ("cu_lu_pivots_to_permutation", 0, 0),
        ("hip_lu_pivots_to_permutation", 0, 0),
    ],
)
def test_calls_of_other_stacks(target, flops, transcendentals):
    op = call(target, "f32[8,64]", "f32[8,64]")
    assert not op.unmodelled
    assert (op.cost.flops, op.cost.transcendentals) == (flops * 512, transcendentals * 512)
    moved = "Marker" not in target and "Transfer" not in target
    assert op.cost.bytes == (2 * 4 * 512 if moved else 0)


def test_transformer_engine_besides_attention():
    x = "bf16[4,16,32]"
    assert call("te_norm_forward_ffi", f"{x} bf16[32]", f"({x}, f32[64])").cost.vector_flops == 7 * 4 * 16 * 32
    assert call("te_act_lu_ffi", x, x).cost.transcendentals == 4 * 16 * 32
    gemm = call("te_gemm_ffi", f"{x} f32[1] bf16[32,24] f32[1] bf16[24]", "(bf16[4,16,24], u8[4096])")
    assert gemm.cost.matmul_flops == 2 * 4 * 16 * 32 * 24 and gemm.library == "cublas"


def test_a_neuron_kernel_is_opaque():
    assert "does not show" in call("AwsNeuronCustomNativeKernel", "f32[8,64]", "f32[8,64]").unmodelled


def test_a_custom_partitioning_is_its_called_computation_or_unmodelled():
    assert "partition" in call("CustomSPMDPartitioning", "f32[8,64]", "f32[8,64]").unmodelled
