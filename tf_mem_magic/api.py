"""What scripts and notebooks call: ``record``, ``last_report``, ``load``, and the ``Report`` they give."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tf_mem_magic.core import jsonio, troubles
from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.options import DEFAULT_INTERVAL
from tf_mem_magic.core.outcome import Comparison, Outcome
from tf_mem_magic.core.proposals import Declined, Proposal
from tf_mem_magic.core.recording import Recording, Status

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from tf_mem_magic.diagnose.planning.values import Plan
    from tf_mem_magic.record.pool import SourcePool

_last: Report | None = None


class Report:
    """One run of a cell, explained.

    A handle on a frozen :class:`~tf_mem_magic.core.outcome.Outcome`: it adds what needs matplotlib, files or the
    notebook. Reports compare equal where their outcomes do.
    """

    def __init__(self, outcome: Outcome, rerun: Callable[[str], Report] | None = None) -> None:
        self._outcome, self._rerun = outcome, rerun
        self._is_shown = False

    @property
    def outcome(self) -> Outcome:
        """Everything about the run as one frozen value."""
        return self._outcome

    @property
    def status(self) -> Status:
        """How the run ended: ``"ok"``, ``"oom"``, ``"error"``, ``"interrupted"`` or ``"killed"``."""
        return self._outcome.recording.status

    @property
    def recording(self) -> Recording:
        """What was measured: the cell, its seconds, the series (bytes over seconds)."""
        return self._outcome.recording

    @property
    def diagnosis(self) -> Diagnosis | None:
        """What ran out, where and why; None unless memory ran out."""
        return self._outcome.diagnosis

    @property
    def proposals(self) -> tuple[Proposal | Declined, ...]:
        """The remedies: those offered, best first, then those declined with their reasons."""
        return self._outcome.proposals

    @property
    def comparison(self) -> Comparison | None:
        """Before and after, where this run was the rerun of another; else None."""
        return self._outcome.comparison

    def rerun(self, key: str) -> Report:
        """Apply the remedy ``key`` to the cell, run it in this process, and give the new report.

        The same path as a click takes, for scripts and tests; output and errors of the cell appear as usual. Where
        the cell fails again the report says so; nothing is raised for it. A remedy that is a cell of its own
        (``new_cell``: ``quantize``, say) runs that cell, and the report is about it: nothing is compared.

        Raises
        ------
        LookupError
            If no remedy of that key is offered; the text lists those that are.
        RuntimeError
            If this report has no cell that could run (it was loaded from a file, or made by :func:`record`), or the
            remedy takes effect only after a restart.
        """
        if self._rerun is None:
            raise RuntimeError("this report has no cell to run: it was loaded from a file or made by record()")
        report = self._rerun(key)
        report._is_shown = True  # the run has shown it: as a cell's result it would stand there twice
        return report

    def figure(self) -> Figure:
        """Draw the timeline; a matplotlib ``Figure`` that belongs to no window."""
        from tf_mem_magic.report.picture.figure import draw

        return draw(self._outcome)

    def save(self, path: str | os.PathLike[str], *, full: bool = False) -> Path:
        """Write the report to ``path`` as JSON that only its owner may read; :func:`load` reads it.

        It holds what the report shows: the cell, its numbers and its changes. ``full``: also the source of every
        earlier cell and the values of constants, for reports of a bug; a warning says so.

        Raises
        ------
        OSError
            If the file cannot be written.
        """
        from tf_mem_magic.report.saved import WARNING, shareable

        if full:
            warnings.warn(WARNING, stacklevel=2)
        target = Path(path).expanduser()
        partial = target.with_name(target.name + ".partial")
        content = jsonio.encode(self._outcome if full else shareable(self._outcome))
        try:
            partial.unlink(missing_ok=True)
            with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(content)
            partial.replace(target)
        except OSError:
            partial.unlink(missing_ok=True)
            raise
        return target

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Report) and self._outcome == other._outcome

    def __hash__(self) -> int:
        return hash(self._outcome)

    def __str__(self) -> str:
        import shutil
        import sys

        from tf_mem_magic.report.text import render_text

        width = min(shutil.get_terminal_size().columns, 120)
        return render_text(self._outcome, width, getattr(sys.stdout, "encoding", None))

    def __repr__(self) -> str:
        from tf_mem_magic.report.sentences import headline

        return f"<Report {headline(self._outcome)}>"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        from tf_mem_magic.report.bundle import whole_bundle

        shown, self._is_shown = self._is_shown, False
        if shown:
            return {"text/plain": repr(self)}
        return whole_bundle(self._outcome)


class Planned:
    """What a model's training is expected to need: ``plan`` holds the numbers; printed and shown it is a table."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def __str__(self) -> str:
        from tf_mem_magic.report.plan import plan_text

        return plan_text(self.plan)

    def __repr__(self) -> str:
        from tf_mem_magic.report.plan import headline

        return f"<Planned {headline(self.plan)}>"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        from tf_mem_magic.report.html.plan import plan_html

        return {"text/plain": str(self), "text/html": plan_html(self.plan)}


def plan(model: Any, *data: Any, batch: int | None = None, shape: tuple[int, ...] = (), name: str = "model") -> Planned:
    """Tell what training a model will need, before anything ran: the peak, and the largest batch that fits.

    One training step is traced, nothing is run: no variable is made, no memory of the device taken, no data drawn.

    Parameters
    ----------
    model : keras.Model
        A compiled model of Keras 3.
    *data : array or tf.data.Dataset
        Inputs, targets and sample weights, or one batched dataset; only their shapes are looked at. Without them they
        are what the model's inputs, outputs and loss tell.
    batch : int, optional
        Samples in a step; else the dataset's, else 32.
    shape : tuple of int
        The shape of one sample, where the model does not tell it.
    name : str
        What the model is called in the table.

    Raises
    ------
    ValueError
        With a sentence that says why it cannot be told.

    Examples
    --------
    >>> print(plan(model, x, y, batch=256))
    """
    from tf_mem_magic.record.pool import SourcePool

    if len(data) > 3:
        raise ValueError("data are at most three: inputs, targets and sample weights")
    pool = SourcePool()
    try:
        return plan_named(name, model, tuple(zip(("x", "y", "sample_weight"), data)), batch, tuple(shape), pool)
    finally:
        pool.close()


def plan_named(
    name: str,
    model: Any,
    data: tuple[tuple[str, Any], ...],
    batch: int | None,
    shape: tuple[int, ...],
    pool: SourcePool,
    batch_from: str = "given",
    fit: str = "",
) -> Planned:
    """Plan a model with its data by name, for the device that the sources of ``pool`` tell; as :func:`plan` does.

    ``batch_from`` says where a batch size is from; ``fit`` is the call of which the data or the batch are, if one was
    read.
    """
    import gc
    import time

    from tf_mem_magic.diagnose.planning.plan import make_plan
    from tf_mem_magic.record.places import place_here
    from tf_mem_magic.release.gradient_registry import tie_gradients_to_graphs
    from tf_mem_magic.trace.ahead import observe_ahead

    began = time.monotonic()
    try:
        ahead = observe_ahead(name, model, data, batch, shape, batch_from=batch_from)
    finally:
        # TensorFlow would keep the graph, and with it the model's variables, for its custom gradients.
        tie_gradients_to_graphs()
        gc.collect()
    here = place_here(pool, ahead.made)
    try:
        made = make_plan(ahead, [here] if here is not None else [])
    except ValueError:
        raise
    except Exception as failed:
        told = troubles.note("a step could not be planned", failed).what
        raise ValueError(f"the step of `{name}` could not be simulated ({told})") from failed
    if fit:
        told = " and ".join(["data"] * bool(data) + ["batch"] * (ahead.batch_from == batch_from))
        notes = (f"Its {told} are those of the last `{name}.fit`.",) if told else ()
        made = replace(made, notes=(*notes, *made.notes))
    return Planned(replace(made, seconds=time.monotonic() - began))


class Running:
    """What ``with record() as running`` gives: ``running.report`` is None until the block has ended."""

    def __init__(self) -> None:
        self.report: Report | None = None


@contextmanager
def record(name: str = "record()", *, interval: float = DEFAULT_INTERVAL, trace: bool = False) -> Iterator[Running]:
    """Record the memory of a ``with`` block in a script.

    Parameters
    ----------
    name : str
        What the report calls the block.
    interval : float
        Seconds between samples.
    trace : bool
        Also watch two or three training steps allocation by allocation, as ``%%tfmem --trace`` does.

    Yields
    ------
    Running
        Its ``report`` is the :class:`Report` once the block has ended. An error in the block is recorded, diagnosed,
        and raised on. Where memory ran out, the report is printed to stderr before that, with the changes to the
        script's file as patches.

    Examples
    --------
    >>> with record("training") as running:
    ...     model.fit(x, y)
    >>> print(running.report)
    """
    import sys

    from tf_mem_magic.record.after_failure import with_traces
    from tf_mem_magic.record.script import Script

    frame = sys._getframe(2)
    script = Script(name, frame.f_globals, frame.f_code.co_filename, interval, trace)
    running = Running()

    def tell(outcome: Outcome) -> None:
        running.report = Report(outcome)
        remember(running.report)

    script.start()
    failed: BaseException | None = None
    try:
        yield running
    except BaseException as error:
        failed = error
        raise
    finally:
        script.finish(failed, tell, with_traces)
        failed = None


def last_report() -> Report | None:
    """Give the newest report of this process; None before the first."""
    return _last


def remember(report: Report) -> None:
    """Make ``report`` the newest."""
    global _last
    _last = report


def load(path: str | os.PathLike[str]) -> Report:
    """Read a report that :meth:`Report.save` or ``--save`` wrote, or the recording of a kernel that died.

    Raises
    ------
    OSError
        If the file cannot be read.
    tf_mem_magic.core.jsonio.UnreadableFileError
        If it is truncated, damaged, from a newer version, or no file of ours; a ``ValueError``.
    """
    from tf_mem_magic.explain import explain
    from tf_mem_magic.record.store.file import is_store, read_notes, read_store

    source = Path(path).expanduser()
    if is_store(source):
        return Report(explain(read_store(source), notices=read_notes(source)))
    return Report(jsonio.decode(jsonio.read_file(source), Outcome))
