"""The remedy ``distill``: when it is offered, what the new cell says, and that it runs in a real kernel."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernel import Kernel, bfc
from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.facts import Facts, ModelFacts
from tf_mem_magic.core.proposals import Context, Declined, Proposal
from tf_mem_magic.core.recording import Cell, Recording
from tf_mem_magic.notebook.text.cell import read_cell
from tf_mem_magic.remedies.deploy.distill import AFTER_SUCCESS, propose

MODEL = ModelFacts("model", ("Dense",), steps=8, form="sequential", no_student="")


def ask(source, *, model=MODEL, status="ok", line=None, earlier=("import keras",), device="GPU:0"):
    facts = Facts("2.21.0", "3.15.1", True, models=(model,), earlier_cells=earlier, repeatable=("x", "y", "xv", "yv"))
    cell = Cell(source)
    diagnosis = None if status == "ok" else Diagnosis(device, line=line)
    (only,) = propose(Context(cell, Recording(cell, status=status, facts=facts), diagnosis))
    return only


def test_it_is_asked_after_a_run_that_went_well():
    assert AFTER_SUCCESS


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("model.fit(x, y)\nmodel.fit(x, y)", "more than once"),
        ("for i in range(3):\n    model.fit(x, y)", "not a statement of its own"),
        ("model.fit(load())", "made in the call"),
        ("apply = 3\nmodel.fit(x, y)", "uses the name `apply`"),
        ("s = tf.distribute.MirroredStrategy()\nmodel.fit(x, y)", "distribution strategy"),
        ("h = apply.distill(model, model_student, x, y)", "distills already"),
        ("%%bash\nls", "not read as Python"),
    ],
)
def test_what_is_declined(source, reason):
    answer = ask(source)
    assert isinstance(answer, Declined)
    assert reason in answer.reason


@pytest.mark.parametrize(
    ("call", "offered"),
    [
        ("model.predict(x)", True),
        ("model.evaluate(x, y)", True),
        ("print(model.predict_on_batch(x))", True),
        ("net(x)", False),
    ],
)
def test_after_an_out_of_memory_it_is_offered_where_inference_failed(call, offered):
    answer = ask(f"model.fit(x, y)\n{call}\n", status="oom", line=2)
    assert offered == isinstance(answer, Proposal)


def test_where_host_memory_ran_out_it_is_declined():
    assert "the computer's own memory" in ask("model.predict(x)", status="oom", line=1, device="host").reason


def test_it_is_a_cell_of_its_own_that_leaves_the_other_as_it_is():
    answer = ask("%%tfmem\nmodel.fit(x, y)\n")
    assert (True, "nothing", "%%tfmem\nmodel.fit(x, y)\n") == (answer.new_cell, answer.preserves, answer.original)
    assert answer.source.startswith("%%tfmem\nfrom tf_mem_magic import apply\n")


def test_names_of_the_notebook_are_not_taken():
    answer = ask("model.fit(x, y)\n", earlier=("model_student = 1\ndistillation = 2",))
    assert "model_student_2 = apply.narrower(model, 0.5)\ndistillation_2 = apply.distill(model, model_" in answer.source


def test_arguments_of_fit_are_kept_but_not_callbacks_and_the_bar():
    answer = ask("model.fit(x, y, 64, 9, 2, [stop], class_weight={0: 1, 1: 2}, validation_data=(xv, yv))")
    wanted = "x, y, batch_size=64, epochs=9, validation_data=(xv, yv), class_weight={0: 1, 1: 2}, temperature=4.0"
    assert f"apply.distill(model, model_student, {wanted}, hard=0.1)" in answer.source
    assert "callbacks" in " ".join(answer.caveats)


def test_the_caveats_name_batch_normalization_and_a_schedule():
    model = replace(MODEL, layers=("Dense", "BatchNormalization"), schedule="ExponentialDecay")
    caveats = " ".join(ask("model.fit(x, y)", model=model).caveats)
    assert [True, True, True] == [word in caveats for word in ("BatchNormalization", "schedule", "no validation data")]


@given(
    st.sampled_from(["", "%%tfmem\n", "%%tfmem -q\n%%time\n", "\n\n%%tfmem\n"]),
    st.lists(
        st.sampled_from(
            ["# fit", "%matplotlib inline", "", "ü = 'ü'", "!ls", "def f():\n    return f'{ü}'", "b = 1 + \\\n  2"]
        ),
        max_size=5,
    ),
    st.sampled_from(["\n", "\r\n"]),
)
@settings(max_examples=100, deadline=None)
def test_whatever_stands_around_fit_the_cell_is_the_same_and_parses(lead, noise, end):
    source = lead + "".join(f"{line}\n" for line in noise) + "h = model.fit(\n    x, y,  # data\n    epochs=3)\n"
    answer = ask(source.replace("\n", end))
    assert isinstance(answer, Proposal), answer.reason
    assert ask("model.fit(x, y, epochs=3)").source == answer.source.replace(end, "\n")
    assert end == ("\r\n" if "\r\n" in answer.source else "\n")
    assert hasattr(read_cell(answer.source), "tree")


SETUP = """%load_ext tf_mem_magic
import keras, numpy as np, tf_mem_magic as t
from tf_mem_magic.core.proposals import Context
from tf_mem_magic.remedies.deploy.distill import propose
rng = np.random.default_rng(0)
x = rng.standard_normal((512, 12)).astype("float32"); y = (x @ rng.standard_normal((12, 4))).argmax(1)
class Net(keras.Model):
    def __init__(self):
        super().__init__()
        self.out = keras.layers.Dense(4, "softmax")
    def call(self, x):
        return self.out(x)
def offered():
    r = t.last_report().recording
    (answer,) = propose(Context(r.cell, r))
    return getattr(answer, "source", None) or answer.reason
"""
TRAIN = """%%tfmem --no-live
keras.utils.set_random_seed(1)
model = keras.Sequential([keras.Input((12,)), keras.layers.Dense(128, "relu"), keras.layers.Dense(4, "softmax")])
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
history = model.fit(x, y, batch_size=64, epochs=6, verbose=0, validation_data=(x[:100], y[:100]))
"""
SUBCLASS = """%%tfmem --no-live
net = Net()
net.compile("adam", "sparse_categorical_crossentropy")
net.fit(x, y, verbose=0)
"""


@pytest.mark.tf
@pytest.mark.kernel
@pytest.mark.timeout(600)
def test_the_new_cell_runs_as_it_is(tmp_path):
    env = {**bfc(512), "XDG_CACHE_HOME": str(tmp_path), "IPYTHONDIR": str(tmp_path / "ipython")}
    with Kernel(env) as kernel:
        assert [] == kernel.run(SETUP).errors
        assert [] == kernel.run(TRAIN).errors
        source = kernel.value("offered()")
        assert "apply.distill(model, model_student, x, y, batch_size=64, epochs=6, validation_data=(" in source
        assert [] == kernel.run("before = model.get_weights()").errors
        ran = kernel.run(source)
        assert [] == ran.errors
        assert "accuracy on the validation data" in ran.out
        assert "ok" == kernel.value("t.last_report().status")
        assert kernel.value("all((a == b).all() for a, b in zip(before, model.get_weights()))")
        assert kernel.value("len(distillation.history['loss'])") == 6
        assert kernel.value("model_student.evaluate(x, y, verbose=0, return_dict=True)['accuracy']") > 0.4
        assert [] == kernel.run(SUBCLASS).errors
        assert "needs a Sequential or functional model" in kernel.value("offered()")
