"""``%tfmem status``: what holds memory now, measured and by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tf_mem_magic.core.units import brief_unit, size
from tf_mem_magic.report.measures import amount

if TYPE_CHECKING:
    from tf_mem_magic.core.facts import Facts
    from tf_mem_magic.session.session import Session

MOST_NAMES = 20

SMALLEST = 1 << 20
"""Bytes below which what no name holds is not worth a line."""


def status_text(session: Session) -> str:
    """Give the bytes of every source now, then the names that hold the most."""
    from tf_mem_magic.facts.before import snapshot
    from tf_mem_magic.facts.gather import gather_facts

    namespace = session.shell.user_ns
    session.pool.refresh(at_once=True)
    sources, missing = session.pool.sources, session.pool.missing()
    limits = {name: limit for source in sources for name, (limit, _) in source.limits().items()}
    found = [(_label(name), value, limits.get(name)) for source in sources for name, value in source.read().items()]
    width = max((len(label) for label, _, _ in found), default=0)
    lines = []
    for label, value, limit in found:
        unit = brief_unit([value, limit or 0])
        lines.append(f"{label:<{width}}  {size(value, unit):>10}{f' of {size(limit, unit)}' if limit else ''}")
    lines += [f"{entry.name}: not measured ({entry.reason})" for entry in missing]
    facts = gather_facts(namespace, snapshot(namespace), "")
    held = held_names(facts)
    if held:
        lines += ["held by name:", *table(held), "%tfmem free NAME lets go of one."]
    in_use = {name.partition(":")[2]: value for name, value, _ in found if name.startswith("allocator:")}
    lines += [*unnamed(facts, in_use), *growing(session, facts), *traced_often(namespace)]
    return "\n".join(lines)


def unnamed(facts: Facts, in_use: Mapping[str, int]) -> list[str]:
    """Say what is in use on each device that no name holds."""
    lines = []
    for device, value in in_use.items():
        named = sum(v.bytes for v in facts.values if v.device == device)
        named += sum(m.weight_bytes + m.optimizer_bytes for m in facts.models if m.device == device)
        if value - named >= SMALLEST:
            lines.append(f"no name holds {size(value - named)} of {device}: %tfmem free collects what nothing needs.")
    return lines


def growing(session: Session, facts: Facts) -> list[str]:
    """List what grew from cell to cell, by name."""
    from tf_mem_magic.session.commands.growth import words

    grown = words(session.growth.grown(facts))
    return ["grew from cell to cell:", *(f"  {line}" for line in grown)] if grown else []


def traced_often(namespace: Mapping[str, Any]) -> list[str]:
    """Name the functions under ``tf.function`` that were traced again and again: each trace keeps a graph."""
    from tf_mem_magic.diagnose.notices import RETRACED
    from tf_mem_magic.facts.growth import find_traced
    from tf_mem_magic.facts.names import reachable

    often = [one for one in find_traced(reachable(namespace), {}) if one.after >= RETRACED]
    return [f"{one.name} was traced {one.after} times: each trace keeps a graph of its own." for one in often]


def table(held: list[tuple[str, int, str]]) -> list[str]:
    """Set names, sizes and what they are in columns, the largest first, the small ones counted."""
    shown = held[:MOST_NAMES]
    widest = max((len(name) for name, _, _ in shown), default=0)
    lines = [f"  {name:<{widest}}  {amount(held_bytes):>10}  {what}" for name, held_bytes, what in shown]
    return lines + ([f"  and {len(held) - MOST_NAMES} smaller ones"] if len(held) > MOST_NAMES else [])


def free_text(session: Session, names: tuple[str, ...]) -> str:
    """Let go of ``names``, or, without one, of what nothing holds any more; then list what could go.

    A name that is not there gets the nearest one that is.
    """
    from tf_mem_magic.core.options import nearest
    from tf_mem_magic.facts.before import snapshot
    from tf_mem_magic.facts.gather import gather_facts
    from tf_mem_magic.release.by_name import free
    from tf_mem_magic.release.counted import bytes_in_use, collect, gained, words

    namespace = session.shell.user_ns
    if names:
        known = [name for name in namespace if not name.startswith("_")]
        meant = [(name, nearest(name, known)) for name in names if name.isidentifier() and name not in namespace]
        guesses = [f"Did you mean {guess} instead of {name}?" for name, guess in meant if guess]
        return " ".join([free(session.shell, names), *guesses])
    before = bytes_in_use()
    collect()
    back = words(gained(before, bytes_in_use()))
    lines = [f"What nothing held any more is gone: {back}." if back else "Nothing was without a holder."]
    held = held_names(gather_facts(namespace, snapshot(namespace), ""))
    if held:
        lines += ["What could go (%tfmem free NAME):", *table(held)]
    return "\n".join(lines)


def held_names(facts: Facts) -> list[tuple[str, int, str]]:
    """List what names hold, largest first: name, bytes, and in words what it is and where."""
    models = [
        (m.name, m.weight_bytes + m.optimizer_bytes, f"model with optimizer on {m.device or 'the host'}")
        for m in facts.models
    ]
    values = [(v.name, v.bytes, f"{v.kind} on {v.device or 'the host'}") for v in facts.values]
    return sorted((entry for entry in models + values if entry[1]), key=lambda entry: -entry[1])


def _label(series: str) -> str:
    kind, _, device = series.partition(":")
    words = {
        "allocator": f"{device} in use",
        "device": f"{device} used by all processes",
        "process": f"{device} used by this process",
        "pool": f"{device} pool",
        "host": "host memory of this process",
    }
    return words.get(kind, series)
