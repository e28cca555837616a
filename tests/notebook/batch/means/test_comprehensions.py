"""Loops over batches that are written as comprehensions."""

from __future__ import annotations

import pytest

from tests.notebook.batch.means.runs import asked, same
from tf_mem_magic.notebook.batch.found import BatchFound, set_batch

WHOLE = [
    "losses = [step(x, y) for x, y in train]\ntell(np.mean(losses))",
    "tell(np.mean([step(x, y) for x, y in train]))",
    "tell(np.mean([step(*pair) for pair in train]))",
    "losses = list(step(x, y) for x, y in train)\ntell(np.mean(losses))",
    "for epoch in range(2):\n    losses = [step(x, y) for x, y in train]\n    tell(np.mean(losses))",
    "def run(data):\n    return np.mean([step(x, y) for x, y in train])\ntell(run(train))",
]
ADDED = [
    "tell(sum([step(x, y) for x, y in train]) / len(train))",
    "total = sum(step(x, y) for x, y in train)\ntell(total / 100)",
    "losses = [step(x, y) for x, y in train]\ntell(losses[50])",
    "losses = [step(x, y) for x, y in train]\ntell(sum(losses))",
]


@pytest.mark.parametrize("source", WHOLE)
def test_a_comprehension_over_batches_is_a_loop_over_them(source):
    after, _ = same(source)
    assert "in train.rebatch(32)" in after


@pytest.mark.parametrize("source", ADDED)
def test_what_a_comprehension_gives_is_not_added_up_anew(source):
    found = asked(source)
    assert not isinstance(found, BatchFound), set_batch(found, 32)[0]
    assert "give is added up there, and there would be more of them" in found.reason


@pytest.mark.parametrize("source", ["names = [step(n) for n in range(3)]", "sizes = [step(p) for p in paths]"])
def test_a_comprehension_over_something_else_is_none_over_batches(source):
    found = asked(source)
    assert not isinstance(found, BatchFound)
    assert "comprehension" not in found.reason
