"""Every opcode has a row; those that JAX cannot reach on the CPU are counted by hand here."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmjax.cost import Cost, cost_module
from llmjax.cost.contractions import valid_positions
from llmjax.cost.rules import RULES, rule
from llmjax.hlo.attributes import Window
from llmjax.hlo.parser import parse

# The names in xla/hlo/ir/hlo_opcode.h.
OPCODES = """
abs acos acosh add add-dependency after-all all-gather all-gather-done all-gather-start all-reduce all-reduce-done
all-reduce-start all-to-all and asin asinh async-done async-start async-update atan atan2 atanh batch-norm-grad
batch-norm-inference batch-norm-training bitcast bitcast-convert broadcast call cbrt ceil cholesky clamp
count-leading-zeros collective-broadcast collective-permute collective-permute-done collective-permute-start
collective-reduce compare complex concatenate conditional constant convert convolution copy copy-done copy-start cosine
cosh custom-call divide domain dot dynamic-reshape dynamic-slice dynamic-update-slice erf exponential
exponential-minus-one fft floor fusion gather get-dimension-size get-tuple-element imag infeed iota is-finite log
log-plus-one logistic map maximum minimum mulhi multiply negate not opt-barrier or outfeed pad parameter partition-id
popcnt power ragged-all-to-all ragged-dot real recv recv-done reduce reduce-precision reduce-scatter reduce-window
remainder replica-id reshape reverse rng rng-bit-generator rng-get-and-update-state round-nearest-afz
round-nearest-even rsqrt scaled-dot scan scatter select select-and-scatter send send-done set-dimension-size shift-left
shift-right-arithmetic shift-right-logical shuffle sign sine sinh slice sort sqrt stochastic-convert subtract tan tanh
topk transpose triangular-solve tuple while xor
"""

REGIONS = """
add { a = f32[] parameter(0) b = f32[] parameter(1) ROOT c = f32[] add(a, b) }
ge { a = f32[] parameter(0) b = f32[] parameter(1) ROOT c = pred[] compare(a, b), direction=GE }
less { a = f32[] parameter(0) b = f32[] parameter(1) ROOT c = pred[] compare(a, b), direction=LT }
affine { a = f32[] parameter(0) b = f32[] multiply(a, a) c = f32[] exponential(b) ROOT d = f32[] add(c, a) }
"""


def module(body: str, header: str = "", regions: str = REGIONS):
    """A module whose regions and instructions stand in one line each."""
    regions = regions.replace(") ", ")\n").replace("{ ", "{\n").replace(" }", "\n}").replace("LT }", "LT\n}")
    return parse(f"HloModule m{header}\n{regions}\nENTRY main {{\n{body}\n}}\n")


def cost_of(body: str, header: str = "") -> Cost:
    found = cost_module(module(body, header))
    assert not found.unmodelled
    return found.totals


def test_every_opcode_has_a_rule():
    names = OPCODES.split()
    assert len(names) == len(set(names)) == 136
    assert [name for name in names if rule(name) is None] == []
    assert not RULES.keys() - set(names)


def test_an_unknown_opcode_is_listed_with_its_bytes():
    found = cost_module(module("x = f32[100] parameter(0)\nROOT y = f32[50] frobnicate(x)"))
    (op,) = found.unmodelled
    assert (op.name, op.unmodelled) == ("y", "no rule for opcode 'frobnicate'")
    assert op.cost.bytes == 600 and found.totals.bytes == 600
    assert found.coverage == 0 and found.lower_bound


def test_coverage_is_the_modelled_share_of_bytes():
    found = cost_module(module("x = f32[100] parameter(0)\ny = f32[100] negate(x)\nROOT z = f32[200] frobnicate(y)"))
    assert found.coverage == pytest.approx(800 / 2000)


X = "x = f32[8,100] parameter(0)\n"
VECTOR = 8 * 100 * 4


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (X + "ROOT y = f32[8,100] map(x), dimensions={0,1}, to_apply=affine", Cost(0, 1600, 800, VECTOR, VECTOR)),
        (
            X + "z = f32[] constant(0)\nROOT y = f32[8] reduce(x, z), dimensions={1}, to_apply=add",
            Cost(0, 8 * 99, 0, VECTOR + 4, 32),
        ),
        (  # a product that is written out: K multiplications and K - 1 additions an output
            X + "w = f32[100] parameter(1)\nz = f32[] constant(0)\nv = f32[8,100] broadcast(w), dimensions={1}\n"
            'p = f32[8,100] multiply(x, v), metadata={op_name="jit(f)/dot_general/mul"}\n'
            'ROOT y = f32[8] reduce(p, z), dimensions={1}, to_apply=add, metadata={op_name="jit(f)/m/dot_general"}',
            Cost(8 * 100 + 8 * 99, 0, 0, 4 * VECTOR + 400 - VECTOR + 4, 2 * VECTOR + 32),
        ),
        (
            X + "z = f32[] constant(0)\n"
            "ROOT y = f32[8,98] reduce-window(x, z), window={size=1x5 pad=0_0x1_1}, to_apply=add",
            Cost(0, 8 * 98 * 4, 0, VECTOR + 4, 8 * 98 * 4),
        ),
        (
            X + "z = f32[] constant(0)\n"  # a reduction, broadcast back to every position
            "ROOT y = f32[8,100] reduce-window(x, z), window={size=1x199 pad=0_0x99_99}, to_apply=add",
            Cost(0, 8 * 99, 0, VECTOR + 4, VECTOR),
        ),
        (
            X + "s = f32[8,50] parameter(1)\nz = f32[] constant(0)\n"
            "ROOT y = f32[8,100] select-and-scatter(x, s, z), window={size=1x2 stride=1x2}, select=ge, scatter=add",
            Cost(0, 8 * 50 * (1 + 1), 0, VECTOR + 8 * 50 * 4 + 4, VECTOR),
        ),
        (X + "ROOT y = f32[8,100] sort(x), dimensions={1}, to_apply=less", Cost(0, 800 * 7, 0, VECTOR, VECTOR)),
        (X + "ROOT y = (f32[8,5], s32[8,5]) topk(x), k=5, largest=true", Cost(0, 800 * 3, 0, VECTOR, 2 * 160)),
        (
            X + "lo = f32[] constant(0)\nhi = f32[] constant(1)\n"
            "ROOT y = f32[8,100] rng(lo, hi), distribution=rng_uniform",
            Cost(0, 0, 800, 0, VECTOR),
        ),
        ("ROOT y = u64[2] rng-get-and-update-state(), delta=1", Cost(0, 0, 0, 0, 16)),
        (
            "x = f32[4,6,6,8] parameter(0)\nc = f32[8] parameter(1)\n"
            "ROOT y = f32[4,6,6,8] batch-norm-inference(x, c, c, c, c), epsilon=0.001, feature_index=3",
            Cost(0, 4 * 1152 + 8, 8, 1152 * 4 + 4 * 32, 1152 * 4),
        ),
        (
            "x = f32[4,6,6,8] parameter(0)\nc = f32[8] parameter(1)\n"
            "ROOT y = (f32[4,6,6,8], f32[8], f32[8]) batch-norm-training(x, c, c), epsilon=0.001, feature_index=3",
            Cost(0, 7 * 1152 + 5 * 8, 8, 1152 * 4 + 2 * 32, 1152 * 4 + 2 * 32),
        ),
        (
            "a = f32[3,16,16] parameter(0)\nROOT y = f32[3,16,16] cholesky(a), lower=true",
            Cost(0, 3 * 16**3 // 3, 0, 3 * 128 * 4, 3 * 128 * 4),
        ),
        (
            "a = f32[16,16] parameter(0)\nb = f32[16,5] parameter(1)\n"
            "ROOT y = f32[16,5] triangular-solve(a, b), left_side=true, lower=true, transpose_a=NO_TRANSPOSE",
            Cost(0, 16 * 80, 0, 512 + 320, 320),
        ),
        (
            "a = bf16[64,32] parameter(0)\nb = bf16[4,32,16] parameter(1)\nn = s32[4] parameter(2)\n"
            "ROOT y = bf16[64,16] ragged-dot(a, b, n), lhs_contracting_dims={1}, rhs_contracting_dims={1}, "
            "lhs_ragged_dims={0}, rhs_group_dims={0}",
            Cost(2 * 64 * 32 * 16, 0, 0, 2 * (64 * 32 + 4 * 32 * 16) + 16, 2 * 64 * 16),
        ),
        (  # the same for each of 6 elements of a batch, whose sizes are a line each
            "a = f32[6,32,64] parameter(0)\nb = f32[6,64,8] parameter(1)\nn = s32[6,4] parameter(2)\n"
            "ROOT y = f32[4,6,32,8] ragged-dot(a, b, n), lhs_batch_dims={0}, rhs_batch_dims={0}, "
            "lhs_contracting_dims={2}, rhs_contracting_dims={1}, lhs_ragged_dims={2}",
            Cost(6 * 2 * 32 * 64 * 8, 0, 0, 4 * 6 * (32 * 64 + 64 * 8 + 4), 4 * 4 * 6 * 32 * 8),
        ),
        (  # groups along the contracted dimension share it
            "a = bf16[64,32] parameter(0)\nb = bf16[64,16] parameter(1)\nn = s32[4] parameter(2)\n"
            "ROOT y = bf16[4,32,16] ragged-dot(a, b, n), lhs_contracting_dims={0}, rhs_contracting_dims={0}, "
            "lhs_ragged_dims={0}",
            Cost(2 * 64 * 32 * 16, 0, 0, 2 * (64 * 32 + 64 * 16) + 16, 2 * 4 * 32 * 16),
        ),
        (
            "a = f8e4m3fn[64,32] parameter(0)\nb = f8e4m3fn[16,32] parameter(1)\n"
            "s = f8e8m0fnu[64,1] parameter(2)\nt = f8e8m0fnu[16,1] parameter(3)\n"
            "ROOT y = f32[64,16] scaled-dot(a, b, s, t), lhs_contracting_dims={1}, rhs_contracting_dims={1}",
            Cost(2 * 64 * 32 * 16, 0, 0, 64 * 32 + 16 * 32 + 64 + 16, 4 * 64 * 16),
        ),
        (X + "ROOT y = f32[8,100]{0,1} copy(x)", Cost(0, 0, 0, VECTOR, VECTOR)),
        (
            X + "s = (f32[8,100], f32[8,100], u32[]) copy-start(x)\nROOT y = f32[8,100] copy-done(s)",
            Cost(0, 0, 0, VECTOR, VECTOR),
        ),
        (X + "ROOT y = f32[800] reshape(x)", Cost()),
        ("x = f32[8,100]{0,1} parameter(0)\nROOT y = f32[800]{0} reshape(x)", Cost(0, 0, 0, VECTOR, VECTOR)),
        ("x = f32[8,100]{1,0} parameter(0)\nROOT y = f32[100,8]{0,1} transpose(x), dimensions={1,0}", Cost()),
        (
            "x = f32[8,100]{1,0} parameter(0)\nROOT y = f32[100,8]{1,0} transpose(x), dimensions={1,0}",
            Cost(0, 0, 0, VECTOR, VECTOR),
        ),
        (X + "ROOT y = s32[] get-dimension-size(x), dimensions={0}", Cost(0, 0, 0, 0, 4)),
        (
            X + "t = token[] after-all()\nROOT y = token[] outfeed(x, t), outfeed_shape=f32[8,100]",
            Cost(0, 0, 0, VECTOR),
        ),
        ("t = token[] after-all()\nROOT y = (f32[8,100], token[]) infeed(t)", Cost(0, 0, 0, 0, VECTOR)),
        (
            X + "i = s32[3] parameter(1)\nu = f32[3,100] parameter(2)\n"
            "ROOT y = f32[8,100] scatter(x, i, u), to_apply=add, update_window_dims={1}, inserted_window_dims={0}, "
            "scatter_dims_to_operand_dims={0}, index_vector_dim=1",
            Cost(0, 300, 0, 1200 + 12 + 1200, 1200),
        ),
        (  # more updates than elements: the operand is read and written once
            "x = f32[4] parameter(0)\ni = s32[90] parameter(1)\nu = f32[90] parameter(2)\n"
            "ROOT y = f32[4] scatter(x, i, u), to_apply=add, update_window_dims={}, inserted_window_dims={0}, "
            "scatter_dims_to_operand_dims={0}, index_vector_dim=1",
            Cost(0, 90, 0, 16 + 720, 16),
        ),
        (
            "x = f32[1000,16] parameter(0)\ni = s32[5,1] parameter(1)\n"
            "ROOT y = f32[5,16] gather(x, i), offset_dims={1}, collapsed_slice_dims={0}, start_index_map={0}, "
            "index_vector_dim=1, slice_sizes={1,16}",
            Cost(0, 0, 0, 320 + 20, 320),
        ),
        (
            "x = f32[1000,16] parameter(0)\nu = f32[2,16] parameter(1)\ni = s32[] parameter(2)\n"
            "ROOT y = f32[1000,16] dynamic-update-slice(x, u, i, i)",
            Cost(0, 0, 0, 128 + 8, 128),
        ),
        (
            "x = f32[1000,16] parameter(0)\ni = s32[] parameter(1)\n"
            "ROOT y = f32[2,16] dynamic-slice(x, i, i), dynamic_slice_sizes={2,16}",
            Cost(0, 0, 0, 128 + 8, 128),
        ),
    ],
)  # fmt: skip
def test_counted_by_hand(body, expected):
    assert cost_of(body) == expected


def test_sparsity_is_refused_by_name():
    found = cost_module(
        module(
            "a = bf16[64,16] parameter(0)\nb = bf16[32,8] parameter(1)\nm = u16[64,2] parameter(2)\n"
            "ROOT y = bf16[64,8] dot(a, b, m), lhs_contracting_dims={1}, rhs_contracting_dims={0}, sparsity=L.1@2:4"
        )
    )
    assert found.unmodelled[0].unmodelled == "dot with sparsity=L.1@2:4"
    assert found.totals.flops == 0 and found.coverage == 0


def test_dimensions_that_do_not_fit_are_unmodelled():
    body = "a = f32[4,4] parameter(0)\nROOT y = f32[4,4] dot(a, a), lhs_contracting_dims={7}, rhs_contracting_dims={0}"
    assert cost_module(module(body)).unmodelled[0].unmodelled.startswith("malformed dot")


# Matrix products as a TPU writes them: dim_labels make a dot of a convolution.
@pytest.mark.parametrize(
    ("lhs", "rhs", "out", "window", "labels", "flops"),
    [
        ("64,96", "96,128", "64,128", "", "bf_io->bf", 2 * 64 * 96 * 128),
        ("5,32,48", "5,48,40", "5,32,40", "{size=5 stride=4 lhs_dilate=5}", "0bf_0io->0bf", 2 * 5 * 32 * 48 * 40),
        ("1,32,48", "5,48,40", "5,32,40", "{size=5 pad=4_4 rhs_reversal=1}", "0bf_0io->0bf", 5 * 2 * 32 * 48 * 40),
    ],
)
def test_dots_as_convolutions(lhs, rhs, out, window, labels, flops):
    text = f", window={window}" if window else ""
    body = (
        f"a = f32[{lhs}] parameter(0)\nb = f32[{rhs}] parameter(1)\n"
        f"ROOT y = f32[{out}] convolution(a, b){text}, dim_labels={labels}"
    )
    assert cost_of(body).matmul_flops == flops


def test_a_long_convolution_walks_along_its_shorter_side():
    """A window of 10^12 at one place: its one tap on the image counts."""
    window = Window((10**12,), (1,), ((0, 0),), (1,), (1,), (False,))
    assert valid_positions(window, 0, 1, 10**12, 1) == 1


@given(
    size=st.integers(1, 7), stride=st.integers(1, 5), low=st.integers(-4, 6), high=st.integers(-4, 6),
    spread=st.integers(1, 4), holes=st.integers(1, 4), lhs=st.integers(1, 12),
)  # fmt: skip
def test_valid_positions_by_brute_force(size, stride, low, high, spread, holes, lhs):
    padded = (lhs - 1) * holes + 1 + low + high
    out = max(0, (padded - ((size - 1) * spread + 1)) // stride + 1)
    window = Window((size,), (stride,), ((low, high),), (holes,), (spread,), (False,))
    places = [o * stride - low + k * spread for o in range(out) for k in range(size)]
    expected = sum(p % holes == 0 and 0 <= p // holes < lhs for p in places)
    assert valid_positions(window, 0, lhs, size, out) == expected


@pytest.mark.parametrize(
    ("kind", "operand", "result", "length", "flops"),
    [
        ("FFT", "c64[8,256]", "c64[8,256]", "256", 8 * 8 * 256 * 8),
        ("RFFT", "f32[8,256]", "c64[8,129]", "256", 2.5 * 8 * 256 * 8),
        ("IRFFT", "c64[8,129]", "f32[8,256]", "256", 2.5 * 8 * 256 * 8),
        ("RFFT", "f32[3,16,64]", "c64[3,16,33]", "16,64", 2.5 * 3 * 16 * 64 * (4 + 6)),
    ],
)
def test_transforms_of_real_numbers_take_half(kind, operand, result, length, flops):
    body = f"x = {operand} parameter(0)\nROOT y = {result} fft(x), fft_type={kind}, fft_length={{{length}}}"
    assert cost_module(module(body)).totals.vector_flops == flops


@pytest.mark.parametrize(("dtype", "flops"), [("f32", 2), ("c64", 8), ("c128", 8)])
def test_a_complex_multiply_add_is_eight_flops(dtype, flops):
    dot = f"ROOT y = {dtype}[5,7] dot(a, b), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}"
    body = f"a = {dtype}[5,11] parameter(0)\nb = {dtype}[11,7] parameter(1)\n{dot}"
    assert cost_module(module(body)).totals.matmul_flops == flops * 5 * 11 * 7


@pytest.mark.parametrize(
    ("opcode", "flops"), [("add", 2), ("subtract", 2), ("multiply", 6), ("divide", 6 + 3 + 2), ("power", 0)]
)
def test_complex_arithmetic_counts_real_operations(opcode, flops):
    body = f"a = c64[10] parameter(0)\nb = c64[10] parameter(1)\nROOT y = c64[10] {opcode}(a, b)"
    assert cost_module(module(body)).totals.vector_flops == 10 * flops


@pytest.mark.parametrize("vector", [4, 32])
def test_a_convolution_of_packed_features_counts_them_all(vector):
    x, w, y = f"s8[10,4,30,30,{vector}]", f"s8[4,2,2,{4 * vector},{vector}]", f"s8[10,4,29,29,{vector}]"
    plain_x, plain_w, plain_y = f"s8[10,{4 * vector},30,30]", f"s8[{4 * vector},2,2,{4 * vector}]", ""
    call = 'custom-call(x, w), window={size=2x2}, custom_call_target="__cudnn$convForward", dim_labels='
    packed = f"x = {x} parameter(0)\nw = {w} parameter(1)\nROOT c = ({y}, u8[0]) {call}bf01?_i01o?->bf01?"
    plain_y = f"s8[10,{4 * vector},29,29]"
    plain = f"x = {plain_x} parameter(0)\nw = {plain_w} parameter(1)\nROOT c = ({plain_y}, u8[0]) {call}bf01_i01o->bf01"
    flops = 2 * 10 * (4 * vector) ** 2 * 2 * 2 * 29 * 29
    for text in (packed, plain):
        assert cost_module(module(text)).totals.matmul_flops == flops
