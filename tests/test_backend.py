"""Which device computes is JAX's choice; it is said where there was one, and only a CPU's memory is looked after."""

from types import SimpleNamespace

import jax
import pytest

from llmjax import backend


@pytest.fixture
def settled(monkeypatch, capsys):
    """Returns a function from (JAX_PLATFORMS, plugins, device) to what is chosen, said, and done to the allocator."""

    def call(asked, plugins, device=None):
        done = []
        if asked:
            monkeypatch.setenv("JAX_PLATFORMS", asked)
        else:
            monkeypatch.delenv("JAX_PLATFORMS", raising=False)
        monkeypatch.setattr(backend, "accelerators", lambda: plugins)
        monkeypatch.setattr(backend, "keep_freed_memory", lambda: done.append("kept"))
        monkeypatch.setattr(jax.config, "update", lambda *_: done.append("cpu"))
        monkeypatch.setattr(jax, "local_devices", lambda: [device])
        return backend.settle.__wrapped__(), capsys.readouterr().err, done

    return call


GPU = SimpleNamespace(device_kind="NVIDIA H100 80GB HBM3", platform="gpu")


@pytest.mark.parametrize(
    ("asked", "plugins", "device", "found", "said", "done"),
    [
        ("", {}, None, "cpu", "", ["kept", "cpu"]),
        ("cpu", {"xla_cuda12": True}, None, "cpu", "", ["kept"]),
        ("", {"libtpu": False, "xla_cuda12": False}, None, "cpu", "on the CPU: no chip is here for", ["kept", "cpu"]),
        ("", {"libtpu": False, "xla_cuda12": True}, GPU, "gpu", "computing on NVIDIA H100 80GB HBM3 (gpu)", []),
        ("cuda", {}, GPU, "gpu", "", []),
        ("", {"metal": True}, SimpleNamespace(device_kind="cpu", platform="cpu"), "cpu", "computing on cpu (cpu)", []),
    ],
)
def test_what_was_chosen_is_said_where_there_was_a_choice(settled, asked, plugins, device, found, said, done):
    platform, shown, did = settled(asked, plugins, device)
    assert platform == found and did == done
    assert shown.count("\n") == bool(said) and said in shown


def test_hardware_that_jax_cannot_tell_may_be_here(monkeypatch):
    from jax._src import hardware_utils

    monkeypatch.setattr(hardware_utils, "has_visible_nvidia_gpu", lambda: False)
    monkeypatch.setattr(hardware_utils, "num_available_tpu_chips_and_device_id", lambda: (0, None))
    monkeypatch.setattr(backend.glob, "glob", lambda pattern: [])
    assert [backend._may_be_here(name) for name in ("xla_cuda12", "libtpu", "rocm")] == [False, False, True]
    monkeypatch.setattr(backend.glob, "glob", lambda pattern: [pattern])
    assert backend._may_be_here("libtpu")
    monkeypatch.delattr(hardware_utils, "has_visible_nvidia_gpu")
    assert backend._may_be_here("xla_cuda13")
