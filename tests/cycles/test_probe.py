"""What a machine tells of itself."""

import builtins
import io

import pytest

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


def test_caches_grow():
    levels = caches()
    assert [name for name, _ in levels] == ["L2", "L3"] and levels[0][1] > 0 and levels[1][1] > 0
