"""Numbers as people read them."""

from llmjax.cost.values import Number

_SUFFIXES = ("", "k", "M", "G", "T", "P", "E", "Z")


def short(value: Number, unit: str = "") -> str:
    """Returns three significant digits and an SI prefix: 1234567 -> "1.23 M". Units are decimal: 1 GB = 10^9 bytes."""
    scaled, place = float(value), 0
    while abs(scaled) >= 999.5 and place < len(_SUFFIXES) - 1:
        scaled, place = scaled / 1000, place + 1
    digits = 0 if scaled >= 99.95 or (not place and float(value).is_integer()) else 1 if scaled >= 9.995 else 2
    suffix = _SUFFIXES[place] + unit
    return f"{scaled:.{digits}f} {suffix}".strip()


def percent(part: Number, whole: Number) -> str:
    """Returns a share as text: "12.3%"; "<0.1%" for what is little but not nothing, "" for nothing."""
    if not part or not whole:
        return ""
    share = 100 * part / whole
    return "<0.1%" if share < 0.05 else f"{share:.1f}%"
