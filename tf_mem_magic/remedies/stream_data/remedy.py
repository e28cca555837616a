"""Stream the data: cut arrays into batches as training asks for them; keep caches on disk and queues short."""

from __future__ import annotations

import ast
import difflib
from dataclasses import replace

from tf_mem_magic.core.diagnosis import Diagnosis, SituationKind
from tf_mem_magic.core.facts import DatasetFacts, Facts, ModelFacts, NamedValue
from tf_mem_magic.core.proposals import Context, Example, Proposal, RefusedError
from tf_mem_magic.core.recording import Cell, Recording
from tf_mem_magic.notebook.follow.reader import Reader
from tf_mem_magic.notebook.read_first import assigned_names
from tf_mem_magic.notebook.text.cell import read_cell
from tf_mem_magic.notebook.text.mask import NotPython
from tf_mem_magic.notebook.text.ranges import apply_edits
from tf_mem_magic.remedies._engine.guards import Check, host_memory
from tf_mem_magic.remedies._engine.question import Ask, remedy
from tf_mem_magic.remedies.stream_data.array_calls import gives_arrays, stream_call
from tf_mem_magic.remedies.stream_data.pipelines import stream_pipelines
from tf_mem_magic.remedies.stream_data.streaming import IMPORT, Change

KEY = "stream-data"
TITLE = "Stream the data"
HELPS: tuple[SituationKind, ...] = ("pipeline",)


def _not_of_data(ask: Ask) -> str:
    return "" if ask.situation in HELPS else host_memory.why(ask)


GUARDS = (Check("of_data", _not_of_data, "it was not the computer's own memory that ran out, and this saves no other"),)


@remedy(KEY, TITLE, GUARDS)
def propose(ask: Ask) -> Proposal:
    """Offer to stream where host memory ran out: the arrays given to ``fit``, or a cache and queue of ``tf.data``."""
    reader, diagnosis = ask.reader, ask.diagnosis
    assert diagnosis is not None  # its guard
    if any(name == "apply" for _, name in (*reader.scopes.bindings, *reader.scopes.loads)) and IMPORT not in ask.source:
        raise RefusedError("the cell has a name `apply` of its own")
    change = _change(reader, ask.line, diagnosis.limit)
    source = ask.edit().edit(*change.edits).source()
    return Proposal(
        KEY,
        change.title,
        source,
        ask.source,
        change.preserves,
        caveats=change.caveats,
        why=change.why,
        answers_cause=True,
    )


def _change(reader: Reader, line: int | None, limit: int | None) -> Change:
    """Change what ran out: arrays given to Keras, or else a pipeline; say where it is made in an earlier cell."""
    if gives_arrays(reader, line):
        return stream_call(reader, line, limit)
    try:
        return stream_pipelines(reader, line, limit) or stream_call(reader, line, limit)
    except RefusedError:
        elsewhere = _elsewhere(reader, line, limit)
        if elsewhere is None:
            raise
        raise elsewhere from None


def _elsewhere(reader: Reader, line: int | None, limit: int | None) -> RefusedError | None:
    """Find the earlier cell that makes a dataset which the cell reads, and give the change of that as a patch."""
    cells = reader.facts.earlier_cells
    known = {one.name for one in reader.facts.datasets if one.kind == "tf.data" and not one.is_new}
    tops = [s for s in reader.cell.tree.body if line is None or s.lineno <= line <= (s.end_lineno or s.lineno)]
    read = {n.id for top in tops for n in ast.walk(top) if isinstance(n, ast.Name)} & known
    for index in reversed(range(len(cells))):
        earlier = read_cell(cells[index])
        if isinstance(earlier, NotPython) or not assigned_names(cells[index]) & read:
            continue
        try:
            change = stream_pipelines(Reader(earlier, replace(reader.facts, earlier_cells=cells[:index])), None, limit)
        except RefusedError:
            return None
        changed = apply_edits(earlier, change.edits) if change is not None else NotPython("")
        if isinstance(changed, str):
            name = min(assigned_names(cells[index]) & read)
            lines = difflib.unified_diff(
                cells[index].splitlines(), changed.splitlines(), "earlier cell", "changed", lineterm="", n=2
            )
            return RefusedError(f"`{name}` was made in an earlier cell: change it there and run that", "\n".join(lines))
    return None


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
    _example(
        "a split",
        "%%tfmem\nmodel.fit(x, y, validation_split=0.2)",
        _STREAM + "model.fit(apply.stream(x, y, batch_size=32, but_last=0.2), "
        "validation_data=apply.stream(x, y, batch_size=32, shuffle=False, last=0.2))",
    ),
    _example(
        "several inputs, and a comment between arguments",
        '%%tfmem\nmodel.fit({"a": x},  # data\n  y, validation_data=(x, y))',
        _STREAM + 'model.fit(apply.stream({"a": x}, y, batch_size=32),  # data\n  '
        "validation_data=apply.stream(x, y, batch_size=32, shuffle=False))",
    ),
    _example(
        "a dataset of arrays",
        "%%tfmem\nd = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(9999).batch(32).prefetch(2)\nmodel.fit(d)",
        _STREAM + "d = tf.data.Dataset.range(len(x)).shuffle(9999).batch(32).map(apply.rows((x, y))).prefetch(2)\n"
        "model.fit(d)",
        line=3,
    ),
    _example(
        "files shuffled after loading",
        "%%tfmem\nd = tf.data.Dataset.list_files(p).map(tf.io.read_file).shuffle(9999).batch(32)",
        "%%tfmem\nd = tf.data.Dataset.list_files(p).shuffle(9999).map(tf.io.read_file).batch(32)",
    ),
    _example("a large buffer", "%%tfmem\nd = ds.unbatch().shuffle(16000)", "%%tfmem\nd = ds.unbatch().shuffle(1000)"),
    _example("an endless cache", "%%tfmem\nd = ds.repeat().cache()", "endless `repeat`", declined=True),
    _example("a split of its own", "%%tfmem\nmodel.fit(x, y, validation_split=part)", "computed when", declined=True),
    _example("hidden", "%%tfmem\nmodel.fit(x, y, **options)", "hidden behind **", declined=True),
    _example("a bracket", "%%tfmem\nmodel.fit(x, (y))", "a bracket stands", declined=True),
    _example("another library", "%%tfmem\nforest.fit(x, y)", "no arrays to a Keras", declined=True),
    _example("not in fit", "%%tfmem\nz = x * 2\nmodel.fit(x, y)", "before or after `fit`", declined=True),
    _example("a list", "%%tfmem\nmodel.fit([x, z], y)", "not given NumPy arrays", declined=True),
    Example("the card", _context("%%tfmem\nmodel.fit(x, y)", device="GPU:0"), "not the computer's own", True),
)
