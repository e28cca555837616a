"""Keras cuts arrays into as many batches as steps are asked for, where no batch size is given."""

from __future__ import annotations

import pytest

from tf_mem_magic.core.facts import BatchSeen, Facts, ModelFacts
from tf_mem_magic.notebook.batch.found import BatchFound, set_batch
from tf_mem_magic.notebook.batch.search import find_batch
from tf_mem_magic.notebook.text.cell import PythonCell, read_cell


def found_in(source, *seen):
    """Find the batch of a cell of one line, with what Keras was seen to use."""
    cell = read_cell(source)
    assert isinstance(cell, PythonCell)
    return find_batch(cell, Facts(models=(ModelFacts("model"),), batches=seen), frozenset({1}))


@pytest.mark.parametrize(
    ("source", "method", "changed"),
    [
        (
            "model.fit(x, y, epochs=2, steps_per_epoch=60)",
            "fit",
            "model.fit(x, y, epochs=2, steps_per_epoch=120, batch_size=500)",
        ),
        (
            "model.fit(x, y, batch_size=None, steps_per_epoch=60)",
            "fit",
            "model.fit(x, y, batch_size=500, steps_per_epoch=120)",
        ),
        ("model.evaluate(x, y, steps=10)", "evaluate", "model.evaluate(x, y, steps=20, batch_size=500)"),
        ("model.fit(x, y, steps_per_epoch=N)", "fit", "model.fit(x, y, steps_per_epoch=2 * N, batch_size=500)"),
    ],
)
def test_arrays_come_in_as_many_batches_as_steps_are_asked_for(source, method, changed):
    found = found_in(source, BatchSeen(method, 1000, "arrays"))
    assert isinstance(found, BatchFound), found
    assert found.value == 1000
    assert set_batch(found, 500)[0] == changed


def test_where_the_size_was_not_seen_the_number_of_steps_does_not_tell_it():
    found = found_in("model.fit(x, y, steps_per_epoch=60)")
    assert not isinstance(found, BatchFound)
    assert found.reason == "Keras makes as many batches of the data as steps are asked for: how large was not seen"


def test_without_steps_the_size_is_that_of_keras():
    for source in ("model.fit(x, y)", "model.fit(x, y, steps_per_epoch=None)"):
        found = found_in(source, BatchSeen("fit", 32, "arrays"))
        assert isinstance(found, BatchFound), found
        assert "batch_size=16" in set_batch(found, 16)[0]


@pytest.mark.parametrize(
    ("source", "changed"),
    [
        ("model.fit(apply.stream(x, y, batch_size=256))", "model.fit(apply.stream(x, y, batch_size=128))"),
        ("model.fit(x=apply.stream([a, b], y, batch_size=256), epochs=3)", None),
        ("model.evaluate(apply.stream(x, y, shuffle=False, batch_size=256))", None),
        ("size = 256; model.fit(apply.stream(x, y, batch_size=size))", "size = 128; model.fit(apply.stream(x, y, b"),
        ("data = apply.stream(x, y, batch_size=256); model.fit(data, epochs=2)", None),
        ("model.fit(apply.stream(*pair, batch_size=256))", None),
        ("model.fit(apply.stream(**parts, batch_size=256))", None),
        ("data = gen.flow(x, y, batch_size=256); model.fit(data)", None),
    ],
)
def test_arrays_that_are_streamed_have_their_batch_there(source, changed):
    method = "evaluate" if "evaluate" in source else "fit"
    # As the remedy's next step sees it, before the changed cell has run.
    for kind in ("arrays", "PyDataset"):
        found = found_in(source, BatchSeen(method, 256, kind))
        assert isinstance(found, BatchFound), found
        assert set_batch(found, 128)[0].startswith(changed or source.replace("256", "128"))


@pytest.mark.parametrize(
    ("source", "changed"),
    [
        ("model.fit(apply.stream(x, y))", "model.fit(apply.stream(x, y, batch_size=16))"),
        ("d = apply.stream(x, y, shuffle=False); model.fit(d)", "d = apply.stream(x, y, shuffle=False, batch_size=16)"),
        ("model.predict(apply.stream(x))", "model.predict(apply.stream(x, batch_size=16))"),
    ],
)
def test_arrays_that_are_streamed_without_a_size_come_in_batches_of_32(source, changed):
    method = "predict" if "predict" in source else "fit"
    for kind in ("arrays", "PyDataset"):
        found = found_in(source, BatchSeen(method, 32, kind))
        assert isinstance(found, BatchFound), found
        assert set_batch(found, 16)[0].startswith(changed)


def test_streamed_arrays_whose_arguments_are_hidden_are_left_alone():
    found = found_in("model.fit(apply.stream(x, y, **how))", BatchSeen("fit", 32, "arrays"))
    assert not isinstance(found, BatchFound)
    assert found.reason == "the arguments of `apply.stream` in line 1 cannot be followed"


@pytest.mark.parametrize("made", ["load(path, batch_size=32)", "files.load(batch_size=32)", "read(batch_size=32)"])
def test_arrays_that_something_else_made_of_so_many_at_a_time_have_their_batch_at_the_call(made):
    found = found_in(f"model.fit({made})", BatchSeen("fit", 32, "arrays"))
    assert isinstance(found, BatchFound), found
    assert set_batch(found, 16)[0] == f"model.fit({made}, batch_size=16)"


TRAINER = """batch_size = 64
class Player:
    def __init__(self, net):
        self.net, self.memory = net, []
        self.batch_size = batch_size

    def learn(self):
        {draw}
        self.net.fit({data}, batch_size={given}, verbose=0)

player = Player(net)
player.learn()"""


def learnt(draw, data="np.array(x), np.array(y)", given="batch_size", more=""):
    """Find the batch of a training whose data a method draws by the batch size."""
    source = TRAINER.format(draw=draw, data=data, given=given) + more
    cell = read_cell(source)
    assert isinstance(cell, PythonCell)
    at = frozenset(n for n, row in enumerate(source.splitlines(), 1) if "fit(" in row or "player.learn" in row)
    return find_batch(cell, Facts(models=(ModelFacts("net"),)), at), source


@pytest.mark.parametrize(
    ("draw", "data", "given"),
    [
        ("some = random.sample(self.memory, batch_size)", "np.array(some), np.array(some)", "batch_size"),
        ("x, y = zip(*random.sample(self.memory, batch_size))", "np.array(x), np.array(y)", "batch_size"),
        ("x = [choice(self.memory) for _ in range(batch_size)]; y = make(x)", "np.array(x), y", "batch_size"),
        ("x = np.zeros((self.batch_size, 4)); x[:] = self.memory", "x, make(x)", "self.batch_size"),
        ("at = np.random.choice(9, self.batch_size); x = take(at)", "x, make(x)", "self.batch_size"),
    ],
)
def test_what_is_drawn_by_the_batch_size_stays_as_many_samples_and_the_call_gets_the_number(draw, data, given):
    found, source = learnt(draw, data, given)
    assert isinstance(found, BatchFound), found
    assert set_batch(found, 32)[0] == source.replace(f"batch_size={given},", "batch_size=32,")
    assert found.notes == (f"`{given}` stays 64: it also decides how many samples there are.",)


@pytest.mark.parametrize("filled", ["x.append(state)", "x += [state]", "x.extend((state,)); y.insert(0, goal)"])
def test_what_a_loop_over_drawn_samples_fills_is_drawn_too(filled):
    draw = f"x, y = [], []\n        for state, goal in random.sample(self.memory, batch_size):\n            {filled}"
    found, source = learnt(draw)
    assert isinstance(found, BatchFound), found
    assert set_batch(found, 32)[0] == source.replace("batch_size=batch_size,", "batch_size=32,")


@pytest.mark.parametrize(
    "counted",
    ["steps = len(self.memory) // batch_size", "x = self.memory", "self.net.predict(x, batch_size=batch_size)"],
)
def test_where_nothing_is_drawn_by_the_batch_size_its_name_is_set(counted):
    found, source = learnt(counted, "self.memory, make(self.memory)")
    assert isinstance(found, BatchFound), found
    assert set_batch(found, 32)[0] == source.replace("batch_size = 64", "batch_size = 32", 1)
    assert not found.notes


@pytest.mark.parametrize(
    "gathered",
    [
        "for i in range(0, 900, batch_size):\n            x += [load(i)]",
        "for i in range(0, 900, batch_size):\n            x.extend(self.memory[i:i + batch_size])",
        "for k in range(9):\n            x.append(self.memory[start(k) : batch_size + start(k)])",
    ],
)
def test_what_goes_through_all_samples_by_the_batch_size_draws_no_number_of_them(gathered):
    found, source = learnt(f"x = []\n        {gathered}", "np.array(x), make(x)")
    assert isinstance(found, BatchFound), found
    assert set_batch(found, 32)[0] == source.replace("batch_size = 64", "batch_size = 32", 1)
    assert not found.notes


@pytest.mark.parametrize(
    "more",
    [
        "\ndef noise():\n    return tf.random.normal((batch_size, 3))",
        "\nclass Noise(Layer):\n    def call(self, x):\n        return x + tf.zeros((batch_size, 4))",
        "\ndef state():\n    return net.initial(tf.zeros([batch_size, 4]))",
    ],
)
def test_what_elsewhere_makes_something_of_the_name_that_stays_is_in_the_way(more):
    refused, _ = learnt("x = random.sample(self.memory, batch_size)", "np.array(x), make(x)", more=more)
    assert not isinstance(refused, BatchFound), refused
    assert "also counts on batches of 64" in refused.reason
