"""What an instruction's `op_name` says: module path, layer, pass; and its role, by a table (roles.py).

JAX writes the stack of scopes and transformations: `jit(step)/transpose(jvp(GPT2))/h_3/attn/c_attn/dot_general` is the
backward pass of the module `GPT2/h_3/attn/c_attn`. Other frameworks write plain paths, which read the same way, and
torch-xla classes with names (`BertEncoder[encoder]/Linear[dense]/aten__mm`). Where no name has a scope, as Flax NNX
writes none, the caller finds a path elsewhere (attribution.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from llmjax.cost.roles import OTHER, UNATTRIBUTED, RoleTable

# Instructions that compute nothing, of XLA's making where they have no name.
_MOVES = """
bitcast broadcast concatenate convert copy dynamic-slice dynamic-update-slice pad reshape reverse slice transpose tuple
"""
MOVES = frozenset(_MOVES.split())

_ARGUMENT = re.compile(r"""[\[\]'"]""")  # `params['wte']`
_TORCH = re.compile(r"([A-Za-z_]\w*)(?:\[(\w+)\]|\.\d+)")
_WRAPPED = re.compile(r"([\w.\-]+)\((.*)\)", re.DOTALL)
_OF_LIBRARIES = "eqx.nn."  # Equinox's layers are scopes; the modules that a program makes of them are none
_CONTROL = re.compile(r"(^|/)(while/(?:body|cond)|cond/branch_\d+_fun)(?=/)")
_TRANSPARENT = """
checkpoint closed_call core_call custom_jvp_call custom_vjp_call custom_vjp_call_jaxpr dot_general pjit remat
rematted_computation shard_map scan
"""
_CALLS = frozenset(_TRANSPARENT.split())


@dataclass(frozen=True, slots=True)
class Name:
    """An `op_name`, read: `path` is the module's, "" where there is none; `subject` has functions and primitive too.

    `transposed` and `differentiated` say which of JAX's transformations made it; `argument`, that it has no scope at
    all: the name of an argument of the program (`params['wte']['embedding']`), which XLA gives to copies of it. `own`
    says that a scope of the path is the program's, not one that a library gives to each layer (`eqx.nn.Linear`).
    """

    path: str = ""
    subject: str = ""
    transposed: bool = False
    differentiated: bool = False
    argument: bool = False
    own: bool = False


def read_name(op_name: str, argument: bool = False) -> Name:
    """Takes an `op_name` apart. Of merged names (`a/mul;b/add`) the first counts.

    A name without scopes is an operation's (torch-xla's `aten__mm`), or that of an `argument`, if the caller knows it
    for one or it is written as one.
    """
    op_name = op_name.partition(";")[0]
    if "/" not in op_name:
        return Name("", op_name, argument=argument or _ARGUMENT.search(op_name) is not None)
    *scopes, primitive = (_plain(part) for part in _split(_CONTROL.sub(r"\1", op_name)))
    if len(scopes) > 1 and scopes[-1] == primitive:  # torch-xla's `aten__mm.3/aten__mm`
        scopes.pop()
    path: list[str] = []
    functions: list[str] = []
    transposed = differentiated = restarted = own = False
    for scope in scopes:
        inner, wrappers = _unwrap(scope)
        transposed = transposed or "transpose" in wrappers
        if "jvp" in wrappers:
            restarted = restarted or (transposed and "transpose" not in wrappers)
            differentiated = True
        if path and _is_method(path[-1], inner):
            path[-1] = inner  # `TransformerLinenPure.apply/TransformerLinenPure`
            functions[-1] = inner
            continue
        if not inner or inner in _CALLS or "->" in inner or (path and _is_method(inner, path[-1])):
            continue  # `GPT2/GPT2.method` is a method of the module before it; `bd,df->bf` is an einsum
        own = own or not (inner.startswith(_OF_LIBRARIES) or {"jit", "pjit"} & wrappers)
        inner = inner.removeprefix(_OF_LIBRARIES)
        called = bool({"jit", "pjit"} & wrappers)
        functions.append(f"{inner}()" if called else inner)
        if not called:
            path.append(inner)
    if restarted:  # recomputation writes the whole stack once more
        path, functions = once(path), once(functions)
    if functions and scopes[0].startswith(("jit(", "pjit(")):
        functions = functions[1:]  # the program's own name
    inner, wrappers = _unwrap(primitive)
    transposed, differentiated = transposed or "transpose" in wrappers, differentiated or "jvp" in wrappers
    return Name("/".join(path), "/".join([*functions, inner]), transposed, differentiated, own=own)


def _is_method(method: str, module: str) -> bool:
    return method.startswith(f"{module}.")


def _plain(scope: str) -> str:
    """`BertEncoder[encoder]` -> "encoder", `BertLayer[3]` -> "BertLayer_3", `BertModel.1` -> "BertModel"."""
    m = _TORCH.fullmatch(scope)
    if m is None:
        return scope
    name, inside = m[1], m[2]
    return name if inside is None else f"{name}_{inside}" if inside.isdigit() else inside


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
    return "/".join(filter(None, scope.split("/"))), wrappers


def once(path: list[str]) -> list[str]:
    """`A A rest` -> `A rest`, with the longest A."""
    for size in range(len(path) // 2, 0, -1):
        if path[:size] == path[size : 2 * size]:
            return path[size:]
    return path


class Reader:
    """Reads each name once: `op_name` -> `Name`, role and layer by `table`.

    `arguments` are names that the program's arguments have. `trains` says whether the program takes derivatives: in one
    that does, what no derivative touches and no module holds is the update of the parameters. `scoped` says whether any
    name has a path of the program's own; where none has, `path` is what the caller found elsewhere.
    """

    def __init__(self, table: RoleTable, op_names: Iterable[str], arguments: frozenset[str] = frozenset()):
        self._rows = [(re.compile(expression), role) for expression, role in table.rows]
        self._layer = re.compile(table.layer)
        self._names: dict[str, Name] = {"": Name()}
        self._roles: dict[tuple[str, str, bool, str], str] = {}
        for op_name in op_names:
            if op_name not in self._names:
                self._names[op_name] = read_name(op_name, op_name in arguments)
        self.trains = any(name.transposed for name in self._names.values())
        self.scoped = any(name.own for name in self._names.values())

    def name(self, op_name: str) -> Name:
        return self._names[op_name]

    def direction(self, op_name: str) -> str:
        """The pass: "forward", "backward" or "other"."""
        name = self._names[op_name]
        if name.transposed:
            return "backward"
        named = bool(op_name) and not name.argument
        return "forward" if named and (name.differentiated or name.path or not self.trains) else "other"

    def role(self, op_name: str, opcode: str = "", weights: bool = False, path: str = "") -> str:
        """The role by the table; "unattributed" without a name.

        `opcode` replaces the primitive where it is given; `weights` says of a product that it is one with weights.
        """
        key = (op_name, opcode, weights, path)
        if key not in self._roles:
            self._roles[key] = self._find_role(op_name, opcode, weights, path)
        return self._roles[key]

    def _find_role(self, op_name: str, opcode: str, weights: bool, path: str) -> str:
        if not op_name or self._names[op_name].argument:
            return UNATTRIBUTED
        stage = self.direction(op_name).replace("other", "update") if self.trains else "inference"
        scopes, slash, primitive = self._names[op_name].subject.rpartition("/")
        elsewhere = f"{path}/" if path else ""
        subject = f"{stage} {elsewhere}{scopes}{slash}{opcode or primitive}"
        subjects = (f"{subject} weights", subject) if weights else (subject,)
        return next((role for row, role in self._rows if any(map(row.search, subjects))), OTHER)

    def layer(self, op_name: str, path: str = "") -> int | None:
        """The layer's number, None where the path has none."""
        m = self._layer.search(path or self._names[op_name].path)
        return int(m[1]) if m else None
