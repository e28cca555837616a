"""What was tried without a click: for the text of a report, its page and its JSON."""

from __future__ import annotations

import textwrap
from typing import Any

from tf_mem_magic.core.outcome import Outcome, Try
from tf_mem_magic.core.units import size

_ENDED = {
    "ok": "it fits",
    "oom": "ran out of memory",
    "interrupted": "was interrupted",
    "killed": "ended the kernel",
}


def tries_text(outcome: Outcome) -> str:
    """List each try with its outcome and the cell as it was tried; empty where none was made."""
    if not outcome.tries:
        return ""
    lines = ["Tried without a click:"]
    for number, one in enumerate(outcome.tries, 1):
        lines += [f"  {number}. {words_of(one)}", textwrap.indent(one.source.rstrip(), "     | ", lambda _: True)]
    return "\n".join(lines)


def tries_json(outcome: Outcome) -> list[dict[str, Any]]:
    """Give the tries as plain values."""
    return [
        {"remedy": t.key, "title": t.title, "status": t.status, "error": t.error, "peak": t.peak, "source": t.source}
        for t in outcome.tries
    ]


def words_of(one: Try) -> str:
    """Say in one line what was tried and how it ended."""
    ended = _ENDED.get(one.status, f"stopped with {one.error}" if one.error else "stopped")
    peak = f", peak {size(one.peak)}" if one.peak is not None else ""
    return f"{one.title}: {ended}{peak}"
