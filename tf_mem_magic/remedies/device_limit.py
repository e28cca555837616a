"""Device limit: this process takes a fixed share of a card that other processes use too."""

from __future__ import annotations

from tf_mem_magic.core.diagnosis import Cause, Diagnosis
from tf_mem_magic.core.facts import DeviceFacts, Facts, ProcessFacts
from tf_mem_magic.core.proposals import Context, Example, Proposal, RefusedError
from tf_mem_magic.core.recording import Cell, Recording
from tf_mem_magic.core.units import GIB, MIB, size
from tf_mem_magic.remedies._engine.cards import (
    RESTARTS,
    find_card,
    held_by_others,
    is_occupied,
    list_cards,
    words_in_cells,
)
from tf_mem_magic.remedies._engine.question import Ask, remedy

KEY = "device-limit"
TITLE = "Device limit"

LEFT_TO_CUDA = GIB
"""Bytes left outside TensorFlow's share: CUDA's context, the code of its libraries and their workspaces."""

_STEP = 256 * MIB
_SETS = ("set_logical_device_configuration", "set_virtual_device_configuration", "set_visible_devices")
_GROWS = ("set_memory_growth", "allow_growth", "TF_FORCE_GPU_ALLOW_GROWTH")

_PROLOGUE = """\
import tensorflow as tf
gpus = tf.config.list_physical_devices("GPU")
share = tf.config.LogicalDeviceConfiguration(memory_limit={mebibytes})
tf.config.set_logical_device_configuration(gpus[{index}], [share])
"""
_WHY = (
    "With a limit TensorFlow takes a fixed share of the card at the start and no more: no other process can take it "
    "while this one runs, and the others keep what they have."
)
_CAVEATS = (
    RESTARTS,
    "It does not make the model smaller: it helps where another process took the memory first.",
    "The share is what the other processes leave now; if they have more by then, TensorFlow cannot take all of it.",
    "It does not combine with memory growth.",
)


@remedy(KEY, TITLE)
def propose(ask: Ask) -> Proposal:
    """Offer the share that the other processes leave, where it is known and enough for what was asked in vain."""
    card = find_card(ask)
    if reason := _refusal(ask, card):
        raise RefusedError(reason)
    share = _share(card) or 0
    return Proposal(
        key=KEY,
        title=f"Restart with {size(share)} of {card.name}",
        source=ask.source,
        original=ask.source,
        preserves="same results",
        takes_effect="restart",
        caveats=_CAVEATS,
        why=_WHY,
        prologue=_PROLOGUE.format(mebibytes=share // MIB, index=card.name.partition(":")[2]),
        excludes=("memory-growth", "async-allocator", "other-gpu", "distribute"),
    )


def _refusal(ask: Ask, card: DeviceFacts) -> str:
    if any(one.logical for one in list_cards(ask.facts)):
        return "a logical device with its own memory limit is set up already"
    word = words_in_cells(ask, *_SETS)
    if word:
        return f"a cell of the notebook calls {word} itself"
    word = words_in_cells(ask, *_GROWS)
    if word or dict(ask.facts.environment).get("TF_FORCE_GPU_ALLOW_GROWTH", "").lower() == "true":
        return "the notebook asks for memory growth, and TensorFlow does not combine the two"
    occupied = is_occupied(card)
    if occupied is None:
        return f"what other processes hold of {card.name} is not known here, so no share of it can be named"
    if not occupied:
        return f"nobody else uses {card.name}, so a limit would only take memory away"
    if _share(card) is None:
        return f"not every process tells how much of {card.name} it holds, so no share of it can be named"
    return _no_gain(_share(card), card, ask.diagnosis)


def _share(card: DeviceFacts) -> int | None:
    """Give what the others leave of a card, less what CUDA needs beside TensorFlow's pool; None where unknown."""
    held = held_by_others(card)
    if held is None or card.total is None:
        return None
    return max(card.total - held - LEFT_TO_CUDA, 0) // _STEP * _STEP


def _no_gain(share: int | None, card: DeviceFacts, diagnosis: Diagnosis | None) -> str:
    if share is None or diagnosis is None:
        return ""
    if not share:
        return "the other processes leave nothing to share"
    if card.growth is False and diagnosis.limit is not None and diagnosis.limit >= share:
        return f"TensorFlow holds {size(diagnosis.limit)} of {card.name} now, and the others leave no more"
    if diagnosis.requested is None or diagnosis.in_use is None:
        return ""
    needed = diagnosis.in_use + diagnosis.requested
    if share < needed:
        return f"the other processes leave {size(share)}, and the cell needs {size(needed)} or more"
    return ""


def _example(
    name: str,
    expect: str,
    *others: ProcessFacts,
    known: bool = True,
    logical: bool = False,
    device: str = "GPU:0",
    cause: Cause = "other-process",
    in_use: int = 8 * GIB,
    limit: int = 8 * GIB,
    earlier: tuple[str, ...] = (),
    environment: tuple[tuple[str, str], ...] = (),
) -> Example:
    card = DeviceFacts(
        "GPU:0",
        compute_capability=(8, 0),
        growth=False,
        total=24 * GIB,
        others=others if known else None,
        logical=logical,
    )
    facts = Facts(
        "2.21.0",
        initialised=True,
        devices=(card, DeviceFacts("CPU:0", "CPU")),
        earlier_cells=earlier,
        environment=environment,
    )
    cell = Cell(_FIT)
    diagnosis = Diagnosis(device, requested=GIB, in_use=in_use, limit=limit, cause=cause)
    return Example(
        name, Context(cell, Recording(cell, status="oom", facts=facts), diagnosis), expect, declined=expect != _FIT
    )


_FIT = "%%tfmem\nmodel.fit(x, y)\n"
_OTHER = ProcessFacts(4121, "alice", 8 * GIB)

EXAMPLES: tuple[Example, ...] = (
    _example("another process holds a third of the card: restart, same cell", _FIT, _OTHER),
    _example("two other processes", _FIT, _OTHER, ProcessFacts(4122, None, 4 * GIB)),
    _example("the others leave too little", "leave 7.0 GiB", _OTHER, _OTHER, limit=4 * GIB),
    _example("TensorFlow holds all that is left", "leave no more", _OTHER, in_use=4 * GIB, limit=15 * GIB),
    _example("the others leave nothing", "leave nothing", ProcessFacts(1, None, 23 * GIB), in_use=0),
    _example("nobody else uses the card", "nobody else", cause="too-big"),
    _example("a desktop is not worth a limit", "nobody else", ProcessFacts(9, "alice", 4 * MIB)),
    _example("who uses the card is hidden", "not known here", known=False),
    _example("a process hides its bytes", "not every process tells", ProcessFacts(1)),
    _example("a limit is there already", "set up already", _OTHER, logical=True),
    _example(
        "the notebook grows its pool",
        "memory growth",
        _OTHER,
        earlier=("tf.config.experimental.set_memory_growth(gpus[0], True)",),
    ),
    _example(
        "the environment asks for growth", "memory growth", _OTHER, environment=(("TF_FORCE_GPU_ALLOW_GROWTH", "true"),)
    ),
    _example(
        "the notebook chooses its cards", "itself", _OTHER, earlier=("tf.config.set_visible_devices(gpus[1:], 'GPU')",)
    ),
    _example("the CPU ran out", "CPU:0 that ran out", _OTHER, device="CPU:0"),
)
