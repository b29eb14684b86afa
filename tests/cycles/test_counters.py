"""Counters: the kernel's own software events stand in for hardware that may not be there."""

import sys
import threading

import pytest

from llmjax.cycles import counters

SOFTWARE, TASK_CLOCK = 1, 1


def test_the_kernel_counts_what_work_takes():
    if not sys.platform.startswith("linux"):
        pytest.skip("perf events are Linux's")
    less = counters.read_events(lambda: sum(range(10_000)), ((SOFTWARE, TASK_CLOCK),))
    more = counters.read_events(lambda: sum(range(3_000_000)), ((SOFTWARE, TASK_CLOCK),))
    if less is None or more is None:
        pytest.skip("this system lets nobody count")
    assert 0 < less[0] < more[0]


def test_other_threads_count_too():
    if not sys.platform.startswith("linux"):
        pytest.skip("perf events are Linux's")
    go, done, end = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        go.wait()
        sum(range(3_000_000))
        done.set()
        end.wait()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        found = counters.read_events(lambda: (go.set(), done.wait()), ((SOFTWARE, TASK_CLOCK),))
        alone = counters.read_events(lambda: None, ((SOFTWARE, TASK_CLOCK),))
    finally:
        end.set()
        thread.join()
    if found is None or alone is None:
        pytest.skip("this system lets nobody count")
    assert found[0] > 10 * alone[0]


def test_work_is_done_where_nothing_can_be_counted():
    ran = []
    assert counters.read_events(lambda: ran.append(1), ((99, 99),)) is None
    assert ran == [1]


def test_instructions_a_cycle():
    assert counters.Counts(cycles=200, instructions=500).per_cycle == 2.5
    assert counters.Counts(0, 0).per_cycle == 0.0


def test_available_agrees_with_counting():
    assert counters.available() == (counters.count(lambda: None) is not None)
