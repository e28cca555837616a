"""Rows in chunks: what is computed for all rows of an array at once is computed for some of them at a time."""

from __future__ import annotations

import ast
from typing import Any

from tf_mem_magic.core.diagnosis import Diagnosis, Situation, SituationKind
from tf_mem_magic.core.facts import NamedValue
from tf_mem_magic.core.proposals import Example, Proposal, RefusedError
from tf_mem_magic.notebook.text.edits import argument
from tf_mem_magic.remedies._engine.examples import example
from tf_mem_magic.remedies._engine.guards import device_memory, python, situation
from tf_mem_magic.remedies._engine.question import Ask, remedy
from tf_mem_magic.remedies._engine.rows import rows_that_fit

KEY = "rows-in-chunks"
TITLE = "Rows in chunks"
HELPS: tuple[SituationKind, ...] = ("eager-data",)
GUARDS = (
    device_memory,
    python,
    situation(HELPS, "it was no operation on all rows of an array, outside any model, that ran out"),
)

_IMAGE = (
    "resize resize_with_pad resize_with_crop_or_pad central_crop crop_to_bounding_box pad_to_bounding_box "
    "convert_image_dtype rgb_to_grayscale grayscale_to_rgb rgb_to_hsv hsv_to_rgb rgb_to_yuv yuv_to_rgb "
    "flip_left_right flip_up_down rot90 transpose per_image_standardization adjust_brightness adjust_contrast "
    "adjust_gamma adjust_hue adjust_saturation extract_patches"
)
_ROWWISE = {f"tensorflow.image.{name}" for name in _IMAGE.split()} | {"tensorflow.cast"}
"""Functions whose result has one row for each row of their first argument, which depends on that row alone."""

_APPLICATIONS = "keras.applications."
_SHARE = 1 / 8
"""Share of the device's memory that the result of one chunk may take: the operation has temporary memory of its own."""

_MOST = 1024
_WHY = "Each row's result depends on that row alone, so the rows need not be on the device together."


@remedy(KEY, TITLE, GUARDS)
def propose(ask: Ask) -> Proposal:
    """Offer it where one function of all rows ran out whose rows surely do not depend on each other."""
    diagnosis = ask.diagnosis
    assert diagnosis is not None  # its guard
    statement, call, target = _assigned(ask)
    rows = _rows(ask, call)
    if not diagnosis.shape or rows.shape is None or rows.shape[0] != diagnosis.shape[0]:
        raise RefusedError(f"what ran out does not have the rows of `{rows.name}`")
    if any(isinstance(n, ast.Attribute) and n.attr == "numpy" and _is_name(n.value, target) for n in ask.cell.nodes):
        raise RefusedError(f"the cell goes on with `{target}` as a tensor")
    numpy = next((n for n in ("np", "numpy", "onp") if ask.names.origin(ast.Name(n, ast.Load())) == "numpy"), None)
    if numpy is None:
        raise RefusedError("no cell imports NumPy, which joins the chunks")
    step = _step(diagnosis)
    index = ask.notebook.free_name("start")
    first = call.args[0]
    cell = ask.cell
    text = cell.text(call)
    at = cell.start(first) - cell.start(call)
    one = f"{text[:at]}{rows.name}[{index} : {index} + {step}]{text[at + len(cell.text(first)) :]}"
    source = (
        ask.edit()
        .replace(
            statement.value,
            f"{numpy}.concatenate([{one}.numpy() for {index} in range(0, len({rows.name}), {step})])",
        )
        .source()
    )
    return Proposal(
        key=KEY,
        title=f"{step} rows of `{rows.name}` at a time",
        source=source,
        original=ask.source,
        preserves="same results",
        caveats=(
            f"`{target}` becomes a NumPy array, in the computer's own memory; a tensor of all of it would not fit.",
        ),
        why=_WHY,
        answers_cause=True,
    )


def _assigned(ask: Ask) -> tuple[ast.Assign, ast.Call, str]:
    """Find the statement that failed: one name is assigned what one call gives."""
    statement = ask.failing_statement
    if statement is None:
        raise RefusedError("the statement that ran out of memory was not found in the cell")
    if not isinstance(statement, ast.Assign) or len(statement.targets) != 1:
        raise RefusedError("the statement that ran out does not assign one result to one name")
    target, value = statement.targets[0], statement.value
    if not isinstance(target, ast.Name) or not isinstance(value, ast.Call):
        raise RefusedError("the statement that ran out does not assign the result of one call to a name")
    return statement, value, target.id


def _rows(ask: Ask, call: ast.Call) -> NamedValue:
    """Give the array whose rows the call takes; refuse where its rows may depend on each other."""
    origin = ask.names.origin(call.func)
    preprocessing = origin.startswith(_APPLICATIONS) and origin.endswith(".preprocess_input")
    if origin not in _ROWWISE and not preprocessing:
        raise RefusedError(f"it is not known that `{ast.unparse(call.func)}` treats each row alone")
    argument(call, "name")  # refuses stars
    first = call.args[0] if call.args else None
    if not isinstance(first, ast.Name):
        raise RefusedError("what it takes is no plain name")
    others = [*call.args[1:], *(k.value for k in call.keywords)]
    inside = {n.id for other in others for n in ast.walk(other) if isinstance(n, ast.Name)}
    if first.id in inside:
        raise RefusedError(f"`{first.id}` is also read by its other arguments")
    value = ask.facts.value(first.id)
    if value is None or not value.shape or len(value.shape) < 2:
        raise RefusedError(f"the shape of `{first.id}` is not known")
    return value


def _step(diagnosis: Diagnosis) -> int:
    """Give the rows of a chunk: a power of two whose result takes an eighth of the device at most."""
    rows = (diagnosis.shape or (1,))[0]
    fits = rows_that_fit(diagnosis, (diagnosis.requested or 0) / max(rows, 1), _SHARE)
    fits = rows // 16 if fits is None else fits
    most = max(1, min(fits, rows // 2, _MOST))
    return int(2 ** (most.bit_length() - 1))


def _is_name(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _example(name: str, cell: str, expect: str, declined: bool = False, **facts: Any) -> Example:
    situation = Situation("eager-data", "The result of one operation on all rows is 345 MiB.")
    diagnosis = Diagnosis(
        "GPU:0",
        requested=600 * 224 * 224 * 3 * 4,
        shape=(600, 224, 224, 3),
        dtype="float32",
        op="ResizeBilinear",
        line=cell.count("\n"),
        limit=200 << 20,
        situation=situation,
    )
    values = (NamedValue("images", 7372800, "numpy.ndarray", shape=(600, 32, 32, 3), dtype="float32"),)
    given = {"values": values, "earlier_cells": ("import numpy as np\nimport tensorflow as tf\nimport keras",), **facts}
    return example(name, cell, expect, declined=declined, diagnosis=diagnosis, **given)


_BIG = "%%tfmem\nbig = tf.image.resize(images, (224, 224))\n"
_CHUNKS = "np.concatenate([{0}.numpy() for start in range(0, len(images), 32)])"

EXAMPLES: tuple[Example, ...] = (
    _example(
        "pictures are resized",
        _BIG,
        f"%%tfmem\nbig = {_CHUNKS.format('tf.image.resize(images[start : start + 32], (224, 224))')}\n",
    ),
    _example(
        "arguments by name and over lines, `start` is taken",
        "%%tfmem\nstart = 0\nbig = tf.image.resize(images, size=(224, 224), method='nearest')\n",
        "%%tfmem\nstart = 0\nbig = np.concatenate([tf.image.resize(images[start_2 : start_2 + 32], size=(224, 224), "
        "method='nearest').numpy() for start_2 in range(0, len(images), 32)])\n",
    ),
    _example(
        "the cell goes on with a tensor",
        "%%tfmem\ndef show():\n    return big.numpy()\n\nbig = tf.image.resize(images, (224, 224))\n",
        "goes on with `big` as a tensor",
        declined=True,
    ),
    _example(
        "a function that is not known",
        "%%tfmem\nbig = enlarge(images)\n",
        "not known that `enlarge` treats each row alone",
        declined=True,
    ),
    _example(
        "whose rows depend on each other",
        "%%tfmem\nbig = tf.linalg.matmul(images, images)\n",
        "not known that `tf.linalg.matmul` treats each row alone",
        declined=True,
    ),
    _example("NumPy is not there", _BIG, "imports NumPy", declined=True, earlier_cells=("import tensorflow as tf",)),
    _example("the array is not known", _BIG, "the shape of `images` is not known", declined=True, values=()),
    _example(
        "part of a larger expression",
        "%%tfmem\nbig = tf.image.resize(images, (224, 224)) / 255\n",
        "the result of one call",
        declined=True,
    ),
)
