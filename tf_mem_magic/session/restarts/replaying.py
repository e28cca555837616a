"""A replay as its kernel sees it: which cells have run, which page runs them, what the notebook's cells are now.

It is there before the extension is loaded, whose ``%load_ext`` may be one of the cells: the code that follows a
prologue calls :func:`begin`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tf_mem_magic.notebook.rerun.replay import telling_line
from tf_mem_magic.session.restarts.at_work import ATTRIBUTE, replaying_of
from tf_mem_magic.session.stop import EndAtStart
from tf_mem_magic.views.replay import Order, Step, open_replay
from tf_mem_magic.views.slots import our_metadata, parent_cell_id

if TYPE_CHECKING:
    from tf_mem_magic.api import Report
    from tf_mem_magic.session.restarts.plans import Plan
    from tf_mem_magic.views.replay import State

QUIET = 3.0
"""Seconds in which a page that runs the cells would have sent the next one: after them another page may take over."""

CELLS_WITHIN = 1.5
"""Seconds to wait for the page's cells, where the kernel can hear the page while it is busy."""

EDIT_WITHIN = 0.3
"""Seconds in which an edit that the page has seen reaches a busy kernel."""


class ReplayedElsewhereError(RuntimeError):
    """A page asked for a cell that another one runs, or has run: nothing was run."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


_REFUSE = f"""\
raise __import__({__name__!r}, fromlist=["x"]).ReplayedElsewhereError(
    "Another page has gone on with the replay meanwhile: nothing was run here.")"""


class Replaying:
    """A replay in this kernel.

    Attributes
    ----------
    plan : str
        The identity of the plan.
    model : anywidget
        What pages see of it.
    page_cells : dict of str to str, or None
        The sources of the notebook's code cells by their ids, as the page has them now; None: no page has told.
    """

    def __init__(self, shell: Any, order: Order, state: State) -> None:
        self.plan = order.plan
        self.page_cells: dict[str, str] | None = None
        self._shell, self._order = shell, order
        self._lock = threading.RLock()
        self._told = threading.Event()
        self._sign = time.monotonic()
        self._raw = ""
        self._judged: Any = None
        self._is_refused = False
        self._refusal = EndAtStart(shell, _REFUSE)
        self.model = open_replay(order, state, self._on_message)
        shell.events.register("pre_run_cell", self._pre)
        shell.events.register("post_run_cell", self._post)

    @property
    def state(self) -> str:
        """Where it stands (:data:`tf_mem_magic.views.replay.State`)."""
        return str(self.model.state)

    @property
    def is_driven(self) -> bool:
        """Whether a page is running its cells right now."""
        return self.state == "replaying" and bool(self.model.driver) and time.monotonic() - self._sign < QUIET

    def refuses(self, info: Any) -> bool:
        """Tell whether the cell that begins is one that a page may not run any more: then none of it runs.

        A page may have stalled when it was about to send it, while another took over.
        """
        if self._judged is not info:
            self._judged, self._is_refused = info, self._is_late(info)
            (self._refusal.install if self._is_refused else self._refusal.remove)()
        return self._is_refused

    def has_run(self, number: int) -> bool:
        """Tell whether the cell of that number (from 0) ran well."""
        return number in self.model.done

    def was_tried(self, number: int) -> bool:
        """Tell whether the cell of that number began to run; -1 is the last."""
        return number % len(self._order.steps) in self.model.tried

    def wait_for_cells(self) -> None:
        """Wait a moment for the page to tell its cells, where that can come to pass while a cell runs.

        An edit just before may still be on its way.
        """
        kernel = getattr(self._shell, "kernel", None)
        if not getattr(kernel, "_supports_kernel_subshells", False):
            return
        if self.page_cells is None:
            self._told.wait(CELLS_WITHIN)
        else:
            time.sleep(EDIT_WITHIN)

    def resuming(self) -> None:
        """Note that ``%tfmem resume`` runs the cells from now on."""
        with self._lock:
            self.model.failed, self.model.reason, self.model.state = -1, "", "resuming"

    def began(self, number: int) -> None:
        """Note that a cell begins."""
        with self._lock:
            self._sign = time.monotonic()
            self.model.tried = sorted({*self.model.tried, number})
            self.model.running = number
            if self.state == "resuming":
                self.model.resumed = sorted({*self.model.resumed, number})

    def ended(self, number: int, succeeded: bool, reason: str = "") -> None:
        """Note that a cell has ended, or cannot be run: ``reason``."""
        with self._lock, self.model.hold_trait_notifications():
            self._sign = time.monotonic()
            self.model.running = -1
            # One that ran well and fails when it runs again is not done.
            self.model.done = sorted({*self.model.done, number} if succeeded else {*self.model.done} - {number})
            if self.state == "planned":  # a person runs the cells, and nobody has asked for the restart's settings yet
                return
            if succeeded:
                self.model.failed, self.model.reason = -1, ""
                if number == len(self._order.steps) - 1:
                    self.model.state = "done"
                elif self.state == "stopped":  # a person repaired it and ran it
                    self.model.failed = self._next()
            else:
                self.model.failed, self.model.reason, self.model.state = number, reason, "stopped"

    def ran_by_hand(self, number: int) -> None:
        """Note that a cell had run well already."""
        with self._lock:
            self.model.done = sorted({*self.model.done, number})

    def stopped(self) -> None:
        """Note that it did not come to its end."""
        with self._lock, self.model.hold_trait_notifications():
            self.model.running, self.model.failed = -1, self._next()
            self.model.state = "stopped"

    def over(self, report: Report | None = None) -> None:
        """Note that the plan is used up; ``report`` is for a page that has not seen it."""
        with self._lock:
            if report is not None:
                from tf_mem_magic.report.bundle import whole_bundle

                self.model.report = {k: v for k, v in whole_bundle(report.outcome).items() if k.startswith("text/")}
            self.model.running, self.model.state = -1, "done"

    def drop(self) -> None:
        """Note that the plan was given up: pages say so, and nothing goes on."""
        with self._lock, self.model.hold_trait_notifications():
            self.model.running, self.model.failed, self.model.state = -1, -1, "dropped"

    def _next(self) -> int:
        """Give the first cell that has not run well; the last, where a person has run them all by hand."""
        last = len(self._order.steps) - 1
        return next((n for n in range(last) if n not in self.model.done), last)

    def close(self) -> None:
        """Take the hooks out and close what pages see."""
        self._refusal.remove()
        for event, hook in (("pre_run_cell", self._pre), ("post_run_cell", self._post)):
            try:
                self._shell.events.unregister(event, hook)
            except ValueError:
                continue
        self.model.close()

    def _pre(self, info: Any) -> None:
        if self.refuses(info) or self.model.running >= 0 or self.state in ("done", "dropped"):
            return
        number = self._number(info)
        if number is None:
            return
        page = str(our_metadata(self._shell, info).get("page", ""))
        if page and not self.model.driver:
            self.model.driver = page
        self._raw = info.raw_cell or ""
        self.began(number)

    def _is_late(self, info: Any) -> bool:
        """Tell whether a page's request for a cell comes after another page, a stop, or the cell's own run."""
        ours = our_metadata(self._shell, info)
        if ours.get("replay") != self.plan or self.model.running >= 0:  # a person's, or one that the running cell runs
            return False
        is_its_own = self.model.driver in ("", str(ours.get("page", "")))
        return self.state != "replaying" or not is_its_own or int(ours["step"]) in self.model.done

    def _post(self, result: Any) -> None:
        self._refusal.remove()
        number = self.model.running
        if number < 0:
            return
        info = getattr(result, "info", None)
        if info is not None and (info.raw_cell or "") != self._raw:
            return  # a cell that this one ran
        self.ended(number, bool(result is not None and result.success))

    def _number(self, info: Any) -> int | None:
        """Find out which cell of the replay is about to run; None: none."""
        ours = our_metadata(self._shell, info)
        if ours.get("replay") == self.plan:
            return int(ours["step"])
        cell_id = getattr(info, "cell_id", None) or parent_cell_id(self._shell)
        return next((n for n, step in enumerate(self._order.steps) if step.id and step.id == cell_id), None)

    def _on_message(self, message: Mapping[str, Any]) -> None:
        with self._lock:
            if self.state in ("done", "dropped"):
                return
            op, page = message.get("op"), str(message.get("page", ""))
            if op == "take":
                self._take(page, bool(message.get("again")))
            elif op == "cells":
                told = {str(k): str(v) for k, v in message["cells"].items()}
                kept = {} if message.get("whole", True) else self.page_cells or {}
                gone = {str(k) for k in message.get("gone", ())}
                self.page_cells = {k: v for k, v in {**kept, **told}.items() if k not in gone}
                self._told.set()
            elif op == "left" and page == self.model.driver:
                self.model.driver = ""
            elif op == "stuck" and page == self.model.driver and self.state == "replaying":
                self.ended(int(message["step"]), False, str(message.get("reason", "")))

    def _take(self, page: str, again: bool) -> None:
        """Let a page run the cells, where none does; ``again``: a person asks for it after a stop."""
        if again and self.state == "stopped":
            with self.model.hold_trait_notifications():
                self._sign = time.monotonic()
                self.model.failed, self.model.reason = -1, ""
                self.model.driver, self.model.state = page, "replaying"
        elif self.state == "replaying" and self.model.running < 0:
            is_quiet = time.monotonic() - self._sign >= QUIET
            if is_quiet or not self.model.driver:
                self._sign = time.monotonic()
                self.model.driver = page


def begin(order: str) -> None:
    """Begin the replay that a page has ordered; called in a new kernel after its prologue."""
    shell = _shell()
    if shell is not None:
        replace_by(shell, Order.from_json(order), "replaying")


def begin_code(order: Order) -> str:
    """Write the code that calls :func:`begin`; it leaves no name."""
    return f"__import__({__name__!r}, fromlist=['begin']).begin({order.to_json()!r})\n"


def replace_by(shell: Any, order: Order, state: State) -> Replaying:
    """Make a replay this kernel's, in place of another."""
    old = replaying_of(shell)
    if old is not None:
        old.close()
    new = Replaying(shell, order, state)
    setattr(shell, ATTRIBUTE, new)
    return new


def order_of(plan: Plan, driver: str = "") -> Order:
    """Say what is replayed of a plan."""
    steps = [Step(r.cell.cell_id, r.cell.source, telling_line(r.cell.source)[:80]) for r in plan.replay if r.ticked]
    proposal = plan.proposal
    steps.append(Step(plan.cell_id or "", proposal.replaces, telling_line(proposal.source)[:80]))
    began = time.strftime("%H:%M", time.localtime(plan.time))
    return Order(
        plan.identity,
        proposal.title,
        proposal.key,
        tuple(steps),
        proposal.replaces,
        proposal.source,
        driver,
        began,
    )


def _shell() -> Any:
    from IPython import get_ipython

    return get_ipython()
