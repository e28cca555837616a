"""Pictures that a function draws of what it makes with the batch size: with fewer it would read past their end."""

from __future__ import annotations

import pytest

from tests.remedies.smaller_batch.test_remedy import ask
from tf_mem_magic.core.facts import Facts, ModelFacts, ScalarFact
from tf_mem_magic.core.proposals import Declined, Proposal

LOOP = """for turn in range(1000):
    noise = np.random.normal(size=(BATCH, 8))
    gan.train_on_batch(noise, np.ones(BATCH))
    if turn % 100 == 0:
        show(gen)
"""
SHOW = "def show(gen):\n    noise = np.random.normal(size=({}, 8))\n    out = gen.predict(noise)\n    {}\n"


def answer(source, line, *earlier):
    models = tuple(map(ModelFacts, ("gan", "gen")))
    texts = ("BATCH = 32", *earlier)
    return ask(source, Facts("2.21.0", models=models, scalars=(ScalarFact("BATCH", 32),), earlier_cells=texts), line)


READS = [
    ("BATCH * 2", "plot(out[random.randint(0, 63)])"),
    ("BATCH", "for i in range(25):\n        plot(out[i, :, :, 0])"),
    ("2 * BATCH", "i = np.random.randint(0, 60)\n    plot(out[i])"),
    ("BATCH", "plot(out[20])"),
]
STAYS = [
    ("BATCH * 2", "plot(out[random.randint(0, 31)])"),
    ("BATCH", "for i in range(16):\n        plot(out[i])"),
    ("64", "plot(out[63])"),
    ("BATCH", "plot(out[-1], other[25])"),
    ("BATCH + 32", "plot(out[40])"),
]


@pytest.mark.parametrize(("size", "draws"), READS)
def test_what_would_be_read_past_its_end_stops_the_edit(size, draws):
    function = SHOW.format(size, draws)
    for found in (answer(LOOP, 3, function), answer(function + LOOP, 3 + function.count("\n"))):
        assert isinstance(found, Declined), found.diff
        assert "it would fail" in found.reason


@pytest.mark.parametrize(("size", "draws"), STAYS)
def test_what_is_still_there_does_not(size, draws):
    found = answer(LOOP, 3, SHOW.format(size, draws))
    assert isinstance(found, Proposal), found.reason
