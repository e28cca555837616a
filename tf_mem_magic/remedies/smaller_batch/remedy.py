"""Smaller batch: fewer samples in each step, so fewer activations at once."""

from __future__ import annotations

import ast
from dataclasses import replace

from tf_mem_magic.core.diagnosis import SituationKind
from tf_mem_magic.core.effects import Effect
from tf_mem_magic.core.facts import Facts
from tf_mem_magic.core.proposals import Context, Estimate, Point, Proposal, RefusedError
from tf_mem_magic.core.recording import Recording
from tf_mem_magic.core.units import brief_unit, size
from tf_mem_magic.diagnose.estimate import estimate_peak, half_or_less, largest_power_of_two
from tf_mem_magic.diagnose.places import is_cell_file
from tf_mem_magic.diagnose.room.batches import batch_to_try
from tf_mem_magic.diagnose.room.search import hardly_depends, largest_batch
from tf_mem_magic.notebook.batch.datasets import trace
from tf_mem_magic.notebook.batch.found import BatchFound, set_batch
from tf_mem_magic.notebook.follow.reader import Reader, Setting, Unknown
from tf_mem_magic.remedies._engine.guards import python
from tf_mem_magic.remedies._engine.question import Ask, remedy
from tf_mem_magic.remedies.smaller_batch.asked import failing_lines, fewer_samples_may_help, found_batch
from tf_mem_magic.remedies.smaller_batch.caveats import caveats_of
from tf_mem_magic.remedies.smaller_batch.direct_call import call_in_batches, find_direct_call
from tf_mem_magic.remedies.smaller_batch.examples import EXAMPLES
from tf_mem_magic.remedies.smaller_batch.later_fits import with_later_fits
from tf_mem_magic.remedies.smaller_batch.shown import check_shown
from tf_mem_magic.remedies.smaller_batch.step_up import KEY as LARGER
from tf_mem_magic.remedies.smaller_batch.step_up import step_up

KEY = "smaller-batch"
TITLE = "Smaller batch"
HELPS: tuple[SituationKind, ...] = ("jacobian",)
GUARDS = (fewer_samples_may_help, python)
IN_HELPERS = True
"""The batch size may be set in any function that the cell runs, also one that has returned before the error."""

_TRAINING = (".fit(", "GradientTape", "train_on_batch", "train_step")

_AT_LEAST = 4
"""A model called on all samples gets at most a quarter of them at a time: more calls cost little."""


@remedy(KEY, TITLE, GUARDS)
def propose(ask: Ask) -> Proposal:
    """Propose the batch size to try next."""
    found = found_batch(ask)
    if isinstance(found, Unknown):
        direct = _direct(ask)
        if direct is None:
            raise _refusal(ask, found.reason)
        return direct
    if found.value <= 1:
        raise RefusedError(f"the batch size is already {found.value}")
    found = with_later_fits(Reader(ask.cell, ask.facts, failing_lines(ask)), found)
    if found.method != "validation" and any(point.batch <= 1 and not point.fitted for point in ask.points):
        raise RefusedError("a batch of 1 ran out of memory too")
    kept = Effect(validation=found.keeps(ask.facts.validation))
    batch, estimate = _choose(ask, found, kept)
    check_shown(ask, found, batch)
    source, notes = set_batch(found, batch)
    unit = " per replica" if found.per_replica else ""
    what = "Validation batch" if found.method == "validation" else "Batch"
    inference = (found.infers or found.method == "validation") and not _trains_too(ask, found)
    return Proposal(
        KEY,
        f"{what} {batch}{unit}",
        source,
        ask.source,
        "close numerics" if inference else "same model, other gradients",
        estimate,
        caveats=(*notes, *(() if inference else caveats_of(ask, found))),
        why=_why(ask, found, batch, estimate),
        expects=_expects(found, batch),
        undo="\n".join(found.undo),
        answers_cause=found.method == "validation",
        effect=replace(kept, batch=(found.value, batch)) if _is_of_the_step(ask, found) else None,
    )


def after_fit(applied: str, full: Context, fitted: Recording) -> Proposal | None:
    """Offer a step back up where a smaller batch has fitted with room to spare."""
    return step_up(full, fitted) if applied in (KEY, LARGER) else None


def _is_of_the_step(ask: Ask, found: BatchFound) -> bool:
    """Tell whether the batch is that of the step which is known: a validation has one of its own."""
    step = ask.facts.step
    return found.method != "validation" or (step is not None and step.batch == found.value)


def _trains_too(ask: Ask, found: BatchFound) -> bool:
    """Tell whether the cell may train with a batch size that is set elsewhere than in the inference that failed."""
    if found.method == "validation" or not any(word in ask.source for word in _TRAINING):
        return False
    lines, call = failing_lines(ask), found.call
    inside = range(0) if call is None else range(ask.cell.start(call), ask.cell.end(call) + 1)
    elsewhere = (slot for slot in found.slots if slot.start not in inside)
    return any(ask.source.count("\n", 0, slot.start) + 1 not in lines for slot in elsewhere)


def _direct(ask: Ask) -> Proposal | None:
    """Propose to call a model on a few samples at a time that the cell calls on all at once."""
    found = find_direct_call(ask.cell, ask.facts, failing_lines(ask))
    if found is None:
        return None
    batch = half_or_less(ask.diagnosis, found.samples, found.samples // _AT_LEAST)
    batch = 2 ** (max(batch, 1).bit_length() - 1)
    try:
        source = call_in_batches(ask.cell, found, batch)
    except RefusedError:
        return None  # the reason why no batch size was found says more
    return Proposal(
        KEY,
        f"{batch} samples at a time",
        source,
        ask.source,
        "close numerics",
        caveats=("The changed cell needs tf_mem_magic.",),
        why="A model that is called like a function computes all samples at once; `predict` would not.",
        answers_cause=True,
    )


def _choose(ask: Ask, found: BatchFound, kept: Effect) -> tuple[int, Estimate | None]:
    """Choose the next batch size: the largest power of two expected to fit, else half, or less if half cannot do."""
    points, below = _points(ask, found), _below(ask, found)
    batch = half_or_less(ask.diagnosis, found.value, below)
    if ask.diagnosis is not None and _is_of_the_step(ask, found) and not found.per_replica:
        # What the step itself tells comes first; where it tells that not even one sample fits, half is tried.
        batch = batch_to_try(ask.recording, ask.diagnosis, found.value, below, ask.context.applied.then(kept)) or batch
    limit = ask.diagnosis.limit if ask.diagnosis else None
    if limit:
        batch = largest_power_of_two(points, limit, found.value) or batch
    batch = found.divisor_of(batch)
    return batch, estimate_peak(points, batch)


def _points(ask: Ask, found: BatchFound) -> tuple[Point, ...]:
    return () if found.per_replica or found.method == "validation" else ask.points


def _below(ask: Ask, found: BatchFound) -> int:
    """Give the smallest batch that is known not to fit."""
    return min([found.value, *(point.batch for point in _points(ask, found) if not point.fitted)])


def _why(ask: Ask, found: BatchFound, batch: int, estimate: Estimate | None) -> str:
    why = "Activations shrink with it, weights do not."
    diagnosis = ask.diagnosis
    by_step = diagnosis is not None and _is_of_the_step(ask, found) and not found.per_replica
    if by_step and diagnosis is not None:
        least = hardly_depends(ask.recording, diagnosis, found.value, batch)
        why += "" if least is None else f" Here it changes little: one sample alone would take about {size(least)}."
        by_step = largest_batch(ask.recording, diagnosis, found.value, _below(ask, found)) is not None
    unknown = not by_step and estimate is None
    if unknown and diagnosis is not None and diagnosis.requested and batch < _below(ask, found) // 2:
        asked = size(diagnosis.requested, brief_unit([diagnosis.requested]))
        why += f" Half would not do: {asked} were asked for at once."
    return why


def _expects(found: BatchFound, batch: int) -> tuple[tuple[str, int], ...]:
    if found.method == "validation" or (found.infers and found.call is None):
        return ()
    if not found.per_replica:
        return ((f"batch of {found.method}" if found.method in ("evaluate", "predict") else "batch", batch),)
    return () if found.seen is None else (("batch", found.seen // found.value * batch),)


def _refusal(ask: Ask, reason: str) -> RefusedError:
    patch = _patch(ask)
    diagnosis = ask.diagnosis
    frame = diagnosis.frame if diagnosis else None
    if frame is not None and not frame.in_cell and not patch:
        where = f"line {frame.line} of an earlier cell" if is_cell_file(frame.file) else f"{frame.file}:{frame.line}"
        reason += f"; the code that failed is {where} in `{frame.function}`{_why_not_anew(ask, frame.function)}"
    return RefusedError(reason, patch)


def _why_not_anew(ask: Ask, name: str) -> str:
    """Say why a function of an earlier cell is not defined anew in this one; empty where that is not its fault."""
    function = ask.notebook.function(name)
    if function is None or not isinstance(function.node, ast.FunctionDef):
        return ""
    if any(known.name == name for known in ask.facts.functions):
        return ""
    around = next((one for one in function.node.decorator_list if not _stages(one)), None)
    if around is not None:
        return f", which `@{ast.unparse(around)}` has changed: it is not defined anew here"
    args = function.node.args
    kept = [d for d in (*args.defaults, *args.kw_defaults) if d is not None and not _is_fixed(d)]
    if not kept:
        return ""
    return (
        f", whose default `{function.cell.text(kept[0])}` may hold something else by now: it is not defined anew here"
    )


def _stages(decorator: ast.expr) -> bool:
    """Tell whether a decorator is ``tf.function``, with which a function is defined anew."""
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return ast.unparse(called) in ("tf.function", "tensorflow.function")


def _is_fixed(default: ast.expr) -> bool:
    """Tell whether a default is what is written, however long ago it was made."""
    number = default.operand if isinstance(default, ast.UnaryOp) else default
    parts = number.elts if isinstance(number, ast.Tuple) else [number]
    return all(isinstance(one, ast.Constant) for one in parts)


def _patch(ask: Ask) -> str:
    """Return a change to the earlier cell where the batch size is set, to copy; empty where that is not sure."""
    known = [d for d in ask.facts.datasets if d.kind == "PyDataset" and not d.is_new and d.batch and d.batch > 1]
    if len(known) != 1:
        return ""
    dataset = known[0]
    for cell in reversed(ask.notebook.earlier_with(dataset.name)):
        made = [n for n in cell.tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == dataset.name]
        if not made:
            continue
        setting = trace(Reader(cell, Facts()), made[-1].value)
        if not isinstance(setting, Setting) or setting.value != dataset.batch:
            return ""
        source, _ = set_batch(BatchFound(cell, setting.value, setting.slots), setting.value // 2)
        return Proposal(KEY, TITLE, source, cell.source, "same model, other gradients").diff
    return ""


__all__ = ["EXAMPLES", "GUARDS", "HELPS", "IN_HELPERS", "KEY", "TITLE", "after_fit", "propose"]
