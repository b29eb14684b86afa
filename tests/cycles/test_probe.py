"""What a machine tells of itself."""

import builtins
import io

import pytest

from llmjax.cycles import probe
from llmjax.cycles.probe import caches, simd_bits


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
