"""The batch size that is proposed: any where Keras alone takes it, a divisor of the old one where other code does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tf_mem_magic.core.facts import DatasetFacts, Facts, ModelFacts, ScalarFact
from tf_mem_magic.notebook.batch.found import BatchFound, set_batch
from tf_mem_magic.notebook.batch.search import find_batch
from tf_mem_magic.notebook.text.cell import PythonCell, read_cell

FACTS = Facts(
    datasets=(DatasetFacts("train_ds", batch=64, cardinality=9),),
    models=(ModelFacts("model"),),
    scalars=(ScalarFact("BATCH", 64),),
)


def proposed(source, wanted=48):
    """Give the size that is proposed in the place of 64 where ``wanted`` would fit."""
    cell = read_cell(source)
    assert isinstance(cell, PythonCell)
    found = find_batch(cell, FACTS, frozenset({source.count("\n") + 1}))
    assert isinstance(found, BatchFound), found
    assert found.value == 64
    return found.divisor_of(wanted)


@pytest.mark.parametrize(
    "source",
    [
        "model.fit(x, y, batch_size=64)",
        "model.fit(x, y, 64, epochs=3)",
        "history = model.fit(\n    x, y,\n    epochs=2,\n    batch_size=64)",
        "x = np.zeros((512, 8))\np = model.predict(x, batch_size=64)",
    ],
)
def test_where_the_number_stands_in_keras_own_call_any_size_will_do(source):
    assert proposed(source) == 48


@pytest.mark.parametrize(
    "source",
    [
        # Loops: half of the samples would be left out, or a step would get fewer than it was made for.
        "BATCH = 64\nfor step in range(len(x) // BATCH):\n    model.train_on_batch(x[step * BATCH : (step + 1) * BATCH], y)",
        "for i in range(0, len(x), 64):\n    model.train_on_batch(x[i : i + 64], y[i : i + 64])",
        # A name may be read by functions of the notebook, such as one that makes noise for whole batches.
        "BATCH = 64\nmodel.fit(x, y, batch_size=BATCH)",
        # A data set that drops the rest would drop samples that the old batches had.
        "ds = tf.data.Dataset.from_tensor_slices((x, y)).batch(64, drop_remainder=True)\nmodel.fit(ds)",
        "model.fit(train_ds)",
        "model.fit(x, y, batch_size=64, steps_per_epoch=10)",
    ],
)
def test_where_other_code_takes_the_batches_they_stay_whole(source):
    assert proposed(source) == 32


ASK = "def ask(path, known):\n    img = load(path)\n    out = net.predict_on_batch(np.expand_dims(img, axis=0))\n"


@pytest.mark.parametrize(
    "after",
    [
        "    for box, score in zip(out[0], out[1]):\n        draw(img, box, score)",
        "    for name, other in known.items():\n        print(name, distance(out, other))",
        "    for i, row in enumerate(out):\n        show(known[i], row)",
        "    for images in train_ds.take(1):\n        show(images)",
        "    while known:\n        show(out, next(known))",
    ],
)
def test_a_loop_that_the_failing_line_is_not_in_is_not_what_failed(after):
    source = f"{ASK}{after}\n    return out\nask('a.png', known)"
    cell = read_cell(source)
    assert isinstance(cell, PythonCell)
    found = find_batch(cell, FACTS, frozenset({3, source.count("\n") + 1}))
    assert not isinstance(found, BatchFound)
    assert found.reason == "no batch size was found in the lines that led to the error"


@pytest.mark.parametrize(
    "drawn",
    [
        "random.sample(memory, BATCH)",
        "np.random.choice(len(x), size=BATCH)",
        "[memory[i] for i in np.random.randint(0, 99, BATCH)]",
        "replay.sample(BATCH)",
    ],
)
@pytest.mark.parametrize("name", ["batch", "minibatch", "train_batch"])
def test_a_batch_of_data_is_no_batch_size(name, drawn):
    assert proposed(f"for i in range(9):\n    {name} = {drawn}\n    train_step(x[{name}], y[{name}])", 40) == 32


@pytest.mark.parametrize(
    ("call", "is_found"),
    [
        ("learn(train_ds)", True),
        ("learn(model, data=train_ds)", True),
        ("learn(train_ds, val_ds)", False),
        ("learn(train_ds.rebatch(32), val_ds)", False),
        ("learn(model, val=val_ds, data=train_ds.map(f).rebatch(32))", False),
        ("learn(train_ds.take(9))", False),
    ],
)
def test_of_several_datasets_that_a_function_elsewhere_is_handed_none_is_taken_for_the_one_that_ran_out(call, is_found):
    cell = read_cell(call)
    assert isinstance(cell, PythonCell)
    learn = "def learn(*given, **more):\n    for batch in [*given, *more.values()][0]:\n        step(batch)"
    known = (*FACTS.datasets, DatasetFacts("val_ds", batch=64, cardinality=2))
    found = find_batch(cell, replace(FACTS, datasets=known, earlier_cells=(learn,)), frozenset({1}))
    assert isinstance(found, BatchFound) is is_found


@pytest.mark.parametrize(
    "draws", ["plotter.plot(losses)", "plt.plot(losses)", "ax.plot(losses)", "show_losses(losses)"]
)
@pytest.mark.parametrize("numbers", ["range(0, len(x), batch_size)", "tqdm(range(0, 960, batch_size))"])
def test_a_loop_that_trains_is_not_said_to_draw_less_for_the_curve_that_it_shows(draws, numbers):
    cell = (
        f"batch_size = 48\nfor i in {numbers}:\n    a, b = x[i : i + batch_size], y[i : i + batch_size]\n"
        "    with tf.GradientTape() as tape:\n        loss = tf.reduce_mean(model(a) - b)\n"
        f"    opt.apply_gradients(zip(tape.gradient(loss, w), w))\n    {draws}\n"
    )
    found = find_batch(read_cell(cell), Facts(models=(ModelFacts("model"),)), frozenset({5}))
    assert isinstance(found, BatchFound)
    assert "show less" not in " ".join(found.notes)
    told = find_batch(read_cell(cell + f"for k in range(batch_size):\n    {draws}"), Facts(), frozenset({5}))
    assert isinstance(told, BatchFound)
    assert "show less" in " ".join(told.notes)


@pytest.mark.parametrize("size", ["batch_size", "bs", "BATCH"])
@pytest.mark.parametrize("also", ["make_zebras({})", "fakes = draw_zebras(net, {})", "horses.resize({})"])
def test_a_batch_of_one_is_one_whatever_else_its_name_decides(size, also):
    cell = f"{size} = 1\nfor i in range(9):\n    {also.format(size)}\n    model.train_on_batch(take_batch({size}), y)"
    found = find_batch(read_cell(cell), Facts(models=(ModelFacts("model"),)), frozenset({4}))
    reason = f"already {found.value}" if isinstance(found, BatchFound) else found.reason
    assert "already 1" in reason


@pytest.mark.parametrize("makes", ["get_horse_samples", "generate_real_samples", "sample", "draw_sample"])
def test_what_makes_samples_makes_a_batch_of_them(makes):
    cell = (
        f"batch_size = 48\nfor i in range(9):\n    a, b = {makes}(batch_size), {makes}(batch_size)\n"
        "    model.train_on_batch(a, np.ones((batch_size, 1)))"
    )
    found = find_batch(read_cell(cell), Facts(models=(ModelFacts("model"),)), frozenset({4}))
    assert isinstance(found, BatchFound), found
    assert set_batch(found, 24)[0] == cell.replace("48", "24")


def found_in(source):
    """Find the batch of 64 behind the cell's last line."""
    cell = read_cell(source)
    assert isinstance(cell, PythonCell)
    return find_batch(cell, FACTS, frozenset({source.count("\n") + 1}))


@pytest.mark.parametrize(
    "made",
    [
        "x = np.random.random((64, 8))",
        "x = tf.zeros([64, 8])",
        "x = y = np.ones((64, 1))",
        "x = np.empty(shape=(64, 8))",
    ],
)
@pytest.mark.parametrize("call", ["model.fit(x, y, batch_size=64)", "model.fit([x, x], y, epochs=2, batch_size=64)"])
def test_as_many_samples_as_a_batch_are_no_shape_that_counts_on_it(made, call):
    assert isinstance(found_in(f"{made}\n{call}"), BatchFound)


@pytest.mark.parametrize(
    "source",
    [
        "noise = tf.zeros([64, 8])\nmodel.fit(x, y, batch_size=64)",
        "def step(x):\n    x = tf.zeros([64, 8])\n    return x\nmodel.fit(x, y, batch_size=64)",
        "if more:\n    x = np.ones((64, 8))\nmodel.fit(x, y, batch_size=64)",
        "x = pad(np.ones((64, 8)))\nnoise = x = tf.zeros((64, 2))\nmodel.fit(x, y, batch_size=64)",
        "x = [np.ones((64, 8)) for _ in range(9)]\nmodel.fit(x, y, batch_size=64)",
        "x = list(map(lambda a: a + np.ones((64, 8)), parts))\nmodel.fit(x, y, batch_size=64)",
    ],
)
def test_another_shape_of_that_length_may_count_on_it(source):
    assert "has a shape that begins with 64 too" in found_in(source).reason


@pytest.mark.parametrize(
    "size",
    ["n // BATCH * BATCH", "BATCH * (n // BATCH)", "BATCH * int(n / BATCH)", "int(n / BATCH) * BATCH", "n - n % BATCH"],
)
@pytest.mark.parametrize("use", ["ds = load().shuffle(size).batch(BATCH)", "ds = load().take(size).batch(BATCH, True)"])
def test_what_is_rounded_to_whole_batches_follows_them(size, use):
    found = found_in(f"BATCH = 64\nsize = {size}\n{use}\nmodel.fit(ds)")
    assert isinstance(found, BatchFound), found
    assert set_batch(found, 32)[0].startswith("BATCH = 32\n")


@pytest.mark.parametrize("word", ["batch", "minibatch", "mini_batch", "b"])
@pytest.mark.parametrize("turns", ["range({0})", "tqdm(range({0}))", "trange({0})"])
def test_a_number_of_turns_is_no_batch_size_whatever_it_is_called(word, turns):
    draws = "    z = np.random.rand(size, 100)\n    model.train_on_batch(z, [1] * size)"
    source = f"batch_size = size = 64\n{word} = 400\nfor step in {turns.format(word)}:\n{draws}".replace(
        "size = size", "size"
    )
    found = found_in(source.replace("(size", "(batch_size").replace("* size", "* batch_size"))
    assert isinstance(found, BatchFound), found
    assert (found.value, found.same_steps) == (64, True)


@pytest.mark.parametrize(
    "test",
    ["len(x) != 64", "x.shape[0] < 64", "64 > int(tf.shape(x)[0])", "x.get_shape()[0] != 64", "tf.shape(y)[0] < 64"],
)
def test_a_loop_that_asks_for_full_batches_by_their_number_would_skip_all(test):
    source = f"batch_size = 64\nds = make().batch({{}})\nfor x, y in ds:\n    if {test}:\n        continue\n    train_step(x, y)"
    for size in ("64", "batch_size"):
        found = find_batch(read_cell(source.format(size)), Facts(), frozenset({6}))
        assert not isinstance(found, BatchFound), set_batch(found, 32)[0]
        assert "line 4 asks whether a batch has 64 samples" in found.reason
    follows = source.format("batch_size").replace(test, test.replace("64", "batch_size"))
    assert isinstance(find_batch(read_cell(follows), Facts(), frozenset({6})), BatchFound)
    other = source.format("64").replace(test, test.replace("64", "2"))
    assert isinstance(find_batch(read_cell(other), Facts(), frozenset({6})), BatchFound)


@pytest.mark.parametrize("name", ["gen", "train_gen", "loader", "it", "train_batches", "dataset"])
@pytest.mark.parametrize("call", ["step({})", "loss = step(0, source={})", "agent.learn(model, {})"])
def test_data_of_an_earlier_cell_that_a_step_is_handed_are_named(name, call):
    source = f"for turn in range(100):\n    {call.format(name)}"
    earlier = ("def step(it):\n    model.train_on_batch(*next(it))\n", f"{name} = make(x, y, 64)")
    found = find_batch(read_cell(source), Facts(earlier_cells=earlier), frozenset({2}))
    assert not isinstance(found, BatchFound)
    assert found.reason == f"`{name}` comes from an earlier cell, and how it is batched is not known"


def test_what_gives_no_batches_is_not_named():
    earlier = ("def step(m):\n    m.train_on_batch(x, y)\n", "generator = build()\nmodel = build()")
    for name in ("generator", "model"):
        found = find_batch(read_cell(f"step({name})"), Facts(earlier_cells=earlier), frozenset({1}))
        assert found.reason == "no batch size was found in the lines that led to the error"
