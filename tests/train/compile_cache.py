"""Tests that run the same program many times compile it once."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache

SETTINGS = {
    "jax_compilation_cache_dir": "",
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}


@contextmanager
def compile_cache(folder: Path) -> Iterator[None]:
    """Keeps compiled programs in `folder`, in this process and in those that it starts."""
    before = {name: getattr(jax.config, name) for name in SETTINGS}
    wanted = SETTINGS | {"jax_compilation_cache_dir": str(folder)}
    environment = {name.upper(): str(value) for name, value in wanted.items()}
    kept = {name: os.environ.get(name) for name in environment}
    try:
        for name, value in wanted.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
        os.environ.update(environment)
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
        for name, text in kept.items():
            if text is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = text
