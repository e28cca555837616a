"""Arrays given to Keras: the cells that ``stream-data`` changes really run, and give the same numbers."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.remedies.stream_data.test_remedy import ask
from tests.stream_runtime import run_cells
from tf_mem_magic.core.proposals import Proposal

ARRAYS = """
import keras, numpy as np, os
rng = np.random.default_rng(0)
x = rng.standard_normal((103, 6)); y = rng.integers(0, 2, 103); w = rng.random(103)
a, b = x[:, :2].copy(), x[:, 2:].astype("float32"); z = rng.standard_normal((103, 1)); pair = (x[80:].copy(), y[80:].copy())
SHARE = 0.3; fold = rng.random(103) > 0.3
np.save("x.npy", x)
def simple():
    m = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, "tanh"), keras.layers.BatchNormalization(), keras.layers.Dense(1, "sigmoid")])
    m.compile("sgd", "binary_crossentropy", weighted_metrics=["accuracy"])
    return m
def forked():
    one, two = keras.Input((2,), name="one"), keras.Input((4,), name="two")
    both = keras.layers.Concatenate()([one, two])
    out = [keras.layers.Dense(1, name="p")(both), keras.layers.Dense(1, name="q")(both)]
    m = keras.Model([one, two], out)
    m.compile("sgd", ["mse", "mae"])
    return m
def named():
    one, two = keras.Input((2,), name="one"), keras.Input((4,), name="two")
    both = keras.layers.Concatenate()([one, two])
    m = keras.Model({"one": one, "two": two}, {name: keras.layers.Dense(1, name=name)(both) for name in "pq"})
    m.compile("sgd", {"p": "mse", "q": "mae"})
    return m
"""
AFTER = "\nresult = [history.history, model.get_weights()]"


def fit(arguments, model="simple", lead=""):
    return (
        f"{ARRAYS}\nmodel = {model}()",
        f"%%tfmem\n{lead}history = model.fit({arguments}, epochs=3, verbose=0){AFTER}",
    )


SAME = {
    "arrays": fit("x, y, shuffle=False"),
    "weights": fit("x, y, batch_size=16, sample_weight=w, shuffle=False"),
    "class weights": fit("x, y, batch_size=16, class_weight={0: 3.0, 1: 0.5}, shuffle=False"),
    "validation arrays": fit("x[:80], y[:80], 16, validation_data=(x[80:], y[80:]), shuffle=False"),
    "weighted validation": fit(
        "x, y, 16, validation_data=(x[9:], y[9:], w[9:]), validation_batch_size=7, shuffle=False"
    ),
    "validation in a tuple": fit("x, y, 16, validation_data=pair, shuffle=False"),
    "a split": fit("x, y, 16, validation_split=0.2, shuffle=False"),
    "a named split with weights": fit("x, y, 16, sample_weight=w, validation_split=SHARE, shuffle=False"),
    "several inputs and outputs": fit("[a, b], [z, z], 16, shuffle=False", "forked"),
    "one weight for all outputs": fit("[a, b], [z, z], 16, sample_weight=w, shuffle=False", "forked"),
    "dicts": fit('{"one": a, "two": b}, {"p": z, "q": z}, validation_split=0.25, shuffle=False', "named"),
    "a mapped file": fit("data, y, 16, shuffle=False", lead='data = np.load(os.path.join(".", "x.npy"))\n'),
    "chosen samples": fit("x[fold], y[fold], 16, validation_data=(x[~fold] / 2.0, y[~fold]), shuffle=False"),
    "computed": fit("x.astype('float32').reshape(-1, 6) / 2.0, y, 16, shuffle=False"),
    "predict": (f"{ARRAYS}\nmodel = simple()", "result = model.predict(x, verbose=0)"),
    "predict several": (f"{ARRAYS}\nmodel = forked()", "result = model.predict([a, b], 10, verbose=0)"),
    "evaluate": (f"{ARRAYS}\nmodel = simple()", "result = model.evaluate(x, y, sample_weight=w, verbose=0)"),
    "in a function": (
        f"{ARRAYS}\nmodel = simple()",
        "def train(net, a, b):\n    return net.fit(a, b, shuffle=False, verbose=0)\nhistory = train(model, x, y)"
        + AFTER,
    ),
}
OTHER_ORDER = {"shuffled": fit("x, y, 16"), "shuffled with a split": fit("x, y, 16, validation_split=0.2")}


GIVEN = st.lists(
    st.sampled_from(
        ["epochs=2", "batch_size=64", "sample_weight=w", "validation_data=(x, y)", "validation_split=0.2", "verbose=0"]
    ),
    unique=True,
    max_size=5,
)


class Stream:
    """What ``apply.stream`` was given."""

    def __init__(self, x, y=None, sample_weight=None, *, batch_size, shuffle=True, last=None, but_last=None):
        self.data, self.batch, self.shuffle, self.split = (x, y, sample_weight), batch_size, shuffle, (last, but_last)


def fitted(x, y=None, batch_size=None, sample_weight=None, validation_data=None, validation_split=None, **rest):
    """Say in one form what ``fit`` was given: the data, their batch, the validation data, the split, the rest."""
    data, batch, split = (x, y, sample_weight), batch_size or 32, validation_split
    if isinstance(x, Stream):
        assert (y, batch_size, sample_weight, validation_split) == (None, None, None, None)
        data, batch, (_, split) = x.data, x.batch, x.split
    checked = None
    if isinstance(validation_data, Stream):
        assert not validation_data.shuffle
        checked = (validation_data.data, validation_data.batch, validation_data.split[0])
    elif validation_data is not None:
        checked = ((*validation_data, None), batch, None)
    elif split:
        checked = (data, batch, split)
    return data, batch, checked, split, rest


def understood(source):
    return eval(source[source.index("fit(") :].split(" # end")[0], {"fit": fitted, **ARGUMENTS})


ARGUMENTS = {"x": "x", "y": "y", "w": "w", "apply": type("Apply", (), {"stream": Stream})}


@given(
    st.sampled_from(["", "%%tfmem\n", "\n\n%%tfmem -q\n%%time\n"]),
    st.lists(st.sampled_from(["# note", "%matplotlib inline", "", "ü = f'{1}'", "!ls", "b = 1 + \\\n  2"]), max_size=4),
    st.sampled_from([["x", "y"], ["x", "y", "64"], ["x=x", "y=y"], ["y=y", "x=x"], ["[x, w]", "y"], ["{'ü': x}", "y"]]),
    GIVEN,
    st.sampled_from([", ", ",\n    ", ',  # a comment, (with) "signs"\n    ']),
    st.booleans(),
    st.sampled_from(["\n", "\r\n"]),
)
@settings(max_examples=300, deadline=None)
def test_the_changed_call_gives_the_same_data_and_every_other_byte_stays(
    lead, noise, data, more, between, trailing, end
):
    more = [one for one in more if "64" not in data or "batch_size" not in one]
    more = [one for one in more if "validation_data=(x, y)" not in more or "split" not in one]
    before = lead + "".join(f"{line}\n" for line in noise)
    call = f"h = model.fit({between.join([*data, *more])}{between.rstrip(' ') if trailing else ''})"
    source = f"{before}{call} # end ü\nz = 1\n".replace("\n", end)
    answer = ask(source)
    assert isinstance(answer, Proposal), answer.reason
    rest = answer.source.replace(f"from tf_mem_magic import apply{end}", "")
    assert rest.startswith(f"{before}h = model.fit(".replace("\n", end))
    assert rest.endswith(") # end ü\nz = 1\n".replace("\n", end))
    assert source.count("#") == rest.count("#")
    assert rest.count("\n") * (end == "\r\n") == rest.count("\r")
    assert understood(source) == understood(rest)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    return run_cells({**SAME, **OTHER_ORDER}, tmp_path_factory.mktemp("arrays"))


@pytest.mark.tf
@pytest.mark.parametrize("name", SAME)
def test_the_changed_cell_gives_the_same_numbers(ran, name):
    one = ran[name]
    assert "same results" == one.get("preserves"), one
    assert "apply.stream(" in one["source"]
    assert one["before"] == one["after"]


@pytest.mark.tf
@pytest.mark.parametrize("name", OTHER_ORDER)
def test_where_fit_shuffles_the_order_is_another_and_that_is_said(ran, name):
    assert "same effective batch" == ran[name].get("preserves"), ran[name]
    assert ran[name]["before"] != ran[name]["after"]


@pytest.mark.tf
def test_a_file_is_mapped(ran):
    assert 'np.load(os.path.join(".", "x.npy"), mmap_mode="c")' in ran["a mapped file"]["source"]
