"""Generators that other libraries make by a method of Keras's name are no Keras generators."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tf_mem_magic.core.facts import DatasetFacts, Facts, ModelFacts
from tf_mem_magic.notebook.batch.found import BatchFound, set_batch
from tf_mem_magic.notebook.batch.search import find_batch
from tf_mem_magic.notebook.text.cell import PythonCell, read_cell

FACTS = Facts(models=(ModelFacts("model"),))
FIT = "model.fit({}, epochs=2)"


def found_in(cell, *earlier, facts=FACTS):
    """Find the batch of a cell in whose last line ``fit`` runs out of memory."""
    read = read_cell(cell)
    assert isinstance(read, PythonCell)
    line = cell[: cell.index("model.fit")].count("\n") + 1
    return read, find_batch(read, replace(facts, earlier_cells=earlier), frozenset({line}))


OTHERS = [
    pytest.param("", "g = NodeGenerator(graph)\n" + FIT.format("g.flow(ids, targets)"), id="in the call"),
    pytest.param("", "g = Links(graph, 50)\ntrain = g.flow(pairs, y, True)\n" + FIT.format("train"), id="by a name"),
    pytest.param("", FIT.format("mappers.Links(graph, 50).flow(pairs)"), id="made there"),
    pytest.param("g = mappers.Nodes(graph)", FIT.format("g.flow(ids)"), id="of an earlier cell"),
    pytest.param(
        "class Nodes:\n    def flow(self, ids):\n        return ids", FIT.format("Nodes().flow(ids)"), id="own"
    ),
    pytest.param(
        "", "def go(g):\n    model.fit(g.flow(ids), epochs=2)\ngo(Links(graph))", id="of a function's parameter"
    ),
]


@pytest.mark.parametrize(("earlier", "cell"), OTHERS)
def test_another_librarys_flow_is_given_no_batch_size(earlier, cell):
    _, found = found_in(cell, *([earlier] if earlier else []))
    assert not isinstance(found, BatchFound)
    assert "flow" in found.reason


KERAS = [
    ("g = ImageDataGenerator(rescale=2)", FIT.format("g.flow(x, y)"), "g.flow(x, y, batch_size=16)"),
    ("", FIT.format("tf.keras.preprocessing.image.ImageDataGenerator().flow(x, y)"), ".flow(x, y, batch_size=16)"),
    (
        "",
        "def made():\n    return ImageDataGenerator()\ng = made()\n" + FIT.format("g.flow(x, y, 32)"),
        "flow(x, y, 16)",
    ),
    ("class Mine(ImageDataGenerator):\n    pass", "g = Mine()\n" + FIT.format("g.flow(x)"), "g.flow(x, batch_size=16)"),
    (
        "from keras.preprocessing.image import ImageDataGenerator",
        "def go(g):\n    model.fit(g.flow(x, y))\ngo(ImageDataGenerator())",
        "g.flow(x, y, batch_size=16)",
    ),
    ("", "g = Texts()\n" + FIT.format("g.flow(ids, batch_size=32)"), "g.flow(ids, batch_size=16)"),
]


@pytest.mark.parametrize(("earlier", "cell", "written"), KERAS)
def test_keras_own_is_and_so_is_one_that_says_its_batch_size(earlier, cell, written):
    _, found = found_in(cell, *([earlier] if earlier else []))
    assert isinstance(found, BatchFound), found
    assert written in set_batch(found, 16)[0]


@pytest.mark.parametrize(
    ("maker", "offered"),
    [("ImageDataGenerator()", True), ("NodeGenerator(graph)", False), ("mappers.Links(graph, 32)", False)],
)
def test_only_a_generator_of_keras_gets_its_attribute_set(maker, offered):
    facts = replace(FACTS, datasets=(DatasetFacts("train", "PyDataset", batch=32),))
    _, found = found_in(FIT.format("train"), f"g = {maker}\ntrain = g.flow(ids, y)", facts=facts)
    assert isinstance(found, BatchFound) == offered
    if isinstance(found, BatchFound):
        assert "train.batch_size = 16" in set_batch(found, 16)[0]
