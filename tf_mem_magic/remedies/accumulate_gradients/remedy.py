"""Gradient accumulation: smaller batches, and one update of the weights for several of them."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, replace
from functools import partial

from tf_mem_magic.core.effects import Effect
from tf_mem_magic.core.facts import ModelFacts
from tf_mem_magic.core.proposals import Context, Estimate, Proposal, RefusedError
from tf_mem_magic.core.units import size
from tf_mem_magic.diagnose.estimate import estimate_peak, half_or_less, largest_power_of_two
from tf_mem_magic.diagnose.expected import expected
from tf_mem_magic.diagnose.room.batches import batch_to_try
from tf_mem_magic.notebook.batch.found import BatchFound, set_batch
from tf_mem_magic.notebook.follow.calls import argument_exprs
from tf_mem_magic.notebook.follow.reader import Reader, Unknown
from tf_mem_magic.notebook.model import receiver
from tf_mem_magic.notebook.optimizers import OptimizerMade, compiled_before, compiled_with, made_by
from tf_mem_magic.notebook.scopes import position
from tf_mem_magic.notebook.text.cell import PythonCell, read_cell
from tf_mem_magic.notebook.text.edits import IMPORT, SHARED, argument
from tf_mem_magic.notebook.text.mask import NotPython
from tf_mem_magic.notebook.text.ranges import CellEdit, insert_argument, insert_line, shares_line
from tf_mem_magic.remedies._engine.guards import python
from tf_mem_magic.remedies._engine.question import Ask, remedy
from tf_mem_magic.remedies.accumulate_gradients.accumulation import (
    check_a_mean,
    costs,
    exactness,
    keras_accumulates,
    sums_of,
    weigh,
)
from tf_mem_magic.remedies.accumulate_gradients.already import ARGUMENT, Already, already, is_taken_back, sums_in
from tf_mem_magic.remedies.accumulate_gradients.examples import EXAMPLES
from tf_mem_magic.remedies.accumulate_gradients.gradient_loop import find_gradient_loop, traced_before
from tf_mem_magic.remedies.accumulate_gradients.means import earlier_value
from tf_mem_magic.remedies.accumulate_gradients.other_trainings import (
    check_other_trainings,
    keeps_its_optimizer,
    serves_only,
)
from tf_mem_magic.remedies.accumulate_gradients.owners import given_by_callers
from tf_mem_magic.remedies.accumulate_gradients.whole_data import in_parts
from tf_mem_magic.remedies.smaller_batch.asked import failing_lines, fewer_samples_may_help, found_batch
from tf_mem_magic.remedies.smaller_batch.later_fits import with_later_fits
from tf_mem_magic.remedies.smaller_batch.shown import check_shown

KEY = "accumulate-gradients"
TITLE = "Accumulate gradients"
GUARDS = (fewer_samples_may_help, keras_accumulates, python)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the optimizer learns to accumulate: an edit for a number of batches, and what goes with it."""

    edits: tuple[CellEdit, ...]
    caveats: tuple[str, ...] = ()
    undo: str = ""


@remedy(KEY, TITLE, GUARDS)
def propose(ask: Ask) -> Proposal:
    """Offer the batch in parts whose gradients are averaged before the weights change."""
    facts, cell = ask.facts, ask.cell
    found = found_batch(ask)
    if isinstance(found, Unknown):
        whole = in_parts(ask, KEY)
        if whole is None:
            raise RefusedError(found.reason)
        return whole
    is_masked = _check(ask, found)
    found = with_later_fits(Reader(ask.cell, ask.facts, failing_lines(ask)), found, partial(_trains_on, found))
    before = already(ask, found)
    # Where the cell accumulates already, the sums are there.
    sums = 0 if before else sums_of(facts, found)
    kept = Effect(accumulates=not before, sums=True, validation=found.keeps(facts.validation))
    batch, estimate = _choose(ask, found, sums, kept)
    check_shown(ask, found, batch)
    doubt = weigh(ask.diagnosis, sums, found.value, batch)
    steps = found.value // batch
    place = _place(ask, found, steps, before)
    if found.same_steps:
        raise RefusedError("the loop takes as many steps as before, so there would be fewer updates of the weights")
    if found.capped:
        raise RefusedError(
            f"{found.capped} may count batches and would stay: there would be fewer updates of the weights"
        )
    check_other_trainings(ask, found, place.edits)
    source, notes = set_batch(found, batch, place.edits)
    total = steps * (before.steps if before else 1)
    preserves, differences = exactness(facts, cell, found, total, batch, is_masked, failing_lines(ask))
    return Proposal(
        key=KEY,
        title=f"Keep batch {total * batch}, in {total} steps of {batch}",
        source=source,
        original=ask.source,
        preserves=preserves,
        estimate=estimate,
        caveats=(*notes, *doubt, *differences, *place.caveats, *costs(facts, found, cell)),
        why=f"Holds {batch} samples at once, still averages {total * batch}.",
        expects=(("batch", batch),),
        undo="\n".join((*found.undo, *([place.undo] if place.undo else []))),
        doubtful=bool(doubt),
        effect=replace(kept, batch=(found.value, batch)),
    )


def _trains_on(found: BatchFound, reader: Reader, other: ast.Call) -> bool:
    """Tell whether a later training has the optimizer of the one that failed: that one accumulates then too."""
    return found.call is not None and keeps_its_optimizer(reader, found.call, position(found.call), position(other))


def _check(ask: Ask, found: BatchFound) -> bool:
    """Refuse where parts cannot make the update of the whole; tell whether a mask weighs them differently."""
    if found.method == "validation" or ask.facts.validating:
        raise RefusedError("it ran out in the validation, which computes no gradients: the training itself fits")
    if found.infers:
        what = f"`{found.method}`" if found.call is not None else "the loop that ran out"
        raise RefusedError(f"{what} computes no gradients: a smaller batch alone gives the same result")
    if found.value <= 1:
        raise RefusedError(f"the batch size is already {found.value}")
    if found.per_replica:
        raise RefusedError("under a distribution strategy Keras cannot accumulate gradients")
    is_masked = check_a_mean(ask, found)
    if found.call is None and any(map(receiver, ask.notebook.calls("train_on_batch"))):
        raise RefusedError("the cell calls train_on_batch, and which calls make one update is not known")
    return is_masked


def done_already(context: Context) -> Effect:
    """Say what the cell does already: its update from sums stays as large, whatever else changes."""
    cell = read_cell(context.cell.source)
    return Effect(sums=not isinstance(cell, NotPython) and sums_in(cell, context.recording.facts))


def _choose(ask: Ask, found: BatchFound, sums: int, sums_kept: Effect) -> tuple[int, Estimate | None]:
    """Choose the size of a part: the largest divisor of the batch that may fit, at most half of it."""
    limit = ask.diagnosis.limit if ask.diagnosis else None
    below = min([found.value, *(p.batch for p in ask.points if not p.fitted)])
    most = half_or_less(ask.diagnosis, found.value, below, sums)
    if ask.diagnosis is not None:
        # What the step itself tells comes first; where it tells that not even one sample fits, half is tried.
        kept = ask.context.applied.then(sums_kept)
        most = batch_to_try(ask.recording, ask.diagnosis, found.value, below, kept) or most
    if limit:
        most = largest_power_of_two(ask.points, limit - sums, found.value) or most
    most = min(most, found.value // 2)
    if most < 1:
        raise RefusedError("a batch of 1 ran out of memory too")
    batch = _with_room(ask, found, found.divisor_of(most, exactly=True), sums_kept)
    line = estimate_peak(ask.points, batch)
    if line is None:
        return batch, None
    basis = f"{line.basis}, and {size(sums)} for the sums of gradients"
    return batch, Estimate(line.low, line.high + sums, basis)


def _with_room(ask: Ask, found: BatchFound, batch: int, kept: Effect) -> int:
    """Give half the part where the whole may just fit, and the half is sure to: both make the same update.

    Of a pool that is nearly full the last bytes lie in pieces: parts told to need 92 and 99 % of it ran out.
    """
    diagnosis, limit = ask.diagnosis, ask.diagnosis.limit if ask.diagnosis is not None else None
    if diagnosis is None or not limit or batch // 2 < found.parts:
        return batch
    half = found.divisor_of(batch // 2, exactly=True)

    def word(size: int) -> str:
        effect = ask.context.applied.then(replace(kept, batch=(found.value, size)))
        estimate = expected(ask.recording, diagnosis, effect)
        return "" if estimate is None else estimate.word(limit)

    return half if word(batch) in ("likely", "tight") and word(half) == "fits" else batch


def _place(ask: Ask, found: BatchFound, steps: int, before: Already | None) -> _Place:
    """Find how the cell's optimizer is told to accumulate."""
    cell, call = ask.cell, found.call
    if call is None and found.method != "loop":
        raise RefusedError(
            f"`{found.method}` is called in a method of the notebook, where its optimizer is not followed"
        )
    if call is None:
        return _of_loop(ask, found, steps, before)
    reader = Reader(cell, ask.facts, failing_lines(ask))
    assert isinstance(call.func, ast.Attribute)
    model = ast.unparse(call.func.value)
    compiled = compiled_before(reader, model)
    known, name = _model_given(reader, call.func.value)
    if known is None and not compiled:
        raise RefusedError(f"whether `{model}` is a compiled Keras model is not known")
    if before is not None:
        return _Place((before.times(cell, steps),))
    made = compiled_with(reader, ask.names, model)
    stays = not isinstance(made, str) and serves_only(reader, made.node, call) and not is_taken_back(ask, found)
    stays = stays and all(_comes_first(reader, one, call) for one in compiled)
    plain = _write(cell, made, steps) if stays and not isinstance(made, str) else None
    if plain is not None:
        return plain
    at = reader.scopes.statement(call)
    if not re.fullmatch(r"[\w.]+", model):
        raise RefusedError(f"`{model}` is no plain name of a model")
    return _call(cell, at, model, steps, undo=name if not compiled and known is not None and not known.is_new else "")


def _comes_first(reader: Reader, compiled: ast.Call, call: ast.Call) -> bool:
    """Tell whether ``compile`` runs before each run of the training, as far as they stand in one scope."""
    scopes = reader.scopes
    if scopes.scope_of(compiled) is not scopes.scope_of(call):
        return True
    return scopes.surely_before(scopes.statement(compiled), call)


def _model_given(reader: Reader, receiver: ast.expr) -> tuple[ModelFacts | None, str]:
    """Give what is known of the model that is trained, and the name by which the notebook holds it.

    A function that the cell calls once trains the model that it is given there.
    """
    model = ast.unparse(receiver)
    if not isinstance(receiver, ast.Name) or isinstance(reader.scopes.home(receiver), ast.Module):
        return reader.facts.model(model), model
    chosen = reader.reaching(receiver)
    function = chosen.scope if chosen is not None and chosen.kind == "param" else None
    if chosen is None or not isinstance(function, ast.FunctionDef) or len(reader.calls_of(function.name)) != 1:
        return None, model
    given = argument_exprs(reader, chosen)
    held = given[0] if not isinstance(given, Unknown) and len(given) == 1 else None
    if not isinstance(held, ast.Name) or not isinstance(reader.scopes.home(held), ast.Module):
        return None, model
    one = not any(binding.kind == "loop" for binding in reader.bindings(held))
    return (reader.facts.model(held.id) if one else None), held.id


def _of_loop(ask: Ask, found: BatchFound, steps: int, before: Already | None) -> _Place:
    reader, names = Reader(ask.cell, ask.facts, failing_lines(ask)), ask.names
    if traced_before(reader):
        raise RefusedError("the training step may be a tf.function of an earlier cell, which keeps what it traced")
    frame = ask.diagnosis.frame if ask.diagnosis is not None else None
    if frame is not None and not frame.in_cell and "GradientTape" not in ask.cell.words:
        raise RefusedError(f"`{frame.function}`, which trains, lies outside this cell: its optimizer is not followed")
    loop = find_gradient_loop(reader, names, found.value)
    counts = ("The loop's own counters, and what it prints, count the smaller batches.",)
    if before is not None:
        return _Place((before.times(reader.cell, steps),), counts)
    optimizer = given_by_callers(reader, loop.optimizer)
    name = reader.written(optimizer)
    if not isinstance(optimizer, ast.Name) or reader.bindings(optimizer):
        made = made_by(reader, names, optimizer)
        if isinstance(made, str):
            raise RefusedError(made)
        local = not isinstance(optimizer, ast.Name) or not isinstance(reader.scopes.home(optimizer), ast.Module)
        back = is_taken_back(ask, found)
        place = None if back else _write(reader.cell, made, steps)
        if place is None and local:
            why = "and the cell takes back what it accumulates" if back else "with a rate that may be a schedule"
            where = "in a function" if isinstance(optimizer, ast.Name) else "where it is handed over"
            raise RefusedError(f"`{name}` is made {where}, {why}")
        place = place or _call(reader.cell, loop.top, name, steps, undo="")
    else:
        value = earlier_value(names, name)
        if not isinstance(value, ast.Call) or not names.origin(value.func).startswith("keras.optimizers."):
            raise RefusedError(f"whether `{name}` is an optimizer of Keras is not known")
        place = _call(reader.cell, loop.top, name, steps, undo=name)
    return _Place(place.edits, (*counts, *place.caveats), place.undo)


def _write(cell: PythonCell, made: OptimizerMade, steps: int) -> _Place | None:
    """Write Keras's own argument where it means exactly the same; None where a schedule would run too fast."""
    if not made.plain_rate:
        return None
    if made.call is not None:
        given = argument(made.call, ARGUMENT)
        if given is not None:
            return _Place((CellEdit(cell.start(given), cell.end(given), str(steps)),))
        return _Place((insert_argument(cell, made.call, f"{ARGUMENT}={steps}"),))
    if made.module is None:
        return None
    text = f"{made.module}.{made.name}({ARGUMENT}={steps})"
    return _Place((CellEdit(cell.start(made.node), cell.end(made.node), text),))


def _call(cell: PythonCell, at: ast.stmt, name: str, steps: int, undo: str) -> _Place:
    """Write a call of our own before the statement that trains; ``undo`` is the name to set back, if any."""
    if shares_line(cell, at):
        raise RefusedError(SHARED)
    lines = (IMPORT, f"apply.accumulate_gradients({name}, {steps})")
    caveats = (
        "The changed cell needs tf_mem_magic. A learning-rate schedule goes on counting updates; to load a saved model "
        "with its schedule elsewhere, call apply.accumulate_gradients(..., 1) before saving.",
    )
    back = f"{IMPORT}\napply.accumulate_gradients({undo}, 1)" if undo else ""
    return _Place((insert_line(cell, at, *lines),), caveats, back)


__all__ = ["EXAMPLES", "GUARDS", "KEY", "TITLE", "propose"]
