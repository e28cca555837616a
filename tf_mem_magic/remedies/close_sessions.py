"""Close sessions: sessions in TensorFlow 1's style keep their variables on the device until they are closed."""

from __future__ import annotations

from tf_mem_magic.core.diagnosis import Cause, Diagnosis
from tf_mem_magic.core.facts import Facts
from tf_mem_magic.core.proposals import Answer, Context, Declined, Example, Proposal
from tf_mem_magic.core.recording import Cell, Recording
from tf_mem_magic.diagnose.breakdown import mentions
from tf_mem_magic.notebook.cell import apply_edits, read_cell
from tf_mem_magic.notebook.mask import NotPython
from tf_mem_magic.notebook.top import insert_on_top

KEY = "close-sessions"
TITLE = "Close sessions"

_WHY = "A session holds the variables of its graph on the device until it is closed, also where nothing runs in it."
_CAVEATS = (
    "What the variables of a closed session held is lost unless you saved it; Undo does not bring it back.",
    "Cells that use the session fail until it is opened again.",
    "How much a session holds is not known before it is closed.",
)


def propose(context: Context) -> Answer:
    """Offer to close the sessions of earlier cells that this cell does not use."""
    facts, diagnosis = context.recording.facts, context.diagnosis
    if not facts.sessions:
        return (Declined(KEY, TITLE, "no session of TensorFlow 1's style is open"),)
    if diagnosis is not None and diagnosis.cause in ("host", "other-process"):
        place = "the computer's own memory" if diagnosis.cause == "host" else "memory that another process holds"
        return (Declined(KEY, TITLE, f"it was {place} that was missing"),)
    used = " ".join((context.cell.source, *facts.used))
    names = [name for name in facts.sessions if not mentions(used, name)]
    if not names:
        return (Declined(KEY, TITLE, f"the cell uses {', '.join(f'`{name}`' for name in facts.sessions)}"),)
    cell = read_cell(context.cell.source)
    if isinstance(cell, NotPython):
        return (Declined(KEY, TITLE, cell.reason),)
    changed = apply_edits(cell, [insert_on_top(cell, [f"{name}.close()" for name in names])])
    if isinstance(changed, NotPython):
        return (Declined(KEY, TITLE, changed.reason),)
    return (
        Proposal(
            key=KEY,
            title=f"Close {', '.join(f'`{name}`' for name in names)}",
            source=changed,
            original=context.cell.source,
            preserves="same results",
            caveats=_CAVEATS,
            why=_WHY,
        ),
    )


def _example(
    name: str, expect: str, source: str, *sessions: str, cause: Cause = "unknown", declined: bool = False
) -> Example:
    cell = Cell(source)
    recording = Recording(cell, status="oom", facts=Facts("2.21.0", initialised=True, sessions=sessions))
    return Example(name, Context(cell, recording, Diagnosis("GPU:0", cause=cause)), expect, declined)


_FIT = "%%tfmem\nmodel.fit(x, y)\n"

EXAMPLES: tuple[Example, ...] = (
    _example("an open session", "%%tfmem\nsess.close()\nmodel.fit(x, y)\n", _FIT, "sess"),
    _example("two of them", "%%tfmem\na.close()\nnets['b'].close()\nmodel.fit(x, y)\n", _FIT, "a", "nets['b']"),
    _example("one is used by the cell", "b.close()\na.run(step)\n", "a.run(step)\n", "a", "b"),
    _example("the only one is used by the cell", "the cell uses `a`", "a.run(step)\n", "a", declined=True),
    _example("none is open", "is open", _FIT, declined=True),
    _example("the host ran out", "own memory", _FIT, "a", cause="host", declined=True),
    _example("another process", "another process", _FIT, "a", cause="other-process", declined=True),
    _example("no Python", "not read as Python", "%%bash\nls\n", "a", declined=True),
)
