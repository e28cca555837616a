"""Distribute: each batch is divided among several GPUs, and the model is kept on all of them."""

from __future__ import annotations

import ast

from tf_mem_magic.core.diagnosis import Cause, Diagnosis
from tf_mem_magic.core.facts import BatchSeen, DeviceFacts, Facts, ModelFacts, ProcessFacts
from tf_mem_magic.core.proposals import Context, Declined, Example, Proposal, RefusedError
from tf_mem_magic.core.recording import Cell, Recording
from tf_mem_magic.core.units import GIB
from tf_mem_magic.diagnose.situation_keys import CREATES
from tf_mem_magic.notebook.building import find_building
from tf_mem_magic.notebook.origins import tensorflow_name
from tf_mem_magic.remedies._engine.cards import find_card, is_cuda, is_occupied, list_cards
from tf_mem_magic.remedies._engine.in_code import in_code
from tf_mem_magic.remedies._engine.question import Ask, remedy

KEY = "distribute"
TITLE = "Several GPUs"

_NOT_CERTAIN = (
    (in_code(r"\b\w*Strategy\("), ("Strategy(",), "the notebook uses a distribution strategy itself"),
    (
        in_code(r"\bGradientTape\b|def train_step\b"),
        ("GradientTape", "train_step"),
        "it trains with a step of its own, which a strategy must be told about",
    ),
    (
        in_code(r"\btf\.device\(|\bset_visible_devices\b"),
        ("tf.device(", "set_visible_devices"),
        "the notebook places its work on devices itself",
    ),
    (
        in_code(r"\brun_eagerly\b|\breduction\s*="),
        ("run_eagerly", "reduction"),
        "it sets how steps run or losses are added up, which a strategy changes",
    ),
)
"""What makes it uncertain: a pattern, the words of which one must stand in a text that has it, and the reason."""
_WHY = "Each card computes a part of every batch, so it holds a part of the activations; the gradients are added up."


@remedy(KEY, TITLE)
def propose(ask: Ask) -> Proposal | Declined:
    """Offer the free cards, where the cell builds its model by statements that can surely be moved into a scope."""
    cards, unknown = _free_cards(ask)
    proposal = _proposal(ask, cards)
    return Declined(KEY, TITLE, f"who else uses {unknown} is not known here", "", proposal) if unknown else proposal


def _free_cards(ask: Ask) -> tuple[list[DeviceFacts], str]:
    """List the cards that may be used, the one that ran out first; name one of which it is not known who uses it."""
    card = find_card(ask)
    cards = [card, *(one for one in list_cards(ask.facts) if one.name != card.name)]
    if len(cards) < 2:
        raise RefusedError("TensorFlow sees only this GPU")
    if any(one.logical or not is_cuda(one) for one in cards):
        raise RefusedError("not every GPU is a whole NVIDIA card of its own")
    if is_occupied(card):
        raise RefusedError(f"another process uses {card.name}")
    free = [one for one in cards if not is_occupied(one)]
    if len(free) < 2:
        raise RefusedError("the other cards are in use by other processes")
    return free, next((one.name for one in free if is_occupied(one) is None), "")


def _proposal(ask: Ask, cards: list[DeviceFacts]) -> Proposal:
    diagnosis = ask.diagnosis
    if diagnosis is not None and diagnosis.cause == "leftovers":
        raise RefusedError("what is left over fills the card, and it would still be there")
    if any(f.function in CREATES for e in ask.recording.errors for f in e.frames):
        raise RefusedError("it ran out while weights were made, and every card holds all of them")
    for pattern, words, reason in _NOT_CERTAIN:
        if ask.notebook.matches(pattern, *words):
            raise RefusedError(reason)
    batch, count = _share(ask.facts, len(cards))
    source, model = _scoped(ask, sorted(one.name for one in cards[:count]))
    return Proposal(
        key=KEY,
        title=f"Divide each batch of {batch} among {count} GPUs",
        source=source,
        original=ask.source,
        preserves="same effective batch",
        caveats=_caveats(model, ask.source, count),
        why=_WHY,
        expects=(("batch", batch),),
        excludes=("other-gpu", "device-limit"),
    )


def _share(facts: Facts, most: int) -> tuple[int, int]:
    """Choose the number of cards by which the batch can be divided without a rest: Keras needs equal parts."""
    seen = [one for one in facts.batches if one.method == "fit"]
    if len({one.batch for one in seen}) != 1:
        raise RefusedError("the batch size that Keras uses was not seen")
    if any(one.source not in ("arrays", "tf.data") for one in seen):
        raise RefusedError("the data come from Python code, which a strategy cannot divide for sure")
    batch = seen[0].batch
    count = next((n for n in range(most, 1, -1) if batch % n == 0), None)
    if count is None:
        raise RefusedError(f"a batch of {batch} cannot be divided among {most} cards in equal parts")
    return batch, count


def _scoped(ask: Ask, devices: list[str]) -> tuple[str, ModelFacts | None]:
    place, names = ask.place, ask.names
    if (
        not place.by_keras
        or f"{place.model}.fit" not in ast.unparse(place.statement)
        or place.top is not place.statement
    ):
        raise RefusedError("it was not a plain call of fit that ran out of memory")
    building = find_building(names, ask.facts, place.model, place.top)
    if isinstance(building, str):
        raise RefusedError(building)
    found = tensorflow_name(names, building.first)
    if found is None:
        raise RefusedError("what `tf` means in this cell is not certain")
    tf, lines = found
    name = ask.notebook.free_name("strategy", "_strategy", "_tfmem_strategy")
    listed = ", ".join(f'"{device}"' for device in devices)
    # By default the cards add up by collectives, which fail in a kernel where a model of other shapes used them before.
    sums = f"{tf}.distribute.ReductionToOneDevice()"
    lines.append(f"{name} = {tf}.distribute.MirroredStrategy([{listed}], cross_device_ops={sums})")
    return ask.edit().around(building.first, building.last, f"with {name}.scope():", *lines), place.facts


def _caveats(model: ModelFacts | None, source: str, count: int) -> tuple[str, ...]:
    layers = set(model.layers) if model is not None else set()
    caveats = [
        "Gradients are added up on one card and copied back, which slows each step down a little.",
        "Each card holds all weights and the optimizer's state: only activations are divided.",
        f"A last batch that does not divide by {count} counts unequal parts equally: results differ a little there.",
    ]
    if "BatchNormalization" in layers or (not layers and "BatchNormalization" in source):
        caveats.append("BatchNormalization computes its statistics from each card's part of the batch.")
    if any("Dropout" in layer or "Random" in layer for layer in layers) or (not layers and "Dropout" in source):
        caveats.append("Dropout and random layers draw other numbers on each card.")
    return tuple(caveats)


def _example(
    name: str,
    expect: str = "",
    source: str = "",
    cards: tuple[DeviceFacts, ...] = (),
    batch: int | None = 64,
    kind: str = "arrays",
    cause: Cause = "too-big",
    earlier: tuple[str, ...] = ("import keras",),
) -> Example:
    facts = Facts(
        "2.21.0",
        "3.15.1",
        initialised=True,
        models=(ModelFacts("model", ("Dense",), weight_bytes=100),),
        devices=cards or (_card(0), _card(1)),
        batches=() if batch is None else (BatchSeen("fit", batch, kind),),
        earlier_cells=earlier,
    )
    cell = Cell(source or _FIT)
    line = next(n for n, text in enumerate(cell.source.splitlines(), 1) if ".fit(" in text or "tape" in text)
    context = Context(cell, Recording(cell, status="oom", facts=facts), Diagnosis("GPU:0", line=line, cause=cause))
    return Example(name, context, expect or _SCOPED, declined=bool(expect) and "MirroredStrategy" not in expect)


def _card(index: int, *held: int, capability: tuple[int, int] | None = (8, 0), known: bool = True) -> DeviceFacts:
    others = tuple(ProcessFacts(4121, "alice", used) for used in held)
    return DeviceFacts(f"GPU:{index}", compute_capability=capability, total=24 * GIB, others=others if known else None)


_FIT = """%%tfmem
model = keras.Sequential([keras.layers.Dense(64), keras.layers.Dense(10)])
model.compile("adam", "mse")
model.fit(x, y, batch_size=64)
"""
_SCOPED = """%%tfmem
import tensorflow as tf
strategy = tf.distribute.MirroredStrategy(["GPU:0", "GPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice())
with strategy.scope():
    model = keras.Sequential([keras.layers.Dense(64), keras.layers.Dense(10)])
    model.compile("adam", "mse")
model.fit(x, y, batch_size=64)
"""
_TF = ("import tensorflow as tf\nimport keras",)

EXAMPLES: tuple[Example, ...] = (
    _example("two free cards"),
    _example(
        "what builds the model's variables is in the scope too",
        _SCOPED.replace("model.fit", "    model.build((None, 8))\nmodel.fit"),
        _FIT.replace("model.fit", "model.build((None, 8))\nmodel.fit"),
    ),
    _example("TensorFlow is imported", _SCOPED.replace("import tensorflow as tf\n", ""), earlier=_TF),
    _example("three cards, the batch divides by two", cards=(_card(0), _card(1), _card(2))),
    _example("the third card is occupied", cards=(_card(0), _card(1), _card(2, 8 * GIB))),
    _example(
        "an optimizer made before the model is made in the scope too",
        'import tensorflow as tf\nstrategy = tf.distribute.MirroredStrategy(["GPU:0", "GPU:1"], '
        "cross_device_ops=tf.distribute.ReductionToOneDevice())\n"
        "with strategy.scope():\n"
        "    opt = keras.optimizers.SGD(0.1)\n    # the model\n    model = keras.Sequential([\n"
        "        keras.layers.Dense(64),\n    ])\n\n    model.compile(opt, 'mse')\nmodel.fit(x, y)",
        "opt = keras.optimizers.SGD(0.1)\n# the model\nmodel = keras.Sequential([\n    keras.layers.Dense(64),\n])\n\n"
        "model.compile(opt, 'mse')\nmodel.fit(x, y)",
    ),
    _example("the other card is occupied", "in use by other", cards=(_card(0), _card(1, 8 * GIB))),
    _example("this card is occupied", "another process uses GPU:0", cards=(_card(0, 8 * GIB), _card(1))),
    _example("who uses them is hidden", "not known", cards=(_card(0), _card(1, known=False))),
    _example("one card", "only this GPU", cards=(_card(0),)),
    _example("no card", "no GPU", cards=(DeviceFacts("CPU:0", "CPU"),)),
    _example("a plug-in's card", "NVIDIA", cards=(_card(0), _card(1, capability=None))),
    _example("an odd batch", "cannot be divided", batch=33),
    _example("a batch that was not seen", "not seen", batch=None),
    _example("a generator", "Python code", kind="generator"),
    _example("leftovers", "left over fills", cause="leftovers"),
    _example("a model of an earlier cell", "earlier cell", "%%tfmem\nmodel.fit(x, y)\n"),
    _example(
        "layers of an earlier cell",
        "made outside",
        _FIT.replace("keras.layers.Dense(64)", "encoder"),
        earlier=("import keras\nencoder = keras.layers.Dense(64)",),
    ),
    _example("an own loop", "step of its own", "%%tfmem\nwith tf.GradientTape() as tape:\n    loss = model(x)\n"),
    _example("a strategy already", "itself", _SCOPED),
    _example(
        "a text over several lines",
        "would not stay the same",
        _FIT.replace("model.compile", 'note = """a\nb"""\nmodel.compile'),
    ),
)
