"""How far a ``fit`` got, read from frames as the releases of Keras have them."""

import sys
from types import SimpleNamespace

import pytest

from tf_mem_magic.facts.fit import Progress, observe_progress

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
