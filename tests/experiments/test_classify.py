"""The classify job from its settings to its output."""

import io
import json
import os
import signal
import subprocess
import sys
import time

import jax
import pytest

from configs.classify import get_config
from experiments.classify import run
from llmjax.data import load_tokenizer
from llmjax.errors import UserError
from llmjax.models.families import from_size
from llmjax.models.params import init_params
from llmjax.models.weights import save_pretrained

LABELS = ("bad", "good")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A finished run's workdir with a tiny classifier in it."""
    workdir = tmp_path_factory.mktemp("run")
    tokenizer = load_tokenizer("gpt2")
    config = from_size("tiny", n_positions=40, label_names=LABELS)
    params = init_params(config, "classifier", jax.random.key(0))
    save_pretrained(workdir / "best", config, params, "classifier", tokenizer)
    save_pretrained(workdir / "lm", config, init_params(config, "lm", jax.random.key(0)), "lm", tokenizer)
    return workdir


def job(tmp_path, **settings):
    config = get_config()
    config.update(settings)
    run(config, str(tmp_path / "unused"))
    assert not (tmp_path / "unused").exists()


def line_of(tmp_path, **settings):
    with pytest.raises(UserError) as error:
        job(tmp_path, **settings)
    assert "\n" not in str(error.value)
    return str(error.value)


def records(text):
    found = [json.loads(line) for line in text.splitlines()]
    for record in found:
        assert list(record) == ["text", "label", "score", "scores"]
        assert tuple(record["scores"]) == LABELS
        assert sum(record["scores"].values()) == pytest.approx(1, abs=3e-6)
        assert record["scores"][record["label"]] == record["score"] == max(record["scores"].values())
    return found


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_tiny_variant_runs_by_itself(tmp_path, capsys):
    run(get_config("tiny"), str(tmp_path))
    captured = capsys.readouterr()
    record = json.loads(captured.out)
    assert record["text"] == "I love this movie." and record["label"] in ("negative", "positive")
    assert "random weights" in captured.err and "mean nothing" in captured.err


def test_variants_are_checked():
    with pytest.raises(UserError, match=r"Did you mean 'tiny'\?"):
        get_config("tyni")


def test_one_text_to_standard_output(checkpoint, tmp_path, capsys):
    job(tmp_path, checkpoint=str(checkpoint), text="I love this movie.")
    (record,) = records(capsys.readouterr().out)
    assert record["text"] == "I love this movie."


def test_a_person_sees_a_table_and_a_program_json(checkpoint, tmp_path, monkeypatch):
    source = tmp_path / "in.txt"
    source.write_text("".join(f"text [{i}]\n" for i in range(3)))
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    job(tmp_path, checkpoint=str(checkpoint), input=str(source))
    shown = screen.getvalue()
    assert "label" in shown and "text [2]" in shown and "{" not in shown  # and [2] is not taken for markup

    source.write_text("".join(f"text {i}\n" for i in range(30)))
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    job(tmp_path, checkpoint=str(checkpoint), input=str(source))
    assert [record["text"] for record in records(screen.getvalue())] == [f"text {i}" for i in range(30)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("in.txt", "one\ntwo words\nthree more words\n"),
        ("in.tsv", "label\ttext\n1\tone\n0\ttwo words\n1\tthree more words\n"),
        ("in.csv", 'text,label\none,1\n"two words",0\nthree more words,1\n'),
        ("in.jsonl", '{"text": "one"}\n{"text": "two words"}\n{"text": "three more words"}\n'),
    ],
)
def test_every_format_gives_the_same_lines_in_order(checkpoint, tmp_path, capsys, name, content):
    (tmp_path / name).write_text(content)
    output = tmp_path / "out" / "predictions.jsonl"
    job(tmp_path, checkpoint=str(checkpoint), input=str(tmp_path / name), output=str(output))
    assert [record["text"] for record in records(output.read_text())] == ["one", "two words", "three more words"]
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "3 texts in" in captured.err and str(output) in captured.err


def test_standard_input_is_read(checkpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("one\n电影\n".encode())))
    job(tmp_path, checkpoint=str(checkpoint))
    assert [record["text"] for record in records(capsys.readouterr().out)] == ["one", "电影"]


def test_blank_and_overlong_texts_keep_their_line_and_are_counted(checkpoint, tmp_path, capsys):
    (tmp_path / "in.txt").write_text("one\n\n   \n" + "word " * 100 + "\n" + "word " * 90 + "\n")
    job(tmp_path, checkpoint=str(checkpoint), input=str(tmp_path / "in.txt"))
    captured = capsys.readouterr()
    assert len(records(captured.out)) == 5
    assert "warning: 2 texts were longer than the model's 40 tokens and cut there\n" in captured.err
    assert "warning: 2 texts were blank" in captured.err


def test_an_empty_file_gives_an_empty_output(checkpoint, tmp_path, capsys):
    (tmp_path / "in.txt").write_text("")
    job(tmp_path, checkpoint=str(checkpoint), input=str(tmp_path / "in.txt"), output=str(tmp_path / "out.jsonl"))
    assert (tmp_path / "out.jsonl").read_text() == ""
    assert "0 texts" in capsys.readouterr().err


def test_settings_that_cannot_work_are_one_line(checkpoint, tmp_path, monkeypatch):
    (tmp_path / "in.txt").write_text("one\n")
    good, source = str(checkpoint), str(tmp_path / "in.txt")
    assert "--config.checkpoint=" in line_of(tmp_path, text="x")
    assert "give one of them" in line_of(tmp_path, checkpoint=good, text="x", input=source)
    assert "Did you mean 'in.txt'?" in line_of(tmp_path, checkpoint=good, input=str(tmp_path / "im.txt"))
    assert "is a folder" in line_of(tmp_path, checkpoint=good, text="x", output=str(tmp_path))
    assert "overwritten" in line_of(tmp_path, checkpoint=good, input=source, output=source)
    assert "has no config.json" in line_of(tmp_path, checkpoint=str(tmp_path), text="x")
    assert "without a classification head" in line_of(tmp_path, checkpoint=str(checkpoint / "lm"), text="x")
    assert "no such folder" in line_of(tmp_path, checkpoint=str(tmp_path / "nothing" / "here"), text="x")
    assert "Did you mean 'tiny'?" in line_of(tmp_path, checkpoint="random:tyni", text="x")
    assert "dtype='float23'" in line_of(tmp_path, checkpoint=good, text="x", dtype="float23")
    assert "must be text in UTF-8" in line_of(tmp_path, checkpoint=good, text="na\udcefve")
    monkeypatch.setattr(sys, "stdin", Terminal())
    assert "no text was given" in line_of(tmp_path, checkpoint=good)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    assert "no text came in" in line_of(tmp_path, checkpoint=good)


def test_a_broken_line_leaves_no_output(checkpoint, tmp_path):
    (tmp_path / "in.txt").write_bytes(b"fine\n" * 10 + b"\xff\n")
    output = tmp_path / "out.jsonl"
    line = line_of(tmp_path, checkpoint=str(checkpoint), input=str(tmp_path / "in.txt"), output=str(output))
    assert "line 11" in line
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in.txt"]


def test_an_interrupt_leaves_no_output(checkpoint, tmp_path, repo):
    """A pipe that never ends is interrupted when the output is being written."""
    output = tmp_path / "out" / "predictions.jsonl"
    # What a shell runs in the background ignores interrupts, and so would its children: these tests, and this process.
    listen = "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    script = f"{listen}; runpy.run_path('launch.py', run_name='__main__')"
    command = [sys.executable, "-c", script, "--config=configs/classify.py", f"--config.checkpoint={checkpoint}"]
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    process = subprocess.Popen(
        [*command, f"--config.output={output}"], cwd=repo, env=env, stdin=subprocess.PIPE, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 120
    while not (output.parent.is_dir() and any(output.parent.iterdir())):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.stdin is not None and process.stderr is not None
    process.wait(timeout=60)  # with its input still open: an end of file could come before the signal
    errors = process.stderr.read()
    process.stdin.close()
    process.stderr.close()
    assert process.returncode == 130, errors
    assert b"Traceback" not in errors
    assert list(output.parent.iterdir()) == []
