"""The live panel: shows a run while it goes on, then its choices; carries clicks to the notebook by the bridge.

Callbacks may run in any of the kernel's threads (Jupyter's subshells), so none of them runs the user's code: they
send messages, and the page asks the kernel to run the cell as it would for a person.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict
from html import escape
from typing import Any

from tf_mem_magic.core.outcome import Outcome
from tf_mem_magic.core.proposals import Declined, Proposal
from tf_mem_magic.report.html.markup import plain
from tf_mem_magic.report.html.page import NO_END, choices_html
from tf_mem_magic.report.picture.live import Live
from tf_mem_magic.report.picture.strip import ended_message, tick_message
from tf_mem_magic.report.view import view_of
from tf_mem_magic.views import controls
from tf_mem_magic.views.actions import Actions, NotebookCell
from tf_mem_magic.views.alarm import Alarm
from tf_mem_magic.views.body import Body, Tier
from tf_mem_magic.views.bridge import open_bridge, style

HELLO_WITHIN = 3.0
"""Seconds in which the page must say hello once the kernel is idle; else its script is taken not to run."""

ANSWER_WITHIN = 8.0
"""Seconds in which the page must have taken up a click; else the buttons come back."""

_LATE = '<div class="tfmem-late">live view unavailable here; report at the end</div>'


class Panel:
    """One run's panel.

    Attributes
    ----------
    widget : ipywidgets.VBox
        What to display.
    on_freeze : callable or None
        Called with static HTML when the person dismisses the panel.
    on_undone : callable or None
        Called with a sentence when the cell has its old code again.
    hosts : bool
        A copy of the cell was run into the panel's own output area: closing the panel would take that away.
    """

    def __init__(
        self,
        actions: Actions,
        *,
        cell_source: str,
        cell_id: str | None,
        on_freeze: Callable[[str], None] | None = None,
    ) -> None:
        self.on_freeze = on_freeze
        self.on_undone: Callable[[str], None] | None = None
        self.hosts = False
        self._actions, self._source, self._cell_id = actions, cell_source, cell_id
        self._outcome: Outcome | None = None
        self._body: Body | None = None
        self._tier: Tier | None = None
        self._greeted = self._can_restart = self._busy = self._closed = self._is_undone = False
        self._page: str | None = None
        self._to_copy = self._original = ""
        self._instead: str | None = None
        self._asked: Proposal | None = None
        self._alarm = Alarm()
        self._lock = threading.RLock()
        self._late = controls.text(f"<style>{style()}</style>{_LATE}")
        self._choices, self._extra = controls.column(), controls.column()
        self._words = controls.text("", "tfmem-say")
        self._output = controls.output_area()
        self.widget = controls.column(name="tfmem")
        root = f"tfmem-{self.widget.model_id}"
        self.widget.add_class(root)
        self._bridge = open_bridge(root, self.widget.model_id, self._on_message)
        self._bridge.frozen = self.freeze_html()
        parts = (self._late, self._bridge, self._choices, self._words, self._extra, self._output)
        self.widget.children = parts

    @property
    def tier(self) -> Tier:
        """What the page allows: ``edit`` the cell and run it, ``execute`` only, or neither (``panel``)."""
        return self._tier or "panel"

    def tick(self, live: Live) -> None:
        """Show one moment of the run; called in the sampler's thread."""
        if not self._closed:
            self._bridge.send(tick_message(live))

    def tell_first(self, outcome: Outcome) -> None:
        """Say on the strip what has happened, while what filled the memory and what fits is being worked out."""
        if not self._closed:
            self._bridge.send(ended_message(outcome))

    def show(self, outcome: Outcome, *, instead: str | None = None, elapsed: float = 0.0) -> None:
        """Show what the run came to, with the choices it leaves, or the HTML ``instead`` of them.

        ``elapsed`` are the seconds since the run began: where the person has scrolled meanwhile, they stay there.
        """
        with self._lock:
            if self._closed:
                return
            self._outcome, self._instead = outcome, instead
            self._late.value = f"<style>{style()}</style>"
            self._bridge.frozen = self.freeze_html()
            self._build()
            self._bridge.buttons = self._body.count if self._body is not None else 0
            self._bridge.failed = outcome.recording.status in ("oom", "killed")
            self._bridge.elapsed, self._bridge.fresh = elapsed, True
            self._bridge.running = False
            self._bridge.announce = plain(view_of(outcome).announcement)
            if self._tier is None:
                self._actions.when_idle(self._wait_for_hello)

    def about_to_show(self) -> None:
        """Tell the page that the report comes now, in several messages: it holds the height until all is there."""
        if not self._closed:
            self._bridge.send({"op": "hold"})

    def freeze_html(self) -> str:
        """Give the panel as static HTML."""
        if self._is_undone:
            return ""
        if self._instead is not None:
            return self._instead
        return NO_END if self._outcome is None else choices_html(view_of(self._outcome))

    def close(self) -> None:
        """Close every widget of the panel. Idempotent."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._alarm.cancel()
            controls.close_tree(self.widget)

    # What the buttons do

    def apply(self, proposal: Proposal) -> None:
        """Run the cell with the change: in the cell, in a copy below, or after a restart."""
        with self._lock:
            if self._busy:
                return
            here = self.tier == "panel" and proposal.takes_effect == "rerun"
            if proposal.takes_effect == "restart":
                self._ask_for_restart(proposal)
            elif not here:
                self._ask_for_rerun(proposal)
        if here:  # outside the lock: this may take as long as the cell
            self._run_here(proposal)

    def combine(self, keys: tuple[str, ...], picked: tuple[str, ...] | None = None) -> Proposal | Declined:
        """Ask what applies several remedies at once, or one with what is ticked of it."""
        return self._actions.combine(keys, picked)

    def copy(self, source: str) -> None:
        """Put code on the clipboard, or in a field to copy by hand where the page cannot."""
        with self._lock:
            self._to_copy = source
            if self._greeted:
                self._send("copy", "copy", text=source)
            else:
                self._show_code("The changed cell, to copy:")

    def undo(self, original: str) -> None:
        """Put the cell's old code back."""
        with self._lock:
            self._original = original
            self._work("Putting the old code back …")
            self._actions.expect(original, "undo")
            self._ask("put", "undo", source=original, original=self._source)

    def free(self, name: str) -> None:
        """Let go of what a name holds."""
        self._say(self._actions.free((name,)))

    def dismiss(self) -> None:
        """Leave the static text in the panel's place."""
        self._send("freeze", "dismiss")
        if self.on_freeze is not None:
            self.on_freeze(self.freeze_html())
        self._actions.dismissed()

    def failed(self, error: Exception) -> None:
        """Say that a click went wrong."""
        self._ready(f"That did not work ({type(error).__name__}: {error}).")

    def _ask_for_rerun(self, proposal: Proposal) -> None:
        self.hosts = self.tier == "execute"
        if proposal.new_cell:
            self._work("Running the new cell …" if self.hosts else "Adding a cell below and running it …")
        else:
            self._work("Running the copy …" if self.hosts else "Changing the cell and running it again …")
        rerun = self._actions.expect(proposal.source, proposal.key)
        fields = {"source": proposal.source, "original": proposal.replaces, "output": self._output.model_id}
        fields["rerun"] = rerun or ""
        self._ask("run", proposal.key, **fields, new_cell=proposal.new_cell)

    def _run_here(self, proposal: Proposal) -> None:
        refusal = self._actions.refusal_here(proposal.source)
        if refusal is not None:
            self._say(f"Not run: {refusal}")
            return
        self.hosts = True
        self._work("Running the new cell below …" if proposal.new_cell else "Running the copy below …")
        self._actions.run_here(proposal.source, proposal.key, self._output, self._ready)

    def _ask_for_restart(self, proposal: Proposal) -> None:
        if self.tier == "edit" and self._can_restart:
            self._asked = proposal
            self._work("Asking the page for the notebook's cells …")
            self._ask("cells", proposal.key, original=proposal.replaces)
            return
        self._say(f"This takes a restart, which the page cannot do. {self._actions.plan_restart(proposal)}")

    def _show_checklist(self, proposal: Proposal, cells: tuple[NotebookCell, ...]) -> None:
        def restart() -> None:
            controls.fill(self._extra)
            self._work("Restarting the kernel …")
            ordered = self._actions.prepare_restart(proposal, checklist.ticked, self._page or "")
            self._send("restart", proposal.key, order=asdict(ordered.order), prologue=ordered.prologue)

        def cancel() -> None:
            controls.fill(self._extra)
            self._ready()

        checklist = controls.Checklist(self._actions.checklist(proposal, cells), restart, cancel)
        self._alarm.cancel()
        controls.fill(self._extra, checklist.widget)
        self._say("")

    # What is shown

    def _build(self) -> None:
        if self._outcome is None or self._closed or self._is_undone:
            return
        if self._instead is not None:
            controls.fill(self._choices, controls.text(self._instead, "tfmem-body"))
            return
        self._body = Body(self._outcome, self._tier or "edit", self._source, self)
        self._body.enable(not self._busy)
        controls.fill(self._choices, self._body.widget)

    def _undone(self, said: str) -> None:
        """Leave one button: to run the old code. The choices were about the other."""
        original, self._is_undone = self._original, True
        again = controls.button(
            "Run again", "Run the cell with its old code", lambda: self._run_again(original), accent=True
        )
        self._body = None
        controls.fill(self._choices, controls.row(again))
        self._bridge.frozen = self.freeze_html()
        self._ready("" if self.on_undone is not None else f"↶ Undone, not run yet. {said}")
        if self.on_undone is not None:
            self.on_undone(said)

    def _run_again(self, original: str) -> None:
        with self._lock:
            if not self._busy:
                self._work("Running the cell again …")
                self._ask(
                    "run", "again", source=original, original=original, output=self._output.model_id, new_cell=False
                )

    def _show_code(self, words: str) -> None:
        controls.fill(self._extra, controls.text(words), controls.code_to_copy(self._to_copy))

    def _say(self, words: str) -> None:
        self._words.value = f'<div role="status">{escape(words)}</div>' if words else ""

    def _work(self, words: str) -> None:
        """Disable the buttons while something is under way."""
        self._busy = True
        if self._body is not None:
            self._body.enable(False)
        self._say(words)

    def _ready(self, words: str = "") -> None:
        """Bring the buttons back."""
        self._busy = False
        self._alarm.cancel()
        if self._body is not None and not self._closed:
            self._body.enable(True)
        self._say(words)

    # What the page is asked, and what it says

    def _send(self, op: str, key: str, **fields: Any) -> None:
        self._bridge.send({"op": op, "key": key, "cell_id": self._cell_id, "page": self._page, **fields})

    def _ask(self, op: str, key: str, **fields: Any) -> None:
        """Send what the page must answer."""
        self._alarm.set(ANSWER_WITHIN, self._no_answer)
        self._send(op, key, **fields)

    def _on_message(self, message: Mapping[str, Any]) -> None:
        with self._lock:
            if self._closed:
                return
            op = message.get("op")
            self._page = message.get("page", self._page)
            if op == "hello":
                self._hello(message)
            elif op == "started":
                self._alarm.cancel()
            elif op == "refused":
                self._ready(str(message.get("reason", "")))
            elif op == "ran":
                self._ready()
            elif op == "put":
                self._undone(self._actions.undo())
            elif op == "copied" and message.get("ok"):
                self._say("The cell is on the clipboard.")
            elif op == "copied":
                self._show_code("The browser did not allow copying; here is the cell:")
            elif op == "cells" and self._asked is not None:
                proposal, self._asked = self._asked, None
                cells = tuple(NotebookCell(c["id"], c["source"], c.get("count")) for c in message["cells"])
                self._show_checklist(proposal, cells)

    def _hello(self, message: Mapping[str, Any]) -> None:
        before, tier = self._tier or "edit", message.get("tier")
        self._tier = tier if tier in ("edit", "execute") else "panel"
        self._greeted, self._can_restart = True, bool(message.get("restart"))
        if not self._busy:
            self._alarm.cancel()
        if before != self._tier:
            self._build()

    def _wait_for_hello(self) -> None:
        with self._lock:
            if self._tier is None and not self._closed:
                self._alarm.set(HELLO_WITHIN, self._no_hello)

    def _no_hello(self) -> None:
        with self._lock:
            if self._tier is None:
                self._tier = "panel"
                self._build()

    def _no_answer(self) -> None:
        with self._lock:
            if self._busy:
                self._ready("The page did not answer. Reload it and try again, or copy the changed cell.")
