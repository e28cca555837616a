"""From a recording to what ran out, where in the user's code, and why."""

from __future__ import annotations

from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.oom import find_oom
from tf_mem_magic.core.recording import Recording


def diagnose(recording: Recording) -> Diagnosis | None:
    """Explain an out-of-memory run; None unless it ran out of memory, or was killed and left evidence of that."""
    if recording.status != "oom":
        return None
    found = find_oom(recording.errors, recording.facts, recording.dumps)
    if found is None:
        return None
    return Diagnosis(device=found.device or "CPU:0", text="Out of memory.")
