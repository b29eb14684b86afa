"""What an instruction's `op_name` says: module path, layer, pass; and its role, by a table that a user can replace.

JAX writes the stack of scopes and transformations: `jit(step)/transpose(jvp(GPT2))/h_3/attn/c_attn/dot_general` is the
backward pass of the module `GPT2/h_3/attn/c_attn`. Other frameworks write plain paths, which read the same way.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from llmjax.errors import UserError
from llmjax.json_file import read_json

UNATTRIBUTED = "unattributed"
DATA_MOVEMENT = "data movement"

# (regular expression, role), first match wins. Searched for in `STAGE PATH/PRIMITIVE`: STAGE is forward, backward or
# update in a program that takes derivatives and inference in one that does not; PATH is the module path with the names
# of jitted functions, as `_take()`; PRIMITIVE is JAX's name of the operation: "backward GPT2/h_3/mlp/tanh". Of a dot, a
# convolution and an instruction with a borrowed name it is XLA's opcode: "backward GPT2/h_3/mlp/c_fc/dot".
ROLES: tuple[tuple[str, str], ...] = (
    (r"^update ", "optimiser"),
    (r"[ /](sampl\w*|top_[kp]|nucleus|temperature)/", "sampling"),
    (r"^(forward|backward) (\w+\(\)/)*[\w\-]+$", "loss"),  # differentiated, and in no module
    (r"[ /]loss\w*/", "loss"),
    (r"/(scores|mix|logits_qk|attend|dot_product_attention)/", "attention scores"),
    (r"/(attn|\w*attention\w*|self_attn)/(softmax/(.+/)?)?(dot|convolution)$", "attention scores"),
    (r"/\w*[dD]ropout\w*/(?!(.+/)?(dot|convolution)$)", "dropout"),
    (r"/softmax/", "softmax"),
    (r"/(ln_\w+|\w*[lL]ayer_?[nN]orm\w*|\w*norm\w*|RMSNorm\w*)/", "layer norm"),
    (r"/(h_\d+|blocks?\w*|layers?\w*)/(add|add_any)$", "residual"),
    (r"/(lm_head|unembed\w*|wte\.attend)/", "vocabulary projection"),
    (r"/(wte|wpe|embd?_\w+|embed\w*|Embed_\d+|token_embed\w*|pos\w*_embed\w*)/|[ /]GPT2/add(_any)?$", "embedding"),
    (
        r"/(attn|\w*attention\w*|self_attn)/(c_attn|c_proj|query|key|value|out|qkv\w*|[qkvo]_proj)/",
        "attention projections",
    ),
    (r"/(mlp|MLP\w*|ffn|feed_forward)/", "MLP"),
    (
        r"/(broadcast_in_dim|concatenate|convert_element_type|copy|dynamic_slice|dynamic_update_slice|expand_dims|gather"
        r"|pad|reshape|rev|scatter|select_n|slice|split|squeeze|transpose)$",
        DATA_MOVEMENT,
    ),
    (r"/(attn|\w*attention\w*|self_attn)/", "attention scores"),  # scaling and masks outside any scope of their own
    (r"^inference (\w+\(\)/)*(argmax|sort|top_k|approx_top_k|cumsum|random_\w+|threefry2x32|rng_\w+)$", "sampling"),
)
OTHER = "other"

# Group 1 is the layer's number: GPT2/h_3/attn, encoder/layers/3/mlp, model/Block_3.
LAYER = r"(?:^|/)(?:h|layers?|blocks?|\w*(?:Block|Layer|_block|_layer))[_./]?(\d+)(?=/|$)"

# Instructions that compute nothing, of XLA's making where they have no name.
_MOVES = """
bitcast broadcast concatenate convert copy dynamic-slice dynamic-update-slice pad reshape reverse slice transpose tuple
"""
MOVES = frozenset(_MOVES.split())

_WRAPPED = re.compile(r"([\w.\-]+)\((.*)\)", re.DOTALL)
_CONTROL = re.compile(r"(^|/)(while/(?:body|cond)|cond/branch_\d+_fun)(?=/)")
_TRANSPARENT = """
checkpoint closed_call core_call custom_jvp_call custom_vjp_call custom_vjp_call_jaxpr dot_general pjit remat
rematted_computation shard_map scan
"""
_CALLS = frozenset(_TRANSPARENT.split())


@dataclass(frozen=True, slots=True)
class RoleTable:
    """`rows` are (regular expression, role), first match wins; group 1 of `layer` is a layer's number in a module path.

    Raises UserError where an expression is not valid or `layer` has no group.
    """

    rows: tuple[tuple[str, str], ...] = ROLES
    layer: str = LAYER

    def __post_init__(self) -> None:
        for expression in [*(row[0] for row in self.rows), self.layer]:
            try:
                groups = re.compile(expression).groups
            except re.error as error:
                raise UserError(f"roles: {expression!r} is not a regular expression: {error}.") from error
        if not groups:
            raise UserError(f"roles: layer={self.layer!r} has no group for the layer's number.")


def read_roles(path: str | Path) -> RoleTable:
    """Reads a table from JSON: {"roles": [["regex", "role"], ...], "layer": "regex"}; either key may be left out."""
    raw = read_json(path, "roles")
    if set(raw) - {"roles", "layer"} or not isinstance(raw.get("layer", LAYER), str):
        raise UserError(f'roles={str(path)!r} must hold {{"roles": [["regex", "role"], ...], "layer": "regex"}}.')
    rows = raw.get("roles", ROLES)
    if not isinstance(rows, list | tuple) or not all(
        isinstance(row, list | tuple) and len(row) == 2 and all(isinstance(cell, str) for cell in row) for row in rows
    ):
        raise UserError(f'roles={str(path)!r}: "roles" must be a list of ["regex", "role"] pairs.')
    return RoleTable(tuple((row[0], row[1]) for row in rows), raw.get("layer", LAYER))


@dataclass(frozen=True, slots=True)
class Name:
    """An `op_name`, read: `path` is the module's, "" where there is none; `subject` has functions and primitive too.

    `transposed` and `differentiated` say which of JAX's transformations made it; `argument`, that it has no scope at
    all: the name of an argument of the program (`params['wte']['embedding']`), which XLA gives to copies of it.
    """

    path: str = ""
    subject: str = ""
    transposed: bool = False
    differentiated: bool = False
    argument: bool = False


def read_name(op_name: str) -> Name:
    """Takes an `op_name` apart. Of merged names (`a/mul;b/add`) the first counts."""
    op_name = op_name.partition(";")[0]
    if "/" not in op_name:
        return Name("", op_name, argument=True)
    *scopes, primitive = _split(_CONTROL.sub(r"\1", op_name))
    path: list[str] = []
    functions: list[str] = []
    transposed = differentiated = restarted = False
    for scope in scopes:
        inner, wrappers = _unwrap(scope)
        transposed = transposed or "transpose" in wrappers
        if "jvp" in wrappers:
            restarted = restarted or (transposed and "transpose" not in wrappers)
            differentiated = True
        if not inner or inner in _CALLS or "->" in inner or (path and inner.startswith(f"{path[-1]}.")):
            continue  # `GPT2/GPT2.method` is a method of the module before it; `bd,df->bf` is an einsum
        called = bool({"jit", "pjit"} & wrappers)
        functions.append(f"{inner}()" if called else inner)
        if not called:
            path.append(inner)
    if restarted:  # recomputation writes the whole stack once more
        path, functions = _once(path), _once(functions)
    if functions and scopes[0].startswith(("jit(", "pjit(")):
        functions = functions[1:]  # the program's own name
    inner, wrappers = _unwrap(primitive)
    transposed, differentiated = transposed or "transpose" in wrappers, differentiated or "jvp" in wrappers
    return Name("/".join(path), "/".join([*functions, inner]), transposed, differentiated)


def _split(op_name: str) -> list[str]:
    """The parts between slashes that stand in no parentheses."""
    parts, depth, start = [], 0, 0
    for place, char in enumerate(op_name):
        if char == "(":
            depth += 1
        elif char == ")":
            depth = max(0, depth - 1)
        elif char == "/" and not depth:
            parts.append(op_name[start:place])
            start = place + 1
    return [*(part for part in parts if part), op_name[start:]]


def _unwrap(scope: str) -> tuple[str, set[str]]:
    """`transpose(jvp(GPT2))` -> ("GPT2", {"transpose", "jvp"})."""
    wrappers: set[str] = set()
    while m := _WRAPPED.fullmatch(scope):
        wrappers.add(m[1])
        scope = m[2]
    return scope, wrappers


def _once(path: list[str]) -> list[str]:
    """`A A rest` -> `A rest`, with the longest A."""
    for size in range(len(path) // 2, 0, -1):
        if path[:size] == path[size : 2 * size]:
            return path[size:]
    return path


class Reader:
    """Reads each name once: `op_name` -> `Name`, role and layer by `table`.

    `trains` says whether the program takes derivatives: in one that does, what no derivative touches and no module
    holds is the update of the parameters.
    """

    def __init__(self, table: RoleTable, op_names: Iterable[str]):
        self._rows = [(re.compile(expression), role) for expression, role in table.rows]
        self._layer = re.compile(table.layer)
        self._names: dict[str, Name] = {"": Name()}
        self._roles: dict[tuple[str, str], str] = {}
        for op_name in op_names:
            if op_name not in self._names:
                self._names[op_name] = read_name(op_name)
        self.trains = any(name.transposed for name in self._names.values())

    def name(self, op_name: str) -> Name:
        return self._names[op_name]

    def direction(self, op_name: str) -> str:
        """The pass: "forward", "backward" or "other"."""
        name = self._names[op_name]
        if name.transposed:
            return "backward"
        named = bool(op_name) and not name.argument
        return "forward" if named and (name.differentiated or name.path or not self.trains) else "other"

    def role(self, op_name: str, opcode: str = "") -> str:
        """The role by the table; "unattributed" without a name. `opcode` replaces the primitive where it is given."""
        if (op_name, opcode) not in self._roles:
            self._roles[op_name, opcode] = self._find_role(op_name, opcode)
        return self._roles[op_name, opcode]

    def _find_role(self, op_name: str, opcode: str) -> str:
        if not op_name or self._names[op_name].argument:
            return UNATTRIBUTED
        stage = self.direction(op_name).replace("other", "update") if self.trains else "inference"
        scopes, slash, primitive = self._names[op_name].subject.rpartition("/")
        subject = f"{stage} {scopes}{slash}{opcode or primitive}"
        return next((role for row, role in self._rows if row.search(subject)), OTHER)

    def layer(self, op_name: str) -> int | None:
        """The layer's number, None where the path has none."""
        m = self._layer.search(self._names[op_name].path)
        return int(m[1]) if m else None
