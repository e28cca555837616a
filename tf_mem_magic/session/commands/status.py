"""``%tfmem status``: what holds memory now, measured and by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tf_mem_magic.core.units import size, unit_for

if TYPE_CHECKING:
    from tf_mem_magic.core.facts import Facts
    from tf_mem_magic.session.session import Session

MOST_NAMES = 20


def status_text(session: Session) -> str:
    """Give the bytes of every source now, then the names that hold the most."""
    from tf_mem_magic.facts.gather import gather_facts, snapshot

    namespace = session.shell.user_ns
    session.pool.refresh(at_once=True)
    sources, missing = session.pool.sources, session.pool.missing()
    limits = {name: limit for source in sources for name, (limit, _) in source.limits().items()}
    lines = []
    for source in sources:
        for name, value in source.read().items():
            limit = limits.get(name)
            of = f" of {size(limit, unit_for([limit]))}" if limit else ""
            lines.append(f"{_label(name):<28} {size(value)}{of}")
    lines += [f"{entry.name}: not measured ({entry.reason})" for entry in missing]
    held = held_names(gather_facts(namespace, snapshot(namespace), ""))
    if held:
        lines.append("held by name:")
        lines += [f"  {name:<26} {size(held_bytes)}  {what}" for name, held_bytes, what in held[:MOST_NAMES]]
        if len(held) > MOST_NAMES:
            lines.append(f"  and {len(held) - MOST_NAMES} smaller ones")
        lines.append("%tfmem free NAME lets go of one.")
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
