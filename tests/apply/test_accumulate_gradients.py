"""``apply.accumulate_gradients`` on real optimizers: the same updates as from the full batch, and back again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.script import found_by

pytestmark = [pytest.mark.tf, pytest.mark.timeout(900)]
ROOT = Path(__file__).resolve().parents[2]

SAME = 1e-6
"""Largest difference of any weight, of about 0.1 to 1, after eight updates: rounding of float32 only."""

SCRIPT = """
import json, os, sys, tempfile
import keras, numpy as np, tensorflow as tf
from tf_mem_magic import apply
L, O = keras.layers, keras.optimizers
rng = np.random.default_rng(0)
X = rng.standard_normal((64, 8)).astype("float32"); Y = rng.standard_normal((64, 2)).astype("float32")
W = rng.uniform(0.2, 3, 64).astype("float32")
decay = lambda: O.schedules.ExponentialDecay(0.05, 2, 0.5)

def net(normalized=False, l2=0.0):
    keras.utils.set_random_seed(1)
    regularizer = keras.regularizers.L2(l2) if l2 else None
    body = [keras.Input((8,)), L.Dense(16, "tanh", kernel_regularizer=regularizer)]
    return keras.Sequential(body + [L.BatchNormalization()] * normalized + [L.Dense(2)])

def words():
    keras.utils.set_random_seed(1)
    return keras.Sequential([keras.Input((4,), dtype="int32"), L.Embedding(256, 4), L.Flatten(), L.Dense(2)])
ONCE = np.arange(256).reshape(64, 4); AGAIN = ONCE % 16  # ids that occur once in a batch, or several times

def gap(a, b):
    return float(max(np.abs(p - q).max() for p, q in zip(a.get_weights(), b.get_weights())))

def trained(make, optimizer, steps, how, samples=64, warm=1, weights=None, loss="mse", jit=False, x=X):
    model = make(); model.compile(optimizer(), loss, jit_compile=jit)
    if warm:
        model.fit(x, Y, batch_size=32, epochs=warm, shuffle=False, verbose=0)
    if steps > 1:
        how(model, steps)
    w = None if weights is None else weights[:samples]
    model.fit(x[:samples], Y[:samples], batch_size=32 // steps, epochs=3, shuffle=False, verbose=0, sample_weight=w)
    return model

def compared(make, optimizer, steps=2, how=apply.accumulate_gradients, **more):
    full, parts = trained(make, optimizer, 1, how, **more), trained(make, optimizer, steps, how, **more)
    return [gap(full, parts), int(full.optimizer.iterations), int(parts.optimizer.iterations)]

def unscaled(model, steps):
    apply.accumulate_gradients(model, steps)
    model.optimizer._learning_rate = model.optimizer._learning_rate.schedule

adam = lambda: O.Adam(0.01)
found = {"same": {
    "sgd": compared(net, lambda: O.SGD(0.05, momentum=0.9)),
    "adam": compared(net, adam),
    "adam in four parts": compared(net, adam, steps=4),
    "adam that saw no weights yet": compared(net, adam, warm=0),
    "adamw with clipped gradients": compared(net, lambda: O.AdamW(0.01, clipnorm=0.1)),
    "l2": compared(lambda: net(l2=0.01), adam),
    "sample weights": compared(net, adam, weights=W),
    "a schedule": compared(net, lambda: O.Adam(decay())),
    "a schedule that saw no weights yet": compared(net, lambda: O.SGD(O.schedules.CosineDecay(0.1, 5)), warm=0),
    "xla": compared(net, lambda: O.Adam(decay()), jit=True),
    "an embedding, each id once": compared(words, adam, x=ONCE),
    "an embedding under sgd": compared(words, lambda: O.SGD(0.1, momentum=0.9), x=AGAIN),
}, "different": {
    "batch normalization": compared(lambda: net(normalized=True), adam),
    "a schedule as Keras counts it": compared(net, lambda: O.Adam(decay()), how=unscaled),
    "samples that are no whole batches": compared(net, adam, samples=56),
    "an embedding, ids several times": compared(words, adam, x=AGAIN),
    "batches that the steps do not divide": compared(net, adam, steps=4, samples=44),
}}

model = net(); model.compile(adam(), "mse"); model.fit(X, Y, verbose=0)
optimizer, names = model.optimizer, [v.path for v in model.optimizer.variables]
values = [v.numpy() for v in optimizer.variables]
apply.accumulate_gradients(model, 2)
found["same object"] = model.optimizer is optimizer
found["iterations"] = int(optimizer.iterations)
kept = {v.path: v.numpy() for v in optimizer.variables}
found["moments kept"] = all(np.array_equal(kept[n], v) for n, v in zip(names, values) if "iteration" not in n)
model.fit(X, Y, batch_size=16, verbose=0)
with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "m.keras"); model.save(path); loaded = keras.models.load_model(path)
    pairs = list(zip(model.optimizer.variables, loaded.optimizer.variables))
    found["loaded"] = len(pairs) == len(model.optimizer.variables) and all(np.array_equal(a, b) for a, b in pairs)
    for one in (model, loaded):
        one.fit(X, Y, batch_size=16, shuffle=False, verbose=0)
    found["goes on alike"] = gap(model, loaded)
    tf.train.Checkpoint(model=model, optimizer=model.optimizer).save(os.path.join(folder, "c"))
    model.fit(X[:16], Y[:16], batch_size=16, verbose=0)
    left = [float(np.abs(v).max()) for v in optimizer.variables if "accumulator" in v.path]
    apply.accumulate_gradients(model, 2)
    cleared = [float(np.abs(v).max()) for v in optimizer.variables if "accumulator" in v.path]
    found["a failed run's gradients"] = [max(left) > 0, max(cleared)]
    before = int(optimizer.iterations)
    apply.accumulate_gradients(model, 1)
    found["back"] = [v.path for v in optimizer.variables] == names and int(optimizer.iterations) == before
    model.fit(X, Y, verbose=0); found["steps after"] = int(optimizer.iterations) - before
    tf.train.Checkpoint(model=model, optimizer=model.optimizer).save(os.path.join(folder, "d"))
    scheduled = net(); scheduled.compile(O.Adam(decay()), "mse"); apply.accumulate_gradients(scheduled, 2)
    scheduled.fit(X, Y, verbose=0); path = os.path.join(folder, "s.keras"); scheduled.save(path)
    loaded = keras.models.load_model(path)
    found["schedule loaded"] = [float(scheduled.optimizer.learning_rate), float(loaded.optimizer.learning_rate)]
    apply.accumulate_gradients(scheduled, 1)
    found["schedule back"] = type(scheduled.optimizer._learning_rate).__name__

own = O.SGD(0.1); apply.accumulate_gradients(own, 2); v = keras.Variable([1.0])
seen = []
for g in (1.0, 3.0, 5.0, 7.0):
    own.apply_gradients([(tf.constant([g]), v)]); seen.append(round(float(v.numpy()[0]), 6))
found["own loop"] = seen

def refusal(*given):
    try:
        apply.accumulate_gradients(*given)
    except (TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
averaged, summed = net(), net()
averaged.compile(O.Adam(use_ema=True), "mse"); summed.compile("adam", keras.losses.MeanSquaredError(reduction="sum"))
found["refusals"] = [refusal(*g) for g in ((net(), 2), ([1], 2), (averaged, 2), (summed, 2), (model, 0), (model, 2.0))]

keras.config.set_dtype_policy("mixed_float16")
found["float16"] = compared(net, adam)
print("FOUND" + json.dumps(found))
"""


@pytest.fixture(scope="module")
def found():
    return found_by(SCRIPT)


@pytest.mark.parametrize(
    "case",
    [
        "sgd",
        "adam",
        "adam in four parts",
        "adam that saw no weights yet",
        "adamw with clipped gradients",
        "l2",
        "sample weights",
        "a schedule",
        "a schedule that saw no weights yet",
        "xla",
        "an embedding, each id once",
        "an embedding under sgd",
    ],
)
def test_parts_of_a_batch_train_like_the_whole(found, case):
    gap, full, parts = found["same"][case]
    assert (True, full) == (gap < SAME, parts)


@pytest.mark.parametrize(
    "case",
    [
        "batch normalization",
        "a schedule as Keras counts it",
        "samples that are no whole batches",
        "batches that the steps do not divide",
        "an embedding, ids several times",
    ],
)
def test_they_train_differently_where_the_caveat_says_so(found, case):
    assert found["different"][case][0] > 1000 * SAME


def test_float16_with_loss_scaling_stays_close(found):
    gap, full, parts = found["float16"]
    assert (True, full) == (gap < 1e-3, parts)


def test_the_optimizer_keeps_itself_its_moments_and_its_count(found):
    assert (True, True, 2) == (found["same object"], found["moments kept"], found["iterations"])


def test_a_saved_model_goes_on_with_the_same_sums_and_moments(found):
    assert (True, True) == (found["loaded"], found["goes on alike"] < SAME)


def test_a_saved_schedule_goes_on_at_the_same_rate(found):
    first, second = found["schedule loaded"]
    assert first == second


def test_gradients_of_a_failed_run_are_dropped(found):
    assert [True, 0.0] == found["a failed run's gradients"]


def test_one_takes_it_back(found):
    assert (True, 2, "ExponentialDecay") == (found["back"], found["steps after"], found["schedule back"])


def test_an_optimizer_of_ones_own_loop_updates_by_the_mean_of_each_group(found):
    assert [1.0, 0.8, 0.8, 0.2] == found["own loop"]


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (0, "ValueError: the model is not compiled"),
        (1, "TypeError: this takes a model or an optimizer"),
        (2, "ValueError: the optimizer keeps a moving average"),
        (3, "ValueError: the loss sums over the batch"),
        (4, "ValueError: steps must be 1 or more"),
        (5, "TypeError: steps must be an integer"),
    ],
)
def test_what_cannot_accumulate_is_refused_with_its_reason(found, index, expected):
    assert found["refusals"][index].startswith(expected)
