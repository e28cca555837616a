"""Close sessions: sessions in TensorFlow 1's style keep their variables on the device until they are closed."""

from __future__ import annotations

from tf_mem_magic.core.diagnosis import Cause, Diagnosis
from tf_mem_magic.core.proposals import Example, Proposal, RefusedError
from tf_mem_magic.diagnose.breakdown import mentions
from tf_mem_magic.remedies._engine.examples import FIT, example
from tf_mem_magic.remedies._engine.question import Ask, remedy

KEY = "close-sessions"
TITLE = "Close sessions"

_WHY = "A session holds the variables of its graph on the device until it is closed, also where nothing runs in it."
_CAVEATS = (
    "What the variables of a closed session held is lost unless you saved it; Undo does not bring it back.",
    "Cells that use the session fail until it is opened again.",
    "How much a session holds is not known before it is closed.",
)


@remedy(KEY, TITLE)
def propose(ask: Ask) -> Proposal:
    """Offer to close the sessions of earlier cells that this cell does not use."""
    facts, diagnosis = ask.facts, ask.diagnosis
    if not facts.sessions:
        raise RefusedError("no session of TensorFlow 1's style is open")
    if diagnosis is not None and diagnosis.cause in ("host", "other-process"):
        place = "the computer's own memory" if diagnosis.cause == "host" else "memory that another process holds"
        raise RefusedError(f"it was {place} that was missing")
    used = " ".join((ask.source, *facts.used))
    names = [name for name in facts.sessions if not mentions(used, name)]
    if not names:
        raise RefusedError(f"the cell uses {', '.join(f'`{name}`' for name in facts.sessions)}")
    return Proposal(
        key=KEY,
        title=f"Close {', '.join(f'`{name}`' for name in names)}",
        source=ask.edit().on_top(*(f"{name}.close()" for name in names)).source(),
        original=ask.source,
        preserves="same results",
        caveats=_CAVEATS,
        why=_WHY,
    )


def _example(
    name: str, expect: str, cell: str, *sessions: str, cause: Cause = "unknown", declined: bool = False
) -> Example:
    diagnosis = Diagnosis("GPU:0", cause=cause)
    return example(name, cell, expect, declined=declined, diagnosis=diagnosis, keras=None, sessions=sessions)


EXAMPLES: tuple[Example, ...] = (
    _example("an open session", "%%tfmem\nsess.close()\nmodel.fit(x, y)\n", FIT, "sess"),
    _example("two of them", "%%tfmem\na.close()\nnets['b'].close()\nmodel.fit(x, y)\n", FIT, "a", "nets['b']"),
    _example("one is used by the cell", "b.close()\na.run(step)\n", "a.run(step)\n", "a", "b"),
    _example("the only one is used by the cell", "the cell uses `a`", "a.run(step)\n", "a", declined=True),
    _example("none is open", "is open", FIT, declined=True),
    _example("the host ran out", "own memory", FIT, "a", cause="host", declined=True),
    _example("another process", "another process", FIT, "a", cause="other-process", declined=True),
    _example("no Python", "not read as Python", "%%bash\nls\n", "a", declined=True),
)
