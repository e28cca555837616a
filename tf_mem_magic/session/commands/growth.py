"""What grows from cell to cell: the bytes that names held after each watched run, and what no name held."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from tf_mem_magic.core.facts import Facts
from tf_mem_magic.core.recording import Recording
from tf_mem_magic.core.units import brief_unit, size

KEPT = 16
"""Runs of which it is remembered what names held."""

LEAST = 1 << 20
"""Bytes by which a name must have grown over the runs to be worth a line."""

MUCH = 32 << 20
"""Bytes by which a name must have grown to be told unasked."""

SHARE = 0.05
"""Share of the limit by which it must have."""

RUNS = 3
"""Levels in a row, each above the one before, from which something is said to grow."""


class Growth:
    """What the names held after the last watched runs."""

    def __init__(self) -> None:
        self._held: deque[Mapping[str, int]] = deque(maxlen=KEPT)
        self._last: Recording | None = None

    def note(self, recording: Recording) -> None:
        """Remember a run that has ended: numbers and names only."""
        self._held.append(sizes_of(recording.facts))
        self._last = recording

    def previous(self, recording: Recording) -> Recording | None:
        """Give the newest run of the same text, if it was the one before."""
        last = self._last
        same = last is not None and last.cell.source.strip() == recording.cell.source.strip()
        return last if same else None

    def grown(self, now: Facts) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Give the names that held more after each of the last runs, and now, with their bytes; most grown first."""
        held = [*self._held, sizes_of(now)]
        found = []
        for name, last in held[-1].items():
            levels = [last]
            for one in reversed(held[:-1]):
                before = one.get(name)
                if before is None or before > levels[0]:
                    break
                if before < levels[0]:
                    levels.insert(0, before)
            if len(levels) >= RUNS and last - levels[0] >= LEAST:
                found.append((name, tuple(levels)))
        return tuple(sorted(found, key=lambda entry: entry[1][0] - entry[1][-1]))

    def notice(self, recording: Recording) -> tuple[str, ...]:
        """Say which names grow from cell to cell, where that is a part of the device's memory that matters."""
        limit = recording.main.limit if recording.main is not None else None
        grown = [
            (name, levels)
            for name, levels in self.grown(recording.facts)
            if levels[-1] - levels[0] >= max(SHARE * (limit or 0), MUCH)
        ]
        return (f"Grows from cell to cell: {'; '.join(words(tuple(grown[:3])))}.",) if grown else ()


def sizes_of(facts: Facts) -> dict[str, int]:
    """Add up what each name holds, a list or dict with all that is in it."""
    held: dict[str, int] = {}
    entries = [(v.name, v.bytes) for v in facts.values]
    entries += [(m.name, m.weight_bytes + m.optimizer_bytes) for m in facts.models if not m.local]
    for name, count in entries:
        root = name if name.startswith("Out[") else name.partition("[")[0]
        held[root] = held.get(root, 0) + count
    return held


def words(grown: tuple[tuple[str, tuple[int, ...]], ...]) -> tuple[str, ...]:
    """Say what grew, a line each: ``"cache: 12 → 24 → 36 MiB"``."""
    lines = []
    for name, levels in grown:
        unit = brief_unit([levels[-1]])
        told = " → ".join(unit.text(level) for level in levels[-5:-1])
        lines.append(f"{name}: {told} → {size(levels[-1], unit)}")
    return tuple(lines)
