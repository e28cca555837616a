"""How many blocks are computed again, and which layers they have."""

from __future__ import annotations

import ast
from dataclasses import replace

import pytest

from tests.diagnose.test_expected import BATCH, failed
from tests.memory.steps import Maker, dense_stack, in_blocks
from tf_mem_magic.core.facts import ModelFacts
from tf_mem_magic.core.proposals import Context, Proposal
from tf_mem_magic.core.recording import Cell
from tf_mem_magic.core.step import StepFacts, pack
from tf_mem_magic.diagnose.cause import diagnose
from tf_mem_magic.notebook.model import read_notebook
from tf_mem_magic.remedies.rematerialize.blocks import Block
from tf_mem_magic.remedies.rematerialize.instances import instances
from tf_mem_magic.remedies.rematerialize.remedy import propose
from tf_mem_magic.remedies.rematerialize.structure import Structure

MIB = 1 << 20
CELL = """class Block(keras.layers.Layer):
    def __init__(self):
        super().__init__()
        self.parts = [keras.layers.Dense(256, "relu") for _ in range(3)]
    def call(self, x):
        for part in self.parts:
            x = part(x)
        return x
h = inputs = keras.Input((256,))
for _ in range(4):
    h = Block()(h)
model = keras.Model(inputs, h)
model.compile("sgd", "mse")
model.fit(x, y)
"""
NAMES = tuple(f"block_{i}" for i in range(4))


def answer(limit, **step):
    recording, _ = failed(limit=limit, layers=NAMES, classes=("Block",) * 4, threads=2, **step)
    packed = pack([in_blocks(dense_stack(12, batch=BATCH), layers=3)])
    facts = replace(recording.facts, step=replace(recording.facts.step, packed=packed), keras="3.15.1")
    facts = replace(facts, models=(ModelFacts("model", ("Block",)),), earlier_cells=("import keras",))
    recording = replace(recording, cell=Cell(CELL), facts=facts)
    (proposal,) = propose(Context(recording.cell, recording, replace(diagnose(recording), line=CELL.count("\n"))))
    return proposal


def test_where_a_part_of_the_blocks_is_enough_it_is_the_fewest_and_all_are_a_choice():
    part = answer(24 * MIB)
    assert isinstance(part, Proposal), part
    assert part.title.endswith("of 4 Block again in the backward pass")
    assert part.estimate is None or part.estimate.high <= 24 * MIB
    assert f"@apply.rematerialize(first={len(part.effect.recompute)}, of=4)" in part.source
    assert part.effect.recompute == tuple((name,) for name in NAMES[: len(part.effect.recompute)])
    (every,) = part.choices
    assert "@apply.rematerialize\n" in every.source
    assert every.label == "All 4"


def test_with_less_memory_it_is_more_blocks_and_where_not_even_all_fit_all():
    counts = [len(answer(limit * MIB).effect.recompute) for limit in (30, 24, 20, 4)]
    assert counts == sorted(counts)
    assert counts[-1] == 4
    assert answer(4 * MIB).choices == ()


def test_where_the_layers_are_not_known_nothing_is_said_of_the_effect():
    recording, diagnosis = failed(limit=22 * MIB)
    facts = replace(recording.facts, keras="3.15.1", models=(ModelFacts("model", ("Block",)),))
    recording = replace(recording, cell=Cell("import keras\n" + CELL), facts=facts)
    (unknown,) = propose(Context(recording.cell, recording, replace(diagnosis, line=CELL.count("\n") + 1)))
    assert isinstance(unknown, Proposal)
    assert (unknown.effect, unknown.choices) == (None, ())


FUNCTION = """import keras
from keras import layers
{0}
def block(x, width=4):
{1}
h = keras.Input((4,))
for _ in range(2):
    h = block(h)
"""
LAYERS = (
    ("input_layer", "InputLayer"), ("dense", "Dense"), ("dropout", "Dropout"), ("add", "Add"),
    ("dense_1", "Dense"), ("dropout_1", "Dropout"), ("add_1", "Add"), ("dense_2", "Dense"),
)  # fmt: skip
TWICE = (("dense", "dropout", "add"), ("dense_1", "dropout_1", "add_1"))


def step_of(layers, ran=None):
    """A model of these layers whose step runs an operation of each of ``ran``; left out, of all."""
    made = Maker()
    for name in layers if ran is None else ran:
        made.op("MatMul", f"m_1/{name}_1/MatMul", kib=4)
    return StepFacts(layers=tuple(layers), classes=tuple(layers.values()), packed=pack([made.step()]))


def found(body, before="", **ran):
    source = FUNCTION.format(before, body)
    function = next(s for s in ast.parse(source).body if isinstance(s, ast.FunctionDef) and s.name == "block")
    return instances(Block(function, function), Structure(read_notebook(source)), step_of(dict(LAYERS), **ran))


@pytest.mark.parametrize(
    "body",
    [
        "    y = layers.Dense(width)(x)\n    y = layers.Dropout(0.1)(y)\n    return layers.Add()([x, y])",
        "    return layers.Add()([x, layers.Dropout(0.1)(layers.Dense(width)(x))])",
        "    y = keras.layers.Dense(width)(x)\n    return layers.add([x, layers.Dropout(0.1)(y)])",
    ],
)
def test_the_layers_of_a_function_follow_one_another_as_it_applies_them(body):
    assert found(body) == TWICE


def test_a_function_that_it_calls_is_followed():
    before = "def inner(x):\n    return layers.Dropout(0.1)(layers.Dense(4)(x))"
    assert found("    return layers.Add()([x, inner(x)])", before) == TWICE


@pytest.mark.parametrize(
    "body",
    [
        "    y = layers.Dense(width)(x)\n    if width > 3:\n        y = layers.Dropout(0.1)(y)\n    return layers.Add()([x, y])",
        "    for _ in range(1):\n        x = layers.Dense(width)(x)\n    return layers.Dropout(0.1)(x)",
        "    dense = layers.Dense(width)\n    return layers.Dropout(0.1)(dense(x))",
        "    return block(x)",
    ],
)
def test_what_depends_on_more_than_the_text_is_not_known(body):
    assert found(body) == ()


def test_a_layer_that_adds_no_operation_belongs_to_its_block():
    body = "    return layers.Add()([x, layers.Dropout(0.1)(layers.Dense(width)(x))])"
    assert found(body, ran=("dense", "add", "dense_1")) == TWICE


def test_the_layers_of_a_class_are_those_of_its_name():
    cell = ast.parse(CELL).body[0]
    layers = {"block": "Block", "dense": "Dense", "block_1": "Block"}
    block, structure = Block(cell, cell.body[1]), Structure(read_notebook(CELL))
    assert instances(block, structure, step_of(layers)) == (("block",), ("block_1",))
    assert instances(block, structure, None) == ()


def test_the_blocks_of_another_model_of_the_notebook_do_not_count():
    cell = ast.parse(CELL).body[0]
    step = step_of({f"block_{n}": "Block" for n in range(2, 8)}, ran=("block_5", "block_6", "block_7"))
    found = instances(Block(cell, cell.body[1]), Structure(read_notebook(CELL)), step)
    assert found == (("block_5",), ("block_6",), ("block_7",))
