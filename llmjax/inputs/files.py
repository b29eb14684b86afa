"""A file or a folder -> the modules in it: HLO text (packed, in a log, several), protos, StableHLO, dumps, traces."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from llmjax.cost.buffers import find_buffers
from llmjax.errors import UserError, did_you_mean
from llmjax.hlo import parse, split_modules
from llmjax.hlo.document import decode, read_bytes, unpacked
from llmjax.inputs.mlir import compile_mlir, is_mlir
from llmjax.inputs.protos import hlo_proto, text_of_proto
from llmjax.inputs.source import Source
from llmjax.inputs.xplane import SUFFIXES, find_traces, profile_of, read_trace, target_of

PROTOS = (".pb", ".hlo_proto", ".hlo.pb", ".snapshot")
_OPTIMISED = ("after_optimizations.txt", "after_optimizations.txt.gz")
_NAME = re.compile(r"HloModule[ \t]+([^\s,]+)")
_DUMP = "dump one with XLA_FLAGS='--xla_dump_to=FOLDER --xla_dump_hlo_as_text'"


@dataclass(frozen=True)
class Brought:
    """What was read: modules, and what is wrong with each that could not be."""

    sources: tuple[Source, ...]
    left_out: tuple[UserError, ...] = ()


def read_sources(
    path: Path,
    setting: str,
    *,
    only: str = "",
    target: str = "",
    say: Callable[[int, int, str], None] = lambda number, of, name: None,
) -> Brought:
    """Reads every module that a file or folder holds.

    Args:
        setting: what the path was named by, for errors: "--config.hlo=", or "".
        only: a pattern (`jit_train*`) of the names of modules, or of their files, to be read; "" = all.
        target: the chip that StableHLO is compiled for; "" = this machine's CPU.
        say: told before each file of a folder: its number, how many there are, its name.

    Raises:
        UserError: nothing is there, or none of it can be read.
    """
    path = path.expanduser()
    if not path.exists():
        names = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UserError(f"{setting}{str(path)!r} does not exist.{did_you_mean(path.name, names)}")
    files, traces = ([], [path]) if path.name.endswith(SUFFIXES) else ([path], [])
    if path.is_dir():
        files = _files(path)
        traces = [] if files else find_traces(path)
    if not files and not traces:
        raise UserError(f"{setting}{str(path)!r}: the folder holds no HLO; {_DUMP}.")
    found = _of_traces(traces, only) if traces else _of_files(files, only, target, say)
    if not found.sources:
        none = UserError(f"{setting}{str(path)!r}: no module's name is like {only!r}.")
        raise (found.left_out or (none,))[0]
    return replace(found, sources=tuple(_numbered(found.sources)))


def the_one(sources: Sequence[Source], named: str) -> Source:
    """Returns the one module that was read.

    Raises:
        UserError: there are several.
    """
    if len(sources) == 1:
        return sources[0]
    names = list(dict.fromkeys(source.module.name or source.label for source in sources))
    more = f" and {len(names) - 5} more names" if len(names) > 5 else ""
    raise UserError(
        f"{named!r} holds {len(sources):,} modules ({', '.join(names[:5])}{more}): name the file of one;"
        " of llmjax cost and explain --only NAME chooses one."
    )


def joined(source: Source, trace: Path) -> Source:
    """Returns a module with the times that a trace has of it: of the program of its name that ran longest.

    Raises:
        UserError: the trace has no program of that name.
    """
    files = find_traces(trace) if trace.is_dir() else [trace]
    if not files:
        raise UserError(f"{str(trace)!r} holds no trace: jax.profiler.trace(FOLDER) writes NAME.xplane.pb there.")
    read = [read_trace(file) for file in files]
    found = {(number, program): runs for number, one in enumerate(read) for program, runs in one.runs.items()}
    mine = {key: runs for key, runs in found.items() if key[1][0] == source.module.name}
    if not mine:
        names = sorted({program[0] for _, program in found})
        raise UserError(
            f"{str(trace)!r} has no run of {source.module.name!r}, but of {', '.join(names) or 'nothing'}."
            f"{did_you_mean(source.module.name, names)}"
        )
    longest = max(mine, key=lambda key: sum(run.end - run.start for runs in mine[key].values() for run in runs))
    return replace(source, measured=profile_of(source.module.name, mine[longest], source.module))


def _of_files(files: Sequence[Path], only: str, target: str, say: Callable[[int, int, str], None]) -> Brought:
    sources: list[Source] = []
    errors: list[UserError] = []
    for number, file in enumerate(files):
        if len(files) > 1:
            say(number + 1, len(files), file.name)
        try:
            for made in _of_file(file, only, target):
                if isinstance(made, UserError):
                    errors.append(made)
                else:
                    sources.append(made)
        except UserError as error:
            errors.append(error)
    return Brought(tuple(sources), tuple(errors))


def _of_file(file: Path, only: str, target: str) -> Iterator[Source | UserError]:
    """The modules of a file, or what is wrong with each."""
    data, name = unpacked(read_bytes(file), repr(str(file))), file.name
    if is_mlir(data):
        program = compile_mlir(data, repr(str(file)), target)
        yield from _of_text(file, program.text, only, program.backend, target and program.target)
        return
    called_proto = name.removesuffix(".gz").endswith(PROTOS)
    proto = hlo_proto(data) if called_proto or b"\0" in data[:4096] else None
    if called_proto and proto is None and b"HloModule" not in data[:4096]:
        raise UserError(f"{str(file)!r} is no HloModuleProto, HloProto or HloSnapshot, or is damaged.")
    text = text_of_proto(proto, repr(str(file))) if proto is not None else decode(data, repr(str(file)))
    yield from _of_text(file, text, only)


def _of_text(
    file: Path, text: str, only: str, backend: str | None = None, target: str | None = None
) -> Iterator[Source | UserError]:
    texts = split_modules(text)
    for one in texts:
        named = _NAME.search(one)
        name = named[1] if named else ""
        label = f"{_label(file)}.{_plain(name)}" if len(texts) > 1 else _label(file)
        if only and not any(fnmatchcase(word, only) for word in (name, label, file.name)):
            continue
        try:
            module = parse(one, str(file))
            buffers = find_buffers(file)
        except UserError as error:
            yield error
            continue
        title = f"{module.name or 'module'} · {file.name}"
        yield Source(label, title, one, module, backend=backend, target=target, buffers=buffers)


def _of_traces(files: Sequence[Path], only: str) -> Brought:
    """The programs of a trace, of the first host that has each."""
    sources: dict[tuple[str, int], Source] = {}
    errors: list[UserError] = []
    for file in files:
        trace = read_trace(file)
        if not trace.runs:
            errors.append(UserError(f"{str(file)!r} has no run of a program: trace while one runs."))
        for program, runs in trace.runs.items():
            name, number = program
            if program in sources or (only and not fnmatchcase(name, only)):
                continue
            proto = trace.modules.get(program)
            if proto is None:
                told = "the trace has no HLO of it: give its text as the program, and this as its trace"
                errors.append(UserError(f"{name} ran, but {told}."))
                continue
            text = text_of_proto(proto, repr(str(file)))
            module = parse(text, str(file))
            times = profile_of(name, runs, module)
            count = f"{len(runs)} device{'s' if len(runs) > 1 else ''}"
            title = f"{name} · {times.runs} runs on {count}{f' · {trace.chip}' if trace.chip else ''}"
            label = _plain(f"{name}.{number}" if number else name)
            target = target_of(trace.chip)
            sources[program] = Source(label, title, text, module, target=target, measured=times)
    return Brought(tuple(sources.values()), tuple(errors))


def once(sources: Iterable[Source]) -> list[Source]:
    """Returns the sources whose text differs, with their copies counted: a program may be compiled again and again."""
    kept: dict[str, list[Source]] = {}
    for source in sources:
        kept.setdefault(source.text, []).append(source)
    return [replace(same[0], copies=len(same)) for same in kept.values()]


def _numbered(sources: Iterable[Source]) -> Iterator[Source]:
    """The sources with labels that differ: those of modules of one name get numbers."""
    seen: dict[str, int] = {}
    for source in sources:
        seen[source.label] = count = seen.get(source.label, 0) + 1
        yield replace(source, label=f"{source.label}.{count}") if count > 1 else source


def _plain(name: str) -> str:
    """A module's name as part of a file's name."""
    return re.sub(r"[^\w.\-]", "_", name)[:100]


def _label(file: Path) -> str:
    name = file.name.removesuffix(".gz")
    for ending in (".txt", ".pb", ".hlo_proto", ".hlo", ".mlir", ".mlirbc"):
        name = name.removesuffix(ending)
    return name.removesuffix("after_optimizations").rstrip("._") or name


def _files(folder: Path) -> list[Path]:
    """The optimised modules of a dump, the largest file first; of a folder without any, what begins like HLO text."""
    files = sorted((p for p in folder.iterdir() if p.is_file()), key=lambda p: (-p.stat().st_size, p.name))
    found = [p for p in files if p.name.endswith(_OPTIMISED)]
    if not found:
        texts = [p for p in files if p.suffix in (".txt", ".hlo") and _begins_like_hlo(p)]
        found = [p for p in texts if "before_optimizations" not in p.name] or texts
    if not found:
        binary = [p for p in files if p.name.removesuffix(".gz").endswith(PROTOS) and not p.name.endswith(SUFFIXES)]
        found = [p for p in binary if "after_optimizations" in p.name] or binary
    return found or [p for p in files if p.suffix in (".mlir", ".mlirbc")]


def _begins_like_hlo(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"HloModule")
