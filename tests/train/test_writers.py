import json
import sys
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event

from llmjax.train.writers import FILE, MetricsLog, rewind


def scalars(folder: Path) -> list[tuple[int, str, float]]:
    """Returns (step, tag, value) of every scalar in the one event file of a folder, as TensorBoard reads it.

    Source of the layout (length in 8 bytes, their CRC, the event, its CRC): TensorFlow's record_writer.cc.
    """
    (path,) = folder.glob("events.out.tfevents.*")
    content, at, found = path.read_bytes(), 0, []
    while at < len(content):
        size = int.from_bytes(content[at : at + 8], "little")
        event = Event.FromString(content[at + 12 : at + 12 + size])
        found += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
        at += 12 + size + 4
    return found


def test_records_reach_the_file_and_tensorboard(tmp_path: Path) -> None:
    records = [{"step": s, "phase": "finetune", "loss": 0.1 + s, "timing": {"mfu": 0.5}} for s in (1, 2)]
    with MetricsLog(tmp_path) as log:
        for record in records:
            log.write(record)
            assert json.loads((tmp_path / FILE).read_text().splitlines()[-1]) == record  # at once, not on close
            assert scalars(tmp_path)[-2:] == [
                (record["step"], "finetune/loss", pytest.approx(record["loss"])),
                (record["step"], "finetune/mfu", pytest.approx(0.5)),
            ]
        log.sync()


def test_rewind_drops_refused_and_unfinished_lines(tmp_path: Path) -> None:
    path = tmp_path / FILE
    rewind(path, lambda record: True)  # no file yet: nothing to do
    path.write_text('{"step": 1}\n{"step": 2}\n{"st\n{"step": 3}\n{"step": 2, "x": 1}')
    rewind(path, lambda record: record["step"] <= 2)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_wandb_absent_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # what makes `import wandb` raise ImportError
    with MetricsLog(tmp_path, wandb=True) as log:
        log.write({"step": 1, "phase": "dev", "loss": 1.0})
    assert capsys.readouterr().err.count("\n") == 1
    assert (tmp_path / FILE).read_text().count("\n") == 1


def test_wandb_gets_settings_and_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list = []

    class Run:
        def log(self, figures: dict, step: int) -> None:
            calls.append((step, figures))

        def finish(self) -> None:
            calls.append("finished")

    class Wandb:
        @staticmethod
        def init(**kwargs: object) -> Run:
            calls.append(kwargs["config"])
            return Run()

    monkeypatch.setitem(sys.modules, "wandb", Wandb)
    with MetricsLog(tmp_path, wandb=True, settings={"seed": 3}) as log:
        log.write({"step": 7, "phase": "dev", "loss": 1.0})
    assert calls == [{"seed": 3}, (7, {"dev/loss": 1.0}), "finished"]
