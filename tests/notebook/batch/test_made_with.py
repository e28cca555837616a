"""A part of the model that was made with the batch size, and computes with it, does not follow a smaller one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tf_mem_magic.core.facts import Facts, ModelFacts, ScalarFact
from tf_mem_magic.notebook.batch.found import BatchFound, set_batch
from tf_mem_magic.notebook.batch.search import find_batch
from tf_mem_magic.notebook.text.cell import PythonCell, read_cell

FACTS = Facts(models=(ModelFacts("model"),), scalars=(ScalarFact("BATCH", 48),))
FIT = "model.fit(x, y, batch_size=BATCH)"
CLASS = "class {}:\n    def __init__(self, {}):\n        super().__init__()\n        {}\n    def {}\n"
SAMPLE = "def sample(m, n):\n    return m + K.random_normal(shape=(n, 2))\n"
COMPILED = "model.compile('adam', 'mse')"


def found_in(cell, *earlier):
    """Find the batch of a cell whose last line runs out of memory."""
    read = read_cell(cell)
    assert isinstance(read, PythonCell)
    return find_batch(read, replace(FACTS, earlier_cells=earlier), frozenset({cell.count("\n") + 1}))


def reason(cell, *earlier):
    """Give why no smaller batch is set; empty where one is."""
    found = found_in(cell, *earlier)
    return "" if isinstance(found, BatchFound) else found.reason


MADE = [
    pytest.param(
        CLASS.format("Smooth(Layer)", "units, batch_size", "self.batch_size = batch_size", "call(self, x):")
        + "        n = self.batch_size\n        return K.concatenate([x[i : i + 1] for i in range(n)])",
        "h = Smooth(4, BATCH)(inp)\nmodel = Model(inp, Dense(1)(h))",
        "Smooth",
        id="a layer keeps it",
    ),
    pytest.param(
        CLASS.format("Noise(layers.Layer)", "n", "self.n = n", "call(self, x):")
        + "        return x + tf.random.normal((self.n, 20))",
        "model = Sequential()\nmodel.add(Noise(n=BATCH))\nmodel.add(Dense(1))",
        "Noise",
        id="a layer keeps it by another name",
    ),
    pytest.param(
        CLASS.format("Contrast(keras.losses.Loss)", "batch_size", "self.size = batch_size", "call(self, y, p):")
        + "        return tf.reduce_sum(tf.eye(self.size) * tf.matmul(p, p, transpose_b=True))",
        "model = Sequential([Dense(1)])\nmodel.compile('adam', loss=Contrast(BATCH))",
        "Contrast",
        id="a loss keeps it",
    ),
    pytest.param(
        "def make_sampler(n):\n    def sample(m):\n        return m + K.random_normal(shape=(n, 2))\n    return sample",
        "z = Lambda(make_sampler(BATCH))(m)\nmodel = Model(inp, z)",
        "make_sampler",
        id="a function of a function",
    ),
    pytest.param(
        "def build(dim, batch_size):\n    inp = Input((dim,))\n"
        "    z = Lambda(lambda m: m + K.random_normal(shape=(batch_size, 2)))(Dense(2)(inp))\n    return Model(inp, z)",
        "model = build(20, BATCH)",
        "build",
        id="a lambda of a builder",
    ),
    pytest.param(
        SAMPLE, "z = Lambda(sample, arguments={'n': BATCH})(m)\nmodel = Model(inp, z)", "Lambda", id="arguments"
    ),
    pytest.param(SAMPLE, "z = Lambda(partial(sample, n=BATCH))(m)\nmodel = Model(inp, z)", "sample", id="partial"),
    pytest.param(
        CLASS.format("Deep(Layer)", "size", "self.size = size", "call(self, x):")
        + "        return tf.reshape(x, (self.size, -1))\n"
        "def build(batch_size):\n    return Sequential([Deep(batch_size), Dense(1)])",
        "model = build(BATCH)",
        "build",
        id="a builder hands it to a layer",
    ),
]


@pytest.mark.parametrize(("defined", "made", "maker"), MADE)
def test_what_an_earlier_cell_made_with_the_batch_size_stays_as_it_is(defined, made, maker):
    told = reason(FIT, "BATCH = 48", defined, f"{made}\n{COMPILED}")
    does = "calls" if f"def {maker}(" in defined and f"{maker}(BATCH)" in made.replace("20, ", "") else "makes"
    assert told.startswith(f"an earlier cell {does} `{maker}` for batches of 48 (`BATCH`): make it smaller where")


@pytest.mark.parametrize(("defined", "made", "maker"), MADE)
def test_what_the_cell_itself_makes_follows_the_name_or_is_told(defined, made, maker):
    found = found_in(f"{made}\n{COMPILED}\n{FIT}", "BATCH = 48", defined)
    if isinstance(found, BatchFound):
        assert set_batch(found, 24)[0].startswith("BATCH = 24\n")
    else:
        also = ("`BATCH` also decides something else", "reads `BATCH` too", f"s `{maker}` for batches of 48")
        assert any(words in found.reason for words in also)


@pytest.mark.parametrize("cell", ["{}\nmodel.fit(x, y, batch_size=48)", "model.fit(x, y, batch_size=48)"])
def test_a_number_counts_where_the_class_calls_it_a_batch_size(cell):
    layer = CLASS.format("Noise(Layer)", "batch_size", "self.n = batch_size", "call(self, x):")
    layer += "        return x + tf.random.normal((self.n, 20))"
    made = f"model = Sequential([Noise(48), Dense(1)])\n{COMPILED}"
    told = reason(cell.format(made), layer, *([] if "{}" in cell else [made]))
    assert "makes `Noise` for batches of 48 (`48`)" in told


@pytest.mark.parametrize(
    ("defined", "made"),
    [
        (
            CLASS.format("Net(Model)", "batch_size", "self.batch_size = batch_size", "call(self, x):")
            + "        return self.d(x)\n    def get_config(self):\n        return {'batch_size': self.batch_size}",
            "model = Net(BATCH)",
        ),
        (
            CLASS.format("Log(Callback)", "batch_size", "self.n = batch_size", "on_epoch_end(self, e, logs=None):")
            + "        print(e, self.n)",
            "model = Sequential([Dense(1)])\ncb = Log(BATCH)",
        ),
        (
            "def gather(model, n):\n    return [play(model, i) for i in range(n)]",
            "model = Sequential([Dense(1)])\nmodel.history = gather(model, BATCH)",
        ),
        ("def sample(m):\n    return m + K.random_normal(shape=(tf.shape(m)[0], 2))", "model = Model(i, sample(o))"),
        (
            "def learn(model, batch_size):\n    model.fit(a, b, batch_size=batch_size)\n    return model",
            "model = learn(Sequential([Dense(1)]), BATCH)",
        ),
        (
            CLASS.format("Noise(Layer)", "units", "self.units = units", "call(self, x):")
            + "        return x + tf.random.normal((1, self.units))",
            "model = Sequential([Noise(48), Dense(48)])",
        ),
    ],
)
def test_what_only_keeps_tells_or_hands_on_the_number_declines_nothing(defined, made):
    assert not reason(FIT, "BATCH = 48", defined, f"{made}\n{COMPILED}")


LOOP = "model = Sequential([Dense(1)])\n" + COMPILED + "\nfor i in range(9):\n    best = model.get_weights()\n"
STEP = "def step(size):\n    x = tf.random.normal((size, 4))\n    {}\n"
TAPE = "with tf.GradientTape() as tape:\n        loss = tf.reduce_mean(model(x))\n    g = tape.gradient(loss, w)\n    "


@pytest.mark.parametrize(
    "does",
    [
        TAPE + "opt.apply_gradients(zip(g, w))",
        "y = tf.zeros((size, 1))\n    model.train_on_batch(x, y)",
        "opt.minimize(lambda: tf.reduce_mean(model(x)), model.trainable_variables)",
        "model.fit(x, tf.ones([size, 1]), verbose=0)",
    ],
)
@pytest.mark.parametrize("call", ["step(BATCH)", "if i > 3:\n        step(size=BATCH)"])
def test_a_step_that_an_earlier_cell_took_made_no_part_of_the_model(does, call):
    assert not reason(FIT, "BATCH = 48", STEP.format(does), f"{LOOP}    {call}\nmodel.set_weights(best)")


@pytest.mark.parametrize(
    "does",
    [
        "model.add(Lambda(lambda m: m + tf.zeros((size, 1))))\n    model.fit(x, y)",
        "global model\n    model = Sequential([Lambda(lambda m: m + tf.zeros((size, 1)))])\n    model.fit(x, y)",
        "return tf.zeros((size, 4))",
    ],
)
def test_a_function_that_also_makes_something_may_have_made_it_of_that_size(does):
    told = reason(FIT, "BATCH = 48", STEP.format(does), f"{LOOP}    step(BATCH)\nmodel.set_weights(best)")
    assert told.startswith("an earlier cell calls `step` for batches of 48 (`BATCH`)")


SAMPLED = "n = 48\nx, y = made.data(1600, n)\n"
OF_SAMPLES = [
    SAMPLED + "model = fuzzy.Net(inputs=2, size=n)\nmodel.fit(x, y, batch_size=n)",
    SAMPLED + "model = fuzzy.Net(2, n)\nmodel.fit(x, y, epochs=2, batch_size=n)",
    SAMPLED.replace("n = 48", "p = Params(batch_size=48)").replace(", n)", ", p.batch_size)")
    + "with tf.device('/CPU:0'):\n    model = fuzzy.Net(batch_size=p.batch_size)\n"
    + "    model.fit(x, y, batch_size=p.batch_size)",
    SAMPLED.replace("n = 48", "c = {'batch_size': 48}").replace(", n)", ", c['batch_size'])")
    + "model = fuzzy.wrap(fuzzy.Net(c['batch_size']))\nmodel.fit(x, y, batch_size=c['batch_size'])",
]


@pytest.mark.parametrize("cell", OF_SAMPLES)
def test_a_model_made_with_a_batch_size_that_stays_may_take_no_other(cell):
    why = reason(cell)
    assert "how many samples there are" in why
    assert "`model` is made with it" in why


def test_a_model_made_without_it_is_trained_with_smaller_batches():
    assert reason(SAMPLED + "model = fuzzy.Net(inputs=2)\nmodel.fit(x, y, batch_size=n)") == ""


LATER = [
    "inp = Input(batch_shape=(8, 10, 5))\nmodel = Model(inp, Dense(1)(inp))\nmodel.summary()",
    "model = Sequential([LSTM(4, batch_input_shape=(1, 5, 2), stateful=True)])",
    "for _ in range(2):\n    model = Sequential([Input((5,), batch_size=4), Dense(1)])\n    model.compile('adam')",
]


@pytest.mark.parametrize("later", LATER)
def test_a_model_that_gets_the_name_afterwards_is_another(later):
    first = "model = Sequential([Dense(1)])\nmodel.fit(x, y, batch_size=48)\n"
    read = read_cell(first + later)
    assert isinstance(read, PythonCell)
    assert isinstance(find_batch(read, FACTS, frozenset({2})), BatchFound)
    before = later + "\nmodel.fit(x, y, batch_size=48)"
    assert "one batch size only" in reason(before)
    inside = "def go():\n    model.fit(x, y, batch_size=48)\n" + later + "\ngo()"
    read = read_cell(inside)
    assert isinstance(read, PythonCell)
    assert not isinstance(find_batch(read, FACTS, frozenset({2})), BatchFound)
