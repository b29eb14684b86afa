"""What a machine tells of itself."""

import builtins
import dataclasses
import io

import pytest

from llmjax.cycles import probe
from llmjax.cycles.device import Figure, load_device
from llmjax.cycles.noise import MOST, adds_up, noisy_figures, warning
from llmjax.cycles.probe import _clock_of, caches, simd_bits


@pytest.mark.parametrize(
    ("text", "bits"),
    [
        ("processor\t: 0\nflags\t\t: fpu sse2 avx avx2 avx512f\n", 512),
        ("flags : sse2 avx avx2\nflags : sse2 avx avx2\n", 256),
        ("flags : fpu sse2\n", 128),
        ("Features : fp asimd\n", 128),
        ("flags : fpu\n", None),
        (None, None),
    ],
)
def test_vectors_are_as_wide_as_the_kernel_says(monkeypatch, text, bits):
    def read(path, *_):
        if text is None:
            raise FileNotFoundError(path)
        return io.StringIO(text)

    monkeypatch.setattr(builtins, "open", read)
    found = simd_bits()
    monkeypatch.undo()
    assert (found.value if found else None) == bits


def test_the_clock_of_a_busy_machine_is_noisy() -> None:
    quiet = _clock_of([[0.2, 1.2], [0.2, 1.2], [0.21, 1.21]], 10**9)
    assert quiet.value == pytest.approx(4e9) and quiet.spread == 0.0
    busy = _clock_of([[0.2, 1.2], [0.3, 2.9], [1.2, 4.2], [0.2, 7.2], [0.5, 2.5]], 10**9)
    assert busy.spread is not None and busy.spread > MOST
    crossed = _clock_of([[2.0, 3.0], [9.0, 3.0], [2.0, 8.0]], 10**9)
    assert crossed.spread == 1.0  # one of the rounds says that time runs backwards
    assert _clock_of([[3.0, 2.0]], 10**9).provenance == "estimate"


def test_numbers_that_do_not_repeat_are_named() -> None:
    device = load_device("gpu:h100")
    assert warning(device) == ""
    busy = dataclasses.replace(device, clock_hz=Figure(5.7e8, "measured", "", 0.43))
    assert noisy_figures(busy) == ["clock (43% apart)"]
    assert warning(busy).startswith("too noisy: the quartiles of clock (43% apart)")


@pytest.mark.parametrize(
    ("parts", "whole", "said"), [(0.9, 1.0, True), (0.6, 1.0, False), (1.5, 1.0, False), (0, 0, False)]
)
def test_parts_are_held_against_their_whole(parts: float, whole: float, said: bool) -> None:
    assert adds_up(parts, whole) is said


def system(tmp_path, monkeypatch, cores, l2="512K", l3="32768K"):
    """The kernel's files of four processors, each with its own L2 and one L3 for all, of which `cores` may be used."""
    for core in range(4):
        for k, (level, kind, size, shared) in enumerate(
            [("1", "Instruction", "32K", str(core)), ("2", "Unified", l2, str(core)), ("3", "Unified", l3, "0-3")]
        ):
            folder = tmp_path / f"cpu{core}" / "cache" / f"index{k}"
            folder.mkdir(parents=True, exist_ok=True)
            for name, text in (("level", level), ("type", kind), ("size", size), ("shared_cpu_list", shared)):
                (folder / name).write_text(f"{text}\n")
    monkeypatch.setattr(probe, "_CACHES", f"{tmp_path}/cpu{{}}/cache")
    monkeypatch.setattr(probe.os, "sched_getaffinity", lambda _: set(cores), raising=False)
    monkeypatch.setattr(probe.os, "cpu_count", lambda: 64)


@pytest.mark.parametrize("cores", [[1], [0, 3], [0, 1, 2, 3]])
def test_caches_are_those_of_the_processors_that_may_be_used(tmp_path, monkeypatch, cores):
    system(tmp_path, monkeypatch, cores)
    found = dict(caches())
    assert found["L2"].value == len(cores) * 512 * 1024  # not the machine's 64
    assert found["L3"].value == 32 * 2**20  # once, however many share it
    assert {figure.provenance for figure in found.values()} == {"measured"}


def test_what_the_system_does_not_say_is_an_estimate(tmp_path, monkeypatch):
    system(tmp_path, monkeypatch, [0, 1], l2="many", l3="what?")
    found = dict(caches())
    assert {figure.provenance for figure in found.values()} == {"estimate"}
    assert found["L2"].value == 2 * 2**20

    class Silent:
        def memory_stats(self):
            return None

    monkeypatch.setattr(probe.jax, "devices", lambda: [Silent()])
    assert probe._main_memory("gpu").provenance == "estimate"
