"""What stands behind names is listed in the same order each time, so that an answer does not depend on the process."""

from __future__ import annotations

import ast
import itertools

from tf_mem_magic.core.facts import Facts
from tf_mem_magic.notebook.follow.behind import behind
from tf_mem_magic.notebook.follow.reader import Reader
from tf_mem_magic.notebook.text.cell import PythonCell, read_cell

EARLIER = ("bs = 64", "def prepare(x):\n    return x.batch(bs)", "class Net(Model):\n    size = bs", "val = prepare(1)")


def test_the_order_of_the_names_that_are_asked_for_does_not_matter():
    read = read_cell("model = Net()\nmodel.fit(val)")
    assert isinstance(read, PythonCell)
    reader = Reader(read, Facts(earlier_cells=EARLIER))
    orders = {
        tuple(ast.unparse(piece.statement) for piece in behind(reader, names))
        for names in itertools.permutations(["model", "val", "Net"])
    }
    assert len(orders) == 1
    assert "val = prepare(1)" in next(iter(orders))
