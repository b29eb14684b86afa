"""setuptools, told whether a clone is installed as it lies (`pip install -e .`): setup.py then asks for everything."""

import os
from collections.abc import Callable
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403


def _of_a_clone(hook: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        os.environ["LLMJAX_CLONE"] = "1"  # a hook has a process of its own (PEP 517)
        return hook(*args, **kwargs)

    return call


get_requires_for_build_editable = _of_a_clone(build_meta.get_requires_for_build_editable)
prepare_metadata_for_build_editable = _of_a_clone(build_meta.prepare_metadata_for_build_editable)
build_editable = _of_a_clone(build_meta.build_editable)
