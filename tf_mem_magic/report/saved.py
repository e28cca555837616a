"""What a saved report holds: what it shows and needs, and nothing else of the notebook that it comes from."""

from __future__ import annotations

import re
from dataclasses import replace

from tf_mem_magic.core.facts import Facts
from tf_mem_magic.core.outcome import Outcome
from tf_mem_magic.report.view import MOST_STDERR

WARNING = (
    "This file holds the source of every earlier cell, the values of constants and TensorFlow's environment variables: "
    "look through it before you give it to anyone."
)
"""Said when everything is saved."""


def shareable(outcome: Outcome) -> Outcome:
    """Leave out what a report does not show: other cells, texts, errors' messages, the environment's variables.

    The cell itself stays, with what the proposed cells take over of others, for those are the report; of what names
    hold only those stay that the report names, and of constants the numbers that the cell reads.
    """
    recording = outcome.recording
    errors = tuple(replace(error, message="") for error in recording.errors)
    kept = replace(recording, facts=_facts(outcome), stderr=recording.stderr[:MOST_STDERR], errors=errors)
    return replace(outcome, recording=kept)


def _facts(outcome: Outcome) -> Facts:
    facts, source = outcome.recording.facts, outcome.recording.cell.source
    parts = outcome.diagnosis.breakdown if outcome.diagnosis else ()
    shown = {name for part in parts for name in part.names} | {name for name, _ in outcome.leftovers}
    read = set(re.findall(r"\w+", source))
    return replace(
        facts,
        values=tuple(value for value in facts.values if value.origin == "cell" or value.name in shown),
        scalars=tuple(s for s in facts.scalars if isinstance(s.value, (bool, int, float)) and s.name in read),
        environment=(),
        earlier_cells=(),
        used=(),
        functions=(),
        modules=(),
        repeatable=(),
        read_elsewhere=(),
        used_besides=(),
        shadowed=(),
    )
