"""The README's Python runs as it stands there."""

import re

import pytest

from configs import quickstart
from experiments import finetune


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    finetune.run(quickstart.get_config("tiny"), str(folder))
    return folder


def test_python_block(repo, workdir, capsys):
    (block,) = re.findall(r"```python\n(.*?)```", (repo / "README.md").read_text("utf-8"), re.DOTALL)
    capsys.readouterr()
    exec(block.replace("runs/quickstart", workdir.as_posix()), {})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] in ("negative", "positive") for line in lines[:2]] == [True, True]
    assert any("FLOPs" in line for line in lines[2:])


def test_every_job_is_named(repo):
    text = (repo / "README.md").read_text("utf-8")
    for path in (repo / "configs").glob("[!_]*.py"):
        assert f"configs/{path.name}" in text
