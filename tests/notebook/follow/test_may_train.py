"""Code that surely trains nothing: all calls are followed, or known; what is neither may train."""

from __future__ import annotations

import pytest

from tf_mem_magic.core.facts import Facts, ModelFacts
from tf_mem_magic.notebook.follow.may_train import infers
from tf_mem_magic.notebook.follow.reader import Reader
from tf_mem_magic.notebook.text.cell import PythonCell, read_cell

KNOWN = "\n".join(
    [
        "import time, math, keras",
        "import numpy as np",
        "import tensorflow as tf",
        "import matplotlib.pyplot as plt",
        "from tqdm import tqdm",
        "from tensorflow.keras import layers",
        "from engines import engine",
        "import engines",
        "loss_fn = tf.keras.losses.MeanSquaredError()",
        "metric = keras.metrics.Mean(name='loss')",
    ]
)
TAPE = (
    "with tf.GradientTape() as t:\n        l = loss_fn(y, model(x))\n    opt.apply_gradients(zip(t.gradient(l, v), v))"
)
STEP = f"def fine_print(x, y):\n    {TAPE}\n    return l"


def told(code, *earlier):
    cell = read_cell(code)
    assert isinstance(cell, PythonCell)
    reader = Reader(
        cell, Facts(models=(ModelFacts("model"), ModelFacts("gan.critic")), earlier_cells=(KNOWN, *earlier))
    )
    return infers(reader, cell.tree.body)


@pytest.mark.parametrize(
    "code",
    [
        "for x, y in val:\n    print(loss_fn(y, model(x)))",
        "for x, y in val:\n    metric.update_state(loss_fn(y, model(x, training=False)))\nprint(metric.result())",
        "start = time.time()\nfor x in tqdm(val):\n    out.append(np.argmax(model.predict(x), axis=1))",
        "score = gan.critic(x)",
        "p = model.predict_on_batch(x).reshape(-1).tolist()",
        "net = keras.Sequential([layers.Dense(1)])\nnet(x)",
        "f = tf.function(lambda x: model(x))\nf(x)",
        "def go(x, m=None):\n    return m(x, training=False)\nstrategy.run(go, args=(x,))",
        "with tqdm(val) as bar:\n    for x in bar:\n        model(x)\n        bar.set_postfix(n=1)\n        bar.update(1)",
        "results = {}\nresults.update({'p': model.predict(x)})",
        "ax.plot(model.predict(x))\nplt.show()",
        "mymodel(x, training=False)",
    ],
)
def test_what_infers(code):
    assert told(code) is True


@pytest.mark.parametrize(
    "code",
    [
        "for x, y in val:\n    print(x.shape, len(y), np.mean(x))",
        "total = sum(float(loss_fn(a, b)) for a, b in pairs)",
        "for name in names:\n    texts.append(name.strip().lower())",
    ],
)
def test_what_neither_infers_nor_trains(code):
    assert told(code) is False


CLASSES = [
    "class Agent:\n    def replay(self, x, y):\n        self.learn_from(x, y)\n    def learn_from(self, x, y):\n        self.net.fit(x, y)\n    def act(self, x):\n        return self.net.predict(x)\nagent = Agent()",
    f"class Base:\n    def replay(self, x, y):\n        return fine_print(x, y)\n{STEP}\nclass Agent(Base):\n    def act(self, x):\n        return self.model.predict(x)\nagent = Agent()",
    f"class Agent:\n    def __init__(self):\n        self.go = fine_print\n    def replay(self, x, y):\n        return self.go(x, y)\n    def act(self, x):\n        return np.argmax(x)\n{STEP}\nagent = Agent()",
]


@pytest.mark.parametrize("cls", CLASSES)
def test_methods_of_the_notebooks_classes_are_followed(cls):
    assert told("for x, y in val:\n    agent.replay(x, y)", cls) is None
    assert told("for x, y in val:\n    agent.act(x)", cls) is not None


@pytest.mark.parametrize(
    "code",
    [
        "agent.replay(x, y)",
        "engine(x, y)",
        "engines.run(x, y)",
        "fine_print(x, y)",
        "list(map(fine_print, xs, ys))",
        "go = fine_print\ngo(x, y)",
        "go = tf.function(fine_print)\ngo(x, y)",
        "import functools\ngo = functools.partial(fine_print, x)\ngo(y)",
        "runs = [fine_print]\nruns[0](x, y)",
        "def wrap(f):\n    return f(1, 2)\nwrap(fine_print)",
        "def make():\n    return fine_print\nmake()(x, y)",
        "def make():\n    def inner(x, y):\n        return fine_print(x, y)\n    return inner\ngo = make()\ngo(x, y)",
        "model.fit(x, y)",
        "model.train_on_batch(x, y)",
        "model(x, training=True)",
        "model.adapt_to(x)",
        "memory.update(x)",
        "trainer.step(x)",
        "strategy.run(fine_print, args=(x, y))",
        "model.train_function(iter(val))",
        "(lambda x: engine(x, x))(x)",
        "unknown(x)",
    ],
)
def test_what_is_not_known_may_train(code):
    assert told(code, STEP) is None


def test_a_model_that_a_function_is_given_is_known():
    go = "def go(m, x, *, by=None):\n    return m(by or x)"
    assert told("go(model, x)", go) is True
    assert told("go(x=1, m=model)", go) is True
    assert told("go(engine, x)", go) is None
    assert told("go(*both)", go) is None


def test_a_function_may_have_any_word_in_its_name():
    assert told("restore_step_epoch(x)", "def restore_step_epoch(x):\n    return np.mean(model.predict(x))") is True
    assert told("adapt(1)", "def adapt(n):\n    return n + 1") is False


def test_a_model_of_the_notebooks_own_class_is_followed():
    net = "class Net(keras.Model):\n    def call(self, x):\n        return self.dense(x)\n    def __init__(self):\n        self.dense = layers.Dense(1)\nnet = Net()"
    assert told("net(x)", net) is True
    trains = f"class Net:\n    def __call__(self, x, y):\n        return fine_print(x, y)\n{STEP}\nnet = Net()"
    assert told("net(x, y)", trains) is None
