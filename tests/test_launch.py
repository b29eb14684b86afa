"""The command line: what it takes, and what it says when something is amiss."""

import os
import signal
import subprocess
import sys

import pytest

from experiments._command import launch_command, load_config, parse
from llmjax.errors import UserError

CONFIG = '''"""A job of the tests."""
from ml_collections import ConfigDict

def get_config(arg="plain"):
    config = ConfigDict({"experiment": "diff", "before": arg, "after": "", "fail_above": "", "top": 3})
    return config
'''


@pytest.fixture
def job(tmp_path, monkeypatch):
    """A folder, the present one, with a config file job.py."""
    (tmp_path / "job.py").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def line_of(*args):
    with pytest.raises(UserError) as error:
        parse(["launch.py", *args])
    assert "\n" not in str(error.value)
    return str(error.value)


def test_overrides_reach_the_config(job):
    args = ["--config=job.py", "--config.top=1", "--config.after=a=b c", "--config.fail_above", "2%", "--workdir=w"]
    config, workdir = parse(["launch.py", *args])
    assert config.to_dict() == {"experiment": "diff", "before": "plain", "after": "a=b c", "fail_above": "2%", "top": 1}
    assert workdir == "w"


def test_argument_and_default_workdir(job):
    config, workdir = parse(["launch.py", "--config", "job.py:tiny"])
    assert config.before == "tiny"
    assert workdir.replace("\\", "/") == "runs/job-tiny"


def test_flags_and_open_tables(repo):
    file = repo / "configs" / "cost.py"
    words = ["--config.measure", "--config.trip_counts.while.3=64", "--config.device.matmul.f32=1e12"]
    config, _ = parse(["launch.py", f"--config={file}", *words])
    assert config.measure is True
    assert config.to_dict()["trip_counts"] == {"while.3": 64} and config.to_dict()["device"] == {"matmul.f32": 1e12}
    assert parse(["launch.py", f"--config={file}", "--config.measure", "--noconfig.measure"])[0].measure is False


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--config=jbo.py"], "there is no file jbo.py. Did you mean 'job.py'?"),
        (
            ["--config=job.py", "--config.tpo=3"],
            "--config.tpo: the job has no such setting. Did you mean '--config.top'?",
        ),
        (["--config=job.py", "--config.top.x=3"], "--config.top.x: the job has no such setting."),
        (["--config=job.py", "--config.top=x"], "config.top='x' must be a whole number, 0 to 1,000,000."),
        (["--config=job.py", "--config.top"], "--config.top needs a value"),
        (["--config=job.py", "--workdri=x"], "--workdri is no flag. Did you mean 'workdir'?"),
        (["--config=job.py", "steps=3"], "'steps=3' is no flag"),
        (["--workdir=x"], "No job was named"),
        (["--config"], "No job was named"),
    ],
)
def test_mistakes_get_one_clear_line(job, args, said):
    assert said in line_of(*args)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"def get_config(:\n", "line 1 is no Python"),
        (b"x = 1\nraise ValueError('on\\npurpose')\n", "bad.py line 2: ValueError: on"),
        (b"\n\ndef get_config():\n    return 1 / 0\n", "bad.py line 4: ZeroDivisionError: division by zero"),
        (b"def get_config():\n    return {'experiment': 'diff'}\n", "gives a dict, not a ConfigDict"),
        (b"def get_config(a, b):\n    return 1\n", "TypeError"),
        (b"import sys\nsys.exit(0)\n", "bad.py line 2: SystemExit"),
        (b"x = '\xff\xfe'\n", "is no Python"),
        (b"\0\0\0", "bad.py"),
        (b"x = 1\n", "defines no get_config()"),
        (b"get_config = 3\n", "defines no get_config()"),
        (b"from ml_collections import ConfigDict\nget_config = ConfigDict\n", "experiment=None must be one of"),
        (
            b"from ml_collections import ConfigDict\ndef get_config():\n    return ConfigDict({'experiment': 'dif'})\n",
            "experiment='dif' must be one of",
        ),
    ],
)
def test_a_config_file_that_is_none_is_told_by_file_and_line(job, text, said):
    (job / "bad.py").write_bytes(text)
    line = line_of("--config=bad.py")
    assert said in line and "bad.py" in line


def test_an_interrupt_while_a_config_is_read_stays_one(job):
    (job / "slow.py").write_text("raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        load_config("slow.py")


def launch(repo, *args, python=sys.executable, **options):
    command = [python, "launch.py", *args]
    return subprocess.run(command, cwd=repo, capture_output=True, text=True, check=False, **options)


def test_help_lists_every_job(repo):
    shown = launch(repo, "--help")
    assert shown.returncode == 0
    for path in (repo / "configs").glob("[!_]*.py"):
        assert f"--config=configs/{path.name}" in shown.stdout


def test_user_errors_exit_with_2_and_no_traceback(repo):
    done = launch(repo, "--config=configs/diff.py", "--config.top=1e11")
    assert done.returncode == 2
    assert done.stderr == "error: config.top='1e11' must be a whole number, 0 to 1,000,000.\n"


def test_another_python_is_told_which_one_to_take(repo):
    # -S: no installed packages, as in a Python that is not the one of the virtual environment.
    done = subprocess.run(
        [sys.executable, "-S", "launch.py", "--config=configs/diff.py"], cwd=repo, capture_output=True, text=True
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "No module named" in done.stderr and ("make quickstart" in done.stderr or ".venv" in done.stderr)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a POSIX shell closes the streams")
@pytest.mark.parametrize("closing", [">&-", ">&- 2>&-", "<&-", "| true", "> /dev/full"])
def test_closed_and_full_streams_end_in_a_line(repo, tmp_path, closing):
    command = f"{sys.executable} launch.py --config=configs/diff.py:tiny --workdir={tmp_path} {closing}"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], cwd=repo, capture_output=True, text=True)
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
    if closing == "<&-":
        assert done.returncode == 0 and not done.stderr
    elif closing.startswith(">&-"):
        assert done.returncode == 2 and not list(tmp_path.iterdir())
        assert "standard output is closed" in done.stderr or "2>&-" in closing
    elif closing == "> /dev/full":
        assert done.returncode == 2 and done.stderr == "error: No space left on device.\n"


def test_commands_run_as_they_are_printed(repo, monkeypatch, tmp_path):
    monkeypatch.chdir(repo)
    here = launch_command("diff.py:tiny", f"--workdir={tmp_path / 'a'}")
    assert " launch.py --config=configs/diff.py:tiny" in here
    monkeypatch.chdir(tmp_path)
    away = launch_command("diff.py:tiny", f"--workdir={tmp_path / 'b'}")
    assert f"{repo}/launch.py" in away
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(["bash", "-c", away], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


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
        assert job.stdout and job.stdout.readline() == "writing\n"
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
