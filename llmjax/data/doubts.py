"""What looks like a slip in labelled texts and is no error: a line each, with the rows to look at."""

from collections.abc import Callable, Iterable, Sequence

from llmjax.data.files import Rows

_SHOWN = 3  # rows that a line names, and labels


def doubts(rows: Rows, texts: Sequence[str], labels: Sequence[int | str], same: Callable[[str], str]) -> list[str]:
    """Returns a line for every kind of slip in one source.

    Labels that differ only by case, names among numbers, one text under several labels, and texts that kept the
    quotation marks which pandas puts around fields of a TSV.

    Args:
        texts, labels: of `rows`, as they are understood: labels as whole numbers or names.
        same: makes of a text what it has in common with the same sentence written otherwise.
    """
    first: dict[int | str, int] = {}
    for row, label in enumerate(labels):
        first.setdefault(label, row)
    return [
        *_by_case(rows, first),
        *_mixed(rows, labels, first),
        *_contradictions(rows, texts, labels, same),
        *_quoted(rows, texts),
    ]


def _by_case(rows: Rows, first: dict[int | str, int]) -> Iterable[str]:
    alike: dict[str, list[str]] = {}
    for label in first:
        if isinstance(label, str):
            alike.setdefault(label.casefold(), []).append(label)
    for labels in alike.values():
        if len(labels) > 1:
            where = ", ".join(f"{label!r} ({rows.unit} {rows.places[first[label]]})" for label in labels[:_SHOWN])
            yield f"{rows.origin}: labels that differ only by case are different classes: {where}"


def _mixed(rows: Rows, labels: Sequence[int | str], first: dict[int | str, int]) -> Iterable[str]:
    numbers = [row for row, label in enumerate(labels) if isinstance(label, int)]
    names = [label for label in first if isinstance(label, str)]
    if numbers and names:
        few = min(numbers, [row for row, label in enumerate(labels) if isinstance(label, str)], key=len)
        yield f"{rows.origin}: labels are names here and numbers there: {_at(rows, few)} differ from the other rows"


def _contradictions(
    rows: Rows, texts: Sequence[str], labels: Sequence[int | str], same: Callable[[str], str]
) -> Iterable[str]:
    seen: dict[str, int] = {}
    pairs: list[tuple[int, int]] = []
    for row, text in enumerate(texts):
        before = seen.setdefault(same(text), row)
        if labels[before] != labels[row]:
            pairs.append((before, row))
    if pairs:
        found = "; ".join(f"{rows.unit}s {rows.places[a]} and {rows.places[b]}" for a, b in pairs[:_SHOWN])
        more = f" and {len(pairs) - _SHOWN} more" if len(pairs) > _SHOWN else ""
        yield f"{rows.origin}: the same text under different labels: {found}{more}"


def _quoted(rows: Rows, texts: Sequence[str]) -> Iterable[str]:
    if not rows.origin.lower().endswith(".tsv"):
        return
    # pandas quotes a field that has a quotation mark in it, and doubles that mark.
    found = [
        row for row, text in enumerate(texts) if len(text) > 1 and text[0] == text[-1] == '"' and '""' in text[1:-1]
    ]
    if found:
        yield (
            f"{rows.origin}: a TSV is read without quoting: the quotation marks that pandas puts around a field stay in"
            f" {_at(rows, found)}: save it as .csv, or with quoting=csv.QUOTE_NONE"
        )


def _at(rows: Rows, found: Sequence[int]) -> str:
    places = ", ".join(str(rows.places[row]) for row in found[:_SHOWN])
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return f"{rows.unit}{'s' if len(found) > 1 else ''} {places}{more}"
