"""What the bytes in use were, chunk by chunk: the allocator's dump against the step that was running."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from tf_mem_magic.core.diagnosis import LayerBytes, Part, PartKind
from tf_mem_magic.core.recording import Dump, Recording
from tf_mem_magic.core.step import OF_GRAPH, Step, StepFacts
from tf_mem_magic.diagnose.breakdown import find_leftovers, share_out
from tf_mem_magic.diagnose.data.arrays import Copied, copied_whole
from tf_mem_magic.memory.account import (
    Ledger,
    Share,
    open_ledger,
    take_batches,
    take_known,
    take_live,
    take_workspace,
)
from tf_mem_magic.memory.live import best_live
from tf_mem_magic.memory.roles import DATA

MOST_LAYERS = 300
BATCHES = "batches"
"""What input batches are called among the inputs; arrays have their own names."""

_FOUND = "the step's tensors, each in a chunk that was asked for with exactly its bytes"
_BASES: dict[PartKind, str] = {
    "inputs": "what the step reads and the input pipeline holds, in chunks of exactly these bytes",
    "activations": _FOUND,
    "gradients": _FOUND,
    "updates": _FOUND,
    "workspace": "chunks of sizes that no tensor of the step has, beside kernels that need temporaries",
}
_OF_GRAPH = "the variables that the step's graph reads, in chunks of exactly these bytes"
_ROUNDED = "the allocator's chunks are larger than what was asked for"


def take_apart(
    recording: Recording, parts: tuple[Part, ...], dump: Dump | None, requested: int | None, device: str
) -> tuple[tuple[Part, ...], tuple[LayerBytes, ...]]:
    """Take what :func:`~tf_mem_magic.diagnose.breakdown.break_down` left as ``other`` apart.

    Parameters
    ----------
    recording : Recording
        The run that failed.
    parts : tuple of Part
        What is known by name, and the rest.
    dump : Dump or None
        The allocator's, with its chunks.
    requested : int or None
        Bytes that were asked for in vain.
    device : str
        TensorFlow's short name of the device.

    Returns
    -------
    tuple of Part, tuple of LayerBytes
        Parts that sum to the same bytes; what layers hold, most first. As given, and nothing, where there is no dump
        with chunks or the step is not known.
    """
    step = recording.facts.step
    arrays = copied_whole(recording, dump, device)
    total = sum(part.bytes for part in parts)
    if dump is None or not dump.chunks or step is None or not step.packed:
        return parts, ()
    ledger = _explain(recording, dump, step, requested, arrays)
    if ledger is None:
        return parts, ()
    found = [share for share in ledger.shares if share.part in _BASES]
    named = [_without(part, recording, device, found) for part in parts if part.kind != "other"]
    named = _with_weights(named, _of_graph(ledger.shares, recording, device))
    room = total - sum(part.bytes for part in named) - sum(share.bytes for share in found)
    rounding = sum((size - asked) * count for asked, size, count in dump.chunks)
    rounding -= sum(one.taken - one.bytes for one in arrays)
    news = [Part("rounding", min(rounding, max(room, 0)), _ROUNDED), *_parts(found)]
    return share_out(total, [*named, *news]), _layers(found)


def _of_graph(shares: Iterable[Share], recording: Recording, device: str) -> int:
    """Give the bytes of variables that no name leads to, but the graph: of a model that a step's closure holds."""
    held = sum(share.bytes for share in shares if share.part == "weights" and share.name == OF_GRAPH)
    # What was there when the cell began, and no name holds, is a part already.
    return max(held - (find_leftovers(recording, device).unnamed or 0), 0)


def _with_weights(parts: list[Part], more: int) -> list[Part]:
    if not more:
        return parts
    known = next((part for part in parts if part.kind == "weights"), None)
    if known is None:
        return [Part("weights", more, _OF_GRAPH), *parts]
    return [replace(part, bytes=part.bytes + more) if part is known else part for part in parts]


def _without(part: Part, recording: Recording, device: str, found: Iterable[Share]) -> Part:
    """Take out of what earlier cells left the arrays that are known as what the input pipeline reads."""
    if part.kind != "earlier":
        return part
    unnamed = find_leftovers(recording, device).unnamed or 0
    arrays = sum(share.bytes + share.slack for share in found if share.part == "inputs" and share.name != BATCHES)
    return replace(part, bytes=part.bytes - min(unnamed, arrays))


def _explain(
    recording: Recording, dump: Dump, step: StepFacts, requested: int | None, arrays: Sequence[Copied]
) -> Ledger | None:
    steps = step.steps
    if not steps:
        return None
    ledger = open_ledger(dump.chunks)
    take_known(ledger, step.variables)
    take_known(ledger, _values(recording))
    take_known(ledger, (("values", one.name, one.bytes) for one in arrays))
    if step.compiled:
        # A program of XLA takes its memory at once: what failed had made none of its tensors yet.
        take_batches(ledger, dict(_batches(recording, steps[0])), steps[0])
        return ledger
    live = best_live(steps[0], step.op, ledger.counts(), frozenset(step.layers), requested)
    if live is None:
        return None
    take_live(ledger, live)
    take_batches(ledger, dict(_batches(recording, steps[0])), steps[0])
    take_workspace(ledger, steps[0], live)
    return ledger


def _values(recording: Recording) -> Iterator[tuple[str, str, int]]:
    for value in recording.facts.values:
        if value.device is not None and value.bytes:
            yield "values", value.name, value.bytes


def _batches(recording: Recording, step: Step) -> Iterator[tuple[int, str]]:
    """Yield the sizes of what the input pipeline holds: arrays that it reads from, batches that it has prepared."""
    for value in recording.facts.values:
        if value.device is None and value.bytes:
            yield value.bytes, value.name
    for node in step.nodes:
        if node.kind in DATA:
            for tensor in node.outputs:
                if tensor.bytes:
                    yield tensor.bytes, BATCHES


def _parts(shares: Iterable[Share]) -> Iterator[Part]:
    by_kind: dict[PartKind, list[Share]] = {}
    for share in shares:
        by_kind.setdefault(_kind(share.part), []).append(share)
    for kind in _BASES:
        held = by_kind.get(kind, [])
        if held:
            yield Part(kind, sum(share.bytes for share in held), _BASES[kind])


def _kind(part: str) -> PartKind:
    return next((kind for kind in _BASES if kind == part), "other")


def _layers(shares: Iterable[Share]) -> tuple[LayerBytes, ...]:
    found: dict[tuple[str, PartKind], list[Share]] = {}
    for share in shares:
        if share.part not in ("inputs", "workspace"):
            found.setdefault((share.layer, _kind(share.part)), []).append(share)
    rows = []
    for (layer, kind), held in found.items():
        largest = max(held, key=lambda share: share.bytes // share.count)
        size, count = sum(share.bytes for share in held), sum(share.count for share in held)
        rows.append(LayerBytes(layer, kind, size, largest.shape, largest.dtype, count))
    return tuple(sorted(rows, key=lambda row: (-row.bytes, row.layer, row.kind))[:MOST_LAYERS])
