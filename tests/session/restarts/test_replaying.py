"""A replay as its kernel sees it: what has run, and which page may run the next cell."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tf_mem_magic.session.restarts import replaying as module
from tf_mem_magic.session.restarts.replaying import begin_code, replace_by, replaying_of
from tf_mem_magic.views.replay import Order, Step

STEPS = (Step("a", "x = 1", "x = 1"), Step("b", "y = 2", "y = 2"), Step("last", "%%tfmem\nfit()", "fit()"))
ORDER = Order("plan-1", "Restart with it", "async-allocator", STEPS, STEPS[-1].source, STEPS[-1].source, "page-1")


class Shell:
    """A shell with hooks, in which the test plays the cells."""

    def __init__(self) -> None:
        self.hooks = {"pre_run_cell": [], "post_run_cell": []}
        self.events = self
        self.user_ns = {}

    def register(self, event, hook):
        self.hooks[event].append(hook)

    def unregister(self, event, hook):
        self.hooks[event].remove(hook)

    def begin(self, source, cell_id=None, **tfmem):
        info = SimpleNamespace(raw_cell=source, cell_id=cell_id, cell_meta={"tfmem": tfmem} if tfmem else None)
        for hook in list(self.hooks["pre_run_cell"]):
            hook(info)
        return info

    def end(self, info, success=True):
        for hook in list(self.hooks["post_run_cell"]):
            hook(SimpleNamespace(info=info, success=success))

    def run(self, source, cell_id=None, success=True, **tfmem):
        self.end(self.begin(source, cell_id, **tfmem), success)


@pytest.fixture
def shell():
    return Shell()


@pytest.fixture
def replay(shell):
    made = replace_by(shell, ORDER, "replaying")
    yield made
    made.close()


def quiet(replay, monkeypatch):
    monkeypatch.setattr(module, "QUIET", 0.0)


def test_an_order_survives_the_way_into_the_next_kernel():
    assert ORDER == Order.from_json(ORDER.to_json())
    assert begin_code(ORDER).startswith("__import__('tf_mem_magic.session.restarts.replaying'")
    exec(begin_code(ORDER), {})  # outside a shell it does nothing


def test_a_shell_has_one_replay(shell, replay):
    assert replay is replaying_of(shell)
    assert replay is replaying_of(shell, "plan-1")
    assert replaying_of(shell, "another") is None
    other = replace_by(shell, Order("plan-2", "t", "k", STEPS, "", ""), "planned")
    assert (other, 1) == (replaying_of(shell), len(shell.hooks["pre_run_cell"]))
    other.close()


def test_cells_count_by_the_pages_word_and_by_their_ids(shell, replay):
    shell.run("x = 1", None, replay="plan-1", step=0, page="page-1")
    assert ([0], -1, "replaying") == (replay.model.done, replay.model.running, replay.state)
    info = shell.begin("y = 3", "b")
    assert 1 == replay.model.running
    shell.run("inner()", None)
    assert 1 == replay.model.running
    shell.end(info)
    assert [0, 1] == replay.model.done
    shell.run("fit()", "last")
    assert "done" == replay.state


def test_other_cells_do_not_count(shell, replay):
    shell.run("z", "other")
    shell.run("x = 1", None, replay="another plan", step=0)
    assert ([], []) == (replay.model.done, replay.model.tried)


def test_a_cell_that_fails_stops_it_and_one_run_by_hand_moves_the_place(shell, replay):
    shell.run("x = 1", "a", success=False)
    assert (0, "stopped", [0]) == (replay.model.failed, replay.state, replay.model.tried)
    shell.run("x = 2", "a")
    assert (1, "stopped", [0]) == (replay.model.failed, replay.state, replay.model.done)


def take(replay, page, **more):
    replay._on_message({"op": "take", "page": page, **more})
    return replay.model.driver


def test_no_page_takes_over_while_another_runs_the_cells(shell, replay, monkeypatch):
    assert "page-1" == take(replay, "page-2")
    quiet(replay, monkeypatch)
    info = shell.begin("x = 1", "a")
    assert "page-1" == take(replay, "page-2")
    shell.end(info)
    assert "page-2" == take(replay, "page-2")


def test_a_page_that_says_that_it_leaves_is_followed_at_once(replay):
    replay._on_message({"op": "left", "page": "page-9"})
    assert "page-1" == take(replay, "page-2")
    replay._on_message({"op": "left", "page": "page-1"})
    assert "page-2" == take(replay, "page-2")
    assert "page-2" == take(replay, "page-3")


def test_after_a_stop_only_a_person_goes_on(shell, replay, monkeypatch):
    quiet(replay, monkeypatch)
    shell.run("x = 1", "a", success=False)
    assert "page-1" == take(replay, "page-2")
    assert "page-2" == take(replay, "page-2", again=True)
    assert (-1, "replaying") == (replay.model.failed, replay.state)


def test_a_page_that_cannot_go_on_says_why(replay):
    replay._on_message({"op": "stuck", "page": "page-2", "step": 1, "reason": "not mine"})
    assert "replaying" == replay.state
    replay._on_message({"op": "stuck", "page": "page-1", "step": 1, "reason": "The cell is gone."})
    assert ("stopped", 1, "The cell is gone.") == (replay.state, replay.model.failed, replay.model.reason)


def test_the_page_tells_what_its_cells_are_now(replay):
    assert replay.page_cells is None
    replay._on_message({"op": "cells", "page": "page-1", "cells": {"a": "x = 5"}})
    assert {"a": "x = 5"} == replay.page_cells


def test_resume_is_told_apart_from_a_page(shell, replay, monkeypatch):
    assert replay.is_driven
    quiet(replay, monkeypatch)
    assert not replay.is_driven
    replay.resuming()
    replay.began(1)
    assert ("resuming", [1]) == (replay.state, replay.model.resumed)
    replay.ended(1, False)
    assert ("stopped", 1) == (replay.state, replay.model.failed)
    replay.resuming()
    replay.stopped()
    assert ("stopped", 0) == (replay.state, replay.model.failed)


def test_what_a_person_runs_before_anybody_resumes_is_only_noted(shell):
    planned = replace_by(shell, ORDER, "planned")
    shell.run("x = 1", "a")
    shell.run("y = 2", "b", success=False)
    shell.run("fit()", "last")
    assert ("planned", [0, 2], -1) == (planned.state, planned.model.done, planned.model.failed)
    planned.close()
