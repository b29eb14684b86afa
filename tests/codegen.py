"""XLA's older way from HLO to machine code, one module at a time: less than half of the work, for tiny models."""

import os
from importlib.metadata import version

# XLA ends a process that names a flag it does not know, and these two are known to be of this version.
FLAGS = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
FLAGS = FLAGS if version("jaxlib").startswith("0.10.") else ""
# Of a compilation whose text matters, so that it goes XLA's own way: `compile(compiler_options=OWN)`.
OWN = {"xla_cpu_use_fusion_emitters": True} if FLAGS else {}


def take() -> None:
    """Takes the flags for this process alone: what its children compile and measure goes XLA's own way."""
    from jaxlib import xla_client

    before = os.environ.get("XLA_FLAGS")
    os.environ["XLA_FLAGS"] = f"{FLAGS} {before or ''}".strip()
    xla_client.CompileOptions()  # reads the flags, as the first call in a process does
    if before is None:
        del os.environ["XLA_FLAGS"]
    else:
        os.environ["XLA_FLAGS"] = before
