"""What a plan is made for where no data are named: what the notebook's own ``fit`` gives."""

import numpy as np
import pytest

from tf_mem_magic.session.commands.fit_data import FitData, fit_data
from tf_mem_magic.trace.given import CannotPlanError

X, Y = np.zeros((40, 3)), np.zeros((40, 1))
NAMES = {"x": X, "y": Y, "BATCH": 16, "data": {"x": X, "y": [Y, 0]}, "model": object(), "gen": iter(()), "i": 0}


@pytest.fixture(autouse=True)
def shapes_alone(monkeypatch):
    """Keras is not needed to see which names were found: what has no rows is refused, as it is by Keras's own."""

    def specs(named):
        for name, value in named:
            if not all(hasattr(one, "shape") for one in (value if isinstance(value, list) else [value])):
                raise CannotPlanError(f"`{name}` has no rows")

    monkeypatch.setattr("tf_mem_magic.trace.given.specs_of_data", specs)


@pytest.mark.parametrize(
    ("call", "names", "batch"),
    [
        ("model.fit(x, y, batch_size=64)", ["x", "y"], 64),
        ("model.fit(x=x, y=y, batch_size=BATCH, epochs=3)", ["x", "y"], 16),
        ("history = model.fit(x, y, BATCH)", ["x", "y"], 16),
        ("model.fit([x, x], y)", ["[x, x]", "y"], None),
        ("model.fit(data['x'], data['y'][i])", ["data['x']", "data['y'][i]"], None),
        ("model.fit(x[:BATCH], y[:16])", ["x[:BATCH]", "y[:16]"], None),
        ("for _ in range(3): model.fit(x, y, sample_weight=y)", ["x", "y", "y"], None),
        ("%%tfmem\nmodel.fit(x, y)", ["x", "y"], None),
        ("model.fit(gen, batch_size=8)", [], 8),
        ("model.fit(x * 2, y, batch_size=make())", [], None),
        ("model.fit(gone, y)", [], None),
        ("model.fit(**given)", [], None),
        ("other.fit(x, y)", [], None),
        ("def train(x, y):\n    model.fit(x, y)", [], None),
        ("model.fit(x, y", [], None),
    ],
)
def test_data_and_batch_are_those_of_the_call(call, names, batch):
    found = fit_data("model", [call], NAMES)
    assert ([name for name, _ in found.data], found.batch) == (names, batch)
    assert bool(found.call) == bool(names or batch)


def test_the_last_call_counts_and_rows_are_not_copied():
    cells = ["model.fit(y, y, batch_size=2)", "model.fit(x[:4], y[:4])\n%tfmem plan", "print(model)"]
    (_, rows), _ = fit_data("model", cells, NAMES).data
    assert (rows.shape, rows.base is X) == ((4, 3), True)


def test_a_model_that_is_not_trained_yet_tells_nothing():
    assert fit_data("model", ["model.compile('adam')", "model.fitness()"], NAMES) == FitData()
