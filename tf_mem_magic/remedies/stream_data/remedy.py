"""Stream the data: cut arrays into batches as training asks for them; keep caches on disk and queues short."""

from __future__ import annotations

import difflib
from dataclasses import replace

from tf_mem_magic.core.diagnosis import Diagnosis, SituationKind
from tf_mem_magic.core.effects import Effect
from tf_mem_magic.core.facts import DatasetFacts, Facts, ModelFacts, NamedValue
from tf_mem_magic.core.proposals import Context, Example, Proposal, RefusedError
from tf_mem_magic.core.recording import Cell, Recording
from tf_mem_magic.diagnose.data.arrays import copied_whole
from tf_mem_magic.diagnose.dump import newest_dump
from tf_mem_magic.notebook.follow.reader import Reader
from tf_mem_magic.notebook.read_first import assigned_names
from tf_mem_magic.notebook.text.cell import read_cell
from tf_mem_magic.notebook.text.edits import IMPORT
from tf_mem_magic.notebook.text.mask import NotPython
from tf_mem_magic.notebook.text.ranges import apply_edits
from tf_mem_magic.remedies._engine.guards import Check, host_memory
from tf_mem_magic.remedies._engine.question import Ask, remedy
from tf_mem_magic.remedies.stream_data.array_calls import gives_arrays, stream_call
from tf_mem_magic.remedies.stream_data.pipelines import stream_pipelines
from tf_mem_magic.remedies.stream_data.streaming import Change
from tf_mem_magic.remedies.stream_data.taken_over import Place, TakenOver, Takeover, datasets_read

KEY = "stream-data"
TITLE = "Stream the data"
HELPS: tuple[SituationKind, ...] = ("pipeline", "arrays")


def _not_of_data(ask: Ask) -> str:
    if ask.situation in HELPS or not host_memory.why(ask):
        return ""
    if ask.diagnosis is None or not ask.diagnosis.device.startswith("CPU"):
        return "it was not the computer's own memory that ran out, and this saves no other"
    return "it saves whole arrays and what a data pipeline holds, and neither is known to fill the memory here"


GUARDS = (Check("of_data", _not_of_data),)


@remedy(KEY, TITLE, GUARDS)
def propose(ask: Ask) -> Proposal:
    """Offer to stream where host memory ran out: the arrays given to ``fit``, or a cache and queue of ``tf.data``."""
    reader, diagnosis = ask.reader, ask.diagnosis
    assert diagnosis is not None  # its guard
    if any(name == "apply" for _, name in (*reader.scopes.bindings, *reader.scopes.loads)) and IMPORT not in ask.source:
        raise RefusedError("the cell has a name `apply` of its own")
    change, source = _change(ask, diagnosis.limit)
    return Proposal(
        KEY,
        change.title,
        source,
        ask.source,
        change.preserves,
        caveats=change.caveats,
        why=change.why,
        answers_cause=True,
        effect=Effect(to_host=held) if (held := _copied(ask)) else None,
    )


def _copied(ask: Ask) -> int:
    """Give the bytes of the chunks that hold arrays which Keras has copied as a whole; 0 where others ran out."""
    diagnosis = ask.diagnosis
    if diagnosis is None or ask.situation != "arrays":
        return 0
    dump = newest_dump(ask.recording.dumps, diagnosis.device)
    return sum(one.taken for one in copied_whole(ask.recording, dump, diagnosis.device))


def _change(ask: Ask, limit: int | None) -> tuple[Change, str]:
    """Change what ran out: arrays given to Keras, or else a pipeline, which may be one that an earlier cell made."""
    reader, line = ask.reader, ask.line
    if gives_arrays(reader, line):
        return _edited(ask, stream_call(reader, line, limit))
    try:
        return _edited(ask, stream_pipelines(reader, line, limit) or stream_call(reader, line, limit))
    except RefusedError:
        roots = datasets_read(reader, line)
        taken = _taken_over(reader, line, limit, roots) if roots else None
        if taken is None:
            raise
        return taken


def _edited(ask: Ask, change: Change) -> tuple[Change, str]:
    return change, ask.edit().edit(*change.edits).source()


def _taken_over(
    reader: Reader, line: int | None, limit: int | None, roots: tuple[str, ...]
) -> tuple[Change, str] | None:
    """Make the datasets ``roots`` of earlier cells anew in the cell, changed; None where nothing of them holds much.

    Raises
    ------
    RefusedError
        If that is not certain to make the same: with the change of the earlier cell, to copy.
    """
    try:
        takeover = Takeover(reader, line, roots)
        whole = takeover.written()
    except RefusedError as refused:
        _leave_to_the_person(reader, roots, limit, str(refused))
        return None
    change = _stream(reader, whole, limit)
    edited = {} if change is None else _edited_statements(whole, change)
    if not edited:
        return None
    try:
        taken = takeover.checked(takeover.needed(edited))
    except RefusedError as refused:
        _leave_to_the_person(reader, roots, limit, str(refused))
        return None
    change = _stream(reader, taken, limit)
    if change is None or set(_edited_statements(taken, change)) != set(edited):
        return None
    source = apply_edits(taken.cell, change.edits)
    if isinstance(source, NotPython):
        raise RefusedError(source.reason)
    drawn = ("Made anew, the samples come in another order than before.",) if taken.drawn else ()
    preserves = "same effective batch" if taken.drawn else change.preserves
    return replace(change, preserves=preserves, caveats=(_made_anew(taken.names), *drawn, *change.caveats)), source


def _leave_to_the_person(reader: Reader, roots: tuple[str, ...], limit: int | None, why: str) -> None:
    """Say why an earlier cell is not taken over, with its change to copy, where there is one."""
    patched = _patch(reader, roots, limit)
    if patched is not None:
        name, patch = patched
        raise RefusedError(f"`{name}` was made in an earlier cell, {why}: change it there and run that", patch)


def _made_anew(names: tuple[str, ...]) -> str:
    quoted = [f"`{name}`" for name in names]
    if len(quoted) == 1:
        return f"{quoted[0]}, made in an earlier cell, is made anew in this one, and stays the changed one."
    told = f"{', '.join(quoted[:-1])} and {quoted[-1]}"
    return f"{told}, made in an earlier cell, are made anew in this one, and stay the changed ones."


def _stream(reader: Reader, taken: TakenOver, limit: int | None) -> Change | None:
    return stream_pipelines(Reader(taken.cell, reader.facts), taken.line, limit, taken.lines)


def _edited_statements(taken: TakenOver, change: Change) -> dict[Place, range]:
    """Give the statements of earlier cells that a change edits."""
    lines = {taken.cell.source.count("\n", 0, edit.start) + 1 for edit in change.edits if edit.start != edit.end}
    lines |= {taken.cell.source.count("\n", 0, edit.start - 1) + 1 for edit in change.edits if edit.start == edit.end}
    return {place: span for place, span in taken.made.items() if lines.intersection(span)}


def _patch(reader: Reader, roots: tuple[str, ...], limit: int | None) -> tuple[str, str] | None:
    """Give the change of the earlier cell that makes one of the datasets, as a patch, and that dataset's name."""
    cells = reader.facts.earlier_cells
    for index in reversed(range(len(cells))):
        earlier = read_cell(cells[index])
        bound = assigned_names(cells[index]).intersection(roots)
        if isinstance(earlier, NotPython) or not bound:
            continue
        try:
            change = stream_pipelines(Reader(earlier, replace(reader.facts, earlier_cells=cells[:index])), None, limit)
        except RefusedError:
            return None
        changed = apply_edits(earlier, change.edits) if change is not None else NotPython("")
        if isinstance(changed, str):
            lines = difflib.unified_diff(
                cells[index].splitlines(), changed.splitlines(), "earlier cell", "changed", lineterm="", n=2
            )
            return min(bound), "\n".join(lines)
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
