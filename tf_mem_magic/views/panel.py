"""The live panel: shows a run while it goes on, then its choices; carries clicks to the notebook by the bridge.

Callbacks may run in any of the kernel's threads (Jupyter's subshells), so none of them runs the user's code: they
send messages, and the page asks the kernel to run the cell as it would for a person.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import partial
from html import escape
from typing import Any, Literal

from tf_mem_magic.core import units
from tf_mem_magic.core.live import Live
from tf_mem_magic.core.outcome import Outcome
from tf_mem_magic.core.proposals import Proposal
from tf_mem_magic.views import controls, rows
from tf_mem_magic.views.actions import Actions, NotebookCell
from tf_mem_magic.views.bridge import open_bridge, style
from tf_mem_magic.views.strip import tick_message

Tier = Literal["edit", "execute", "panel"]

HELLO_WITHIN = 3.0
"""Seconds after the run in which the page must have said hello; else its script is taken not to run."""

ANSWER_WITHIN = 8.0
"""Seconds in which the page must have taken up a click; else the buttons come back."""

_LATE = '<div class="tfmem-late">live view unavailable here; report at the end</div>'


class Panel:
    """One run's panel. ``widget`` is what to display; ``on_freeze(html)`` is called when it is dismissed."""

    def __init__(
        self,
        actions: Actions,
        *,
        cell_source: str,
        cell_id: str | None,
        on_freeze: Callable[[str], None] | None = None,
    ) -> None:
        self.on_freeze = on_freeze
        self._actions, self._source, self._cell_id = actions, cell_source, cell_id
        self._outcome: Outcome | None = None
        self._tier: Tier | None = None
        self._can_restart = False
        self._page: str | None = None
        self._closed = False
        self._busy = False
        self._asked: Proposal | None = None
        self._to_copy = ""
        self._timer: threading.Timer | None = None
        self._lock = threading.RLock()
        self._buttons: list[Any] = []
        self._late = controls.text(f"<style>{style()}</style>{_LATE}")
        self._body, self._extra = controls.column(), controls.column()
        self._say_box = controls.text("", "tfmem-say")
        self._output = controls.output_area()
        self.widget = controls.column(self._late)
        root = f"tfmem-{self.widget.model_id}"
        self.widget.add_class("tfmem")
        self.widget.add_class(root)
        self._bridge = open_bridge(root, self.widget.model_id, self._on_message)
        self.widget.children = (self._late, self._bridge, self._body, self._say_box, self._extra, self._output)
        self._bridge.frozen = self.freeze_html()

    @property
    def tier(self) -> Tier:
        """What the page allows: ``edit`` the cell and run it, ``execute`` only, or neither (``panel``)."""
        return self._tier or "panel"

    def tick(self, live: Live) -> None:
        """Show one moment of the run; called in the sampler's thread."""
        if not self._closed:
            self._bridge.send(tick_message(live))

    def show(self, outcome: Outcome) -> None:
        """Show what the run came to, with the choices it leaves."""
        with self._lock:
            self._outcome = outcome
            self._bridge.running = False
            self._late.value = f"<style>{style()}</style>"
            self._bridge.frozen = self.freeze_html()
            self._build()
            self._bridge.send({"op": "done", "announce": rows.announcement(outcome)})
            if self._tier is None:
                self._after(HELLO_WITHIN, self._no_hello)

    def freeze_html(self) -> str:
        """Give the panel as static HTML."""
        return rows.frozen_html(self._outcome)

    def close(self) -> None:
        """Close every widget of the panel. Idempotent."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._cancel_timer()
            controls.close_tree(self.widget)

    # What is shown

    def _build(self) -> None:
        outcome = self._outcome
        if outcome is None or self._closed:
            return
        old = self._body.children
        self._buttons = []
        parts = [controls.text(rows.comparison_html(outcome.comparison, outcome.history))]
        if outcome.comparison is not None and outcome.comparison.original:
            parts.append(self._after_rerun(outcome.comparison.original))
        if outcome.offered:
            parts.append(controls.text(rows.changes_html(outcome.changes)))
            parts.append(controls.text(self._heading(outcome), "tfmem-head"))
            parts += [self._proposal_row(p, first=i == 0) for i, p in enumerate(outcome.offered)]
        if outcome.leftovers:
            parts.append(controls.text("Left in memory", "tfmem-head"))
            parts += [self._leftover_row(name, size) for name, size in outcome.leftovers]
        if outcome.declined:
            reasons = []
            for declined in outcome.declined:
                reasons.append(controls.text(rows.declined_html(declined)))
                if declined.settings is not None:
                    reasons.append(self._proposal_row(declined.settings, first=False))
            parts.append(controls.folded(rows.declined_line(outcome.declined), *reasons))
        parts.append(self._button("Dismiss", "Close the panel; its text stays in the notebook", self._dismiss))
        self._body.children = tuple(parts)
        for widget in old:
            controls.close_tree(widget)

    def _heading(self, outcome: Outcome) -> str:
        if self._tier in ("execute", "panel"):
            return "Run a changed copy below. The cell itself keeps the old code: copy the change into it."
        return "Try the next" if outcome.comparison is not None else "Change the cell and run it again"

    def _proposal_row(self, proposal: Proposal, *, first: bool) -> Any:
        assert self._outcome is not None
        facts = controls.text(rows.row_html(proposal, rows.limit_of(self._outcome)))
        below = self._tier in ("execute", "panel")
        copy = self._button("Copy the cell", "Copy the changed cell", partial(self._copy, proposal.source))
        label = f"Run a changed copy below: {proposal.title}" if below else proposal.title
        does = "Run a copy with this change" if below else "Change the cell and run it again"
        apply = self._button(
            label, f"{does}: {proposal.title}", partial(self._apply, proposal, proposal.source), accent=first
        )
        extra = [
            self._button(choice.label, choice.note or choice.label, partial(self._apply, proposal, choice.source))
            for choice in proposal.choices
        ]
        return controls.row(*((copy, apply) if below else (apply,)), *extra, facts)

    def _leftover_row(self, name: str, size: int) -> Any:
        let_go = self._button("let go", f"Let go of what {name} holds", partial(self._free, name))
        return controls.row(let_go, controls.text(f"<code>{escape(name)}</code> {units.size(size)}"))

    def _after_rerun(self, original: str) -> Any:
        undo = self._button("Undo", "Put the cell's old code back; nothing is run", partial(self._undo, original))
        copy = self._button("Copy the cell", "Copy the changed cell", partial(self._copy, self._source))
        return controls.row(undo, copy)

    def _button(self, label: str, tip: str, press: Callable[[], None], *, accent: bool = False) -> Any:
        made = controls.button(label, tip, partial(self._guarded, press), accent=accent)
        made.disabled = self._busy
        self._buttons.append(made)
        return made

    def _guarded(self, press: Callable[[], None]) -> None:
        """Run a button's callback; Jupyter would swallow its error, so it is said here."""
        try:
            press()
        except Exception as error:
            self._ready(f"That did not work ({type(error).__name__}: {error}).")

    def _say(self, words: str) -> None:
        self._say_box.value = f'<div role="status">{escape(words)}</div>' if words else ""

    def _work(self, words: str) -> None:
        """Disable the buttons while something is under way."""
        self._busy = True
        for each in self._buttons:
            each.disabled = True
        self._say(words)

    def _ready(self, words: str = "") -> None:
        """Bring the buttons back."""
        self._busy = False
        self._cancel_timer()
        for each in self._buttons:
            each.disabled = False
        self._say(words)

    # What a click does

    def _apply(self, proposal: Proposal, source: str) -> None:
        with self._lock:
            if self._busy:
                return
            if proposal.takes_effect == "restart":
                self._ask_for_restart(proposal)
                return
            if self.tier == "panel":
                self._run_here(proposal.key, source)
                return
            self._work("Changing the cell and running it again …" if self.tier == "edit" else "Running the copy …")
            self._actions.expect(source, proposal.key)
            self._send("run", proposal.key, source=source, original=proposal.original, output=self._output.model_id)
            self._after(ANSWER_WITHIN, self._no_answer)

    def _run_here(self, key: str, source: str) -> None:
        refusal = self._actions.refusal_here(source)
        if refusal is not None:
            self._say(refusal)
            return
        self._work("Running the copy below …")
        self._actions.expect(source, key)
        self._actions.run_here(source, key, self._output)
        self._ready()

    def _ask_for_restart(self, proposal: Proposal) -> None:
        self._asked = proposal
        if self.tier == "edit" and self._can_restart:
            self._work("Asking the page for the notebook's cells …")
            self._send("cells", proposal.key, original=proposal.original)
            self._after(ANSWER_WITHIN, self._no_answer)
            return
        self._actions.prepare_restart(proposal)
        self._say("This takes a restart, which the page cannot do. Restart the kernel, then run %tfmem resume.")

    def _show_checklist(self, proposal: Proposal, cells: tuple[NotebookCell, ...]) -> None:
        self._cancel_timer()
        replay = self._actions.checklist(proposal, cells)
        tip = "Restart the kernel and run the ticked cells, then this one"
        go = controls.button(
            "", tip, lambda: self._guarded(lambda: self._restart(proposal, checklist.ticked)), accent=True
        )

        def count() -> None:
            total = len(checklist.ticked) + 1
            go.description = f"Restart and run {'this cell' if total == 1 else f'these {total} cells'}"

        checklist = controls.Checklist(replay, count)
        count()
        cancel = controls.button("Cancel", "Do not restart", lambda: self._end_checklist(""))
        words = "The kernel restarts: everything in its memory is lost. These cells run first, then this one:"
        self._show_extra(controls.text(words, "tfmem-head"), checklist.widget, controls.row(go, cancel))
        self._say("")

    def _end_checklist(self, words: str) -> None:
        self._show_extra()
        self._ready(words)

    def _show_extra(self, *children: Any) -> None:
        old, self._extra.children = self._extra.children, children
        for widget in old:
            controls.close_tree(widget)

    def _restart(self, proposal: Proposal, ticked: tuple[str, ...]) -> None:
        prologue = self._actions.prepare_restart(proposal)
        self._show_extra()
        self._work("Restarting the kernel …")
        ids, original, source = list(ticked), proposal.original, proposal.source
        self._send("restart", proposal.key, prologue=prologue, source=source, original=original, cells=ids)

    def _undo(self, original: str) -> None:
        with self._lock:
            if self.tier != "edit":
                self._show_extra(controls.text("The old code, to copy:"), controls.code_to_copy(original))
                return
            self._work("Putting the old code back …")
            self._actions.expect(original, "undo")
            self._send("put", "undo", source=original, original=self._source)
            self._after(ANSWER_WITHIN, self._no_answer)

    def _copy(self, source: str) -> None:
        if self._tier is None:
            self._show_extra(controls.code_to_copy(source))
            return
        self._to_copy = source
        self._send("copy", "copy", text=source)

    def _free(self, name: str) -> None:
        self._say(self._actions.free((name,)))

    def _dismiss(self) -> None:
        html = self.freeze_html()
        self._send("freeze", "")
        if self.on_freeze is not None:
            self.on_freeze(html)
        self._actions.dismissed()

    # What the page says

    def _send(self, op: str, key: str, **fields: Any) -> None:
        self._bridge.send({"op": op, "key": key, "cell_id": self._cell_id, "page": self._page, **fields})

    def _on_message(self, message: Mapping[str, Any]) -> None:
        with self._lock:
            if self._closed:
                return
            op = message.get("op")
            self._page = message.get("page", self._page)
            if op == "hello":
                self._hello(message)
            elif op == "started":
                self._cancel_timer()
            elif op == "refused":
                self._ready(str(message.get("reason", "")))
            elif op == "ran":
                self._ready()
            elif op == "put":
                self._ready("The cell has its old code again; it was not run. Weights stay as trained.")
            elif op == "copied":
                self._copied(bool(message.get("ok")))
            elif op == "cells" and self._asked is not None:
                cells = tuple(NotebookCell(c["id"], c["source"], c.get("count")) for c in message.get("cells", ()))
                self._show_checklist(self._asked, cells)

    def _hello(self, message: Mapping[str, Any]) -> None:
        before = self._tier
        tier = message.get("tier")
        self._tier = tier if tier in ("edit", "execute") else "panel"
        self._can_restart = bool(message.get("restart"))
        if not self._busy:
            self._cancel_timer()
        if before != self._tier and (before is not None or self._tier != "edit"):
            self._build()

    def _no_hello(self) -> None:
        with self._lock:
            if self._tier is None and not self._busy:
                self._tier = "panel"
                self._build()

    def _no_answer(self) -> None:
        with self._lock:
            if self._busy:
                self._ready("The page did not answer. Reload it and try again, or copy the changed cell.")

    def _copied(self, ok: bool) -> None:
        if ok:
            self._say("The cell is on the clipboard.")
        else:
            said = controls.text("The browser did not allow copying; here is the cell:")
            self._show_extra(said, controls.code_to_copy(self._to_copy))

    def _after(self, seconds: float, then: Callable[[], None]) -> None:
        self._cancel_timer()
        self._timer = threading.Timer(seconds, then)
        self._timer.daemon = True
        self._timer.start()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
