"""Which weights train: sums of gradients are kept for each."""

from dataclasses import replace

import pytest

from tf_mem_magic.core.facts import Facts, ModelFacts
from tf_mem_magic.core.recording import Cell, Recording
from tf_mem_magic.core.step import StepFacts
from tf_mem_magic.diagnose.expected import trained_weights

BASE, HEAD, OTHER = 4000, 40, 700


@pytest.mark.parametrize(
    ("variables", "trainable", "expected_bytes"),
    [
        # Its weights by the name of the model inside it, all or some of them trained, or by its own.
        ([("base", BASE), ("net", HEAD)], BASE + HEAD, BASE + HEAD),
        ([("base", BASE), ("base", OTHER), ("net", HEAD)], OTHER + HEAD, OTHER + HEAD),
        ([("base", BASE), ("net", HEAD)], HEAD, HEAD),
        ([("base", BASE)], BASE, BASE),
        ([("net", BASE), ("net", HEAD), ("teacher", OTHER)], BASE + HEAD, BASE + HEAD),
        # How much is trained is not known.
        ([("base", BASE), ("net", HEAD)], None, HEAD),
        ([("base", BASE)], None, BASE),
    ],
)
def test_weights_that_train_are_also_those_of_a_model_inside_the_one_that_trains(variables, trainable, expected_bytes):
    """Sums of the gradients of an unfrozen base, 79 MiB, were missing where the base had a name of its own."""
    step = StepFacts("__inference_step_1", variables=tuple(("weights", whose, size) for whose, size in variables))
    net = ModelFacts("net", ("Functional", "Dense"), "Adam", weight_bytes=BASE + HEAD, steps=1)
    models = (ModelFacts("base", ("Conv2D",)), replace(net, trainable_bytes=trainable))
    run = Recording(Cell("net.fit(x, y)"), facts=Facts(models=models, step=step))
    assert sum(trained_weights(run)) == expected_bytes
