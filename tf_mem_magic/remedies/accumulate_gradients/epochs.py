"""How many samples an epoch has, and what is left over of it where several batches make one update."""

from __future__ import annotations

import ast
import math

from tf_mem_magic.notebook.batch.found import BatchFound
from tf_mem_magic.notebook.batch.means.through import gone_through
from tf_mem_magic.notebook.batch.samples import count_samples
from tf_mem_magic.notebook.follow.evaluate import evaluate
from tf_mem_magic.notebook.follow.reader import Reader
from tf_mem_magic.notebook.uses import called_name

_ALL_SAMPLES = frozenset("batch rebatch padded_batch prefetch cache shuffle map with_options".split())
"""What a dataset goes through with as many samples."""


def samples_of(reader: Reader, call: ast.Call | None) -> int | None:
    """Count the samples of one epoch of a call of ``fit``, or of the failing loop; None where that cannot be told."""
    if call is None:
        loops = [n for n in reader.nodes if isinstance(n, ast.For) and reader.covers(n)]
        return _samples_in(reader, gone_through(reader, loops[-1].iter)) if loops else None
    keywords = {k.arg: k.value for k in call.keywords}
    data = keywords.get("x", call.args[0] if call.args else None)
    if data is None or None in keywords:
        return None
    value = reader.facts.value(data.id) if isinstance(data, ast.Name) else None
    if value is None or not value.shape:
        return _samples_in(reader, data)
    split = keywords.get("validation_split")
    if split is None:
        return value.shape[0]
    if not isinstance(split, ast.Constant) or not isinstance(split.value, (int, float)):
        return None
    # As Keras splits arrays: the first part trains.
    return math.floor(value.shape[0] * (1.0 - split.value))


def _samples_in(reader: Reader, data: ast.expr) -> int | None:
    seen: set[ast.expr] = set()
    while data not in seen:
        seen.add(data)
        if isinstance(data, ast.Name):
            known = reader.facts.dataset(data.id)
            if known is not None and not reader.bindings(data):
                return known.samples
            chosen = reader.reaching(data)
            data = data if chosen is None or chosen.value is None or chosen.kind != "assign" else chosen.value
        elif isinstance(data, ast.Call) and isinstance(data.func, ast.Attribute):
            if called_name(data) == "from_tensor_slices" and data.args:
                first = data.args[0]
                parts = first.elts if isinstance(first, ast.Tuple) else [first]
                return count_samples(reader, parts[0]) if parts else None
            if called_name(data) not in _ALL_SAMPLES or _drops(data):
                return None
            data = data.func.value
    return None


def _drops(call: ast.Call) -> bool:
    return any(k.arg == "drop_remainder" for k in call.keywords) or (
        called_name(call) == "batch" and len(call.args) > 1
    )


def left_over(samples: int | None, batch: int, steps: int) -> str:
    """Say what happens at the end of an epoch of ``samples``; empty where each update has all its samples."""
    small = batch // steps
    if samples is None:
        return (
            f"Where the number of samples is no multiple of {batch}, the last update of an epoch is not quite that of "
            "the original batch, or goes on into the next epoch."
        )
    if samples % batch == 0:
        return ""
    parts = -(-samples // small)
    rest = parts % steps
    if rest == 0:
        return (
            f"{samples} samples: the last update of each epoch takes its last {samples % small} samples as if they "
            f"were {small}."
        )
    return (
        f"{samples} samples make {parts} batches of {small}, which {steps} does not divide: the last {rest} of an "
        f"epoch make{'s' if rest == 1 else ''} an update together with the first of the next, and those that are over "
        "after the last epoch make none."
    )


def steps_that_follow(reader: Reader, found: BatchFound) -> tuple[str, int | None] | None:
    """Give ``steps_per_epoch`` that is computed from the size, and of how many samples; None where there is none."""
    given = next((k.value for k in found.call.keywords if k.arg == "steps_per_epoch"), None) if found.call else None
    if given is None or isinstance(given, ast.Constant) or any(s.name == "steps_per_epoch" for s in found.steps):
        return None
    divided = given.args[0] if isinstance(given, ast.Call) and len(given.args) == 1 else given
    by = isinstance(divided, ast.BinOp) and isinstance(divided.op, (ast.Div, ast.FloorDiv))
    left = divided.left if by and isinstance(divided, ast.BinOp) else None
    if isinstance(left, ast.Call) and called_name(left) == "len" and len(left.args) == 1:
        value = reader.facts.value(ast.unparse(left.args[0]))
        return ast.unparse(given), value.shape[0] if value is not None and value.shape else None
    samples = None if left is None else evaluate(reader, left)
    return ast.unparse(given), samples if isinstance(samples, int) else None


def over_the_end(steps: str, samples: int | None, batch: int, total: int) -> str:
    """Say where an epoch of so many steps ends within an update; empty where none does."""
    if samples is None:
        return (
            f"`steps_per_epoch={steps}` counts batches of {batch} now: where {total} does not divide their number, an "
            "update goes on into the next epoch, and the last one is not made."
        )
    parts = -(-samples // batch) if "ceil" in steps else samples // batch
    return (
        f"{parts} batches of {batch} an epoch, which {total} does not divide: an update goes on into the next "
        "epoch, and what is over after the last one makes none."
        if parts % total
        else ""
    )
