"""Stream the data: cut arrays into batches as training asks for them; keep caches on disk and queues short."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from tf_mem_magic.cells.keras_names import KerasNames
from tf_mem_magic.cells.mask import NotPython
from tf_mem_magic.cells.source import CellEdit, PythonCell, apply_edits, insert_argument, read_cell
from tf_mem_magic.cells.top import insert_on_top
from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.facts import DatasetFacts, Facts, ModelFacts, NamedValue
from tf_mem_magic.core.proposals import Answer, Context, Declined, Example, Preserves, Proposal
from tf_mem_magic.core.recording import Cell, Recording
from tf_mem_magic.core.units import size

KEY = "stream-data"
TITLE = "Stream the data"

LITTLE = 0.01
"""Share of the limit below which what `fit` copies is not what fills the memory."""

LONGEST_QUEUE = 16
"""Batches prepared ahead beyond which a shorter queue is proposed."""

_FITS_ONLY = frozenset({"validation_split", "steps_per_epoch"})
_WHY = "`fit` copies whole NumPy arrays into tensors; here only the batches in use are copied."
_MAPPED = (
    "The file is read as batches need it. What was read still counts as memory of the process, but the system can "
    "drop it; the file must not change meanwhile."
)
_PACKAGE = "The changed cell needs tf_mem_magic."


class _RefusedError(Exception):
    """Why the remedy cannot be offered, as a sentence."""


@dataclass(frozen=True, slots=True)
class _Change:
    """Edits of the cell with what they do: a title, what they keep, the reason for them and caveats."""

    title: str
    edits: tuple[CellEdit, ...]
    preserves: Preserves
    why: str
    caveats: tuple[str, ...]


def propose(context: Context) -> Answer:
    """Offer to stream where host memory ran out: the arrays given to ``fit``, or a cache and queue of ``tf.data``."""
    try:
        return (_proposal(context),)
    except _RefusedError as refused:
        return (Declined(KEY, TITLE, str(refused)),)


def _proposal(context: Context) -> Proposal:
    diagnosis = context.diagnosis
    if diagnosis is None or (diagnosis.device != "host" and diagnosis.cause != "host"):
        raise _RefusedError("it was not the computer's own memory that ran out, and this saves no other")
    cell = read_cell(context.cell.source)
    if isinstance(cell, NotPython):
        raise _RefusedError(cell.reason)
    change = _pipeline(cell, context.recording.facts) or _arrays(cell, context, diagnosis)
    source = apply_edits(cell, change.edits)
    if isinstance(source, NotPython):
        raise _RefusedError(source.reason)
    return Proposal(
        KEY,
        change.title,
        source,
        context.cell.source,
        change.preserves,
        caveats=change.caveats,
        why=change.why,
        answers_cause=True,
    )


def _arrays(cell: PythonCell, context: Context, diagnosis: Diagnosis) -> _Change:
    """Give `fit` batches of its arrays, and map files that the cell loads whole."""
    facts = context.recording.facts
    call = _fit_call(cell, facts, diagnosis)
    given = _arguments(call)
    arrays = [(word, given[word]) for word in ("x", "y", "sample_weight") if word in given]
    held = [_array(node, facts) for _, node in arrays]
    copied = sum(one.bytes for one in held if one is not None)
    if None in held or not held:
        raise _RefusedError("`fit` is not given NumPy arrays by their names")
    if diagnosis.limit and 2 * copied < LITTLE * diagnosis.limit:
        raise _RefusedError(f"the arrays given to `fit` hold only {size(copied)}")
    shuffled = _shuffled(given)
    words = [
        cell.text(node) if word != "sample_weight" else f"sample_weight={cell.text(node)}" for word, node in arrays
    ]
    batch = cell.text(given["batch_size"]) if "batch_size" in given else "32"
    streamed = f"apply.stream({', '.join(words)}, batch_size={batch}{'' if shuffled else ', shuffle=False'})"
    first = given["x"]
    removed = [given[word] for word in ("y", "batch_size", "sample_weight") if word in given]
    maps = [_mapped(cell, node.id) for _, node in arrays if isinstance(node, ast.Name)]
    edits = [
        insert_on_top(cell, ("from tf_mem_magic import apply",)),
        CellEdit(cell.start(first), cell.end(first), streamed),
        *(_removed(cell, call, node) for node in removed),
        *maps,
    ]
    order = "Samples are shuffled by NumPy, so in another order than before." if shuffled else ""
    return _Change(
        "Stream the arrays in batches",
        tuple(edit for edit in edits if edit is not None),
        "same effective batch" if shuffled else "same results",
        _WHY,
        tuple(filter(None, (order, _MAPPED if any(maps) else "The arrays themselves stay in memory.", _PACKAGE))),
    )


def _fit_call(cell: PythonCell, facts: Facts, diagnosis: Diagnosis) -> ast.Call:
    calls = [node for node in _calls(cell) if isinstance(node.func, ast.Attribute) and node.func.attr == "fit"]
    calls = [call for call in calls if isinstance(call.func, ast.Attribute) and facts.model(cell.text(call.func.value))]
    if not calls:
        raise _RefusedError("the cell gives no arrays to a Keras model's `fit`, and no cache or long queue was found")
    if diagnosis.line is not None:
        line = diagnosis.line + cell.skipped
        calls = [call for call in calls if call.lineno <= line <= (call.end_lineno or call.lineno)]
        if not calls:
            raise _RefusedError("it ran out before or after `fit`, not while `fit` was using the data")
    if len(calls) != 1:
        raise _RefusedError("the cell calls `fit` more than once, and which call ran out is not known")
    return calls[0]


def _calls(cell: PythonCell) -> list[ast.Call]:
    """List the calls; those inside f-strings have no sure position before Python 3.12."""
    inside = {id(n) for text in ast.walk(cell.tree) if isinstance(text, ast.JoinedStr) for n in ast.walk(text)}
    return [node for node in ast.walk(cell.tree) if isinstance(node, ast.Call) and id(node) not in inside]


def _arguments(call: ast.Call) -> dict[str, ast.expr]:
    """Give the arguments of ``fit`` by name; refuse what a stream of batches cannot take."""
    if len(call.args) > 3 or any(isinstance(a, ast.Starred) for a in call.args):
        raise _RefusedError("the arguments of `fit` cannot be told apart")
    given = dict(zip(("x", "y", "batch_size"), call.args))
    for keyword in call.keywords:
        if keyword.arg is None:
            raise _RefusedError("some arguments of `fit` are hidden behind **")
        given[keyword.arg] = keyword.value
    hindering = sorted(word for word in _FITS_ONLY & given.keys() if not _is_constant(given[word], (None, 0, 0.0)))
    if hindering:
        raise _RefusedError(f"`{hindering[0]}` works only with whole arrays")
    if _is_constant(given.get("batch_size"), (None,)):
        raise _RefusedError("the batch size is left to Keras")
    if "x" not in given:
        raise _RefusedError("`fit` is given no data by name")
    return given


def _is_constant(node: ast.expr | None, values: tuple[object, ...]) -> bool:
    return isinstance(node, ast.Constant) and any(node.value is v or node.value == v for v in values)


def _shuffled(given: dict[str, ast.expr]) -> bool:
    node = given.get("shuffle")
    if node is None:
        return True
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        return node.value
    raise _RefusedError("how `fit` is to shuffle is computed when the cell runs")


def _array(node: ast.expr, facts: Facts) -> NamedValue | None:
    """Give the known NumPy array that an argument is: a name, or a slice of one."""
    inner = node.value if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Slice) else node
    if not isinstance(inner, ast.Name):
        return None
    found = [v for v in facts.values if v.name == inner.id and v.kind == "numpy.ndarray" and v.shape]
    return found[0] if found else None


def _removed(cell: PythonCell, call: ast.Call, node: ast.expr) -> CellEdit:
    """Take out an argument with the comma before it; a comment there would be lost, so that is refused."""
    keywords = {id(k.value): k for k in call.keywords}
    places = sorted([*call.args, *(k.value for k in call.keywords)], key=cell.start)
    start = cell.end(places[places.index(node) - 1])
    end = cell.end(node)
    between = cell.source[start : cell.start(node)].replace(
        f"{keywords[id(node)].arg}" if id(node) in keywords else "", ""
    )
    if places[0] is node or between.strip(" \t\r\n,="):
        raise _RefusedError("a comment or bracket stands between the arguments of `fit`")
    return CellEdit(start, end, "")


def _mapped(cell: PythonCell, name: str) -> CellEdit | None:
    """Map the file that the cell loads into ``name``, where it is surely one ``.npy`` file; else None."""
    stored = [
        n for n in ast.walk(cell.tree) if isinstance(n, ast.Name) and n.id == name and isinstance(n.ctx, ast.Store)
    ]
    for statement in cell.tree.body:
        value = statement.value if isinstance(statement, ast.Assign) else None
        if len(stored) != 1 or not isinstance(statement, ast.Assign) or statement.targets != stored:
            continue
        if (
            isinstance(value, ast.Call)
            and ast.unparse(value.func) in ("np.load", "numpy.load")
            and len(value.args) == 1
        ):
            path = value.args[0]
            plain = isinstance(path, ast.Constant) and str(path.value).endswith(".npy") and not value.keywords
            return insert_argument(cell, value, 'mmap_mode="c"') if plain else None
    return None


def _pipeline(cell: PythonCell, facts: Facts) -> _Change | None:
    """Move in-memory caches of ``tf.data`` to disk and shorten queues; None where there is nothing of that."""
    names = KerasNames(cell, facts.earlier_cells)
    caches, queues = [], []
    for call in _dataset_calls(cell, names, facts):
        assert isinstance(call.func, ast.Attribute)
        if call.func.attr == "cache" and not call.args and not call.keywords:
            caches.append(insert_argument(cell, call, 'tempfile.mkdtemp() + "/cache"'))
        long = call.args[0] if call.func.attr == "prefetch" and len(call.args) == 1 else None
        if isinstance(long, ast.Constant) and type(long.value) is int and long.value > LONGEST_QUEUE:
            queues.append(CellEdit(cell.start(long), cell.end(long), "2"))
    if not caches and not queues:
        return None
    title = " and ".join([*(["Cache on disk"] if caches else []), *(["a short queue"] if queues else [])])
    caveats = (
        "The cache is a new folder of temporary files in every run; they stay on disk until you delete them.",
        "Reading it from disk is slower than from memory.",
    )
    return _Change(
        title[0].upper() + title[1:],
        (*([insert_on_top(cell, ("import tempfile",))] if caches else []), *caches, *queues),
        "same results",
        "An in-memory cache holds every sample, and a queue holds as many batches as it is long.",
        caveats if caches else ("The input may be slower where single batches take long.",),
    )


def _dataset_calls(cell: PythonCell, names: KerasNames, facts: Facts) -> Iterator[ast.Call]:
    """Yield the method calls of ``tf.data`` pipelines, as far as they surely are that."""
    known = {d.name for d in facts.datasets if d.kind == "tf.data"}
    for node in _calls(cell):
        if isinstance(node.func, ast.Attribute):
            root: ast.expr = node.func.value
            while isinstance(root, ast.Call) and isinstance(root.func, ast.Attribute):
                if names.origin(root.func).startswith("tensorflow.data."):
                    break
                root = root.func.value
            made = isinstance(root, ast.Call) and names.origin(root.func)
            if (isinstance(root, ast.Name) and root.id in known) or (
                made and (made.startswith("tensorflow.data.") or made.endswith("_dataset_from_directory"))
            ):
                yield node


_TF = ("import tensorflow as tf", "import numpy as np")
_X = NamedValue("x", 6 << 30, "numpy.ndarray", None, "earlier", (100, 8), "float32")
_Y = NamedValue("y", 1 << 20, "numpy.ndarray", None, "earlier", (100,), "int64")
_STREAM = "%%tfmem\nfrom tf_mem_magic import apply\n"


def _context(source: str, line: int = 2, device: str = "host", values: tuple[NamedValue, ...] = (_X, _Y)) -> Context:
    facts = Facts(
        models=(ModelFacts("model"),), values=values, datasets=(DatasetFacts("ds", batch=32),), earlier_cells=_TF
    )
    cell = Cell(source)
    diagnosis = Diagnosis(device, line=line, limit=16 << 30, cause="host" if device == "host" else "too-big")
    return Context(cell, Recording(cell, status="oom", facts=facts), diagnosis)


def _example(name: str, source: str, expect: str, *, line: int = 2, declined: bool = False) -> Example:
    return Example(name, _context(source, line), expect, declined)


EXAMPLES: tuple[Example, ...] = (
    _example(
        "arrays given to fit",
        "%%tfmem\nmodel.fit(x, y, batch_size=256, epochs=3)",
        _STREAM + "model.fit(apply.stream(x, y, batch_size=256), epochs=3)",
    ),
    _example(
        "the order is kept where it was",
        "%%tfmem\nmodel.fit(x=x[:900], y=y[:900], shuffle=False)",
        _STREAM + "model.fit(x=apply.stream(x[:900], y[:900], batch_size=32, shuffle=False), shuffle=False)",
    ),
    _example(
        "a file is mapped instead of loaded",
        '%%tfmem\nx = np.load("x.npy")\nmodel.fit(\n    x,\n    y,\n    epochs=2,\n)',
        _STREAM
        + 'x = np.load("x.npy", mmap_mode="c")\nmodel.fit(\n    apply.stream(x, y, batch_size=32),\n    epochs=2,\n)',
        line=3,
    ),
    _example(
        "a cache in memory and a long queue",
        "%%tfmem\nmodel.fit(ds.cache().map(f).prefetch(1000))",
        '%%tfmem\nimport tempfile\nmodel.fit(ds.cache(tempfile.mkdtemp() + "/cache").map(f).prefetch(2))',
    ),
    _example("a split", "%%tfmem\nmodel.fit(x, y, validation_split=0.2)", "`validation_split` works", declined=True),
    _example("hidden", "%%tfmem\nmodel.fit(x, y, **options)", "hidden behind **", declined=True),
    _example("a comment between", "%%tfmem\nmodel.fit(x,  # data\n  y)", "a comment or bracket", declined=True),
    _example("another library", "%%tfmem\nforest.fit(x, y)", "no arrays to a Keras", declined=True),
    _example("not in fit", "%%tfmem\nz = x * 2\nmodel.fit(x, y)", "before or after `fit`", declined=True),
    _example("a list", "%%tfmem\nmodel.fit([x], y)", "not given NumPy arrays", declined=True),
    Example("the card", _context("%%tfmem\nmodel.fit(x, y)", device="GPU:0"), "not the computer's own", True),
)
