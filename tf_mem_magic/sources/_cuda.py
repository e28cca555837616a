"""Which card of NVML's is which device of CUDA's: the two number them differently, and CUDA may hide some."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tf_mem_magic.sources._nvml import Fault, Nvml


@dataclass(frozen=True, slots=True)
class Card:
    """A card, or an instance of a partitioned (MIG) card: ``uuid`` as NVML writes it (``GPU-…``, ``MIG-…``).

    ``partitioned`` says whether MIG is on; ``instances`` are then those that this process may see.
    """

    uuid: str | None
    name: str | None
    handle: Any = field(compare=False, repr=False, default=None)
    partitioned: bool = False
    instances: tuple[Card, ...] = ()


@dataclass(frozen=True, slots=True)
class Unclear:
    """The cards cannot be told apart with certainty, and why."""

    reason: str


def list_cards(nvml: Nvml) -> tuple[Card, ...] | Fault:
    """List all cards in NVML's order, which is that of the bus."""
    count = nvml.ask("nvmlDeviceGetCount")
    if isinstance(count, Fault):
        return count
    cards = []
    for index in range(count):
        handle = nvml.ask("nvmlDeviceGetHandleByIndex", index)
        if isinstance(handle, Fault):
            return handle
        mode = nvml.ask("nvmlDeviceGetMigMode", handle)
        partitioned = not isinstance(mode, Fault) and bool(mode[0])
        cards.append(_card(nvml, handle, partitioned, _instances(nvml, handle) if partitioned else ()))
    return tuple(cards)


def visible_cards(cards: tuple[Card, ...], environment: Mapping[str, str]) -> tuple[Card, ...] | Unclear:
    """Give the cards that CUDA shows to this process, in CUDA's order, as ``environment`` tells.

    ``CUDA_VISIBLE_DEVICES`` is a list of numbers, or of beginnings of UUIDs; its first invalid entry ends it.
    Numbers count in CUDA's own order, which is the bus order only where ``CUDA_DEVICE_ORDER=PCI_BUS_ID``.
    """
    text = environment.get("CUDA_VISIBLE_DEVICES")
    entries = [str(number) for number in range(len(cards))] if text is None else _entries(text)
    numbers = [entry for entry in entries if entry.isdecimal()]
    if numbers and len(numbers) < len(entries):
        return Unclear("CUDA_VISIBLE_DEVICES mixes numbers and UUIDs.")
    if not numbers and entries and any(card.uuid is None for card in cards):
        return Unclear("The driver does not tell the UUIDs that CUDA_VISIBLE_DEVICES names.")
    chosen: list[Card] = []
    for entry in entries:
        found = _by_number(cards, int(entry)) if numbers else _by_uuid(cards, entry)
        if found is None:
            break
        chosen.append(found)
    if len(set(map(id, chosen))) < len(chosen):
        return Unclear("CUDA_VISIBLE_DEVICES names a card twice.")
    if numbers and chosen and len(cards) > 1 and environment.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        return Unclear(
            "CUDA may number the cards differently than the driver; CUDA_DEVICE_ORDER=PCI_BUS_ID settles it."
        )
    return _whole_or_single_instance(cards, tuple(chosen))


def card_of_ordinal(cards: tuple[Card, ...], ordinal: int) -> Card | None:
    """Find the card that CUDA calls ``ordinal`` by asking CUDA's driver for its UUID.

    Only for a process whose CUDA is initialised: it is then an answer from memory, which wakes nothing. None where
    the driver does not answer, or no card has that UUID.
    """
    wanted = _uuid_digits(ordinal)
    nodes = [node for card in cards for node in (card, *card.instances)]
    return next((n for n in nodes if wanted is not None and _digits(n.uuid) == wanted), None)


def _card(nvml: Nvml, handle: Any, partitioned: bool = False, instances: tuple[Card, ...] = ()) -> Card:
    identity, name = nvml.ask("nvmlDeviceGetUUID", handle), nvml.ask("nvmlDeviceGetName", handle)
    return Card(
        None if isinstance(identity, Fault) else str(identity),
        None if isinstance(name, Fault) else str(name),
        handle,
        partitioned,
        instances,
    )


def _instances(nvml: Nvml, handle: Any) -> tuple[Card, ...]:
    most = nvml.ask("nvmlDeviceGetMaxMigDeviceCount", handle)
    places = range(0 if isinstance(most, Fault) else most)
    handles = [nvml.ask("nvmlDeviceGetMigDeviceHandleByIndex", handle, place) for place in places]
    return tuple(_card(nvml, found) for found in handles if not isinstance(found, Fault))  # empty places are faults


def _whole_or_single_instance(cards: tuple[Card, ...], chosen: tuple[Card, ...]) -> tuple[Card, ...] | Unclear:
    """Settle partitioned cards: CUDA uses one instance; only a single one, or one named by its UUID, is certain."""
    instances = [instance for card in cards for instance in card.instances]
    if not any(card.partitioned or card in instances for card in chosen):
        return chosen
    if len(chosen) == 1 and chosen[0] in instances:
        return chosen
    if len(cards) == 1 and len(instances) == 1:
        return tuple(instances)
    return Unclear("The card is partitioned (MIG), and which of its instances CUDA uses cannot be told.")


def _entries(text: str) -> list[str]:
    """Split ``CUDA_VISIBLE_DEVICES`` up to its first entry that is neither a number nor the beginning of a UUID."""
    entries = [entry.strip() for entry in text.split(",")]
    valid = [entry.isdecimal() or entry.upper().startswith(("GPU-", "MIG-")) for entry in entries]
    return entries[: [*valid, False].index(False)]


def _by_number(cards: tuple[Card, ...], number: int) -> Card | None:
    return cards[number] if number < len(cards) else None


def _by_uuid(cards: tuple[Card, ...], entry: str) -> Card | None:
    """Find the one card or instance whose UUID begins with ``entry``; an entry that fits several is invalid."""
    nodes = [node for card in cards for node in (card, *card.instances)]
    fitting = [node for node in nodes if (node.uuid or "").lower().startswith(entry.lower())]
    return fitting[0] if len(fitting) == 1 else None


def _digits(identity: str | None) -> str:
    return re.sub(r"^(GPU|MIG)-|-", "", identity or "").lower()


def _uuid_digits(ordinal: int) -> str | None:
    """Ask CUDA's driver for the UUID of ``ordinal``, as 32 hexadecimal digits."""
    import ctypes

    try:
        library = ctypes.CDLL("libcuda.so.1")  # Linux and WSL: the only systems with TensorFlow on CUDA
        device, answer = ctypes.c_int(), (ctypes.c_ubyte * 16)()
        if library.cuDeviceGet(ctypes.byref(device), ctypes.c_int(ordinal)) != 0:
            return None
        if library.cuDeviceGetUuid_v2(answer, device) != 0:
            return None
        return bytes(answer).hex()
    except (OSError, AttributeError):
        return None
