"""What a value must be, said once: checks of settings and of JSON files, each with the words that name a mistake.

A schema is a mapping of names to checks, or to schemas of what is nested. `checked` holds values against one before
anything is computed with them. No JAX import.
"""

import ast
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, TypeAlias

from llmjax.errors import UserError, did_you_mean

MOST_WHOLE = 2**31 - 1  # what an int32 of a compiled program holds
_SHOWN = 60  # characters of a value that an error line shows
_FLAGS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}


@dataclass(frozen=True)
class Check:
    """What one value must be.

    `must` completes "... must be"; where it is "" the value must be one of `names`. `holds` decides; of what has parts,
    about the whole, and `each` about every part: `parts` gives them with what to put after the whole's name. `of_text`
    makes a value of what was typed, and hands on what it can't read, for `holds` to refuse. `finish` makes what is kept
    of a good value. An `optional` one may be absent; names below an `open` one are free.
    """

    must: str
    holds: Callable[[Any], bool]
    of_text: Callable[[str], Any] = str
    names: Callable[[], tuple[str, ...]] = tuple
    finish: Callable[[Any], Any] = lambda value: value
    optional: bool = False
    open: bool = False
    each: "Check | None" = None
    parts: Callable[[Any], Iterable[tuple[str, Any]]] = lambda value: ()

    def words(self) -> str:
        """Returns what completes "... must be"."""
        return self.must or f"one of {', '.join(name or repr(name) for name in self.names())}"

    def wrong(self, name: str, value: Any) -> str:
        """Returns "" for a good value, else the sentence that says which value, called `name`, must be what."""
        if self.holds(value):
            found = ((name + label, part) for label, part in self.parts(value)) if self.each else ()
            return next((said for part in found if (said := self.each.wrong(*part))), "")  # pyright: ignore
        near = did_you_mean(value, self.names()) if isinstance(value, str) and value else ""
        return f"{name}={shown(value)} must be {self.words()}.{near}"


Schema: TypeAlias = Mapping[str, "Check | Schema | list[Schema]"]
"""[schema] stands for a list of objects that each fit it."""


def whole(low: int = 0, high: int = MOST_WHOLE) -> Check:
    """A whole number of `low` to `high`."""

    def holds(value: Any) -> bool:
        return isinstance(value, Integral) and not isinstance(value, bool) and low <= int(value) <= high  # NumPy's too

    return Check(f"a whole number, {low:,} to {high:,}", holds, _parsed(int), finish=int)


def number(low: float = 0.0, high: float = math.inf, *, above: bool = False, below: bool = False) -> Check:
    """A finite number of `low` to `high`; `above` and `below` leave the ends out."""

    def holds(value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, Real):
            return False
        try:
            value = float(value)
        except OverflowError:
            return False
        inside = (value > low if above else value >= low) and (value < high if below else value <= high)
        return inside and math.isfinite(value)

    least = "" if low == -math.inf else f", above {low:g}" if above else f", {low:g} or more"
    most = "" if high == math.inf else f", below {high:g}" if below else f", at most {high:g}"
    return Check(f"a finite number{least}{most}", holds, _parsed(float), finish=float)


def text(*, filled: bool = False) -> Check:
    """Text that UTF-8 can write and without null characters; `filled`: more than blanks."""

    def holds(value: Any) -> bool:
        return _is_text(value) and (bool(value.strip()) or not filled)

    return Check("text in UTF-8 that is not empty" if filled else "text in UTF-8", holds)


def flag() -> Check:
    """True or False."""
    return Check("True or False", lambda value: isinstance(value, bool), lambda typed: _FLAGS.get(typed.lower(), typed))


def one_of(names: Iterable[str] | Callable[[], Iterable[str]]) -> Check:
    """One of some names; a function of them is asked when they are needed."""

    def valid() -> tuple[str, ...]:
        return tuple(names() if callable(names) else names)

    return Check("", lambda value: isinstance(value, str) and value in valid(), names=valid)


def anything() -> Check:
    """Any value."""
    return Check("anything", lambda value: True, literal)


def many(each: Check, *, least: int = 0) -> Check:
    """A list: typed "a,b,c", or as Python writes it, "('a', 'b')", where a part has a comma in it. Kept as a tuple."""

    def of_text(typed: str) -> Any:
        if typed.strip().startswith(("(", "[")):
            found = literal(typed.strip())
            return found if isinstance(found, str) else tuple(found) if isinstance(found, tuple | list) else (found,)
        parts = [part.strip() for part in typed.split(",")] if "," in typed else [typed]
        return tuple(each.of_text(part) for part in parts if part)

    def listed(value: Any) -> Any:
        return of_text(value) if isinstance(value, str) else value

    def holds(value: Any) -> bool:
        return isinstance(listed(value), tuple | list) and len(listed(value)) >= least

    return Check(
        f"a list{f' of {least} or more' if least else ''}, with commas between, each {each.words()}",
        holds,
        of_text,
        finish=lambda value: tuple(map(each.finish, listed(value))),
        each=each,
        parts=lambda value: ((f"[{place}]", item) for place, item in enumerate(listed(value))),
    )


def table(each: Check) -> Check:
    """Values of one kind under names that are not known beforehand, also in tables of their own."""

    def parts(value: Mapping[Any, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
        for name, item in value.items():
            label = f"{prefix}.{name}"
            yield from parts(item, label) if isinstance(item, Mapping) else [(label, item)]

    must = f"a table of names, and for each {each.words()}"
    return Check(must, lambda value: isinstance(value, Mapping), literal, open=True, each=each, parts=parts)


def maybe(check: Check) -> Check:
    """What `check` says, or null, or nothing at all."""
    return Check(
        f"{check.words()}, or null",
        lambda value: value is None or check.holds(value),
        check.of_text,
        check.names,
        lambda value: None if value is None else check.finish(value),
        optional=True,
        each=check.each,
        parts=lambda value: () if value is None else check.parts(value),
    )


def literal(typed: str) -> Any:
    """Returns the value that `typed` is in Python, or `typed` itself where it is none."""
    try:
        return ast.literal_eval(typed)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return typed


def checked(values: Mapping[str, Any], schema: Schema, where: str, *, strict: bool = True) -> dict[str, Any]:
    """Returns `values` as the schema keeps them (lists as tuples, numbers as floats), or says what is wrong.

    Args:
        where: put before a value's dotted name in the error, e.g. "config." or "FILE: ".
        strict: names that the schema has not are refused; else they are handed on.

    Raises:
        UserError: a value is not what it must be, absent, or unknown; it names the first one.
    """
    found: dict[str, Any] = {} if strict else {name: value for name, value in values.items() if name not in schema}
    if strict:
        for name in values:
            if name not in schema:
                raise UserError(f"{where}{name}: there is no such name here.{did_you_mean(name, schema)}")
    for name, check in schema.items():
        if name not in values:
            if isinstance(check, Check) and check.optional:
                continue
            raise UserError(f"{where}{name} is missing.")
        value = values[name]
        if isinstance(check, Check):
            if wrong := check.wrong(f"{where}{name}", value):
                raise UserError(wrong)
            found[name] = check.finish(value)
        elif isinstance(check, list):
            if not isinstance(value, list | tuple):
                raise UserError(f"{where}{name}={shown(value)} must be a list.")
            rows = enumerate(value)
            found[name] = [_object(row, check[0], f"{where}{name}[{k}]", strict) for k, row in rows]
        else:
            found[name] = _object(value, check, f"{where}{name}", strict)
    return found


def _object(value: Any, schema: Schema, name: str, strict: bool) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise UserError(f"{name}={shown(value)} must be a table of {', '.join(schema)}.")
    return checked(value, schema, f"{name}.", strict=strict)


def shown(value: Any) -> str:
    """Returns a value for an error line: its repr, cut where it is long, on one line."""
    try:
        said = repr(value)
    except ValueError:  # whole numbers of more than 4,300 digits are not written out
        said = f"a number of {value.bit_length():,} bits"
    return said if len(said) <= _SHOWN else f"{said[: _SHOWN - 3]}..."


def _parsed(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    def of_text(typed: str) -> Any:
        try:
            return kind(typed)
        except ValueError:
            return typed

    return of_text


def _is_text(value: Any) -> bool:
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
