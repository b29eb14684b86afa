"""A real dump: a small program compiled in a child process with --xla_dump_to."""

import os
import subprocess
import sys
from pathlib import Path

_PROGRAM = """
import jax, jax.numpy as jnp
def f(w, x):
    for _ in range(3):
        x = jnp.tanh(x @ w)
    return x.sum(), x
jax.jit(f).lower(*(jax.ShapeDtypeStruct(dims, jnp.float32) for dims in ((64, 64), (32, 64)))).compile()
"""


def dump(folder: Path) -> Path:
    """Returns the file of the optimised module."""
    flags = f"--xla_dump_to={folder} --xla_dump_hlo_as_text"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "JAX_ENABLE_COMPILATION_CACHE": "false"}
    subprocess.run([sys.executable, "-c", _PROGRAM], env=environment, check=True, capture_output=True)
    (found,) = folder.glob("*jit_f*after_optimizations.txt")
    return found
