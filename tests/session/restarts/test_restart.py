"""A restart: its checklist, its plan, and the code that the new kernel runs first."""

import os
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from tf_mem_magic.core.facts import DeviceFacts, Facts
from tf_mem_magic.core.lineage import Lineage
from tf_mem_magic.core.outcome import Outcome
from tf_mem_magic.core.proposals import Proposal
from tf_mem_magic.core.recording import Cell, Recording, Series
from tf_mem_magic.session.clicks import PanelActions
from tf_mem_magic.session.restarts import plans, restart
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


def a_run(ran=(), raw=("",), cell_id="this"):
    shell = SimpleNamespace(history_manager=SimpleNamespace(input_hist_raw=list(raw)), user_ns={}, kernel=object())
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
    assert ["x = 1"] == [r.cell.source for r in restart.make_plan(run, GROW).replay]


def test_where_the_plan_cannot_be_kept_the_prologue_still_works_and_says_so(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TFMEM_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setenv("TF_FORCE_GPU_ALLOW_GROWTH", "")
    exec(restart.prepare_restart(a_run(), GROW).prologue, {})
    assert "true" == os.environ["TF_FORCE_GPU_ALLOW_GROWTH"]
    assert "could not be kept" in capsys.readouterr().out


def kept():
    """Give the notebook's plan as another process finds it."""
    (path,) = plans.cache_folder().joinpath("plans").iterdir()
    plan = plans.decode(path.read_bytes(), plans.Plan)
    assert plans.Owner("another kernel", "notebooks/a.ipynb", os.getcwd()).owns(plan)
    return plan


def test_a_restart_is_prepared_with_a_plan():
    ordered = restart.prepare_restart(a_run(), GROW)
    plan = kept()
    assert (GROW, Lineage((OUTCOME,)), True, "this", os.getpid()) == (
        plan.proposal,
        plan.lineage,
        ordered.prologue.startswith(plan.prologue),
        plan.cell_id,
        plan.pid,
    )


def test_the_plan_keeps_the_ticks_that_the_person_left():
    ran = (RanCell("x = 1", "a", 1, 0.1), RanCell("y = 1", "b", 2, 0.1))
    actions = PanelActions(a_run(ran, ("", "x = 1", "y = 1")))
    actions.checklist(GROW, (NotebookCell("a", "x = 1", 1), NotebookCell("b", "y = 1", 2)))
    actions.prepare_restart(GROW, ("b",))
    assert [("a", False), ("b", True)] == [(r.cell.cell_id, r.ticked) for r in kept().replay]


def test_a_restart_that_a_person_makes_is_planned_and_said_in_one_line():
    words = restart.plan_restart(a_run(), GROW)
    assert "\n" not in words
    assert words.endswith("run %load_ext tf_mem_magic and %tfmem resume.")
    assert GROW == kept().proposal


def test_where_the_page_cannot_restart_it_says_the_same_line_and_why_nothing_could_be_kept(tmp_path, monkeypatch):
    run = a_run()
    assert restart.plan_restart(run, GROW) == PanelActions(run).plan_restart(GROW)
    assert GROW == kept().proposal
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TFMEM_CACHE", str(tmp_path / "file" / "cache"))
    told = PanelActions(run).plan_restart(GROW)
    assert ("could not be kept" in told, "%tfmem resume" in told) == (True, False)


def test_where_the_notebook_has_no_name_the_line_names_the_plan(monkeypatch):
    monkeypatch.delenv("JPY_SESSION_NAME")
    monkeypatch.setattr(plans, "_of_command_line", lambda: "")
    words = restart.plan_restart(a_run(), GROW)
    (path,) = plans.cache_folder().joinpath("plans").iterdir()
    assert words.endswith(f"%tfmem resume {plans.decode(path.read_bytes(), plans.Plan).name}.")


def test_the_prologue_sets_the_environment_and_leaves_no_name(monkeypatch):
    monkeypatch.setenv("TF_FORCE_GPU_ALLOW_GROWTH", "false")
    namespace = {}
    exec(restart.prologue_for(GROW, "x" * 32), namespace)
    assert "true" == os.environ["TF_FORCE_GPU_ALLOW_GROWTH"]
    assert ["__builtins__"] == list(namespace)


def test_the_prologue_brings_back_what_the_users_cells_had_set():
    code = (
        "import os\n"
        "os.environ.update(TF_GPU_ALLOCATOR='x', XLA_FLAGS='--a \"b\"', HOME_MADE='1', TF_BFC_MEMORY_DUMP='/tmp/d')\n"
        "from tf_mem_magic.session.restarts.restart import changed_environment\n"
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


def test_a_plan_replays_each_cell_that_ran_once_and_not_this_one():
    ran = (
        RanCell("x = 1", "a", 1, 0.1),
        RanCell("x = 2", "a", 2, 0.2),
        RanCell("y = 1", "b", 3, 0.1),
        RanCell("%%tfmem\nmodel.fit(x)", "this", 4, 9.0),
    )
    plan = restart.make_plan(a_run(ran, ("", "x = 1", "x = 2", "y = 1")), GROW)
    assert [("a", "x = 2"), ("b", "y = 1")] == [(r.cell.cell_id, r.cell.source) for r in plan.replay]


def test_a_plan_replays_what_ran_before_the_extension_was_loaded():
    plan = restart.make_plan(a_run((RanCell("y = 1", "b", 2, 0.1),), ("", "import os", "y = 1")), GROW)
    assert ["import os", "y = 1"] == [r.cell.source for r in plan.replay]


def test_what_failed_is_listed_and_not_ticked():
    ran = (RanCell("y = 1", "b", 2, 0.1, succeeded=False), RanCell("z = 1", "c", 3, 0.1))
    run = a_run(ran, ("", "1 / 0", "y = 1", "z = 1"))
    run.host.shell.history_manager.exceptions = {1: ["ZeroDivisionError"], 2: ["ValueError"]}
    expected = [("1 / 0", False), ("y = 1", False), ("z = 1", True)]
    assert expected == [(r.cell.source, r.ticked) for r in restart.make_plan(run, GROW).replay]
    page = (NotebookCell("a", "1 / 0", 1), NotebookCell("b", "y = 1", 2), NotebookCell("c", "z = 1", 3))
    assert expected == [(r.cell.source, r.ticked) for r in restart.checklist(run, page)]


def test_the_checklist_has_the_pages_cells_that_ran_but_this_one():
    ran = (RanCell("x = 1", "a", 2, 0.1),)
    page = (
        NotebookCell("i", "import os", 1),
        NotebookCell("a", "x = 1", 2),
        NotebookCell("n", "z = 1", None),
        NotebookCell("this", "%%tfmem\nmodel.fit(x)", 3),
    )
    found = PanelActions(a_run(ran, ("", "import os", "x = 1"))).checklist(GROW, page)
    assert (ReplayCell("i", "import os", True, None, ()), ReplayCell("a", "x = 1", True, 0.1, ())) == found


def test_counts_of_an_earlier_kernel_are_not_taken_for_this_ones():
    assert () == restart.checklist(a_run((), ("", "import os")), (NotebookCell("a", "x = 1", 1),))


LATE = {
    "imported": {"tensorflow": SimpleNamespace()},
    "set up": {"tensorflow.python.eager.context": SimpleNamespace(_context=SimpleNamespace(_initialized=True))},
}


@pytest.mark.parametrize("how", LATE)
def test_a_prologue_that_comes_too_late_sets_nothing_and_says_so(how, monkeypatch):
    monkeypatch.setenv("TF_FORCE_GPU_ALLOW_GROWTH", "false")
    for name, module in LATE[how].items():
        monkeypatch.setitem(sys.modules, name, module)
    namespace = {}
    with pytest.raises(RuntimeError, match=r"TensorFlow (is already imported|has already set up)"):
        exec(restart.prologue_for(GROW, "x" * 32), namespace)
    assert ("false", ["__builtins__"]) == (os.environ["TF_FORCE_GPU_ALLOW_GROWTH"], list(namespace))


GROWS, STAYS = DeviceFacts("GPU:0", growth=True), DeviceFacts("GPU:0", growth=False)
SET = {"TF_FORCE_GPU_ALLOW_GROWTH": "true"}


@pytest.mark.parametrize(
    ("environ", "devices", "told"),
    [
        (SET, (GROWS,), ""),
        (SET, (GROWS, STAYS), "memory growth is not on"),
        (SET, (), "memory growth is not on"),
        ({}, (GROWS,), "TF_FORCE_GPU_ALLOW_GROWTH is not true"),
    ],
)
def test_what_a_restart_has_set_is_read_back(environ, devices, told):
    assert restart.why_not_set(GROW, Facts(devices=devices), environ).startswith(told)
    assert bool(told) == bool(restart.why_not_set(GROW, Facts(devices=devices), environ))


def test_a_limit_is_read_back_too():
    limit = replace(GROW, key="device-limit", environment=())
    assert "" == restart.why_not_set(limit, Facts(devices=(replace(STAYS, logical=True),)), {})
    assert "no device has a memory limit" in restart.why_not_set(limit, Facts(devices=(STAYS,)), {})


@pytest.mark.parametrize(
    ("key", "variable", "value"),
    [("async-allocator", "TF_GPU_ALLOCATOR", "cuda_malloc_async"), ("other-gpu", "CUDA_VISIBLE_DEVICES", "1")],
)
def test_a_variable_that_a_cell_has_changed_is_told(key, variable, value):
    chosen = replace(GROW, key=key, environment=((variable, value),))
    assert "" == restart.why_not_set(chosen, Facts(), {variable: value})
    for environ in ({}, {variable: ""}, {variable: "0"}):
        assert f"{variable} is not {value} in this kernel" == restart.why_not_set(chosen, Facts(), environ)
        assert restart.unset_variable(chosen, environ) == restart.why_not_set(chosen, Facts(), environ)


def test_every_setting_of_several_is_read_back():
    both = replace(GROW, key="memory-growth+device-limit", environment=())
    set_ = DeviceFacts("GPU:0", growth=True, logical=True)
    assert "" == restart.why_not_set(both, Facts(devices=(set_,)), {})
    assert "no device has a memory limit" in restart.why_not_set(both, Facts(devices=(GROWS,)), {})
