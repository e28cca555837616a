"""Where a cell trains, and which of several models."""

from __future__ import annotations

import pytest

from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.facts import Facts, ModelFacts
from tf_mem_magic.notebook.origins import KerasNames
from tf_mem_magic.notebook.text.cell import PythonCell, read_cell
from tf_mem_magic.notebook.training import find_training

BOTH = "the cell trains `gen` and `disc`, and this is a change of one model alone"
UNSURE = "it is not sure which model the cell trains: it could be any of `gen`, `disc`"


def told(source: str) -> str:
    cell = read_cell(source)
    assert isinstance(cell, PythonCell)
    facts = Facts(models=(ModelFacts("gen"), ModelFacts("disc")))
    found = find_training(cell, KerasNames(cell, ()), facts, Diagnosis("CPU:0", line=1))
    assert isinstance(found, str)
    return found


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("a = t.gradient(l, gen.trainable_variables); b = u.gradient(m, disc.trainable_variables)", BOTH),
        ("o.apply_gradients(zip(a, gen.trainable_weights)); p.apply_gradients(zip(b, disc.trainable_weights))", BOTH),
        ("o.minimize(f, var_list=gen.trainable_variables); p.minimize(h, var_list=disc.trainable_variables)", BOTH),
        ("g = t.gradient(l, gen.trainable_variables + disc.trainable_variables)", BOTH),
        # One is trained, and the other only computes; or nothing says what is trained.
        ("g = t.gradient(l, gen.trainable_variables); y = disc(gen(x))", UNSURE),
        ("n = len(gen.trainable_variables) + 1; run(gen, disc)", UNSURE),
        ("run(gen, disc)", UNSURE),
    ],
)
def test_of_two_models_that_train_it_is_said_that_both_do(lines, reason):
    """A GAN's two models, each with an optimizer of its own, were one that was not known for sure."""
    assert told(f"for x in data: {lines}") == reason
