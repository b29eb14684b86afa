"""HLO as a protocol buffer -> HLO text. jaxlib is imported where one is met."""

from __future__ import annotations

import re

from llmjax.errors import UserError
from llmjax.inputs.wire import WireError, blob, message


def hlo_proto(data: bytes) -> bytes | None:
    """Returns the HloModuleProto in an HloModuleProto, an HloProto or an HloSnapshot; None where the bytes are none.

    Source of the numbers: xla/service/hlo.proto: HloModuleProto has its name in 1, that of its entry in 2 and the
    computations in 3; HloProto a module in 1; HloSnapshot an HloProto in 1.
    """
    for _ in range(3):
        try:
            values = message(data)
            inner = blob(values, 1)
            if values.get(3) and isinstance(values.get(2, [b""])[0], bytes) and _is_name(inner):
                return data
        except WireError:
            return None
        data = inner
    return None


def _is_name(data: bytes) -> bool:
    return bool(re.fullmatch(rb"[\x21-\x7e]{1,500}", data))


def text_of_proto(proto: bytes, where: str) -> str:
    """Returns the text of an HloModuleProto.

    Raises:
        UserError: XLA does not take it.
        ModuleNotFoundError: jaxlib is not installed.
    """
    from jaxlib import _hlo  # pyright: ignore[reportAttributeAccessIssue]

    try:
        return _hlo.HloModule.from_serialized_hlo_module_proto(proto).to_string()
    except Exception as error:
        raise UserError(f"{where} holds an HloModuleProto that XLA does not read: {_line(error)}.") from error


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")
