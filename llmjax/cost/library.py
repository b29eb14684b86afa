"""Custom calls and library fusions: a table of rules by target name.

A target that no row covers and that declares no cost estimate is unmodelled.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from llmjax.cost import attention, computed, factorisations, gemm, kernels, memory
from llmjax.cost.values import Context, Cost, Traffic, UnmodelledError, total
from llmjax.hlo.ir import Instruction

Work = Callable[[Instruction, Context], Cost]


class CustomCall(NamedTuple):
    """How to count the custom calls of one target, and which library runs them.

    `dense` is their work without a mask, of calls that leave out what a mask hides.
    """

    work: Work
    library: str | None = None
    traffic: Callable[[Instruction, Context], Traffic] = memory.whole
    dense: Work | None = None


def _without_workspace(instruction: Instruction, context: Context) -> Traffic:
    """As `whole`, but scratch memory, a last s8 or u8 vector of the result, moves nothing that counts."""
    traffic, leaves = memory.whole(instruction, context), instruction.shape.leaves
    if len(leaves) > 1 and leaves[-1].dtype in ("s8", "u8") and leaves[-1].rank == 1:
        return Traffic(traffic.reads, (*traffic.writes[:-1], 0))
    return traffic


def _threefry(instruction: Instruction, context: Context) -> Cost:
    """20 rounds of add, rotate (three operations) and xor, and 17 additions of keys, for each pair of words."""
    return Cost(vector_flops=117 * instruction.shape.leaves[0].elements)


def _comparisons(instruction: Instruction, context: Context) -> Cost:
    """One comparison for each element: an approximate top-k."""
    return Cost(vector_flops=context.shape(instruction, 0).elements)


def _attend(work: Callable[..., Cost]) -> CustomCall:
    return CustomCall(work, "cudnn", _without_workspace, partial(work, masked=False))


def _activation(flops: int, transcendentals: int, instruction: Instruction, context: Context) -> Cost:
    """So many operations for each element of the result."""
    elements = instruction.shape.leaves[0].elements
    return Cost(vector_flops=flops * elements, transcendentals=transcendentals * elements)


def _partitioned_later(instruction: Instruction, context: Context) -> Cost:
    """The computation that it calls, where the text has it: JAX's own calls name none."""
    callees = [context.work[name] for name in instruction.called_computations if name in context.work]
    if not callees:
        raise UnmodelledError("a custom partitioning puts its program here when XLA partitions: analyse compiled text")
    return total(callees)


def _opaque(instruction: Instruction, context: Context) -> Cost:
    raise UnmodelledError(f"{instruction.custom_call_target}: a kernel in code that the text does not show")


_FREE = CustomCall(computed.nothing, None, memory.free)
_MOVE = CustomCall(computed.nothing)
_CUBLAS = CustomCall(gemm.gemm, "cublas", _without_workspace)
_CONV = CustomCall(gemm.cudnn_convolution, "cudnn", _without_workspace)
_TOP_K = CustomCall(computed.top_k)
_SORT = CustomCall(computed.sort, "cub", _without_workspace)
_TE, _NEURON = "transformer engine", "neuron"

# Regular expressions of whole targets, first match wins.
CUSTOM_CALLS: tuple[tuple[str, CustomCall], ...] = (
    (r"__cublas\$gemm|__cublas\$lt\$(matmul|groupedMatmul)(\$\w+)?", _CUBLAS),
    (r"__cublas\$triangularSolve", CustomCall(computed.triangular_solve, "cublas", _without_workspace)),
    (r"__cudnn\$conv(Forward|BackwardInput|BackwardFilter|BiasActivationForward|ForwardGraph)", _CONV),
    (r"__cudnn\$convReorderFilter(AndBias)?", CustomCall(computed.nothing, "cudnn")),
    (r"__cudnn\$fmha\w*Backward(F8)?", _attend(attention.cudnn_backward)),
    (r"__cudnn\$fmha\w*", _attend(attention.cudnn_forward)),
    (r"__cudnn\$norm", CustomCall(gemm.layer_norm, "cudnn", _without_workspace)),
    (r"__cudnn\$batchNormalizationForwardInference", CustomCall(computed.batch_norm_inference, "cudnn")),
    (r"__cudnn\$batchNormalizationForwardTraining", CustomCall(computed.batch_norm_training, "cudnn")),
    (r"__cudnn\$batchNormalizationBackward", CustomCall(computed.batch_norm_grad, "cudnn")),
    (r"__cudnn\$blockScaledDot", CustomCall(gemm.block_scaled_dot, "cudnn", _without_workspace)),
    (r"__op\$block_scaled_dot", CustomCall(gemm.block_scaled_dot)),
    (r"__onednn\$matmul", CustomCall(gemm.onednn_matmul, "onednn")),
    (r"__onednn\$matmul_reorder", CustomCall(computed.nothing, "onednn")),
    (r"__onednn\$convolution", CustomCall(gemm.onednn_convolution, "onednn")),
    (r"__onednn\$softmax", CustomCall(gemm.softmax, "onednn")),
    (r"__onednn\$layernorm", CustomCall(gemm.layer_norm, "onednn")),
    (r"__eigen\$matmul|__xla_cpu_runtime_Eigen\w*MatMul\w*", CustomCall(gemm.row_by_column, "eigen")),
    (r"te_fused_attn_forward(_ffi)?", _attend(attention.transformer_engine_forward)),
    (r"te_fused_attn_backward(_ffi)?", _attend(attention.transformer_engine_backward)),
    # Scale, then a softmax; the gradient scales once more (transformer_engine/jax/csrc/extensions/softmax.cpp).
    (r"te_scaled_(masked_|upper_triang_masked_)?softmax_forward(_ffi)?", CustomCall(partial(_activation, 5, 1), _TE)),
    (r"te_scaled_(masked_|upper_triang_masked_)?softmax_backward(_ffi)?", CustomCall(partial(_activation, 5, 0), _TE)),
    (r"te_(layer|rms)?norm_forward(_fp8)?(_ffi)?", CustomCall(gemm.layer_norm, _TE, _without_workspace)),
    # Of its gradient: x - mean times its root, sums of g and of g x, those of both weighted, and the combination.
    (r"te_(layer|rms)?norm_backward(_ffi)?", CustomCall(partial(_activation, 13, 0), _TE, _without_workspace)),
    # An activation's name is a number there: counted as GELU.
    (r"te_act_lu(_fp8)?(_ffi)?", CustomCall(partial(_activation, 8, 1), _TE)),
    (r"te_dact_(lu|dbias_quantize|lu_dbias_quantize)(_ffi)?", CustomCall(partial(_activation, 9, 2), _TE)),
    (r"te_(grouped_)?(dbias_)?(de)?quantize(_v2)?(_ffi)?", CustomCall(partial(_activation, 2, 0), _TE)),
    (r"te_gemm(_v2)?(_ffi)?", CustomCall(kernels.matmul, "cublas", _without_workspace)),
    (r"te_grouped_gemm(_v2)?(_ffi)?", CustomCall(kernels.grouped, "cublas", _without_workspace)),
    (r"te_grouped_gemm_d2h_group_sizes(_ffi)?", _MOVE),
    (r"TopK|__gpu\$TopK|xla\.topk", _TOP_K),
    (r"PartialReduce|ApproxTopK", CustomCall(_comparisons)),
    (r"__cub\$DeviceRadixSort\w*|xla\.gpu\.ext\.cub_sort_\w+", _SORT),
    (r"cu(da)?_threefry2x32(_ffi)?|hip_threefry2x32(_ffi)?|cpu_threefry2x32\w*", CustomCall(_threefry)),
    (r"lapack_[sdcz](\w+?)(_ffi)?|blas_[sdcz](trsm)(_ffi)?", CustomCall(factorisations.by_name, "lapack")),
    (r"cusolver_(\w+?)(_ffi)?|cublas_(\w+?)(_ffi)?", CustomCall(factorisations.by_name, "cusolver")),
    (r"hipsolver_(\w+?)(_ffi)?|hipblas_(\w+?)(_ffi)?", CustomCall(factorisations.by_name, "hipsolver")),
    (r"(cu(da)?|hip)_lu_pivots_to_permutation(_ffi)?", CustomCall(computed.nothing, "cusolver")),
    # AWS Neuron's (torch_neuronx/xla_impl/custom_call_targets.py): the operations of the formulas they are named after.
    (r"AwsNeuronErf", CustomCall(partial(_activation, 0, 1), _NEURON)),
    (r"AwsNeuronGelu(ApprxTanh)?", CustomCall(partial(_activation, 8, 1), _NEURON)),
    (r"AwsNeuronGeluBackward", CustomCall(partial(_activation, 9, 2), _NEURON)),
    (r"AwsNeuronSilu", CustomCall(partial(_activation, 1, 1), _NEURON)),
    (r"AwsNeuronSiluBackward", CustomCall(partial(_activation, 5, 1), _NEURON)),
    (r"AwsNeuronSoftmax", CustomCall(gemm.softmax, _NEURON)),
    (r"AwsNeuronSoftmaxBackward", CustomCall(partial(_activation, 4, 0), _NEURON)),
    (r"AwsNeuronRmsNorm", CustomCall(kernels.rms_norm, _NEURON)),
    (r"AwsNeuronRmsNormBackward", CustomCall(partial(_activation, 9, 0), _NEURON)),
    (r"AwsNeuronArg(Max|Min)", CustomCall(_comparisons, _NEURON)),
    (r"AwsNeuronTopK", CustomCall(computed.top_k, _NEURON)),
    (r"AwsNeuronDropout(MaskV1)?", CustomCall(partial(_activation, 2, 0), _NEURON)),
    (r"AwsNeuron(CollectiveMatmul|IntMatmult)", CustomCall(kernels.matmul, _NEURON)),
    (r"AwsNeuron(CustomNativeKernel|CustomOp)", CustomCall(_opaque, _NEURON)),
    (r"AwsNeuron(TransferWithStaticRing|ModuleMarker\S+|LNCShardingConstraint|ControlDep|DevicePrint)", _FREE),
    (r"NeuronBoundaryMarker-\w+", _FREE),
    (r"CustomSPMDPartitioning", CustomCall(_partitioned_later)),
    (r"Qr|LuDecomposition|Eigh|ProductOfElementaryHouseholderReflectors", CustomCall(factorisations.by_name)),
    (r"GetRngSeed|Memset\w+", CustomCall(computed.nothing, None, memory.writes_only)),
    (r"PadToStatic|SliceToDynamic|GatherScatterIndicesBitpacked|X64Combine|X64SplitLow|X64SplitHigh", _MOVE),
    (r"Sharding|SPMD\w+|ShardBarrier(From|To)|xla\.sdy\.\w+|annotate_device_placement|LayoutConstraint", _FREE),
    (r"MoveToHost|MoveToDevice|AllocateBuffer|CreateBuffer|Pin|Unpin|ConcatBitcast|SetBound", _FREE),
    (r"AsyncCollective(Start|Done)", _FREE),
    (r"AssumeGatherIndicesInBound|InspectSharding|__xla_gpu_assert|x\.checkpoint|CoupledBarrier", _FREE),
)
_ROWS = tuple((re.compile(pattern), row) for pattern, row in CUSTOM_CALLS)

_CALLBACK = re.compile(
    r"xla_(ffi_)?(partitioned_)?python_\w+callback|xla_buffer_python_\w+callback|HostExecute|CallbackFn"
)

# Who runs a kCustom fusion, by the beginning of the kind in its backend_config.
_FUSION_LIBRARIES = {"__ynn": "ynnpack", "__xnn": "xnnpack", "__onednn": "onednn", "__eigen": "eigen"}
_FUSION_LIBRARIES |= {"__triton": "triton", "__cudnn": "cudnn", "__cublas": "cublas", "__cutlass": "cutlass"}


def find(target: str) -> CustomCall | None:
    """The row of a target, None where the table has none."""
    return next((row for pattern, row in _ROWS if pattern.fullmatch(target)), None)


def work(instruction: Instruction, context: Context) -> Cost:
    """Work of a custom call: by its row, or as it declares itself."""
    row = find(instruction.custom_call_target)
    if row is not None:
        return row.work(instruction, context)
    estimate = declared(instruction)
    if estimate is not None:
        return estimate.work
    target = instruction.custom_call_target
    if target in kernels.COMPILERS:
        return kernels.work(instruction, context)
    if _CALLBACK.fullmatch(target):
        raise UnmodelledError(f"{target}: what the host's Python computes is not in the text")
    raise UnmodelledError(f"no rule for custom-call target {target!r}")


def traffic(instruction: Instruction, context: Context) -> Traffic:
    """Bytes of a custom call: by its row, as it declares itself, or all operands and results."""
    row = find(instruction.custom_call_target)
    if row is not None:
        return row.traffic(instruction, context)
    everything = memory.whole(instruction, context)
    estimate = declared(instruction)
    if estimate is None or not estimate.bytes:
        return everything
    reads = shared(int(estimate.bytes_read), everything.reads)
    return Traffic(reads, shared(int(estimate.bytes_written), everything.writes))


def shared(size: int, weights: tuple[int, ...]) -> tuple[int, ...]:
    """Returns parts of `size` in proportion to `weights`, the rest to the last; without weights all to the first."""
    whole = sum(weights)
    if not whole:
        return (size, *(0 for _ in weights[1:]))
    parts = [size * weight // whole for weight in weights]
    return (*parts[:-1], parts[-1] + size - sum(parts))


def dense(instruction: Instruction, context: Context) -> Cost | None:
    """Work of a custom call without the mask that it leaves things out by; None where it leaves out nothing."""
    if instruction.opcode != "custom-call":
        return None
    row = find(instruction.custom_call_target)
    if row is None and instruction.custom_call_target in kernels.COMPILERS and declared(instruction) is None:
        return kernels.work(instruction, context, masked=False)
    return row.dense(instruction, context) if row and row.dense else None


def library(instruction: Instruction) -> str | None:
    """Who runs the instruction, where the text says so."""
    if instruction.opcode.removesuffix("-start") == "custom-call":
        row = find(instruction.custom_call_target)
        return row.library if row else kernels.COMPILERS.get(instruction.custom_call_target)
    kind = str(_field(instruction.backend_config, "fusion_config", "kind") or "")
    kind = kind or str(_field(instruction.backend_config, "fusion_backend_config", "kind") or "")
    if kind == "__custom_fusion":
        name = str(_field(instruction.backend_config, "fusion_backend_config", "custom_fusion_config", "name") or "")
        return "cutlass" if "cutlass" in name else None
    return next((name for prefix, name in _FUSION_LIBRARIES.items() if kind.startswith(prefix)), None)


def declared(instruction: Instruction) -> Cost | None:
    """The `cost_estimate` that Pallas writes for its kernels (Mosaic's `tpu_custom_call`), None where there is none.

    It does not say which unit does the FLOPs; a hand-written kernel is taken to keep the matrix unit busy. Its bytes
    are taken to be those of the results, and what is left is read.
    """
    config = instruction.backend_config
    estimate = _field(config, "custom_call_config", "cost_estimate") or _field(config, "cost_estimate")
    if not isinstance(estimate, Mapping):
        return None
    flops, transcendentals, moved = (
        int(estimate.get(key, 0) or 0) for key in ("flops", "transcendentals", "bytes_accessed")
    )
    written = min(moved, instruction.shape.bytes)
    return Cost(max(0, flops), 0, max(0, transcendentals), max(0, moved - written), max(0, written))


def _field(config: Any, *path: str) -> Any:
    for key in path:
        config = config.get(key) if isinstance(config, Mapping) else None
    return config
