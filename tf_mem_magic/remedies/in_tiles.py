"""In tiles: one picture that is too large for the model is predicted in parts that overlap."""

from __future__ import annotations

import ast
from math import sqrt
from typing import Any

from tf_mem_magic.core.diagnosis import Diagnosis, Situation, SituationKind
from tf_mem_magic.core.facts import ModelFacts
from tf_mem_magic.core.proposals import Example, Proposal, RefusedError
from tf_mem_magic.notebook.uses import called_name
from tf_mem_magic.remedies._engine.examples import example
from tf_mem_magic.remedies._engine.guards import apply_is_free, device_memory, keras_3, python, situation
from tf_mem_magic.remedies._engine.question import Ask, remedy

KEY = "in-tiles"
TITLE = "In tiles"
HELPS: tuple[SituationKind, ...] = ("one-sample",)
GUARDS = (device_memory, python, keras_3, apply_is_free, situation(HELPS, "it was not one large picture that ran out"))

_LAYERS = frozenset(
    "InputLayer Activation ReLU LeakyReLU PReLU ELU Softmax BatchNormalization LayerNormalization Dropout "
    "SpatialDropout2D GaussianNoise GaussianDropout Add Subtract Multiply Average Maximum Minimum Concatenate "
    "Rescaling Identity Dense Conv2D DepthwiseConv2D SeparableConv2D Conv2DTranspose MaxPooling2D AveragePooling2D "
    "UpSampling2D".split()
)
"""Layers whose output at a pixel depends on a bounded part of the picture; ``apply.in_tiles`` looks at each again."""

_LOOKS = frozenset({"Conv2D", "DepthwiseConv2D", "SeparableConv2D", "Conv2DTranspose"})
_SHARE = 1 / 6
"""Share of the device's memory that one layer's result for a tile may take: several are held at the same time."""

_LEAST, _MOST = 64, 2048
_WHY = (
    "What the model computes for a pixel depends on the pixels around it, not on the whole picture: tiles with a "
    "margin of that width give the same."
)


@remedy(KEY, TITLE, GUARDS)
def propose(ask: Ask) -> Proposal:
    """Offer it where `predict` ran out on one picture, with a model that looks at bounded parts of it."""
    diagnosis = ask.diagnosis
    assert diagnosis is not None  # its guard
    call = next((c for c in ask.failing if called_name(c) == "predict" and isinstance(c.func, ast.Attribute)), None)
    if call is None or not isinstance(call.func, ast.Attribute):
        raise RefusedError("the call of `predict` that ran out was not found in the cell")
    receiver = ask.cell.text(call.func.value)
    model = ask.model_of(call.func.value)
    other = sorted(set(model.layers) - _LAYERS)
    if model.form not in ("functional", "sequential") or other or not _LOOKS & set(model.layers):
        which = f" ({', '.join(other)})" if other else ""
        raise RefusedError(f"`{receiver}` may look at the whole picture at once{which}")
    tile = _tile(diagnosis)
    plain = [k for k in call.keywords if k.arg not in ("verbose", "steps", "callbacks", "batch_size", "x")]
    if len(call.args) != 1 or plain or any(k.arg == "x" for k in call.keywords):
        raise RefusedError("`predict` is given more than the picture")
    picture = ask.cell.text(call.args[0])
    rest = "".join(
        f", {ask.cell.text(k.value) if k.arg is None else f'{k.arg}={ask.cell.text(k.value)}'}" for k in call.keywords
    )
    edit = ask.edit().replace(call, f"apply.in_tiles({receiver}, {picture}, {tile}{rest})")
    return Proposal(
        key=KEY,
        title=f"Predict in tiles of {tile} × {tile}",
        source=edit.before(ask.statement(call), apply=True).source(),
        original=ask.source,
        preserves="close numerics",
        caveats=(
            "The changed cell needs tf_mem_magic.",
            "Height and width must be multiples of what the model divides them by; else it says so and stops.",
        ),
        why=_WHY,
        answers_cause=True,
    )


def _tile(diagnosis: Diagnosis) -> int:
    """Give the side of a tile: a power of two for which one layer's result takes a sixth of the device at most."""
    shape, limit, requested = diagnosis.shape or (), diagnosis.limit, diagnosis.requested
    if len(shape) != 4 or not limit or not requested:
        return 256
    area = shape[1] * shape[2] * min(1.0, _SHARE * limit / requested)
    side = int(sqrt(area))
    return int(max(_LEAST, min(_MOST, 2 ** (max(side, 1).bit_length() - 1))))


_ONE = Situation("one-sample", "One sample alone needs it.", rules_out=("smaller-batch",))


def _example(name: str, cell: str, expect: str, declined: bool = False, layers: Any = (), **more: Any) -> Example:
    diagnosis = Diagnosis(
        "GPU:0",
        requested=1600 * 1200 * 32 * 4,
        shape=(1, 1600, 1200, 32),
        line=2,
        limit=250 << 20,
        layer="conv2d",
        situation=more.pop("situation", _ONE),
    )
    model = ModelFacts("model", layers or ("Conv2D", "MaxPooling2D", "UpSampling2D"), form="functional")
    return example(name, cell, expect, declined=declined, diagnosis=diagnosis, models=(model,), **more)


_PREDICT = "%%tfmem\nout = model.predict(photo[np.newaxis])\n"

EXAMPLES: tuple[Example, ...] = (
    _example(
        "one large picture",
        _PREDICT,
        "%%tfmem\nfrom tf_mem_magic import apply\nout = apply.in_tiles(model, photo[np.newaxis], 512)\n",
    ),
    _example(
        "as part of an expression, quietly",
        "%%tfmem\nmask = model.predict(photo[None], verbose=0)[0] > .5\n",
        "%%tfmem\nfrom tf_mem_magic import apply\nmask = apply.in_tiles(model, photo[None], 512, verbose=0)[0] > .5\n",
    ),
    _example("a classifier", _PREDICT, "may look at the whole picture", declined=True, layers=("Conv2D", "Flatten")),
    _example("attention", _PREDICT, "(MultiHeadAttention)", declined=True, layers=("Conv2D", "MultiHeadAttention")),
    _example("no convolution", _PREDICT, "may look at the whole", declined=True, layers=("Dense",)),
    _example("an ordinary batch", _PREDICT, "not one large picture", declined=True, situation=None),
    _example(
        "a function's own name",
        "%%tfmem\ndef run(model): return model.predict(photo[None])\nrun(net)\n",
        "`model` is a name of a function",
        declined=True,
    ),
    _example("not a model", _PREDICT.replace("model.", "net."), "`net` is not known", declined=True),
    _example("evaluate", "%%tfmem\nmodel.evaluate(photo[None], y)\n", "call of `predict`", declined=True),
    _example("steps and more", "%%tfmem\nmodel.predict(photo[None], 1)\n", "more than the picture", declined=True),
)
