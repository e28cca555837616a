"""Plans of restarts on disk: whose they are, and what becomes of one that cannot be used."""

from __future__ import annotations

import os
import stat
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from tf_mem_magic.core.lineage import Lineage
from tf_mem_magic.core.outcome import Outcome
from tf_mem_magic.core.proposals import Proposal
from tf_mem_magic.core.recording import Cell, Recording
from tf_mem_magic.notebook.rerun.replay import EarlierCell, Replay
from tf_mem_magic.session.restarts import plans
from tf_mem_magic.session.restarts.plans import (
    Owner,
    Plan,
    PlanError,
    drop_plan,
    find_plans,
    get_plan,
    save_plan,
    this_notebook,
)

CELL = "%%tfmem\nmodel.fit(x)"
GROW = Proposal("memory-growth", "Restart with memory growth", CELL, CELL, "same results", takes_effect="restart")
MINE = Owner("kernel-1", "notebooks/a.ipynb", "/home/me")


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TFMEM_CACHE", str(tmp_path / "cache"))


def a_plan(identity="a" * 32, owner=MINE, **changes):
    replay = (Replay(EarlierCell("c1", "x = 1", 1, 0.1, "x = 1"), True), Replay(EarlierCell("c2", "input()"), False))
    lineage = Lineage((Outcome(Recording(Cell(CELL), 1.5, (), "oom")),))
    made = Plan(identity, GROW, lineage, "import os\n", replay, "c3", owner, os.getpid() + 1, time.time())
    return replace(made, **changes)


def test_a_plan_comes_back_as_it_was_kept():
    plan = a_plan()
    save_plan(plan)
    assert (plan, plan) == (find_plans(MINE).plan, get_plan(plan.identity))


def test_a_plan_can_be_called_by_its_name():
    save_plan(a_plan())
    assert "a" * 32 == get_plan("memory-growth-aaaa").identity


def test_only_the_user_can_read_it():
    assert 0o600 == stat.S_IMODE(save_plan(a_plan()).stat().st_mode)


def test_a_new_plan_of_the_notebook_takes_the_place_of_the_last():
    save_plan(a_plan())
    path = save_plan(a_plan("b" * 32))
    assert [path] == list(path.parent.iterdir())


def test_plans_of_other_notebooks_stay():
    save_plan(a_plan())
    path = save_plan(a_plan("b" * 32, Owner("kernel-2", "notebooks/b.ipynb", "/home/me")))
    assert 2 == len(list(path.parent.iterdir()))


@pytest.mark.parametrize(
    "me",
    [
        Owner("kernel-1", "notebooks/renamed.ipynb", "/home/me"),
        Owner("kernel-1", "", "/home/other"),
        Owner("kernel-9", "notebooks/a.ipynb", "/home/me"),
    ],
    ids=["renamed, same kernel", "same kernel", "same notebook, new kernel"],
)
def test_a_notebook_is_known_by_its_kernel_and_by_its_name(me):
    save_plan(a_plan())
    assert a_plan().identity == find_plans(me).plan.identity


@pytest.mark.parametrize(
    "me", [Owner("kernel-2", "notebooks/b.ipynb", "/home/me"), Owner("kernel-2", "", "/home/me")], ids=["named", "not"]
)
def test_another_notebook_of_the_folder_finds_nothing_of_a_named_one(me):
    save_plan(a_plan())
    found = find_plans(me)
    assert (None, (), "") == (found.plan, found.others, found.problem)


def test_without_names_a_plan_of_the_folder_is_only_offered():
    save_plan(a_plan(owner=Owner("kernel-1", "", "/home/me")))
    found = find_plans(Owner("kernel-2", "", "/home/me"))
    assert (None, ["memory-growth-aaaa"]) == (found.plan, [plan.name for plan in found.others])
    assert () == find_plans(Owner("kernel-2", "", "/home/other")).others


def test_the_plan_of_a_notebook_that_is_gone_is_offered_in_its_folder_and_used_by_its_kernel_alone(tmp_path):
    gone = str(tmp_path / "gone.ipynb")
    save_plan(a_plan(owner=Owner("kernel-1", gone, str(tmp_path))))
    renamed = find_plans(Owner("kernel-2", str(tmp_path / "new.ipynb"), str(tmp_path)))
    assert (None, ["memory-growth-aaaa"], "") == (renamed.plan, [p.name for p in renamed.others], renamed.problem)
    assert "gone.ipynb, which is gone" in renamed.others[0].described
    same = find_plans(Owner("kernel-2", gone, str(tmp_path)))
    assert (None, (), True) == (same.plan, same.others, "the notebook of a planned restart is gone" in same.problem)
    assert find_plans(Owner("kernel-1", "", "")).plan is not None


def test_where_a_name_is_no_path_nobody_says_that_it_is_gone():
    assert not Owner("k", "notebooks/a.ipynb", "/home/me").is_gone
    assert not Owner("k", "/no/such/folder/a.ipynb", "/home/me").is_gone
    assert not Owner("k", "terminal in /home/me", "/home/me").is_gone


def test_a_plan_of_this_very_process_is_not_for_it():
    save_plan(a_plan(pid=os.getpid()))
    assert find_plans(MINE).plan is None


def test_a_new_process_with_the_old_ones_id_takes_the_plan():
    save_plan(a_plan(pid=os.getpid(), time=plans._began() - 60))
    assert find_plans(MINE).plan is not None


BAD = {
    "damaged": lambda data: data[:100],
    "empty": lambda data: b"",
    "newer": lambda data: data.replace(b'"schema": 1', b'"schema": 99'),
    "of an older version": lambda data: data.replace(b'"identity"', b'"other"'),
    "something else": lambda data: b"[1, 2]",
}


@pytest.mark.parametrize("what", BAD)
def test_a_plan_that_cannot_be_read_is_one_sentence_and_gone(what):
    path = save_plan(a_plan())
    path.write_bytes(BAD[what](path.read_bytes()))
    found = find_plans(MINE)
    assert (None, True, False) == (
        found.plan,
        found.problem.startswith("the plan of a restart was dropped"),
        path.exists(),
    )
    assert "" == find_plans(MINE).problem


def test_a_strangers_damaged_plan_is_none_of_our_concern():
    path = save_plan(a_plan(owner=Owner("kernel-2", "b.ipynb", "/home/me")))
    path.write_bytes(b"")
    assert ("", True) == (find_plans(MINE).problem, path.exists())


def test_a_plan_older_than_a_day_is_one_sentence_and_gone():
    path = save_plan(a_plan())
    found = find_plans(MINE, time.time() + 25 * 3600)
    assert (None, True, False) == (found.plan, "older than a day" in found.problem, path.exists())


def test_a_plan_that_is_done_is_gone():
    save_plan(a_plan())
    drop_plan(a_plan().identity)
    drop_plan(a_plan().identity)
    assert find_plans(MINE).plan is None


def test_a_folder_that_cannot_be_made_gives_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TFMEM_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(PlanError) as caught:
        save_plan(a_plan())
    sentence = "The plan of the restart could not be kept (Not a directory), so the new kernel will not know it. "
    assert sentence + "Set TFMEM_CACHE to a folder that can be written." == str(caught.value)


def test_a_kernel_is_known_by_its_connection_file():
    kernel = SimpleNamespace(parent=SimpleNamespace(connection_file="/run/kernel-4711.json"))
    me = this_notebook(SimpleNamespace(kernel=kernel, user_ns={}), {"JPY_SESSION_NAME": "a.ipynb"})
    assert Owner("kernel-4711", "a.ipynb", os.getcwd()) == me


def test_the_notebook_that_a_servers_command_line_names_is_not_taken_for_each_that_it_runs(monkeypatch):
    monkeypatch.setattr(plans, "_of_command_line", lambda: "/home/me/a.ipynb")
    parent = SimpleNamespace(connection_file="/run/kernel-1.json")
    names = [
        this_notebook(SimpleNamespace(kernel=SimpleNamespace(parent=parent, _allow_stdin=attended), user_ns={}), {})
        for attended in (True, False)
    ]
    assert ["", "/home/me/a.ipynb"] == [me.notebook for me in names]


def test_a_terminal_is_known_by_its_process():
    me = this_notebook(SimpleNamespace(user_ns={}), {})
    assert (True, "", os.getcwd()) == (me.kernel.startswith(f"process-{os.getpid()}-"), me.notebook, me.folder)


def test_a_terminals_plan_is_offered_to_another_in_its_folder_and_replaces_none_of_it():
    mine, theirs = Owner("process-1-1.0", "", "/home/me"), Owner("process-2-2.0", "", "/home/me")
    save_plan(a_plan(owner=mine))
    save_plan(a_plan("b" * 32, owner=theirs))
    found = find_plans(Owner("process-3-3.0", "", "/home/me"))
    assert (None, {"memory-growth-aaaa", "memory-growth-bbbb"}) == (found.plan, {plan.name for plan in found.others})
    assert a_plan().identity == find_plans(mine).plan.identity


def test_notebooks_of_one_name_in_two_folders_have_their_own_plans():
    here, there = Owner("kernel-1", "Untitled.ipynb", "/home/me/a"), Owner("kernel-2", "Untitled.ipynb", "/home/me/b")
    save_plan(a_plan(owner=here))
    save_plan(a_plan("b" * 32, owner=there))
    found = find_plans(replace(here, kernel="kernel-9"))
    assert ("a" * 32, ["b" * 32]) == (found.plan.identity, [plan.identity for plan in found.others])
