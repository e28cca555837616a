"""A restart in a real page, from the click to the comparison: whatever happens to the page in between.

The cell that runs out of memory says so itself, and its remedy is a setting: no TensorFlow is needed for that.
"""

from __future__ import annotations

import json
import time

import pytest

from tests import lab as harness
from tests.browser.seen import SEEN, told
from tests.lab import Lab, wait_until

harness.require_browser()

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

LAST = "%%tfmem\nran(4)\nif 'TF_RESUMED' not in os.environ: raise MemoryError('too big')\nresult = value\nprint('result', result)"
PLAN = """from dataclasses import replace as _replace
from tf_mem_magic.api import Report as _Report
from tf_mem_magic.core.proposals import Proposal as _Proposal
_live = get_ipython()._tf_mem_magic.session.register.newest
_cell = _live.run.cell.source
_proposal = _Proposal("async-allocator", "Restart with it", _cell, _cell, "same results", takes_effect="restart",
                      environment=(("TF_RESUMED", "1"),))
_live.report = _Report(_replace(_live.report.outcome, offered=(_proposal,)), _live.rerun_here)
_live.presenter._open_panel().show(_live.report.outcome)
"""


def cells(name: str) -> list[str]:
    """Write the notebook: each cell notes that it ran, then waits or fails where a file says so."""
    setup = (
        "%load_ext tf_mem_magic\nimport os, time\ndef ran(n):\n"
        f"    with open('{name}.ran', 'a') as file: print(n, file=file)\n"
        f"    while os.path.exists(f'{name}.held{{n}}'): time.sleep(0.05)\n"
        f"    if os.path.exists(f'{name}.fails{{n}}'): raise ValueError('broken')\nran(0)"
    )
    return [setup, "ran(1)\nprint('pid', os.getpid())", "ran(2)\nprint('second')", "ran(3)\nvalue = 7", LAST, "0"]


class Notebook:
    """A notebook in the page whose last cell has run out of memory, with its choices open."""

    def __init__(self, lab: Lab, name: str) -> None:
        self.lab, self.name = lab, name
        harness.write_notebook(lab.folder / f"{name}.ipynb", cells(name))
        lab.new_page()
        lab.open(f"{name}.ipynb")
        for index in range(5):
            lab.run(index)
        reply = lab.execute(PLAN)
        assert reply["status"] == "ok", reply
        lab.button("Restart with it").wait_for()
        (lab.folder / f"{name}.ran").unlink()

    def hold(self, n: int) -> None:
        """Let the cell of that number wait, from its next run on."""
        (self.lab.folder / f"{self.name}.held{n}").touch()

    def let_go(self, n: int) -> None:
        (self.lab.folder / f"{self.name}.held{n}").unlink()

    def fail(self, n: int) -> None:
        """Let the cell of that number fail, from its next run on."""
        (self.lab.folder / f"{self.name}.fails{n}").touch()

    @property
    def ran(self) -> list[int]:
        """The cells that ran since the click, in order."""
        path = self.lab.folder / f"{self.name}.ran"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def restart(self) -> None:
        self.lab.click("Restart with it")
        self.lab.click("Restart and run these 5 cells")

    def runs(self, n: int) -> None:
        wait_until(lambda: n in self.ran, f"cell {n} runs")

    def reload(self, name: str = "") -> None:
        """Load the page anew, also while the kernel is busy."""
        self.lab.page.goto(self.lab.address(f"{name or self.name}.ipynb"))
        self.lab.page.wait_for_function("() => window.jupyterapp?.shell?.currentWidget?.content?.widgets?.length === 6")

    def faint(self) -> list:
        """Tell what of the replay's own text has too little contrast, in light, dark and high contrast."""
        self.lab.page.evaluate(SEEN)
        found = []
        for theme in ("JupyterLab Dark", "JupyterLab Dark High Contrast", "JupyterLab Light"):
            self.lab.command("apputils:change-theme", {"theme": theme})
            time.sleep(1.5)
            assert any("cell 4 of 5" in text or "cell 3 of 5" in text for text in told(self.lab, "lines")), theme
            found += [(theme, *one) for one in told(self.lab, "faint")]
        return found

    @property
    def banner(self) -> str:
        found = self.lab.page.locator(".tfmem-replay")
        return found.first.inner_text() if found.count() else ""

    def saved(self, index: int) -> str:
        """Give what the file has as a cell's outputs."""
        text = (self.lab.folder / f"{self.name}.ipynb").read_text()
        try:
            return json.dumps(json.loads(text)["cells"][index]["outputs"])
        except json.JSONDecodeError:
            return ""  # it is just being written

    @property
    def plans(self) -> list[str]:
        """The plans of this notebook, under the name that it had at first."""
        folder = self.lab.folder / "cache" / "plans"
        found = {path.name: path.read_text() for path in folder.iterdir()} if folder.exists() else {}
        return sorted(name for name, text in found.items() if f"{self.name}.ipynb" in text)

    def knows(self, index: int, source: str) -> None:
        """Wait until the kernel knows a cell as the page has it."""
        code = "from tf_mem_magic.session.restarts.at_work import replaying_of as _of\n"
        code += f"assert (_of(get_ipython()).page_cells or {{}}).get('cell-{index}') == {source!r}"
        wait_until(lambda: self.lab.execute(code)["status"] == "ok", "the page has told its cells")

    def resumes(self, code: str = "%tfmem resume") -> str:
        """Run a command in the last cell; give what it shows."""
        self.lab.set_source(5, code)
        self.lab.run(5)
        return self.lab.output_text(5)

    def fits(self) -> None:
        self.lab.wait_for_text(4, "it fits")


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder = tmp_path_factory.mktemp("restart")
    startup = folder / ".jupyter" / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    early = "if os.path.exists('early'): sys.modules['tensorflow'] = types.ModuleType('tensorflow')"
    dies = "class Dies(types.ModuleType): _context = property(lambda self: os._exit(1))"
    context = "'tensorflow.python.eager.context'"
    dying = f"if os.path.exists('dies'): sys.modules[{context}] = Dies({context})"
    (startup / "first.py").write_text(f"import os, sys, types\n{early}\n{dies}\n{dying}")
    with Lab(folder, env={"TFMEM_CACHE": str(folder / "cache")}, size=(1280, 800)) as running:
        yield running


@pytest.fixture
def opened(lab):
    def open_(name: str) -> Notebook:
        return Notebook(lab, name)

    yield open_
    lab.shut_down()


def test_a_replay_says_where_it_is_and_goes_on_in_a_page_that_is_loaded_anew(lab, opened):
    notebook = opened("reloaded")
    notebook.hold(2)
    notebook.restart()
    notebook.runs(2)
    wait_until(lambda: "cell 3 of 5" in notebook.banner, "the line at the top says where it is")
    lab.shot(lab.folder / "replaying.png")
    assert notebook.faint() == []
    assert "cell 4 of 5 waits." in lab.output_text(3)
    assert "cell 5 of 5 waits." in lab.output_text(4)
    assert "too big" in lab.output_text(4)
    wait_until(lambda: "cell 3 of 5 was running when this was saved" in notebook.saved(2), "the file says it too")
    assert "cell 4 of 5 waits." in notebook.saved(3)
    notebook.hold(3)
    notebook.reload()
    assert "cell 3 of 5 was running" in lab.output_text(2)
    lab.shot(lab.folder / "reloaded.png")
    notebook.let_go(2)
    wait_until(lambda: "cell 4 of 5" in notebook.banner, "the new page goes on")
    assert "cell 3 of 5 ran, but the page that ran it was closed or loaded anew" in lab.output_text(2)
    lab.shot(lab.folder / "gone-on.png")
    notebook.let_go(3)
    notebook.fits()
    assert [0, 1, 2, 3, 4] == notebook.ran
    assert "waits" not in lab.output_text(3)
    assert "result 7" in lab.output_text(4)
    wait_until(lambda: notebook.banner == "", "the line at the top is gone")
    wait_until(lambda: "it fits" in notebook.saved(4), "the file holds the comparison")
    assert [] == notebook.plans
    lab.shot(lab.folder / "fits.png")

    # Once it is done, a restart of the person's own knows nothing of it.
    lab.restart()
    lab.command("notebook:clear-all-cell-outputs")
    lab.run(0)
    lab.run(3)
    lab.run(4)
    assert "planned" not in lab.output_text(0)
    assert "Out of host memory" in lab.output_text(4)
    assert "Restart with it" not in lab.output_text(4)


def test_a_page_loaded_anew_during_the_last_cell_shows_its_report(lab, opened):
    notebook = opened("last")
    other = lab.page
    notebook.hold(4)
    notebook.restart()
    notebook.runs(4)
    wait_until(lambda: "was running when this was saved" in notebook.saved(4), "the file says it")
    notebook.reload()
    notebook.let_go(4)
    notebook.fits()
    assert [0, 1, 2, 3, 4] == notebook.ran
    assert other is lab.page


def test_a_notebook_that_is_renamed_meanwhile_keeps_its_comparison(lab, opened):
    notebook = opened("before")
    notebook.hold(2)
    notebook.restart()
    notebook.runs(2)
    rename = "([a, b]) => jupyterapp.serviceManager.contents.rename(a, b).then(() => null)"
    lab.page.evaluate(rename, ["before.ipynb", "renamed.ipynb"])
    notebook.reload("renamed")
    notebook.let_go(2)
    notebook.fits()
    assert [0, 1, 2, 3, 4] == notebook.ran
    assert [] == notebook.plans


def test_of_two_pages_one_runs_the_cells(lab, opened):
    notebook = opened("twice")
    first = lab.page
    lab.new_page()
    lab.open("twice.ipynb")
    second, lab.page = lab.page, first
    notebook.restart()
    notebook.fits()
    assert [0, 1, 2, 3, 4] == notebook.ran
    second.context.close()


def test_a_cell_that_failed_is_repaired_in_the_page_and_goes_on_there(lab, opened):
    notebook = opened("repaired")
    notebook.fail(3)
    notebook.restart()
    alert = lab.page.get_by_role("alert").filter(has_text="its replay stopped at cell 4 of 5 (ran(3))")
    alert.wait_for()
    lab.shot(lab.folder / "stopped.png")
    assert notebook.faint() == []
    assert "cell 5 of 5 was not run, because cell 4 of 5 did not run through." in lab.output_text(4)
    wait_until(lambda: "was not run" in notebook.saved(4), "the file says it too")
    notebook.reload()
    alert.wait_for()  # the new page says where it stopped, and goes on when it is told to
    lab.set_source(3, "value = 11")
    lab.page.locator(".tfmem-go-on").click()
    notebook.fits()
    assert "result 11" in lab.output_text(4)
    assert [0, 1, 2, 3, 4] == notebook.ran
    assert 0 == alert.count()


def test_resume_takes_the_cells_as_the_page_has_them_and_strangers_are_offered_nothing(lab, opened):
    notebook = opened("resumed")
    notebook.fail(3)
    notebook.restart()
    lab.page.get_by_role("alert").filter(has_text="stopped at cell 4 of 5").wait_for()

    first = lab.page
    harness.write_notebook(lab.folder / "stranger.ipynb", ["%load_ext tf_mem_magic", "%tfmem resume"])
    lab.new_page()
    lab.open("stranger.ipynb")
    lab.run(0)
    lab.run(1)
    assert "" == lab.output_text(0).strip()
    assert "there is nothing to resume" in lab.output_text(1)
    lab.page.context.close()
    lab.page = first

    lab.set_source(3, "value = 11")
    notebook.knows(3, "value = 11")
    lab.set_source(5, "%tfmem resume")
    assert "value = 7" in (lab.folder / "resumed.ipynb").read_text()
    lab.run(5)
    assert "result 11" in lab.output_text(5)
    assert "Resumed: Restart with it." in lab.output_text(5)
    assert [0, 1, 2, 3, 4] == notebook.ran
    lab.wait_for_text(4, "cell 5 of 5 ran: %tfmem resume shows its output.")
    lab.shot(lab.folder / "resumed.png")
    assert 0 == lab.page.get_by_role("alert").filter(has_text="stopped").count()
    assert [] == notebook.plans


def test_a_kernel_that_cannot_be_prepared_runs_nothing_and_says_so(lab, opened):
    notebook = opened("early")
    (lab.folder / "early").touch()
    try:
        notebook.restart()
        alert = lab.page.get_by_role("alert").filter(
            has_text="it could not be prepared (RuntimeError: TensorFlow is already"
        )
        alert.wait_for()
    finally:
        (lab.folder / "early").unlink()
    assert [] == notebook.ran
    assert "" == notebook.banner
    assert "cell 5 of 5 was not run: the kernel could not be prepared" in lab.output_text(4)
    wait_until(lambda: "could not be prepared" in notebook.saved(1), "the file says it too")


def test_after_a_persons_own_restart_resume_takes_cells_as_the_page_has_them_unsaved(lab, opened):
    notebook = opened("own")
    planned = lab.execute("_live.report.rerun('async-allocator')")
    assert ("error", "RestartPlannedError") == (planned["status"], planned["ename"])
    lab.restart()
    lab.command("notebook:clear-all-cell-outputs")
    lab.set_source(5, "%load_ext tf_mem_magic")
    lab.run(5)
    assert "A restart was planned here (Restart with it): %tfmem resume runs its cells." in lab.output_text(5)
    lab.set_source(3, "value = 11")
    notebook.knows(3, "value = 11")
    assert "value = 7" in (lab.folder / "own.ipynb").read_text()
    lab.set_source(5, "%tfmem resume")
    lab.run(5)
    assert "result 11" in lab.output_text(5)
    assert [0, 1, 2, 4] == notebook.ran


RESTARTED = """() => {
  const session = jupyterapp.shell.currentWidget.context.sessionContext, restart = session.restartKernel.bind(session);
  session.restartKernel = async () => { await restart(); window.restarted = true; await new Promise(() => {}); };
}"""


def test_a_page_loaded_anew_before_the_kernel_was_prepared_says_how_to_go_on(lab, opened):
    notebook = opened("between")
    lab.page.evaluate(RESTARTED)
    notebook.restart()
    lab.page.wait_for_function("() => window.restarted")
    notebook.reload()
    assert (
        "cell 5 of 5 waits. If nothing runs any more: %load_ext tf_mem_magic, then %tfmem resume." in lab.output_text(4)
    )
    assert "cell 2 of 5 waits." in lab.output_text(1)
    assert ([], 1) == (notebook.ran, len(notebook.plans))
    told = notebook.resumes("%load_ext tf_mem_magic")
    assert "A restart was planned here (Restart with it): %tfmem resume runs its cells." in told
    assert "result 7" in notebook.resumes()
    assert [0, 1, 2, 3, 4] == notebook.ran
    lab.wait_for_text(4, "cell 5 of 5 ran: %tfmem resume shows its output.")
    assert [] == notebook.plans


def test_after_a_replay_that_failed_a_restart_of_the_persons_own_begins_it_anew(lab, opened):
    notebook = opened("again")
    notebook.fail(3)
    notebook.restart()
    alert = lab.page.get_by_role("alert").filter(has_text="its replay stopped at cell 4 of 5 (ran(3))")
    alert.wait_for()
    lab.restart()
    lab.wait_for_text(4, "cell 5 of 5 was not run: the kernel was restarted again.")
    assert 0 == alert.count()
    lab.set_source(3, "value = 11")
    notebook.resumes("%load_ext tf_mem_magic")
    notebook.knows(3, "value = 11")
    assert "result 11" in notebook.resumes()
    assert [0, 1, 2, 3, 0, 1, 2, 4] == notebook.ran
    assert [] == notebook.plans


def test_a_cell_that_was_deleted_meanwhile_stops_it_with_the_reason_and_is_left_out(lab, opened):
    notebook = opened("deleted")
    notebook.hold(2)
    notebook.restart()
    notebook.runs(2)
    lab.page.evaluate("() => jupyterapp.shell.currentWidget.content.model.sharedModel.deleteCell(3)")
    notebook.let_go(2)
    alert = lab.page.get_by_role("alert").filter(has_text="its replay stopped at cell 4 of 5 (ran(3)).")
    alert.wait_for()
    assert "It is no longer in this notebook; %tfmem resume goes on without it." in alert.inner_text()
    lab.wait_for_text(3, "cell 5 of 5 was not run, because cell 4 of 5 could not be run.")
    lab.set_source(4, "value = 11\n%tfmem resume")
    lab.run(4)
    assert "cell 4 of 5 (ran(3)) is no longer in the notebook: left out" in lab.output_text(4)
    assert "result 11" in lab.output_text(4)
    assert [0, 1, 2, 4] == notebook.ran


def test_a_cell_of_the_remedy_that_was_edited_meanwhile_says_why_it_was_not_run(lab, opened):
    notebook = opened("edited")
    lab.execute("_proposal = _replace(_proposal, source=_cell.replace('ran(4)', 'ran(4); changed = 1'))")
    assert "ok" == lab.execute(PLAN.partition("_live.report =")[2].join(("_live.report =", "")))["status"]
    notebook.hold(2)
    notebook.restart()
    notebook.runs(2)
    lab.set_source(4, LAST.replace("ran(4)", "ran(5)"))
    notebook.let_go(2)
    reason = "It was edited since its run, so the change does not fit it any more."
    lab.page.get_by_role("alert").filter(has_text=reason).wait_for()
    lab.wait_for_text(4, f"cell 5 of 5 was not run: {reason}")
    assert [0, 1, 2, 3] == notebook.ran


def test_a_plan_that_is_forgotten_stands_nowhere_any_more(lab, opened):
    notebook = opened("forgotten")
    notebook.fail(3)
    notebook.restart()
    alert = lab.page.get_by_role("alert").filter(has_text="stopped at cell 4 of 5")
    alert.wait_for()
    assert 1 == len(notebook.plans)
    assert "Forgotten: Restart with it, planned " in notebook.resumes("%tfmem resume --forget")
    lab.wait_for_text(4, "cell 5 of 5 was not run: the plan was given up.")
    wait_until(lambda: "the plan was given up" in notebook.saved(4), "the file says it too")
    assert (0, "", []) == (alert.count(), notebook.banner, notebook.plans)


def test_a_kernel_that_dies_while_it_is_prepared_runs_nothing_and_says_so(lab, opened):
    notebook = opened("dies")
    (lab.folder / "dies").touch()
    try:
        notebook.restart()
        gone = "it could not be prepared (it went away meanwhile)"
        lab.page.get_by_role("alert").filter(has_text=gone).wait_for()
    finally:
        (lab.folder / "dies").unlink()
    assert ([], "") == (notebook.ran, notebook.banner)
    assert "cell 5 of 5 was not run: the kernel could not be prepared" in lab.output_text(4)
