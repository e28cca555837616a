"""A strategy of the notebook is that of the models and steps that are made in its scope, and of no others."""

from __future__ import annotations

import pytest

from tf_mem_magic.core.facts import DatasetFacts, Facts, ModelFacts
from tf_mem_magic.notebook.follow.reader import Reader
from tf_mem_magic.notebook.follow.strategies import runs_under_a_strategy
from tf_mem_magic.notebook.text.cell import PythonCell, read_cell

MIRRORED = "strategy = tf.distribute.MirroredStrategy()"
OTHER = f"{MIRRORED}\nwith strategy.scope():\n    fast = get_model()\nfast.fit(ds)"
GET = "def get_model():\n    return keras.Sequential([layers.Dense(1)])"
MADE = "model = get_model()"
FIT = "model.fit(ds, epochs=2)"


def under(cell, *earlier):
    """Tell whether the last line of a cell runs under a strategy."""
    read = read_cell(cell)
    assert isinstance(read, PythonCell)
    facts = Facts(models=(ModelFacts("model"),), datasets=(DatasetFacts("ds", batch=64),), earlier_cells=earlier)
    reader = Reader(read, facts, frozenset({cell.count("\n") + 1}))
    calls = [c for c in read.calls if getattr(c.func, "attr", "") == "fit"]
    return runs_under_a_strategy(reader, calls[0] if calls else None)


@pytest.mark.parametrize(
    ("cell", "earlier"),
    [
        (f"with tf.device('/GPU:0'):\n    {MADE}\n    {FIT}", (GET, OTHER)),
        (FIT, (GET, OTHER, MADE)),
        (f"{MADE}\n{FIT}", (GET, OTHER)),
        (FIT, (GET, OTHER, f"size = 64 * strategy.num_replicas_in_sync\n{MADE}")),
        (FIT, (GET, f"# {MIRRORED}\n# with strategy.scope():\n{MADE}")),
        (FIT, (GET, f"print('no MirroredStrategy() here')\n{MADE}")),
    ],
)
def test_a_model_outside_every_scope_is_under_none(cell, earlier):
    assert not under(cell, *earlier)


@pytest.mark.parametrize(
    ("cell", "earlier"),
    [
        (FIT, (GET, f"{MIRRORED}\nwith strategy.scope():\n    {MADE}")),
        (FIT, (GET, MIRRORED, f"with strategy.scope():\n    {MADE}\n    model.compile('adam')")),
        (
            FIT,
            (GET, MIRRORED, "def build():\n    with strategy.scope():\n        return get_model()", "model = build()"),
        ),
        (f"with strategy.scope():\n    {FIT}", (GET, OTHER, MADE)),
        (f"{MIRRORED}\n{FIT}", (GET, MADE)),
        (FIT, (GET, MADE, MIRRORED)),
        (FIT, (GET, OTHER, "tf.distribute.experimental_set_strategy(strategy)", MADE)),
        (FIT, (GET, MIRRORED, "strategy.scope().__enter__()", MADE)),
        (FIT, (OTHER,)),
        (
            "for b in ds:\n    train_step(b)",
            (GET, OTHER, MADE, "def train_step(b):\n    return strategy.run(step, args=(b,))"),
        ),
    ],
)
def test_what_is_made_or_runs_in_a_scope_is_under_it(cell, earlier):
    assert under(cell, *earlier)
