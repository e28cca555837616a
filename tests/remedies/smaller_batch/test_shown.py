"""A cell that reads nine samples of one batch by their numbers is given no batch of eight."""

import pytest

from tests.remedies.smaller_batch.test_remedy import ask
from tf_mem_magic.core.facts import BatchSeen, Facts, ModelFacts
from tf_mem_magic.core.proposals import Proposal

DATA = "data = load().batch(16)\n"
FIT = "model.fit(data, epochs=2)  # <-\n"
SHOWN = {
    "a loop over one batch": DATA
    + "for images, labels in data.take(1):\n    for i in range(9):\n        draw(images[i])\n"
    + FIT,
    "next": DATA + "some = next(iter(data))\n" + FIT + "for k in range(12):\n    draw(some.numpy()[k])\n",
    "a name": "SIZE, SHOWN = 16, 9\nn = 9\ndata = load().batch(SIZE)\nx, y = next(iter(data))\n"
    + FIT
    + "for i in range(n):\n    draw(x[i, :, :, 0], y[i])\n",
    "a default": "SIZE = 16\ndata = load().batch(SIZE)\nsome = next(iter(data))\n"
    "def show(model, batch, n=10):\n    for i in range(n):\n        draw(batch[i], model(batch)[i])\n"
    + FIT
    + "show(model, some)\n",
    "an argument": DATA
    + "def show(n, batch):\n    for i in range(n):\n        draw(batch[i])\n"
    + FIT
    + "pair = next(iter(data))\nshow(16, batch=pair)\n",
}
STAYS = {
    "as many as there are": SHOWN["a loop over one batch"].replace("range(9)", "range(len(images))"),
    "few": SHOWN["a loop over one batch"].replace("range(9)", "range(8)"),
    "more than there were": SHOWN["next"].replace("range(12)", "range(40)"),
    "until there are no more": SHOWN["next"].replace("    draw", "    if k >= len(some): break\n    draw"),
    "other data": SHOWN["next"].replace("iter(data)", "iter(test)"),
    "all at once": SHOWN["an argument"].replace("next(iter(data))", "load_all()"),
    "another number": SHOWN["a name"].replace("x[i, :, :, 0], y[i]", "x[0, i], names[i]"),
}


def answer(cell):
    line = next(n for n, text in enumerate(cell.splitlines(), 1) if "# <-" in text)
    facts = Facts(models=(ModelFacts("model"),), batches=(BatchSeen("fit", 16, "tf.data"),))
    return ask(cell, facts, line=line)


@pytest.mark.parametrize("name", SHOWN)
def test_samples_that_a_smaller_batch_has_not_stop_the_edit(name):
    declined = answer(SHOWN[name])
    assert not isinstance(declined, Proposal), declined.diff
    assert declined.reason.endswith("samples of one batch, and a batch of 8 has fewer: it would fail")


@pytest.mark.parametrize("name", STAYS)
def test_samples_that_it_has_or_that_are_others_do_not(name):
    offered = answer(STAYS[name])
    assert isinstance(offered, Proposal), offered.reason
    assert offered.title == "Batch 8"


@pytest.mark.parametrize("before", ["rows, n = 0, 0\n", ""])
def test_batches_split_where_they_are_trained_on_alone_show_what_they_showed(before):
    cell = before + "some = next(iter(data))\n" + FIT + "for i in range(9):\n    draw(some[i])\n"
    facts = Facts(batches=(BatchSeen("fit", 16, "tf.data"),), earlier_cells=(DATA,), models=(ModelFacts("model"),))
    offered = ask(cell, facts, line=cell.count("\n", 0, cell.index("# <-")) + 1)
    assert isinstance(offered, Proposal), offered.reason
    assert "next(iter(data))" in offered.source
