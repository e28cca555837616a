"""Other GPU: run on the visible card that has the most room, chosen by its UUID."""

from __future__ import annotations

from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.facts import DeviceFacts, Facts, ProcessFacts
from tf_mem_magic.core.proposals import Context, Example, Proposal, RefusedError
from tf_mem_magic.core.recording import Cell, Recording
from tf_mem_magic.core.units import GIB, MIB, brief_unit, size
from tf_mem_magic.remedies._engine.cards import (
    RESTARTS,
    find_card,
    is_occupied,
    list_cards,
    room,
    words_in_cells,
)
from tf_mem_magic.remedies._engine.in_code import in_code
from tf_mem_magic.remedies._engine.question import Ask, remedy

KEY = "other-gpu"
TITLE = "Other GPU"

_VARIABLE = "CUDA_VISIBLE_DEVICES"
_CHOOSES = (_VARIABLE, "set_visible_devices", "set_logical_device_configuration", "set_virtual_device_configuration")
_NUMBERED = in_code(r"\bGPU:[1-9]", ignore_case=True)
_STRATEGY = in_code(r"\b\w*Strategy\(")

_WHY = "The process then sees that card alone, and none of the memory that is taken on the other."
_CAVEATS = (
    RESTARTS,
    "The notebook then sees that card only, as GPU:0.",
    "It does not make the model smaller.",
)


@remedy(KEY, TITLE)
def propose(ask: Ask) -> Proposal:
    """Offer the free card with the most room, where that is more than the card that ran out can give."""
    card = find_card(ask)
    _check(ask)
    chosen = _choose(ask, card)
    here, there = room(card) or 0, room(chosen) or 0
    unit = brief_unit([here, there])
    caveats = list(_CAVEATS)
    if card.compute_capability != chosen.compute_capability or card.hardware != chosen.hardware:
        caveats.append(f"It is a different card ({chosen.hardware or 'of unknown name'}), so its speed differs too.")
    return Proposal(
        key=KEY,
        title=f"Restart on {chosen.name} ({size(there, unit)} instead of {size(here, unit)})",
        source=ask.source,
        original=ask.source,
        preserves="same results",
        takes_effect="restart",
        caveats=tuple(caveats),
        why=_WHY,
        environment=((_VARIABLE, chosen.uuid or ""),),
        excludes=("device-limit", "distribute"),
    )


def _check(ask: Ask) -> None:
    cards = list_cards(ask.facts)
    if len(cards) < 2:
        raise RefusedError("TensorFlow sees only this GPU")
    if any(one.logical for one in cards):
        raise RefusedError("logical devices are set up, and which card each is cannot be told")
    word = words_in_cells(ask, *_CHOOSES)
    if word:
        raise RefusedError(f"a cell of the notebook uses {word} itself")
    if ask.notebook.matches(_STRATEGY, "Strategy("):
        raise RefusedError("the notebook uses a distribution strategy, which needs the cards it has")
    if ask.notebook.matches(_NUMBERED):
        raise RefusedError("the notebook names its cards by number, and the numbers would change")


def _choose(ask: Ask, card: DeviceFacts) -> DeviceFacts:
    """Choose the card with the most room; refused where none is sure to have more, or enough."""
    here = room(card)
    others = [one for one in list_cards(ask.facts) if one.name != card.name]
    free = [one for one in others if is_occupied(one) is False]
    if not free:
        unknown = any(is_occupied(one) is None for one in others)
        used = "the other cards are in use by other processes"
        raise RefusedError("who else uses the other cards is not known here" if unknown else used)
    known = [one for one in free if one.uuid and room(one) is not None]
    if here is None or not known:
        raise RefusedError("how much room the cards have is not known here")
    best = max(known, key=lambda one: room(one) or 0)
    there = room(best) or 0
    unit = brief_unit([here, there])
    if there <= here:
        raise RefusedError(f"{best.name} has no more room: {size(there, unit)}, {card.name} has {size(here, unit)}")
    diagnosis = ask.diagnosis
    if diagnosis is not None and diagnosis.requested is not None and diagnosis.in_use is not None:
        needed = diagnosis.in_use + diagnosis.requested
        if there < needed:
            raise RefusedError(f"{best.name} has {size(there)}, and the cell needs {size(needed)} or more")
    return best


def _card(name: str, *held: int | None, total: int = 24 * GIB, logical: bool = False) -> DeviceFacts:
    others = tuple(ProcessFacts(4121 + i, "alice", used) for i, used in enumerate(held))
    return DeviceFacts(name, "GPU", "NVIDIA L4", (8, 9), None, logical, total, None, others, f"GPU-{name[4:]}000")


def _example(
    name: str,
    expect: str,
    *cards: DeviceFacts,
    source: str = "%%tfmem\nmodel.fit(x, y)\n",
    device: str = "GPU:0",
    in_use: int = 8 * GIB,
    earlier: tuple[str, ...] = (),
) -> Example:
    facts = Facts("2.21.0", initialised=True, devices=(*cards, DeviceFacts("CPU:0", "CPU")), earlier_cells=earlier)
    cell = Cell(source)
    diagnosis = Diagnosis(device, requested=GIB, in_use=in_use, limit=9 * GIB, cause="other-process")
    context = Context(cell, Recording(cell, status="oom", facts=facts), diagnosis)
    return Example(name, context, expect or source, declined=bool(expect))


_BUSY = _card("GPU:0", 14 * GIB)
_FREE = _card("GPU:1")
_HIDDEN = DeviceFacts("GPU:1", compute_capability=(8, 9), total=24 * GIB, uuid="GPU-1000")

EXAMPLES: tuple[Example, ...] = (
    _example("another process holds this card, the second is free: restart, same cell", "", _BUSY, _FREE),
    _example("a larger card, both free", "", _card("GPU:0", total=16 * GIB), _FREE),
    _example("only a desktop is on the other", "", _BUSY, _card("GPU:1", 4 * MIB)),
    _example("the emptier one is in use too", "in use by other processes", _BUSY, _card("GPU:1", 2 * GIB)),
    _example("the other hides what it holds", "in use by other processes", _BUSY, _card("GPU:1", None)),
    _example("who uses the other is hidden", "not known here", _BUSY, _HIDDEN),
    _example("two free cards of one size", "no more room", _card("GPU:0"), _FREE),
    _example("the other is too small", "needs 13.0 GiB", _BUSY, _card("GPU:1", total=12 * GIB), in_use=12 * GIB),
    _example("one card", "only this GPU", _BUSY),
    _example("logical devices", "logical devices", _BUSY, _card("GPU:1", logical=True)),
    _example("the notebook chooses", "itself", _BUSY, _FREE, earlier=('os.environ["CUDA_VISIBLE_DEVICES"] = "0,1"',)),
    _example(
        "the notebook names a card",
        "by number",
        _BUSY,
        _FREE,
        source='with tf.device("/GPU:1"):\n    x = load()\nmodel.fit(x)\n',
    ),
    _example(
        "a strategy needs its cards",
        "strategy",
        _BUSY,
        _FREE,
        earlier=("strategy = tf.distribute.MirroredStrategy()",),
    ),
    _example("the CPU ran out", "CPU:0 that ran out", _BUSY, _FREE, device="CPU:0"),
)
