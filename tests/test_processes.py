import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llmjax.processes import child

PARENT = """
import subprocess, sys, time
code = "from llmjax.processes import leave_with_parent; leave_with_parent(); print('up', flush=True); input()"
with subprocess.Popen([sys.executable, "-c", code], stdin=sys.stdin, stdout=subprocess.PIPE, text=True) as one:
    print(one.pid, one.stdout.readline().strip(), flush=True)
    time.sleep(600)
"""


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks /proc whether a process lives")
def test_a_child_leaves_with_its_killed_parent(repo: Path) -> None:
    read_end, write_end = os.pipe()  # held open: only the parent's end can end the child
    command = [sys.executable, "-c", PARENT]
    with subprocess.Popen(command, cwd=repo, stdin=read_end, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        process, up = parent.stdout.readline().split()
        assert up == "up" and alive(int(process))
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        for _ in range(600):
            if not alive(int(process)):
                break
            time.sleep(0.1)
        assert not alive(int(process))
    os.close(read_end)
    os.close(write_end)


def test_an_exception_kills_the_child() -> None:
    with pytest.raises(KeyboardInterrupt), child([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        raise KeyboardInterrupt
    assert process.returncode == -signal.SIGKILL


def test_a_child_is_waited_for() -> None:
    with child([sys.executable, "-c", "print(1)"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.read() == "1\n"
    assert process.returncode == 0
