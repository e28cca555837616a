"""Data sets that a function of the cell gives several at once: each is followed to where it is batched."""

import pytest

from tf_mem_magic.core.facts import Facts, ModelFacts, ScalarFact
from tf_mem_magic.notebook.batch.found import BatchFound, set_batch
from tf_mem_magic.notebook.batch.search import find_batch
from tf_mem_magic.notebook.text.cell import PythonCell, read_cell

DATA = "tf.data.Dataset.from_tensor_slices"
FACTS = Facts(models=(ModelFacts("model"),), scalars=(ScalarFact("SIZE", 64),))


def halved(source):
    """Give the cell with half the batch; the notes of the edit too."""
    cell = read_cell(source)
    assert isinstance(cell, PythonCell)
    found = find_batch(cell, FACTS, frozenset({source[: source.index("model.fit")].count("\n") + 1}))
    assert isinstance(found, BatchFound), found
    return set_batch(found, 32)[0], (*found.notes, *found.validation_notes)


def load(train="64", test="64", head="", given="train, test"):
    return (
        f"def load({head}):\n    train = {DATA}((x, y)).shuffle(9).batch({train})\n"
        f"    test = {DATA}((a, b)).batch({test})\n    return {given}\n"
    )


@pytest.mark.parametrize(
    ("source", "old", "new"),
    [
        (load("SIZE", "SIZE") + "train, test = load()\n{fit}SIZE = 64", "SIZE = 64", "SIZE = 32"),
        ("SIZE = 64\n" + load("SIZE", "SIZE") + "tr, te = load()\n{fit}", "SIZE = 64", "SIZE = 32"),
        (load("n", "n", "n") + "tr, te = load(64)\n{fit}", "load(64)", "load(32)"),
        (load("n", "n", "n=64") + "[tr, te] = load()\n{fit}", "n=64", "n=32"),
        (load("n", "n", "n", "[train, test]") + "tr, te = load(n=64)\n{fit}", "n=64", "n=32"),
    ],
)
def test_the_number_is_changed_where_all_of_them_read_it(source, old, new):
    names = "train, validation_data=test" if "train, test = load" in source else "tr, validation_data=te"
    late = source.endswith("SIZE = 64")
    fit = f"def go():\n    model.fit({names})\n" if late else f"model.fit({names})\n"
    source = source.format(fit=fit) + ("\ngo()" if late else "")
    if late:
        source = source.replace("train, test = load()\n", "").replace(
            "def go():\n", "def go():\n    train, test = load()\n"
        )
    after, notes = halved(source)
    assert after == source.replace(old, new)
    assert notes == ()


def test_each_of_them_may_have_a_size_of_its_own():
    after, _ = halved(load("64", "16") + "tr, te = load()\nmodel.fit(tr, validation_data=te)")
    assert after == load("32", "16") + "tr, te = load()\nmodel.fit(tr, validation_data=te)"


@pytest.mark.parametrize("given", ["(train, test), 3", "*both, test", "make()", "train, test, 3"])
def test_what_is_given_otherwise_is_not_guessed(given):
    cell = read_cell(load("64", "64", "", given) + "tr, te = load()\nmodel.fit(tr, validation_data=te)")
    assert isinstance(cell, PythonCell)
    found = find_batch(cell, FACTS, frozenset({6}))
    assert not isinstance(found, BatchFound)
