"""HLO text -> Module.

The grammar is that of XLA's own printer and parser, read leniently where that costs no certainty: names with or without
`%`, operands with or without shapes, comments anywhere, any opcode, any attribute of sound syntax.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from llmjax.hlo.attribute_text import to_names
from llmjax.hlo.attributes import SourceTables
from llmjax.hlo.checks import check_calls, check_operands
from llmjax.hlo.document import explain, plain_text
from llmjax.hlo.infer import infer_shape
from llmjax.hlo.ir import CALL_ATTRIBUTES, NO_METADATA, Computation, Instruction, Module, ProgramShape
from llmjax.hlo.lexer import (
    ANONYMOUS,
    BRACES_RE,
    NAME,
    SPACE,
    HloParseError,
    balanced_end,
    pattern,
    skip_space,
    without_comments,
)
from llmjax.hlo.reader import ATTRIBUTE_RE, Reader
from llmjax.hlo.shape import Shape
from llmjax.hlo.shape_text import ARRAY
from llmjax.hlo.tables import TABLE_RE, read_table

__all__ = ["HloParseError", "parse"]

_DEEPEST = 64  # nested instructions and computations written inside one another
_HEADER_RE = pattern(r"HloModule\s++(?!ENTRY\b)([^\s,{}()\"]++)")
_LINE_RE = pattern(rf"{SPACE}(ROOT\s++)?%?({NAME})\s*+=\s*+({ARRAY})\s++([a-z][\w\-]*+)\(")
_NAME_EQUALS_RE = pattern(rf"{SPACE}(ROOT\s++)?%?({NAME}){SPACE}=")
_OPCODE_RE = pattern(rf"{SPACE}([a-z][\w\-]*+){SPACE}\(")
_OPERAND_NAME = rf"{NAME}(?:#\d{{1,6}})*+"  # `call#1` is element 1 of the tuple that `call` makes
_OPERANDS_RE = pattern(rf"\s*+((?:%?{_OPERAND_NAME}\s*+(?:,\s*+(?:/\*index=\d++\*/\s*+)?|(?=\))))*+)\)")
_OPERAND_RE = pattern(rf"{SPACE}(?:{ARRAY}\s++)?%?({_OPERAND_NAME}){SPACE}([,)])")
_OPERAND_END_RE = pattern(rf"{SPACE}%?({_OPERAND_NAME}){SPACE}(?=[,)])")
_NUMBER_RE = pattern(rf"{SPACE}(\d{{1,9}}){SPACE}\)")
_SCALAR_RE = pattern(r"([^\s(){}\"/]*+)\)")
_LITERAL_RE = pattern(r"(?:[\w\s.,+\-:\[\]*=%]++|/\*.*?\*/|[{}()])*+")
_COMPUTATION_RE = pattern(rf"(ENTRY(?![\w.\-]){SPACE})?%?({NAME}){SPACE}(?=[({{])")
_PARAMETER_RE = pattern(rf"{SPACE}%?([^\s:(),]++){SPACE}:{SPACE}")
_SEPARATOR_RE = pattern(rf"{SPACE}([,)]){SPACE}")
_NAMES_RE = pattern(rf"\{{{SPACE}(?:%?{NAME}{SPACE}(?:,{SPACE}|(?=\}})))*+\}}")
_JSON = json.JSONDecoder().raw_decode


def parse(text: str, source: str = ANONYMOUS) -> Module:
    """The module that HLO text describes.

    Accepts what `compiled.as_text()` and `--xla_dump_to` write, before and after optimisation, on any backend, and
    hand-written snippets, with a byte order mark or a log's prefixes. A text without a `HloModule` line is a module
    without a name.
    Raises HloParseError, with `source` (say, the file's name), line and column, for all else: also for names that are
    defined twice or never, and for a text of several modules (`split_modules` has each).
    """
    text = plain_text(text)
    try:
        return _Parser(text, source).module()
    except HloParseError as error:
        raise explain(error, text, source) from None


class _Parser(Reader):
    """One pass over one text: modules, computations and instructions."""

    def __init__(self, text: str, source: str):
        super().__init__(text, source)
        self.values: dict[tuple[str, str], Any] = {}
        self.computations: dict[str, Computation] = {}
        self.depth = 0

    # --- the module

    def module(self) -> Module:
        text = self.text
        pos = skip_space(text, 0)
        name, attributes = "", {}
        if text.startswith("HloModule", pos):
            m = _HEADER_RE.match(text, pos)
            if not m:
                self.fail(pos, "a name after 'HloModule'")
            name = m[1].rstrip(":")
            attributes, pos = self.plain_attributes(m.end())
        tables = SourceTables()
        entry = last = ""
        while (pos := skip_space(text, pos)) < len(text):
            m = TABLE_RE.match(text, pos)
            if m:
                pos = read_table(text, m, tables, self.source)
                continue
            start = pos
            computation, pos = self.computation(pos)
            last = computation.name
            if computation.is_entry:
                if entry:
                    self.fail(start, "only one ENTRY computation")
                entry = last
        if not last:
            self.fail(len(text), "a computation" if name else "'HloModule' or a computation")
        check_calls(self.computations, text, self.source)
        if not entry:
            entry = last
        aliases = attributes.pop("input_output_alias", ())
        layout = attributes.pop("entry_computation_layout", None)
        return Module(name, self.computations, entry, attributes, aliases, layout, tables)

    # --- computations

    def computation(self, pos: int) -> tuple[Computation, int]:
        text = self.text
        m = _COMPUTATION_RE.match(text, pos)
        if not m:
            self.fail(pos, "a computation: ENTRY, a name, and '{'")
        name = m[2]
        if name in self.computations:
            self.fail(m.start(2), f"a name not used before ({name} is a computation above)")
        line = self.line_at(pos)
        signature = None
        pos = m.end()
        if text.startswith("(", pos):
            signature, pos = self.signature(pos)
        pos = skip_space(text, pos)
        if not text.startswith("{", pos):
            self.fail(pos, "'{' before the instructions")
        instructions, root, by_name, pos = self.instructions(pos + 1, name)
        attributes, pos = self.plain_attributes(pos)
        found = Computation(name, instructions, root, by_name, signature, attributes, bool(m[1]), line)
        self.computations[name] = found
        return found, pos

    def signature(self, pos: int) -> tuple[ProgramShape, int]:
        text = self.text
        parameters: list[tuple[str, Shape]] = []
        pos = skip_space(text, pos + 1)
        done = text.startswith(")", pos)
        pos += done
        while not done:
            m = _PARAMETER_RE.match(text, pos)
            if not m:
                self.fail(pos, "a parameter such as 'x: f32[2]'")
            shape, pos = self.shape(m.end())
            parameters.append((m[1], shape))
            m = _SEPARATOR_RE.match(text, pos)
            if not m:
                self.fail(pos, "',' or ')' after a parameter")
            done, pos = m[1] == ")", m.end()
        result, pos = self.result_shape(pos)
        return ProgramShape(tuple(parameters), result), pos

    def instructions(self, pos: int, owner: str) -> tuple[tuple[Instruction, ...], Instruction, dict, int]:
        text = self.text
        by_name: dict[str, Instruction] = {}
        root: Instruction | None = None
        while True:
            m = _LINE_RE.match(text, pos)
            if m:
                is_root, name, shape_text, opcode = m.groups()
                try:
                    shape = self.shapes.array(shape_text)
                except ValueError as error:
                    self.fail(m.start(3), str(error))
                start, end = m.start(2), m.end()
            else:
                pos = skip_space(text, pos)
                if text.startswith("}", pos):
                    break
                m = _NAME_EQUALS_RE.match(text, pos)
                if not m:
                    self.fail(pos, "an instruction 'name = shape opcode(operands)' or '}'")
                is_root, name = m.groups()
                start = m.start(2)
                shape, opcode, end = self.shape_and_opcode(m.end())
            if name in by_name:
                self.fail(start, f"a name not used before ({name} is an instruction above)")
            if is_root and root is not None:
                self.fail(m.start(1), "only one ROOT in a computation")
            found, pos = self.instruction(name, shape, opcode, bool(is_root), start, end, by_name, True)
            by_name[name] = found
            if is_root:
                root = found
        if not by_name:
            self.fail(pos, f"at least one instruction in {owner}")
        instructions = tuple(by_name.values())
        return instructions, root or instructions[-1], by_name, pos + 1

    # --- instructions

    def shape_and_opcode(self, pos: int) -> tuple[Shape | None, str, int]:
        pos = skip_space(self.text, pos)
        try:
            found = self.shapes.read(pos)
        except ValueError as error:
            self.fail(pos, str(error))
        shape, pos = found or (None, pos)
        m = _OPCODE_RE.match(self.text, pos)
        if not m:
            self.fail(skip_space(self.text, pos), "an opcode and '('" if found else "a shape or an opcode and '('")
        return shape, m[1], m.end()

    def instruction(
        self,
        name: str,
        shape: Shape | None,
        opcode: str,
        is_root: bool,
        start: int,
        pos: int,
        by_name: dict[str, Instruction],
        with_attributes: bool,
    ) -> tuple[Instruction, int]:
        """What follows `name = shape opcode(`; without a shape it is inferred from the operands."""
        text = self.text
        operands: tuple[str, ...] = ()
        literal = None
        number = -1
        if opcode == "constant":
            literal, pos = self.literal(pos)
        elif opcode == "parameter":
            m = _NUMBER_RE.match(text, pos)
            if not m:
                self.fail(pos, "a parameter's number and ')'")
            number, pos = int(m[1]), m.end()
        else:
            operands, pos = self.operands(pos, by_name)
        attributes: dict[str, Any] = {}
        if with_attributes:
            pos = self.attributes(pos, name, by_name, attributes)
        metadata = attributes.pop("metadata", NO_METADATA)
        config = attributes.pop("backend_config", None)
        given = [by_name[o].shape for o in operands]
        try:
            if shape is None:
                shape = infer_shape(opcode, given, attributes, self.computations)
            check_operands(opcode, shape, given)
        except ValueError as error:
            self.fail(start, str(error))
        line = self.line_at(start)
        found = Instruction(name, opcode, shape, operands, attributes, metadata, config, literal, number, is_root, line)
        return found, pos

    def operands(self, pos: int, by_name: dict[str, Instruction]) -> tuple[tuple[str, ...], int]:
        """Names up to the closing parenthesis."""
        m = _OPERANDS_RE.match(self.text, pos)
        if not m:
            return self.typed_operands(pos, by_name)
        listed = without_comments(m[1]).replace("%", "")
        names = tuple(n.strip() for n in listed.split(",")) if listed else ()
        for name in names:
            if name not in by_name and not self.element(name, by_name):
                return self.typed_operands(pos, by_name)  # finds the place, or an instruction in an operand's place
        return names, m.end()

    def typed_operands(self, pos: int, by_name: dict[str, Instruction]) -> tuple[tuple[str, ...], int]:
        """Operands with shapes before their names, or instructions in place of names: `add(f32[] %a, max(b, c))`."""
        text = self.text
        names: list[str] = []
        pos = skip_space(text, pos)
        if text.startswith(")", pos):
            return (), pos + 1
        while True:
            m = _OPERAND_RE.match(text, pos)
            if m:
                name, mark, pos = m[1], m[2], m.end()
                if name not in by_name and not self.element(name, by_name):
                    self.fail(m.start(1), f"an instruction above (there is no {name})")
            else:
                name, pos = self.other_operand(skip_space(text, pos), by_name)
                m = _SEPARATOR_RE.match(text, pos)
                if not m:
                    self.fail(pos, "',' or ')' after an operand")
                mark, pos = m[1], m.end(1)
            names.append(name)
            if mark == ")":
                return tuple(names), pos

    def other_operand(self, pos: int, by_name: dict[str, Instruction]) -> tuple[str, int]:
        text = self.text
        try:
            found = self.shapes.read(pos)
        except ValueError as error:
            self.fail(pos, str(error))
        m = _OPERAND_END_RE.match(text, found[1] if found else pos)
        if m:
            if m[1] not in by_name and not self.element(m[1], by_name):
                self.fail(m.start(1), f"an instruction above (there is no {m[1]})")
            return m[1], m.end()
        if not _OPCODE_RE.match(text, found[1] if found else pos):
            self.fail(skip_space(text, found[1]) if found else pos, "an operand")
        if self.depth == _DEEPEST:
            self.fail(pos, f"instructions nested at most {_DEEPEST} deep")
        self.depth += 1
        shape, opcode, end = self.shape_and_opcode(pos)
        made, pos = self.instruction("", shape, opcode, False, pos, end, by_name, False)
        self.depth -= 1
        count = len(by_name)  # now that what stands inside has its names
        while (name := f"{opcode}.anon.{count}") in by_name:
            count += 1
        by_name[name] = replace(made, name=name)
        return name, pos

    def element(self, name: str, by_name: dict[str, Instruction]) -> bool:
        """Makes the get-tuple-element that `TUPLE#INDEX` stands for; False where there is no such tuple or element."""
        source, mark, index = name.rpartition("#")
        if not mark or (source not in by_name and not self.element(source, by_name)):
            return False
        attributes = {"index": int(index)}
        try:
            shape = infer_shape("get-tuple-element", [by_name[source].shape], attributes, self.computations)
        except ValueError:
            return False
        line = by_name[source].line
        by_name[name] = Instruction(name, "get-tuple-element", shape, (source,), attributes, line=line)
        return True

    def literal(self, pos: int) -> tuple[str, int]:
        """The text of a constant up to its closing parenthesis."""
        text = self.text
        m = _SCALAR_RE.match(text, pos)
        if m and m[1]:
            return m[1], m.end()
        end = balanced_end(text, pos - 1)
        inner = text[pos : end - 1] if end > 0 else ""
        if not inner.strip():
            self.fail(pos, "a literal and ')'")
        if '"' not in inner and not _LITERAL_RE.fullmatch(inner):
            self.fail(pos, "numbers in a literal")
        return inner.strip(), end

    # --- attributes

    def attributes(self, pos: int, owner: str, by_name: dict[str, Instruction], found: dict[str, Any]) -> int:
        text = self.text
        values = self.values
        while m := ATTRIBUTE_RE.match(text, pos):
            key, start = m[1], m.end()
            if key in found:
                self.fail(m.start(1), f"{key!r} only once")
            if key == "backend_config" and text.startswith("{", start):
                try:
                    found[key], pos = _JSON(text, start)
                    continue
                except (ValueError, RecursionError):
                    pass
            if key in CALL_ATTRIBUTES and text.startswith("{", start):
                found[key], pos = self.called(start, f"{owner}.{key}")
                continue
            b = BRACES_RE.match(text, start)
            if b:
                value, pos = b[0], b.end()
            else:
                value, pos = self.value_text(start, key)
            try:
                found[key] = values[key, value]
            except KeyError:
                found[key] = values[key, value] = self.convert(key, value, start)
            if key == "control-predecessors":
                for name in found[key]:
                    if name not in by_name:
                        self.fail(start, f"instructions above (there is no {name})")
        self.no_comma(pos)
        return pos

    def called(self, pos: int, inline_name: str) -> tuple[str | tuple[str, ...], int]:
        """`{%a, %b}`, or a computation's instructions in place of its name."""
        m = _NAMES_RE.match(self.text, pos)
        if m:
            return self.convert("", m[0], pos, to_names), m.end()
        if self.depth == _DEEPEST:
            self.fail(pos, f"computations nested at most {_DEEPEST} deep")
        self.depth += 1
        line = self.line_at(pos)
        instructions, root, by_name, pos = self.instructions(pos + 1, inline_name)
        self.depth -= 1
        name, count = inline_name, 1
        while name in self.computations:
            name, count = f"{inline_name}.{count}", count + 1
        self.computations[name] = Computation(name, instructions, root, by_name, line=line)
        return name, pos
