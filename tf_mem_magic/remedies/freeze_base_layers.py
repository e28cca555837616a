"""Freeze base layers: the pretrained part of a model is not trained, so nothing is kept to train it with."""

from __future__ import annotations

import ast
from collections.abc import Iterable

from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.facts import ModelFacts
from tf_mem_magic.core.proposals import Example, Proposal, RefusedError
from tf_mem_magic.notebook.text.cell import PythonCell, walk
from tf_mem_magic.notebook.text.edits import argument
from tf_mem_magic.notebook.text.outline import definitions_of
from tf_mem_magic.notebook.uses import called_name
from tf_mem_magic.remedies._engine.examples import example
from tf_mem_magic.remedies._engine.guards import (
    device_memory,
    diagnosed,
    keras_3,
    model_made_here,
    smaller_than_device,
    training,
)
from tf_mem_magic.remedies._engine.question import TRAINING, Ask, remedy

KEY = "freeze-base-layers"
TITLE = "Freeze base layers"
GUARDS = (
    diagnosed,
    device_memory.saying("the computer's own memory ran out, and what training keeps for the base is not there"),
    smaller_than_device,
    keras_3,
    training,
)

_ORIGIN = "keras.applications."
WEIGHTS = {"MobileNet": 5, "MobileNetV2": 3, "MobileNetV3": 4, "NASNet": 2, "ConvNeXt": 2}
"""The position of ``weights`` in the constructors that begin so; in all others it is the second argument."""

_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_TRAINS = TRAINING | {"GradientTape", "apply_gradients", "minimize"}
_ADDS = frozenset({"add", "append", "extend"})
_HARMLESS = frozenset("print len type isinstance id list tuple enumerate zip reversed sum".split())

_WHY = (
    "A base that is not trained needs no gradients, no optimizer state, and nothing kept in the forward pass for the "
    "backward pass."
)
_CAVEATS = (
    "Training changes: only what comes after the base learns. It is the usual first phase of transfer learning.",
    "The base's batch normalization computes with its stored statistics.",
    "What the optimizer makes for the base is made no more; a model that was compiled before must be compiled again.",
)


@remedy(KEY, TITLE, GUARDS)
def propose(ask: Ask) -> Proposal:
    """Offer it where the cell makes a base of ``keras.applications`` with weights, and a model with layers on it."""
    name, made, call = _find_base(ask)
    model_made_here(ask)
    _check_place(ask)
    _check_weights(ask, name, call)
    _check_choice(ask, name)
    _check_hands(ask, name)
    _check_head(ask, name, made)
    body = ask.cell.tree.body
    after = body[body.index(made) + 1]
    return Proposal(
        key=KEY,
        title=f"Freeze `{name}`",
        source=ask.edit().before(after, f"{name}.trainable = False").source(),
        original=ask.source,
        preserves="nothing",
        caveats=_CAVEATS,
        why=_WHY,
    )


def _find_base(ask: Ask) -> tuple[str, ast.Assign, ast.Call]:
    """Find the one statement of the cell that makes a base, and the name that it gets."""
    calls = [call for call in ask.cell.calls if _is_base(ask, call)]
    if not calls:
        raise RefusedError("the cell makes no pretrained base of Keras (keras.applications)")
    if len(calls) > 1:
        raise RefusedError("the cell makes more than one base, and which of them should stay as it is is yours to say")
    statements = [s for s in ask.cell.tree.body if isinstance(s, ast.Assign) and s.value is calls[0]]
    targets = statements[0].targets if statements else []
    if len(targets) != 1 or not isinstance(targets[0], ast.Name):
        raise RefusedError("the base is not made in a statement of its own that gives it a name")
    if len([use for use in ask.notebook.uses(targets[0].id) if use.kind == "sets" and use.cell is ask.cell]) > 1:
        raise RefusedError(f"`{targets[0].id}` is set more than once")
    return targets[0].id, statements[0], calls[0]


def _is_base(ask: Ask, call: ast.Call) -> bool:
    origin = ask.names.origin(call.func)
    return origin.startswith(_ORIGIN) and origin.rpartition(".")[2][:1].isupper()


def _check_place(ask: Ask) -> None:
    """See that what ran out trains: by itself, or by a function that the notebook defines."""
    line, model, statement = ask.line, ask.place.model, ask.failing_statement
    if line is None or statement is None or isinstance(statement, _DEFINITIONS):
        return
    words = {word for n in walk(statement) for word in (getattr(n, "id", ""), getattr(n, "attr", ""))}
    if _reached(ask, words).isdisjoint(_TRAINS):
        where = ask.cell.told(line)
        raise RefusedError(f"it ran out of memory in {where}, which does not train `{model}` as far as cells show")


def _check_weights(ask: Ask, name: str, call: ast.Call) -> None:
    kind = ask.names.origin(call.func).rpartition(".")[2]
    longest = max((begin for begin in WEIGHTS if kind.startswith(begin)), key=len, default="")
    weights = argument(call, "weights", WEIGHTS.get(longest, 1))
    if weights is None:
        return
    value = weights.value if isinstance(weights, ast.Constant) else ask.facts.scalar(ask.cell.text(weights))
    if isinstance(weights, ast.Constant) and value is None:
        raise RefusedError(f"`{name}` has no pretrained weights: all of it has to learn")
    if not isinstance(value, str):
        raise RefusedError(f"which weights `{name}` gets is decided when the cell runs")


def _check_choice(ask: Ask, name: str) -> None:
    """See that nobody else decides what is trained: the cell, or a function of an earlier cell that it names."""
    if any(called_name(call) == "load_weights" for call in ask.cell.calls):
        raise RefusedError("the cell loads weights, so the base may not be what it was pretrained to be")
    if ask.cell.once(_chooses):
        raise RefusedError("the cell chooses itself what is trained")
    choosing = {one for cell in ask.notebook.earlier_with("trainable", "setattr") for one in cell.once(_choosing)}
    if choosing and not choosing.isdisjoint(_reached(ask, ask.cell.words)):
        raise RefusedError(f"a function of an earlier cell may choose what of `{name}` is trained")


def _reached(ask: Ask, words: Iterable[str]) -> set[str]:
    """Give ``words``, and those of the functions and classes of the notebook's cells that they name, in turn."""
    defined: dict[str, set[str]] = {}
    for text in ask.texts:
        for one in definitions_of(text):
            defined.setdefault(one.name, set()).update(one.reads)
    reached = set(words)
    ahead = [*reached]
    while ahead:
        more = defined.get(ahead.pop(), set()) - reached
        reached |= more
        ahead += more
    return reached


def _chooses(cell: PythonCell) -> bool:
    return any(map(_says_what_is_trained, cell.nodes))


def _choosing(cell: PythonCell) -> frozenset[str]:
    """Name the functions and classes of a cell that say what is trained."""
    found = (s for s in cell.tree.body if any(map(_says_what_is_trained, walk(s))))
    named = {s.name if isinstance(s, _DEFINITIONS) else _lambda_of(s) for s in found}
    return frozenset(named - {""})


def _lambda_of(statement: ast.stmt) -> str:
    if isinstance(statement, ast.Assign) and any(isinstance(n, ast.Lambda) for n in walk(statement.value)):
        return next((t.id for t in statement.targets if isinstance(t, ast.Name)), "")
    return ""


def _says_what_is_trained(node: ast.AST) -> bool:
    """Tell whether a node says what is trained: by ``trainable`` as an attribute, an argument or a text."""
    if isinstance(node, ast.Attribute):
        return node.attr == "trainable" and not isinstance(node.ctx, ast.Load)
    if isinstance(node, ast.keyword):
        return node.arg == "trainable"
    if isinstance(node, ast.Call) and called_name(node) in ("setattr", "__setattr__"):
        return not all(isinstance(one, ast.Constant) for one in node.args[-2:-1])
    return isinstance(node, ast.Constant) and node.value == "trainable"


def _check_hands(ask: Ask, name: str) -> None:
    """See that before the training nothing gets the base or the model that no cell shows: it may choose as well."""
    body = ask.cell.tree.body
    nodes = [n for s in body[: body.index(ask.place.top)] for n in walk(s)]
    watched = {name, ask.place.model}
    for node in nodes:
        if isinstance(node, (ast.For, ast.comprehension)) and not watched.isdisjoint(_names(node.iter)):
            watched |= _names(node.target)
    for call in (n for n in nodes if isinstance(n, ast.Call)):
        given = [*call.args, *(k.value for k in call.keywords)]
        if watched.isdisjoint(set[str]().union(*map(_names, given))) or _is_shown(ask, call):
            continue
        by = f"`{ask.cell.text(call.func)}`, which no cell defines,"
        raise RefusedError(f"{by} may choose what of `{name}` is trained")


def _is_shown(ask: Ask, call: ast.Call) -> bool:
    """Whether it is known what a function does with a model: Keras's, Python's, or one that a cell defines."""
    if isinstance(call.func, ast.Name):
        word = call.func.id
        here = ask.cell.scopes.of(ask.cell.scopes.home(call.func), word)
        if word in _HARMLESS or any(one.kind != "import" for one in here) or any(ask.notebook.before.setting(word)):
            return True
    elif isinstance(call.func, ast.Attribute) and called_name(call) in _ADDS:
        return True
    elif not isinstance(call.func, ast.Attribute):
        return True  # a layer that is made and called at once
    return ask.names.origin(call.func).startswith(("keras", "tensorflow"))


def _names(node: ast.AST) -> set[str]:
    return {n.id for n in walk(node) if isinstance(n, ast.Name)}


def _check_head(ask: Ask, name: str, made: ast.Assign) -> None:
    """See that the model that is trained has more than the base, and is built on it."""
    model = ask.place.model
    if model == name:
        raise RefusedError(f"`{name}` itself is trained, and nothing would be left to learn")
    body = ask.cell.tree.body
    between = body[body.index(made) + 1 : body.index(ask.place.top)]
    reading = [s for s in between if any(isinstance(n, ast.Name) and n.id == name for n in ast.walk(s))]
    if not reading or not any(map(ask.names.builds, between)):
        raise RefusedError(f"the cell does not plainly build `{model}` on `{name}`")


_BUILD = """%%tfmem
import keras
base = keras.applications.{0}
{1}model = keras.Sequential([base, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)])
model.compile("adam", "mse")
model.{2}
"""
_BASE = 'MobileNetV2(input_shape=(96, 96, 3), include_top=False, weights="imagenet")'
_FROZEN = "base.trainable = False\n"


def _example(name: str, base: str, expect: str, *, before: str = "", last: str = "fit(x, y)", **more: str) -> Example:
    cell = _BUILD.format(base, before, last)
    declined = not expect.startswith("%%tfmem")
    diagnosis = Diagnosis(more.get("device", "GPU:0"), line=len(cell.splitlines()))
    models = (ModelFacts("model", ("Functional", "Dense"), "Adam"),)
    return example(name, cell, expect, declined=declined, diagnosis=diagnosis, models=models)


EXAMPLES: tuple[Example, ...] = (
    _example("a base with a head", _BASE, _BUILD.format(_BASE, _FROZEN, "fit(x, y)")),
    _example("weights where nothing is said", "VGG16()", _BUILD.format("VGG16()", _FROZEN, "fit(x, y)")),
    _example("no weights", "ResNet50(include_top=False, weights=None)", "no pretrained weights"),
    _example("no weights, by position", "ResNet50(False, None)", "no pretrained weights"),
    _example("no weights, at another position", "MobileNet(None, 1.0, 1, 0.1, False, None)", "no pretrained weights"),
    _example("weights that are not known", "ResNet50(weights=chosen)", "decided when the cell runs"),
    _example("arguments behind stars", "ResNet50(**options)", "hidden behind stars"),
    _example("the cell chooses itself", _BASE, "chooses itself", before="base.trainable = True\n"),
    _example("predict ran out", _BASE, "outside training", last="predict(x)"),
    _example("the host ran out", _BASE, "the computer's own memory", device="host"),
    _example("no base", "imagenet_utils.preprocess_input(x)", "no pretrained base"),
)
