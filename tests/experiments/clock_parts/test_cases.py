"""What is timed, and the process that times it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.clock_parts import code
from experiments.clock_parts.cases import Case, attempt_cases, environment, measure_cases
from experiments.clock_parts.programs import build_case, op_by_op
from experiments.clock_parts.worker import count
from llmjax.errors import UserError

DECODE = Case("tiny", "decode", 1, 16)


@pytest.mark.parametrize(
    ("case", "tokens"),
    [
        (Case("tiny", "decode", 3, 16), 3),
        (Case("tiny", "generate", 3, 16, new_tokens=5), 15),
        (Case("tiny", "prefill", 3, 16), 48),
        (Case("tiny", "classify", 3, 16), 48),
    ],
)
def test_tokens_are_those_that_the_work_is_for(case: Case, tokens: int):
    assert case.tokens == tokens


def test_a_case_that_means_nothing_is_refused():
    with pytest.raises(ValueError, match="phase 'sing'"):
        Case("tiny", "sing", 1, 16)
    with pytest.raises(ValueError, match="new_tokens=0"):
        Case("tiny", "generate", 1, 16)


def test_the_name_says_what_is_not_usual_and_not_where_files_go():
    case = dataclasses.replace(DECODE, jit=False, cached=False, threads=1, flags="--xla_dump_to=/x --xla_cpu_x=1")
    assert case.name == "tiny, decode, batch 1, length 16, float32, op by op, no cache, 1 thread, --xla_cpu_x=1"


def test_each_number_of_threads_has_a_compile_cache_of_its_own(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/c")
    monkeypatch.setenv("XLA_FLAGS", "--a")
    assert environment(DECODE)["JAX_COMPILATION_CACHE_DIR"] == "/c"
    other = environment(dataclasses.replace(DECODE, threads=1, flags="--b", fresh=True))
    assert other["JAX_COMPILATION_CACHE_DIR"] == "/c-1"
    assert other["XLA_FLAGS"] == "--a --b"
    assert other["JAX_ENABLE_COMPILATION_CACHE"] == "false"


def test_a_child_times_a_case_on_one_core():
    case = dataclasses.replace(DECODE, threads=1)
    told: list[str] = []
    found = measure_cases([case, case], 2, told.append)
    timing = found[case]
    assert len(told) == len(found) == 1
    assert 0 < timing.seconds.low <= timing.seconds.median <= timing.seconds.high
    # A decode step multiplies by every weight once, and adds up the 32 products or more of an output.
    weights = 2 * (12 * 32**2) + 50257 * 32
    assert weights * (1 + 31 / 32) <= timing.flops <= 1.1 * 2 * weights
    assert timing.bytes > 4 * weights
    assert 10 < timing.ops < 200


def test_a_child_that_dies_is_one_line():
    case = dataclasses.replace(DECODE, flags="--xla_no_such_flag=1")
    found, failed = attempt_cases([case], 1)
    assert not found
    assert "xla_no_such_flag" in failed[case] and "\n" not in failed[case]


def test_more_threads_than_processors_are_one_line():
    with pytest.raises(UserError, match="10000 threads are more than"):
        measure_cases([dataclasses.replace(DECODE, threads=10000)], 1)


def test_weights_as_stored_compute_what_the_model_computes():
    made = build_case(dataclasses.replace(DECODE, length=1, prepared=False))
    whole = build_case(dataclasses.replace(DECODE, length=1, cached=False))
    logits_BV = made.function(*made.args)[0]
    params = whole.args[0]
    assert logits_BV.shape == (1, 50257)
    np.testing.assert_allclose(logits_BV, whole.function(params, *whole.args[1:]), rtol=1e-4, atol=1e-5)


def test_one_primitive_after_the_other_gives_what_jit_gives():
    @jax.jit
    def inner(x: jax.Array) -> jax.Array:
        return jnp.tanh(x) * 2

    def function(x: jax.Array, y: jax.Array) -> dict[str, jax.Array]:
        return {"sum": inner(x) + inner(y), "x": x, "soft": jax.nn.softmax(x @ y.T)}

    args = (jnp.linspace(0, 1, 12).reshape(3, 4), jnp.ones((3, 4)))
    run, dispatches = op_by_op(function, args)
    found, expected = run(*args), jax.jit(function)(*args)
    assert dispatches > 8
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_loops_count_as_often_as_they_run():
    text = jax.jit(lambda x, n: jax.lax.while_loop(lambda s: s[1] < n, lambda s: (s[0] @ s[0], s[1] + 1), (x, 0)))
    lowered = text.lower(jnp.ones((8, 8)), 3).compile().as_text()
    assert count(lowered, 5)[0] - count(lowered, 1)[0] == pytest.approx(4 * 2 * 8**3, rel=0.05)


ASSEMBLY = """
a.o:\tfile format elf64-x86-64
       0: \tmovss\t(%rdi), %xmm0
       4: \tmulss\t%xmm1, %xmm0
b.o:\tfile format elf64-x86-64
       0: \tvfmadd231ps\t%ymm1, %ymm2, %ymm0
       6: \tvaddss\t%xmm1, %xmm2, %xmm0
       8: \tvaddps\t%zmm1, %zmm2, %zmm0
c.o:\tfile format elf64-x86-64
       0: \tretq
""".splitlines()


def test_code_is_told_by_the_width_of_its_arithmetic():
    found = code.widths(ASSEMBLY)
    assert found == {"a.o": {32: 1}, "b.o": {32: 1, 256: 1, 512: 1}}
    assert code.describe(found) == "no vector instruction in 1 of 2 kernels, up to 512 bits in the others"
    assert code.describe({"a.o": {32: 3}}) == "no vector instruction in any of 1 kernel"
    assert code.describe({"b.o": {128: 3}}) == "vectors of up to 128 bits in all of 1 kernel"
    assert code.describe(None) == "its code was not looked at"
