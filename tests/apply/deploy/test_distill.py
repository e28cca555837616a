"""``apply.distill`` on real Keras models: its loss by formula, the teacher untouched, what is printed, what is refused."""

import re

import pytest

from tests.kernel import bfc
from tests.script import found_by

pytestmark = pytest.mark.timeout(600)

SCRIPT = """
import contextlib, io, json, sys, warnings
import keras, numpy as np, tensorflow as tf
from tf_mem_magic import apply
from tf_mem_magic.apply import distill as _
from tf_mem_magic.apply.deploy.distill import _soft_loss
from tf_mem_magic.remedies.deploy._meaning import meaning_of, why_not
L, losses = keras.layers, keras.losses
rng = np.random.default_rng(0)
x = rng.standard_normal((256, 12)).astype("float32")
way = rng.standard_normal((12, 4))
classes = (x @ way).argmax(1); one_hot = np.eye(4, dtype="float32")[classes]
yes = (x[:, :1] > 0).astype("float32"); many = (x[:, :3] > 0).astype("float32"); value = (x @ way)[:, :2].astype("float32")
found = {}

def make(outputs, last, width=64, extra=()):
    keras.utils.set_random_seed(width)
    return keras.Sequential([keras.Input((12,)), L.Dense(width, "relu"), *extra, L.Dense(outputs, last)])

KINDS = {
    "sparse": (4, "softmax", "sparse_categorical_crossentropy", classes),
    "sparse logits": (4, None, losses.SparseCategoricalCrossentropy(from_logits=True), classes),
    "one hot": (4, "softmax", losses.CategoricalCrossentropy(), one_hot),
    "yes or no": (1, "sigmoid", "binary_crossentropy", yes),
    "yes or no, logits": (1, None, losses.BinaryCrossentropy(from_logits=True), yes),
    "several labels": (3, "sigmoid", "bce", many),
    "numbers": (2, None, "mse", value),
    "numbers by Huber": (2, None, losses.Huber(), value),
}

def teach(kind, optimizer="adam", extra=(), **more):
    outputs, last, loss, y = KINDS[kind]
    model = make(outputs, last, extra=extra)
    model.compile(optimizer, loss, metrics=["accuracy"] if "numbers" not in kind else ["mae"], **more)
    model.fit(x, y, epochs=4, batch_size=32, verbose=0, shuffle=False)
    return model, y

def state(model):
    return [v.numpy() for v in (*model.variables, *model.optimizer.variables)]

def same(a, b):
    return len(a) == len(b) and all((p == q).all() for p, q in zip(a, b))

def quiet(*args, **more):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        history = apply.distill(*args, verbose=0, shuffle=False, **more)
    return history.history, out.getvalue()

for kind in KINDS:
    extra = (L.BatchNormalization(), L.Dropout(0.2)) if kind == "sparse" else ()
    model, y = teach(kind, extra=extra)
    if kind == "sparse":
        model.layers[0].trainable = False
    before, flags = state(model), [v.trainable for v in model.variables]
    student = apply.narrower(model, 0.5)
    first = student.get_weights()
    told = model.predict(x, verbose=0)
    off = lambda: float(np.abs(student.predict(x, verbose=0) - told).mean())
    far = off()
    history, text = quiet(model, student, x, y, epochs=20, batch_size=32, hard=0.0)
    found[kind] = {
        "untouched": same(before, state(model)) and flags == [v.trainable for v in model.variables],
        "loss": model.loss is KINDS[kind][2], "far": far, "near": off(),
        "history": {k: len(v) for k, v in history.items()}, "falls": history["loss"][0] > history["loss"][-1],
        "text": text, "optimizer": [type(student.optimizer).__name__, student.optimizer is model.optimizer],
        "compiled": student.compiled, "why": why_not(model),
        "params": [sum(v.numpy().size for v in m.variables) for m in (model, student)],
        "results": [m.evaluate(x, y, verbose=0, return_dict=True) for m in (model, student)],
    }

# Only the data's own loss: the same training as a plain fit of the student, weighted samples included.
for name, more in {"plain": {}, "weighted": {"class_weight": {0: 1.0, 1: 3.0, 2: 0.5, 3: 2.0}}, "validated": {"validation_split": 0.25}}.items():
    model, y = teach("sparse", keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.1, 5, 0.9), momentum=0.9))
    student, plain = apply.narrower(model), apply.narrower(model)
    plain.set_weights(student.get_weights())
    plain.compile(keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.1, 5, 0.9), momentum=0.9), model.loss)
    expected = plain.fit(x, y, epochs=3, batch_size=32, verbose=0, shuffle=False, **more).history
    history, _ = quiet(model, student, x, y, epochs=3, batch_size=32, hard=1.0, **more)
    found["hard, " + name] = {
        "off": max(float(np.abs(a - b).max()) for a, b in zip(student.get_weights(), plain.get_weights())),
        "losses": [history["loss"], expected["loss"]],
        "validated": [history.get("val_loss"), expected.get("val_loss")],
    }

# Probabilities or logits: the same student.
logits, y = teach("sparse logits")
soft = make(4, "softmax"); soft.set_weights(logits.get_weights())
soft.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
students = [apply.narrower(logits), apply.narrower(soft)]
students[1].set_weights(students[0].get_weights())
for teacher, student in zip((logits, soft), students):
    quiet(teacher, student, x, y, epochs=2, batch_size=32)
found["alike"] = max(float(np.abs(a - b).max()) for a, b in zip(*(s.get_weights() for s in students)))

# The formula, against NumPy in float64.
a, b = rng.standard_normal((8, 5)) * 2, rng.standard_normal((8, 5)) * 2
def softmax(z): return np.exp(z) / np.exp(z).sum(-1, keepdims=True)
def sigmoid(z): return 1 / (1 + np.exp(-z))
T = 3.0
p, q = softmax(a / T), softmax(b / T)
u, v = sigmoid(a / T), sigmoid(b / T)
wanted = {
    "classes": T * T * (p * np.log(p / q)).sum(-1).mean(),
    "binary": T * T * (u * np.log(u / v) + (1 - u) * np.log((1 - u) / (1 - v))).mean(),
    "values": ((a - b) ** 2).mean(),
}
from tf_mem_magic.remedies.deploy._meaning import Meaning
given = {("classes", True): (a, b), ("classes", False): (softmax(a), softmax(b)), ("binary", True): (a, b),
         ("binary", False): (sigmoid(a), sigmoid(b)), ("values", False): (a, b)}
found["formula"] = {f"{k} {l}": [float(_soft_loss(Meaning(k, l), T)(tf.constant(m, tf.float32), tf.constant(n, tf.float32))), float(wanted[k])]
                    for (k, l), (m, n) in given.items()}
# Gradients of the softened part stay as large at any temperature: for logits near zero they do not depend on it.
grads = []
for T in (10.0, 100.0):
    z = tf.Variable(tf.constant(b * 0.01, tf.float32))
    with tf.GradientTape() as tape:
        loss = _soft_loss(Meaning("classes", True), T)(tf.constant(a * 0.01, tf.float32), z)
    grads.append(tape.gradient(loss, z).numpy())
found["gradients"] = [float(np.abs(grads[0] - grads[1]).max()), float(np.abs(grads[0]).max())]

# Data in other forms, and half precision.
model, y = teach("sparse")
class Rows(keras.utils.PyDataset):
    def __len__(self): return 4
    def __getitem__(self, i): return x[i * 64:][:64], y[i * 64:][:64]
ds = tf.data.Dataset.from_tensor_slices((x, y)).batch(64)
for name, args, more in (
    ("dataset", (ds,), {}), ("PyDataset", (Rows(),), {}),
    ("repeated dataset", (ds.repeat(),), {"steps_per_epoch": 4}), ("validation", (x, y), {"validation_data": ds}),
):
    student = apply.narrower(model)
    history, found[name] = quiet(model, student, *args, epochs=2, **more)
eager, y = teach("sparse", run_eagerly=True)
found["eager"] = quiet(eager, apply.narrower(eager), x, y, epochs=1)[1]
keras.config.set_dtype_policy("mixed_float16")
half, y = teach("sparse")
keras.config.set_dtype_policy("float32")
student = apply.narrower(half)
found["half"] = [quiet(half, student, x, y, epochs=2)[1], student.layers[0].dtype_policy.name]

def refusal(call):
    try:
        call()
    except (TypeError, ValueError) as error:
        return str(error)
    return ""

def compiled(loss, last="softmax", **more):
    model = make(4, last); model.compile("adam", loss, **more)
    return model
i = keras.Input((12,))
two = keras.Model(i, [L.Dense(8)(i), L.Dense(8)(i)]); two.compile("adam", ["mse", "mse"])
class Stepping(keras.Sequential):
    def train_step(self, data): return super().train_step(data)
own = Stepping([keras.Input((12,)), L.Dense(16), L.Dense(4)]); own.compile("adam", "mse")
mean = lambda a, b: keras.ops.mean(a - b)
refused = {
    "not compiled": make(4, "softmax"), "own loss": compiled(mean), "another loss": compiled("kl_divergence"),
    "logits said, softmax found": compiled(losses.SparseCategoricalCrossentropy(from_logits=True)),
    "probabilities said, none found": compiled("sparse_categorical_crossentropy", "linear"),
    "several outputs": two, "own step": own, "no model": 3,
}
found["refused"] = {k: [refusal(lambda: apply.distill(m, make(4, "softmax", 8), x, classes)), why_not(m)] for k, m in refused.items()}
good = teach("sparse")[0]
found["refused"]["other outputs"] = [refusal(lambda: apply.distill(good, make(3, "softmax"), x, classes))] * 2
found["refused"]["itself"] = [refusal(lambda: apply.distill(good, good, x, classes))] * 2
found["refused"]["temperature"] = [refusal(lambda: apply.distill(good, make(4, "softmax"), x, classes, temperature=0))] * 2
found["refused"]["share"] = [refusal(lambda: apply.distill(good, make(4, "softmax"), x, classes, hard=1.5))] * 2
found["refused"]["a generator"] = [refusal(lambda: apply.distill(good, make(4, "softmax"), (r for r in [(x, y)])))] * 2
print("FOUND" + json.dumps(found))
"""

KINDS = (
    "sparse",
    "sparse logits",
    "one hot",
    "yes or no",
    "yes or no, logits",
    "several labels",
    "numbers",
    "numbers by Huber",
)
REFUSED = {
    "not compiled": "not compiled with a loss",
    "own loss": "is not known here",
    "another loss": "`kl_divergence` is not known here",
    "logits said, softmax found": "expects logits, but the last layer's activation is `softmax`",
    "probabilities said, none found": "expects probabilities, but the last layer's activation is `linear`",
    "several outputs": "several outputs",
    "own step": "",
    "no model": "",
    "other outputs": "the outputs differ",
    "itself": "shares weights",
    "temperature": "more than 0",
    "share": "0 to 1",
    "a generator": "whose next batch would be lost",
}


@pytest.fixture(scope="module")
def found():
    return found_by(SCRIPT, env=bfc(512))


@pytest.mark.tf
@pytest.mark.parametrize("kind", KINDS)
def test_the_teacher_and_its_optimizer_stay_bit_for_bit(found, kind):
    assert (True, True) == (found[kind]["untouched"], found[kind]["loss"])


@pytest.mark.tf
@pytest.mark.parametrize("kind", KINDS)
def test_a_student_comes_nearer_to_what_the_teacher_says(found, kind):
    assert found[kind]["near"] < 0.8 * found[kind]["far"]
    assert found[kind]["falls"]


@pytest.mark.tf
@pytest.mark.parametrize("kind", KINDS)
def test_the_student_is_compiled_alike_with_an_optimizer_of_its_own(found, kind):
    assert (["Adam", False], True, "") == (found[kind]["optimizer"], found[kind]["compiled"], found[kind]["why"])


@pytest.mark.tf
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_printed_was_measured(found, kind):
    one = found[kind]
    assert "numbers in the weights: {:,} → {:,}\n".format(*one["params"]) in one["text"]
    for name in one["results"][0]:
        first, second = (result[name] for result in one["results"])
        assert f"{name} on the training data: {first:.4g} → {second:.4g}\n" in one["text"]
    assert re.search(r"one batch of 32 predicted: [\d.]+ ms → [\d.]+ ms\n", one["text"])
    assert re.search(r"peak of that beside the weights: [\d.]+ → [\d.]+ [KM]?i?B\n", one["text"])


@pytest.mark.tf
@pytest.mark.parametrize("name", ["plain", "weighted", "validated"])
def test_with_the_datas_own_loss_alone_it_is_a_plain_fit(found, name):
    one = found[f"hard, {name}"]
    assert one["off"] < 1e-5
    assert one["losses"][0] == pytest.approx(one["losses"][1], rel=1e-4)
    assert one["validated"][0] == (one["validated"][1] and pytest.approx(one["validated"][1], rel=1e-4))


@pytest.mark.tf
def test_probabilities_and_logits_teach_the_same(found):
    assert found["alike"] < 2e-4


@pytest.mark.tf
@pytest.mark.parametrize("case", ["classes True", "classes False", "binary True", "binary False", "values False"])
def test_the_softened_loss_is_the_formula(found, case):
    seen, wanted = found["formula"][case]
    assert seen == pytest.approx(wanted, rel=1e-4)


@pytest.mark.tf
def test_gradients_stay_as_large_at_any_temperature(found):
    off, largest = found["gradients"]
    assert off < 0.01 * largest


@pytest.mark.tf
@pytest.mark.parametrize("name", ["dataset", "PyDataset", "repeated dataset"])
def test_it_learns_from_data_that_come_in_batches(found, name):
    assert "one batch of 64 predicted" in found[name]
    assert "accuracy on the training data" in found[name]


@pytest.mark.tf
def test_results_are_those_on_the_validation_data_where_there_are_some(found):
    assert "accuracy on the validation data" in found["validation"]


@pytest.mark.tf
def test_it_works_eagerly_and_in_half_precision(found):
    assert "accuracy on the training data" in found["eager"]
    assert ("mixed_float16", True) == (found["half"][1], "accuracy on the training data" in found["half"][0])


@pytest.mark.tf
@pytest.mark.parametrize("name", REFUSED)
def test_what_it_cannot_be_certain_of_is_refused(found, name):
    refusal, why = found["refused"][name]
    assert (True, True) == (REFUSED[name] in refusal and bool(refusal), bool(why))
