"""Fresh kernel: restart it and run this cell as it is, where the memory of this one lies in pieces."""

from __future__ import annotations

from typing import Any

from tf_mem_magic.core.diagnosis import Diagnosis, Situation, SituationKind
from tf_mem_magic.core.proposals import Example, Proposal
from tf_mem_magic.diagnose.breakdown import find_leftovers
from tf_mem_magic.remedies._engine.examples import example
from tf_mem_magic.remedies._engine.guards import Check, device_memory, smaller_than_device
from tf_mem_magic.remedies._engine.question import Ask, remedy

KEY = "fresh-kernel"
TITLE = "Fresh kernel"
HELPS: tuple[SituationKind, ...] = ("in-pieces",)
_WHY = (
    "The allocator never gives back what it took from the device, and cannot join pieces that it took one by one: "
    "only a new process begins with one piece."
)
_HELD = "What no name holds any more, and Python's collector did not find either, goes with its process alone."


def _why_not(ask: Ask) -> str:
    held = ask.situation in HELPS or _held_by_nothing(ask)
    return "" if held else "no earlier failure left the memory in pieces, as far as is known"


def _held_by_nothing(ask: Ask) -> bool:
    """Tell whether what no name holds is what is missing, after a failure before which it was collected."""
    diagnosis = ask.diagnosis
    if diagnosis is None or diagnosis.cause != "leftovers" or not ask.recording.failed_before:
        return False
    left = find_leftovers(ask.recording, diagnosis.device)
    missing = (diagnosis.in_use or 0) + (diagnosis.requested or 0) - (diagnosis.limit or 0)
    return not left.maybe_used and (left.unnamed or 0) >= max(missing, 1)


GUARDS = (device_memory, smaller_than_device, Check("a_fresh_process_has_more", _why_not))


@remedy(KEY, TITLE, GUARDS)
def propose(ask: Ask) -> Proposal:
    """Offer it where most of the device is free in pieces since an earlier failure, or held by what no name holds."""
    return Proposal(
        key=KEY,
        title="Restart and run this cell as it is",
        source=ask.source,
        original=ask.source,
        preserves="same results",
        takes_effect="restart",
        why=_WHY if ask.situation in HELPS else _HELD,
        answers_cause=True,
    )


def _example(name: str, expect: str, situation: Situation | None, declined: bool = False, **more: Any) -> Example:
    given = {"in_use": 40 << 20, "limit": 200 << 20, "requested": 64 << 20, "cause": "fragmentation", **more}
    diagnosis = Diagnosis("GPU:0", line=2, situation=situation, **given)
    return example(name, _FIT, expect, declined=declined, diagnosis=diagnosis)


_FIT = "%%tfmem\nmodel.fit(x, y, batch_size=16)\n"
_PIECES = Situation("in-pieces", "160 of 200 MiB are free, in pieces.")

EXAMPLES: tuple[Example, ...] = (
    _example("in pieces since an earlier failure", _FIT, _PIECES),
    _example("a first failure", "no earlier failure", None, declined=True),
    _example("one allocation larger than the device", "larger than the device", _PIECES, True, requested=300 << 20),
)
