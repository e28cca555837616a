"""Memory growth: TensorFlow takes a card's memory as it needs it, not nearly all of it at the start."""

from __future__ import annotations

from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.facts import DeviceFacts, ProcessFacts
from tf_mem_magic.core.proposals import Declined, Example, Proposal, RefusedError
from tf_mem_magic.remedies._engine.cards import RESTARTS
from tf_mem_magic.remedies._engine.examples import FIT, example
from tf_mem_magic.remedies._engine.question import Ask, remedy

KEY = "memory-growth"
TITLE = "Memory growth"

_FORCE = "TF_FORCE_GPU_ALLOW_GROWTH"
_PROLOGUE = """\
import tensorflow as tf
for gpu in tf.config.list_physical_devices("GPU"):
    tf.config.experimental.set_memory_growth(gpu, True)
"""
"""The environment variable alone would do, but ``get_memory_growth`` does not show it."""

_WHY = (
    "TensorFlow takes nearly all free memory of a card when it starts. With growth it takes what it needs as it "
    "goes, so several processes can share the card."
)
_CAVEATS = (
    "It does not make the model smaller: it helps where memory is missing because it was divided when TensorFlow "
    "started.",
    "What the pool has taken it keeps until the kernel ends, and it may be more fragmented.",
)


@remedy(KEY, TITLE)
def propose(ask: Ask) -> Proposal | Declined:
    """Offer growth where the card is shared, or may be; under other settings where nobody else uses it."""
    cards = tuple(d for d in ask.facts.devices if d.kind == "GPU")
    reason = _refusal(cards, ask.diagnosis)
    if reason:
        raise RefusedError(reason)
    proposal = _restart(ask) if ask.facts.initialised else _insert(ask)
    if all(d.others == () for d in _meant(cards, ask.diagnosis)):
        alone = "nobody else uses this card, so TensorFlow may as well hold all of it"
        return Declined(KEY, TITLE, alone, "", proposal)
    return proposal


def _refusal(cards: tuple[DeviceFacts, ...], diagnosis: Diagnosis | None) -> str:
    if not cards:
        return "TensorFlow sees no GPU here"
    if diagnosis is not None and not diagnosis.device.startswith("GPU"):
        place = "the computer's own memory" if diagnosis.device == "host" else diagnosis.device
        return f"it was {place} that ran out, not a GPU"
    if any(d.logical for d in cards):
        return "a logical device with its own memory limit is set up, and TensorFlow does not combine the two"
    if all(d.growth for d in cards):
        return "memory growth is already on"
    return ""


def _meant(cards: tuple[DeviceFacts, ...], diagnosis: Diagnosis | None) -> tuple[DeviceFacts, ...]:
    named = tuple(d for d in cards if diagnosis is not None and d.name == diagnosis.device)
    return named or cards


def _restart(ask: Ask) -> Proposal:
    return Proposal(
        key=KEY,
        title="Restart with memory growth",
        source=ask.source,
        original=ask.source,
        preserves="same results",
        takes_effect="restart",
        caveats=(RESTARTS, *_CAVEATS),
        why=_WHY,
        environment=((_FORCE, "true"),),
        prologue=_PROLOGUE,
    )


def _insert(ask: Ask) -> Proposal:
    if "set_memory_growth(" in ask.cell.source:
        raise RefusedError("the cell sets memory growth itself")
    return Proposal(
        key=KEY,
        title=TITLE,
        source=ask.edit().on_top(*_lines(ask)).source(),
        original=ask.source,
        preserves="same results",
        caveats=_CAVEATS,
        why=_WHY,
    )


def _lines(ask: Ask) -> list[str]:
    name = ask.notebook.free_name("gpu", "_gpu", "_growing_gpu", "_tfmem_gpu")
    lines = _PROLOGUE.replace("gpu", name).splitlines()
    if dict(ask.facts.environment).get(_FORCE, "true").lower() != "true":
        lines = ["import os", f'os.environ["{_FORCE}"] = "true"', *lines]
    return lines


def _example(
    name: str,
    cell: str,
    expect: str,
    *devices: DeviceFacts,
    declined: bool = False,
    diagnosis: Diagnosis | None = None,
    **facts: object,
) -> Example:
    known = {"keras": None, "devices": devices, **facts}
    return example(name, cell, expect, declined=declined, diagnosis=diagnosis, recorded={}, **known)


_SHARED = DeviceFacts("GPU:0", growth=False, others=(ProcessFacts(4121, "alice", 9 << 30),))
_UNKNOWN = DeviceFacts("GPU:0", growth=False, others=None)
_ALONE = DeviceFacts("GPU:0", growth=False, others=())
_GROWS = DeviceFacts("GPU:0", growth=True)
_CPU = DeviceFacts("CPU:0", kind="CPU")
_LINES = _PROLOGUE + "model.fit(x, y)\n"

EXAMPLES: tuple[Example, ...] = (
    _example("another process holds the card, TensorFlow runs: restart, same cell", FIT, FIT, _CPU, _SHARED),
    _example("who else uses the card is unknown: restart, same cell", FIT, FIT, _UNKNOWN),
    _example(
        "TensorFlow has not set up its GPUs: at once, visibly", FIT, "%%tfmem\n" + _LINES, _SHARED, initialised=False
    ),
    _example(
        "future imports and comments stay first",
        "# train\nfrom __future__ import annotations\nmodel.fit(x, y)\n",
        "# train\nfrom __future__ import annotations\n" + _LINES,
        _UNKNOWN,
        initialised=False,
    ),
    _example(
        "the loop's name is in use",
        "for gpu in gpus:\n    train(gpu)\n",
        _PROLOGUE.replace("gpu", "_gpu") + "for gpu in gpus:\n    train(gpu)\n",
        _UNKNOWN,
        initialised=False,
    ),
    _example(
        "the environment forbids growth",
        "model.fit(x, y)\n",
        f'import os\nos.environ["{_FORCE}"] = "true"\n' + _LINES,
        _UNKNOWN,
        initialised=False,
        environment=((_FORCE, "false"),),
    ),
    _example("nobody else uses the card", FIT, "nobody else uses this card", _ALONE, declined=True),
    _example(
        "another card is shared, this one is not",
        FIT,
        "nobody else",
        _ALONE,
        DeviceFacts("GPU:1", others=None),
        declined=True,
        diagnosis=Diagnosis("GPU:0"),
    ),
    _example("no GPU", FIT, "no GPU", _CPU, declined=True),
    _example("growth is on", FIT, "already on", _GROWS, declined=True),
    _example(
        "a logical device has a limit", FIT, "does not combine", DeviceFacts("GPU:0", logical=True), declined=True
    ),
    _example("the CPU ran out", FIT, "CPU:0 that ran out", _SHARED, declined=True, diagnosis=Diagnosis("CPU:0")),
    _example("the host ran out", FIT, "own memory that ran out", _SHARED, declined=True, diagnosis=Diagnosis("host")),
    _example("not Python", "%%bash\nls\n", "not read as Python", _SHARED, initialised=False, declined=True),
)
