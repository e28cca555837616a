"""Prune: most weights of a copy of the trained model become zeros, so that its file gets smaller when compressed."""

from __future__ import annotations

import ast
import re
from dataclasses import replace

from tf_mem_magic.core.facts import DatasetFacts, Facts, ModelFacts, ScalarFact
from tf_mem_magic.core.proposals import Context, Example, Proposal, RefusedError
from tf_mem_magic.core.recording import Cell, Recording, Status
from tf_mem_magic.core.tag import TAG
from tf_mem_magic.notebook.fit_call import FitCall, check_data, find_fit, free_names
from tf_mem_magic.notebook.text.cell import PythonCell
from tf_mem_magic.remedies._engine.guards import keras_since, no_strategy
from tf_mem_magic.remedies._engine.question import Ask, remedy

KEY = "prune"
TITLE = "Prune"
AFTER_SUCCESS = True

SPARSITY = 0.75
"""Three weights of four: a first try, written in the new cell where it can be changed."""

_TESTED = (3, 12)
"""The oldest Keras that this was tested with."""

_OWN = ("epochs", "callbacks", "initial_epoch")
_HAVE_KERNELS = re.compile(r"Dense|Conv|LSTM|GRU|RNN|Attention")
_WHY = "Many weights of a trained model can often become zeros with little loss, and zeros compress well in a file."


@remedy(KEY, TITLE)
def propose(ask: Ask) -> Proposal:
    """Offer a cell that prunes a copy of the model which the cell trained with ``fit``."""
    if ask.recording.status != "ok":
        raise RefusedError("it makes a saved file smaller, not the memory that the model takes while it runs")
    cell, facts = ask.cell, ask.facts
    if "apply.prune" in cell.source:
        raise RefusedError("this cell prunes already")
    fit = find_fit(cell, facts)
    _check_model(fit.model, ask)
    check_data(fit, facts, cell, _OWN)
    epochs = max(2, -(-(_number(fit.given.get("epochs"), facts) or 1) // 2))
    return Proposal(
        KEY,
        f"Prune a copy of `{fit.model.name}` to {SPARSITY:.0%} zeros",
        _new_cell(fit, facts, cell, epochs),
        ask.source,
        "nothing",
        caveats=_caveats(fit, epochs),
        why=_WHY,
        new_cell=True,
    )


def _check_model(model: ModelFacts, ask: Ask) -> None:
    keras_since(*_TESTED)(ask)
    if model.form not in ("sequential", "functional"):
        raise RefusedError(
            f"`{model.name}` is a model class of its own, and only Sequential and functional models can be copied"
        )
    if "Lambda" in model.layers:
        raise RefusedError("the model has a Lambda layer, whose function Keras cannot copy")
    if model.layers and not any(_HAVE_KERNELS.search(layer) for layer in model.layers):
        raise RefusedError("the model has no dense, convolution or recurrent layer to prune")
    no_strategy(ask)


def _number(node: ast.expr | None, facts: Facts) -> int | None:
    if node is None:
        return None
    value = node.value if isinstance(node, ast.Constant) else facts.scalar(ast.unparse(node))
    return value if type(value) is int else None


def _new_cell(fit: FitCall, facts: Facts, cell: PythonCell, epochs: int) -> str:
    name = fit.model.name
    pruning, copied = free_names(cell, facts, "apply.prune", "pruning", f"{name}_pruned")
    kept = {word: ast.unparse(node) for word, node in fit.given.items() if word not in _OWN}
    kept |= {"epochs": str(epochs), "callbacks": f"[{pruning}]"}
    measured, what = _measured(fit.given)
    lines = (
        TAG,
        "from tf_mem_magic import apply",
        "",
        f"# A copy of `{name}` trains on while its smallest weights become zeros; `{name}` itself stays as it is.",
        f"{pruning} = apply.prune({name}, sparsity={SPARSITY})",
        f"{copied} = {pruning}.model",
        f"{copied}.fit({_written(kept)})",
        "",
        f"# Zeros, file sizes and {what}, before and after:",
        f"print({pruning}.report({_written(measured)}))",
        "",
    )
    return cell.newline.join(lines)


def _measured(given: dict[str, ast.expr]) -> tuple[dict[str, str], str]:
    """Give ``evaluate``'s arguments: the validation data where there are some, else the training data."""
    words = {"batch_size": "batch_size", "verbose": "verbose"}
    if "validation_data" in given:
        data = given["validation_data"]
        parts = data.elts if isinstance(data, (ast.Tuple, ast.List)) else [data]
        found = dict(zip(("x", "y", "sample_weight"), map(ast.unparse, parts)))
        words = {"validation_batch_size": "batch_size", "validation_steps": "steps", "verbose": "verbose"}
        if "validation_batch_size" not in given:
            words["batch_size"] = "batch_size"
        what = "results on the validation data"
    else:
        found = {word: ast.unparse(given[word]) for word in ("x", "y", "sample_weight") if word in given}
        words["steps_per_epoch"] = "steps"
        what = "results on the training data"
    return found | {to: ast.unparse(given[word]) for word, to in words.items() if word in given}, what


def _written(arguments: dict[str, str]) -> str:
    return ", ".join(text if word in ("x", "y") else f"{word}={text}" for word, text in arguments.items())


def _caveats(fit: FitCall, epochs: int) -> tuple[str, ...]:
    """Say what it costs and does not do."""
    caveats = [
        "Memory is not smaller: in the running model the zeros are stored and computed as other numbers are. Only the "
        "compressed file is smaller.",
        f"It trains for {epochs} more epochs, and meanwhile the copy and its optimizer take memory beside the model.",
        "Results may get worse; the cell measures that.",
        "Training the copy further without the callback fills the zeros again.",
    ]
    if "validation_data" not in fit.given:
        caveats.append("There are no validation data, so it is measured on the data that it trains on.")
    if "callbacks" in fit.given:
        caveats.append("The callbacks of your `fit` are left out.")
    if fit.model.schedule is not None:
        caveats.append(
            "The learning-rate schedule goes on from where it is: at a rate near zero nothing more is learned."
        )
    if "BatchNormalization" in fit.model.layers:
        caveats.append("BatchNormalization goes on updating its statistics in the copy.")
    return (
        *caveats,
        "Only trainable kernels are pruned, not embeddings or depthwise ones.",
        "Tested on the CPU, with XLA and without; not on a GPU. The new cell needs tf_mem_magic.",
    )


_X = ("x", "y", "x_val", "y_val")
_MODEL = ModelFacts("model", ("Dense", "BatchNormalization"), steps=8, form="sequential")
_IN_CELL = """%%tfmem
from tf_mem_magic import apply

# A copy of `model` trains on while its smallest weights become zeros; `model` itself stays as it is.
pruning = apply.prune(model, sparsity=0.75)
model_pruned = pruning.model
model_pruned.fit({0}callbacks=[pruning])

# Zeros, file sizes and results on the {1} data, before and after:
print(pruning.report({2}))
"""


def _known(
    source: str,
    model: ModelFacts = _MODEL,
    status: Status = "ok",
    data: tuple[DatasetFacts, ...] = (),
    earlier: str = "",
) -> Context:
    facts = Facts(
        "2.21.0",
        "3.15.1",
        True,
        models=(model,),
        datasets=data,
        scalars=(ScalarFact("BATCH", 64), ScalarFact("EPOCHS", 9)),
        earlier_cells=("import keras", earlier),
        repeatable=(*_X, *(d.name for d in data if d.kind != "generator")),
    )
    cell = Cell(source)
    return Context(cell, Recording(cell, status=status, facts=facts))


def _offered(name: str, source: str, fitted: str, which: str, measured: str, *data: DatasetFacts) -> Example:
    return Example(name, _known("%%tfmem\n" + source, data=data), _IN_CELL.format(fitted, which, measured))


def _declined(name: str, source: str, reason: str, *data: DatasetFacts, model: ModelFacts = _MODEL) -> Example:
    return Example(name, _known(source, model, data=data), reason, declined=True)


_DS = DatasetFacts("ds", batch=32, cardinality=10)

EXAMPLES: tuple[Example, ...] = (
    _offered(
        "arrays by name",
        "history = model.fit(x, y, batch_size=BATCH, epochs=EPOCHS, verbose=0)",
        "x, y, batch_size=BATCH, verbose=0, epochs=5, ",
        "training",
        "x, y, batch_size=BATCH, verbose=0",
    ),
    _offered(
        "validation data",
        "model.fit(y=y, x=x[:900], validation_data=(x_val, y_val), callbacks=[stop])",
        "x[:900], y, validation_data=(x_val, y_val), epochs=2, ",
        "validation",
        "x_val, y_val",
    ),
    _offered("a dataset", "model.fit(ds, epochs=8)", "ds, epochs=4, ", "training", "ds", _DS),
    _declined("a loop of one's own", "for a, b in ds:\n    step(a, b)", "does not call `fit`", _DS),
    _declined("fit in a loop", "for i in range(3):\n    model.fit(x, y)", "not a statement of its own"),
    _declined("fit twice", "model.fit(x, y)\nmodel.fit(x_val, y_val)", "more than once"),
    _declined("a generator", "model.fit(rows, steps_per_epoch=3)", "only once", DatasetFacts("rows", "generator")),
    _declined("unknown length", "model.fit(ds)", "how many batches", DatasetFacts("ds")),
    _declined("made in the call", "model.fit(load(), y)", "`load()`, which is made in the call"),
    _declined("data that are gone", "model.fit(old, y)", "`old` is no array"),
    _declined("data changed later", "model.fit(x, y)\nx = x_val", "`x` is changed after"),
    _declined("hidden arguments", "model.fit(x, **options)", "hidden behind **"),
    _declined("no training", "model.predict(x)", "trained no Keras model", model=ModelFacts("model", ("Dense",))),
    _declined("a subclass", "model.fit(x, y)", "class of its own", model=replace(_MODEL, form="subclassed")),
    _declined("nothing to prune", "model.fit(x, y)", "no dense", model=replace(_MODEL, layers=("Embedding",))),
    _declined("a pruned copy", "model.fit(x, y, callbacks=[apply.prune(model)])", "prunes already"),
    Example("out of memory", _known("model.fit(x, y)", status="oom"), "not the memory that the model takes", True),
    Example(
        "the name `apply` is taken", _known("model.fit(x, y)", earlier="def apply(f): ..."), "the name `apply`", True
    ),
)
