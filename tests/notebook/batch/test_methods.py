"""A training in a method of the notebook's own class: its batch size is an argument, or an attribute of the object."""

from __future__ import annotations

import pytest

from tf_mem_magic.core.facts import BatchSeen, Facts
from tf_mem_magic.notebook.batch.found import BatchFound, set_batch
from tf_mem_magic.notebook.batch.search import find_batch
from tf_mem_magic.notebook.text.cell import read_cell

CLASS = """class Trainer:
    def __init__(self, net, size=64):
        self.net = net
        self.size = size

    def go(self, x, y, n{default}):
        return self.net.fit(x, y, batch_size={batch}, verbose=0{more})
"""
MADE = "trainer = Trainer(net, 64)"


def written(batch="n", default="", more="", change=("", ""), text=CLASS):
    """Give the class, with a part of its text replaced."""
    return (
        text.format(batch=batch, default=default, more=more).replace(*change)
        if change[0]
        else text.format(batch=batch, default=default, more=more)
    )


def found(cell, batch="n", default="", more="", seen=64, earlier=None, change=("", "")):
    texts = (written(batch, default, more, change), MADE) if earlier is None else earlier
    facts = Facts("2.21.0", "3.15.1", True, batches=(BatchSeen("fit", seen, "arrays"),), earlier_cells=texts)
    read = read_cell(cell)
    line = next(n for n, row in enumerate(cell.splitlines(), 1) if "go(" in row)
    return find_batch(read, facts, frozenset({line}))


def changed(cell, batch=32, **more):
    answer = found(cell, **more)
    assert isinstance(answer, BatchFound), answer
    return set_batch(answer, batch)[0]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("h = trainer.go(x, y, 64)", "h = trainer.go(x, y, 32)"),
        ("h = trainer.go(x, y=y, n=64)", "h = trainer.go(x, y=y, n=32)"),
        ("N = 64\nh = trainer.go(x, y, N)", "N = 32\nh = trainer.go(x, y, N)"),
    ],
)
def test_the_number_that_the_cell_gives_to_the_method_is_changed(before, after):
    assert changed(before) == after


def test_where_the_cell_gives_none_the_default_is_given_another_value():
    assert changed("trainer.go(x, y)", default="=64") == "trainer.go(x, y, n=32)"


def test_an_attribute_of_the_object_is_set_before_and_set_back_by_undo():
    answer = found("trainer.go(x, y)", batch="self.size", default="=0")
    assert isinstance(answer, BatchFound)
    assert set_batch(answer, 32)[0] == "trainer.size = 32\ntrainer.go(x, y)"
    assert answer.undo == ("trainer.size = 64",)


def test_a_default_is_left_out_whatever_gives_its_number():
    assert changed("trainer.go(x, y)", default="=SIZE") == "trainer.go(x, y, n=32)"


@pytest.mark.parametrize(
    "earlier",
    [
        (written(), written(), MADE),  # the class's cell run twice
        (written(), "class Fast(Trainer):\n    pass", "trainer = Fast(net)"),
        (written() + MADE,),
        (written(), "trainer = None", "trainer: Trainer = Trainer(net, size=64)"),
        (written(change=("self.size = size", "self.size = size\n        self.go_on = True")), MADE),
    ],
)
def test_the_class_of_an_object_is_known_by_what_made_it(earlier):
    assert changed("trainer.go(x, y, 64)", earlier=earlier) == "trainer.go(x, y, 32)"


@pytest.mark.parametrize(
    "cell", ["trainer = Trainer(net)\ntrainer.go(x, y, 64)", "t = Trainer(net, 9)\nt.go(x, y, 64)"]
)
def test_an_object_may_be_made_in_the_cell(cell):
    assert changed(cell, earlier=(written(),)) == cell.replace("64", "32")


@pytest.mark.parametrize(
    ("cell", "more"),
    [
        ("trainer.go(x, y, 64)", {"seen": 48}),
        ("trainer.go(x, y, 64)", {"batch": "n // 2"}),
        ("trainer.go(x, y, 64)", {"more": ", steps_per_epoch=3"}),
        ("trainer.go(x, y, 64)", {"earlier": ("class Trainer(Base):\n    pass\n", MADE)}),
        ("trainer.go(*data)", {}),
        ("trainer.go(x, y, size())", {}),
        ("trainer.go(x, y, 64)", {"change": ("        return", "        n = n - 1\n        return")}),
        ("trainer.go(x, y, 64)", {"change": ("        return", "        def run(n):\n            return")}),
    ],
)
def test_what_is_not_certain_is_refused(cell, more):
    assert not isinstance(found(cell, **more), BatchFound)


@pytest.mark.parametrize(
    "earlier",
    [
        (written(), "import lib as trainer"),
        (written(), "trainer = lib.Trainer(net)"),
        (written(), "trainer = make()"),
        (written(), MADE, "trainer = other"),
        (written(), "def set_up():\n    trainer = Trainer(net)"),
        (written(), written(change=("x, y, batch_size", "y, x, batch_size")), MADE),
        (written(), "from lib import Trainer", MADE),
        (written(), MADE, "trainer.go = quick"),
        (written(), MADE, "Trainer.go = quick"),
        (written(change=("    def go", "    @timed\n    def go")), MADE),
        (written() + "    go = timed(go)\n", MADE),
    ],
)
def test_a_method_of_an_object_whose_class_is_not_certain_is_left_alone(earlier):
    assert not isinstance(found("trainer.go(x, y, 64)", earlier=earlier), BatchFound)


@pytest.mark.parametrize(
    "used",
    [
        "self.net.add(keras.layers.Dense(n))",
        "units = n",
        "self.build(n)",
        "x = tf.reshape(x, (n, -1))",
        "for _ in range(n): pass",
        "x = x[:n]",
        "self.width = n",
        "self.build(units=n)",
        "layer = keras.layers.LSTM(units=n)",
    ],
)
def test_a_parameter_that_also_decides_something_else_is_left_alone(used):
    change = ("        return", f"        {used}\n        return")
    assert not isinstance(found("trainer.go(x, y, 64)", change=change), BatchFound)
    assert not isinstance(found("trainer.go(x, y)", default="=64", change=change), BatchFound)


@pytest.mark.parametrize("used", ["print(n)", "steps = len(x) // batch_size", "noise = tf.zeros((batch_size, 4))"])
def test_a_parameter_that_is_shown_or_counts_batches_follows(used):
    name = "batch_size" if "batch_size" in used else "n"
    text = written(batch=name, change=("        return", f"        {used}\n        return"))
    cell = "trainer.go(x, y, 64)"
    assert changed(cell, earlier=(text.replace("y, n)", f"y, {name})"), MADE)) == "trainer.go(x, y, 32)"


@pytest.mark.parametrize(("given", "after"), [("", None), (", 64", ", 32")])
def test_a_default_that_can_only_be_given_by_position_is_left_alone(given, after):
    answer = found(f"trainer.go(x, y{given})", earlier=(written(default="=64, /"), MADE))
    assert isinstance(answer, BatchFound) == (after is not None)
    if isinstance(answer, BatchFound):
        assert set_batch(answer, 32)[0] == f"trainer.go(x, y{after})"


OBJECT = {"batch": "self.size", "default": "=0"}


@pytest.mark.parametrize(
    "change",
    [
        ("self.size = size", "self.size = size\n        self.noise = tf.random.normal((size, 8))"),
        ("self.size = size", "self.size = size\n        self.noise = tf.random.normal((self.size, 8))"),
        ("self.size = size", "self.size = size\n        super().__init__(size)"),
        ("self.size = size", "self.size = self.width = size"),
        ("self.size = size", "self.size = int(size)"),
        ("self.size = size", "self.size, self.depth = size, 3"),
        (
            "self.size = size",
            "self.size = size\n        self.build()\n    def build(self):\n        self.w = [0] * self.size",
        ),
        ("        return", "        self.noise = tf.zeros((self.size, 4))\n        return"),
        ("        return", "        x = self.step(x)\n        return"),
        ("        return", "        self.size = 64\n        return"),
        ("    def go", "    def layer(self):\n        return keras.layers.Dense(self.size)\n\n    def go"),
        ("class Trainer:", "class Trainer:\n    __slots__ = ('net', 'size')\n"),
        ("class Trainer:", "class Trainer(Base):"),
        ("class Trainer:", "@dataclass\nclass Trainer:"),
        ("    def go", "    @property\n    def size(self):\n        return 64\n\n    def go"),
    ],
)
def test_an_attribute_of_which_the_object_has_made_something_is_left_alone(change):
    staged = "\n    @tf.function\n    def step(self, x):\n        return x + tf.zeros((self.size, 8))\n"
    text = written(**OBJECT, change=change) + staged * ("step" in change[1])
    assert not isinstance(found("trainer.go(x, y)", earlier=(text, MADE)), BatchFound)


@pytest.mark.parametrize(
    "change",
    [
        ("self.size = size", "self.size = size\n        print(size)"),
        ("self.size = size", "self.size = 64"),
        ("        return", "        noise = tf.zeros((self.size, 4))\n        return"),
        (
            "    def go",
            "    def test(self, x):\n        return self.net.evaluate(x, batch_size=self.size)\n\n    def go",
        ),
        ("class Trainer:", "class Trainer(object):"),
    ],
)
def test_an_attribute_that_is_only_read_for_batches_is_set(change):
    text = written(**OBJECT, change=change)
    assert changed("trainer.go(x, y)", earlier=(text, MADE)) == "trainer.size = 32\ntrainer.go(x, y)"


@pytest.mark.parametrize(
    ("cell", "earlier"),
    [
        ("trainer = Trainer(net); trainer.go(x, y)", ()),
        ("for net in nets:\n    trainer = Trainer(net)\n    trainer.go(x, y)", ()),
        ("def run():\n    trainer = Trainer(net)\n    trainer.go(x, y)\nrun()", ()),
        ("def run(trainer):\n    trainer.go(x, y)\nrun(other)", (MADE,)),
        ("trainer.go(x, y)", (MADE, "noise = tf.zeros((trainer.size, 8))")),
        ("noise = tf.zeros((trainer.size, 8))\ntrainer.go(x, y)", (MADE,)),
        ("with tf.device(d) as trainer: trainer.go(x, y)", (MADE,)),
    ],
)
def test_an_attribute_is_set_only_on_the_object_of_the_notebook_and_before_it_is_read(cell, earlier):
    assert not isinstance(found(cell, earlier=(written(**OBJECT), *earlier)), BatchFound)


def test_an_attribute_that_does_not_set_the_batch_is_left_alone():
    assert not isinstance(found("trainer.go(x, y)", batch="self.other", default="=0"), BatchFound)


OF_THE_NOTEBOOK = """class Trainer:
    def __init__(self, net):
        self.net = net

    def go(self, x, y):
        {}
"""


def of_the_notebook(body, *more, cell="h = trainer.go(x, y)"):
    """Find the batch of a method that reads its size by a name of an earlier cell."""
    return found(cell, earlier=("SIZE = 64", OF_THE_NOTEBOOK.format(body), *more, "trainer = Trainer(net)"))


@pytest.mark.parametrize("body", ["self.net.fit(x, y, batch_size=SIZE)", "return self.net.fit(x, y, SIZE)"])
def test_a_name_of_an_earlier_cell_that_the_method_reads_is_set_in_the_cell(body):
    answer = of_the_notebook(body.replace("y, SIZE", "y, batch_size=SIZE, epochs=2"))
    assert isinstance(answer, BatchFound), answer
    assert set_batch(answer, 32)[0] == "SIZE = 32\nh = trainer.go(x, y)"
    assert not answer.same_steps


@pytest.mark.parametrize(
    "draw",
    [
        "z = random.sample(x, SIZE); self.net.fit(np.array(z), y, batch_size=SIZE)",
        "z = x[:SIZE]; self.net.fit(z, y, batch_size=SIZE)",
        "at = choice(len(x), SIZE); self.net.fit(x[at], y[at], batch_size=SIZE)",
    ],
)
def test_a_method_that_draws_as_many_samples_takes_as_many_steps_as_before(draw):
    answer = of_the_notebook(draw)
    assert isinstance(answer, BatchFound), answer
    assert answer.same_steps
    assert set_batch(answer, 32)[0] == "SIZE = 32\nh = trainer.go(x, y)"
    assert answer.notes == ("Each call of `go` takes as many steps as before, each with fewer samples.",)


@pytest.mark.parametrize(
    "more",
    [
        "twice = SIZE * 2",
        "def show(n=SIZE):\n    return n",
        "class Noise(Layer):\n    def build(self, shape):\n        self.rows = tf.zeros((SIZE, 4))",
    ],
)
def test_a_name_of_which_something_else_was_made_is_not_set(more):
    assert not isinstance(of_the_notebook("self.net.fit(x, y, batch_size=SIZE)", more), BatchFound)


def test_a_name_that_the_cell_reads_itself_is_not_set_before_it():
    answer = of_the_notebook("self.net.fit(x, y, batch_size=SIZE)", cell="rows = SIZE * 2\nh = trainer.go(x, y)")
    assert not isinstance(answer, BatchFound)
