"""A replay as its kernel sees it: what has run, and which page may run the next cell."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tf_mem_magic.session.restarts import replaying as module
from tf_mem_magic.session.restarts.at_work import replaying_of
from tf_mem_magic.session.restarts.replaying import begin_code, replace_by
from tf_mem_magic.views.replay import Order, Step

STEPS = (Step("a", "x = 1", "x = 1"), Step("b", "y = 2", "y = 2"), Step("last", "%%tfmem\nfit()", "fit()"))
ORDER = Order("plan-1", "Restart with it", "async-allocator", STEPS, STEPS[-1].source, STEPS[-1].source, "page-1")


class Shell:
    """A shell with hooks, in which the test plays the cells."""

    def __init__(self) -> None:
        self.hooks = {"pre_run_cell": [], "post_run_cell": []}
        self.events = self
        self.user_ns = {}
        self.ast_transformers = []

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


def is_refused(shell, replay, **tfmem):
    """Tell whether a page's request is refused; leave the shell as after that cell."""
    info = shell.begin("x = 1", "a", replay="plan-1", **tfmem)
    refused = bool(shell.ast_transformers)
    assert refused == replay.refuses(info)
    shell.end(info, not refused)
    assert [] == shell.ast_transformers
    return refused


def test_a_page_that_stalled_runs_nothing_once_another_has_taken_over(shell, replay, monkeypatch):
    quiet(replay, monkeypatch)
    take(replay, "page-2")
    assert is_refused(shell, replay, step=0, page="page-1")
    assert ([], -1, "replaying") == (replay.model.done, replay.model.running, replay.state)
    assert not is_refused(shell, replay, step=0, page="page-2")
    assert [0] == replay.model.done


def test_a_page_runs_no_cell_twice_and_none_after_a_stop(shell, replay):
    assert not is_refused(shell, replay, step=0, page="page-1")
    assert is_refused(shell, replay, step=0, page="page-1")
    shell.run("y = 2", "b", success=False)
    assert is_refused(shell, replay, step=1, page="page-1")


def test_what_a_person_runs_is_never_refused(shell, replay):
    shell.run("x = 1", "a")
    info = shell.begin("x = 1", "a")
    assert ([], False) == (shell.ast_transformers, replay.refuses(info))
    shell.end(info)


def test_a_refused_cell_ends_with_one_sentence_and_runs_nothing():
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    replay = replace_by(shell, ORDER, "replaying")
    replay.refuses = lambda info: replay._refusal.install() or True
    result = shell.run_cell("ran_late = 1")
    replay.close()
    assert "ran_late" not in shell.user_ns
    assert ["Another page has gone on with the replay meanwhile: nothing was run here."] == (
        result.error_in_exec._render_traceback_()
    )


def test_a_done_cell_that_fails_when_it_runs_again_is_not_done(shell, replay):
    shell.run("x = 1", "a")
    shell.run("y = 2", "b")
    shell.run("x = 1 / 0", "a", success=False)
    assert ([1], 0, "stopped") == (replay.model.done, replay.model.failed, replay.state)


def test_a_plan_that_was_given_up_goes_on_in_no_page(shell, replay):
    shell.run("x = 1", "a", success=False)
    replay.drop()
    take(replay, "page-1", again=True)
    shell.run("x = 1", "a")
    assert ("dropped", [], -1) == (replay.state, replay.model.done, replay.model.failed)
    assert is_refused(shell, replay, step=1, page="page-1")


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


def test_later_the_page_tells_only_what_has_changed(replay):
    replay._on_message({"op": "cells", "page": "page-1", "cells": {"a": "1", "b": "2"}, "gone": [], "whole": True})
    replay._on_message({"op": "cells", "page": "page-1", "cells": {"c": "3"}, "gone": ["a"], "whole": False})
    assert {"b": "2", "c": "3"} == replay.page_cells
    replay._on_message({"op": "cells", "page": "page-2", "cells": {"b": "5"}, "gone": [], "whole": True})
    assert {"b": "5"} == replay.page_cells


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


def test_where_a_person_has_run_them_all_a_refused_resume_stops_at_the_last(shell):
    planned = replace_by(shell, ORDER, "planned")
    for step in STEPS:
        shell.run(step.source, step.id)
    planned.resuming()
    planned.stopped()
    assert ("stopped", 2, [0, 1, 2]) == (planned.state, planned.model.failed, planned.model.done)
    planned.close()
