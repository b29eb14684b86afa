"""JSON files that people hand over: read whole and checked, or refused in one line."""

import json
import math
from pathlib import Path
from typing import Any, NoReturn

from llmjax.errors import UserError
from llmjax.schema import Schema, checked


def read_json(path: str | Path, what: str = "", schema: Schema | None = None) -> dict[str, Any]:
    """Reads a file that holds one JSON object.

    Args:
        what: what the file should be, put before its name in an error: "device card".
        schema: what its values must be; names that it has not are handed on unchecked.

    Raises:
        UserError: the file cannot be read, is not UTF-8 or JSON, holds NaN or Infinity, or does not fit the schema.
    """
    try:
        data = Path(path).expanduser().read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise UserError(f"{_named(path, what)} cannot be read: {getattr(error, 'strerror', '') or error}.") from error
    return parse_json(data, _named(path, what), schema)


def parse_json(data: bytes | str, source: str, schema: Schema | None = None) -> dict[str, Any]:
    """`read_json` of what was read already; `source` begins its errors."""
    try:
        text = data.decode("utf-8-sig") if isinstance(data, bytes) else data
        value = json.loads(text, parse_constant=_no_number, parse_float=_finite)
    except UnicodeDecodeError as error:
        raise UserError(f"{source} is not JSON: its byte {error.start + 1} is not UTF-8.") from None
    except RecursionError:
        raise UserError(f"{source} is not JSON that can be read: it is nested too deeply.") from None
    except ValueError as error:  # JSONDecodeError, and whole numbers of thousands of digits
        raise UserError(f"{source} is not JSON: {error}.") from None
    if not isinstance(value, dict):
        raise UserError(f"{source} should hold a JSON object, not {_KINDS[type(value)]}.")
    return checked(value, schema, f"{source}: ", strict=False) if schema is not None else value


_KINDS = {list: "a list", str: "a text", int: "a number", float: "a number", bool: "true or false", type(None): "null"}


def _named(path: str | Path, what: str) -> str:
    return f"{what} {str(path)!r}" if what else str(path)


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"it holds {digits[:40]}, which is more than a number of 64 bits holds")
    return value


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}, which is no JSON number")
