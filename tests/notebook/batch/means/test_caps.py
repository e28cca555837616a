"""Numbers of batches handed on beside their size: the edited cell, run, sees as many samples, or the offer says less."""

from __future__ import annotations

import numpy as np
import pytest

from tests.remedies.accumulate_gradients.test_remedy import ask as ask_accumulation
from tests.remedies.smaller_batch.test_remedy import ask
from tf_mem_magic.core.facts import Facts, ModelFacts, ScalarFact
from tf_mem_magic.core.proposals import Declined, Proposal

PARTS = """def batches(x, batch_size, {cap}=None, cycle=False):
    n = 0
    while True:
        for at in range(0, len(x), batch_size):
            yield x[at : at + batch_size]
            n += 1
            if {cap} is not None and n >= {cap}:
                return
        if not cycle:
            return
"""
DRAWS = "def draw(x, batch_size, {cap}):\n    for _ in range({cap}):\n        yield x[np.random.randint(0, len(x), batch_size)]\n"
SLICED = """from itertools import islice
def first(x, bs, {cap}=10):
    every = (x[at : at + bs] for at in range(0, len(x), bs))
    yield from islice(every, {cap})
"""
KEPT = """class Loader:
    def __init__(self, x, batch_size, {cap}):
        self.x, self.batch_size = x, batch_size
        self.limit = {cap}
    def __len__(self):
        return self.limit
    def __iter__(self):
        for turn in range(len(self.x)):
            if turn >= self.limit:
                break
            yield self.x[turn * self.batch_size : (turn + 1) * self.batch_size]
"""
TRAIN = "    model.train_on_batch(part, part)\n"
SEEN = [
    (PARTS, "max_batches", "for part in batches(x, batch_size=64, max_batches=25, cycle=True):\n"),
    (PARTS, "n_batches", "batch_size = 64\nfor part in batches(x, batch_size, 25, True):\n"),
    (DRAWS, "batches_per_epoch", "for part in draw(x, batch_size=64, batches_per_epoch=25):\n"),
    (DRAWS, "steps_per_epoch", "steps = 25\nfor part in draw(x, batch_size=64, steps_per_epoch=steps):\n"),
    (SLICED, "num_batches", "bs = 64\nfor i, part in enumerate(first(x, bs=bs, num_batches=5 * 5)):\n"),
    (KEPT, "batch_limit", "loader = Loader(x, batch_size=64, batch_limit=25)\nfor part in loader:\n"),
    (KEPT, "total_batches", "BATCH_SIZE = 64\nfor part in Loader(x, BATCH_SIZE, 25):\n"),
]


class Model:
    def __init__(self):
        self.seen = []

    def train_on_batch(self, x, y):
        self.seen.append(len(x))


def run(*cells):
    held = {"np": np, "x": np.zeros((3200, 2)), "model": Model()}
    for cell in cells:
        exec(cell, held)
    return held["model"].seen


def offered(call, *earlier, **known):
    facts = Facts(models=(ModelFacts("model"),), earlier_cells=(*earlier, "x = load()"), **known)
    answer = ask(call, facts)
    assert isinstance(answer, Proposal), answer.reason
    return answer


@pytest.mark.parametrize(("function", "cap", "loop"), SEEN)
@pytest.mark.parametrize("together", [False, True])
def test_as_many_samples_are_seen_where_the_notebook_shows_what_a_number_limits(function, cap, loop, together):
    function, loop = function.format(cap=cap), loop + TRAIN
    cells = (function + loop,) if together else (function, loop)
    answer = offered(cells[-1], *cells[:-1])
    before, after = run(*cells), run(*cells[:-1], answer.source)
    assert (set(before), set(after), sum(after)) == ({64}, {32}, sum(before)), answer.diff
    assert "Each epoch takes more steps." in answer.caveats


FOREIGN = [
    (
        "for part in lib.batches(x, batch_size=64, max_batches=2500, cycle=True):\n",
        "`max_batches=2500` of `lib.batches`",
    ),
    (
        "BATCH = 64\nfor part in BatchIterator(x, batch_size=BATCH, steps_per_epoch=9):\n",
        "`steps_per_epoch=9` of `BatchIterator`",
    ),
    ("n = 9\nfor part in tqdm(batched(x, batch_size=64, num_batches=n)):\n", "`num_batches=n` of `batched`"),
    ("for part in batched(x, batch_size=64, max_train_steps=cfg.steps):\n", "`max_train_steps=cfg.steps` of `batched`"),
]
GRADIENTS = """    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((model(part) - part) ** 2)
    grads = tape.gradient(loss, model.trainable_variables)
    optimizer.apply_gradients(zip(grads, model.trainable_variables))
"""


@pytest.mark.parametrize(("loop", "what"), FOREIGN)
def test_a_number_that_stays_is_told_and_no_epoch_said_to_take_more_steps(loop, what):
    told = f"{what} stays: if it counts batches, no more of them are taken, each with fewer samples."
    answer = offered(loop + TRAIN)
    assert [c for c in answer.caveats if "stays" in c or "steps." in c] == [told]


@pytest.mark.parametrize(("loop", "what"), FOREIGN)
def test_with_a_number_that_stays_there_would_be_fewer_updates(loop, what):
    source = "optimizer = keras.optimizers.Adam()\n" + loop + GRADIENTS
    answer = ask_accumulation(source)
    assert isinstance(answer, Declined), answer.diff
    assert answer.reason == f"{what} may count batches and would stay: there would be fewer updates of the weights"


def test_what_a_name_of_an_earlier_cell_may_hold_is_not_multiplied():
    loop = "for part in batches(x, batch_size=64, max_batches=limit):\n" + TRAIN
    answer = offered(loop, PARTS.format(cap="max_batches"))
    assert "`max_batches=limit` of `batches` stays" in " ".join(answer.caveats)
    known = offered(loop, PARTS.format(cap="max_batches"), scalars=(ScalarFact("limit", 25),))
    assert "max_batches=2 * limit" in known.source


NO_NUMBERS = [
    "for part in batched(x, batch_size=64, max_batches=None):\n",
    "for part in batched(x, batch_size=64, max_batches=-1):\n",
    "for part in batched(x, batch_size=64, num_steps=35):\n",
    "BATCH = 64\nfor part in batched(x, batch_size=BATCH, num_batches=6400 // BATCH):\n",
]


@pytest.mark.parametrize("loop", NO_NUMBERS)
def test_what_limits_nothing_or_follows_is_left_alone(loop):
    answer = offered(loop + TRAIN)
    assert "Each epoch takes more steps." in answer.caveats
    assert "stays" not in " ".join(answer.caveats)
