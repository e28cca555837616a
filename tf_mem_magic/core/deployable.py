"""The models that a cell is about: those that could be made smaller for deployment."""

from __future__ import annotations

from tf_mem_magic.core.facts import ModelFacts
from tf_mem_magic.core.recording import Recording
from tf_mem_magic.diagnose.breakdown import mentions


def deployable(recording: Recording) -> tuple[ModelFacts, ...]:
    """List the Keras models that the cell trained, then those it made, then those it only names."""
    source = recording.cell.source
    models = [m for m in recording.facts.models if not m.local]
    trained = [m for m in models if m.steps > (m.steps_before or 0)]
    made = [m for m in models if m.is_new]
    named = [m for m in models if mentions(source, m.name)]
    return tuple(dict.fromkeys((*trained, *made, *named)))
