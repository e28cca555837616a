"""The panel without a page: what it shows, asks and refuses."""

from __future__ import annotations

import re
import threading
from dataclasses import replace

import pytest

from tests.panel_demo import GIB, NotingActions, live_at, outcome, proposal, reran, rich
from tf_mem_magic.core.outcome import Attempt, Change, Outcome
from tf_mem_magic.core.proposals import Declined, Estimate, Pick
from tf_mem_magic.core.recording import Cell, Recording
from tf_mem_magic.report.choices import choice_view
from tf_mem_magic.report.html.page import NO_END, choices_html, details_html, rest_html
from tf_mem_magic.report.picture.live import Live, LiveSeries
from tf_mem_magic.report.picture.strip import clock, main_series, tick_message
from tf_mem_magic.report.view import view_of
from tf_mem_magic.views import panel as panel_module
from tf_mem_magic.views.actions import Ordered, ReplayCell
from tf_mem_magic.views.panel import Panel
from tf_mem_magic.views.replay import Order, Step

CELL, CHANGED = "batch = 256", "batch = 128"


class Notes(NotingActions):
    """Actions that take their notes per test."""

    def __init__(self):
        self.notes = []

    def expect(self, source, key):
        self.notes.append(("expect", source, key))

    def run_here(self, source, key, output, ended):
        self.notes.append(("run_here", source, key, threading.current_thread().name))
        ended()

    def free(self, names):
        self.notes.append(("free", names))
        return "freed"

    def checklist(self, proposal, cells):
        return tuple(ReplayCell(c.cell_id, c.source, True) for c in cells)

    def prepare_restart(self, proposal, ticked=None, page=""):
        self.notes.append(("prepare_restart", proposal.key))
        steps = tuple(Step(each, "", "") for each in ticked or ())
        return Ordered(Order("plan", proposal.title, proposal.key, steps, CELL, CELL, page), "prologue")

    def plan_restart(self, proposal):
        self.notes.append(("plan_restart", proposal.key))
        return "It is <planned>."

    def dismissed(self):
        self.notes.append(("dismissed",))


class Driven:
    """A panel with the page played by the test: ``sent`` is what the page would get."""

    def __init__(self, shown: Outcome | None = None, tier: str | None = "edit", restart: bool = True) -> None:
        self.actions = Notes()
        self.panel = Panel(self.actions, cell_source=CELL, cell_id="c1")
        self.sent: list[dict] = []
        self.panel._bridge.send = lambda content, buffers=None: self.sent.append(content)
        if tier is not None:
            self.page(op="hello", tier=tier, restart=restart, page="p1")
        if shown is not None:
            self.panel.show(shown)

    def page(self, **message) -> None:
        self.panel._bridge._handle_custom_msg(message, [])

    def widgets(self, widget=None):
        widget = self.panel.widget if widget is None else widget
        yield widget
        for child in getattr(widget, "children", ()):
            yield from self.widgets(child)

    def buttons(self) -> dict:
        return {w.description: w for w in self.widgets() if type(w).__name__ == "Button"}

    def text(self) -> str:
        return "\n".join(w.value for w in self.widgets() if type(w).__name__ == "HTML" and "<style>" not in w.value)

    def said(self) -> str:
        return self.panel._words.value


@pytest.fixture
def driven(request):
    made = []

    def make(*args, **kwargs) -> Driven:
        made.append(Driven(*args, **kwargs))
        return made[-1]

    yield make
    for each in made:
        each.panel.close()


def open_widgets() -> int:
    from ipywidgets import Widget
    from ipywidgets.widgets import widget as module

    instances = getattr(module, "_instances", None)
    return len(Widget.widgets if instances is None else instances)


def ticks(panel):
    found, todo = [], [panel.widget]
    while todo:
        widget = todo.pop()
        todo += getattr(widget, "children", ())
        if type(widget).__name__ == "Checkbox":
            found.append(widget)
    return list(reversed(found))


def test_two_ticked_changes_are_offered_together(driven):
    d = driven(rich(CELL, CHANGED))
    first, second, *_ = ticks(d.panel)
    first.value = True
    assert "Apply together" not in " ".join(d.buttons())
    second.value = True
    (label,) = (text for text in d.buttons() if "Apply together" in text)
    second.value = False
    assert label not in d.buttons()


def test_changes_that_cannot_be_combined_say_why(driven):
    d = driven(rich(CELL, CHANGED))
    d.actions.combine = lambda keys, picked: Declined("+".join(keys), "both", "these two cannot be combined")
    for box in ticks(d.panel)[:2]:
        box.value = True
    assert "these two cannot be combined" in d.text()


FREE = ("cache", "Out[2]")
TICK = "combine with others that are ticked"


def freeing(names=FREE):
    picks = (Pick("cache", 3 * GIB, "tf.Tensor", "cache" in names), Pick("Out[2]", GIB, "", "Out[2]" in names))
    free = ", ".join(repr(name) for name in names)
    return proposal("free-leftovers", f"Let go of {', '.join(names)}", f"free({free})\n{CELL}", CELL, picks=picks)


def ticking(driven):
    """A panel that offers to let go of two names, and another change."""
    other = proposal("smaller-batch", "Batch 128", CHANGED, CELL)
    d = driven(outcome(CELL, freeing(), other))
    asked = []

    def combine(keys, picked):
        asked.append((keys, picked))
        if picked == ():
            return Declined("+".join(keys), "Let go of leftovers", "nothing is ticked")
        return replace(freeing(picked or FREE), key="+".join(keys), picks=())

    d.actions.combine = combine
    return d, asked, {box.description: box for box in ticks(d.panel)}


def test_what_can_be_let_go_has_a_box_with_its_size(driven):
    d, _, boxes = ticking(driven)
    names = ["cache (3.0 GiB, tf.Tensor)", "Out[2] (1.0 GiB)", TICK]
    assert names == [box.description for box in ticks(d.panel)][:3]
    assert [True, True, False] == [boxes[name].value for name in names]
    assert "4.0 GiB of 4.0 GiB ticked." in d.text()


def test_the_boxes_are_folded_however_many_there_are(driven):
    picks = tuple(Pick(f"value_{i}", (40 - i) * GIB, "", True) for i in range(40))
    d = driven(outcome(CELL, replace(freeing(), picks=picks)))
    folds = [w for w in d.widgets() if "tfmem-folded" in getattr(w, "_dom_classes", ())]
    hidden = {w.description for fold in folds for w in d.widgets(fold) if type(w).__name__ == "Checkbox"}
    assert (len(hidden), {box.description for box in ticks(d.panel)} - hidden) == (40, set())
    assert "40 names to tick" in {w.description for w in d.widgets() if type(w).__name__ == "ToggleButton"}


def test_where_there_is_nothing_to_press_the_page_still_learns_of_the_failure(driven):
    d = driven()
    d.panel.show(rich(CELL, CHANGED), instead="<p>what can be done</p>", elapsed=3.5)
    bridge = d.panel._bridge
    assert (bridge.failed, bridge.fresh, bridge.elapsed, bridge.buttons, bridge.running) == (True, True, 3.5, 0, False)
    assert ("<p>what can be done</p>" in d.text(), d.buttons(), d.panel.freeze_html()) == (
        True,
        {},
        "<p>what can be done</p>",
    )


def test_what_is_cleared_leaves_the_button_and_the_change(driven):
    d, asked, boxes = ticking(driven)
    boxes["Out[2] (1.0 GiB)"].value = False
    assert [(("free-leftovers",), ("cache",))] == asked
    assert ("Let go of cache", True) == (next(iter(d.buttons())), "3.0 GiB of 4.0 GiB ticked." in d.text())
    assert "free(&#x27;cache&#x27;)" in d.text()
    assert "Out[2]&#x27;)" not in d.text()
    d.buttons()["Let go of cache"].click()
    assert [("expect", f"free('cache')\n{CELL}", "free-leftovers")] == d.actions.notes


def test_with_nothing_ticked_there_is_nothing_to_press(driven):
    d, _, boxes = ticking(driven)
    boxes["Out[2] (1.0 GiB)"].value = False
    boxes["cache (3.0 GiB, tf.Tensor)"].value = False
    assert ["Batch 128", "Dismiss"] == list(d.buttons())
    assert "Nothing is ticked." in d.text()
    boxes["cache (3.0 GiB, tf.Tensor)"].value = True
    assert "Let go of cache" in d.buttons()


def test_what_is_ticked_is_what_is_combined(driven):
    d, asked, boxes = ticking(driven)
    first, second = (box for box in ticks(d.panel) if box.description == TICK)
    first.value = second.value = True
    keys = ("free-leftovers", "smaller-batch")
    assert [(keys, None)] == asked
    boxes["cache (3.0 GiB, tf.Tensor)"].value = False
    assert (keys, ("Out[2]",)) in asked
    assert "Apply together: Let go of Out[2]" in d.buttons()


def test_a_tick_that_fails_says_so(driven):
    d, _, boxes = ticking(driven)
    d.actions.combine = lambda keys, picked: 1 / 0
    boxes["Out[2] (1.0 GiB)"].value = False
    assert "That did not work (ZeroDivisionError: division by zero)." in d.said()


def test_ticking_leaves_no_widget_behind(driven):
    _, _, boxes = ticking(driven)
    before = open_widgets()
    for value in (False, True, False, True):
        boxes["Out[2] (1.0 GiB)"].value = value
    assert before == open_widgets()


def test_only_the_first_choice_has_the_accent_colour(driven):
    buttons = driven(rich(CELL, CHANGED)).buttons()
    assert ["Batch 128"] == [label for label, b in buttons.items() if b.button_style == "primary"]


def test_a_click_asks_the_page_to_change_the_cell_and_run_it(driven):
    d = driven(rich(CELL, CHANGED))
    d.buttons()["Batch 128"].click()
    asked = d.sent[-1]
    assert [("expect", CHANGED, "smaller-batch")] == d.actions.notes
    assert ("run", CHANGED, CELL, "smaller-batch", "c1", "p1") == tuple(
        asked[name] for name in ("op", "source", "original", "key", "cell_id", "page")
    )


def test_while_a_rerun_is_under_way_every_button_is_disabled(driven):
    d = driven(rich(CELL, CHANGED))
    d.buttons()["Batch 128"].click()
    assert {True} == {b.disabled for b in d.buttons().values()}


def test_a_second_click_during_a_rerun_does_nothing(driven):
    d = driven(rich(CELL, CHANGED))
    d.buttons()["Batch 128"].click()
    d.buttons()["Keep batch 256, in 2 steps of 128"].click()
    assert ["run"] == [m["op"] for m in d.sent]


def test_a_refusal_brings_the_buttons_back_with_the_reason(driven):
    d = driven(rich(CELL, CHANGED))
    d.buttons()["Batch 128"].click()
    d.page(op="refused", reason="edited <b>meanwhile</b>")
    assert {False} == {b.disabled for b in d.buttons().values()}
    assert "edited &lt;b&gt;meanwhile&lt;/b&gt;" in d.said()


def test_a_page_that_does_not_answer_brings_the_buttons_back(driven, monkeypatch):
    monkeypatch.setattr(panel_module, "ANSWER_WITHIN", 0.01)
    d = driven(rich(CELL, CHANGED))
    d.buttons()["Batch 128"].click()
    d.panel._alarm._timer.join(30)
    assert "The page did not answer." in d.said()
    assert {False} == {b.disabled for b in d.buttons().values()}


def test_a_page_that_never_said_hello_gets_the_texts_of_the_panel_tier(driven, monkeypatch):
    monkeypatch.setattr(panel_module, "HELLO_WITHIN", 0.01)
    d = driven(rich(CELL, CHANGED), tier=None)
    d.panel._alarm._timer.join(30)
    assert "panel" == d.panel.tier
    assert "Run a changed copy below: Batch 128" in d.buttons()


def test_while_the_kernel_is_still_busy_the_page_is_not_given_up(driven, monkeypatch):
    monkeypatch.setattr(panel_module, "HELLO_WITHIN", 0.0)
    later = []
    monkeypatch.setattr(Notes, "when_idle", lambda self, work: later.append(work))
    d = driven(rich(CELL, CHANGED), tier=None)
    assert (d.panel._alarm._timer, "Batch 128" in d.buttons()) == (None, True)
    d.page(op="hello", tier="edit", restart=True)
    later[0]()
    assert (d.panel._alarm._timer, d.panel.tier) == (None, "edit")


def test_a_hello_that_comes_late_gives_the_native_texts_back(driven, monkeypatch):
    monkeypatch.setattr(panel_module, "HELLO_WITHIN", 0.01)
    d = driven(rich(CELL, CHANGED), tier=None)
    d.panel._alarm._timer.join(30)
    d.page(op="hello", tier="edit", restart=True)
    assert "Batch 128" in d.buttons()


def test_of_two_windows_the_one_that_was_touched_last_gets_the_order(driven):
    d = driven(rich(CELL, CHANGED))
    d.page(op="hello", tier="edit", restart=True, page="p2")
    d.page(op="here", page="p1")
    d.buttons()["Batch 128"].click()
    assert "p1" == next(m["page"] for m in d.sent if m["op"] == "run")


def test_a_page_that_is_loaded_again_takes_over_without_a_touch(driven):
    d = driven(rich(CELL, CHANGED))
    d.page(op="here", page="p1")
    d.page(op="hello", tier="edit", restart=True, page="p2")
    d.buttons()["Batch 128"].click()
    assert "p2" == next(m["page"] for m in d.sent if m["op"] == "run")


def test_where_the_cell_cannot_be_changed_copy_comes_first(driven):
    labels = list(driven(outcome(CELL, proposal("k", "Halve it", CHANGED, CELL)), tier="execute").buttons())
    assert ["Copy the cell", "Run a changed copy below: Halve it", "Dismiss"] == labels


def test_without_the_page_the_copy_runs_here(driven):
    d = driven(rich(CELL, CHANGED), tier="panel")
    d.buttons()["Run a changed copy below: Batch 128"].click()
    assert [("run_here", CHANGED, "smaller-batch")] == [note[:3] for note in d.actions.notes]
    assert [] == d.sent


@pytest.mark.parametrize(("tier", "hosts"), [("edit", False), ("execute", True), ("panel", True)])
def test_a_panel_whose_output_area_shows_a_run_says_so(driven, tier, hosts):
    d = driven(rich(CELL, CHANGED), tier=tier)
    next(b for label, b in d.buttons().items() if label.endswith("Batch 128")).click()
    assert hosts == d.panel.hosts


def test_a_run_here_leaves_the_panel_free_to_be_closed_meanwhile(driven):
    d = driven(rich(CELL, CHANGED), tier="panel")

    def run_here(source, key, output, ended):
        closing = threading.Thread(target=d.panel.close)
        closing.start()
        closing.join(30)
        d.actions.notes.append(closing.is_alive())

    d.actions.run_here = run_here
    d.buttons()["Run a changed copy below: Batch 128"].click()
    assert [False] == d.actions.notes


def test_a_copy_that_cannot_run_here_is_refused_with_the_reason(driven):
    d = driven(outcome(CELL, proposal("k", "Halve it", "await f()", CELL)), tier="panel")
    d.buttons()["Run a changed copy below: Halve it"].click()
    assert "The cell uses await at top level." in d.said()
    assert [] == d.actions.notes


def test_a_choice_of_a_proposal_runs_its_own_source(driven):
    d = driven(rich(CELL, CHANGED))
    d.buttons()["Continue from epoch 3"].click()
    assert CHANGED + "\n# from epoch 3" == d.sent[-1]["source"]


def restart_outcome() -> Outcome:
    return outcome(CELL, proposal("memory-growth", "Grow on demand", CELL, CELL, takes_effect="restart"))


def test_a_restart_shows_the_cells_that_would_be_replayed(driven):
    d = driven(restart_outcome())
    d.buttons()["Grow on demand"].click()
    d.page(op="cells", cells=[{"id": "a", "source": "x = 1", "count": 1}, {"id": "b", "source": "y = 2", "count": 2}])
    assert "Restart and run these 3 cells" in d.buttons()
    next(w for w in d.widgets() if type(w).__name__ == "Checkbox").value = False
    d.buttons()["Restart and run these 2 cells"].click()
    sent = d.sent[-1]
    assert ("restart", "prologue", "p1") == (sent["op"], sent["prologue"], sent["order"]["driver"])
    assert ["b"] == [step["id"] for step in sent["order"]["steps"]]


def test_the_checklist_names_cells_by_their_telling_lines_and_has_their_times_in_a_column(driven):
    d = driven(restart_outcome())
    sources = ("%load_ext tf_mem_magic\nimport os\nx = load()", "from a import b\ny = b()", "import c")
    seconds = (12.34, None, 0.02)
    d.actions.checklist = lambda proposal, cells: tuple(
        ReplayCell(str(n), source, True, took, ("writes files",) if n == 1 else ())
        for n, (source, took) in enumerate(zip(sources, seconds))
    )
    d.buttons()["Grow on demand"].click()
    d.page(op="cells", cells=[])
    boxes = [w.description for w in d.widgets() if type(w).__name__ == "Checkbox"]
    assert ["x = load()", "y = b()", "import c"] == boxes
    beside = [w.value for w in d.widgets() if "tfmem-beside" in w._dom_classes]
    times = [re.search('<span class="[^"]*tfmem-took[^"]*">(.*?)</span>', value)[1] for value in beside]
    assert ["12.3 s", "not timed", "0.02 s"] == times
    assert [False, True, False] == ["writes files" in value for value in beside]


def test_cancelling_a_restart_brings_the_choices_back(driven):
    d = driven(restart_outcome())
    d.buttons()["Grow on demand"].click()
    d.page(op="cells", cells=[])
    d.buttons()["Cancel"].click()
    assert not d.buttons()["Grow on demand"].disabled
    assert [] == d.actions.notes


def test_where_the_page_cannot_restart_the_panel_says_what_to_do(driven):
    d = driven(restart_outcome(), restart=False)
    d.buttons()["Grow on demand"].click()
    assert "This takes a restart, which the page cannot do. It is &lt;planned&gt;." in d.said()
    assert [("plan_restart", "memory-growth")] == d.actions.notes


def test_undo_asks_the_page_to_put_the_old_code_back(driven):
    d = driven(reran(CELL, "batch = 512"))
    d.buttons()["Undo"].click()
    asked = d.sent[-1]
    assert ("put", "batch = 512", CELL) == (asked["op"], asked["source"], asked["original"])
    d.page(op="put")
    assert "Undone, not run yet" in d.said()


def test_after_undo_the_one_button_runs_the_old_code(driven):
    d = driven(reran(CELL, "batch = 512"))
    told = []
    d.panel.on_undone = told.append
    d.buttons()["Undo"].click()
    d.page(op="put")
    assert (["Run again"], "") == (list(d.buttons()), d.said())
    assert ["The cell has its old code again; it was not run. Weights stay as trained."] == told
    d.buttons()["Run again"].click()
    assert ("run", "batch = 512", "batch = 512") == tuple(d.sent[-1][name] for name in ("op", "source", "original"))


def test_where_the_cell_was_not_changed_there_is_nothing_to_undo(driven):
    assert "Undo" not in driven(reran(CELL, "batch = 512"), tier="execute").buttons()


def test_a_click_that_fails_says_so(driven):
    d = driven(rich(CELL, CHANGED))
    d.actions.free = lambda names: 1 / 0
    d.buttons()["let go"].click()
    assert "That did not work (ZeroDivisionError: division by zero)." in d.said()


def test_dismissing_hands_out_the_static_text(driven):
    d = driven(rich(CELL, CHANGED))
    frozen = []
    d.panel.on_freeze = frozen.append
    d.buttons()["Dismiss"].click()
    assert [d.panel.freeze_html()] == frozen
    assert [("dismissed",)] == d.actions.notes


def test_a_closed_panel_leaves_no_widget_behind():
    Panel(Notes(), cell_source=CELL, cell_id=None).close()
    before = open_widgets()
    d = Driven(rich(CELL, CHANGED))
    d.page(op="hello", tier="execute")
    d.page(op="hello", tier="edit", restart=True)
    d.panel.close()
    d.panel.close()
    assert before == open_widgets()


def test_a_closed_panel_takes_no_more_moments():
    d = Driven()
    d.panel.close()
    d.panel.tick(live_at(1.0))
    d.panel.show(rich(CELL, CHANGED))
    assert [] == d.sent


def test_what_the_run_already_changed_is_named_before_anything_is_opened():
    page = rest_html(view_of(rich(CELL, CHANGED)))
    named = next(line for line in re.findall("<summary[^>]*>(.*?)</summary>", page) if "Already changed" in line)
    assert ">model</code>" in named


HOSTILE = "<script>alert(1)</script>"


@pytest.mark.parametrize("make", [lambda shown: choices_html(view_of(shown)), lambda shown: Driven(shown).text()])
def test_text_from_outside_is_escaped(make):
    bad = proposal(
        "k", HOSTILE, HOSTILE, CELL, why=HOSTILE, caveats=(HOSTILE,), environment=((HOSTILE, HOSTILE),),
        estimate=Estimate(1, 2, HOSTILE),
    )  # fmt: skip
    shown = outcome(
        CELL, bad, proposal("k", HOSTILE, HOSTILE, CELL, why=HOSTILE),
        declined=(Declined("d", HOSTILE, HOSTILE, patch=HOSTILE, settings=bad),),
        changes=(Change("file", HOSTILE, HOSTILE),),
        leftovers=((HOSTILE, 5),),
        history=(Attempt(HOSTILE, "oom"), Attempt(HOSTILE, "ok")),
    )  # fmt: skip
    html = make(shown)
    assert "<script>" not in html
    assert "&lt;script&gt;" in html


def test_a_row_without_an_estimate_has_an_empty_place_beside_one_that_has(driven):
    text = driven(rich(CELL, CHANGED)).text()
    assert ("7.0–8.1 GiB" in text, 'aria-label="not known"' in text, "not measured" in text) == (True, True, False)


def test_where_no_row_has_an_estimate_there_is_no_column_for_them(driven):
    text = driven(outcome(CELL, proposal("k", "t", CHANGED, CELL))).text()
    assert ('tfmem-unseen">expected peak' in text, 'tfmem-unseen">keeps' in text) == (False, True)


def test_a_row_opens_to_its_name_its_reasons_and_what_the_estimate_rests_on():
    given = proposal("k", "t", CHANGED, CELL, why="Saves on `x`.", caveats=("Slower.",), technique="Mixed precision")
    html = details_html(choice_view(given, outcome(CELL, given)))
    parts = ("Saves on <code", "<li>Slower.</li>", "mixed precision</abbr>", "Nothing measured yet")
    assert [part for part in parts if part not in html] == []


def test_the_diff_shows_what_goes_and_what_comes():
    given = proposal("k", "t", CHANGED, CELL)
    html = details_html(choice_view(given, outcome(CELL, given)))
    assert html.index(">-batch = 256</span>") < html.index(">+batch = 128</span>")


def test_a_cost_that_decides_stands_in_the_row(driven):
    text = driven(outcome(CELL, proposal("k", "t", CHANGED, CELL, cost="slower on CPU"))).text()
    assert text.index("other gradients") < text.index("<b>slower on CPU</b>") < text.index("<pre")


def test_only_three_changes_are_seen_before_anything_is_opened(driven):
    many = [proposal(f"k{i}", f"Change {i}", f"x = {i}", CELL) for i in range(5)]
    toggles = [w.description for w in driven(outcome(CELL, *many)).widgets() if type(w).__name__ == "ToggleButton"]
    assert toggles == ["change", "", "", "2 more", "", ""]


def test_what_folds_has_a_name_of_its_own(driven):
    toggles = [w.tooltip for w in driven(rich(CELL, CHANGED)).widgets() if type(w).__name__ == "ToggleButton"]
    assert len(toggles) == len(set(toggles)) > 3


def test_a_run_that_went_on_until_the_kernel_ended_freezes_to_a_sentence(driven):
    assert (driven().panel.freeze_html(), "<code>%tfmem last</code> shows it" in NO_END) == (NO_END, True)


def test_the_announcement_is_one_short_text():
    said = view_of(rich(CELL, CHANGED)).announcement
    assert said.startswith("Out of memory on GPU:0 after 12.4 s")
    assert said.endswith(". 3 changes are offered below.")


def test_the_strip_shows_the_fullest_gpu():
    series = tuple(LiveSeries(f"allocator:GPU:{i}", v, v, 10) for i, v in enumerate((3, 9, 5)))
    cpu = LiveSeries("allocator:CPU:0", 99, 99, 100)
    assert "allocator:GPU:1" == main_series(Live(1.0, (cpu, *series))).name


def test_the_strips_numbers_share_one_unit():
    message = tick_message(live_at(42.0))
    assert "0:42" == message["elapsed"]
    assert [
        "GPU:0   in use 8.1 GiB   peak 8.8 GiB   limit 14.7 GiB",
        "all processes 14.6 GiB",
        "host 6.1 GiB",
    ] == message["numbers"]


@pytest.mark.parametrize(("level", "amber"), [(0.6, False), (0.99, True)])
def test_the_strip_turns_amber_near_the_limit(level, amber):
    assert amber == tick_message(live_at(42.0, level=level))["amber"]


def test_a_waiting_allocator_is_named():
    words = tick_message(live_at(3.0, waiting="GPU:0"))["words"]
    assert "GPU:0 is full: TensorFlow is waiting up to 10 s for memory to be freed …" == words


def test_a_limit_far_above_the_curve_is_not_drawn():
    assert None is tick_message(live_at(3.0, level=0.1))["limit"]


def test_a_moment_without_series_can_be_shown():
    assert ("0:05", []) == (tick_message(Live(5.0))["elapsed"], tick_message(Live(5.0))["numbers"])


def test_the_clock_counts_hours():
    assert "2:03:04" == clock(7384.0)


def test_an_outcome_without_a_limit_shows_the_bare_range():
    given = proposal("k", "t", "", "", estimate=Estimate(GIB, GIB, "b"))
    shown = choice_view(given, Outcome(Recording(Cell(CELL)), offered=(given,))).expected
    assert ("1.0 GiB", "") == (shown.range, shown.word)
