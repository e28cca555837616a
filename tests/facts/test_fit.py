"""How far a ``fit`` got, read from frames as the releases of Keras have them."""

import sys
from types import SimpleNamespace

import pytest

from tf_mem_magic.core.facts import BatchSeen
from tf_mem_magic.facts.fit import Progress, observe_fit, observe_progress, observe_validation

BODY = """
def fit(steps, look, validate):
    epoch_iterator = {iterator}
    for epoch in range(2):
        for {names} in steps:
            look()
        {after}
        evaluate(validate)

def evaluate(validate):
    validate()
"""
KERAS = "/env/keras/src/backend/tensorflow/trainer.py"
TF_KERAS = "/env/tf_keras/src/engine/training.py"
PAIRS, SINGLE = ((0, 1), (2, 3), (4, 5)), (0, 2, 4)


@pytest.mark.parametrize(
    ("file", "names", "after", "steps"),
    [
        (KERAS, "begin_step, end_step", "pass", PAIRS),
        (KERAS, "step", "pass", SINGLE),
        (TF_KERAS, "step", "end_step = step + 1", SINGLE),
    ],
    ids=["keras 3.15", "keras 3.10", "tf_keras"],
)
def test_the_steps_of_a_fit_are_read_in_every_release(file, names, after, steps):
    seen = []

    def look():
        seen.append(observe_progress(sys._getframe()))

    made = {"SimpleNamespace": SimpleNamespace}
    source = BODY.format(names=names, after=after, iterator="SimpleNamespace(steps_per_execution=2)")
    exec(compile(source, file, "exec"), made)
    made["fit"](steps, look, look)
    one = [Progress(0, 0), Progress(0, 2), Progress(0, 4), Progress(0, 6, True)]
    assert seen[:4] == one
    assert [(p.epochs, p.steps) for p in seen[4:]] == [(1, 0), (1, 2), (1, 4), (1, 6)]


FIT = """
def fit(look, validation_data=None, validation_batch_size=None):
    look()
"""


class Rows:
    """An array of ``rows`` samples, or what gives batches of ``batch_size``."""

    def __init__(self, rows=None, batch_size=None):
        if rows is not None:
            self.shape = (rows, 3)
        if batch_size is not None:
            self.batch_size = batch_size


@pytest.mark.parametrize("file", [KERAS, TF_KERAS])
@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, None),
        ({"validation_data": (Rows(500), Rows(500))}, None),
        ({"validation_data": (Rows(500), Rows(500)), "validation_batch_size": 128}, ("validation", 128, "arrays")),
        ({"validation_data": [Rows(50), Rows(50)], "validation_batch_size": 128}, ("validation", 50, "arrays")),
        ({"validation_data": Rows(batch_size=64)}, ("validation", 64, "PyDataset")),
        ({"validation_data": object()}, None),
    ],
)
def test_the_batches_of_a_validation_are_read_where_they_are_not_those_of_the_training(file, given, found):
    seen, made = [], {}
    exec(compile(FIT, file, "exec"), made)
    made["fit"](lambda: seen.append(observe_validation(sys._getframe())), **given)
    assert [one and (one.method, one.batch, one.source) for one in seen] == [found]


@pytest.mark.parametrize(("rows", "samples"), [(1, 1), (20, 20), (32, None), (640, None), (None, None)])
def test_a_call_with_fewer_samples_than_its_batch_tells_how_many(rows, samples):
    seen = []
    adapter = SimpleNamespace(_batch_size=32, **({} if rows is None else {"_num_samples": rows}))
    made = {"epoch_iterator": SimpleNamespace(data_adapter=adapter)}
    exec(compile("def fit(look, epoch_iterator):\n    look()\n", KERAS, "exec"), made)
    made["fit"](lambda: seen.append(observe_fit(sys._getframe())), made["epoch_iterator"])
    assert seen == [BatchSeen("fit", 32, "arrays", samples)]
