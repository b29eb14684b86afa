"""Two processes on loopback, of four simulated devices each: one run's numbers, one end, one line that says why."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pytest

from configs.lm import get_config
from experiments import lm
from llmjax.data.trained_tokenizer import train_tokenizer
from llmjax.errors import UserError
from llmjax.parallel import processes
from llmjax.parallel.processes import ProcessConfig, join
from tests import codegen

SECONDS = 240  # after which a test gives up


def free_port():
    with socket.create_server(("localhost", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture(scope="module")
def tokenizer(repo, tmp_path_factory):
    """A vocabulary of some hundred tokens: GPT-2's would be nearly all of the work of a run."""
    folder = tmp_path_factory.mktemp("tokenizer")
    texts = repo / "configs" / "data" / "tiny_texts.txt"
    train_tokenizer(texts.read_text("utf-8").splitlines()).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def start(repo, tokenizer):
    """Starts runs with that vocabulary."""
    return partial(start_run, repo, tokenizer)


# Each evaluation writes two checkpoints, which are most of the time.
TINY = {"train.batch_size": 8, "train.eval_every": 10, "model.n_embd": 16, "model.n_layer": 1}


def start_run(repo, tokenizer, workdir, *, processes=2, own=(), **settings):
    """Starts the processes of a tiny language-model run; `own`: settings of each process alone."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(8 // processes)}
    environment["XLA_FLAGS"] = codegen.FLAGS
    sizes = {"mesh.fsdp": 2, "mesh.data": 2, "mesh.tensor": 2}
    settings = {**TINY, **sizes, "data.tokenizer": tokenizer, "prompts": "", **settings}
    if processes > 1:
        settings |= {"mesh.coordinator": f"localhost:{free_port()}", "mesh.processes": processes}
    found = []
    for index in range(processes):
        mine = {**settings, **(own[index] if own else {}), **({"mesh.process": index} if processes > 1 else {})}
        flags = [f"--config.{name}={value}" for name, value in mine.items()]
        command = [sys.executable, "launch.py", "--config=configs/lm.py:tiny", f"--workdir={workdir}", *flags]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        found.append(subprocess.Popen(command, cwd=repo, env=environment, **pipes))
    return found


def ended(running):
    """Returns (status, stdout, stderr) of each process; none is left behind."""
    try:
        return [(p.returncode, *said) for p in running for said in [p.communicate(timeout=SECONDS)]]
    finally:
        for process in running:
            process.kill()


def wait_for_step(workdir, step, running):
    """Waits until a step's figures are on the disk."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end and all(process.poll() is None for process in running):
        if len(losses(workdir)) >= step:
            return
        time.sleep(0.05)
    raise AssertionError("the run did not come so far")


def losses(workdir):
    file = workdir / "metrics.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    records = [json.loads(line) for line in lines if line.endswith("}")]
    return [record["loss"] for record in records if record["phase"] == "lm"]


@pytest.fixture(scope="module")
def alone(tokenizer, tmp_path_factory):
    """The losses of this process and its one device."""
    workdir = tmp_path_factory.mktemp("alone")
    config = get_config("tiny")
    config.update_from_flattened_dict({**TINY, "data.tokenizer": str(tokenizer), "prompts": (), "train.steps": 20})
    lm.run(config, str(workdir))
    return losses(workdir)


def test_two_processes_give_the_numbers_of_one_stop_together_and_go_on(start, tmp_path, alone):
    running = start(tmp_path, **{"train.steps": 20})
    wait_for_step(tmp_path, 3, running)
    running[1].send_signal(signal.SIGTERM)  # one of them, not the one that writes
    first, second = ended(running)
    assert (first[0], second[0]) == (143, 143), first[2] + second[2]
    stopped = len(losses(tmp_path))
    assert 3 <= stopped < 20 and f"stopped after step {stopped}" in first[1]
    assert second[1] == "" and "Gloo" not in first[1], "only process 0 prints, and of it only Python"
    [(status, _, stderr)] = ended(start(tmp_path, processes=1, **{"train.steps": 20}))  # on another mesh of hosts
    assert status == 0, stderr[-2000:]
    assert len(losses(tmp_path)) == 20
    np.testing.assert_allclose(losses(tmp_path), alone, rtol=0, atol=1e-5)


def test_other_settings_are_named_before_anything_is_written(start, tmp_path):
    own = ({}, {"train.seed": 7})
    first, second = ended(start(tmp_path / "run", own=own))
    for status, _, _ in (first, second):
        assert status in (1, 2)
    assert "has train.seed=7, process 0" in first[2] + second[2]
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_process_that_dies_ends_the_others_with_a_line_that_names_it(start, tmp_path):
    running = start(tmp_path, **{"train.steps": 2000})
    wait_for_step(tmp_path, 2, running)
    began = time.monotonic()
    running[1].kill()
    first, _ = ended(running)
    assert first[0] == 1 and time.monotonic() - began < 30
    assert f"error: process 1 (pid {running[1].pid} on " in first[2] and "ended, so this one ends too" in first[2]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (ProcessConfig("localhost:1", 2), "mesh.process=INDEX belong together"),
        (ProcessConfig("localhost", 2, 1), "mesh.coordinator='localhost' must be HOST:PORT"),
        (ProcessConfig("localhost:1", 2, 2), "mesh.process=2 must be below mesh.processes=2"),
    ],
)
def test_settings_that_cannot_be_are_one_line(config, said):
    with pytest.raises(UserError) as error:
        join(config, False)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_coordinator_that_does_not_answer_is_one_line(monkeypatch):
    monkeypatch.setattr(processes, "SECONDS", 0)
    with pytest.raises(UserError, match="process 0 did not answer within 0 s") as error:
        join(ProcessConfig(f"localhost:{free_port()}", 2, 1), False)
    assert "\n" not in str(error.value)


def test_alone_nothing_is_joined():
    assert not join(ProcessConfig(), False)
    assert processes.leads() and not processes.several()
