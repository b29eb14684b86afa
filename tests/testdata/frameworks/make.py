"""Writes the texts of this folder: `python tests/testdata/frameworks/make.py`, with equinox and dm-haiku installed."""

# ruff: noqa: E402
import os
import re
import sys
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import equinox_programs
import haiku_programs
import jax
import linen_programs
import maxtext_programs
import plain_programs

MODULES = (linen_programs, maxtext_programs, plain_programs, equinox_programs, haiku_programs)

jax.config.update("jax_traceback_in_locations_limit", 8)  # deep stacks of Linen are most of a text
for module in MODULES:
    for name, function, arguments in module.programs():
        text = jax.jit(function).lower(*arguments).compile().as_text()
        text = text.replace(f"{HERE}/", "")
        text = re.sub(r'"/[^"]*?(/site-packages/)', r'"\1', text)
        left = re.findall(r'"/(?!site-packages/)[^"]*/[^"]*"', text)
        if left:
            sys.exit(f"{name}: a path of this machine is left: {left[0]}")
        (HERE / f"{name}.hlo").write_text(text)
        print(f"{name}: {len(text):,} B")
