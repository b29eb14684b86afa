"""What a program costs, as it was written down or as its HLO text says. No JAX import."""

import json
from pathlib import Path
from typing import Any

from llmjax.analyser import analyze_hlo
from llmjax.errors import UserError
from llmjax.hlo.document import decode, read_bytes, unpacked
from llmjax.json_file import parse_json
from llmjax.report.export import FIGURES, SCHEMA
from llmjax.schema import Schema, anything, checked, flag, maybe, number, table, text, whole

# Of a cost.json what is compared (docs/cost-json.md has all of it).
_AMOUNT = number()
_FIGURES: Schema = dict.fromkeys(FIGURES, _AMOUNT)
_TIMES: Schema = dict.fromkeys(("seconds", "cycles", "measured_seconds", "measured_cycles"), maybe(_AMOUNT))
_COST: Schema = {
    "module": text(),
    "backend": maybe(text()),
    "target": maybe(text()),
    "device": maybe(table(anything())),
    "time": maybe(table(_AMOUNT)),
    "lower_bound": flag(),
    "totals": _FIGURES,
    "ops": [
        {"name": text(), "opcode": text(), "role": text(), "module_path": maybe(text()), "layer": maybe(whole())}
        | {"pass": maybe(text())}
        | {"count": _AMOUNT, **_FIGURES, **_TIMES}
    ],
    "by_role": [{"role": text(), **_FIGURES, **_TIMES}],
}


def read_cost(named: str, setting: str, card: str | None = None) -> dict[str, Any]:
    """Reads a cost.json, a folder that holds one, or a module in any form (`analyze_hlo`), which is analysed.

    Args:
        setting: by which it was named, for errors.
        card: the chip to time a module on, or its card's file.

    Raises:
        UserError: nothing of the kind is there.
    """
    if not named:
        raise UserError(f"{setting} is empty: name a cost.json, the folder of a cost job, or a file of HLO text.")
    path = Path(named).expanduser()
    if (path / "cost.json").is_file():
        path = path / "cost.json"
    where = f"{setting}={str(path)!r}"
    if path.is_dir():
        try:
            return json.loads(analyze_hlo(path, card=card).to_json())
        except UserError as error:
            raise UserError(f"{setting} is a folder without a cost.json, and {error}") from error
    if (data := unpacked(read_bytes(path), where)).lstrip()[:1] != b"{":
        return json.loads(analyze_hlo(path, card=card).to_json())
    found = parse_json(decode(data, where), where)
    if card:
        raise UserError(f"--target {card}: {where} was counted before; name its HLO to time it on a chip.")
    if found.get("schema") != SCHEMA:
        raise UserError(f"{where} is no cost.json of the schema {SCHEMA!r}.")
    return checked(found, _COST, f"{where}: ", strict=False)
