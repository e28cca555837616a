"""Gradient accumulation: smaller batches, and one update of the weights for several of them."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, replace

from tf_mem_magic.core.diagnosis import Diagnosis, Part
from tf_mem_magic.core.facts import Facts, ModelFacts, NamedValue
from tf_mem_magic.core.proposals import Answer, Context, Estimate, Example, Proposal, RefusedError
from tf_mem_magic.core.recording import Cell, Recording
from tf_mem_magic.core.units import size
from tf_mem_magic.diagnose.estimate import estimate_peak, half_or_less, largest_power_of_two
from tf_mem_magic.notebook.batch.search import BatchFound, find_batch, set_batch
from tf_mem_magic.notebook.cell import (
    CellEdit,
    PythonCell,
    insert_argument,
    insert_line,
    read_cell,
    shares_line,
)
from tf_mem_magic.notebook.follow.resolve import Reader, Unknown
from tf_mem_magic.notebook.mask import NotPython
from tf_mem_magic.notebook.optimizers import OptimizerMade, compile_calls, compiled_with, made_by
from tf_mem_magic.notebook.origins import KerasNames
from tf_mem_magic.remedies.accumulate_gradients.accumulation import (
    ARGUMENT,
    Already,
    already,
    costs,
    exactness,
    keras_refusal,
    refused_in,
    sums_of,
    weigh,
)
from tf_mem_magic.remedies.accumulate_gradients.gradient_loop import earlier_value, find_gradient_loop
from tf_mem_magic.remedies.smaller_batch.remedy import cannot_help, failing_lines

KEY = "accumulate-gradients"
TITLE = "Accumulate gradients"


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the optimizer learns to accumulate: an edit for a number of batches, and what goes with it."""

    edits: tuple[CellEdit, ...]
    caveats: tuple[str, ...] = ()
    undo: str = ""


def propose(context: Context) -> Answer:
    """Offer the batch in parts whose gradients are averaged before the weights change."""
    try:
        return (_proposal(context),)
    except RefusedError as refused:
        return (refused.declined(KEY, TITLE),)


def _proposal(context: Context) -> Proposal:
    facts = context.recording.facts
    reason = cannot_help(context) or keras_refusal(facts)
    if reason:
        raise RefusedError(reason)
    cell = read_cell(context.cell.source)
    if isinstance(cell, NotPython):
        raise RefusedError(cell.reason)
    lines = failing_lines(context, cell)
    found = find_batch(cell, facts, lines)
    if isinstance(found, Unknown):
        raise RefusedError(found.reason)
    _check(context, cell, found)
    before = already(cell, facts)
    if isinstance(before, str):
        raise RefusedError(before)
    # Where the cell accumulates already, the sums are there.
    sums = 0 if before else sums_of(facts, found)
    batch, estimate = _choose(context, found, sums)
    doubt = weigh(context.diagnosis, sums, found.value, batch)
    if isinstance(doubt, str):
        raise RefusedError(doubt)
    steps = found.value // batch
    call = _fit(cell, found, lines)
    place = _place(cell, facts, found, call, steps, before)
    changed = set_batch(found, batch, place.edits)
    if isinstance(changed, Unknown):
        raise RefusedError(changed.reason)
    source, notes = changed
    total = steps * (before.steps if before else 1)
    preserves, differences = exactness(facts, cell, found, call, total, batch)
    return Proposal(
        key=KEY,
        title=f"Keep batch {total * batch}, in {total} steps of {batch}",
        source=source,
        original=context.cell.source,
        preserves=preserves,
        estimate=estimate,
        caveats=(*notes, *doubt, *differences, *place.caveats, *costs(facts, found, cell)),
        why=f"Holds {batch} samples at once, still averages {total * batch}.",
        expects=(("batch", batch),),
        undo=place.undo,
        doubtful=bool(doubt),
    )


def _check(context: Context, cell: PythonCell, found: BatchFound) -> None:
    facts = context.recording.facts
    if found.method in ("evaluate", "predict"):
        raise RefusedError(f"`{found.method}` computes no gradients: a smaller batch alone gives the same result")
    if found.value <= 1:
        raise RefusedError(f"the batch size is already {found.value}")
    if found.per_replica:
        raise RefusedError("under a distribution strategy Keras cannot accumulate gradients")
    reason = refused_in((cell.source, *facts.earlier_cells))
    if reason:
        raise RefusedError(reason)
    if "train_on_batch" in cell.source:
        raise RefusedError("the cell calls train_on_batch, and which calls make one update is not known")


def _choose(context: Context, found: BatchFound, sums: int) -> tuple[int, Estimate | None]:
    """Choose the size of a part: the largest divisor of the batch that may fit, at most half of it."""
    limit = context.diagnosis.limit if context.diagnosis else None
    below = min([found.value, *(p.batch for p in context.points if not p.fitted)])
    most = half_or_less(context.diagnosis, found.value, below, sums)
    if limit:
        most = largest_power_of_two(context.points, limit - sums, found.value) or most
    most = min(most, found.value // 2)
    if most < 1:
        raise RefusedError("a batch of 1 ran out of memory too")
    batch = next(size for size in range(most, 0, -1) if found.value % size == 0)
    line = estimate_peak(context.points, batch)
    if line is None:
        return batch, None
    basis = f"{line.basis}, and {size(sums)} for the sums of gradients"
    return batch, Estimate(line.low, line.high + sums, basis)


def _fit(cell: PythonCell, found: BatchFound, lines: frozenset[int]) -> ast.Call | None:
    """Find the call of ``fit`` whose batch size was found."""
    calls = [n for n in ast.walk(cell.tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)]
    calls = [c for c in calls if c.func.attr == found.method]  # type: ignore[attr-defined]
    only = [c for c in calls if any(c.lineno <= line <= (c.end_lineno or c.lineno) for line in lines)] or calls
    return only[0] if len(only) == 1 and found.method != "loop" else None


def _place(
    cell: PythonCell, facts: Facts, found: BatchFound, call: ast.Call | None, steps: int, before: Already | None
) -> _Place:
    """Find how the cell's optimizer is told to accumulate."""
    names, reader = KerasNames(cell, facts.earlier_cells), Reader(cell, facts)
    if found.method == "loop":
        return _of_loop(reader, names, facts, steps, before)
    if call is None:
        raise RefusedError("the call of fit that ran out of memory was not found for sure")
    assert isinstance(call.func, ast.Attribute)
    model = ast.unparse(call.func.value)
    compiled = compile_calls(cell.tree, model)
    local = isinstance(call.func.value, ast.Name) and not isinstance(reader.scopes.home(call.func.value), ast.Module)
    known = None if local else facts.model(model)
    if known is None and not compiled:
        raise RefusedError(f"whether `{model}` is a compiled Keras model is not known")
    if before is not None:
        return _Place((before.times(cell, steps),))
    made = compiled_with(reader, names, model)
    plain = None if isinstance(made, str) else _write(cell, made, steps)
    if plain is not None:
        return plain
    at = reader.scopes.statement(call)
    if not re.fullmatch(r"[\w.]+", model):
        raise RefusedError(f"`{model}` is no plain name of a model")
    return _call(cell, at, model, steps, undo=not compiled and known is not None and not known.is_new)


def _of_loop(reader: Reader, names: KerasNames, facts: Facts, steps: int, before: Already | None) -> _Place:
    loop = find_gradient_loop(reader, names)
    if isinstance(loop, str):
        raise RefusedError(loop)
    if any("tf.function" in text for text in facts.earlier_cells) and "tf.function" not in reader.cell.source:
        raise RefusedError("the training step may be a tf.function of an earlier cell, which keeps what it traced")
    counts = ("The loop's own counters, and what it prints, count the smaller batches.",)
    if before is not None:
        return _Place((before.times(reader.cell, steps),), counts)
    name = loop.optimizer.id
    if reader.bindings(loop.optimizer):
        made = made_by(reader, names, loop.optimizer)
        if isinstance(made, str):
            raise RefusedError(made)
        place = _write(reader.cell, made, steps) or _call(reader.cell, loop.top, name, steps, undo=False)
    else:
        value = earlier_value(names, name)
        if not isinstance(value, ast.Call) or not names.origin(value.func).startswith("keras.optimizers."):
            raise RefusedError(f"whether `{name}` is an optimizer of Keras is not known")
        place = _call(reader.cell, loop.top, name, steps, undo=True)
    return _Place(place.edits, (*counts, *place.caveats), place.undo)


def _write(cell: PythonCell, made: OptimizerMade, steps: int) -> _Place | None:
    """Write Keras's own argument where it means exactly the same; None where a schedule would run too fast."""
    if not made.plain_rate:
        return None
    if made.call is not None:
        return _Place((insert_argument(cell, made.call, f"{ARGUMENT}={steps}"),))
    if made.module is None:
        return None
    text = f"{made.module}.{made.name}({ARGUMENT}={steps})"
    return _Place((CellEdit(cell.start(made.node), cell.end(made.node), text),))


def _call(cell: PythonCell, at: ast.stmt, name: str, steps: int, undo: bool) -> _Place:
    """Write a call of our own before the statement that trains."""
    if shares_line(cell, at):
        raise RefusedError("the statement that trains shares its line with another: give it a line of its own")
    lines = ("from tf_mem_magic import apply", f"apply.accumulate_gradients({name}, {steps})")
    caveats = (
        "The changed cell needs tf_mem_magic. A learning-rate schedule goes on counting updates; to load a saved model "
        "with its schedule elsewhere, call apply.accumulate_gradients(..., 1) before saving.",
    )
    back = f"from tf_mem_magic import apply\napply.accumulate_gradients({name}, 1)" if undo else ""
    return _Place((insert_line(cell, at, *lines),), caveats, back)


def _known(
    source: str,
    line: int | None = None,
    *,
    model: ModelFacts | None = None,
    earlier: tuple[str, ...] = (),
    rows: int = 1024,
    other: int = 0,
) -> Context:
    facts = Facts(
        tensorflow="2.21.0",
        keras="3.15.1",
        initialised=True,
        models=() if model is None else (model,),
        values=(NamedValue("x", rows * 40, "numpy.ndarray", shape=(rows, 10), dtype="float32"),),
        earlier_cells=earlier,
    )
    cell = Cell(source)
    parts = (Part("weights", 4096, "counted"), Part("other", other, "the rest")) if other else ()
    return Context(cell, Recording(cell, status="oom", facts=facts), Diagnosis("GPU:0", line=line, breakdown=parts))


_NEW = ModelFacts("model", ("Dense",), weight_bytes=4096)
_OLD = ModelFacts("model", ("Dense",), weight_bytes=4096, steps_before=3, steps=3)
_FIT = "model.fit(x, y, batch_size=256)"
_HALF = "model.fit(x, y, batch_size=128)"
_COMPILE = '%%tfmem\nimport keras\nmodel = keras.Sequential([keras.layers.Dense(1)])\nmodel.compile({0}, "mse")\n'
_CALL = "from tf_mem_magic import apply\napply.accumulate_gradients(model, 2)\n"
_SCHEDULE = "keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.1, 100))"
_LOOP = """%%tfmem
optimizer = keras.optimizers.Adam({0})
for a, b in tf.data.Dataset.from_tensor_slices((x, y)).batch({1}):
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((model(a, training=True) - b) ** 2)
    grads = tape.gradient(loss, model.trainable_variables)
    optimizer.apply_gradients(zip(grads, model.trainable_variables))
"""
_MADE = "optimizer = keras.optimizers.Adam()\n"
_IMPORTS = ("import keras\nimport tensorflow as tf",)

EXAMPLES: tuple[Example, ...] = (
    Example(
        "compiled in the cell by a string",
        _known(_COMPILE.format('"adam"') + _FIT, 5, model=_NEW),
        _COMPILE.format("keras.optimizers.Adam(gradient_accumulation_steps=2)") + _HALF,
    ),
    Example(
        "compiled in the cell with an optimizer",
        _known(_COMPILE.format("keras.optimizers.SGD(0.1, momentum=0.9)") + _FIT, 5, model=_NEW),
        _COMPILE.format("keras.optimizers.SGD(0.1, momentum=0.9, gradient_accumulation_steps=2)") + _HALF,
    ),
    Example(
        "a learning-rate schedule goes on counting updates",
        _known(_COMPILE.format(_SCHEDULE) + _FIT, 5, model=_NEW),
        _COMPILE.format(_SCHEDULE) + _CALL + _HALF,
    ),
    Example(
        "compiled in an earlier cell",
        _known(f"%%tfmem\n{_FIT}", 2, model=_OLD),
        f"%%tfmem\n{_CALL}{_HALF}",
    ),
    Example(
        "more parts where the cell accumulates already",
        _known(f"%%tfmem\n{_CALL}{_HALF}", 4, model=_OLD),
        f"%%tfmem\n{_CALL}{_HALF}".replace("2)", "4)").replace("128", "64"),
    ),
    Example(
        "a custom training loop",
        _known(_LOOP.format("", 64), 5, model=_NEW, earlier=_IMPORTS),
        _LOOP.format("gradient_accumulation_steps=2", 32),
    ),
    Example(
        "a custom training loop with an optimizer of an earlier cell",
        _known(_LOOP.format("", 64).replace(_MADE, ""), 4, model=_OLD, earlier=(*_IMPORTS, _MADE)),
        _LOOP.format("", 32).replace(_MADE, _CALL.replace("(model", "(optimizer")),
    ),
    Example(
        "gradients that are clipped by the loop",
        _known(
            _LOOP.format("", 64).replace(
                "    optimizer.", "    grads, _ = tf.clip_by_global_norm(grads, 1.0)\n    optimizer."
            ),
            5,
            model=_NEW,
            earlier=_IMPORTS,
        ),
        "the gradients are changed",
        declined=True,
    ),
    Example(
        "a loop whose loss is a sum",
        _known(_LOOP.format("", 64).replace("reduce_mean", "reduce_sum"), 5, model=_NEW, earlier=_IMPORTS),
        "not certain that the loop's loss is a mean",
        declined=True,
    ),
    Example(
        "a moving average of the weights",
        _known(_COMPILE.format("keras.optimizers.Adam(use_ema=True)") + _FIT, 5, model=_NEW),
        "a moving average of the weights",
        declined=True,
    ),
    Example(
        "weights that outweigh what smaller batches save",
        _known(f"%%tfmem\n{_FIT}", 2, model=_OLD, other=3 * 4096),
        "sums of gradients would take 4.0 KiB, and batches of 128 save about 4.0 KiB",
        declined=True,
    ),
    Example(
        "few weights that are trained",
        _known(f"%%tfmem\n{_FIT}", 2, model=replace(_OLD, trainable_bytes=64), other=3 * 4096),
        f"%%tfmem\n{_CALL}{_HALF}",
    ),
    Example(
        "prediction",
        _known("%%tfmem\nmodel.predict(x, batch_size=256)", 2, model=_OLD),
        "computes no gradients",
        declined=True,
    ),
)
