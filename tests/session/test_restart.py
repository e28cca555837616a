"""The plan of a restart on disk, and what the new kernel does with it."""

import os
import stat
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from tf_mem_magic.core.lineage import Lineage
from tf_mem_magic.core.outcome import Outcome
from tf_mem_magic.core.proposals import Proposal
from tf_mem_magic.core.recording import Cell, Recording, Series
from tf_mem_magic.notebook.replay import EarlierCell, Replay
from tf_mem_magic.session import restart as plans
from tf_mem_magic.session.restart import Plan, PlanError
from tf_mem_magic.session.state import RanCell, Run
from tf_mem_magic.views.actions import NotebookCell, ReplayCell

GROW = Proposal(
    "memory-growth",
    "Restart with memory growth",
    "%%tfmem\nmodel.fit(x)",
    "%%tfmem\nmodel.fit(x)",
    "same results",
    takes_effect="restart",
    environment=(("TF_FORCE_GPU_ALLOW_GROWTH", "true"),),
    prologue="import math\nnumber = math.pi",
)
OUTCOME = Outcome(
    Recording(Cell("%%tfmem\nmodel.fit(x)"), 1.5, (Series("allocator:GPU:0", (0.0, 1.0), (1, 2), 3, "counter"),), "oom")
)


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TFMEM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("JPY_SESSION_NAME", "notebooks/a.ipynb")


def a_plan(**changes):
    replay = (Replay(EarlierCell("c1", "x = 1", 1, 0.1, "x = 1"), True), Replay(EarlierCell("c2", "input()"), False))
    made = Plan(GROW, Lineage((OUTCOME,)), "import os\n", replay, "c3", pid=os.getpid() + 1, time=time.time())
    return replace(made, **changes)


def a_run(ran=(), raw=("",), cell_id="this"):
    shell = SimpleNamespace(history_manager=SimpleNamespace(input_hist_raw=list(raw)))
    cell = Cell("%%tfmem\nmodel.fit(x)", cell_id)
    host = SimpleNamespace(ran_cells=ran, shell=shell)
    return SimpleNamespace(host=host, run=Run(cell, Lineage((OUTCOME,))), report=None)


def test_a_cell_that_the_page_does_not_name_is_not_replayed_before_itself_nor_what_ran_after_it():
    ran = (
        RanCell("x = 1", None, 1, 0.1),
        RanCell("%%tfmem\nmodel.fit(x)", None, 2, 0.1),
        RanCell("print(x)", None, 3, 0.1),
    )
    run = a_run(ran, ("", *(cell.source for cell in ran)), cell_id=None)
    run.report = SimpleNamespace(recording=SimpleNamespace(cell=SimpleNamespace(execution_count=2)))
    assert ["x = 1"] == [r.cell.source for r in plans.make_plan(run, GROW).replay]


def test_a_plan_comes_back_as_it_was_kept():
    plan = a_plan()
    plans.save_plan(plan)
    assert plan == plans.load_plan()


def test_only_the_user_can_read_it():
    assert 0o600 == stat.S_IMODE(plans.save_plan(a_plan()).stat().st_mode)


def test_nothing_else_stays_in_the_folder():
    path = plans.save_plan(a_plan())
    plans.save_plan(a_plan(cell_id="c4"))
    assert [path] == list(path.parent.iterdir())


def test_another_notebook_has_another_plan(monkeypatch):
    plans.save_plan(a_plan())
    monkeypatch.setenv("JPY_SESSION_NAME", "notebooks/b.ipynb")
    assert plans.load_plan() is None


def test_without_a_session_name_the_folder_is_the_key(tmp_path, monkeypatch):
    monkeypatch.delenv("JPY_SESSION_NAME")
    monkeypatch.chdir(tmp_path)
    plans.save_plan(a_plan())
    assert plans.load_plan() is not None
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert plans.load_plan() is None


def test_a_plan_of_this_very_kernel_is_not_for_it():
    plans.save_plan(a_plan(pid=os.getpid()))
    assert plans.load_plan() is None


def test_a_new_kernel_with_the_old_process_id_takes_the_plan():
    plans.save_plan(a_plan(pid=os.getpid(), time=time.time() - 3 * 3600))
    started_later = plans._started() > time.time() - 3 * 3600
    assert started_later == (plans.load_plan() is not None)


def test_a_plan_older_than_a_day_is_ignored():
    plans.save_plan(a_plan())
    assert plans.load_plan(time.time() + 25 * 3600) is None


def test_a_forgotten_plan_is_gone():
    plans.save_plan(a_plan())
    plans.clear_plan()
    assert plans.load_plan() is None


def test_forgetting_twice_is_harmless():
    plans.clear_plan()
    plans.clear_plan()


def test_a_damaged_plan_is_ignored():
    path = plans.save_plan(a_plan())
    path.write_bytes(path.read_bytes()[:100])
    assert plans.load_plan() is None


def test_a_plan_of_a_newer_version_is_ignored():
    path = plans.save_plan(a_plan(schema=999))
    assert path.exists()
    assert plans.load_plan() is None


def test_a_folder_that_cannot_be_made_gives_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TFMEM_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(PlanError) as caught:
        plans.save_plan(a_plan())
    sentence = "The plan of the restart could not be kept (Not a directory), so the new kernel will not know it. "
    assert sentence + "Set TFMEM_CACHE to a folder that can be written." == str(caught.value)


def test_where_the_plan_cannot_be_kept_the_prologue_still_works_and_says_so(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TFMEM_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setenv("TF_FORCE_GPU_ALLOW_GROWTH", "")
    exec(plans.prepare_restart(a_run(), GROW), {})
    assert "true" == os.environ["TF_FORCE_GPU_ALLOW_GROWTH"]
    assert "could not be kept" in capsys.readouterr().out


def test_a_restart_is_prepared_with_a_plan():
    prologue = plans.prepare_restart(a_run(), GROW)
    kept = plans.decode(plans.plan_path().read_bytes(), Plan)
    assert (GROW, Lineage((OUTCOME,)), prologue, "this", os.getpid()) == (
        kept.proposal,
        kept.lineage,
        kept.prologue,
        kept.cell_id,
        kept.pid,
    )


def test_the_prologue_sets_the_environment_and_leaves_no_name(monkeypatch):
    monkeypatch.setenv("TF_FORCE_GPU_ALLOW_GROWTH", "false")
    namespace = {}
    exec(plans.prologue_for(GROW), namespace)
    assert "true" == os.environ["TF_FORCE_GPU_ALLOW_GROWTH"]
    assert ["__builtins__"] == list(namespace)


def test_the_prologue_brings_back_what_the_users_cells_had_set():
    code = (
        "import os\n"
        "os.environ.update(TF_GPU_ALLOCATOR='x', XLA_FLAGS='--a \"b\"', HOME_MADE='1', TF_BFC_MEMORY_DUMP='/tmp/d')\n"
        "from tf_mem_magic.session.restart import changed_environment\n"
        "print(changed_environment())"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "TF_STARTED_WITH": "1"}
    for name in ("TF_GPU_ALLOCATOR", "XLA_FLAGS"):
        env.pop(name, None)
    out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    expected = {"TF_GPU_ALLOCATOR": "x", "XLA_FLAGS": '--a "b"'}
    if not os.path.exists("/proc/self/environ"):
        expected["TF_STARTED_WITH"] = "1"
    assert expected == {k: v for k, v in eval(out).items() if k in ("TF_STARTED_WITH", *expected, "TF_BFC_MEMORY_DUMP")}


def test_the_steps_of_a_resume_are_prologue_ticked_cells_and_the_cell():
    assert ("import os\n", "x = 1", GROW.source) == plans.resume_steps(a_plan())


def test_a_plan_replays_each_cell_that_ran_once_and_not_this_one():
    ran = (
        RanCell("x = 1", "a", 1, 0.1),
        RanCell("x = 2", "a", 2, 0.2),
        RanCell("y = 1", "b", 3, 0.1),
        RanCell("%%tfmem\nmodel.fit(x)", "this", 4, 9.0),
    )
    plan = plans.make_plan(a_run(ran, ("", "x = 1", "x = 2", "y = 1")), GROW)
    assert [("a", "x = 2"), ("b", "y = 1")] == [(r.cell.cell_id, r.cell.source) for r in plan.replay]


def test_a_plan_replays_what_ran_before_the_extension_was_loaded():
    plan = plans.make_plan(a_run((RanCell("y = 1", "b", 2, 0.1),), ("", "import os", "y = 1")), GROW)
    assert ["import os", "y = 1"] == [r.cell.source for r in plan.replay]


def test_the_checklist_has_the_pages_cells_but_this_one():
    ran = (RanCell("x = 1", "a", 2, 0.1),)
    page = (
        NotebookCell("i", "import os", 1),
        NotebookCell("a", "x = 1", 2),
        NotebookCell("n", "z = 1", None),
        NotebookCell("this", "%%tfmem\nmodel.fit(x)", 3),
    )
    found = plans.checklist(a_run(ran, ("", "import os", "x = 1")), GROW, page)
    assert (
        ReplayCell("i", "import os", True, None, ()),
        ReplayCell("a", "x = 1", True, 0.1, ()),
        ReplayCell("n", "z = 1", False, None, ("did not run in this kernel",)),
    ) == found


def test_counts_of_an_earlier_kernel_are_not_taken_for_this_ones():
    found = plans.checklist(a_run((), ("", "import os")), GROW, (NotebookCell("a", "x = 1", 1),))
    assert [(False, ("did not run in this kernel",))] == [(c.ticked, c.flags) for c in found]


def test_a_kernel_without_tensorflow_can_resume(monkeypatch):
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    monkeypatch.delitem(sys.modules, "tensorflow.python.eager.context", raising=False)
    assert plans.why_not_resume(a_plan()) is None


def test_a_kernel_that_imported_tensorflow_resumes_too_late(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", SimpleNamespace())
    assert "TensorFlow is already imported" in plans.why_not_resume(a_plan())


def test_a_kernel_whose_devices_are_set_up_resumes_too_late(monkeypatch):
    context = SimpleNamespace(_context=SimpleNamespace(_initialized=True))
    monkeypatch.setitem(sys.modules, "tensorflow.python.eager.context", context)
    assert "already set up its devices" in plans.why_not_resume(a_plan())
