"""One alarm at a time."""

from __future__ import annotations

import threading

from tf_mem_magic.views.alarm import Alarm


def test_what_is_set_last_is_called_and_what_was_set_before_is_not():
    called, rang = [], threading.Event()
    alarm = Alarm()
    alarm.set(0.05, lambda: called.append("first"))
    alarm.set(0.1, lambda: (called.append("second"), rang.set()))
    assert (rang.wait(10), called) == (True, ["second"])


def test_a_cancelled_alarm_calls_nothing():
    rang = threading.Event()
    alarm = Alarm()
    alarm.set(0.05, rang.set)
    alarm.cancel()
    alarm.cancel()
    assert not rang.wait(0.3)
