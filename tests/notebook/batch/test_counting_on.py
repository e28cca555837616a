"""What is said where TensorFlow no longer knows how many batches a dataset has: only what is true of the call."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tf_mem_magic.core.facts import DatasetFacts, Facts, ModelFacts, ScalarFact
from tf_mem_magic.core.proposals import RefusedError
from tf_mem_magic.notebook.batch.found import BatchFound, set_batch
from tf_mem_magic.notebook.batch.search import find_batch
from tf_mem_magic.notebook.text.cell import PythonCell, read_cell

FACTS = Facts(
    datasets=(DatasetFacts("train_ds", batch=64, cardinality=9), DatasetFacts("val_ds", batch=64, cardinality=5)),
    models=(ModelFacts("model"),),
)
NO_TOTAL = "the first epoch shows no total, and Keras may warn that the input ran out."
NO_PROGRESS = "its progress shows no total, and Keras may warn that the input ran out."
EARLY = "where the steps of all epochs go past its end, one epoch ends early and Keras warns."
VALIDATED = "Keras may warn that the input of the validation ran out."


def told(source):
    """Give what is said of the number of batches, by dataset."""
    cell = read_cell(source)
    assert isinstance(cell, PythonCell)
    found = find_batch(cell, FACTS, frozenset(range(1, source.count("\n") + 2)))
    assert isinstance(found, BatchFound), found
    changed, notes = set_batch(found, 32)
    assert ".rebatch(32)" in changed
    known = [note.removeprefix("TensorFlow no longer knows how many batches ") for note in notes]
    return [k for k, note in zip(known, notes, strict=True) if k != note]


@pytest.mark.parametrize(
    ("source", "right"),
    [
        ("model.fit(train_ds, epochs=3)", [f"`train_ds` has: {NO_TOTAL}"]),
        ("model.fit(train_ds, steps_per_epoch=len(train_ds))", [f"`train_ds` has: {NO_TOTAL}"]),
        ("model.fit(train_ds, steps_per_epoch=None)", [f"`train_ds` has: {NO_TOTAL}"]),
        ("model.fit(train_ds, steps_per_epoch=3, epochs=2)", [f"`train_ds` has: {EARLY}"]),
        ("model.fit(train_ds, epochs=2, steps_per_epoch=int(0.1 * len(train_ds)))", [f"`train_ds` has: {EARLY}"]),
        ("model.fit(train_ds.repeat(), steps_per_epoch=3)", []),
        ("model.fit(train_ds.prefetch(2).repeat(), steps_per_epoch=3)", []),
        ("model.fit(train_ds.repeat(count=-1).prefetch(2), steps_per_epoch=3)", []),
        (
            "model.fit(train_ds.repeat(None), validation_data=val_ds.repeat(), steps_per_epoch=3, validation_steps=2)",
            [],
        ),
        ("model.fit(train_ds.repeat(2), steps_per_epoch=3)", [f"`train_ds` has: {EARLY}"]),
        ("model.evaluate(train_ds)", [f"`train_ds` has: {NO_PROGRESS}"]),
        ("p = model.predict(train_ds, verbose=1)", [f"`train_ds` has: {NO_PROGRESS}"]),
        ("model.evaluate(train_ds, steps=4)", []),
        ("for x, y in train_ds:\n    train_step(x, y)", []),
        ("for epoch in range(3):\n    for i, (x, y) in enumerate(train_ds):\n        model.train_on_batch(x, y)", []),
        ("for batch in tqdm(train_ds):\n    with tf.GradientTape() as tape:\n        loss = model(batch)", []),
        (
            "model.fit(train_ds, validation_data=val_ds)",
            [f"`train_ds` has: {NO_TOTAL}", f"`val_ds` has: {VALIDATED}"],
        ),
        ("model.fit(train_ds, validation_data=val_ds, validation_steps=2)", [f"`train_ds` has: {NO_TOTAL}"]),
    ],
)
def test_what_is_unknown_is_told_where_it_shows(source, right):
    assert told(source) == right


COUNTED = "steps_per_epoch = round(n) // BATCH_SIZE\n"


@pytest.mark.parametrize(
    ("source", "named"),
    [
        (COUNTED + "model.evaluate(val_ds, steps=4)", False),
        (COUNTED + "model.fit(train_ds)", False),
        ("a = b = n // BATCH_SIZE\nfor x, y in train_ds:\n    train_step(x, y)", False),
        (COUNTED + "model.fit(train_ds, steps_per_epoch=steps_per_epoch)", True),
        (COUNTED + "def run():\n    return steps_per_epoch\nmodel.fit(train_ds, epochs=run())", True),
        ("cfg.steps = n // BATCH_SIZE\nmodel.fit(train_ds)", True),
    ],
)
def test_steps_that_the_cell_only_sets_for_later_cells_stay(source, named):
    cell = read_cell(source)
    assert isinstance(cell, PythonCell)
    facts = replace(FACTS, scalars=(ScalarFact("BATCH_SIZE", 64),))
    found = find_batch(cell, facts, frozenset(range(1, source.count("\n") + 2)))
    assert isinstance(found, BatchFound), found
    assert set_batch(found, 32)[0].startswith("BATCH_SIZE = 32\n") == named


@pytest.mark.parametrize(
    "reduction",
    [
        "tf.losses.Reduction.SUM_OVER_BATCH_SIZE",
        "tf.keras.losses.Reduction.SUM_OVER_BATCH_SIZE",
        "losses.Reduction.SUM_OVER_BATCH_SIZE",
    ],
)
def test_what_a_library_calls_so_is_no_batch_size(reduction):
    earlier = (
        "import tensorflow as tf\nfrom tensorflow.keras import losses",
        f"class Seg(losses.Loss):\n    def __init__(self, r={reduction}):\n        super().__init__(reduction=r)",
        "model.compile('adam', Seg())",
    )
    cell = read_cell("model.compile('adam', Seg())\nmodel.fit(train_ds)")
    assert isinstance(cell, PythonCell)
    found = find_batch(cell, replace(FACTS, earlier_cells=earlier), frozenset({2}))
    assert isinstance(found, BatchFound), found


@pytest.mark.parametrize(
    ("asks", "followed"),
    [
        ("w = weigh(ia) if 'ia' in globals() else None", True),
        ("if 'ia' not in globals():\n    ia = 3", True),
        ("assert ('x' in globals()) == ('y' in globals())", True),
        ("globals()['x'] = 3", False),
        ("bind(globals())", False),
        ("for name in globals():\n    print(name)", False),
    ],
)
def test_asking_whether_there_is_a_name_hides_none(asks, followed):
    source = f"{asks}\nmodel.fit(x, y, batch_size=64)"
    cell = read_cell(source)
    assert isinstance(cell, PythonCell)
    found = find_batch(cell, FACTS, frozenset({source.count("\n") + 1}))
    assert isinstance(found, BatchFound) is followed


@pytest.mark.parametrize(
    "loss",
    [
        "loss = step(xb) / BATCH_SIZE",
        "total = sum(step(xb)) / BATCH_SIZE",
        "out = net.train(xb).numpy() / float(BATCH_SIZE)",
        "last = float(loss_of(xb) // BATCH_SIZE)",
    ],
)
def test_a_loss_that_later_cells_read_counts_on_the_batch(loss):
    facts = replace(FACTS, scalars=(ScalarFact("BATCH_SIZE", 128),))
    for source in (f"for xb in train_ds:\n    {loss}", f"xb = next(iter(train_ds))\n{loss}\nmodel.fit(train_ds)"):
        cell = read_cell(source)
        assert isinstance(cell, PythonCell)
        found = find_batch(cell, facts, frozenset({2, 3}))
        assert not isinstance(found, BatchFound)
        assert "also counts on batches of 64" in found.reason


LOGS = "class Log({base}):\n    def on_epoch_end(self, epoch, logs=None):\n        print(len(seen) // BATCH_SIZE)"
LAYER = "class Zeros(layers.Layer):\n    def call(self, x):\n        return x + tf.zeros((BATCH_SIZE, 8))"


@pytest.mark.parametrize(
    ("earlier", "cell", "follows"),
    [
        ((LOGS.format(base="Callback"), "logs = [Log()]"), "callbacks=logs", True),
        ((LOGS.format(base="keras.callbacks.Callback"), "logs = {'all': [Log()]}"), "callbacks=logs['all']", True),
        ((LOGS.format(base="tf.keras.callbacks.Callback"), "kept = Log()"), "callbacks=[kept]", True),
        ((LAYER, "model = Model(inp, Zeros()(inp))"), "epochs=2", False),
        ((LAYER, "model = Sequential([Dense(8), Zeros()])"), "epochs=2", False),
    ],
)
def test_what_a_callback_reads_follows_a_name_and_what_a_layer_reads_does_not(earlier, cell, follows):
    source = f"model.fit(x, y, batch_size=BATCH_SIZE, {cell})"
    read = read_cell(source)
    assert isinstance(read, PythonCell)
    known = replace(
        FACTS,
        scalars=(ScalarFact("BATCH_SIZE", 64),),
        earlier_cells=("BATCH_SIZE = 64", *earlier, "model.compile('adam', 'mse')"),
        read_elsewhere=("BATCH_SIZE",),
    )
    found = find_batch(read, known, frozenset({1}))
    assert isinstance(found, BatchFound) is follows, found
    assert follows or "BATCH_SIZE" in found.reason


MADE = """
def samples(data, n_samples, patch):
    rows = randint(0, data.shape[0], n_samples)
    return data[rows], ones((n_samples, patch, 1))

def train(d_model, data, epochs=100, n_batch=64):
    steps = int(len(data) / n_batch) * epochs
    for i in range(steps):
        x, y = samples(data, n_batch, 16)
        d_model.train_on_batch(x, y)
"""
LABELS = """
def labels(size):
    return np.ones([size, 1]), [0] * size

def run(batch_size=64):
    real, fake = labels(batch_size)
    for i in range(len(x) // batch_size):
        model.train_on_batch(x[i * batch_size:(i + 1) * batch_size], real)
"""
WORDS = """
def step(batch_size):
    start = tf.expand_dims([7] * batch_size, 1)
    for i in range(len(x) // batch_size):
        model.train_on_batch([x[i * batch_size:(i + 1) * batch_size], start], y)
"""


@pytest.mark.parametrize(
    ("defined", "call", "old", "new"),
    [
        (MADE, "train(d_model, data, epochs=16, n_batch=64)", "n_batch=64)\n", "n_batch=32)\n"),
        (MADE, "train(d_model, data)", "n_batch=64):", "n_batch=32):"),
        (MADE.replace("epochs=100, n_batch=64", "epochs, n_batch"), "train(d_model, data, 5, 64)", "5, 64)", "5, 32)"),
        (LABELS, "run()", "batch_size=64", "batch_size=32"),
        (LABELS, "run(64)", "run(64)", "run(32)"),
        (WORDS, "step(batch_size=64)", "step(batch_size=64)", "step(batch_size=32)"),
    ],
)
def test_a_size_is_followed_into_functions_that_call_it_something_else(defined, call, old, new):
    source = f"{defined}{call}\n"
    cell = read_cell(source)
    assert isinstance(cell, PythonCell)
    line = 1 + next(n for n, text in enumerate(source.split("\n")) if "train_on_batch" in text)
    found = find_batch(cell, Facts(), frozenset({line, source.count("\n")}))
    assert isinstance(found, BatchFound), found
    changed, notes = set_batch(found, 32)
    assert changed == source.replace(old, new)
    assert not any("as many steps" in note for note in notes)


@pytest.mark.parametrize(
    "inside",
    ["np.ones([size, 1]) * size", "draw(size)", "np.ones([1, size])", "labels(size)", "[size] * 3"],
)
def test_what_a_function_computes_of_the_size_itself_is_something_else(inside):
    source = LABELS.replace("np.ones([size, 1]), [0] * size", inside) + "run()\n"
    cell = read_cell(source)
    assert isinstance(cell, PythonCell)
    line = 1 + next(n for n, text in enumerate(source.split("\n")) if "train_on_batch" in text)
    found = find_batch(cell, Facts(), frozenset({line, source.count("\n")}))
    assert not isinstance(found, BatchFound), set_batch(found, 32)[0]


HALVES = """
def generate_real_samples(data, n_samples):
    return data[randint(0, data.shape[0], n_samples)], ones((n_samples, 1))

def generate_points(dim, n_samples):
    return randn(dim * n_samples).reshape(n_samples, dim)

def train(d_model, gan_model, data, dim, n_epochs=100, n_batch=128):
    per_epoch = int(data.shape[0] / n_batch)
    half_batch = int(n_batch / 2)
    for i in range(n_epochs):
        for j in range(per_epoch):
            x, y = generate_real_samples(data, half_batch)
            d_model.train_on_batch(x, y)
            gan_model.train_on_batch(generate_points(dim, n_batch), ones((n_batch, 1)))

train(d, gan, data, 100)
"""


def halves(source):
    """Find the batch behind the second call of Keras in a cell that trains by halves of a batch."""
    cell = read_cell(source)
    assert isinstance(cell, PythonCell)
    inner = 1 + next(n for n, text in enumerate(source.split("\n")) if "gan_model.train_on_batch" in text)
    return find_batch(cell, Facts(), frozenset({inner, source.count("\n")}))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("int(n_batch / 2)", "int(n_batch / 2)"),
        ("int(n_batch / 2)", "n_batch // 2"),
        ("(data, half_batch)", "(data, n_batch // 2)"),
        ("int(n_batch / 2)", "max(n_batch // 2, 1)"),
        ("int(n_batch / 2)", "max(1, int(n_batch / 2))"),
        ("(data, half_batch)", "(data, n_samples=half_batch)"),
    ],
)
def test_a_half_of_the_batch_follows_the_whole(old, new):
    source = HALVES.replace(old, new)
    found = halves(source)
    assert isinstance(found, BatchFound), found
    assert found.value == 128
    assert set_batch(found, 64)[0] == source.replace("n_batch=128", "n_batch=64")


DRAWN = """
def real(data, n):
    return data[randint(0, len(data), n)], ones((n, 1))

def fake(g, dim, k=8):
    return g.predict(randn(k, dim)), zeros((k, 1))

def train(d_model, gan_model, g, data, dim, n_epochs=100, n_batch=128):
    half = n_batch // 2
    for j in range(n_epochs * 10):
        x, y = real(data, half)
        d_model.train_on_batch(x, y)
        x, y = fake(g, dim, half)
        d_model.train_on_batch(x, y)
        gan_model.train_on_batch(randn(n_batch, dim), ones((n_batch, 1)))

train(d, gan, g, data, 100)
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("n_batch // 2", "n_batch // 2"),
        ("n_batch // 2", "int(n_batch / 2)"),
        ("n_batch // 2", "max(n_batch // 2, 1)"),
        ("real(data, half)", "real(data, n=n_batch // 2)"),
        ("dim, half)", "dim, k=half)"),
    ],
)
def test_what_draws_halves_by_a_parameter_of_any_name_follows_the_whole(old, new):
    source = DRAWN.replace(old, new)
    found = halves(source)
    assert isinstance(found, BatchFound), found
    assert (found.value, found.parts) == (128, 2)
    assert set_batch(found, 64)[0] == source.replace("n_batch=128", "n_batch=64")
    if "=" in new:
        return
    made, _, trains = source.replace("half", "half_batch").partition("\ndef train")
    cell = read_cell("def train" + trains)
    line = 1 + next(n for n, text in enumerate(trains.split("\n")) if "gan_model.train_on_batch" in text)
    found = find_batch(cell, Facts(earlier_cells=(made,)), frozenset({line, trains.count("\n")}))
    assert isinstance(found, BatchFound), found
    assert "n_batch=64" in set_batch(found, 64)[0]


@pytest.mark.parametrize(("size", "asked", "chosen"), [(128, 100, 64), (128, 3, 2), (50, 25, 10), (6, 3, 2)])
def test_a_batch_that_is_halved_stays_even(size, asked, chosen):
    found = halves(HALVES.replace("n_batch=128", f"n_batch={size}"))
    assert isinstance(found, BatchFound), found
    assert found.divisor_of(asked) == chosen


@pytest.mark.parametrize(("size", "asked"), [(128, 1), (2, 1), (50, 1)])
def test_a_batch_of_one_has_no_half(size, asked):
    found = halves(HALVES.replace("n_batch=128", f"n_batch={size}"))
    assert isinstance(found, BatchFound), found
    with pytest.raises(RefusedError) as refused:
        found.divisor_of(asked)
    told = f"the cell divides its batch of {size} by 2 too: one of fewer than 2 samples would have an empty part"
    assert str(refused.value) == told


@pytest.mark.parametrize(
    ("half", "third", "parts", "chosen"),
    [
        ("int(n_batch / 2)", "int(n_batch / 3)", 6, 48),
        ("n_batch // 2", "n_batch // 2 // 3", 6, 48),
        ("n_batch // 2", "half_batch // 3", 6, 48),
        ("n_batch // 4", "int(n_batch / 6)", 12, 48),
        ("n_batch // 2", "n_batch // 4", 4, 48),
    ],
)
def test_a_batch_that_is_divided_in_two_ways_can_be_divided_in_both(half, third, parts, chosen):
    more = f"            u, v = generate_real_samples(data, {third})\n            third_model.train_on_batch(u, v)\n"
    source = HALVES.replace("int(n_batch / 2)", half).replace("            gan_model", f"{more}            gan_model")
    found = halves(source.replace("n_batch=128", "n_batch=96"))
    assert isinstance(found, BatchFound), found
    assert (found.parts, found.divisor_of(50), found.divisor_of(64, exactly=True)) == (parts, chosen, chosen)


@pytest.mark.parametrize("half", ["n_batch - 64", "n_batch % 65 + 1", "(n_batch + 128) // 4", "min(64, n_batch)"])
def test_a_size_that_is_no_share_of_the_batch_is_another_one(half):
    found = halves(HALVES.replace("int(n_batch / 2)", half))
    assert not isinstance(found, BatchFound), set_batch(found, 32)[0]


def test_two_sizes_of_which_neither_follows_the_other_are_several():
    found = halves(HALVES.replace("half_batch = int(n_batch / 2)", "half_batch = 64"))
    assert not isinstance(found, BatchFound)
    assert found.reason == "the cell uses several batch sizes here (64 and 128)"


STATE = """class Net(keras.Model):
    def __init__(self, units):
        super().__init__()
        self.state = tf.zeros([{0}, units])
    def call(self, x):
        return self.cell(x, [self.state])[0]
"""
NOISE = """class Net(keras.Model):
    def train_step(self, data):
        noise = keras.random.normal(({0}, 64))
        return self.step(noise, data)
"""
MADE = "train_ds = load().shuffle(9).batch({0})"


@pytest.mark.parametrize("name", ["B", "nb", "n", "samples_at_once", "batchsz"])
@pytest.mark.parametrize("code", [STATE, NOISE])
def test_a_name_by_which_the_data_were_batched_is_their_size_whatever_it_is_called(name, code):
    facts = replace(FACTS, scalars=(ScalarFact(name, 64),), read_elsewhere=(name,))
    earlier = (f"{name} = 64\n" + MADE.format(name), code.format(name), "model = Net(8)")
    cell = read_cell("model.fit(train_ds, epochs=3)")
    assert isinstance(cell, PythonCell)
    found = find_batch(cell, replace(facts, earlier_cells=earlier), frozenset({1}))
    assert not isinstance(found, BatchFound), set_batch(found, 32)[0]
    assert found.reason.startswith(f"a function of an earlier cell uses `{name}`, which would stay 64")


@pytest.mark.parametrize("use", ["layers.Dense(n)", "tf.zeros([8, n])", "keras.random.normal((32, n))", "range(n)"])
def test_a_name_that_is_used_for_more_is_no_size_there(use):
    earlier = (
        "n = 64\n" + MADE.format("n"),
        f"class Net(keras.Model):\n    def call(self, x):\n        return {use}",
        "model = Net()",
    )
    cell = read_cell("model.fit(train_ds, epochs=3)")
    assert isinstance(cell, PythonCell)
    facts = replace(FACTS, scalars=(ScalarFact("n", 64),), earlier_cells=earlier)
    assert isinstance(find_batch(cell, facts, frozenset({1})), BatchFound)
