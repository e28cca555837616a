"""The remedy ``graph-mode``: which steps become a graph, which are declined, and that they train alike in less."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernel import bfc
from tests.script import found_by
from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.facts import Facts, ModelFacts
from tf_mem_magic.core.proposals import Context, Declined, Proposal
from tf_mem_magic.core.recording import Cell, Recording
from tf_mem_magic.remedies.graph_mode.remedy import propose

IMPORTS = "import keras\nimport tensorflow as tf\n"
BUILD = """inputs = keras.Input((64, 64)); h = inputs
for _ in range(3):
    h = keras.layers.LayerNormalization()(keras.layers.Dense(64, "gelu")(h))
model = keras.Model(inputs, keras.layers.Dense(1)(h))
"""
STEP = """optimizer = keras.optimizers.Adam(0.01)
def loss_of(target, found):
    return tf.reduce_mean((target - found) ** 2)

{0}def step(a, b):
    with tf.GradientTape() as tape:
        loss = loss_of(b, model(a, training=True))
    grads = tape.gradient(loss, model.trainable_variables)
    optimizer.apply_gradients(zip(grads, model.trainable_variables))
    return loss

losses = []
for i in range(0, 160, 64):
    losses.append(float(step(x[i:i + 64], y[i:i + 64])))
"""
FIT = "model.fit(x, y, batch_size=64, shuffle=False, verbose=0)\n"
COMPILED = BUILD + 'model.compile("adam", "mse", run_eagerly=True)\n' + FIT
EAGER = ModelFacts("model", ("Dense",), run_eagerly=True, steps_before=0)


def ask(source, *models, line=None, earlier=(IMPORTS,), device="GPU:0", **more):
    cell = Cell(source)
    facts = Facts("2.21.0", "3.15.1", True, models=models, earlier_cells=earlier)
    diagnosis = Diagnosis(device, line=line or len(source.splitlines()), **more)
    (only,) = propose(Context(cell, Recording(cell, status="oom", facts=facts), diagnosis))
    return only


TRAINED = {"a loop": (BUILD + STEP.format(""), ()), "compile": (COMPILED, ()), "an earlier model": (FIT, (EAGER,))}
RUN = """
import gc, json, sys
import keras, numpy as np, tensorflow as tf
rng = np.random.default_rng(0)
x = rng.standard_normal((160, 64, 64)).astype("float32"); y = rng.standard_normal((160, 64, 1)).astype("float32")
def ran(source, names):
    gc.collect(); start = tf.config.experimental.get_memory_info("CPU:0")["current"]
    tf.config.experimental.reset_memory_stats("CPU:0")
    exec(source, names)
    return [tf.config.experimental.get_memory_info("CPU:0")["peak"] - start, names["model"].get_weights()]
found = {}
build = json.load(sys.stdin)
for name, (original, edited, undo) in build["cells"].items():
    results = []
    for source in (original, edited):
        keras.utils.set_random_seed(3)
        names = {"keras": keras, "tf": tf, "x": x, "y": y}
        if "model =" not in source:
            exec(build["earlier"], names)
        results.append(ran(source, names))
    gap = float(max(np.abs(p - q).max() for p, q in zip(results[0][1], results[1][1])))
    found[name] = {"peaks": [r[0] for r in results], "gap": gap, "eager": [bool(names["model"].run_eagerly)]}
    if undo:
        exec(undo, names); exec(original, names); found[name]["eager"].append(bool(names["model"].run_eagerly))
print("FOUND" + json.dumps(found))
"""


@pytest.fixture(scope="module")
def ran():
    cells = {}
    for name, (source, models) in TRAINED.items():
        answer = ask(source, *models)
        assert isinstance(answer, Proposal), answer.reason
        cells[name] = (source, answer.source, answer.undo)
    return found_by(RUN, {"cells": cells, "earlier": COMPILED}, bfc(1024))


@pytest.mark.tf
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", TRAINED)
def test_the_graph_trains_nearly_the_same_weights(ran, name):
    assert ran[name]["gap"] < 1e-4


@pytest.mark.tf
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["a loop", "compile"])
def test_the_graph_takes_less_at_its_peak(ran, name):
    before, after = ran[name]["peaks"]
    assert after < 0.95 * before


@pytest.mark.tf
@pytest.mark.timeout(900)
def test_an_earlier_model_runs_as_a_graph_and_eagerly_again_after_undo(ran):
    assert [False, True] == ran["an earlier model"]["eager"]


def changed(old, new):
    return BUILD + STEP.format("").replace(old, new)


DECLINES = {
    "print": (changed("    return loss\n", "    print(loss)\n    return loss\n"), "calls `print`"),
    "numpy": (changed("return loss\n", "return loss.numpy()\n"), "calls `.numpy()`"),
    "append": (changed("return loss\n", "losses.append(loss)\n"), "calls `losses.append`"),
    "float": (changed("return loss\n", "return float(loss)\n"), "calls `float`"),
    "a dict": (changed("return loss\n", "state['loss'] = loss\n"), "sets `state['loss']`"),
    "an attribute": (changed("return loss\n", "model.last = loss\n"), "sets `model.last`"),
    "a global": (changed("    with", "    global count\n    with"), "the outer name `count`"),
    "NumPy": (changed("    with", "    a = a + np.random.normal()\n    with"), "uses `np`"),
    "a new object": (changed("    with", "    metric = keras.metrics.Mean()\n    with"), "makes a new `Mean`"),
    "a counter that is read": (changed("    with", "    k = 0.1 * i\n    with"), "reads `i`"),
    "a counter that is given": (changed("step(x[i:i + 64], y[i:i + 64])", "step(x, y, i)"), "given `i`"),
    "a helper with an effect": (
        changed("    return tf.r", "    print(found)\n    return tf.r"),
        "`loss_of` calls `print`",
    ),
    "a graph by decorator": (BUILD + STEP.format("@tf.function\n"), "a graph already"),
    "a graph by a call": (changed("losses = []\n", "losses = []\nstep = tf.function(step)\n"), "a graph already"),
    "a graph with a loop inside": (
        "@tf.function\ndef train_step(x, y):\n    with tf.GradientTape() as tape:\n        loss = 0.0\n"
        "        for i in range(1, y.shape[1]):\n            loss += loss_of(y[:, i], model(x))\n"
        "    optimizer.apply_gradients(zip(tape.gradient(loss, w), w))\nfor a, b in data:\n    train_step(a, b)\n",
        "`train_step` is a graph already",
    ),
    "a graph that leaves the update to another": (
        "@tf.function(reduce_retracing=True)\ndef grads_of(a):\n    with tf.GradientTape() as t:\n        loss = f(a)\n"
        "    return t.gradient(loss, w)\nfor a in data:\n    optimizer.apply_gradients(zip(grads_of(a), w))\n",
        "`grads_of` is a graph already",
    ),
    "a graph by tensorflow's own name": (
        "@tensorflow.function\ndef learn(a):\n    while True:\n        with tensorflow.GradientTape() as t:\n"
        "            loss = f(a)\n        optimizer.apply_gradients(zip(t.gradient(loss, w), w))\nlearn(x)\n",
        "`learn` is a graph already",
    ),
    "handed on": (changed("losses = []\n", "losses = []\nsteps = [step]\n"), "not simply called"),
    "no function": (
        "for a, b in data:\n    with tf.GradientTape() as tape:\n        loss = f(a)\n"
        "    w.assign_sub(0.1 * tape.gradient(loss, w))\n",
        "not one function",
    ),
    "weights updated by a sum": (
        "with tf.GradientTape() as tape:\n    loss = f(image)\nimage += rate * tape.gradient(loss, image)\n",
        "not one function",
    ),
    "gradients alone": (
        "with tf.GradientTape() as tape:\n    z = f(w)\ntape.gradient(z, [w])\n",
        "takes gradients, and no update of weights",
    ),
    "gradients of a picture": (
        "def saliency(x):\n    with tf.GradientTape() as t:\n        out = model(x)\n    return t.gradient(out, x)\n"
        "plt.imshow(saliency(x))\n",
        "takes gradients, and no update of weights",
    ),
    "a counter beside gradients": (
        "n = 0\nfor a in data:\n    n += 1\n    with tf.GradientTape() as t:\n        out = model(a)\n",
        "takes gradients, and no update of weights",
    ),
    "gradients in a function": (
        "def grads_of(a):\n    with tf.GradientTape() as t:\n        loss = f(a)\n    return t.gradient(loss, w)\n"
        "for a in data:\n    optimizer.apply_gradients(zip(grads_of(a), w))\n",
        "`grads_of` takes the gradients without `apply_gradients`",
    ),
    "a step without an optimizer": (
        "def descend(a):\n    with tf.GradientTape() as t:\n        loss = f(a)\n"
        "    w.assign_sub(0.1 * t.gradient(loss, w))\ndescend(x)\n",
        "`descend` takes the gradients without `apply_gradients`",
    ),
    "two steps": (
        STEP.format("") + STEP.format("").replace("step(", "other(") + "other(x, y)\n",
        "more than one function takes a training step: `step`, `other`",
    ),
    "no loop": ("z = 1", "no training loop of its own"),
    "off": (COMPILED.replace("=True)", "=False)"), "or is off"),
    "a variable": (COMPILED.replace("=True)", "=debug)"), "cannot be followed"),
    "functions run eagerly": ("tf.config.run_functions_eagerly(True)\n" + COMPILED, "run_functions_eagerly"),
    "a layer that prints": (
        "class Mine(keras.layers.Layer):\n    def call(self, x):\n        print(x)\n        return x\n" + COMPILED,
        "`call` calls `print`",
    ),
    "a layer that branches": (
        "class Mine(keras.layers.Layer):\n    def call(self, x):\n        if x > 0:\n            x = -x\n        return x\n"
        + COMPILED,
        "branches on `x > 0`",
    ),
    "a loss with NumPy": (
        "def own(a, b):\n    return np.mean(a - b)\n" + COMPILED.replace('"mse"', "own"),
        "`own` uses `np`",
    ),
}


FUNCTIONS = "tf.config.run_functions_eagerly"
GRAPHS = [
    f"# {FUNCTIONS}(True)\n",
    f"{FUNCTIONS}(False)\n",
    f"{FUNCTIONS}(run_eagerly=False)\n",
    f"{FUNCTIONS}(True)\n{FUNCTIONS}(False)\n",
    f'"""{FUNCTIONS}(True) shows what a function holds."""\n',
]
EAGERLY = [
    f"{FUNCTIONS}(True)\n",
    f"{FUNCTIONS}(debug)\n",
    f"{FUNCTIONS}(False)\n{FUNCTIONS}(run_eagerly=True)\n",
    f"if debug:\n    {FUNCTIONS}(True)\nelse:\n    {FUNCTIONS}(False)\n",
]


@pytest.mark.parametrize("where", ["here", "earlier"])
@pytest.mark.parametrize("text", GRAPHS + EAGERLY)
def test_functions_run_eagerly_where_a_call_says_so_last(text, where):
    cell, earlier = (text + COMPILED, (IMPORTS,)) if where == "here" else (COMPILED, (IMPORTS, text))
    answer = ask(cell, earlier=earlier)
    assert isinstance(answer, Proposal if text in GRAPHS else Declined)
    assert text in GRAPHS or "run_functions_eagerly is used" in answer.reason


LOOP = STEP.format("").partition("losses = []\n")[0]
NUMBERS = {
    "an entry": ("xs = [0.1, -0.2, 0.3]\nfor i in range(3):\n    step(xs[i], y[i])\n", "xs[i]"),
    "a part": ("xs = list(range(9))\nfor i in range(3):\n    step(xs[i : i + 4], y)\n", "xs[i:i + 4]"),
    "a loop": ("for rate in (0.1, 0.2):\n    step(rate, y)\n", "rate"),
    "a loop over a name": ("xs = table.tolist()\nfor v in xs:\n    step(v, y)\n", "v"),
    "a loop over two": ("xs = [1, 2]\nfor k, (v, b) in enumerate(zip(xs, y)):\n    step(v, b)\n", "v"),
    "a loop over what is computed": ("xs = [0.1 * i for i in range(9)]\nfor v in tqdm(xs):\n    step(v, y)\n", "v"),
}
ARRAYS = {
    "an array": "xs = np.array([0.1, 0.2])\nfor i in range(2):\n    step(xs[i], y[i])\n",
    "a list that became an array": "xs = [0.1, 0.2]\nxs = np.array(xs)\nfor i in range(2):\n    step(xs[i], y[i])\n",
    "a list of arrays": "xs = [a, b]\nfor v in xs:\n    step(v, y)\n",
    "a list that is filled": "xs = []\nfor v in data:\n    xs.append(v)\nfor v, b in zip(xs, y):\n    step(v, b)\n",
    "a fixed entry": "xs = [0.1, 0.2]\nfor a, b in data:\n    step(a, xs[0])\n",
    "arrays computed of numbers": "xs = [load(i) for i in range(9)]\nfor v in xs:\n    step(v, y)\n",
}


@pytest.mark.parametrize("name", NUMBERS)
def test_each_number_of_a_list_would_be_traced_anew(name):
    loop, told = NUMBERS[name]
    answer = ask(LOOP + loop)
    assert isinstance(answer, Declined), answer.diff
    assert f"is given `{told}`, which may be a Python number" in answer.reason


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_and_what_stays_are_traced_once(name):
    assert isinstance(ask(LOOP + ARRAYS[name]), Proposal)


BARE = LOOP.replace("step(a, b)", "step()")
SET_ANEW = {
    "by a loop": "for a, b in data:\n    step()\n",
    "by a loop that counts": "for i, (a, b) in enumerate(data):\n    step()\n",
    "in a loop": "for i in range(9):\n    a, b = load(i)\n    step()\n",
    "parts": "for i in range(9):\n    a = x[i : i + 4]\n    b = y[i : i + 4]\n    step()\n",
    "without end": "while True:\n    (a, b) = next(batches)\n    step()\n",
    "between two calls": "a, b = x, y\nstep()\na = more\nstep()\n",
    "by a function": "def load():\n    global a\n    a = next(batches)\nb = y\nfor _ in range(9):\n    load()\n    step()\n",
    "an attribute": "a, b = x, y\nfor i in range(9):\n    model.trainable_variables = i\n    step()\n",
    "as a context": "for name in names:\n    with opened(name) as a:\n        step()\n",
    "the model": "a, b = x, y\nfor rate in rates:\n    model = build(rate)\n    step()\n",
}
STAYS = {
    "a learning rate that falls": "a, b = x, y\nfor i in range(9):\n    optimizer.learning_rate *= 0.9\n    step()\n",
    "a learning rate": "a, b = x, y\nfor i in range(9):\n    optimizer.learning_rate = 0.1 / (i + 1)\n    step()\n",
    "an attribute that is not read": "a, b = x, y\nfor i in range(9):\n    model.seen = i\n    step()\n",
    "before the loop": "a, b = x, y\nfor _ in range(9):\n    step()\n",
    "in another function": "a, b = x, y\ndef show():\n    for a, b in data:\n        draw(a)\nfor _ in range(9):\n    step()\n",
    "by a loop before": "for a, b in data.take(1):\n    show(a)\nfor _ in range(9):\n    step()\n",
    "in a list": "a, b = x, y\nfor _ in range(9):\n    step()\n    seen = [a for a in data]\n",
    "after the last call": "a, b = x, y\nstep()\na = None\n",
}


@pytest.mark.parametrize("name", SET_ANEW)
def test_a_step_that_reads_what_is_set_anew_would_keep_the_first(name):
    answer = ask(BARE + SET_ANEW[name])
    assert isinstance(answer, Declined), answer.diff
    assert "changes: a graph would keep its first value" in answer.reason


@pytest.mark.parametrize("name", STAYS)
def test_a_step_that_reads_what_stays_becomes_a_graph(name):
    assert isinstance(ask(BARE + STAYS[name]), Proposal)


BETA = "class Net(keras.Model):\n    def train_step(self, data):\n        return {'loss': self.beta * self(data)}\n"
CALLBACK = "class Warm(keras.callbacks.Callback):\n    def on_epoch_end(self, epoch, logs=None):\n        "


@pytest.mark.parametrize(
    ("method", "sets", "reads"),
    [
        (BETA, CALLBACK + "self.model.beta = 0.1 * epoch\n", "self.beta"),
        (BETA, CALLBACK + "net.beta += 0.1\n", "self.beta"),
        (BETA.replace("self.beta", "beta"), CALLBACK + "global beta\n        beta = epoch\n", "beta"),
        (BETA, CALLBACK + "self.model.beta.assign(epoch)\n", ""),
        (BETA, CALLBACK + "self.beta = epoch\n", ""),
        (BETA, "class Warm:\n    def __init__(self, model):\n        model.beta = 1.0\n", ""),
    ],
)
@pytest.mark.parametrize("earlier", [True, False])
def test_what_a_callback_sets_anew_would_stay_in_a_graph(method, sets, reads, earlier):
    answer = ask(COMPILED, earlier=(IMPORTS, method, sets)) if earlier else ask(method + sets + COMPILED)
    assert isinstance(answer, Declined if reads else Proposal)
    assert not reads or f"`train_step` reads `{reads}`, which changes" in answer.reason


@pytest.mark.parametrize("name", DECLINES)
def test_what_a_graph_would_do_otherwise_is_declined_with_its_reason(name):
    source, reason = DECLINES[name]
    answer = ask(source)
    assert isinstance(answer, Declined), answer.diff
    assert reason in answer.reason


@pytest.mark.parametrize(
    "known", [{"device": "host", "cause": "host"}, {"requested": 501, "limit": 500, "cause": "too-big"}]
)
def test_a_cause_that_a_graph_cannot_help_is_declined(known):
    assert isinstance(ask(COMPILED, **known), Declined)


def test_a_request_that_was_too_big_only_for_what_was_left_is_no_reason_to_decline():
    assert isinstance(ask(COMPILED, requested=300, in_use=300, limit=500, cause="too-big"), Proposal)


def test_a_callback_or_a_loader_with_effects_does_not_matter():
    source = "def load():\n    return np.load('x.npy')\n" + COMPILED
    assert isinstance(ask(source), Proposal)


def test_numerics_are_close_and_the_caveats_name_random_numbers():
    answer = ask(COMPILED)
    assert "close numerics" == answer.preserves
    assert any("dropout" in caveat for caveat in answer.caveats)


NOISE = st.lists(
    st.sampled_from(
        ["# run_eagerly", "note = f'{1} step'", "%matplotlib inline", "", "ü = 1", "!ls", "w = (1 +\n  2)"]
    ),
    max_size=4,
)


@given(st.sampled_from(sorted(TRAINED)), NOISE, st.sampled_from(["\n", "\r\n"]), st.sampled_from(["", "%%tfmem\n"]))
@settings(max_examples=100, deadline=None)
def test_what_is_outside_the_edit_stays_byte_for_byte(name, noise, end, tag):
    source, models = TRAINED[name]
    lead = (tag + "".join(line + "\n" for line in noise)).replace("\n", end)
    whole = lead + source.replace("\n", end)
    answer = ask(whole, *models)
    assert isinstance(answer, Proposal), answer.reason
    assert lead + ask(source, *models).source.replace("\n", end) == answer.source
    assert whole == answer.original


@given(st.text(alphabet='def step(a):\n @tf.function with GradientTape apply_gradients #%!?"[];\\\t\r', max_size=80))
@settings(max_examples=100, deadline=None)
def test_any_text_gets_an_answer(source):
    assert isinstance(ask(source or " "), (Proposal, Declined))


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("model.run_eagerly = False\n" + FIT, "sets `model.run_eagerly` itself"),
        ("for model in nets:\n    " + FIT, "made or chosen in the statement that trains it"),
        ('note = """\n"""; ' + FIT, "no line can be put before it"),
        ("async def train():\n    " + FIT, "no line can be put before it"),
    ],
)
def test_an_earlier_model_is_left_alone_where_a_line_before_would_not_be_enough(source, reason):
    answer = ask(source, EAGER)
    assert isinstance(answer, Declined), answer.diff
    assert reason in answer.reason


@pytest.mark.parametrize("imports", ["import keras, tensorflow as tf", "import tensorflow"])
def test_tensorflow_is_reached_by_whatever_name_an_earlier_cell_gave_it(imports):
    answer = ask(BUILD + STEP.format(""), earlier=(IMPORTS.replace("import tensorflow as tf\n", ""), imports))
    name = "tf" if "as tf" in imports else "tensorflow"
    assert f"@{name}.function" in answer.source


@pytest.mark.parametrize(
    "source",
    [
        FIT + FIT,
        "for rate in rates:\n    model.fit(x, y)\nmodel.fit(x, y, epochs=9)\n",
        "first = model.fit(x, y)\nsecond = model.fit(x, y, initial_epoch=3)\n",
    ],
)
def test_a_model_that_runs_eagerly_is_not_said_to_be_a_graph_where_it_is_fitted_twice(source):
    assert "calls `fit` more than once" in ask(source, EAGER).reason
