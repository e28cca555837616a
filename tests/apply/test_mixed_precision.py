"""``apply.mixed_precision`` on real models of every kind: same weights, same optimizer, other precision, and back."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.script import found_by

pytestmark = pytest.mark.tf
ROOT = Path(__file__).resolve().parents[2]

MODELS = ("sequential", "functional", "nested", "subclassed", "transformer", "recurrent")
POLICIES = ("mixed_float16", "mixed_bfloat16")

SCRIPT = """
import json, sys
import keras, numpy as np
from tf_mem_magic import apply
L = keras.layers

class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.a = L.Dense(16, activation="relu"); self.b = L.BatchNormalization(); self.o = L.Dense(4, activation="softmax")
    def call(self, x, training=False):
        return self.o(self.b(self.a(x), training=training))

class OwnStep(keras.Model):
    def __init__(self):
        super().__init__(); self.o = L.Dense(4)
    def call(self, x):
        return self.o(x)
    def train_step(self, data):
        return {"loss": 0.0}

def sequential():
    return keras.Sequential([L.Input((8,)), L.Dense(16, "relu"), L.Dropout(0.1), L.Dense(4, "softmax")])
def functional():
    i = keras.Input((8,)); x = L.BatchNormalization()(L.Dense(16, "relu")(i))
    return keras.Model(i, L.Dense(4, "softmax")(x))
def nested():
    i = keras.Input((8,)); return keras.Model(i, sequential()(L.Dense(8)(i)))
def subclassed():
    return Subclassed()
def transformer():
    i = keras.Input((8,)); x = L.Dense(8)(L.Reshape((8, 1))(i))
    x = L.LayerNormalization()(x + L.MultiHeadAttention(2, 8)(x, x)); x = L.Add()([x, L.Dense(8, "gelu")(x)])
    return keras.Model(i, L.Dense(4, "softmax")(L.GlobalAveragePooling1D()(x)))
def recurrent():
    i = keras.Input((8,)); x = L.Bidirectional(L.LSTM(4))(L.Reshape((8, 1))(i))
    return keras.Model(i, L.Dense(4, "softmax")(L.GRU(4)(L.RepeatVector(3)(x))))

rng = np.random.default_rng(0)
X = rng.standard_normal((32, 8)).astype("float32"); Y = rng.integers(0, 4, 32)
same = lambda a, b: len(a) == len(b) and all(np.array_equal(p, q) for p, q in zip(a, b))
values = lambda optimizer: [keras.ops.convert_to_numpy(v) for v in optimizer.variables]
found = {}
for make in (sequential, functional, nested, subclassed, transformer, recurrent):
    for policy in ("mixed_float16", "mixed_bfloat16"):
        keras.utils.set_random_seed(1)  # a first step whose scaled gradients overflow is skipped, rightly
        model, optimizer = make(), keras.optimizers.Adam()
        model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
        model.fit(X, Y, verbose=0)
        weights, slots, full = model.get_weights(), values(optimizer), model.predict(X, verbose=0)
        one = found[f"{make.__name__} {policy}"] = {}
        one["returns the model"] = apply.mixed_precision(model, policy) is model
        one["weights same"] = same(weights, model.get_weights())
        one["slots same"] = same(slots, values(optimizer))
        one["inner is the optimizer"] = getattr(model.optimizer, "inner_optimizer", model.optimizer) is optimizer
        one["scaled"] = type(model.optimizer).__name__ == "LossScaleOptimizer"
        dtypes = {layer.compute_dtype for layer in model._flatten_layers(include_self=False) if layer.weights}
        one["dtypes"] = sorted(dtypes)
        one["weight dtypes"] = sorted({str(v.dtype) for v in model.weights if "float" in str(v.dtype)})
        close = model.predict(X, verbose=0)
        one["output"] = str(close.dtype)
        one["differs"] = bool(np.abs(close - full).max() > 0)
        one["close"] = bool(np.abs(close - full).max() < 0.05)
        model.fit(X, Y, verbose=0)
        one["steps"] = int(model.optimizer.iterations)
        one["trained"] = not same(weights, model.get_weights())
        one["metrics kept"] = sorted(model.evaluate(X, Y, verbose=0, return_dict=True))
        step, kept = model.train_function, model.optimizer
        apply.mixed_precision(model, policy)
        one["second call changes nothing"] = model.train_function is step and model.optimizer is kept
        after = model.get_weights()
        apply.mixed_precision(model, "float32")
        one["undo keeps weights"] = same(after, model.get_weights())
        one["undo restores the optimizer"] = model.optimizer is optimizer
        one["undo dtypes"] = sorted({layer.compute_dtype for layer in model._flatten_layers()})
        model.set_weights(weights)
        one["undo computes as before"] = bool(np.allclose(model.predict(X, verbose=0), full, atol=1e-6))
        model.set_weights(after); model.fit(X, Y, verbose=0)
        one["steps after undo"] = int(optimizer.iterations)

def refusal(*given):
    try:
        apply.mixed_precision(*given)
    except (TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
own = OwnStep(); own.compile("adam", "mse"); own.build((None, 8))
found["refusals"] = {
    "unbuilt": refusal(keras.Sequential([L.Dense(2)]), "mixed_float16"),
    "no model": refusal([1], "mixed_float16"),
    "policy": refusal(sequential(), "float8"),
    "own step": refusal(own, "mixed_float16"),
}
found["own step in bfloat16"] = apply.mixed_precision(own, "mixed_bfloat16").o.compute_dtype

class Trainer(keras.Model):
    def __init__(self, inner):
        super().__init__(); self.inner = inner
    def train_step(self, data):
        return {"loss": 0.0}
there, later = Trainer(sequential()), Trainer(keras.Sequential([L.Dense(2)]))
there.compile("adam", "mse"); later.compile("adam", "mse")
apply.mixed_precision(there, "mixed_bfloat16")
found["never called"] = [layer.compute_dtype for layer in there.inner.layers if layer.weights]
found["refusals"]["never called, unbuilt inside"] = refusal(later, "mixed_bfloat16")

part = functional(); part.compile("adam", "mse")
outer = keras.Model(i := keras.Input((8,)), part(L.Dense(8)(i))); outer.compile("sgd", "mse")
apply.mixed_precision(outer, "mixed_float16")
found["inner model scaled"] = type(part.optimizer).__name__
apply.mixed_precision(outer, "float32")
found["inner model restored"] = type(part.optimizer).__name__

fixed = keras.optimizers.SGD(loss_scale_factor=8.0); own_scale = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())
first, second = sequential(), sequential(); first.compile(fixed, "mse"); second.compile(own_scale, "mse")
pinned = keras.Sequential([L.Input((8,)), L.Dense(8, dtype="float64"), L.Dense(4)]); pinned.compile("sgd", "mse")
for model in (first, second, pinned):
    apply.mixed_precision(model, "mixed_float16")
found["float64 layer"] = pinned.layers[0].compute_dtype
for model in (first, second, pinned):
    apply.mixed_precision(model, "float32")
found["fixed scale"] = first.optimizer.loss_scale_factor
found["own scaling kept"] = second.optimizer is own_scale
switched = sequential(); switched.compile("adam", "mse")
apply.mixed_precision(switched, "mixed_float16"); apply.mixed_precision(switched, "mixed_bfloat16")
found["switched"] = [switched.layers[0].compute_dtype, type(switched.optimizer).__name__]

class Fixed(L.Dense):
    @L.Layer.dtype_policy.setter
    def dtype_policy(self, value):
        if getattr(value, "name", value) not in (None, "float32"):
            raise ValueError("this layer keeps its precision")
        L.Layer.dtype_policy.fset(self, value)
stubborn = keras.Sequential([L.Input((8,)), L.Dense(8), Fixed(8), L.Dense(4)]); stubborn.compile("adam", "mse")
said = refusal(stubborn, "mixed_float16")
found["stubborn"] = [said, sorted({l.compute_dtype for l in stubborn.layers}), type(stubborn.optimizer).__name__]
print("FOUND" + json.dumps(found))
"""


@pytest.fixture(scope="module")
def found():
    return found_by(SCRIPT)


@pytest.fixture(params=[f"{model} {policy}" for model in MODELS for policy in POLICIES])
def case(found, request):
    return {"policy": request.param.split()[1], **found[request.param]}


def test_weights_and_optimizer_state_stay_bit_identical(case):
    assert case["weights same"]
    assert case["slots same"]


def test_layers_compute_in_16_bits_and_weights_stay_in_32(case):
    assert case["policy"].removeprefix("mixed_") in case["dtypes"]
    assert case["weight dtypes"] == ["float32"]


def test_the_output_stays_in_float32_and_its_values_close(case):
    assert case["output"] == "float32"
    assert case["differs"]
    assert case["close"]


def test_only_float16_scales_the_loss_around_the_same_optimizer(case):
    assert case["inner is the optimizer"]
    assert case["scaled"] == (case["policy"] == "mixed_float16")


def test_training_goes_on_and_counts_on(case):
    assert case["trained"]
    assert case["steps"] == 2
    assert case["steps after undo"] == 3


def test_loss_and_metrics_of_compile_stay(case):
    assert case["metrics kept"] == ["accuracy", "loss"]


def test_a_second_call_changes_nothing(case):
    assert case["second call changes nothing"]


def test_undo_gives_back_dtype_optimizer_and_results(case):
    assert case["undo keeps weights"]
    assert case["undo restores the optimizer"]
    assert case["undo dtypes"] == ["float32"]
    assert case["undo computes as before"]


def test_the_model_itself_is_returned(case):
    assert case["returns the model"]


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("unbuilt", "ValueError: the model is not built yet"),
        ("never called, unbuilt inside", "ValueError: the model is not built yet"),
        ("no model", "TypeError: apply.mixed_precision changes a Keras 3 model; this is a list"),
        ("policy", "ValueError: the policy must be one of"),
        ("own step", 'use "mixed_bfloat16", which needs no loss scaling'),
    ],
)
def test_what_cannot_be_changed_is_refused_with_the_reason(found, what, words):
    assert words in found["refusals"][what]


def test_a_model_with_its_own_training_step_can_compute_in_bfloat16(found):
    assert found["own step in bfloat16"] == "bfloat16"


def test_a_model_that_only_trains_others_is_changed_where_these_are_built(found):
    assert found["never called"] == ["bfloat16", "float32"]


def test_a_compiled_model_inside_the_model_scales_its_loss_too(found):
    assert found["inner model scaled"] == "LossScaleOptimizer"
    assert found["inner model restored"] == "Adam"


def test_undo_gives_back_a_fixed_loss_scale(found):
    assert found["fixed scale"] == 8.0


def test_loss_scaling_of_the_users_own_is_left_alone(found):
    assert found["own scaling kept"]


def test_a_float64_layer_stays_float64(found):
    assert found["float64 layer"] == "float64"


def test_another_16_bit_policy_takes_the_place_of_the_first(found):
    assert found["switched"] == ["bfloat16", "Adam"]


def test_where_one_layer_refuses_none_is_changed(found):
    assert found["stubborn"] == ["ValueError: this layer keeps its precision", ["float32"], "Adam"]
