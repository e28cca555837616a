"""Rematerialize: compute what a repeated block holds again in the backward pass, and do not keep it until then."""

from __future__ import annotations

import ast
import difflib

from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.facts import Facts, ModelFacts
from tf_mem_magic.core.proposals import Choice, Context, Example, Proposal, RefusedError
from tf_mem_magic.core.recording import Cell, Recording
from tf_mem_magic.notebook.text.cell import PythonCell
from tf_mem_magic.notebook.text.edits import IMPORT, Editor
from tf_mem_magic.notebook.training import TrainingPlace
from tf_mem_magic.notebook.uses import called_name
from tf_mem_magic.remedies._engine.guards import device_memory, keras_since, no_strategy, python, smaller_than_device
from tf_mem_magic.remedies._engine.question import INFERENCE, TRAINING, Ask, remedy
from tf_mem_magic.remedies.rematerialize.blocks import Block, find_blocks
from tf_mem_magic.remedies.rematerialize.function_blocks import find_function_blocks
from tf_mem_magic.remedies.rematerialize.share import ALL, share_of
from tf_mem_magic.remedies.rematerialize.structure import Structure
from tf_mem_magic.remedies.rematerialize.tapes import tapes_of

KEY = "rematerialize"
TITLE = "Rematerialize"
IN_HELPERS = True
"""The blocks may be functions of earlier cells: those of a model that this cell builds are defined anew in it."""

GUARDS = (
    device_memory.saying("the computer's own memory ran out, not the memory that training steps use"),
    smaller_than_device,
    keras_since(3, 12),
    python,
)

_WHY = "Only what goes into each block is kept until then."
_CAVEATS = (
    "A step takes longer: each block is computed twice.",
    "Dropout draws the same numbers in both passes, and BatchNormalization updates its statistics once a step.",
    "A block for which computing twice is not exact is called as it was, with a warning that says why.",
    "Measured on the CPU: the same weights bit by bit, or but for rounding; not measured on a GPU.",
)
_PART = (
    "{share.first} of {share.of} are expected to be enough, which makes a step longer by less; the others keep what "
    "they compute."
)
_IN_16_BITS = ("In 16 bits TensorFlow rounds another graph otherwise, so the weights may end a little apart.",)
_ONE_LAYER = (
    "What the function adds becomes one inner model each time: the summary shows it as one layer, "
    "and weights saved before do not load by layer.",
    "A saved model loads without this package; loaded or copied, it is an ordinary model that is not rematerialized.",
)


@remedy(KEY, TITLE, GUARDS)
def propose(ask: Ask) -> Proposal:
    """Offer it where the cell defines the blocks of the model that it builds, and computing them twice is exact."""
    _check_training(ask)
    place, structure = ask.place, Structure(ask.notebook)
    blocks = _blocks(ask.cell.tree, structure, place)
    if not blocks:
        raise _elsewhere(structure, place)
    safe = [block for block in blocks if not block.reason]
    if not safe:
        raise RefusedError(blocks[0].reason)
    if place.facts is not None and not place.facts.is_new:
        raise RefusedError(f"`{place.facts.name}` was built before this cell, with the blocks as they were then")
    loads = {n.id for n in ask.cell.nodes if isinstance(n, ast.Name)}
    if not all(block.name in loads for block in safe):
        raise RefusedError(f"the cell defines `{safe[0].name}`, but does not plainly build a model of it")
    in_16_bits = place.facts is not None and place.facts.dtype_policy.startswith("mixed")
    share = share_of(ask, structure, safe)
    what = " and ".join(block.name for block in safe)
    every = _edited(ask.cell, safe)
    return Proposal(
        key=KEY,
        title=f"Compute {share.words(what)} again in the backward pass",
        source=_edited(ask.cell, safe, share.decorator) if share.is_part else every,
        original=ask.source,
        preserves="close numerics" if in_16_bits else "same results",
        caveats=(
            *((_PART.format(share=share, what=what),) if share.is_part else ()),
            *_CAVEATS,
            *(_IN_16_BITS if in_16_bits else ()),
            *(_ONE_LAYER if any(b.call is b.definition for b in safe) else ()),
            *(f"`{b.name}` stays as it is: {b.reason}." for b in blocks if b.reason),
        ),
        why=_WHY,
        cost="longer steps",
        choices=(Choice(f"All {share.of}", every, "needs the least memory"),) if share.is_part else (),
        effect=share.effect,
    )


def _check_training(ask: Ask) -> None:
    no_strategy(ask)
    tapes = tapes_of(ask)
    if len(tapes) > 1:
        raise RefusedError("the training records on more than one GradientTape, with which it was not tested")
    if any(k.arg == "persistent" for tape in tapes for k in tape.keywords):
        raise RefusedError("the GradientTape is persistent, and each of its gradients would compute the blocks again")
    if {called_name(c) for c in ask.failing} & INFERENCE:
        raise RefusedError("it ran out of memory outside training, where nothing is kept for a backward pass")
    if not {called_name(c) for c in ask.cell.calls} & TRAINING and not tapes:
        if ask.gradients or any(_trains(ask, call) for call in ask.cell.calls):
            raise RefusedError("the training is in a function of another cell, where this does not follow it")
        if any(f.is_user and not f.in_cell for error in ask.recording.errors for f in error.frames):
            raise RefusedError("what ran out lies in code outside this cell, where this does not follow it")
        raise RefusedError("the cell does not train, and only training keeps results for a backward pass")


def _trains(ask: Ask, call: ast.Call) -> bool:
    """Whether what is called is a function of the notebook that trains by Keras."""
    function = ask.notebook.function(called_name(call)) if isinstance(call.func, ast.Name) else None
    nodes = ast.walk(function.node) if function is not None else ()
    return any(isinstance(node, ast.Call) and called_name(node) in TRAINING for node in nodes)


def _blocks(tree: ast.Module, structure: Structure, place: TrainingPlace) -> list[Block]:
    """List the blocks of the model that is trained; layer classes that it does not hold are left out where known."""
    layers = place.facts.layers if place.facts is not None else ()
    return [*find_blocks(tree, structure, layers), *find_function_blocks(tree, structure)]


def _elsewhere(structure: Structure, place: TrainingPlace) -> RefusedError:
    """Say why no block of the cell can be changed, with a patch where an earlier cell defines one."""
    layers = place.facts.layers if place.facts is not None else ()
    for cell in structure.cells_with_blocks(layers):
        blocks = _blocks(cell.tree, structure, place)
        safe = [block for block in blocks if not block.reason]
        if safe:
            before, after = cell.source.splitlines(), _edited(cell, safe).splitlines()
            patch = "\n".join(difflib.unified_diff(before, after, "earlier cell", "changed", lineterm="", n=2))
            return RefusedError(
                f"the block `{safe[0].name}` is defined in an earlier cell: change it there, run that cell, "
                "and build the model again",
                patch,
            )
        if blocks:
            return RefusedError(blocks[0].reason)
    return RefusedError("the model is not made of a repeated layer class or function that the notebook defines")


def _edited(cell: PythonCell, blocks: list[Block], decorator: str = ALL) -> str:
    stored = {n.id for n in cell.nodes if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)}
    if "apply" in stored | {n.name for n in cell.nodes if isinstance(n, (ast.FunctionDef, ast.ClassDef))}:
        raise RefusedError("the cell uses the name `apply` for something of its own")
    first = min((block.definition for block in blocks), key=lambda definition: definition.lineno)
    missing = IMPORT not in cell.source.splitlines()
    editor = Editor(cell)
    if missing and all(block.call is not first for block in blocks):
        editor.before(first, IMPORT)
    for block in blocks:
        editor.before(block.call, decorator, apply=missing and block.call is first)
    return editor.source()


_BLOCK = """class Block(keras.layers.Layer):
    def __init__(self):
        super().__init__()
        self.inner = keras.layers.Dense(512, "gelu")
        self.outer = keras.layers.Dense(64)
{0}
{1}    def call(self, x):
        return x + self.outer(self.inner(x))
"""
_NOISY = "        self.drop = keras.layers.Dropout(0.1); self.norm = keras.layers.BatchNormalization()\n"
_REST = """
h = inputs = keras.Input((128, 64))
for _ in range(6):
    h = Block()(h)
model = keras.Model(inputs, keras.layers.Dense(1)(h))
model.compile("adam", "mse")
model.fit(x, y)
"""
_FUNCTION = """{0}def block(x, rate=0.1):
    y = keras.layers.Dropout(rate)(keras.layers.Dense(512, "gelu")(x))
    y = keras.layers.BatchNormalization()(keras.layers.Dense(64)(y))
    return x + y
"""
_LOOP = _REST.replace("Block()(h)", "block(h)")
_CELL = "%%tfmem\n" + _BLOCK.format("", "") + _REST
_NEW = ModelFacts("model", ("Block", "Dense"))


def _known(
    source: str, *earlier: str, model: ModelFacts = _NEW, keras: str = "3.15.1", device: str = "GPU:0"
) -> Context:
    cell = Cell(source)
    facts = Facts("2.21.0", keras, True, models=(model,), earlier_cells=("import keras", *earlier))
    diagnosis = Diagnosis(device, line=len(source.splitlines()))
    return Context(cell, Recording(cell, status="oom", facts=facts), diagnosis)


EXAMPLES: tuple[Example, ...] = (
    Example(
        "blocks that the cell defines",
        _known(_CELL),
        "%%tfmem\nfrom tf_mem_magic import apply\n" + _BLOCK.format("", "    @apply.rematerialize\n") + _REST,
    ),
    Example(
        "dropout and batch normalization in the block",
        _known("%%tfmem\n" + _BLOCK.format(_NOISY, "") + _REST),
        "%%tfmem\nfrom tf_mem_magic import apply\n" + _BLOCK.format(_NOISY, "    @apply.rematerialize\n") + _REST,
    ),
    Example(
        "functions that the cell defines",
        _known("%%tfmem\n" + _FUNCTION.format("") + _LOOP),
        "%%tfmem\nfrom tf_mem_magic import apply\n" + _FUNCTION.format("@apply.rematerialize\n") + _LOOP,
    ),
    Example(
        "a function that gives back two tensors",
        _known("%%tfmem\n" + _FUNCTION.format("").replace("return x + y", "return x, y") + _LOOP),
        "does not give back one tensor",
        declined=True,
    ),
    Example(
        "a recurrent layer in the block",
        _known("%%tfmem\n" + _BLOCK.format("        self.read = keras.layers.LSTM(64)", "") + _REST),
        "a recurrent layer",
        declined=True,
    ),
    Example(
        "blocks of an earlier cell", _known(_REST, _BLOCK.format("", "")), "defined in an earlier cell", declined=True
    ),
    Example(
        "a model of an earlier cell",
        _known(_CELL, model=ModelFacts("model", ("Block",), steps_before=0)),
        "was built before this cell",
        declined=True,
    ),
    Example(
        "layers of Keras only",
        _known(
            "model = keras.Sequential([keras.layers.Dense(1)])\nmodel.fit(x, y)", model=ModelFacts("model", ("Dense",))
        ),
        "not made of a repeated layer class",
        declined=True,
    ),
    Example("an older Keras", _known(_CELL, keras="3.3.3"), "tested with Keras 3.12", declined=True),
    Example("host memory ran out", _known(_CELL, device="host"), "the computer's own memory", declined=True),
)
