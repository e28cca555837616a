"""A small stand-in for the shells behind the panel: invented outcomes, and actions that only take notes.

Imported in a notebook by the panel's browser tests; the panel itself is the real one.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.outcome import Attempt, Change, Comparison, Outcome
from tf_mem_magic.core.proposals import Choice, Declined, Estimate, Proposal
from tf_mem_magic.core.recording import Cell, Recording, Series
from tf_mem_magic.report.picture.live import Live, LiveSeries
from tf_mem_magic.session.restarts.replaying import begin_code
from tf_mem_magic.views.actions import NotebookCell, Ordered, ReplayCell
from tf_mem_magic.views.panel import Panel
from tf_mem_magic.views.replay import Order, Step

GIB = 2**30
NOTES: list[tuple[Any, ...]] = []


class NotingActions:
    """Takes notes of what the panel asks for; runs the code of ``run_here`` plainly."""

    def expect(self, source: str, key: str) -> str:
        NOTES.append(("expect", key, source))
        return f"rerun-{key}"

    def run_here(self, source: str, key: str, output: Any, ended: Any) -> None:
        NOTES.append(("run_here", key, source))
        output.append_stdout("ran here: " + source.splitlines()[0] + "\n")
        ended()

    def refusal_here(self, source: str) -> str | None:
        return "The cell uses await at top level." if "await" in source else None

    def combine(self, keys: tuple[str, ...], picked: tuple[str, ...] | None = None) -> Proposal | Declined:
        NOTES.append(("combine", keys, picked))
        if "memory-growth" in keys:
            return Declined("+".join(keys), "both", "these two cannot be combined")
        return Proposal("+".join(keys), " + ".join(keys), "batch = 128", "batch = 256", "nothing")

    def undo(self) -> str:
        return "The cell has its old code again; it was not run. Weights stay as trained."

    def free(self, names: tuple[str, ...]) -> str:
        NOTES.append(("free", names))
        return f"Let go of {', '.join(names)}: 0.5 GiB came back."

    def checklist(self, proposal: Proposal, cells: tuple[NotebookCell, ...]) -> tuple[ReplayCell, ...]:
        before = [c for c in cells if c.count is not None and c.source != proposal.original]
        return tuple(
            ReplayCell(
                c.cell_id, c.source, "skip" not in c.source, 0.4, ("deletes files",) if "skip" in c.source else ()
            )
            for c in before
        )

    def prepare_restart(self, proposal: Proposal, ticked: tuple[str, ...] | None = None, page: str = "") -> Ordered:
        NOTES.append(("prepare_restart", proposal.key))
        steps = [Step(each, "", each) for each in ticked or ()]
        steps.append(Step("", proposal.original, "this cell"))
        order = Order("plan", proposal.title, proposal.key, tuple(steps), proposal.original, proposal.source, page)
        return Ordered(order, proposal.prologue + "\n" + begin_code(order))

    def plan_restart(self, proposal: Proposal) -> str:
        NOTES.append(("plan_restart", proposal.key))
        return f"{proposal.title}: planned."

    def when_idle(self, work: Any) -> None:
        work()

    def dismissed(self) -> None:
        NOTES.append(("dismissed",))


def live_at(seconds: float, *, level: float = 0.6, waiting: str | None = None) -> Live:
    """Make a moment of a run whose memory climbs to ``level`` of a limit of 14.7 GiB."""
    times = tuple(seconds * i / 120 for i in range(121))
    limit = int(14.7 * GIB)
    values = tuple(int(limit * level * min(1, 0.2 + 3 * i / 120) * (0.9 + 0.1 * (i % 7) / 6)) for i in range(121))
    series = (
        LiveSeries("allocator:GPU:0", values[-1], max(values), limit, times, values),
        LiveSeries("device:GPU:0", int(limit * 0.99), int(limit * 0.99), None, times, (int(limit * 0.99),) * 121),
        LiveSeries("host:rss", int(6.1 * GIB), int(6.1 * GIB), None, times, (int(6.1 * GIB),) * 121),
    )
    return Live(seconds, series, waiting=waiting)


def proposal(key: str, title: str, source: str, original: str, **more: Any) -> Proposal:
    """Make a proposal that preserves what most do."""
    more.setdefault("preserves", "same model, other gradients")
    return Proposal(key, title, source, original, **more)


def outcome(cell: str, *offered: Proposal, status: str = "oom", **more: Any) -> Outcome:
    """Make an outcome on a device with a limit of 14.7 GiB."""
    limit = int(14.7 * GIB)
    series = Series("allocator:GPU:0", (0.0, 12.0), (GIB, int(14.2 * GIB)), int(14.2 * GIB), "counter", limit)
    recording = Recording(Cell(cell, None, 1), 12.4, (series,), status)
    diagnosis = Diagnosis("GPU:0", limit=limit) if status == "oom" else None
    return Outcome(recording, diagnosis, offered, **more)


def rich(cell: str, changed: str) -> Outcome:
    """Make an outcome with everything that a panel can show."""
    smaller = proposal(
        "smaller-batch", "Batch 128", changed, cell, estimate=Estimate(7 * GIB, int(8.1 * GIB), "2 measured runs"),
        caveats=("Gradients are noisier; you may want to halve the learning rate.",),
        choices=(Choice("Continue from epoch 3", changed + "\n# from epoch 3", "Keeps the weights of epoch 3"),),
    )  # fmt: skip
    accumulate = proposal(
        "accumulate-gradients", "Keep batch 256, in 2 steps of 128", changed, cell, preserves="same effective batch",
        estimate=Estimate(int(13 * GIB), int(16 * GIB), "2 measured runs"),
    )  # fmt: skip
    mixed = proposal(
        "mixed-precision", "16-bit compute", changed, cell, preserves="close numerics", why="saves on activations",
    )  # fmt: skip
    growth = proposal("memory-growth", "Memory growth", cell, cell, preserves="same results", takes_effect="restart")
    return outcome(
        cell, smaller, accumulate, mixed,
        declined=(
            Declined("memory-growth", "memory growth", "nobody else uses this card", settings=growth),
            Declined("lighter-optimizer", "lighter optimizer", "the cell does not make the optimizer", patch="-Adam()\n+SGD()"),
            Declined("xla", "XLA", "the model has a layer that XLA cannot compile"),
        ),
        changes=(Change("steps", "model", "3 training steps on `model`, which existed before"),),
        leftovers=(("old_model", int(0.5 * GIB)), ("history", 40 * 2**20)),
    )  # fmt: skip


def reran(changed: str, original: str) -> Outcome:
    """Make the outcome of a rerun that fits."""
    comparison = Comparison(
        "smaller-batch", "Batch 128", "oom", "ok", None, None, int(14.7 * GIB), "7.0–8.1 GiB", original=original,
        text="Batch 128: it fits. Peak 7.6 GiB (expected 7.0–8.1), was over 14.7.",
    )  # fmt: skip
    history = (Attempt("256", "oom"), Attempt("128", "ok", int(7.6 * GIB)))
    return outcome(changed, status="ok", comparison=comparison, history=history)


class Ticker:
    """Feeds a panel from a thread, as the sampler does, until ``stop``."""

    def __init__(self, panel: Panel, moment: Any = live_at) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(panel, moment), daemon=True)
        self._thread.start()

    def _run(self, panel: Panel, moment: Any) -> None:
        begun = time.monotonic()
        while not self._stop.wait(0.2):
            panel.tick(moment(time.monotonic() - begun + 0.2))

    def stop(self) -> None:
        """Stop and wait for the thread."""
        self._stop.set()
        self._thread.join()


def cell_id() -> str | None:
    """Give the id of the running cell."""
    from IPython import get_ipython

    return get_ipython().kernel.get_parent().get("metadata", {}).get("cellId")


def show_panel(cell: str, of: str | None = None) -> tuple[Panel, Any]:
    """Display a panel for the running cell, or for the cell with the id ``of``; frozen in place when dismissed."""
    from IPython.display import HTML, display

    panel = Panel(NotingActions(), cell_source=cell, cell_id=of or cell_id())
    handle = display(panel.widget, display_id=True)
    panel.on_freeze = lambda html: handle.update(HTML(html))
    return panel, handle
