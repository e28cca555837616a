"""``%tfmem resume`` in real kernels: what runs, what is kept, whose plan it is. No TensorFlow is needed for that."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time

import pytest

from tests.kernel import ANSI, ROOT, Kernel
from tests.needs import need

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(600)]

LOAD = "%load_ext tf_mem_magic"
TODAY = time.strftime("%d %b ")
CELLS = {
    "load": LOAD,
    "once": "import os, pathlib\nwith open('ran.txt', 'a') as file:\n    print('once', file=file)",
    "writes": "pathlib.Path('unwanted.txt').write_text('x')",
    "needs": "assert os.path.exists('there.txt'), 'not there'\nprint('needed')",
    "after": "value = 7",
    "last": "%%tfmem\nif 'TF_RESUMED' not in os.environ:\n    raise MemoryError('too big')\nresult = value",
}
PLAN = """from tf_mem_magic.core.proposals import Proposal
from tf_mem_magic.session.clicks import PanelActions
from tf_mem_magic.views.actions import NotebookCell
_live = get_ipython()._tf_mem_magic.session.register.newest
_cell = _live.run.cell.source
_proposal = Proposal("async-allocator", "Restart with it", _cell, _cell, "same results", takes_effect="restart",
                     environment=(("TF_RESUMED", "1"),))
_actions = PanelActions(_live)
_ = _actions.checklist(_proposal, tuple(NotebookCell(*c) for c in {cells!r}))
_prologue = _actions.prepare_restart(_proposal, {ticked!r}).prologue
"""
COMPARED = (
    "(lambda c: c and (c.key, c.status_before, c.status_after))(__import__('tf_mem_magic').last_report().comparison)"
)
TICKED = ("load", "once", "needs", "after")


class Folder:
    """A folder with a notebook in it, its kernels, and the plans in its cache."""

    def __init__(self, path, notebook: str = "mine.ipynb") -> None:
        self.path, self.notebook = path, notebook
        path.mkdir(parents=True, exist_ok=True)
        if notebook:
            self.save()

    def kernel(self, **env: str) -> Kernel:
        named = {"JPY_SESSION_NAME": str(self.path / self.notebook)} if self.notebook else {}
        return Kernel({"TFMEM_CACHE": str(self.path / "cache"), **named, **env}, cwd=str(self.path))

    def has(self, name: str) -> bool:
        return (self.path / name).exists()

    @property
    def plans(self) -> list[str]:
        folder = self.path / "cache" / "plans"
        return os.listdir(folder) if folder.exists() else []

    def ran(self) -> int:
        return (self.path / "ran.txt").read_text().count("once")

    def save(self, leave_out: tuple[str, ...] = (), with_ids: bool = True, **changed: str) -> None:
        """Write the notebook's file, with some cells changed."""
        cells = [
            {
                "cell_type": "code",
                "source": changed.get(name, source).splitlines(keepends=True),
                **({"id": name} if with_ids else {}),
            }
            for name, source in CELLS.items()
            if name not in leave_out
        ]
        (self.path / self.notebook).write_text(json.dumps({"cells": cells}))


def run_out(kernel: Kernel, folder: Folder) -> str:
    """Run the notebook until its last cell runs out of memory, and plan a restart; give the prologue."""
    (folder.path / "there.txt").write_text("")
    for name, source in CELLS.items():
        assert (name == "last") == (kernel.run(source, cell_id=name).status == "error")
    cells = [(name, source, number) for number, (name, source) in enumerate(CELLS.items(), 1)]
    ran = kernel.run(PLAN.format(cells=cells, ticked=TICKED))
    assert ran.status == "ok", ran.errors
    (folder.path / "there.txt").unlink()
    for name in ("ran.txt", "unwanted.txt"):
        (folder.path / name).unlink()
    return kernel.value("_prologue")


@pytest.fixture(scope="module")
def resumed(tmp_path_factory):
    """A plan whose replay stops at a cell, and goes on with it once it is repaired."""
    folder = Folder(tmp_path_factory.mktemp("resumed"))
    with folder.kernel() as kernel:
        run_out(kernel, folder)
    found = {}
    with folder.kernel() as kernel:
        found["told"] = kernel.run(LOAD).out
        stopped = kernel.run("%tfmem resume")
        found["stopped"] = (stopped.status, stopped.err, folder.ran(), len(folder.plans))
        (folder.path / "there.txt").write_text("")
        went_on = kernel.run("%tfmem resume")
        found["went on"] = (went_on.status, went_on.out, folder.ran(), folder.has("unwanted.txt"))
        found["result"] = kernel.value("result")
        found["compared"] = kernel.value(COMPARED)
        found["left"] = folder.plans
        again = kernel.run("%tfmem resume")
        found["again"] = (again.status, again.err)
    with folder.kernel() as kernel:
        found["next"] = kernel.run(LOAD).out
        kernel.run("import os\nvalue = 7")
        kernel.run(CELLS["last"], cell_id="last")
        found["no claim"] = kernel.value(COMPARED)
    return found


def test_the_new_kernel_says_that_a_restart_was_planned(resumed):
    assert "A restart was planned here (Restart with it): %tfmem resume runs its cells.\n" == resumed["told"]


def test_a_replay_that_stops_is_an_error_and_keeps_its_plan(resumed):
    status, words, ran, plans = resumed["stopped"]
    assert ("error", 1, 1) == (status, ran, plans)
    assert "stopped: cell 3 of 5 (assert os.path.exists('there.txt'), 'not there') failed" in words


@pytest.mark.oldest
def test_it_goes_on_with_the_cell_that_failed_and_leaves_unticked_ones_alone(resumed):
    status, words, ran, unwanted = resumed["went on"]
    assert ("ok", 1, False) == (status, ran, unwanted)
    assert "needed" in words
    assert words.endswith("Resumed: Restart with it.\n")
    assert 7 == resumed["result"]


@pytest.mark.oldest
def test_the_runs_are_compared_and_the_plan_is_gone(resumed):
    assert (("async-allocator", "oom", "ok"), []) == (resumed["compared"], resumed["left"])


@pytest.mark.oldest
def test_a_refused_resume_is_an_error_in_one_line(resumed):
    assert (
        "error",
        "%tfmem resume: there is nothing to resume: no remedy of this notebook asked for a restart in the last day\n",
    ) == resumed["again"]


@pytest.mark.oldest
def test_after_its_success_a_normal_restart_knows_nothing_of_it(resumed):
    assert ("", None) == (resumed["next"], resumed["no claim"])


def test_a_restart_without_the_prologue_is_no_rerun(tmp_path):
    folder = Folder(tmp_path)
    with folder.kernel() as kernel:
        run_out(kernel, folder)
    with folder.kernel() as kernel:
        kernel.run(f"{LOAD}\nimport os\nvalue = 1")
        kernel.run("os.environ['TF_RESUMED'] = ''")
        assert "ok" == kernel.run(CELLS["last"], cell_id="last").status
        assert kernel.value(COMPARED) is None
    assert 1 == len(folder.plans)


@pytest.mark.oldest
def test_a_page_that_replays_is_known_by_the_plan_that_its_prologue_names(tmp_path):
    folder = Folder(tmp_path)
    with folder.kernel() as kernel:
        prologue = run_out(kernel, folder)
    folder.notebook = "renamed.ipynb"
    with folder.kernel() as kernel:
        assert "ok" == kernel.run(prologue).status
        assert "" == kernel.run(LOAD, cell_id="load").out
        assert "None" == kernel.run("import os\nprint(os.environ.get('TFMEM_PLAN'))").out.strip()
        kernel.run("value = 3", cell_id="after")
        kernel.run(CELLS["last"], cell_id="last")
        assert ("async-allocator", "oom", "ok") == kernel.value(COMPARED)
    assert [] == folder.plans


def test_what_the_prologue_set_and_a_cell_unset_is_not_claimed(tmp_path):
    folder = Folder(tmp_path)
    with folder.kernel() as kernel:
        prologue = run_out(kernel, folder)
    with folder.kernel() as kernel:
        kernel.run(prologue)
        kernel.run(f"{LOAD}\nimport os\nvalue = 1\nos.environ['TF_RESUMED'] = '0'")
        ran = kernel.run(CELLS["last"], cell_id="last")
        assert kernel.value(COMPARED) is None
        assert "TF_RESUMED is not 1 in this kernel" in " ".join(ran.report_text.split())


def test_cells_run_as_the_notebooks_file_has_them_now(tmp_path):
    folder = Folder(tmp_path)
    with folder.kernel() as kernel:
        run_out(kernel, folder)
    folder.save(needs="print('repaired')", after="value = 11", last=CELLS["last"] + " + 1")
    with folder.kernel() as kernel:
        ran = kernel.run(f"{LOAD}\n%tfmem resume")
        assert ("ok", True, 12) == (ran.status, "repaired" in ran.out, kernel.value("result"))


@pytest.mark.oldest
def test_a_cell_repaired_in_the_page_and_run_there_is_done(tmp_path):
    folder = Folder(tmp_path)
    with folder.kernel() as kernel:
        run_out(kernel, folder)
    with folder.kernel() as kernel:
        kernel.run(LOAD)
        assert "error" == kernel.run("%tfmem resume").status
        time.sleep(0.1)
        assert "ok" == kernel.run("print('repaired by hand')", cell_id="needs").status
        ran = kernel.run("%tfmem resume")
        assert ("ok", 7) == (ran.status, kernel.value("result"))


def test_a_cell_that_was_deleted_is_left_out_and_one_that_was_not_saved_is_run(tmp_path):
    folder = Folder(tmp_path)
    with folder.kernel() as kernel:
        folder.save(leave_out=("needs",))  # before the plan is made: that cell is not saved yet
        run_out(kernel, folder)
    with folder.kernel() as kernel:
        kernel.run(LOAD)
        ran = kernel.run("%tfmem resume")
        assert ("error", True) == (ran.status, "stopped: cell 3 of 5 (assert os.path.exists(" in ran.err)
        time.sleep(0.1)
        folder.save(leave_out=("needs",))
    with folder.kernel() as kernel:
        kernel.run(LOAD)
        ran = kernel.run("%tfmem resume")
        assert ("ok", 7, False) == (ran.status, kernel.value("result"), "needed" in ran.out)
        left_out = (
            "cell 3 of 5 (assert os.path.exists('there.txt'), 'not there') is no longer in the notebook: left out"
        )
        assert left_out in ran.out


def test_in_an_old_notebook_without_ids_cells_are_known_by_their_texts(tmp_path):
    folder = Folder(tmp_path)
    with folder.kernel() as kernel:
        run_out(kernel, folder)
    folder.save(needs="print('repaired')", after="value = 11", with_ids=False)
    with folder.kernel() as kernel:
        kernel.run(LOAD)
        ran = kernel.run("%tfmem resume")
        assert ("error", True) == (ran.status, "stopped: cell 3 of 5 (assert os.path.exists(" in ran.err)
        folder.save(needs=CELLS["needs"].replace("assert os", "assert not os"), after="value = 11", with_ids=False)
        ran = kernel.run("%tfmem resume")
        assert ("ok", 11, True) == (ran.status, kernel.value("result"), "needed" in ran.out)


def test_after_a_replay_that_failed_a_normal_restart_begins_it_anew_with_the_repaired_cell(tmp_path):
    folder = Folder(tmp_path)
    with folder.kernel() as kernel:
        run_out(kernel, folder)
        for repaired in ("", "print('repaired')"):
            if repaired:
                folder.save(needs=repaired)
            kernel.manager.restart_kernel(now=True)
            kernel.client.wait_for_ready(timeout=60)
            assert "A restart was planned here (Restart with it)" in kernel.run(LOAD).out
            ran = kernel.run("%tfmem resume")
            assert ("ok" if repaired else "error") == ran.status
        assert (2, 7, False) == (folder.ran(), kernel.value("result"), folder.has("unwanted.txt"))
        assert ("async-allocator", "oom", "ok") == kernel.value(COMPARED)
    assert [] == folder.plans


def test_a_cell_that_ran_well_and_then_failed_runs_again(tmp_path):
    folder = Folder(tmp_path)
    with folder.kernel() as kernel:
        run_out(kernel, folder)
    (folder.path / "there.txt").write_text("")
    with folder.kernel() as kernel:
        kernel.run(LOAD)
        assert "ok" == kernel.run(CELLS["once"], cell_id="once").status
        assert "error" == kernel.run("1 / 0", cell_id="once").status
        time.sleep(0.1)
        folder.save()
        ran = kernel.run("%tfmem resume")
        assert ("ok", 2) == (ran.status, folder.ran()), ran.err


@pytest.mark.oldest
def test_a_page_that_was_replaying_goes_on_with_nothing_once_the_plan_is_forgotten(tmp_path):
    folder = Folder(tmp_path)
    with folder.kernel() as kernel:
        prologue = run_out(kernel, folder)
    identity = folder.plans[0][24:-5]
    with folder.kernel() as kernel:
        kernel.run(prologue)
        kernel.run(LOAD, cell_id="load")
        assert kernel.run("%tfmem resume --forget").out.startswith("Forgotten: Restart with it, planned ")
        request = {"tfmem": {"replay": identity, "step": 1, "page": ""}}
        late = kernel.run(CELLS["once"], cell_id="once", metadata=request)
        assert ("error", False) == (late.status, folder.has("ran.txt"))
        assert ["Another page has gone on with the replay meanwhile: nothing was run here."] == late.errors
        kernel.run("import os\nvalue = 3\nos.environ['TF_RESUMED'] = '1'")
        kernel.run(CELLS["last"], cell_id="last")
        assert kernel.value(COMPARED) is None


def test_a_plan_can_be_forgotten(tmp_path):
    folder = Folder(tmp_path)
    with folder.kernel() as kernel:
        run_out(kernel, folder)
    with folder.kernel() as kernel:
        kernel.run(LOAD)
        assert kernel.run("%tfmem resume --forget").out.startswith("Forgotten: Restart with it, planned ")
    assert [] == folder.plans


def test_without_a_name_a_restarted_kernel_knows_its_plan_and_a_stranger_is_only_offered_it(tmp_path):
    folder = Folder(tmp_path, notebook="")
    with folder.kernel() as mine, folder.kernel() as theirs:
        run_out(mine, folder)
        (folder.path / "there.txt").write_text("")
        offer = theirs.run(LOAD).out
        assert offer.startswith(f"In this folder a restart was planned (Restart with it, planned {TODAY}")
        assert ": if it is this notebook's, %tfmem resume async-allocator-" in offer
        refused = theirs.run("%tfmem resume")
        assert ("error", False) == (refused.status, folder.has("ran.txt"))
        assert "%tfmem resume async-allocator-" in refused.err
        mine.manager.restart_kernel(now=True)
        mine.client.wait_for_ready(timeout=60)
        assert "A restart was planned here" in mine.run(LOAD).out
        assert "ok" == mine.run("%tfmem resume").status
        assert 7 == mine.value("result")


ASK = """from dataclasses import replace
from tf_mem_magic.api import Report
_live.report = Report(replace(_live.report.outcome, offered=(_proposal,)), _live.rerun_here)
_live.report.rerun("async-allocator")
"""


def test_a_rerun_that_takes_a_restart_is_planned_and_said_in_one_line(tmp_path):
    folder = Folder(tmp_path, notebook="")
    with folder.kernel() as kernel:
        run_out(kernel, folder)
        (folder.path / "there.txt").write_text("")
        ran = kernel.run(ASK)
        assert "error" == ran.status
        (line,) = ran.errors
        name = line.rpartition(" ")[2].removesuffix(".")
        assert (
            f"Restart with it: planned. Restart the kernel, then run %load_ext tf_mem_magic and %tfmem resume {name}."
            == line
        )
    with folder.kernel() as kernel:
        ran = kernel.run(f"{LOAD}\n%tfmem resume {name}")
        assert ("ok", 7) == (ran.status, kernel.value("result"))


TERMINAL = """import sys
from IPython.terminal.interactiveshell import TerminalInteractiveShell
shell = TerminalInteractiveShell.instance()
for cell in open(sys.argv[1]).read().split("# ---\\n"):
    print("status", shell.run_cell(cell, store_history=True).success, flush=True)
"""


def in_a_terminal(folder: Folder, *cells: str) -> str:
    """Run cells in IPython without a kernel; give what it prints."""
    (folder.path / "terminal.py").write_text(TERMINAL)
    (folder.path / "cells.txt").write_text("# ---\n".join(f"{cell}\n" for cell in cells))
    env = dict(os.environ, TFMEM_CACHE=str(folder.path / "cache"), PYTHONPATH=str(ROOT), IPYTHONDIR=str(folder.path))
    env.pop("JPY_SESSION_NAME", None)
    command = [sys.executable, "terminal.py", "cells.txt"]
    done = subprocess.run(command, cwd=folder.path, env=env, capture_output=True, text=True, check=True, timeout=120)
    return ANSI.sub("", done.stdout + done.stderr)


def test_a_terminal_plans_and_another_resumes_what_it_names(tmp_path):
    folder = Folder(tmp_path)
    (folder.path / "there.txt").write_text("")
    planned = in_a_terminal(folder, *CELLS.values(), PLAN.format(cells=[], ticked=()), ASK)
    assert "Restart with it: planned. Start again, then run %load_ext tf_mem_magic and %tfmem resume async-a" in planned
    name = re.search(r"%tfmem resume (async-allocator-\w+)\.", planned)[1]
    assert 1 == len(folder.plans)
    resumed = in_a_terminal(
        folder, LOAD, "%tfmem resume", f"%tfmem resume {name}", "print('result', result)", "%tfmem resume"
    )
    offer = f"In this folder a restart was planned (Restart with it, planned {TODAY}"
    assert f": if it is this notebook's, %tfmem resume {name}.\n" in resumed.partition(offer)[2]
    assert "If one of these is this notebook's, name it: %tfmem resume " in resumed
    assert ("result 7" in resumed, [True, False, True, True, False]) == (True, statuses(resumed))


def statuses(out: str) -> list[bool]:
    return [line == "status True" for line in out.splitlines() if line.startswith("status ")]


def test_a_second_restart_is_planned_after_the_first_did_not_help(tmp_path):
    folder = Folder(tmp_path)
    (folder.path / "there.txt").write_text("")
    last = CELLS["last"].replace("'TF_RESUMED' not in os.environ", "os.environ.get('TF_RESUMED') != '2'")
    cells = {**CELLS, "last": last}
    in_a_terminal(folder, *cells.values(), PLAN.format(cells=[], ticked=()), ASK)
    first = f"async-allocator-{folder.plans[0][24:28]}"
    second = PLAN.replace('("TF_RESUMED", "1")', '("TF_RESUMED", "2")')
    again = in_a_terminal(folder, LOAD, f"%tfmem resume {first}", second.format(cells=[], ticked=()), ASK)
    assert ("the cell still runs out of memory" in again, "Restart with it: planned." in again) == (True, True), again
    assert 1 == len(folder.plans)
    resumed = in_a_terminal(
        folder, LOAD, f"%tfmem resume async-allocator-{folder.plans[0][24:28]}", "print('result', result)"
    )
    assert ([True, True, True], True) == (statuses(resumed), "result 7" in resumed), resumed


UNSET = "os.environ['TF_RESUMED'] = '0'"


@pytest.mark.parametrize(
    ("cell", "ran", "said"),
    [
        ("after", False, "TF_RESUMED is not 1 in this kernel: a cell has changed it. The cell with the remedy was not"),
        ("last", True, "the cell ran, but TF_RESUMED is not 1 in this kernel: it says nothing about the remedy."),
    ],
)
def test_what_was_set_and_a_cell_has_changed_is_not_resumed_and_its_plan_stays(tmp_path, cell, ran, said):
    folder = Folder(tmp_path)
    (folder.path / "there.txt").write_text("")
    last = CELLS["last"].replace("'TF_RESUMED' not in os.environ", "os.environ.get('TF_RESUMED') is None")
    cells = {**CELLS, "last": last}
    cells[cell] += f"\nif 'TF_RESUMED' in os.environ: {UNSET}"
    in_a_terminal(folder, *cells.values(), PLAN.format(cells=[], ticked=()), ASK)
    resumed = in_a_terminal(
        folder, LOAD, f"%tfmem resume async-allocator-{folder.plans[0][24:28]}", "print('ran', 'result' in globals())"
    )
    assert (said in resumed, f"ran {ran}" in resumed, statuses(resumed)) == (True, True, [True, False, True]), resumed
    assert ("it fits" in resumed, "Resumed: " in resumed, len(folder.plans)) == (False, False, 1)


def test_two_terminals_of_one_folder_keep_both_their_plans(tmp_path):
    folder = Folder(tmp_path)
    (folder.path / "there.txt").write_text("")
    for _ in range(2):
        in_a_terminal(folder, *CELLS.values(), PLAN.format(cells=[], ticked=()), ASK)
    assert 2 == len(folder.plans)


@pytest.mark.oldest
def test_a_cell_that_failed_in_a_terminal_is_run_repaired_and_goes_on(tmp_path):
    folder = Folder(tmp_path)
    (folder.path / "there.txt").write_text("")
    in_a_terminal(folder, *CELLS.values(), PLAN.format(cells=[], ticked=()), ASK)
    (folder.path / "there.txt").unlink()
    (folder.path / "ran.txt").unlink()
    name = f"async-allocator-{folder.plans[0][24:28]}"
    resumed = in_a_terminal(
        folder,
        LOAD,
        f"%tfmem resume {name}",
        "assert not os.path.exists('there.txt'), 'there'\nprint('needed')",
        "%tfmem resume",
        "print('result', result)",
    )
    assert ([True, False, True, True, True], 1) == (statuses(resumed), folder.ran()), resumed
    assert "Run it repaired, as a cell, then %tfmem resume goes on with it" in resumed
    assert ("result 7" in resumed, "Resumed: Restart with it." in resumed) == (True, True)


def test_a_cell_that_failed_can_be_gone_on_without(tmp_path):
    folder = Folder(tmp_path)
    (folder.path / "there.txt").write_text("")
    in_a_terminal(folder, *CELLS.values(), PLAN.format(cells=[], ticked=()), ASK)
    (folder.path / "there.txt").unlink()
    name = f"async-allocator-{folder.plans[0][24:28]}"
    resumed = in_a_terminal(
        folder,
        LOAD,
        f"%tfmem resume {name} --skip",
        f"%tfmem resume {name}",
        "%tfmem resume --skip",
        "print('result', result)",
    )
    assert "there is nothing to skip" in resumed
    assert ([True, False, False, True, True], True) == (statuses(resumed), "result 7" in resumed), resumed


NBCLIENT = """import sys
import nbclient, nbformat
cells = open(sys.argv[1]).read().split("# ---\\n")
book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
try:
    nbclient.NotebookClient(book, timeout=120, kernel_name="python3").execute()
    print("passed")
except nbclient.exceptions.CellExecutionError:
    print("failed")
for cell in book.cells:
    for output in cell.outputs:
        print(output.get("text", "") or "".join(output.get("traceback", ())))
print("widgets" in book.metadata)
"""


def in_nbclient(folder: Folder, *cells: str) -> str:
    """Run a notebook by nbclient, which knows no name of it; give its outputs as text."""
    (folder.path / "client.py").write_text(NBCLIENT)
    (folder.path / "cells.txt").write_text("# ---\n".join(f"{cell}\n" for cell in cells))
    env = dict(os.environ, TFMEM_CACHE=str(folder.path / "cache"), PYTHONPATH=str(ROOT), IPYTHONDIR=str(folder.path))
    env.pop("JPY_SESSION_NAME", None)
    command = [sys.executable, "client.py", "cells.txt"]
    done = subprocess.run(command, cwd=folder.path, env=env, capture_output=True, text=True, check=True, timeout=120)
    return ANSI.sub("", done.stdout)


def test_nbclient_plans_and_resumes_and_a_refused_resume_fails_the_job(tmp_path):
    folder = Folder(tmp_path, notebook="")
    (folder.path / "there.txt").write_text("")
    guarded = "try:\n    get_ipython().run_cell(" + repr(CELLS["last"]) + ")\nexcept BaseException: pass"
    earlier = [CELLS[name] for name in TICKED]
    planned = in_nbclient(folder, *earlier, guarded, PLAN.format(cells=[], ticked=()), ASK)
    assert "Restart with it: planned. Restart the kernel, then run %load_ext tf_mem_magic and %tfmem resume " in planned
    assert (True, 1) == (planned.startswith("failed\n"), len(folder.plans))
    name = planned.partition("and %tfmem resume ")[2].partition(".\n")[0]
    resumed = in_nbclient(folder, LOAD, f"%tfmem resume {name}", "print('result', result)")
    assert (True, True, False) == (
        resumed.startswith("passed\n"),
        "result 7" in resumed,
        resumed.endswith("True\n"),
    )
    refused = in_nbclient(folder, LOAD, f"%tfmem resume {name}")
    assert (True, True) == (refused.startswith("failed\n"), "there is no plan" in refused)


def test_a_front_end_with_a_person_but_no_page_resumes_too(planned):
    folder, path, data = planned
    path.write_bytes(data)
    with folder.kernel() as kernel:
        kernel.allow_stdin = True  # as jupyter console does
        kernel.run(LOAD)
        ran = kernel.run("%tfmem resume")
        assert ("ok", 7) == (ran.status, kernel.value("result"))
        assert "— cell 3 of 5: " in ran.out
    (folder.path / "ran.txt").unlink()


def test_jupyter_console_resumes_a_plan_that_is_named(planned):
    need("jupyter_console", "pexpect")
    import pexpect

    folder, path, data = planned
    path.write_bytes(data)
    env = dict(os.environ, TFMEM_CACHE=str(folder.path / "cache"), IPYTHONDIR=str(folder.path), TERM="dumb")
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    env.pop("JPY_SESSION_NAME", None)
    command = ["-m", "jupyter_console", "--simple-prompt"]
    size = {"dimensions": (50, 300), "timeout": 90, "encoding": "utf-8"}
    child = pexpect.spawn(sys.executable, command, cwd=str(folder.path), env=env, **size)
    shown = []
    for line in (LOAD, f"%tfmem resume async-allocator-{path.name[24:28]}", "print('result', result)", "%tfmem resume"):
        child.expect(r"In \[\d+\]: ")
        shown.append(child.before)
        child.sendline(line)
    child.expect(r"In \[\d+\]: ")
    shown.append(child.before)
    child.close(force=True)
    out = ANSI.sub("", "".join(shown))
    assert ("Resumed: Restart with it." in out, "result 7" in out, "nothing to resume" in out) == (True, True, True), (
        out
    )
    (folder.path / "ran.txt").unlink()


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """A notebook with a plan, and what is in the plan's file."""
    folder = Folder(tmp_path_factory.mktemp("planned"))
    with folder.kernel() as kernel:
        run_out(kernel, folder)
    (folder.path / "there.txt").write_text("")
    path = folder.path / "cache" / "plans" / folder.plans[0]
    return folder, path, path.read_bytes()


def older(data: bytes) -> bytes:
    made = json.loads(data)
    return json.dumps({**made, "time": made["time"] - 25 * 3600}).encode()


BAD = {
    "damaged": (lambda data: data[:100], "the plan of a restart was dropped, because the file is truncated or damaged"),
    "of a newer version": (
        lambda data: data.replace(b'"schema": 1', b'"schema": 99'),
        "the plan of a restart was dropped, because the file was written by a newer tf_mem_magic",
    ),
    "of an older version": (
        lambda data: data.replace(b'"identity"', b'"other"'),
        "the plan of a restart was dropped, because ",
    ),
    "older than a day": (older, "is older than a day and was dropped"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_plan_that_cannot_be_used_is_one_sentence_and_nothing_is_replayed(planned, what):
    folder, path, data = planned
    change, words = BAD[what]
    path.write_bytes(change(data))
    with folder.kernel() as kernel:
        said, ran = kernel.run(LOAD).out, kernel.run("%tfmem resume")
    assert (1, True) == (said.count("\n"), words.lower() in said.lower()), said
    assert ("error", 1, False) == (ran.status, ran.err.count("\n"), folder.has("ran.txt"))
    assert not path.exists()


def test_the_plan_of_a_notebook_that_is_gone_is_one_sentence_and_nothing_is_replayed(planned):
    folder, path, data = planned
    path.write_bytes(data)
    (folder.path / folder.notebook).unlink()
    try:
        with folder.kernel() as kernel:
            told, ran = kernel.run(LOAD).out, kernel.run("%tfmem resume")
    finally:
        folder.save()
    assert told.startswith(f"The notebook of a planned restart is gone (Restart with it, planned {TODAY}")
    assert ("error", 1, 1) == (ran.status, told.count("\n"), ran.err.count("\n"))
    assert "the notebook of a planned restart is gone" in ran.err
    assert not folder.has("ran.txt")


def test_a_renamed_notebook_in_a_new_kernel_is_offered_the_plan_by_name_and_date(planned):
    folder, path, data = planned
    path.write_bytes(data)
    (folder.path / "mine.ipynb").rename(folder.path / "new.ipynb")
    folder.notebook = "new.ipynb"
    try:
        with folder.kernel() as kernel:
            told = kernel.run(LOAD).out
            assert f"(Restart with it, planned {TODAY}" in told
            assert "mine.ipynb, which is gone): if it is this notebook's, %tfmem resume async-allocator-" in told
            assert ("error", False) == (kernel.run("%tfmem resume").status, folder.has("ran.txt"))
            assert "ok" == kernel.run(told.partition("this notebook's, ")[2].strip().removesuffix(".")).status
            assert (7, ("async-allocator", "oom", "ok")) == (kernel.value("result"), kernel.value(COMPARED))
    finally:
        (folder.path / "ran.txt").unlink(missing_ok=True)
        (folder.path / "new.ipynb").rename(folder.path / "mine.ipynb")
        folder.notebook = "mine.ipynb"


@pytest.mark.tf
def test_a_startup_file_that_imports_tensorflow_is_one_sentence_and_nothing_is_replayed(planned):
    folder, path, data = planned
    path.write_bytes(data)
    startup = folder.path / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "first.py").write_text("import tensorflow")
    prologue = json.loads(data)["prologue"]
    with folder.kernel(IPYTHONDIR=str(folder.path / "ipython")) as kernel:
        ran = kernel.run(prologue)
        assert "RuntimeError: TensorFlow is already imported here, by a startup file perhaps" in ran.errors[0]
        kernel.run(LOAD)
        ran = kernel.run("%tfmem resume")
        assert ("error", 1) == (ran.status, ran.err.count("\n"))
        assert "TensorFlow is already imported in this kernel" in ran.err
        assert not folder.has("ran.txt")
    assert path.exists()


@pytest.mark.oldest
def test_cells_that_ran_before_the_extension_came_do_not_run_again(planned):
    folder, path, data = planned
    path.write_bytes(data)
    with folder.kernel() as kernel:
        kernel.run(CELLS["once"])
        assert "error" == kernel.run(CELLS["needs"].replace("there.txt", "nowhere.txt")).status
        ran = kernel.run(f"{LOAD}\n%tfmem resume")
        assert ("ok", 1, 7) == (ran.status, folder.ran(), kernel.value("result"))
        assert "needed" in ran.out
    (folder.path / "ran.txt").unlink()


@pytest.mark.oldest
def test_a_cell_that_failed_before_the_extension_came_runs_again(planned):
    folder, path, data = planned
    path.write_bytes(data)
    (folder.path / "there.txt").unlink()
    with folder.kernel() as kernel:
        kernel.run(CELLS["once"])
        assert "error" == kernel.run(CELLS["needs"]).status
        (folder.path / "there.txt").write_text("")
        ran = kernel.run(f"{LOAD}\n%tfmem resume")
        assert ("ok", True, 1) == (ran.status, "needed" in ran.out, folder.ran())
    (folder.path / "ran.txt").unlink()


def test_a_kernel_that_cannot_be_prepared_says_why_and_runs_nothing(tmp_path):
    folder = Folder(tmp_path)
    with folder.kernel() as kernel:
        run_out(kernel, folder)
    with folder.kernel() as kernel:
        kernel.run(f"import sys, types\nsys.modules['tensorflow'] = types.ModuleType('tensorflow')\n{LOAD}")
        ran = kernel.run("%tfmem resume")
        assert ("error", False, 1) == (ran.status, folder.has("ran.txt"), ran.err.count("\n"))
        assert "TensorFlow is already imported in this kernel" in ran.err
