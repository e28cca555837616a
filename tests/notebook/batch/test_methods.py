"""A training in a method of the notebook's own class: its batch size is an argument, or an attribute of the object."""

from __future__ import annotations

import pytest

from tf_mem_magic.core.facts import BatchSeen, Facts
from tf_mem_magic.notebook.batch.found import BatchFound, set_batch
from tf_mem_magic.notebook.batch.search import find_batch
from tf_mem_magic.notebook.text.cell import read_cell

CLASS = """class Trainer:
    def __init__(self, net, size=64):
        self.net = net
        self.size = size

    def go(self, x, y, n{default}):
        return self.net.fit(x, y, batch_size={batch}, verbose=0{more})
"""


def found(cell, batch="n", default="", more="", seen=64, earlier=None):
    text = CLASS.format(batch=batch, default=default, more=more) if earlier is None else earlier
    facts = Facts("2.21.0", "3.15.1", True, batches=(BatchSeen("fit", seen, "arrays"),), earlier_cells=(text,))
    read = read_cell(cell)
    line = next(n for n, row in enumerate(cell.splitlines(), 1) if "go(" in row)
    return find_batch(read, facts, frozenset({line}))


def changed(cell, batch=32, **more):
    answer = found(cell, **more)
    assert isinstance(answer, BatchFound), answer
    return set_batch(answer, batch)[0]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("h = trainer.go(x, y, 64)", "h = trainer.go(x, y, 32)"),
        ("h = trainer.go(x, y=y, n=64)", "h = trainer.go(x, y=y, n=32)"),
        ("N = 64\nh = trainer.go(x, y, N)", "N = 32\nh = trainer.go(x, y, N)"),
    ],
)
def test_the_number_that_the_cell_gives_to_the_method_is_changed(before, after):
    assert changed(before) == after


def test_where_the_cell_gives_none_the_default_is_given_another_value():
    assert changed("trainer.go(x, y)", default="=64") == "trainer.go(x, y, n=32)"


def test_an_attribute_of_the_object_is_set_before_and_set_back_by_undo():
    answer = found("trainer.go(x, y)", batch="self.size", default="=0")
    assert isinstance(answer, BatchFound)
    assert set_batch(answer, 32)[0] == "trainer.size = 32\ntrainer.go(x, y)"
    assert answer.undo == ("trainer.size = 64",)


@pytest.mark.parametrize(
    ("cell", "more"),
    [
        ("trainer.go(x, y, 64)", {"seen": 48}),
        ("trainer.go(x, y, 64)", {"batch": "n // 2"}),
        ("trainer.go(x, y, 64)", {"more": ", steps_per_epoch=3"}),
        ("trainer.go(x, y, 64)", {"earlier": CLASS.format(batch="n", default="", more="") * 2}),
        ("trainer.go(x, y, 64)", {"earlier": "class Trainer(Base):\n    pass\n"}),
        ("trainer.go(*data)", {}),
        ("trainer.go(x, y, size())", {}),
        ("trainer = make(); trainer.go(x, y)", {"batch": "self.size", "default": "=0"}),
        ("trainer.go(x, y)", {"batch": "self.other", "default": "=0"}),
        (
            "trainer.go(x, y, 64)",
            {
                "earlier": CLASS.format(batch="n", default="", more="").replace(
                    "        return", "        n = n - 1\n        return"
                )
            },
        ),
    ],
)
def test_what_is_not_certain_is_refused(cell, more):
    assert not isinstance(found(cell, **more), BatchFound)
