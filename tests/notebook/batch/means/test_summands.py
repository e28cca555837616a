"""Means and sums that turns add: run, the edited cell tells what it told before."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.notebook.batch.means.runs import ADDS, LOOK, TOLD, TRAIN, asked, same
from tf_mem_magic.core.facts import BatchSeen, DatasetFacts, Facts, ScalarFact
from tf_mem_magic.notebook.batch.found import BatchFound, set_batch
from tf_mem_magic.notebook.batch.search import find_batch
from tf_mem_magic.notebook.text.cell import PythonCell, read_cell


@pytest.mark.parametrize(
    ("adds", "count", "told"),
    [
        # Sums over samples, divided by their number or by that of batches, are right as they are.
        ("sum_loss(x, y)", "n = len(paths) // 64", "total / n"),
        ("sum_loss(x, y)", "n = len(paths)", "total / n"),
        ("sum_loss(x, y)", "n = len(paths) // 64 * 64", "total / n"),
        ("sum_loss(x, y)", "steps = len(paths) // 64\nn = steps * 64", "total / n"),
        ("tf.reduce_sum(x)", "", "total / len(train)"),
        ("len(x)", "", "total / len(paths)"),
        ("mean_loss(x, y) * len(x)", "n = len(paths)", "total / n"),
    ],
)
def test_a_sum_over_samples_is_divided_as_before(adds, count, told):
    source = ADDS.replace("step(x, y)", f"{adds}; step(x, y)") + f"tell({told})"
    after, notes = same(source, *([count] if count else []))
    assert after == source.replace("in train:", "in train.rebatch(32):")
    assert not any(note.startswith(TOLD) or LOOK in note for note in notes)


@pytest.mark.parametrize(
    ("adds", "told"),
    [
        ("step(x, y) * batch_size", "total / len(paths)"),
        ("step(x, y) * 64", "total / len(paths)"),
        ("mean_loss(x, y) * batch_size", "total / (len(train) * batch_size)"),
        ("64 * mean_loss(x, y)", "total / (100 * 64)"),
        ("mean_loss(x, y) * len(x)", "total / (len(train) * batch_size)"),
    ],
)
def test_a_mean_that_is_made_a_sum_by_a_size_that_stays_still_adds_up_more(adds, told):
    same(f"total = 0.0\nfor x, y in train:\n    total += {adds}; step(x, y)\ntell({told})")


@pytest.mark.parametrize(
    "adds",
    [
        "total, other = total + step(x, y), 3",
        "(total, other) = (step(x, y) + total, 3)",
        "other, total = 3, total + step(x, y)",
    ],
)
def test_sums_that_are_set_together_are_sums(adds):
    same(f"total = 0.0\nfor x, y in train:\n    {adds}\ntell(total / len(train))")


@pytest.mark.parametrize(
    "made", ["keras.losses.MeanSquaredError()", "keras.losses.Huber(delta=2.0)", "tf.keras.losses.MeanSquaredError()"]
)
@pytest.mark.parametrize("count", ["len(paths)", "n"])
def test_a_mean_by_the_number_of_samples_is_what_it_was(made, count):
    cell = read_cell(f"total = 0.0\nfor x, y in train:\n    total += step(x, y)\ntell(total / {count})")
    assert isinstance(cell, PythonCell)
    earlier = (
        "import keras\nimport tensorflow as tf",
        "n = len(paths)",
        f"mse = {made}",
        "def step(x, y):\n    loss = mse(y, model(x))\n    return loss",
    )
    facts = Facts(datasets=(DatasetFacts("train", batch=64, cardinality=100),), earlier_cells=earlier)
    found = find_batch(cell, facts, frozenset({3}))
    assert isinstance(found, BatchFound), found
    assert set_batch(found, 32)[0].endswith(f"tell(total / (2 * {count}))")
    summed = (
        *facts.earlier_cells[:2],
        f"mse = {made[:-1]}{', ' if 'delta' in made else ''}reduction='sum')",
        earlier[3],
    )
    found = find_batch(cell, Facts(datasets=facts.datasets, earlier_cells=summed), frozenset({3}))
    assert isinstance(found, BatchFound), found
    assert set_batch(found, 32)[0].endswith(f"tell(total / {count})")


@pytest.mark.parametrize("loss", ["tf.reduce_sum(per) / 64", "tf.reduce_sum(per) * (1. / 64)", "np.sum(per) / 64.0"])
def test_a_loss_that_is_divided_by_the_size_as_a_number_stops_the_edit(loss):
    found = asked(f"for x, y in train:\n    per = step(x, y)\n    loss = {loss}")
    assert not isinstance(found, BatchFound)
    assert found.reason == "line 3 divides by 64 too, which may be the batch size, and would stay"
    found = asked(TRAIN, f"def step(x, y):\n    per = x\n    return {loss}")
    assert not isinstance(found, BatchFound)
    assert found.reason.startswith("an earlier cell divides by 64 too")
    assert isinstance(
        asked(f"for x, y in train:\n    per = step(x, y)\n    loss = {loss.replace('64', '255')}"), BatchFound
    )


@pytest.mark.parametrize(
    ("loss", "stops"),
    [
        ("tf.nn.compute_average_loss(per, global_batch_size=64)", True),
        ("tf.nn.compute_average_loss(per, global_batch_size=GLOBAL_BATCH)", True),
        ("tf.reduce_sum(per) / GLOBAL_BATCH", True),
        ("(1 / GLOBAL_BATCH) * tf.reduce_sum(per)", True),
        ("total / 64", True),
        ("tf.nn.compute_average_loss(per, global_batch_size=batch_size)", False),
        ("tf.reduce_sum(per, axis=-1) / 64", False),
        ("tf.reduce_mean(per) * (1. / 64)", False),
        ("tf.reduce_mean(x * (1 / 64))", False),
        ("tf.reduce_sum(per) / units", False),
    ],
)
def test_what_a_sum_over_the_batch_is_divided_by_follows_it_or_stops_the_edit(loss, stops):
    body = f"total = tf.reduce_sum(per)\n    loss = {loss}"
    known = {"scalars": (ScalarFact("GLOBAL_BATCH", 64), ScalarFact("units", 64))}
    cell = f"batch_size = 64\ntrain = make().batch(batch_size)\nfor x, y in train:\n    per = step(x, y)\n    {body}"
    found = asked(cell, **known)
    assert isinstance(found, BatchFound) is not stops, found
    elsewhere = body.replace("loss =", "return")
    found = asked("for x, y in train:\n    step(x, y)", f"def step(x, y):\n    per = x\n    {elsewhere}", **known)
    follows = "GLOBAL_BATCH" in loss or "batch_size)" in loss
    assert isinstance(found, BatchFound) is (follows or not stops), found
    if "GLOBAL_BATCH" in loss:
        assert "GLOBAL_BATCH = 32\n" in set_batch(found, 32)[0]


@pytest.mark.parametrize(
    "loss", ["tf.reduce_sum(p - y) / 64", "K.sum(K.square(p - y)) * (1 / 64)", "ops.sum(p - y) / 64.0"]
)
@pytest.mark.parametrize("compiled", ["model.compile('adam', loss=own)", "model.compile(loss=[own, 'mse'])"])
def test_a_loss_of_fit_that_is_divided_by_the_size_as_a_number_stops_the_edit(loss, compiled):
    cell = read_cell("model.fit(x, y, batch_size=64)")
    assert isinstance(cell, PythonCell)
    earlier = ("model = keras.Sequential([])", f"def own(y, p):\n    return {loss}", compiled)
    found = find_batch(cell, Facts(earlier_cells=earlier), frozenset({1}))
    assert not isinstance(found, BatchFound)
    assert found.reason == "an earlier cell divides by 64 too, which may be the batch size, and would stay"
    other = (earlier[0], earlier[1], compiled.replace("own", "'mae'"))
    assert isinstance(find_batch(cell, Facts(earlier_cells=other), frozenset({1})), BatchFound)


METRIC = """class Share(keras.metrics.Metric):
    def update_state(self, y, p, sample_weight=None):
        self.share = {0}
        for a, b in zip(y, p):
            self.share += agree(a, b)

    def result(self):
        return {1}
"""
ADDED = [
    METRIC.format("0", "self.share / BATCH_SIZE"),
    METRIC.format("0.0", "100 * (self.share / BATCH_SIZE)"),
    "def share(y, p):\n    total = 0\n    for i in range(len(y)):\n        total += agree(y[i], p[i])\n"
    "    return total / BATCH_SIZE\n",
    "def share(y, p):\n    i, total = 0, None\n    total = 0.0\n    while i < len(y):\n        total += agree(y[i], p[i])\n"
    "        i += 1\n    mean = total / BATCH_SIZE\n    return mean\n",
]


@pytest.mark.parametrize("metric", ADDED)
def test_what_a_loop_over_the_samples_adds_up_is_not_divided_by_a_size_that_stays(metric):
    cell = read_cell("model.fit(train, epochs=3)")
    assert isinstance(cell, PythonCell)
    given = "Share()" if "class" in metric else "share"

    def found(made):
        earlier = (
            "BATCH_SIZE = 64\ntrain = load().batch(BATCH_SIZE)",
            made,
            f"model = keras.Sequential([])\nmodel.compile('adam', 'mse', metrics=[{given}])",
        )
        facts = Facts(
            batches=(BatchSeen("fit", 64, "tf.data"),),
            datasets=(DatasetFacts("train", batch=64, cardinality=100),),
            tensorflow="2.21.0",
            earlier_cells=earlier,
        )
        return find_batch(cell, facts, frozenset({1}))

    refused = found(metric)
    assert not isinstance(refused, BatchFound)
    assert refused.reason == "an earlier cell divides by 64 too, which may be the batch size, and would stay"
    for right in ("len(y)", "len(self.seen)", "CLASSES"):
        assert isinstance(found(metric.replace("BATCH_SIZE", right)), BatchFound)
    assert isinstance(found(metric.replace("+=", "=")), BatchFound)


@pytest.mark.parametrize("summed", ["tf.reduce_sum(y - p)", "K.sum(K.abs(y - p))", "ops.sum((y - p) ** 2)"])
def test_a_loss_divided_by_the_size_that_no_function_in_sight_reads_stops_the_edit(summed):
    cell = read_cell("model.fit(train, epochs=3)")
    assert isinstance(cell, PythonCell)
    earlier = (
        "BATCH_SIZE = 64\ntrain = load().batch(BATCH_SIZE)",
        f"def own(y, p):\n    return {summed} / BATCH_SIZE",
        "model = keras.Sequential([])\nmodel.compile('adam', loss=own)",
    )
    known = Facts("2.21.0", datasets=(DatasetFacts("train", batch=64, cardinality=100),), earlier_cells=earlier)
    facts = replace(known, batches=(BatchSeen("fit", 64, "tf.data"),))
    found = find_batch(cell, facts, frozenset({1}))
    assert not isinstance(found, BatchFound)
    assert found.reason == "an earlier cell divides by 64 too, which may be the batch size, and would stay"
    other = replace(facts, earlier_cells=(earlier[0], earlier[1].replace("BATCH_SIZE", "len(y)"), earlier[2]))
    assert isinstance(find_batch(cell, other, frozenset({1})), BatchFound)
