"""What the bytes in use were, in parts that sum to them exactly."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from tf_mem_magic.core.diagnosis import Part, PartKind
from tf_mem_magic.core.facts import Facts, ModelFacts, NamedValue
from tf_mem_magic.core.recording import Recording

HOST = "host"
_TRIFLE = 0.01
"""Share of what earlier cells left below which a name holds nothing worth naming."""
_CLIPPED = "no more than was in use: the named bytes are more than that"


def break_down(recording: Recording, device: str, in_use: int) -> tuple[Part, ...]:
    """Share out ``in_use`` bytes on ``device`` among what is known by name; the remainder is ``other``.

    Parts are never negative and sum to ``in_use``: where the named bytes exceed it, the last are cut, which their
    basis says.
    """
    return share_out(in_use, _named(recording, device))


def share_out(in_use: int, known: Iterable[Part]) -> tuple[Part, ...]:
    """Share out ``in_use`` bytes among parts in their order, the last ones cut; ``other`` is the rest."""
    room = in_use
    parts: list[Part] = []
    for part in known:
        if part.bytes > room:
            part = Part(part.kind, room, _CLIPPED, part.names)
        if part.bytes:
            parts.append(part)
            room -= part.bytes
    if room:
        parts.append(Part("other", room, "what remains of the bytes in use"))
    return tuple(parts)


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What earlier cells left on a device and this cell does not use.

    ``maybe_used``: the cell uses a dataset of an earlier cell, and the unnamed bytes may be its data.
    ``names`` hold ``named`` bytes, but for trifles; ``unnamed`` bytes were in use when the cell began though no name
    holds them (None where nobody counted).
    """

    names: tuple[str, ...]
    named: int
    unnamed: int | None
    maybe_used: bool = False

    @property
    def bytes(self) -> int:
        """All of it."""
        return self.named + (self.unnamed or 0)

    @property
    def sure(self) -> int:
        """Those of which it is sure that the cell does not use them."""
        return self.named if self.maybe_used else self.bytes


def find_leftovers(recording: Recording, device: str) -> Leftovers:
    """Find what earlier cells left on ``device``; what the cell names, or a function of its, is in use."""
    facts = recording.facts
    earlier_models = [m for m in _models(facts, device) if not m.is_new]
    earlier_values = [v for v in _values(facts, device) if v.origin == "earlier"]
    sized = [(m.name, m.weight_bytes + m.optimizer_bytes) for m in earlier_models]
    sized += [(v.name, v.bytes) for v in earlier_values]
    left = sorted(((n, size) for n, size in sized if not _is_used(recording, n)), key=lambda entry: -entry[1])
    data = any(not one.is_new and one.kind == "tf.data" and _is_used(recording, one.name) for one in facts.datasets)
    unnamed = _unnamed(recording, device, sized)
    held = sum(size for _, size in left)
    # A scalar is not named as the holder of what no name holds.
    names = tuple(n for n, size in left if size and (not unnamed or size >= _TRIFLE * (held + unnamed)))
    return Leftovers(names, held, unnamed, data)


def _unnamed(recording: Recording, device: str, earlier: list[tuple[str, int]]) -> int | None:
    """Count the bytes in use ever since the cell began that no name holds (a deleted model keeps its memory)."""
    name = f"allocator:{device}"
    before = dict(recording.before).get(name)
    if before is None:
        return None
    series = recording.get(name)
    stayed = min([before, *(series.values if series else ())])
    # A value that the cell made may have replaced one of its size under the same name, which is then gone.
    replaced = sum(v.bytes for v in _values(recording.facts, device) if v.origin == "cell")
    # A model that the cell built around an earlier one holds that one's weights.
    taken_in = sum(m.earlier_bytes for m in _models(recording.facts, device) if m.is_new)
    return max(stayed - sum(size for _, size in earlier) - replaced - taken_in, 0)


def mentions(source: str, name: str) -> bool:
    """Say whether ``source`` names the variable that ``name`` (``model``, ``self.model``, ``nets[0]``) starts with."""
    root = re.match(r"\w+", name)
    return root is not None and re.search(rf"\b{re.escape(root[0])}\b", source) is not None


def _is_used(recording: Recording, name: str) -> bool:
    """Say whether the cell uses what ``name`` holds: by name, through a function, or by training it."""
    facts = recording.facts
    if any(v.name == name and v.keeps_model for v in facts.values):
        return False  # what a History says is read without its model
    model = facts.model(name)
    trained = model is not None and model.steps > (model.steps_before or 0)
    return trained or mentions(" ".join((recording.cell.source, *facts.used)), name)


def _named(recording: Recording, device: str) -> Iterable[Part]:
    facts = recording.facts
    left = find_leftovers(recording, device)
    models = [m for m in _models(facts, device) if m.is_new or _is_used(recording, m.name)]
    values = [v for v in _values(facts, device) if v.origin == "cell" or _is_used(recording, v.name)]
    yield _part("weights", "the models' variables", [(m.name, m.weight_bytes) for m in models])
    yield _part("optimizer", "the optimizers' variables", [(m.name, m.optimizer_bytes) for m in models])
    yield _part("values", "the named values' own sizes", [(v.name, v.bytes) for v in values])
    basis = "the sizes of what names from earlier cells hold"
    if left.unnamed:
        basis = "in use when the cell began, less what the cell itself uses"
    yield Part("earlier", left.bytes, basis, left.names)
    yield Part("garbage", discarded(recording, device), "what Python's collector gave back after the cell had failed")


def discarded(recording: Recording, device: str) -> int:
    """Give the bytes on ``device`` that the cell had made and nothing held any more when it failed; 0 if unknown."""
    return dict(recording.discarded).get(f"allocator:{device}", 0)


def _part(kind: PartKind, basis: str, sized: list[tuple[str, int]]) -> Part:
    held = sorted(((name, size) for name, size in sized if size), key=lambda entry: -entry[1])
    return Part(kind, sum(size for _, size in held), basis, tuple(name for name, _ in held))


def _models(facts: Facts, device: str) -> list[ModelFacts]:
    return [m for m in facts.models if m.device == device]


def _values(facts: Facts, device: str) -> list[NamedValue]:
    return [v for v in facts.values if (v.device or HOST) == device]


def models_in_containers(facts: Facts, device: str) -> dict[str, tuple[int, ...]]:
    """Give the bytes of each model that the cell made, weights and optimizer, by the list or dict that holds it."""
    held: dict[str, tuple[int, ...]] = {}
    for model in facts.models:
        root, bracket, _ = model.name.partition("[")
        if bracket and model.is_new and not model.local and model.device == device:
            held[root] = (*held.get(root, ()), model.weight_bytes + model.optimizer_bytes)
    return held


def deployable(recording: Recording) -> tuple[ModelFacts, ...]:
    """List the Keras models that the cell trained, then those it made, then those it only names."""
    source = recording.cell.source
    models = [m for m in recording.facts.models if not m.local]
    trained = [m for m in models if m.steps > (m.steps_before or 0)]
    made = [m for m in models if m.is_new]
    named = [m for m in models if mentions(source, m.name)]
    return tuple(dict.fromkeys((*trained, *made, *named)))
