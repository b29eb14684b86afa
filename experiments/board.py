"""Every way to make a model smaller, cheaper to tune or faster, side by side: a row a strategy, each made once."""

import dataclasses
import hashlib
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments._mesh import on_devices
from experiments._settings import values_of
from experiments._workdir import claim, flat_settings, held
from experiments.board_parts.strategies import DISTIL, TRAINS, State, change_of, check_saved, plain, steps_of
from experiments.board_parts.subjects import Budget, Subject, language, readied, sentiment
from llmjax.analysis import analysis_of
from llmjax.errors import UserError
from llmjax.files import atomic_write
from llmjax.hlo import parse
from llmjax.json_file import read_json
from llmjax.memory import tree_bytes
from llmjax.models.folders import WEIGHTS_FILE, read_config
from llmjax.models.params import Head, flat_tree, nested_tree
from llmjax.models.weights import read_tensors, save_pretrained, saved_folder, write_config, write_tensors
from llmjax.report.board import ACCURACY, PERPLEXITY, Row, board_page
from llmjax.report.page import print_page, to_html
from llmjax.report.terminal import console
from llmjax.targets.aot import compile_for
from llmjax.targets.local import compile_here

SCHEMA = "llmjax.board/1"


def run(config: ConfigDict, workdir: str) -> None:
    """Makes the rows that are not there yet, prints the board and writes board.json and board.html."""
    values, folder = values_of(config), Path(workdir)
    strategies = {name: steps_of(name) for name in values["strategies"]}
    for name in values["save"]:
        check_saved(name, strategies)
    with on_devices(values["mesh"]), held(folder):
        fixed = {name: value for name, value in values.items() if name not in ("strategies", "save", "targets", "runs")}
        claim(folder, flat_settings(fixed), begun=(folder / "rows").is_dir())
        subject = _subject(values)
        print(subject.about, file=sys.stderr)
        board = _Board(subject, folder / "rows", values["runs"], tuple(values["targets"]))
        rows = []
        for number, (name, steps) in enumerate(strategies.items()):
            print(f"row {number + 1} of {len(strategies)}: {name}", file=sys.stderr)
            rows.append(board.row(name, steps))
        rows = board.timed(rows)
        saved = [board.save(name, strategies[name], folder / "models" / name) for name in values["save"]]
    measure = ACCURACY if subject.head == "classifier" else PERPLEXITY
    page = board_page(subject.about, measure, rows, board.notes)
    document = {"schema": SCHEMA, "about": subject.about, "quality": measure, "rows": [row.document() for row in rows]}
    atomic_write(folder / "board.json", json.dumps(document, indent=1, allow_nan=False) + "\n")
    atomic_write(folder / "board.html", to_html(page))
    print_page(page, console())
    print(f"board.json, and board.html to look at: {workdir}")
    for line in saved:
        print(line)


def _subject(values: dict[str, Any]) -> Subject:
    budget = Budget(
        values["epochs"], values["steps"], values["batch_size"], values["seed"],
        {name: value for name, value in values["adapt"].items() if name != "method"},
    )  # fmt: skip
    if values["task"] == "sentiment":
        return sentiment(values["base"], values["data"], budget, values["batch"])
    if not values["text"]["train"]:
        raise UserError("task='perplexity' needs a text: --config.text.train=FILE.txt and --config.text.dev=FILE.txt")
    return language(values["base"], values["text"], budget, values["batch"], values["limit"])


@dataclasses.dataclass
class _Board:
    """The rows of one run: what they begin with, where they are kept, and how each is measured."""

    subject: Subject
    folder: Path
    runs: int
    targets: tuple[str, ...]

    def __post_init__(self) -> None:
        self.notes: list[str] = []
        self.programs: dict[str, tuple[Callable[..., Any], Sequence[Any]]] = {}  # by their text: what runs, and on what
        self.keys: dict[str, str] = {}  # of strategies

    def row(self, name: str, steps: tuple[str, ...]) -> Row:
        """Returns a strategy's row: as it was kept, or made now."""
        file = self.folder / _key(steps) / "row.json"
        if file.is_file():
            kept: dict[str, Any] = read_json(file)
            self.keys[name] = kept.pop("program")
            if set(self.targets) <= {*kept["predicted"], *kept.pop("unpredicted")}:
                return Row(**{**kept, "strategy": name})
        state, training = self.state(steps)
        quality = self.subject.quality(state)
        function, args = self.subject.execution(state)
        program = compile_here(jax.jit(function), *args)
        cost = analysis_of(parse(program.text), backend=program.backend).totals
        self.keys[name] = hashlib.sha256(program.text.encode()).hexdigest()
        self.programs[self.keys[name]] = program.executable, args
        seconds = _seconds({name: self.programs[self.keys[name]]}, self.runs)[name]
        predicted = self.predicted(function, args)
        row = Row(
            strategy=name, quality=quality.value, low=quality.low, high=quality.high, seconds=seconds,
            flops=cost.flops, bytes=cost.bytes, parameters=_parameters(state),
            weights=tree_bytes(readied(state)), predicted=predicted, **training,
        )  # fmt: skip
        self.keep(file, row)
        return row

    def keep(self, file: Path, row: Row) -> None:
        """Writes a row down, and what its program was."""
        left = [target for target in self.targets if target not in row.predicted]
        more = {"unpredicted": left, "program": self.keys[row.strategy]}
        atomic_write(file, json.dumps(row.document() | more, indent=1) + "\n")

    def timed(self, rows: Sequence[Row]) -> list[Row]:
        """Returns rows with the times of their programs taken in turn: rows of one program have one time."""
        seconds = _seconds(self.programs, self.runs)
        found = [dataclasses.replace(row, seconds=seconds.get(self.keys[row.strategy], row.seconds)) for row in rows]
        for row in found:
            self.keep(self.folder / _key(steps_of(row.strategy)) / "row.json", row)
        return found

    def state(self, steps: tuple[str, ...]) -> tuple[State, dict[str, Any]]:
        """Returns the model after some steps, and what training it took; what is trained is kept on disk."""
        if not steps:
            return self.subject.begin(), {"trained": 0, "train_seconds": 0.0, "ranks": {}}
        before, last = steps[:-1], steps[-1]
        if last not in TRAINS:
            state, training = self.state(before)
            change = change_of(last)
            assert change is not None  # steps_of has looked
            return change(state, self.subject.calibration()), training
        folder = self.folder / _key(steps)
        if (folder / "trained.json").is_file():
            return _kept(folder / "model"), read_json(folder / "trained.json")
        state, training = self.state(before)
        teacher = self.state(("full",))[0] if last == DISTIL else None
        begun = (folder / "run").is_dir()  # by a run that was stopped: how long it took nobody wrote down
        done = self.subject.train(plain(state), "full" if last == DISTIL else last, teacher, folder / "run")
        _keep(folder / "model", done.state, self.subject.head)
        training = {
            "trained": max(done.trained, training["trained"]),
            "train_seconds": 0.0 if begun else done.seconds + training["train_seconds"],
            "ranks": done.ranks or training.get("ranks", {}),
        }
        atomic_write(folder / "trained.json", json.dumps(training) + "\n")
        return done.state, training

    def save(self, name: str, steps: tuple[str, ...], folder: Path) -> str:
        """Writes a strategy's model as a folder; returns a line of where it is and how it is read."""
        state = self.state(steps)[0]
        save_pretrained(folder, state.config, state.params, self.subject.head, self.subject.tokenizer)
        how = {"format": state.format.removeprefix("float32"), "kv_cache": state.config.kv_cache}
        told = " ".join(f"--config.{setting}={value}" for setting, value in how.items() if value)
        return f"{name}: {folder}" + (f"; generate and perplexity read it so by {told}" if told else "")

    def predicted(self, function: Callable[..., Any], args: Sequence[Any]) -> dict[str, float]:
        """Returns one execution's predicted seconds on each target that can be compiled for."""
        shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), args)
        found = {}
        for target in self.targets:
            try:
                program = compile_for(target, jax.jit(function), *shapes)
                report = analysis_of(parse(program.text), backend=program.backend, target=program.target)
            except UserError as error:
                note = f"Not predicted: {error}"
                self.notes += [] if note in self.notes else [note]
                continue
            if report.time is not None:
                found[target] = report.time.overlapped
        return found


def _keep(folder: Path, state: State, head: Head) -> None:
    """Writes a model under its own parameters' paths: transformers has no names for adapters in a model."""
    with saved_folder(folder) as fresh:
        write_config(fresh, state.config, head, None)
        arrays = {"/".join(at): np.asarray(leaf) for at, leaf in flat_tree(state.params).items()}
        write_tensors(fresh / WEIGHTS_FILE, arrays)


def _kept(folder: Path) -> State:
    """Reads what `_keep` wrote."""
    arrays = read_tensors(folder / WEIGHTS_FILE)
    params = nested_tree({tuple(name.split("/")): jnp.asarray(array) for name, array in arrays.items()})
    return State(read_config(folder), params)


def _parameters(state: State) -> int:
    """Returns how many parameters a model has, packed ones counted one by one."""
    whole = jax.eval_shape(lambda: plain(state).params)
    return sum(leaf.size for leaf in jax.tree.leaves(whole))


def _key(steps: tuple[str, ...]) -> str:
    return "+".join(steps).replace(":", "of") or "base"


def _seconds(programs: Mapping[str, tuple[Callable[..., Any], Sequence[Any]]], runs: int) -> dict[str, float]:
    """Returns the median seconds of one execution of each program, one after the other in every round."""
    taken: dict[str, list[float]] = {key: [] for key in programs}
    for number in range(runs + 1):
        for key, (execute, args) in programs.items():
            began = time.perf_counter()
            jax.block_until_ready(execute(*args))
            if number:  # the first one warms up
                taken[key].append(time.perf_counter() - began)
    return {key: statistics.median(one) for key, one in taken.items()}
