"""FLOPs of LAPACK routines, by name: what jax.numpy.linalg calls on CPU and GPU.

Direct ones are exact to leading order (LAPACK Working Note 41); iterative ones (eigenvalues, singular values) are the
usual estimates (Golub and Van Loan, "Matrix Computations", 4th ed., tables 5.5.1 and 8.6.1): they depend on the data.
"""

from __future__ import annotations

import re

from llmjax.cost.computed import times, triangular_solve
from llmjax.cost.values import Context, Cost, UnmodelledError
from llmjax.hlo.ir import Instruction

# Of one m x n matrix, k = min(m, n).
_ROUTINES = {
    "potrf": lambda m, n, k: n**3 // 3,
    "getrf": lambda m, n, k: 2 * m * n * k - (m + n) * k * k + 2 * k**3 // 3,
    "geqrf": lambda m, n, k: 2 * m * n * k - 2 * k**3 // 3,
    "geqp3": lambda m, n, k: 2 * m * n * k - 2 * k**3 // 3,
    "orgqr": lambda m, n, k: 4 * m * n * k - 2 * (m + n) * k * k + 4 * k**3 // 3,
    "sytrd": lambda m, n, k: 4 * n**3 // 3,
    "gehrd": lambda m, n, k: 10 * n**3 // 3,
    "syevd": lambda m, n, k: 9 * n**3,
    "geev": lambda m, n, k: 25 * n**3,
    "gees": lambda m, n, k: 25 * n**3,
    "gesdd": lambda m, n, k: 4 * max(m, n) ** 2 * k + 22 * k**3,
    "gtsv": lambda m, n, k: 8 * max(m, n),
}
# The names of complex matrices, of other algorithms, and those of TPU programs before these calls are expanded.
_ALIASES = {
    "geqrf": ("Qr",),
    "gesdd": ("gesvd", "gesvdj", "gesvdp"),
    "getrf": ("LuDecomposition",),
    "gtsv": ("gtsv2",),
    "orgqr": ("ungqr", "ProductOfElementaryHouseholderReflectors"),
    "syevd": ("heevd", "syevj", "syev", "Eigh"),
    "sytrd": ("hetrd",),
}
_NAMES = {alias: name for name, aliases in _ALIASES.items() for alias in (name, *aliases)}
_TARGET = re.compile(r"(?:lapack_|blas_|cusolver_|cublas_|hipsolver_|hipblas_)([a-z0-9]+?)(?:_batched)?(?:_ffi)?")


def by_name(instruction: Instruction, context: Context) -> Cost:
    """FLOPs of a LAPACK, BLAS or cuSOLVER call, summed over the batch of matrices in its first operand."""
    target = instruction.custom_call_target
    match = _TARGET.fullmatch(target)
    routine = match[1] if match else target
    names = {routine, routine[1:]}  # LAPACK's have the type in front: spotrf, dpotrf
    matrix = next((s for s in context.shapes(instruction) if s.rank >= 2), None)
    if matrix is None:
        raise UnmodelledError(f"{target} without a matrix")
    m, n = matrix.dims[-2:]
    batch = matrix.elements // max(1, m * n)
    if "trsm" in names:
        return triangular_solve(instruction, context)
    for name in names:
        known = _NAMES.get(name, name)
        if known in _ROUTINES:
            return Cost(vector_flops=times(matrix) * batch * _ROUTINES[known](m, n, min(m, n)))
    raise UnmodelledError(f"no rule for custom-call target {target!r}")
