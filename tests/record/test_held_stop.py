"""Stops are held back around our own code, and never lost."""

from __future__ import annotations

import signal
import threading

import pytest

from tf_mem_magic.record.held_stop import HeldStop, StoppedError


@pytest.fixture
def default_handler():
    """The handler of a kernel that runs a cell."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def held(default_handler):
    stop = HeldStop()
    stop.hold()
    yield stop
    stop.let_go()


def stop_now():
    signal.raise_signal(signal.SIGINT)


def test_a_stop_that_is_held_back_is_only_remembered(held):
    stop_now()
    assert held.stopped


def test_the_handler_that_was_there_comes_back(held):
    held.let_go()
    with pytest.raises(KeyboardInterrupt):
        stop_now()


def test_a_handler_that_somebody_set_meanwhile_stays(held):
    other = signal.signal(signal.SIGINT, signal.SIG_IGN)
    held.let_go()
    assert (signal.SIG_IGN, True) == (signal.getsignal(signal.SIGINT), callable(other))


def test_work_that_may_be_stopped_is_stopped(held):
    with pytest.raises(StoppedError):
        held.run(stop_now)
    assert held.stopped


def test_work_does_not_begin_after_a_stop(held):
    stop_now()
    with pytest.raises(StoppedError):
        held.run(lambda: pytest.fail("it began"))


def test_work_that_swallows_its_stop_has_been_stopped_all_the_same(held):
    def swallow():
        try:
            stop_now()
        except BaseException:
            raise ValueError from None

    with pytest.raises(StoppedError):
        held.run(swallow)


def test_an_error_of_the_work_stays_an_error(held):
    with pytest.raises(ZeroDivisionError):
        held.run(lambda: 1 / 0)


def test_the_users_code_meets_a_stop_as_always(held):
    seen = []

    def cell():
        try:
            stop_now()
        except KeyboardInterrupt:
            seen.append("as always")

    held.run_cell(cell)
    stop_now()
    assert (["as always"], True) == (seen, held.stopped)


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.SIG_DFL])
def test_a_process_that_takes_no_stops_is_left_alone(handler):
    before = signal.signal(signal.SIGINT, handler)
    try:
        HeldStop().hold()
        assert handler == signal.getsignal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_in_another_thread_nothing_is_held_back(default_handler):
    thread = threading.Thread(target=HeldStop().hold)
    thread.start()
    thread.join()
    assert signal.default_int_handler == signal.getsignal(signal.SIGINT)
