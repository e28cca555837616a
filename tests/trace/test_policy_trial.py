"""16-bit compute tried without data: what fails in it fails in the trial, and nothing is touched."""

from __future__ import annotations

import pytest

from tests.kernel import bfc
from tests.remedies.mixed_precision.test_own_layers import GOES, IMPORTS, MIXES, NEEDS_32, REST, SPECTRUM, own
from tests.script import found_by
from tests.trace import own_models as whole
from tf_mem_magic.core.facts import ModelFacts
from tf_mem_magic.notebook.model import read_notebook
from tf_mem_magic.remedies.mixed_precision.own_layers import why_not_in_16_bits

SCRIPT = """
import gc, json, random, sys, time
import numpy as np, keras, tensorflow as tf
from keras import layers as L
from tf_mem_magic.facts.fit import KerasCall
from tf_mem_magic.trace.policy_trial import try_policy
from tf_mem_magic.remedies.mixed_precision.probe import layers_to_change, own_layers, own_step
import tf_mem_magic

cases = json.load(sys.stdin)
found = {}
memory = lambda: tf.config.experimental.get_memory_info("CPU:0")
plain = lambda trial: [trial.outcome, trial.where, trial.told, trial.traced]
x = np.random.default_rng(0).standard_normal((64, 8)).astype("float32")
y = x[:, :1]

class Data:
    def __init__(self, *specs):
        self._distributed_dataset, self.element_spec = self, specs

def fitting(model, *specs):
    return KerasCall(model, "fit", {"epoch_iterator": Data(*specs)})

ROWS = (tf.TensorSpec((8, 8)), tf.TensorSpec((8, 1)))

def model_with(layer):
    model = keras.Sequential([keras.Input((8,), batch_size=8), L.Dense(8), layer, L.Flatten(), L.Dense(1)])
    model.compile("adam", "mse", jit_compile=False)
    return model

# Each layer of the tests of reading, tried; and called for real in 16 bits.
for policy in ("mixed_float16", "mixed_bfloat16"):
    for name, source in cases["layers"].items():
        names = {"__name__": "__main__"}
        exec(source, names)
        try:
            trial = try_policy(model_with(names["Own"](8, tf.ones((8, 8)))), policy)
        except Exception as error:
            found.setdefault(policy, {})[name] = ["not made", str(error), "", "", "", 0]
            continue
        keras.config.set_dtype_policy(policy)
        try:
            names["Own"](8, tf.ones((8, 8)))(np.ones((8, 8), "float32"))
            real = ""
        except Exception as error:
            real = str(error)
        keras.config.set_dtype_policy("float32")
        found.setdefault(policy, {})[name] = [*plain(trial), real, trial.seconds]

# Whole models, tried; and trained for real in 16 bits.
found["whole"] = {}
for name, source in cases["models"].items():
    names = {"__name__": "__main__"}
    try:
        exec(source, names)
    except Exception as error:
        found["whole"][name] = [["not made", str(error), "", ""], "", [[], False, []], 0]
        continue
    model, data = names["model"], tf.data.Dataset.from_tensor_slices((names["x"], names["y"])).batch(8)
    trial = try_policy(model, "mixed_bfloat16", fitting(model, *data.element_spec))
    own = [list(own_layers(model)), own_step(model), [type(one).__name__ for one in model._flatten_layers()]]
    for one in layers_to_change(model):
        one.dtype_policy = "mixed_bfloat16"
    model.train_function = None
    try:
        model.fit(data, epochs=1, verbose=0)
        real = ""
    except Exception as error:
        real = f"{type(error).__name__}: {error}"
    found["whole"][name] = [plain(trial), real, own, trial.seconds]

# Models as they stand in notebooks.
class Clean(L.Layer):
    def __init__(self):
        super().__init__()
        self.inner, self.drop = L.Dense(8), L.Dropout(0.5, seed=3)
    def call(self, x, training=None):
        return self.drop(self.inner(x), training=training) * 0.5

class Noise(L.Layer):
    def call(self, x):
        return x + tf.random.uniform(tf.shape(x))

class Block(keras.Model):
    def __init__(self, inner):
        super().__init__()
        self.inner, self.out = inner, L.Dense(4)
    def call(self, x):
        return self.out(self.inner(x))

class Nested(keras.Model):
    def __init__(self, inner):
        super().__init__()
        self.first, self.block, self.last = L.Dense(8), Block(inner), keras.Sequential([L.Dense(1)])
    def call(self, x):
        return self.last(self.block(self.first(x)))

SEEN = []

class Stepping(keras.Model):
    cast = True
    def train_step(self, data):
        SEEN.append("traced")
        x, y = data
        with tf.GradientTape() as tape:
            inner = self.layers[1](x)
            inner = tf.cast(inner, tf.float32) if self.cast else inner
            loss = tf.reduce_mean((self(x, training=True) - y) ** 2) + tf.reduce_mean(inner * tf.ones((8, 4)))
        grads = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(grads, self.trainable_variables))
        return {"loss": loss}

class Clashing(Stepping):
    cast = False

def functional(kind=keras.Model, function=None):
    i = keras.Input((8,))
    h = L.Dense(4)(i)
    h = L.Lambda(function)(h) if function else h
    model = kind(i, L.Dense(1)(h))
    model.compile("adam", "mse", jit_compile=False)
    return model

def nested(inner):
    model = Nested(inner)
    model.compile("adam", "mse", jit_compile=False)
    model(x[:2])
    return model

def draw(h):
    return h + tf.random.normal(tf.shape(h))

tried = found["models"] = {}
for name, model in {"a clean layer": model_with(Clean()), "noise": model_with(Noise()), "nested": nested(Clean()),
                    "nested noise": nested(Noise()), "a step": functional(Stepping), "a step that mixes": functional(Clashing),
                    "a lambda": functional(function=lambda h: h / 255.0), "a lambda that mixes": functional(function=draw)}.items():
    tried[name] = {p: plain(try_policy(model, p, fitting(model, *ROWS))) for p in ("mixed_bfloat16", "mixed_float16")}
found["traced"] = len(SEEN)
found["by its own inputs"] = [plain(try_policy(m, "mixed_bfloat16"))[:2] for m in (nested(Noise()), nested(Clean()), functional())]

# Operations that a graph takes in 16 bits, of which TensorFlow has not all.
from tf_mem_magic.trace.kernels import without_kernel
OPERATIONS = {
    "cumsum": tf.cumsum, "cumprod": tf.math.cumprod, "lgamma": tf.math.lgamma, "erfinv": tf.math.erfinv,
    "digamma": tf.math.digamma, "cross": lambda x: tf.linalg.cross(x[:, :3], x[:, :3]), "roll": lambda x: tf.roll(x, 1, 0),
    "reverse": lambda x: tf.reverse(x, [0]), "top_k": lambda x: tf.math.top_k(x)[0], "lrn": lambda x: tf.nn.lrn(x[None, :, :, None]),
    "matmul": lambda x: x @ x, "softmax": tf.nn.softmax, "resize": lambda x: tf.image.resize(x[None, :, :, None], (4, 4)),
    "argmax": tf.argmax, "i0": tf.math.special.bessel_i0, "i0e": tf.math.bessel_i0e, "band": lambda x: tf.linalg.band_part(x, 0, 1),
    "segment": lambda x: tf.math.unsorted_segment_prod(x, [0] * 8, 1), "unique": lambda x: tf.unique(x[0])[0],
    "dilation": lambda x: tf.nn.dilation2d(x[None, :, :, None], x[:2, :2, None], (1, 1, 1, 1), "SAME", "NHWC", (1, 1, 1, 1)),
    "pool": lambda x: tf.nn.max_pool2d(x[None, :, :, None], 2, 2, "SAME"), "sort": tf.sort, "hist": lambda x: tf.histogram_fixed_width(x, [x[0, 0], x[1, 1]]),
    "conv3d": lambda x: tf.nn.conv3d(x[None, :, :, None, None], x[:1, :1, None, None, None], (1,) * 5, "SAME"),
}
found["kernels"] = {}
for kind in (tf.bfloat16, tf.float16):
    for name, operation in OPERATIONS.items():
        try:
            made = tf.function(operation).get_concrete_function(tf.TensorSpec((8, 8), kind))
        except Exception:
            continue
        try:
            made(tf.cast(tf.random.uniform((8, 8)), kind))
            real = ""
        except Exception as error:
            real = str(error)
        found["kernels"][f"{name} in {kind.name}"] = [without_kernel(made.graph), real[:300]]

class Slow(L.Layer):
    rounds = 1
    def call(self, x):
        for _ in range(self.rounds):
            x = x + 1
        return x

slow = model_with(Slow())
Slow.rounds = 100_000
began = time.thread_time()
found["slow"] = [plain(try_policy(slow, "mixed_bfloat16", seconds=0.3)), time.thread_time() - began]
found["broken"] = plain(try_policy(functional(), "mixed_bfloat16", fitting(None, tf.TensorSpec((8, 3)), ROWS[1])))

tf.config.experimental.enable_op_determinism()
# Nothing is touched, and what is trained afterwards is what is trained without a trial.
number = lambda: int(L.Dense(1).name.rpartition("_")[2])
trained = []
for trying in (False, True):
    keras.utils.set_random_seed(7)
    model = model_with(Clean())
    model.fit(x, y, batch_size=8, epochs=1, verbose=0)
    next_name = number() + 1
    if trying:
        gc.collect()
        values = [v.numpy().tobytes() for v in (*model.variables, *model.optimizer.variables)]
        attributes = {id(o): {k: id(v) for k, v in vars(o).items()} for o in (model, *model._flatten_layers(), model.optimizer)}
        held = memory()["current"]
        tf.config.experimental.reset_memory_stats("CPU:0")
        found["state"] = plain(try_policy(model, "mixed_float16", fitting(model, *ROWS)))[:1]
        found["peak"] = memory()["peak"] - held
        found["seed"] = [v.path for v in model.variables if "seed" in v.path]
        found["values"] = values == [v.numpy().tobytes() for v in (*model.variables, *model.optimizer.variables)]
        found["attributes"] = attributes == {
            id(o): {k: id(v) for k, v in vars(o).items()} for o in (model, *model._flatten_layers(), model.optimizer)}
        found["policies"] = [sorted({o.dtype_policy.name for o in model._flatten_layers()}), keras.config.dtype_policy().name]
    found["name"] = number() == next_name
    model.fit(x, y, batch_size=8, epochs=1, verbose=0)
    trained.append([[v.numpy().tobytes().hex() for v in model.variables], random.random(),
                    float(np.random.rand()), float(tf.random.uniform(()))])
found["trained alike"] = trained[0] == trained[1]

# A training that really runs out of memory.
class Noisy(Nested):
    pass

out = {}
net = Noisy(Noise())
net.first = L.Dense(100_000)
net.compile("sgd", "mse", jit_compile=False)
many = np.zeros((1024, 8), "float32")
try:
    with tf_mem_magic.record("training") as running:
        net.fit(many, many[:, :1], batch_size=1024, verbose=0)
except tf.errors.ResourceExhaustedError:
    report = running.report
    out["trials"] = {m.name: [m.trial and plain(m.trial)[:2], m.own_layers] for m in report.recording.facts.models if m.name == "net"}
    out["policies"] = sorted({o.dtype_policy.name for o in net._flatten_layers()})
    out["seconds"] = [m.trial.seconds for m in report.recording.facts.models if m.trial]
found["out of memory"] = out
print("FOUND" + json.dumps(found))
"""

LAYERS = {name: own(*parts[:2], REST + SPECTRUM) for name, parts in (MIXES | GOES | NEEDS_32).items()}


@pytest.fixture(scope="module")
def found():
    assert IMPORTS in next(iter(LAYERS.values()))
    return found_by(
        SCRIPT, {"layers": LAYERS, "models": {n: whole.IMPORTS + s for n, s in whole.MODELS.items()}}, bfc(512)
    )


pytestmark = [pytest.mark.tf, pytest.mark.timeout(900)]


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_a_layer_fails_in_the_trial_where_it_fails_for_real_and_nowhere_else(found, policy):
    runs = found[policy]
    assert {n: run for n, run in runs.items() if run[0] not in ("ok", "failed")} == {}
    assert {n for n, run in runs.items() if run[0] == "failed"} == {n for n, run in runs.items() if run[4]}
    assert {run[1] for run in runs.values() if run[0] == "failed"} == {"Own"}


def test_reading_and_trying_agree_on_float16(found):
    assert {n for n, run in found["mixed_float16"].items() if run[0] == "failed"} == set(MIXES) | set(NEEDS_32)


def test_a_trial_takes_a_fraction_of_a_second(found):
    seconds = sorted(run[5] for run in found["mixed_float16"].values())
    assert seconds[len(seconds) // 2] < 1


@pytest.mark.parametrize("name", whole.MODELS)
def test_a_whole_model_fails_in_the_trial_where_its_training_fails_and_nowhere_else(found, name):
    (outcome, _, told, _), real, _, _ = found["whole"][name]
    assert outcome == ("failed" if real else "ok"), (told, real)


def test_what_is_tried_is_right_where_reading_was_not(found):
    wrong = set()
    for name, ((outcome, *_), _, (classes, step, layers), _) in found["whole"].items():
        facts = ModelFacts("model", tuple(layers), own_layers=tuple(classes), own_step=step)
        notebook = read_notebook("model.fit(x, y)", (whole.IMPORTS + whole.MODELS[name],))
        if bool(why_not_in_16_bits(notebook, facts)) is not (outcome == "failed"):
            wrong.add(name)
    assert {"a step that weighs inner features in 32 bits", "a spectrum that casts itself"} <= wrong


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("a clean layer", None),
        ("noise", "Noise"),
        ("nested", None),
        ("nested noise", "Noise"),
        ("a step", None),
        ("a step that mixes", "Clashing"),
        ("a lambda", None),
        ("a lambda that mixes", "Lambda"),
    ],
)
def test_models_as_they_stand_in_notebooks_are_tried_in_both_policies(found, name, where):
    for policy, (outcome, at, told, traced) in found["models"][name].items():
        assert (outcome, at) == (("ok", "") if where is None else ("failed", where)), (policy, told)
        assert traced == ("call" if where in ("Noise", "Lambda") else "step")
        assert (policy.removeprefix("mixed_") in told) is (where is not None)
        assert "Arguments received" not in told


def test_what_a_step_of_ones_own_appends_to_is_as_it_was(found):
    assert found["traced"] == 0


def test_without_data_the_models_own_inputs_are_taken(found):
    assert found["by its own inputs"] == [["failed", "Noise"], ["ok", ""], ["ok", ""]]


def test_an_operation_that_has_no_code_for_16_bits_is_found_where_it_is_missed_for_real(found):
    runs = found["kernels"]
    missed = {name for name, (_, real) in runs.items() if real}
    assert {name for name, (told, _) in runs.items() if told} == missed, runs
    assert 0 < len(missed) < len(runs)


def test_a_trial_ends_in_time_and_says_why_it_was_not_made(found):
    (outcome, _, told, _), seconds = found["slow"]
    assert (outcome, told) == ("not tried", "tracing it takes longer than 0.3 s")
    assert seconds < 3
    assert found["broken"][0] == "not tried"
    assert found["broken"][2].startswith("it cannot be traced as it is either")


def test_nothing_is_touched_and_the_training_goes_on_as_without_a_trial(found):
    assert found["state"] == ["ok"]
    assert (
        found["peak"] < 16 << 10
    )  # a model of that size: constants of a few bytes, each in the allocator's least piece
    assert found["seed"]  # dropout has a random state
    assert (found["values"], found["attributes"], found["name"], found["trained alike"]) == (True, True, True, True)
    assert found["policies"] == [["float32"], "float32"]


def test_after_a_real_failure_the_trial_is_among_the_facts(found):
    out = found["out of memory"]
    assert out["trials"] == {"net": [["failed", "Noise"], ["Noisy", "Block", "Noise"]]}
    assert out["policies"] == ["float32"]
    assert max(out["seconds"]) < 3
