"""Which device computes: JAX decides, and it is said where there was a choice."""

import functools
import glob
import importlib.util
import os
import sys
from importlib.metadata import entry_points

from llmjax.allocator import keep_freed_memory

# Where Linux shows TPUs to a process; JAX itself looks for them on the PCI bus, which a container may hide.
_TPU_DEVICES = ("/dev/accel*", "/dev/vfio/[0-9]*")


@functools.cache
def settle() -> str:
    """Returns the platform that JAX computes on (cpu, gpu, tpu, ...), and says which it is where others were possible.

    It is to be called before JAX computes anything. Where it can be the CPU only, the compilers for chips that are not
    here are kept from looking for them, and freed memory is kept, which must be set up before JAX starts its threads.
    """
    import jax

    asked = os.environ.get("JAX_PLATFORMS", "")
    plugins = {} if asked else accelerators()
    if asked != "cpu" and (asked or any(plugins.values())):
        device = jax.local_devices()[0]
        if not asked:
            _say(f"computing on {device.device_kind} ({device.platform}); JAX_PLATFORMS=cpu chooses the CPU")
        return device.platform
    keep_freed_memory()
    if not asked:
        jax.config.update("jax_platforms", "cpu")
    os.environ["JAX_PLATFORMS"] = "cpu"  # for child processes: here JAX has read it already
    if plugins:
        _say(f"computing on the CPU: no chip is here for {' and '.join(plugins)}; JAX_PLATFORMS chooses another device")
    return "cpu"


def accelerators() -> dict[str, bool]:
    """Returns JAX's plugins that are installed, and whether a chip for them may be here: True where JAX can't tell."""
    names = {entry.name for entry in entry_points(group="jax_plugins")}
    names |= {"libtpu"} if importlib.util.find_spec("libtpu") else set()
    names |= {"PJRT_NAMES_AND_LIBRARY_PATHS"} & set(os.environ)
    return {name: _may_be_here(name) for name in sorted(names)}


def _may_be_here(plugin: str) -> bool:
    try:
        from jax._src import (
            hardware_utils,
        )  # seen in jax 0.10 to 0.12; JAX's own look for hardware, without starting it

        if plugin.startswith("xla_cuda"):
            return hardware_utils.has_visible_nvidia_gpu()
        if plugin == "libtpu":
            chips = hardware_utils.num_available_tpu_chips_and_device_id()[0]
            return chips > 0 or any(map(glob.glob, _TPU_DEVICES))
    except (ImportError, AttributeError, OSError):
        pass
    return True


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)
