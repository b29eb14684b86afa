"""The command line: what it takes, and what it says when something is amiss."""

import json
import os
import signal
import subprocess
import sys

import pytest

CONFIG = '''"""A job of the tests."""
from ml_collections import ConfigDict

def get_config(arg="plain"):
    config = ConfigDict({"experiment": "nowhere", "arg": arg, "text": "", "on": False, "open": {}})
    config.train = ConfigDict({"steps": 3, "rate": 0.5})
    return config
'''

PARSE = """
import json, sys, launch
try:
    config, workdir = launch.parse(sys.argv)
    print(json.dumps([config.to_dict(), workdir]))
except launch.UserError as error:
    sys.exit(f"error: {error}")
"""


@pytest.fixture
def parse(tmp_path, repo):
    """Returns a function from arguments to (config, workdir), or to the error line."""
    (tmp_path / "job.py").write_text(CONFIG)

    def call(*args):
        # ml_collections' flags are global: a process each keeps the tests apart.
        command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(repo)!r})\n{PARSE}", *args]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        if done.returncode:
            assert "Traceback" not in done.stderr
            return done.stderr.strip()
        return json.loads(done.stdout)

    return call


def test_overrides_reach_the_config(parse):
    config, workdir = parse(
        "--config=job.py", "--config.train.rate=1", "--config.text=a=b c", "--config.on", "--workdir=w"
    )
    assert config["train"] == {"steps": 3, "rate": 1.0}
    assert (config["text"], config["on"], config["arg"], workdir) == ("a=b c", True, "plain", "w")


def test_argument_and_default_workdir(parse):
    config, workdir = parse("--config", "job.py:tiny", "--noconfig.on")
    assert config["arg"] == "tiny"
    assert workdir.replace("\\", "/") == "runs/job-tiny"


def test_open_tables_take_any_name(parse):
    config, _ = parse("--config=job.py", "--config.open.while.3=64", "--config.open.body=x")
    assert config["open"] == {"while.3": 64, "body": "x"}


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--config=jbo.py"], "there is no file jbo.py. Did you mean 'job.py'?"),
        (["--config=job.py", "--config.train.stesp=3"], "no such setting. Did you mean 'train.steps'?"),
        (["--config=job.py", "--config.train.steps=x"], "--config.train.steps=x: 'x' is not a whole number"),
        (["--config=job.py", "--config.train.steps=1.5"], "--config.train.steps=1.5: '1.5' is not a whole number"),
        (["--config=job.py", "--config.on=maybe"], "--config.on=maybe: 'maybe' is not True or False"),
        (["--config=job.py", "--workdri=x"], "--workdri is no flag. Did you mean 'workdir'?"),
        (["--config=job.py", "steps=3"], "'steps=3' is no flag"),
        ([], "No job was named"),
    ],
)
def test_mistakes_get_one_clear_line(parse, args, said):
    line = parse(*args)
    assert said in line
    if args:
        assert "\n" not in line


def launch(repo, *args):
    return subprocess.run([sys.executable, "launch.py", *args], cwd=repo, capture_output=True, text=True, check=False)


def test_help_lists_every_job(repo):
    shown = launch(repo, "--help")
    assert shown.returncode == 0
    for path in (repo / "configs").glob("[!_]*.py"):
        assert f"--config=configs/{path.name}" in shown.stdout


def test_user_errors_exit_with_2_and_no_traceback(repo, tmp_path):
    (tmp_path / "job.py").write_text(CONFIG)
    done = launch(repo, f"--config={tmp_path / 'job.py'}")
    assert done.returncode == 2
    assert done.stderr.startswith("error: config.experiment='nowhere'")
    assert len(done.stderr.splitlines()) == 1


TERMINATED = """
import sys, time, launch
from llmjax.files import appearing
class Job:
    def run(config, workdir):
        with appearing(f"{workdir}/file") as stream:
            print("writing", flush=True)
            time.sleep(600)
launch.experiment = lambda name: Job
sys.exit(launch.main(sys.argv))
"""


def test_sigterm_leaves_nothing_half_written(repo, tmp_path):
    (tmp_path / "job.py").write_text(CONFIG)
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(repo)!r})\n{TERMINATED}"]
    command += ["--config=job.py", "--workdir=out"]
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as job:
        assert job.stdout.readline() == "writing\n"
        job.terminate()
    assert job.returncode == 128 + signal.SIGTERM
    assert list((tmp_path / "out").iterdir()) == []


def test_programs_are_not_kept_where_others_can_write(repo, tmp_path):
    (tmp_path / "llmjax").mkdir()
    (tmp_path / "llmjax").chmod(0o777)
    code = "import launch; print(launch.program_folder())"
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=repo, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "None\n" and done.stderr.count("\n") == 1 and "others can write to it" in done.stderr
    (tmp_path / "llmjax").chmod(0o755)
    done = subprocess.run(command, cwd=repo, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == f"{tmp_path / 'llmjax' / 'xla'}\n" and not done.stderr
    assert (tmp_path / "llmjax").stat().st_mode & 0o777 == 0o700
