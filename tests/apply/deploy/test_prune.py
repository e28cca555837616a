"""``apply.prune`` on real models: which weights become zero and stay so, what the copy keeps, what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kernel import bfc
from tests.script import found_by

pytestmark = [pytest.mark.tf, pytest.mark.timeout(900)]
ROOT = Path(__file__).resolve().parents[3]

SCRIPT = """
import json, os, tempfile, zipfile
import keras, numpy as np, tensorflow as tf
from tf_mem_magic import apply
from tf_mem_magic.apply.deploy.prune import RAMP, UPDATES
L, opts = keras.layers, keras.optimizers
rng = np.random.default_rng(0)
X = rng.normal(size=(384, 16)).astype("float32"); Y = (X @ rng.normal(size=(16, 4))).argmax(1)
XV = rng.normal(size=(128, 16)).astype("float32"); IMAGES = rng.normal(size=(96, 8, 8, 3)).astype("float32")
WORDS = rng.integers(0, 50, (96, 12)); FEW = rng.integers(0, 4, 96)
logits = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

def same(a, b): return all(np.array_equal(x, y) for x, y in zip(a, b))
def state(model): return [v.numpy() for v in (*model.weights, *model.optimizer.variables)]
def kernels(model): return [v for v in model.trainable_weights if v.name in ("kernel", "recurrent_kernel", "pointwise_kernel") and "depthwise" not in v.path]
def zeros(variables): return [int((v.numpy() == 0).sum()) for v in variables]

class Watch(keras.callbacks.Callback):
    def __init__(self, chosen):
        super().__init__(); self.chosen, self.shares, self.back, self.before = chosen, [], 0, None
    def on_train_batch_end(self, batch, logs=None):
        masks = [v.numpy() == 0 for v in self.chosen]
        if self.before is not None:
            self.back += sum(int((old & ~new).sum()) for old, new in zip(self.before, masks))
        self.before = masks
        self.shares.append(sum(m.sum() for m in masks) / sum(m.size for m in masks))

def mlp():
    return keras.Sequential([L.Dense(64, "relu"), L.BatchNormalization(), L.Dropout(0.1), L.Dense(64, "relu"), L.Dense(4)])

class Scaled(L.Layer):
    def __init__(self, factor=2.0, **kw):
        super().__init__(**kw); self.factor = factor; self.inner = L.Dense(16)
    def call(self, x): return self.inner(x) * self.factor
    def get_config(self): return {**super().get_config(), "factor": self.factor}

class OwnStep(keras.Model):
    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            p = self(x, training=True); loss = self.compute_loss(y=y, y_pred=p)
        self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
        self._loss_tracker.update_state(loss)
        return self.compute_metrics(x, y, p)

traced = []
def own_loss(y, p):
    traced.append(1)
    return keras.ops.mean(keras.losses.sparse_categorical_crossentropy(y, p, from_logits=True))

def shared():
    i = keras.Input((8, 8, 3)); twice = L.Conv2D(3, 3, padding="same", kernel_constraint=keras.constraints.MaxNorm(1.0))
    h = L.SeparableConv2D(8, 3)(twice(twice(i))); h = L.DepthwiseConv2D(3)(L.BatchNormalization()(h))
    inner = keras.Sequential([keras.Input((128,)), L.Dense(16, "relu"), L.Dense(8)])
    return keras.Model(i, L.Dense(4)(inner(L.Flatten()(h))))

def attention():
    i = keras.Input((12,), dtype="int32"); h = L.Embedding(50, 16)(i)
    h = L.LayerNormalization()(h + L.MultiHeadAttention(2, 8)(h, h)); h = L.Bidirectional(L.LSTM(8))(h)
    return keras.Model(i, L.Dense(4)(h))

def frozen():
    i = keras.Input((16,)); a = L.Dense(32, "relu", name="a"); b = L.Dense(32, "relu", name="b")
    model = keras.Model(i, L.Dense(4)(b(Scaled(name="s")(a(i))))); a.trainable = False
    return model

def own_step():
    i = keras.Input((16,)); return OwnStep(i, L.Dense(4)(L.Dense(32, "relu")(i)))

ema = dict(use_ema=True, ema_momentum=0.9, ema_overwrite_frequency=5)
decay = opts.schedules.ExponentialDecay(0.01, 10, 0.9)
CASES = {
    "momentum, batch normalization": (mlp, X, Y, dict(optimizer=opts.SGD(0.05, momentum=0.9, nesterov=True))),
    "xla": (mlp, X, Y, dict(optimizer=opts.Adam(decay), jit_compile=True)),
    "eager": (mlp, X, Y, dict(optimizer="adamw", run_eagerly=True)),
    "several steps in one": (mlp, X, Y, dict(optimizer="adam", steps_per_execution=4)),
    "moving average": (mlp, X, Y, dict(optimizer=opts.Adam(**ema))),
    "accumulated gradients": (mlp, X, Y, dict(optimizer=opts.Adam(gradient_accumulation_steps=2))),
    "shared layers, a constraint, an inner model": (shared, IMAGES, FEW, dict(optimizer="adam")),
    "attention and recurrence": (attention, WORDS, FEW, dict(optimizer="adam", jit_compile=False)),
    "a frozen layer, a layer of one's own": (frozen, X, Y, dict(optimizer="rmsprop")),
    "a training step of one's own": (own_step, X, Y, dict(optimizer="adam")),
    "a loss of one's own": (mlp, X, Y, dict(optimizer="adam", loss=own_loss, jit_compile=False)),
    "mixed_float16": (mlp, X, Y, dict(optimizer="adam")),
    "mixed_bfloat16, xla": (mlp, X, Y, dict(optimizer="adam", jit_compile=True)),
}
found = {}
for name, (make, x, y, settings) in CASES.items():
    keras.utils.set_random_seed(1)
    keras.config.set_dtype_policy(name.partition(",")[0] if name.startswith("mixed") else "float32")
    model = make(); settings = {"loss": logits, "metrics": ["accuracy"], "jit_compile": False, **settings}
    if settings.get("run_eagerly"): del settings["jit_compile"]
    if name == "eager": settings["metrics"] = [keras.metrics.SparseCategoricalAccuracy(name="accuracy")]
    model.compile(**settings); model.fit(x, y, epochs=3, batch_size=16, verbose=0)
    before = state(model)
    pruning = apply.prune(model, sparsity=0.8); copied = pruning.model
    entry = {"same at first": same(before, state(copied)), "class": type(copied) is type(model)}
    watch = Watch(kernels(copied)); traced.clear()
    steps = len(x) // 16
    copied.fit(x, y, epochs=4, batch_size=16, verbose=0, callbacks=[pruning, watch])
    entry["traces"] = len(traced)
    total, shares = 4 * steps, watch.shares
    ramp = round(RAMP * total); every = -(-ramp // UPDATES)
    at = [t for t in range(total) if t % every == 0 and t < ramp - 1] + [ramp - 1]
    entry["schedule"] = max(abs(shares[t] - 0.8 * (1 - (1 - (t + 1) / ramp) ** 3)) for t in at) if len(shares) == total else None
    size = sum(int(np.prod(v.shape)) for v in watch.chosen)
    entry["rounding"] = 0.5 * len(watch.chosen) / size
    entry["end"] = shares[-1]; entry["came back"] = watch.back
    entry["zeros"] = zeros(kernels(copied)); entry["expected"] = [round(0.8 * int(np.prod(v.shape))) for v in kernels(copied)]
    entry["others dense"] = all(np.mean(v.numpy() == 0) < 0.5 for v in copied.weights if "embedding" in v.path or "depthwise" in v.path)
    entry["original untouched"] = same(before, state(model))
    entry["trained"] = not same(kernels(model), kernels(copied)) and int(copied.optimizer.iterations) - int(model.optimizer.iterations)
    entry["steps"] = total
    entry["plain"] = [type(v.constraint).__name__ for v in copied.weights] == [type(v.constraint).__name__ for v in model.weights]
    entry["policy"] = [l.dtype_policy.name for l in copied.layers] == [l.dtype_policy.name for l in model.layers]
    entry["trainable"] = [v.trainable for v in copied.weights] == [v.trainable for v in model.weights]
    report = pruning.report(x, y)
    entry["counted"] = sum(k.zeros for k in report.kernels); entry["metrics"] = [sorted(report.metrics_before), sorted(report.metrics_after)]
    entry["evaluated"] = abs(report.metrics_after["loss"] - copied.evaluate(x, y, verbose=0, return_dict=True)["loss"])
    entry["files"] = [report.file, report.before, report.after]
    found[name] = entry
keras.config.set_dtype_policy("float32")

def trained(make=mlp, **settings):
    keras.utils.set_random_seed(2)
    model = make(); model.compile(**{"optimizer": "adam", "loss": logits, "metrics": ["accuracy"], **settings})
    model.fit(X, Y, epochs=8, batch_size=16, verbose=0)
    return model

model = trained(); pruning = apply.prune(model)
ds = tf.data.Dataset.from_tensor_slices((X, Y)).batch(16)
pruning.model.fit(ds, epochs=4, verbose=0, callbacks=[pruning])
chosen = kernels(pruning.model)
report = pruning.report(ds)
end = report.sparsity
found["text"] = str(report); found["metrics"] = [report.metrics_before, report.metrics_after]; found["without data"] = pruning.report().metrics_before
found["a tuple"] = abs(pruning.report((X, Y)).metrics_after["loss"] - report.metrics_after["loss"])
with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "m.npz"); np.savez_compressed(path, *pruning.model.get_weights())
    found["file"] = [os.path.getsize(path), report.after]
    kept = os.path.join(folder, "m.keras"); pruning.model.save(kept)
    found["config"] = "tf_mem_magic" in zipfile.ZipFile(kept).read("config.json").decode()
    again = keras.models.load_model(kept)
    found["loaded"] = same(again.get_weights(), pruning.model.get_weights()) and bool(np.array_equal(again.predict(XV, verbose=0), pruning.model.predict(XV, verbose=0)))
pruning.model.fit(X, Y, epochs=1, verbose=0, callbacks=[pruning])
found["again with it"] = pruning.report().sparsity
pruning.model.fit(X, Y, epochs=1, verbose=0)
found["again without it"] = pruning.report().sparsity; found["end"] = end

class Stop(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 9: raise KeyboardInterrupt
stopped = apply.prune(model)
try: stopped.model.fit(X, Y, epochs=2, verbose=0, callbacks=[stopped, Stop()])
except KeyboardInterrupt: found["stopped at"] = stopped.report().sparsity
stopped.model.fit(X, Y, epochs=2, verbose=0, callbacks=[stopped])
found["after a stop"] = [stopped.report().sparsity, [v.path for v in stopped.model.weights if v.constraint is not None]]
wrong = apply.prune(model)
try: model.fit(X, Y, verbose=0, callbacks=[wrong])
except ValueError: found["still its own"] = wrong.model is not model

# One step of training of the copy, and of the model itself, from the same state.
plain = trained(lambda: keras.Sequential([L.Dense(64, "relu"), L.BatchNormalization(), L.Dense(4)]), optimizer=opts.Adam(decay))
copied = apply.copy_model(plain)
for one in (plain, copied):
    one.fit(X, Y, epochs=1, batch_size=16, shuffle=False, verbose=0)
found["goes on"] = float(max(np.abs(a - b).max() for a, b in zip(state(plain), state(copied))))

# Zeros that nothing holds: what momentum does with them.
model = trained(optimizer=opts.SGD(0.05, momentum=0.9)); once = apply.copy_model(model)
for kernel in kernels(once):
    w = kernel.numpy(); w[np.abs(w) < np.quantile(np.abs(w), 0.75)] = 0; kernel.assign(w)
found["one shot"] = once.evaluate(X, Y, verbose=0, return_dict=True)["accuracy"]
once.fit(X, Y, epochs=1, verbose=0)
found["not held"] = sum(zeros(kernels(once))) / sum(int(np.prod(v.shape)) for v in kernels(once))
pruning = apply.prune(model); pruning.model.fit(X, Y, epochs=4, verbose=0, callbacks=[pruning])
found["gradual"] = pruning.report(X, Y).metrics_after["accuracy"]

# Memory: the same for both.
info = tf.config.experimental.get_memory_info
def peak(model):
    model.predict(X, batch_size=384, verbose=0)
    tf.config.experimental.reset_memory_stats("CPU:0"); start = info("CPU:0")["current"]
    model.predict(X, batch_size=384, verbose=0)
    return info("CPU:0")["peak"] - start
found["peaks"] = [peak(model), peak(pruning.model)]
found["bytes"] = [sum(v.value.numpy().nbytes for v in m.weights) for m in (model, pruning.model)]

class Sub(keras.Model):
    def __init__(self): super().__init__(); self.d = L.Dense(4)
    def call(self, x): return self.d(x)

class Closed(L.Layer):
    def __init__(self, units): super().__init__(); self.inner = L.Dense(units)
    def call(self, x): return self.inner(x)
    def get_config(self): raise NotImplementedError("no config")

def compiled(*layers, **settings):
    model = keras.Sequential([keras.Input((16,)), *layers]); model.compile(**{"optimizer": "sgd", "loss": "mse", **settings}); return model

def refusal(make, **given):
    try: apply.prune(make(), **given)
    except (TypeError, ValueError) as error: return f"{type(error).__name__}: {error}"

def fitted(**given):
    pruning = apply.prune(model)
    try: given.pop("of", pruning.model).fit(callbacks=[pruning], verbose=0, **given)
    except ValueError as error: return str(error)

uncompiled = keras.Sequential([keras.Input((16,)), L.Dense(4)])
found["refusals"] = {
    "subclass": refusal(lambda: trained(Sub)),
    "no model": refusal(lambda: [1]),
    "not compiled": refusal(lambda: uncompiled),
    "not built": refusal(mlp),
    "lambda": refusal(lambda: compiled(L.Dense(4), L.Lambda(lambda t: t * 2))),
    "a layer without config": refusal(lambda: compiled(Closed(4))),
    "nothing to prune": refusal(lambda: compiled(L.BatchNormalization())),
    "sparsity": refusal(lambda: compiled(L.Dense(4)), sparsity=1.0),
    "another model": fitted(of=model, x=X, y=Y),
    "no length": fitted(x=ds.repeat()),
}
found["still compiled"] = [model.compiled, bool(model.fit(X, Y, epochs=1, verbose=0))]
print("FOUND" + json.dumps(found))
"""

CASES = (
    "momentum, batch normalization",
    "xla",
    "eager",
    "several steps in one",
    "moving average",
    "accumulated gradients",
    "shared layers, a constraint, an inner model",
    "attention and recurrence",
    "a frozen layer, a layer of one's own",
    "a training step of one's own",
    "a loss of one's own",
    "mixed_float16",
    "mixed_bfloat16, xla",
)


@pytest.fixture(scope="module")
def found():
    return found_by(SCRIPT, env=bfc(1024))


@pytest.fixture(params=CASES)
def case(found, request):
    return found[request.param]


def test_the_copy_has_the_weights_and_the_optimizer_state_of_the_model(case):
    assert case["same at first"]
    assert case["class"]
    assert case["policy"]
    assert case["trainable"]


def test_each_kernel_ends_with_exactly_the_share_of_zeros_asked_for(case):
    assert case["expected"] == case["zeros"]
    assert case["counted"] == sum(case["expected"])


def test_no_zero_comes_back_at_any_step(case):
    assert 0 == case["came back"]


def test_sparsity_rises_by_the_cubic_schedule_at_every_step_at_which_it_is_chosen(found):
    stepwise = [name for name in CASES if name != "several steps in one"]
    # Keras reports only the last of several steps that run in one.
    assert found["several steps in one"]["schedule"] is None
    far = {name: found[name]["schedule"] for name in stepwise}
    assert {} == {name: off for name, off in far.items() if off > found[name]["rounding"]}


def test_the_model_that_was_given_stays_bit_for_bit_as_it_was(case):
    assert case["original untouched"]


def test_the_copy_really_trains(found):
    """One step in several where gradients are accumulated; with float16 a step may be skipped by loss scaling."""
    fewer = {"accumulated gradients": 2}
    steps = {name: found[name]["trained"] * fewer.get(name, 1) for name in CASES}
    assert {} == {name: n for name, n in steps.items() if not found[name]["steps"] - 4 <= n <= found[name]["steps"]}


def test_when_fit_ends_nothing_of_the_pruning_is_left_in_the_copy(case):
    assert case["plain"]


def test_embeddings_and_depthwise_kernels_stay_dense(case):
    assert case["others dense"]


def test_new_zeros_need_no_new_tracing(found):
    assert found["a loss of one's own"]["traces"] <= 2


def test_the_report_has_what_evaluate_gives(case):
    assert [["accuracy", "loss"]] * 2 == case["metrics"]
    assert case["evaluated"] < 1e-6


def test_the_compressed_file_is_smaller_and_the_plain_one_is_not(case):
    plain, before, after = case["files"]
    assert after < 0.7 * before < plain


def test_the_reported_size_is_that_of_the_file_that_numpy_writes(found):
    assert found["file"][0] == found["file"][1]


def test_the_report_takes_a_dataset_or_a_tuple_or_nothing(found):
    assert found["a tuple"] < 1e-4
    assert {} == found["without data"]


def test_the_report_says_what_was_measured_and_that_memory_is_not_smaller(found):
    text, (before, after) = found["text"], found["metrics"]
    assert "75.0% of 5,376 kernel weights are zero; the aim was 75.0%." in text
    assert "In memory nothing is smaller" in text
    assert f"accuracy: {before['accuracy']:.4g} before, {after['accuracy']:.4g} after" in text


def test_the_pruned_model_is_saved_and_loaded_as_a_plain_keras_model(found):
    assert not found["config"]
    assert found["loaded"]


def test_training_on_with_the_callback_keeps_the_zeros_and_without_it_fills_them(found):
    assert (0.75, 0.75) == (found["end"], found["again with it"])
    assert found["again without it"] < 0.1


def test_a_training_that_was_interrupted_goes_on_to_the_end(found):
    assert 0.1 < found["stopped at"] < 0.75
    assert [0.75, []] == found["after a stop"]


def test_after_fit_of_the_wrong_model_the_callback_still_has_its_copy(found):
    assert found["still its own"]


def test_a_copy_trains_on_as_the_model_would(found):
    assert found["goes on"] <= 1e-6


def test_zeros_that_are_not_held_do_not_last_one_epoch(found):
    assert found["not held"] < 0.1


def test_pruning_while_training_keeps_more_than_pruning_at_once(found):
    assert found["gradual"] > found["one shot"]


def test_running_it_takes_as_much_memory_as_before(found):
    before, after = found["peaks"]
    assert found["bytes"][0] == found["bytes"][1]
    assert abs(after - before) <= 0.05 * before


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("subclass", "TypeError: only Sequential and functional models of Keras 3 can be copied"),
        ("no model", "TypeError: only Sequential and functional models of Keras 3 can be copied"),
        ("not compiled", "ValueError: the model is not compiled"),
        ("not built", "ValueError: the model is not built"),
        ("lambda", "ValueError: the model has a Lambda layer"),
        ("a layer without config", "ValueError: Keras cannot copy this model (NotImplementedError: no config)"),
        ("nothing to prune", "ValueError: the model has no trainable kernel"),
        ("sparsity", "ValueError: the sparsity must be more than 0 and less than 1; it is 1.0"),
        ("another model", "this callback belongs to its own copy"),
        ("no length", "how many batches an epoch has is not known"),
    ],
)
def test_what_cannot_be_pruned_is_refused_with_the_reason(found, what, words):
    assert words in found["refusals"][what]


def test_a_refusal_leaves_the_model_compiled_and_trainable(found):
    assert [True, True] == found["still compiled"]
