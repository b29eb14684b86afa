import os
import signal
import subprocess
import sys
import threading

import pytest

from llmjax.train.signals import StopSignals

# Locking a mutex twice never returns and never runs Python: what a long compilation is like.
TWICE = """
import ctypes, os, signal, threading
from llmjax.train.signals import StopSignals
with StopSignals() as signals:
    os.kill(os.getpid(), signal.SIGINT)
    assert signals.received == signal.SIGINT
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    mutex = ctypes.create_string_buffer(64)
    ctypes.CDLL(None).pthread_mutex_lock(mutex)
    ctypes.CDLL(None).pthread_mutex_lock(mutex)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a zeroed mutex is a valid one on Linux only")
def test_the_second_signal_ends_the_process_at_once(repo: object) -> None:
    done = subprocess.run([sys.executable, "-c", TWICE], cwd=str(repo), capture_output=True, text=True, timeout=120)
    assert done.returncode == 128 + signal.SIGINT
    assert "again to exit at once" in done.stderr


def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with StopSignals() as signals:
        assert signals.received is None and signal.getsignal(signal.SIGINT) != before
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.received == signal.SIGTERM
    assert signal.getsignal(signal.SIGINT) == before


def test_other_threads_are_left_alone() -> None:
    seen = []

    def enter() -> None:
        with StopSignals() as signals:
            seen.append(signals.received)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [None]
