"""The panel in a real JupyterLab: driven with invented outcomes, so that only the panel and the page are tested."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import lab as harness
from tests.lab import Lab, wait_until

harness.require_browser()

pytestmark = [pytest.mark.browser, pytest.mark.kernel, pytest.mark.timeout(600)]

HERE = str(Path(__file__).resolve().parents[1])
PATHS = f"{harness.PROJECT}:{HERE}"

SETUP = "import panel_demo as demo, time, os\nruns = []"

# The cell that is changed: `batch = 256` becomes `batch = 128`, after which it reports a rerun that fits.
CELL = """batch = 256
runs.append(batch)
panel, handle = demo.show_panel(In[-1])
print("batch", batch, get_ipython().kernel.get_parent()["metadata"].get("tfmem"))
now = In[-1]
one, two = f"batch = {256}", f"batch = {128}"
panel.show(demo.rich(now, now.replace(one, two)) if batch == 256 else demo.reran(now, now.replace(two, one)))
batch"""

RESTART = """import ipywidgets
panel, handle = demo.show_panel(In[-1])
print("prepared", os.environ.get("TFMEM_DEMO"), "pid", os.getpid(), "kept", kept, "late", "late" in dir())
p = demo.proposal("memory-growth", "Grow on demand", In[-1], In[-1], takes_effect="restart",
    prologue="import os; os.environ['TFMEM_DEMO'] = 'first'")
panel.show(demo.outcome(In[-1], p))"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    with Lab(tmp_path_factory.mktemp("lab"), env={"PYTHONPATH": PATHS}) as running:
        yield running


@pytest.fixture
def notebook(lab, request):
    """Open a new notebook of these cells in a fresh page; shut its kernel down afterwards."""
    name = f"{request.node.name[:60]}.ipynb"

    def open_notebook(*cells: str, before=None) -> Lab:
        harness.write_notebook(lab.folder / name, cells)
        lab.new_page()
        if before is not None:
            before(lab.page)
        lab.open(name)
        lab.name = name
        return lab

    yield open_notebook
    lab.shut_down()


def shown_choices(lab: Lab, notebook, *more: str) -> Lab:
    """Open the notebook of most tests: the cell has run out of memory and offers its choices."""
    notebook(SETUP, CELL, *more)
    lab.run(0)
    lab.run(1)
    lab.button("Batch 128").wait_for()
    return lab


def run_text(lab: Lab, index: int) -> str:
    """Run a cell and give what it printed."""
    lab.run(index)
    return lab.output_text(index).strip()


@pytest.mark.parametrize("work", ["time.sleep(8)", "end = time.time() + 8\nwhile time.time() < end: sum(range(1000))"])
def test_the_live_strip_moves_while_the_cell_runs(notebook, work):
    lab = notebook(SETUP, f"panel, _ = demo.show_panel(In[-1])\nticker = demo.Ticker(panel)\n{work}\nticker.stop()")
    lab.run(0)
    lab.start(1)
    strip = lab.page.locator(".tfmem-strip")
    strip.wait_for()
    seen, heights = set(), set()

    def look() -> bool:
        if lab.is_running(1):
            seen.add(lab.page.locator(".tfmem-fill").get_attribute("d"))
            heights.add(strip.bounding_box()["height"])
        return len(seen) >= 8

    wait_until(look, "the curve has changed 8 times")
    assert len(heights) == 1
    assert "limit 14.7 GiB" in strip.inner_text()


def test_the_strip_says_that_the_allocator_waits(notebook):
    moment = "lambda t: demo.live_at(t, level=0.98, waiting='GPU:0')"
    cell = f"panel, _ = demo.show_panel(In[-1])\nticker = demo.Ticker(panel, {moment})\ntime.sleep(4)\nticker.stop()"
    lab = notebook(SETUP, cell)
    lab.run(0)
    lab.start(1)
    lab.page.locator(".tfmem-amber", has_text="GPU:0 is full: TensorFlow is waiting up to 10 s").wait_for()


def test_the_strip_without_updates_does_not_claim_to_be_live(notebook):
    lab = notebook(SETUP, "panel, _ = demo.show_panel(In[-1])\nimport time; time.sleep(10)")
    lab.run(0)
    lab.start(1)
    lab.page.get_by_text("live view unavailable here; report at the end").and_(
        lab.page.locator(".tfmem-words")
    ).wait_for()


def test_the_strip_says_what_happened_until_the_report_is_there(notebook):
    work = "ticker = demo.Ticker(panel)\ntime.sleep(1)\nticker.stop()\npanel.tell_first(demo.outcome('fit()'))\ntime.sleep(6)"
    lab = notebook(SETUP, f"panel, _ = demo.show_panel(In[-1])\n{work}")
    lab.run(0)
    lab.start(1)
    strip = lab.page.locator(".tfmem-strip")
    strip.wait_for()
    height = strip.bounding_box()["height"]
    words = lab.page.locator(".tfmem-ended .tfmem-words", has_text="working out what filled it and what would fit")
    words.wait_for()
    assert lab.page.locator(".tfmem-state").inner_text().startswith("✗ Out of memory on GPU:0")
    lab.page.wait_for_timeout(4000)  # longer than a strip may be silent
    assert (1, height) == (words.count(), strip.bounding_box()["height"])


def test_a_click_changes_the_cell_and_reruns_it_in_place(lab, notebook):
    shown_choices(lab, notebook, "print(runs, [note[:2] for note in demo.NOTES])")
    before = lab.count(1)
    lab.click("Batch 128")
    lab.button("Undo").wait_for()
    wait_until(lambda: lab.count(1) == before + 1, "the count is the next one")
    assert CELL.replace("batch = 256", "batch = 128") == lab.source(1)
    lab.wait_for_text(1, "batch 128 {'key': 'smaller-batch'")
    assert "3 not offered" not in lab.output_text(1)
    assert "128" == next(o for o in lab.outputs(1) if o["output_type"] == "execute_result")["data"]["text/plain"]
    assert "[256, 128] [('expect', 'smaller-batch')]" == run_text(lab, 2)


def test_on_the_click_the_cell_does_not_move(lab, notebook):
    shown_choices(lab, notebook)
    lab.cell(1, "(window.tops = new Set(), (function look() { tops.add(Math.round(c.node.getBoundingClientRect().top));"
                " requestAnimationFrame(look); })(), null)")  # fmt: skip
    lab.click("Batch 128")
    lab.wait_for_text(1, "it fits")
    lab.page.wait_for_timeout(3000)
    tops = lab.page.evaluate("() => [...tops]")
    assert max(tops) - min(tops) <= 2, tops


def test_the_prompt_shows_that_the_rerun_is_running(lab, notebook):
    slow = CELL.replace("runs.append(batch)", "runs.append(batch)\nif batch == 128: time.sleep(4)")
    notebook(SETUP, slow)
    lab.run(0)
    lab.run(1)
    lab.click("Batch 128")
    wait_until(lambda: lab.is_running(1), "the prompt shows the star")
    wait_until(lambda: not lab.is_running(1), "the rerun ends")
    assert 3 == lab.count(1)


def test_a_cell_that_was_edited_meanwhile_is_left_alone(lab, notebook):
    shown_choices(lab, notebook, "print(runs)")
    lab.set_source(1, "mine = 1")
    lab.click("Batch 128")
    lab.page.get_by_text("The cell was edited since this run, so nothing was changed.").wait_for()
    assert "mine = 1" == lab.source(1)
    assert lab.button("Batch 128").is_enabled()
    assert "[256]" == run_text(lab, 2)


def test_a_cell_that_was_deleted_is_reported(notebook):
    elsewhere = "p, _ = demo.show_panel('y = 1', of='deleted')\np.show(demo.outcome('y = 1', demo.proposal('k', 'Change it', 'y = 2', 'y = 1')))"
    lab = notebook(SETUP, elsewhere)
    lab.run(0)
    lab.run(1)
    lab.click("Change it")
    lab.page.get_by_text("The cell is no longer in this notebook.").wait_for()
    assert lab.button("Change it").is_enabled()


def test_undo_puts_the_old_code_back_and_runs_nothing(lab, notebook):
    shown_choices(lab, notebook, "print(runs, demo.NOTES[-1][1])")
    lab.click("Batch 128")
    lab.click("Undo")
    lab.page.get_by_text("The cell has its old code again; it was not run.").wait_for()
    assert CELL == lab.source(1)
    assert "[256, 128] undo" == run_text(lab, 2)
    lab.click("Run again")
    lab.button("Batch 128").wait_for()
    assert "[256, 128, 256] undo" == run_text(lab, 2)


def test_copy_puts_the_changed_cell_on_the_clipboard(lab, notebook):
    shown_choices(lab, notebook)
    lab.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    lab.click("Batch 128")
    lab.click("Copy the cell")
    lab.page.get_by_text("The cell is on the clipboard.").wait_for()
    assert CELL.replace("batch = 256", "batch = 128") == lab.page.evaluate("navigator.clipboard.readText()")


def test_where_the_browser_does_not_copy_the_code_is_shown(lab, notebook):
    shown_choices(lab, notebook)
    lab.page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('no')); }")
    lab.click("Batch 128")
    lab.click("Copy the cell")
    field = lab.page.locator(".tfmem textarea")
    field.wait_for()
    assert CELL.replace("batch = 256", "batch = 128") == field.input_value()


def test_a_rerun_behaves_like_a_run_of_the_cell(lab, notebook):
    body = """batch = 256
panel, _ = demo.show_panel(In[-1])
now = In[-1]
if batch == 256:
    panel.show(demo.outcome(now, demo.proposal("k", "Change it", now.replace(f"batch = {256}", f"batch = {128}"), now)))
else:
    from IPython.display import clear_output, display, HTML
    print("wi" + "ped"); clear_output(wait=True); print("kept")
    shown = display(HTML("<b>first</b>"), display_id=True)
    answer = input("name? "); print("answer", answer)
    import asyncio; await asyncio.sleep(0.1)
    1 / 0"""
    notebook(SETUP, body, "shown.update(HTML('<b>second</b>')); print('updated')")
    lab.run(0)
    lab.run(1)
    lab.click("Change it")
    field = lab.page.get_by_role("textbox", name="name?")
    field.fill("Ada")
    field.press("Enter")
    wait_until(lambda: "ZeroDivisionError" in lab.output_text(1), "the error is in the cell")
    text = lab.output_text(1)
    assert ["stream", "display_data", "stream", "error"] == [o["output_type"] for o in lab.outputs(1)]
    assert "wiped" not in text
    assert "kept" in text
    assert "answer Ada" in text
    lab.run(2)
    wait_until(lambda: "second" in lab.output_text(1), "the display is updated from a later cell")


def test_running_the_cell_by_hand_during_a_rerun_takes_its_outputs_back(lab, notebook):
    slow = CELL.replace("runs.append(batch)", "runs.append(batch)\nif batch == 128 and len(runs) == 2: time.sleep(3)")
    notebook(SETUP, slow, "print(runs)")
    lab.run(0)
    lab.run(1)
    lab.click("Batch 128")
    wait_until(lambda: lab.is_running(1), "the rerun is under way")
    lab.start(1)
    wait_until(lambda: lab.count(1) == 4, "the run by hand has ended")
    lab.wait_for_text(1, "batch 128 None")
    assert 1 == lab.output_text(1).count("batch 128")
    assert "[256, 128, 128]" == run_text(lab, 2)


def test_a_restart_replays_the_ticked_cells_and_this_one(lab, notebook):
    notebook(SETUP, "kept = 7", "late = 1  # skip me", RESTART)
    for index in range(4):
        lab.run(index)
    before = lab.output_text(3)
    lab.click("Grow on demand")
    lab.button("Restart and run these 3 cells").wait_for()
    assert "deletes files" in lab.page.locator(".tfmem-checklist").inner_text()
    lab.click("Restart and run these 3 cells")
    wait_until(
        lambda: "prepared first" in lab.output_text(3) and not lab.is_running(3), "the cell has run in the new kernel"
    )
    after = lab.output_text(3)
    assert "kept 7 late False" in after
    assert before.split("pid ")[1].split()[0] != after.split("pid ")[1].split()[0]
    assert [1, 2, 3] == wait_until(lambda: [lab.count(0), lab.count(1), lab.count(3)], "counts")
    assert 0 == lab.page.locator(".jp-Dialog").count()


def test_a_replay_stops_at_the_first_error_and_says_so(lab, notebook):
    notebook(SETUP, "kept = 7\nassert 'TFMEM_DEMO' not in os.environ", RESTART)
    for index in range(3):
        lab.run(index)
    lab.click("Grow on demand")
    lab.click("Restart and run these 3 cells")
    lab.page.get_by_role("alert").filter(has_text="its replay stopped at cell 2 of 3").wait_for()
    lab.wait_for_text(1, "AssertionError")
    assert "prepared first" not in lab.output_text(2)
    assert "Error displaying widget" not in lab.output_text(2)


def test_cancel_leaves_the_kernel_alone(lab, notebook):
    notebook(SETUP, "kept = 7", RESTART, "print(kept)")
    for index in range(3):
        lab.run(index)
    lab.click("Grow on demand")
    lab.click("Cancel")
    wait_until(lambda: lab.button("Grow on demand").is_enabled(), "the choices are back")
    assert 0 == lab.page.locator(".tfmem-checklist").count()
    assert "7" == run_text(lab, 3)


def test_a_saved_notebook_opens_without_a_kernel_and_without_a_broken_widget(lab, notebook):
    shown_choices(lab, notebook)
    saved = lab.save(lab.name)
    assert "application/vnd.jupyter.widget-view+json" not in json.dumps(saved)
    assert lab.button("Batch 128").is_visible()
    lab.shut_down()
    lab.new_page()
    lab.page.goto(lab.address(lab.name))
    lab.page.locator(".tfmem-frozen").wait_for()
    assert "Error displaying widget" not in lab.page.content()
    assert "Batch 128" in lab.output_text(1)


def test_after_the_page_is_loaded_again_the_panel_still_works(lab, notebook):
    shown_choices(lab, notebook)
    lab.save(lab.name)
    lab.open(lab.name)
    lab.click("Batch 128")
    lab.button("Undo").wait_for()
    lab.wait_for_text(1, "batch 128")


def test_of_two_windows_only_the_one_that_was_clicked_acts(lab, notebook):
    shown_choices(lab, notebook, "print(runs)")
    first = lab.page
    lab.save(lab.name)
    # The second window greets the kernel when the mouse is down in the first already, and before it is up.
    first.locator("button.jupyter-button", has_text="Batch 128").first.hover()
    first.mouse.down()
    lab.new_page()
    lab.open(lab.name)
    lab.page.locator(".tfmem-ready").first.wait_for()
    lab.page = first
    first.bring_to_front()
    first.mouse.up()
    lab.button("Undo").wait_for()
    assert "[256, 128]" == run_text(lab, 2)


def test_a_restart_by_the_person_leaves_static_text(lab, notebook):
    shown_choices(lab, notebook)
    lab.restart()
    wait_until(lambda: lab.page.locator(".tfmem-frozen").count(), "the panel is static")
    assert 0 == lab.page.locator(".tfmem button").count()


def test_dismissed_the_panel_becomes_static_text(lab, notebook):
    shown_choices(lab, notebook, "print(demo.NOTES)")
    lab.click("Dismiss")
    wait_until(lambda: lab.page.locator(".tfmem-frozen").count(), "the panel is static")
    assert "[('dismissed',)]" == run_text(lab, 2)


def test_with_the_script_blocked_the_buttons_run_a_copy_below(lab, notebook):
    notebook(
        SETUP, CELL, "print(demo.NOTES[-1][:2])", before=lambda page: page.route("**/anywidget/**", lambda r: r.abort())
    )
    lab.run(0)
    lab.run(1)
    lab.click("Run a changed copy below: Batch 128")
    lab.page.get_by_text("ran here: batch = 128").wait_for()
    assert CELL == lab.source(1)
    assert "('run_here', 'smaller-batch')" == run_text(lab, 2)


def test_with_the_script_blocked_the_code_can_be_copied_by_hand(lab, notebook):
    notebook(SETUP, CELL, before=lambda page: page.route("**/anywidget/**", lambda r: r.abort()))
    lab.run(0)
    lab.run(1)
    lab.button("Run a changed copy below: Batch 128").wait_for()
    lab.click("Copy the cell")
    field = lab.page.locator(".tfmem textarea")
    field.wait_for()
    assert CELL.replace("batch = 256", "batch = 128") == field.input_value()


def hidden(lab: Lab, notebook, script: str, *cells: str) -> Lab:
    """Open a notebook whose page hides something from the bridge."""
    notebook(SETUP + "\nimport ipywidgets; kept = 1", *cells)
    lab.run(0)
    lab.hide(script)
    lab.run(1)
    return lab


def test_without_the_notebook_the_copy_runs_below(lab, notebook):
    hidden(lab, notebook, "hideNotebook();", CELL, "print(runs)")
    lab.click("Run a changed copy below: Batch 128")
    wait_until(lambda: "batch 128 {'key': 'smaller-batch'" in lab.output_text(1), "the output is in the panel")
    assert CELL == lab.source(1)
    assert "[256, 128]" == run_text(lab, 2)


def test_a_display_inside_the_copy_below_can_be_updated(lab, notebook):
    cell = """a = 1
panel, _ = demo.show_panel(In[-1])
now = In[-1]
if a == 1: panel.show(demo.outcome(now, demo.proposal("k", "Change it", now.replace(f"a = {1}", f"a = {2}"), now)))
else:
    from IPython.display import HTML, display
    shown = display(HTML("first"), display_id=True); print("printed"); shown.update(HTML("second"))"""
    hidden(lab, notebook, "hideNotebook();", cell)
    lab.click("Run a changed copy below: Change it")
    wait_until(lambda: "printed" in lab.output_text(1), "the copy has run")
    wait_until(lambda: "second" in lab.output_text(1), "the display is updated")
    assert "first" not in lab.output_text(1)


def test_without_the_kernel_the_panel_runs_the_copy(lab, notebook):
    hidden(lab, notebook, "hideNotebook(); hideExecution();", CELL)
    lab.click("Run a changed copy below: Batch 128")
    lab.page.get_by_text("ran here: batch = 128").wait_for()
    assert CELL == lab.source(1)


def test_without_restart_the_panel_says_what_to_do(lab, notebook):
    hidden(lab, notebook, "hide(s, 'restartKernel'); hide(s.session.kernel, 'restart');", RESTART, "print(demo.NOTES)")
    lab.click("Grow on demand")
    lab.page.get_by_text("This takes a restart, which the page cannot do. Grow on demand: planned.").wait_for()
    assert "[('plan_restart', 'memory-growth')]" == run_text(lab, 2)


def test_the_panel_is_usable_by_keyboard(lab, notebook):
    shown_choices(lab, notebook)
    focused = "document.activeElement.textContent.trim()"
    lab.button("Batch 128").focus()
    order = []
    for _ in range(3):
        order.append(lab.page.evaluate(focused))
        lab.page.keyboard.press("Tab")
    assert ["Batch 128", "change", "Continue from epoch 3"] == order
    lab.page.locator(".tfmem-toggle").first.focus()
    lab.page.keyboard.press("Enter")
    lab.page.get_by_text("The estimate rests on: 2 measured runs").first.wait_for()
    lab.page.keyboard.press("Escape")
    wait_until(lambda: lab.page.locator(".tfmem-toggle.mod-active").count() == 0, "Escape closes the row")
    lab.button("Batch 128").focus()
    lab.page.keyboard.press("Enter")
    lab.button("Undo").wait_for()


def test_the_outcome_is_announced_once(lab, notebook):
    shown_choices(lab, notebook)
    spoken = lab.page.locator(".tfmem-spoken[aria-live=polite]")
    wait_until(lambda: spoken.inner_text(), "the outcome is announced")
    assert "Out of memory on GPU:0 after 12.4 s. 3 changes are offered below." == spoken.inner_text()


def test_letting_go_of_a_name_says_what_came_back(lab, notebook):
    shown_choices(lab, notebook, "print(demo.NOTES)")
    lab.click("2 names hold memory")
    lab.click("let go")
    lab.page.get_by_text("Let go of old_model: 0.5 GiB came back.").wait_for()
    assert lab.page.locator("button.jupyter-button", has_text="let go").first.is_disabled()
    assert "[('free', ('old_model',))]" == run_text(lab, 2)


def test_declined_remedies_open_to_their_reasons(lab, notebook):
    shown_choices(lab, notebook)
    reason = lab.page.get_by_text("nobody else uses this card")
    assert not reason.is_visible()
    lab.click("3 not offered")
    reason.wait_for()
    assert lab.button("Memory growth").is_visible()


@pytest.mark.parametrize("width", [400, 1200])
def test_nothing_scrolls_sideways(lab, notebook, width):
    notebook(SETUP, CELL)
    lab.page.set_viewport_size({"width": width, "height": 900})
    if width < 1000:
        lab.command("application:toggle-left-area")
    lab.run(0)
    lab.run(1)
    lab.button("Batch 128").wait_for()
    lab.page.locator(".tfmem-toggle").first.click()
    wide = "[...document.querySelectorAll('.tfmem, .tfmem *')].filter(e => e.scrollWidth > e.clientWidth + 1 &&"
    wide += " getComputedStyle(e).overflowX !== 'visible').map(e => e.className)"
    assert [] == [
        name for name in lab.page.evaluate(wide) if not {"tfmem-spoken", "tfmem-unseen"} & set(str(name).split())
    ]


def test_hostile_text_is_only_text(lab, notebook):
    hostile = "<img src=x onerror=window.hacked=1><script>window.hacked=1</script>"
    cell = f"""bad = {hostile!r}
panel, _ = demo.show_panel(In[-1])
from tf_mem_magic.core.outcome import Change, Outcome
from tf_mem_magic.core.proposals import Declined
p = demo.proposal("k", "T" + bad, In[-1] + bad, In[-1], why=bad, caveats=(bad,))
panel.show(demo.outcome(In[-1], p, declined=(Declined("d", bad, bad, patch=bad),), changes=(Change("file", bad, bad),),
    leftovers=((bad, 5),)))"""
    notebook(SETUP, cell)
    lab.run(0)
    lab.run(1)
    lab.button("let go").wait_for(state="attached")
    lab.click("1 not offered")
    lab.click("Dismiss")
    wait_until(lambda: lab.page.locator(".tfmem-frozen").count(), "the panel is static")
    assert lab.page.evaluate("window.hacked") is None
