"""One colour a role, on every page and in every program."""

from __future__ import annotations

import colorsys
from collections.abc import Iterable

from llmjax.cost.roles import OTHER, ROLES, UNATTRIBUTED

_PLAIN = {OTHER: "#8a8583", UNATTRIBUTED: "#b8b4b0"}
# Told apart beside one another, on white and on black: Tableau 10 and the darker half of Tableau 20, without its greys.
_PALETTE = (
    *("#4c78a8", "#f58518", "#54a24b", "#e45756", "#72b7b2", "#b279a2", "#d8b426", "#e88a97", "#9d755d", "#2f4b7c"),
    *("#a05d00", "#2f6b2a", "#8c1c2c", "#3f8f8a", "#6b4c9a", "#8a7a00"),
)
# They take the most of every page, and the colours most easily told apart.
_FIRST = ("vocabulary projection", "MLP", "attention projections", "attention scores", "layer norm", "softmax")
_GOLDEN = 0.61803398875  # steps of it round the circle of hues never come back to one another


def role_colours(roles: Iterable[str]) -> dict[str, str]:
    """Returns a colour, "#rrggbb", for each role: no two alike, and those of llmjax's own table always the same."""
    known = [role for role in dict.fromkeys((*_FIRST, *(role for _, role in ROLES))) if role not in _PLAIN]
    found = dict(zip(known, _colours(len(known)), strict=True)) | _PLAIN
    others = sorted(set(roles) - set(found))
    return found | dict(zip(others, _colours(len(known) + len(others))[len(known) :], strict=True))


def _colours(count: int) -> list[str]:
    more = [_hue(k) for k in range(count - len(_PALETTE))]
    return [*_PALETTE[:count], *more]


def _hue(k: int) -> str:
    rgb = colorsys.hls_to_rgb((k * _GOLDEN) % 1.0, (0.42, 0.62)[k % 2], 0.45)
    return "#" + "".join(f"{round(255 * part):02x}" for part in rgb)
