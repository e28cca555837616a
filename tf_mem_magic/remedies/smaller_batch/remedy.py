"""Smaller batch: fewer samples in each step, so fewer activations at once."""

from __future__ import annotations

import ast
import re

from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.facts import BatchSeen, DatasetFacts, Facts, ModelFacts, NamedValue, ScalarFact
from tf_mem_magic.core.proposals import Answer, Context, Declined, Estimate, Example, Point, Proposal
from tf_mem_magic.core.recording import Cell, Recording
from tf_mem_magic.core.tag import dropped_lines
from tf_mem_magic.core.units import brief_unit, size
from tf_mem_magic.diagnose.estimate import estimate_peak, half_or_less, largest_power_of_two
from tf_mem_magic.diagnose.places import is_cell_file
from tf_mem_magic.notebook.batch.search import BatchFound, find_batch, set_batch
from tf_mem_magic.notebook.cell import PythonCell, read_cell
from tf_mem_magic.notebook.follow.resolve import Unknown
from tf_mem_magic.notebook.mask import NotPython
from tf_mem_magic.remedies.smaller_batch.direct_call import call_in_batches, find_direct_call

KEY = "smaller-batch"
TITLE = "Smaller batch"
IN_HELPERS = True
"""The batch size may be set in any function that the cell runs, also one that has returned before the error."""

_CREATES = frozenset({"add_weight", "add_variable", "add_variable_from_reference", "_initialize_with_initializer"})
"""Keras functions that create variables: memory that does not depend on the batch."""

_UPDATE = re.compile(r"(?:^|/)(?:Assign(?:Add|Sub)?VariableOp|Resource(?:Sparse)?Apply\w+?)(?:_\d+)?$")
"""Operations that update a weight or an optimizer's state; a new value takes as much memory as the old one."""

_AT_LEAST = 4
"""A model called on all samples gets at most a quarter of them at a time: more calls cost little."""

_LITTLE = 0.05
"""Share of the limit below which making activations smaller frees nothing that matters."""


def propose(context: Context) -> Answer:
    """Propose the batch size to try next, or say why none can be offered."""
    reason = cannot_help(context)
    if reason:
        return (Declined(KEY, TITLE, reason),)
    cell = read_cell(context.cell.source)
    if isinstance(cell, NotPython):
        return (Declined(KEY, TITLE, cell.reason),)
    found = find_batch(cell, context.recording.facts, failing_lines(context, cell))
    if isinstance(found, Unknown):
        return (_direct(context, cell) or _declined(context, found.reason),)
    if found.value <= 1:
        return (Declined(KEY, TITLE, f"the batch size is already {found.value}"),)
    if found.method != "validation" and any(point.batch <= 1 and not point.fitted for point in context.points):
        return (Declined(KEY, TITLE, "a batch of 1 ran out of memory too"),)
    batch, estimate = _choose(context, found)
    changed = set_batch(found, batch)
    if isinstance(changed, Unknown):
        return (Declined(KEY, TITLE, changed.reason),)
    source, notes = changed
    unit = " per replica" if found.per_replica else ""
    what = "Validation batch" if found.method == "validation" else "Batch"
    inference = found.method in ("evaluate", "predict", "validation") and not _trains_too(context, cell, found)
    return (
        Proposal(
            KEY,
            f"{what} {batch}{unit}",
            source,
            context.cell.source,
            "close numerics" if inference else "same model, other gradients",
            estimate,
            caveats=(*notes, *(() if inference else _caveats(context, found))),
            why=_why(context, found, batch, estimate),
            expects=_expects(found, batch),
        ),
    )


def _trains_too(context: Context, cell: PythonCell, found: BatchFound) -> bool:
    """Tell whether the cell may train with a batch size that is set elsewhere than in the inference that failed."""
    if found.method == "validation" or ".fit(" not in cell.source:
        return False
    lines = failing_lines(context, cell)
    return any(cell.source.count("\n", 0, slot.start) + 1 not in lines for slot in found.slots)


def _direct(context: Context, cell: PythonCell) -> Proposal | None:
    """Propose to call a model on a few samples at a time that the cell calls on all at once."""
    found = find_direct_call(cell, context.recording.facts, failing_lines(context, cell))
    if found is None:
        return None
    batch = half_or_less(context.diagnosis, found.samples, found.samples // _AT_LEAST)
    batch = 2 ** (max(batch, 1).bit_length() - 1)
    source = call_in_batches(cell, found, batch)
    if isinstance(source, NotPython):
        return None
    return Proposal(
        KEY,
        f"{batch} samples at a time",
        source,
        context.cell.source,
        "close numerics",
        caveats=("The changed cell needs tf_mem_magic.",),
        why="A model that is called like a function computes all samples at once; `predict` would not.",
        answers_cause=True,
    )


def failing_lines(context: Context, cell: PythonCell) -> frozenset[int]:
    """Give the cell's lines that led to the error; empty where they are unknown."""
    lines: set[int] = set()
    dropped = dropped_lines(context.cell.source)
    for error in context.recording.errors[:1]:
        lines |= {frame.line + dropped for frame in error.frames if frame.in_cell}
    if context.diagnosis is not None and context.diagnosis.line is not None:
        lines.add(context.diagnosis.line)
    last = len(cell.starts)
    return frozenset(line + cell.skipped for line in lines if 1 <= line + cell.skipped <= last)


def cannot_help(context: Context) -> str:
    """Say why fewer samples at once would not have helped; empty where they may."""
    diagnosis = context.diagnosis
    if diagnosis is None:
        return ""
    if diagnosis.cause == "host" or diagnosis.device == "host":
        return "the computer's own memory ran out, not the memory that training steps use"
    created = any(f.function in _CREATES for e in context.recording.errors for f in e.frames)
    if created or diagnosis.op in ("VarHandleOp", "VariableV2"):
        return "it ran out while weights or optimizer variables were made, and those do not shrink with the batch"
    if diagnosis.op in ("SaveV2", "RestoreV2", "CacheDatasetV2", "TensorDataset"):
        return f"it ran out in {diagnosis.op}, which does not depend on the batch"
    return _held_by_weights(diagnosis)


def _held_by_weights(diagnosis: Diagnosis) -> str:
    """Say why no batch is small enough, where weights or values fill the device and a weight's update ran out."""
    parts = {part.kind: part.bytes for part in diagnosis.breakdown}
    rest = parts.get("other", 0)
    known = diagnosis.in_use and diagnosis.limit and _UPDATE.search(diagnosis.op or "")
    if not known or rest >= _LITTLE * (diagnosis.limit or 0):
        return ""
    unit = brief_unit([diagnosis.in_use or 0])
    held = f"{unit.text(rest)} of {size(diagnosis.in_use or 0, unit)} in use"
    return f"it ran out while weights were updated, and only {held} may depend on the batch"


def _choose(context: Context, found: BatchFound) -> tuple[int, Estimate | None]:
    """Choose the next batch size: the largest power of two expected to fit, else half, or less if half cannot do."""
    points, below = _points(context, found), _below(context, found)
    batch = half_or_less(context.diagnosis, found.value, below)
    limit = context.diagnosis.limit if context.diagnosis else None
    if limit:
        batch = largest_power_of_two(points, limit, found.value) or batch
    return max(batch, 1), estimate_peak(points, max(batch, 1))


def _points(context: Context, found: BatchFound) -> tuple[Point, ...]:
    return () if found.per_replica or found.method == "validation" else context.points


def _below(context: Context, found: BatchFound) -> int:
    """Give the smallest batch that is known not to fit."""
    return min([found.value, *(point.batch for point in _points(context, found) if not point.fitted)])


def _why(context: Context, found: BatchFound, batch: int, estimate: Estimate | None) -> str:
    why = "Activations shrink with it, weights do not."
    diagnosis = context.diagnosis
    if estimate is None and diagnosis is not None and diagnosis.requested and batch < _below(context, found) // 2:
        asked = size(diagnosis.requested, brief_unit([diagnosis.requested]))
        why += f" Half would not do: {asked} were asked for at once."
    return why


def _expects(found: BatchFound, batch: int) -> tuple[tuple[str, int], ...]:
    if found.method == "validation":
        return ()
    if not found.per_replica:
        return ((f"batch of {found.method}" if found.method in ("evaluate", "predict") else "batch", batch),)
    return () if found.seen is None else (("batch", found.seen // found.value * batch),)


def _caveats(context: Context, found: BatchFound) -> tuple[str, ...]:
    facts = context.recording.facts
    text = context.cell.source
    caveats = ["Each epoch takes more steps."]
    layers = {layer for m in _models(facts, found) for layer in m.layers}
    if "BatchNormalization" in layers or (not layers and "BatchNormalization" in text):
        caveats.append("BatchNormalization computes its statistics from smaller batches.")
    if any(m.schedule for m in _models(facts, found)) or any(w in text for w in ("schedules.", "decay_steps")):
        caveats.append("The learning-rate schedule counts steps, so it moves on faster.")
    else:
        caveats.append("A smaller learning rate may suit it better.")
    if found.per_replica or "Strategy(" in text:
        caveats.append("Under a distribution strategy Keras splits the batch given to fit over the replicas.")
    return tuple(caveats)


def _models(facts: Facts, found: BatchFound) -> tuple[ModelFacts, ...]:
    one = facts.model(found.receiver or "")
    return (one,) if one is not None else facts.models


def _declined(context: Context, reason: str) -> Declined:
    patch = _patch(context)
    diagnosis = context.diagnosis
    frame = diagnosis.frame if diagnosis else None
    if frame is not None and not frame.in_cell and not patch:
        where = f"line {frame.line} of an earlier cell" if is_cell_file(frame.file) else f"{frame.file}:{frame.line}"
        reason += f"; the code that failed is {where} in `{frame.function}`"
    return Declined(KEY, TITLE, reason, patch)


def _patch(context: Context) -> str:
    """Give a change to the earlier cell where the batch size is set, to copy; empty where that is not sure."""
    facts = context.recording.facts
    known = [d for d in facts.datasets if d.kind == "PyDataset" and not d.is_new and d.batch and d.batch > 1]
    if len(known) != 1:
        return ""
    dataset = known[0]
    for earlier in reversed(facts.earlier_cells):
        cell = read_cell(earlier)
        if isinstance(cell, NotPython):
            continue
        made = [n for n in cell.tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == dataset.name]
        if not made:
            continue
        found = _batch_of(cell, made[-1])
        if found is None or found.value != dataset.batch:
            return ""
        changed = set_batch(found, found.value // 2)
        if isinstance(changed, Unknown):
            return ""
        return Proposal(KEY, TITLE, changed[0], earlier, "same model, other gradients").diff
    return ""


def _batch_of(cell: PythonCell, made: ast.Assign) -> BatchFound | None:
    from tf_mem_magic.notebook.batch.datasets import trace
    from tf_mem_magic.notebook.follow.resolve import Reader, Setting

    setting = trace(Reader(cell, Facts()), made.value)
    return BatchFound(cell, setting.value, setting.slots) if isinstance(setting, Setting) else None


def _context(source: str, facts: Facts | None = None, line: int | None = None, **known: object) -> Context:
    cell = Cell(source)
    diagnosis = Diagnosis("GPU:0", line=line, **known)  # type: ignore[arg-type]
    return Context(cell, Recording(cell, status="oom", facts=facts or Facts()), diagnosis)


EXAMPLES = (
    Example(
        "a number in the call",
        _context("%%tfmem\nmodel.fit(x, y, batch_size=256, epochs=3)", line=2),
        "%%tfmem\nmodel.fit(x, y, batch_size=128, epochs=3)",
    ),
    Example(
        "a constant of the cell",
        _context("%%tfmem\nBATCH_SIZE = 2**7\nmodel.fit(x, y, batch_size=BATCH_SIZE)", line=3),
        "%%tfmem\nBATCH_SIZE = 64\nmodel.fit(x, y, batch_size=BATCH_SIZE)",
    ),
    Example(
        "Keras's default of 32",
        _context("%%tfmem\nmodel.fit(x, y)", line=2),
        "%%tfmem\nmodel.fit(x, y, batch_size=16)",
    ),
    Example(
        "a constant of an earlier cell",
        _context("%%tfmem\nmodel.fit(x, y, batch_size=BATCH)", Facts(scalars=(ScalarFact("BATCH", 64),)), 2),
        "%%tfmem\nBATCH = 32\nmodel.fit(x, y, batch_size=BATCH)",
    ),
    Example(
        "a dataset of an earlier cell",
        _context("%%tfmem\nmodel.fit(train_ds)", Facts(datasets=(DatasetFacts("train_ds", batch=64),)), 2),
        "%%tfmem\nmodel.fit(train_ds.rebatch(32))",
    ),
    Example(
        "a custom training loop",
        _context("%%tfmem\nds = ds.batch(64)\nfor x, y in ds:\n    step(x, y)", line=4),
        "%%tfmem\nds = ds.batch(32)\nfor x, y in ds:\n    step(x, y)",
    ),
    Example(
        "a validation that has a batch of its own",
        _context(
            "%%tfmem\nmodel.fit(x, y, batch_size=64, validation_data=(v, w), validation_batch_size=4096)",
            Facts(batches=(BatchSeen("fit", 64, "arrays"),), validating=True),
            2,
        ),
        "%%tfmem\nmodel.fit(x, y, batch_size=64, validation_data=(v, w), validation_batch_size=2048)",
    ),
    Example(
        "a model called on all samples",
        _context(
            "%%tfmem\nfeatures = model(images)",
            Facts(
                models=(ModelFacts("model", form="functional", rowwise=True),),
                values=(NamedValue("images", 10**6, "ndarray", shape=(1000, 8)),),
            ),
            2,
        ),
        "%%tfmem\nfrom tf_mem_magic import apply\nfeatures = apply.in_batches(model, images, 64)",
    ),
    Example(
        "computed when the cell runs",
        _context("%%tfmem\nmodel.fit(x, y, batch_size=pick(x))", line=2),
        "computed when the cell runs",
        declined=True,
    ),
    Example(
        "already one sample",
        _context("%%tfmem\nmodel.fit(x, y, batch_size=1)", line=2),
        "already 1",
        declined=True,
    ),
    Example(
        "not what Keras was seen to use",
        _context("%%tfmem\nmodel.fit(x, y, batch_size=64)", Facts(batches=(BatchSeen("fit", 32, "arrays"),)), 2),
        "Keras used batches of 32",
        declined=True,
    ),
    Example(
        "the host's memory",
        _context("%%tfmem\nmodel.fit(x, y, batch_size=64)", line=2, cause="host"),
        "the computer's own memory",
        declined=True,
    ),
)
