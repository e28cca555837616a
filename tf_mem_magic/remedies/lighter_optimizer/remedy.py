"""Lighter optimizer: one that keeps fewer values for each weight than Adam does."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tf_mem_magic.core.diagnosis import Diagnosis, Part, SituationKind
from tf_mem_magic.core.effects import Effect
from tf_mem_magic.core.facts import Facts, ModelFacts
from tf_mem_magic.core.proposals import Choice, Context, Example, Proposal, RefusedError
from tf_mem_magic.core.recording import Cell, Recording
from tf_mem_magic.core.units import size
from tf_mem_magic.diagnose.expected import expected
from tf_mem_magic.notebook.earlier import earlier_cells
from tf_mem_magic.notebook.follow.evaluate import evaluate
from tf_mem_magic.notebook.follow.reader import Reader
from tf_mem_magic.notebook.optimizers import (
    KEPT,
    OptimizerMade,
    compile_calls,
    compiled_before,
    compiled_with,
    learning_rate,
    made_by,
)
from tf_mem_magic.notebook.origins import KerasNames
from tf_mem_magic.notebook.text.cell import PythonCell, words_of
from tf_mem_magic.notebook.text.edits import Editor
from tf_mem_magic.notebook.text.ranges import CellEdit, insert_line
from tf_mem_magic.remedies._engine.guards import device_memory, keras_3, smaller_than_device, uses_keras
from tf_mem_magic.remedies._engine.question import Ask, remedy
from tf_mem_magic.remedies.lighter_optimizer.earlier_compile import compiled_earlier
from tf_mem_magic.remedies.smaller_batch.asked import failing_lines

KEY = "lighter-optimizer"
TITLE = "Lighter optimizer"
HELPS: tuple[SituationKind, ...] = ("slots", "weights-fill")
GUARDS = (
    uses_keras,
    keras_3.saying("this is Keras 2 (tf_keras); only optimizers of Keras 3 are changed"),
    device_memory.saying("the computer's own memory ran out, and the optimizer's variables are not there"),
    smaller_than_device.saying("one allocation alone is larger than the device, whatever the optimizer keeps"),
)

_SHARE = 0.15
"""The least share of the memory that the optimizer must take for a change of training to be worth offering."""

_MORE_SLOTS = ("amsgrad", "centered", "momentum")
_CARRIED = (
    *("weight_decay", "clipnorm", "clipvalue", "global_clipnorm", "use_ema", "ema_momentum"),
    *("ema_overwrite_frequency", "loss_scale_factor", "gradient_accumulation_steps"),
)
"""Arguments that every optimizer of Keras takes; they are kept as they are written."""

_CAVEAT = (
    "Training changes: another optimizer takes other steps and wants another learning rate; tune the one written here."
)
_NOTES = {
    "SGD with momentum": "Keeps one value for each weight.",
    "Adafactor": "Keeps one value for each weight, and some for rows; watch the loss: it became NaN in one run.",
    "SGD": "Keeps nothing for the weights.",
}
_KEEPS = {"SGD with momentum": 1, "Adafactor": 1, "SGD": 0}
"""What is offered, and how many values each keeps. Not Lion: it keeps one, but its update takes more while it runs.

Measured peaks of a dense network of 14 MiB, batch 32: Adam 63, Lion 75, SGD with momentum 53, Adafactor 51, SGD 27 MiB.
"""


@dataclass(frozen=True, slots=True)
class _Share:
    """What the optimizer takes, in bytes: ``slots`` values for each of ``weights`` trained bytes, of ``total``."""

    slots: int
    weights: int
    total: int

    @property
    def bytes(self) -> int:
        return self.slots * self.weights


@remedy(KEY, TITLE, GUARDS)
def propose(ask: Ask) -> Proposal:
    """Offer optimizers that keep less, where the optimizer's share is large."""
    place, model, cell = ask.place, ask.model, ask.cell
    reader = Reader(cell, ask.facts, failing_lines(ask))
    made = _made(ask, reader, place.model)
    known = place.by_keras and model.optimizer in (*KEPT, "SGD")
    if not isinstance(made, str) and (known or (model.optimizer and not compiled_before(reader, place.model))):
        # A loop may train with an optimizer of its own, beside the one that the model was compiled with; and what is
        # known of a model may be older than the line that compiles it.
        model = replace(model, optimizer=made.name)
    share = _share(model, ask.diagnosis)
    if method := ask.inference:
        raise RefusedError(f"it ran out of memory in `{method}`, and another optimizer would change the training")
    lighter = [name for name, keeps in _KEEPS.items() if keeps < share.slots]
    if isinstance(made, str) and not model.is_new and not compiled_before(reader, place.model):
        return _compiled_again(ask, share, lighter)
    if isinstance(made, str):
        raise RefusedError(made, _patch(ask.facts, place.model, share))
    _check_made(reader, made)
    return _proposal(ask, share, made.name, [(name, _edited(cell, made, name)) for name in lighter])


def _compiled_again(ask: Ask, share: _Share, lighter: Sequence[str]) -> Proposal:
    """Compile a model of an earlier cell once more, as it was but for the optimizer."""
    try:
        there = compiled_earlier(ask)
        _check_made(Reader(there.cell, ask.facts), there.made)
        ways = [(name, there.source(ask, _constructor(there.cell, there.made, name))) for name in lighter]
    except RefusedError as refused:
        raise RefusedError(str(refused), _patch(ask.facts, ask.place.model, share)) from None
    again = f"`{ask.place.model}` is compiled once more in this cell; Undo compiles it as it was, with a new optimizer."
    offered = _proposal(ask, share, there.made.name, ways)
    return replace(offered, undo=there.text, caveats=(*offered.caveats, again))


def _proposal(ask: Ask, share: _Share, before: str, ways: Sequence[tuple[str, str]]) -> Proposal:
    ways = _fitting_first(ask, ways)
    title, source = ways[0]
    return Proposal(
        key=KEY,
        title=f"{before} → {title}",
        source=source,
        original=ask.source,
        preserves="nothing",
        caveats=(_CAVEAT, _NOTES[title]),
        why=(
            f"{before} keeps {share.slots} more value{'s' * (share.slots > 1)} for each weight: {size(share.bytes)} "
            f"of {size(share.total)}. {title} would keep {size(_KEEPS[title] * share.weights)}."
        ),
        choices=tuple(Choice(name, changed, _NOTES[name]) for name, changed in ways[1:]),
        effect=_effect(title),
    )


def _effect(name: str) -> Effect:
    return Effect(optimizer=name.split()[0].lower(), slots=_KEEPS[name])


def _fitting_first(ask: Ask, ways: Sequence[tuple[str, str]]) -> Sequence[tuple[str, str]]:
    """Put the first that is expected to fit in front, or, where none is, the one that keeps least."""
    diagnosis = ask.diagnosis
    limit = diagnosis.limit if diagnosis is not None else None
    if diagnosis is None or limit is None:
        return ways
    peaks = {name: expected(ask.recording, diagnosis, ask.context.applied.then(_effect(name))) for name, _ in ways}
    if all(peak is None for peak in peaks.values()):
        return ways
    fits = [way for way in ways if (peak := peaks[way[0]]) is not None and peak.high <= limit]
    best = fits[0] if fits else min(ways, key=lambda way: _KEEPS[way[0]])
    return [best, *(way for way in ways if way != best)]


def _share(model: ModelFacts, diagnosis: Diagnosis | None) -> _Share:
    """Compare what the optimizer keeps with the device's limit, or else with what was in use."""
    name = model.optimizer
    if name is None:
        raise RefusedError(f"`{model.name}` is compiled with no optimizer that is known")
    if name == "SGD":
        raise RefusedError(f"{name} keeps little or nothing that a lighter optimizer would not")
    if name not in KEPT:
        raise RefusedError(f"how much {name} keeps for each weight is not known: it is none of Keras's optimizers")
    total = (diagnosis.limit or diagnosis.in_use or 0) if diagnosis is not None else 0
    # Keras keeps values for what it trains only: none for the frozen base of a model.
    trained = model.weight_bytes if model.trainable_bytes is None else model.trainable_bytes
    share = _Share(KEPT[name], trained, total)
    if not share.weights or not total:
        raise RefusedError("how much of the memory the optimizer takes is not known")
    if share.bytes < _SHARE * total:
        raise RefusedError(
            f"{name} keeps {size(share.bytes)} of {size(total)}: another would save little and change training"
        )
    return share


def _made(ask: Ask, reader: Reader, model: str) -> OptimizerMade | str:
    names = ask.names
    if compiled_before(reader, model):
        return compiled_with(reader, names, model)
    calls = ask.notebook.calls("apply_gradients")
    owners = [c.func.value for c in calls if isinstance(c.func, ast.Attribute)]
    if len(owners) == 1 and isinstance(owners[0], ast.Name):
        return made_by(reader, names, owners[0])
    if len(owners) > 1:
        return "the cell trains with more than one optimizer"
    return f"`{model}` is not compiled in this cell"


def _check_made(reader: Reader, made: OptimizerMade) -> None:
    if not made.plain_rate:
        raise RefusedError(f"its learning rate is a schedule, or not known, and was made for {made.name}")
    given = made.call.keywords if made.call is not None else []
    on = [k.arg for k in given if k.arg in _MORE_SLOTS and not (evaluate(reader, k.value) == 0 or _is_false(k.value))]
    if on:
        raise RefusedError(f"{made.name} is used with {on[0]}, and what it keeps then is not computed here")
    if made.call is not None and len(made.call.args) > 1:
        raise RefusedError("the optimizer's arguments are given by position, and their meaning may be lost")


def _is_false(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


def _edited(cell: PythonCell, made: OptimizerMade, name: str) -> str:
    """Write another constructor in place of the optimizer's, with a rate to start from and what both take."""
    edits = []
    module = made.module
    if module is None:
        top = next(s for s in cell.tree.body if made.node in set(ast.walk(s)))
        edits.append(insert_line(cell, top, "import keras"))
        module = "keras.optimizers"
    constructor = _constructor(cell, made, name, module)
    edits.append(CellEdit(cell.start(made.node), cell.end(made.node), constructor))
    return Editor(cell).edit(*edits).source()


def _constructor(cell: PythonCell, made: OptimizerMade, name: str, module: str = "{module}") -> str:
    """Write the constructor of another optimizer, with a rate to start from and the arguments that both take."""
    rate = learning_rate(made.call) if made.call is not None else None
    text = cell.text(rate) if rate is not None else "0.001"
    arguments = {
        "SGD with momentum": ["learning_rate=0.01", "momentum=0.9"],
        "SGD": ["learning_rate=0.01"],
        "Adafactor": [f"learning_rate={text}"],
    }[name]
    keywords = made.call.keywords if made.call is not None else []
    arguments += [f"{k.arg}={cell.text(k.value)}" for k in keywords if k.arg in _CARRIED]
    if made.name == "AdamW" and all(k.arg != "weight_decay" for k in keywords):
        arguments.append("weight_decay=0.004")
    return f"{module}.{name.split()[0]}({', '.join(arguments)})"


def _patch(facts: Facts, model: str, share: _Share) -> str:
    """Give the change of the earlier cell that compiles the model, to copy; empty where that is not sure."""
    before = earlier_cells(facts.earlier_cells)
    near = set.intersection(*(set(before.places_with(word)) for word in ("compile", *words_of(model))))
    for index in sorted(near, reverse=True):
        cell = before.at(index)
        if cell is None or not compile_calls(cell.tree, model):
            continue
        made = compiled_with(Reader(cell, facts), KerasNames(cell, facts.earlier_cells[:index]), model)
        if isinstance(made, str) or not made.plain_rate:
            return ""
        name = next(n for n, keeps in _KEEPS.items() if keeps < share.slots)
        return Proposal(KEY, TITLE, _edited(cell, made, name), cell.source, "nothing").diff
    return ""


def _known(
    source: str,
    line: int,
    *,
    optimizer: str = "Adam",
    weights: int = 100 << 20,
    limit: int = 512 << 20,
    earlier: tuple[str, ...] = (),
) -> Context:
    model = ModelFacts("model", ("Dense",), optimizer, weight_bytes=weights)
    facts = Facts("2.21.0", "3.15.1", True, models=(model,), earlier_cells=earlier)
    cell = Cell(source)
    parts = (Part("weights", weights, "measured"),)
    diagnosis = Diagnosis("GPU:0", line=line, limit=limit, in_use=limit, breakdown=parts)
    return Context(cell, Recording(cell, status="oom", facts=facts), diagnosis)


_BUILD = """%%tfmem
import keras
model = keras.Sequential([keras.layers.Dense(1)])
model.compile({0}, "mse")
model.fit(x, y)
"""
_MOMENTUM = "keras.optimizers.SGD(learning_rate=0.01, momentum=0.9{0})"

EXAMPLES: tuple[Example, ...] = (
    Example("Adam by its string", _known(_BUILD.format('"adam"'), 5), _BUILD.format(_MOMENTUM.format(""))),
    Example(
        "Adam with a clipped norm, which stays",
        _known(_BUILD.format("keras.optimizers.Adam(1e-3, beta_1=0.8, clipnorm=1.0)"), 5),
        _BUILD.format(_MOMENTUM.format(", clipnorm=1.0")),
    ),
    Example(
        "AdamW decays the weights, and so does what takes its place",
        _known(_BUILD.format("keras.optimizers.AdamW(1e-3)"), 5, optimizer="AdamW"),
        _BUILD.format(_MOMENTUM.format(", weight_decay=0.004")),
    ),
    Example(
        "RMSprop keeps one value; less is plain SGD",
        _known(_BUILD.format("keras.optimizers.RMSprop(0.002)"), 5, optimizer="RMSprop"),
        _BUILD.format("keras.optimizers.SGD(learning_rate=0.01)"),
    ),
    Example("a small share", _known(_BUILD.format('"adam"'), 5, weights=1 << 20), "would save little", declined=True),
    Example(
        "plain SGD keeps nothing",
        _known(_BUILD.format('"sgd"'), 5, optimizer="SGD"),
        "keeps little or nothing",
        declined=True,
    ),
    Example(
        "compiled in an earlier cell",
        _known("%%tfmem\nmodel.fit(x, y)", 2, earlier=(_BUILD.format('"adam"'),)),
        "not compiled in this cell",
        declined=True,
    ),
    Example(
        "a schedule",
        _known(_BUILD.format("keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.1, 9))"), 5),
        "is a schedule",
        declined=True,
    ),
)
