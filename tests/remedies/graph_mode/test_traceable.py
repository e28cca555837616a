"""What Keras calls and takes the size of its batch as a Python number does not become a graph."""

from __future__ import annotations

import pytest

from tests.kernel import bfc
from tests.remedies.graph_mode.test_remedy import BUILD, COMPILED, EAGER, FIT, IMPORTS, STEP, ask
from tests.script import found_by
from tf_mem_magic.core.proposals import Declined, Proposal

DICE = """def dice(y_true, y_pred):
    total = 0
    for i in range({0}):
        total = tf.reduce_sum(y_true[i] * y_pred[i]) + total
    return 1.0 - total
"""
NET = """class Net(keras.Model):
    def train_step(self, data):
        {0}
        return {{"loss": loss}}
"""
COUNTING = {
    "a loss over samples": (DICE.format("y_true.shape[0]"), "`dice` takes `y_true.shape[0]` as a number"),
    "by len": (DICE.format("len(y_pred)"), "`dice` takes `len(y_pred)` as a number"),
    "by get_shape": (DICE.format("y_true.get_shape()[0]"), "`dice` takes `y_true.get_shape()[0]`"),
    "by a list": (DICE.format("y_true.shape.as_list()[0]"), "`dice` takes `y_true.shape.as_list()[0]`"),
    "through a name": (
        DICE.format("n").replace("    total = 0\n", "    total = 0\n    n = y_true.shape[0]\n"),
        "`dice` takes `y_true.shape[0]`",
    ),
    "unpacked": (
        "def dice(a, b):\n    n, h, w, c = a.shape\n    return tf.reduce_sum(a * b) / n\n",
        "`dice` takes the first of `a.shape`",
    ),
    "in a function that it calls": (
        "def parts(values):\n    return [values[i] for i in range(values.shape[0])]\n"
        "def dice(a, b):\n    return tf.add_n(parts(b))\n",
        "`parts` takes `values.shape[0]`",
    ),
    "in a step": (
        NET.format("x, y = data\n        loss = self(tf.random.normal((x.shape[0], 8)))")
        + "def dice(a, b):\n    return tf.reduce_mean(a - b)\n",
        "`train_step` takes `x.shape[0]`",
    ),
    "in a step, by an entry": (
        NET.format("images = data[0]\n        loss = self(images) / len(images)")
        + "def dice(a, b):\n    return tf.reduce_mean(a - b)\n",
        "`train_step` takes `len(images)`",
    ),
}
NOT_COUNTING = {
    "a dynamic shape": DICE.format("tf.shape(y_true)[0]").replace("range", "tf.range"),
    "another axis": DICE.format("y_true.shape[1]"),
    "a weight's shape": NET.format("loss = self.table.shape[0] * tf.reduce_mean(data[0])") + DICE.format("3"),
    "where it is known": DICE.format("3").replace(
        "    total = 0\n", "    total = 0 if y_true.shape[0] is None else 1e-7\n"
    ),
    "a shape whose first is not read": "def dice(a, b):\n    n, h = a.shape\n    return tf.reduce_sum(a * b) / h\n",
    "a list of weights": NET.format("loss = data[0] / len(self.parts)") + DICE.format("3"),
}


@pytest.mark.parametrize("earlier", [True, False])
@pytest.mark.parametrize("name", COUNTING)
def test_a_batch_that_is_counted_in_python_stays_eager(name, earlier):
    source, reason = COUNTING[name]
    trains = COMPILED.replace('"mse"', "dice")
    answer = ask(FIT, EAGER, earlier=(IMPORTS, source + trains)) if earlier else ask(source + trains)
    assert isinstance(answer, Declined), answer.diff
    assert reason in answer.reason
    assert answer.reason.endswith("as a number, which a graph may not know")


@pytest.mark.parametrize("name", NOT_COUNTING)
def test_other_lengths_do_not_hinder_a_graph(name):
    assert isinstance(ask(NOT_COUNTING[name] + COMPILED.replace('"mse"', "dice")), Proposal)


RUN = """
import json, sys
import keras, numpy as np, tensorflow as tf
given = json.load(sys.stdin)
x, y = np.ones((4, 64, 64), "float32"), np.ones((4, 64, 1), "float32")
found = {}
for eager in (True, False):
    names = {"keras": keras, "tf": tf}
    exec(given["source"].replace("run_eagerly=True", f"run_eagerly={eager}"), names)
    try:
        names["model"].fit(x, y, verbose=0)
        found[str(eager)] = ""
    except Exception as error:
        found[str(eager)] = type(error).__name__
print("FOUND" + json.dumps(found))
"""


@pytest.mark.tf
@pytest.mark.timeout(300)
def test_such_a_loss_trains_eagerly_and_not_in_a_graph():
    source = DICE.format("y_true.shape[0]") + BUILD + 'model.compile("adam", dice, run_eagerly=True)\n'
    assert found_by(RUN, {"source": source}, bfc(512)) == {"True": "", "False": "TypeError"}


CALLED = {
    "of the cell": ("SCC = keras.losses.MeanSquaredError()\n", "SCC(target, found)", ()),
    "of an earlier cell": ("", "SCC(y_true=target, y_pred=found)", ("SCC = tf.keras.losses.MeanSquaredError()",)),
    "of a class of the notebook": ("", "tf.reduce_sum(Cost(target, found))", ("class C: ...\nCost = C()\n",)),
    "by two names": ("BCE = L = tf.losses.BinaryCrossentropy(True)\n", "BCE(target, found)", ()),
}
NEW = {
    "a class": ("", "SCC()(target, found)", ("from keras.losses import MeanSquaredError as SCC",)),
    "an alias": ("SCC = keras.losses.MeanSquaredError\n", "SCC()(target, found)", ()),
    "an object once, a class later": (
        "SCC = keras.losses.MeanSquaredError\n",
        "SCC()(target, found)",
        ("SCC = keras.losses.MeanSquaredError()",),
    ),
    "an object, or one of a loop": ("", "SCC()(target, found)", ("SCC = A()\nfor SCC in classes: pass\n",)),
    "a class of the notebook": ("", "SCC()(target, found)", ("class SCC: ...\n", "SCC = SCC()")),
}


@pytest.mark.parametrize("name", CALLED)
def test_an_object_with_a_capital_name_is_called_and_not_made(name):
    made, loss, earlier = CALLED[name]
    source = BUILD + made + STEP.format("").replace("tf.reduce_mean((target - found) ** 2)", loss)
    answer = ask(source, earlier=(IMPORTS, *earlier))
    assert isinstance(answer, Proposal), answer.reason
    assert "@tf.function" in answer.source


@pytest.mark.parametrize("name", NEW)
def test_a_class_makes_a_new_object_at_each_call(name):
    made, loss, earlier = NEW[name]
    source = BUILD + made + STEP.format("").replace("tf.reduce_mean((target - found) ** 2)", loss)
    assert "makes a new `SCC`" in ask(source, earlier=(IMPORTS, *earlier)).reason
