"""The remedy ``lighter-optimizer``: what it writes, when it declines, and what the edited cells really keep."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernel import bfc
from tests.script import found_by
from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.facts import Facts, ModelFacts, ScalarFact
from tf_mem_magic.core.proposals import Context, Declined, Proposal
from tf_mem_magic.core.recording import Cell, Recording
from tf_mem_magic.remedies.lighter_optimizer.remedy import propose

IMPORTS = "import keras\nimport tensorflow as tf\n"
BUILD = """model = keras.Sequential([keras.Input((512,)), keras.layers.Dense(1024, "relu"), keras.layers.Dense(1)])
model.compile({0}, "mse", jit_compile=False)
model.fit(x, y, batch_size=16, verbose=0)
"""
LOOP = """optimizer = keras.optimizers.Adam()
for a, b in tf.data.Dataset.from_tensor_slices((x, y)).batch(16):
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((model(a) - b) ** 2)
    grads = tape.gradient(loss, model.trainable_variables)
    optimizer.apply_gradients(zip(grads, model.trainable_variables))
"""


def ask(source, *, optimizer="Adam", weights=100, limit=500, earlier=(IMPORTS,), keras="3.15.1", trained=None, **more):
    cell = Cell(source)
    models = (ModelFacts("model", ("Dense",), optimizer, weight_bytes=weights, trainable_bytes=trained),)
    scalars = (ScalarFact("rate", 1),)
    facts = Facts("2.21.0", keras, True, models=models, earlier_cells=earlier, scalars=scalars)
    diagnosis = Diagnosis("GPU:0", limit=limit, **({"line": len(source.splitlines())} | more))
    (only,) = propose(Context(cell, Recording(cell, status="oom", facts=facts), diagnosis))
    return only


WRITTEN = {
    "Adam": '"adam"',
    "AdamW": "keras.optimizers.AdamW(1e-3, clipnorm=1.0)",
    "Nadam": "tf.keras.optimizers.Nadam(learning_rate=rate)",
    "RMSprop": '"rmsprop"',
    "Lion": "keras.optimizers.Lion()",
}
LABELS = ("before", "SGD with momentum", "Adafactor", "SGD")
RUN = """
import json, sys
import keras, numpy as np, tensorflow as tf
x = np.ones((64, 512), "float32"); y = np.ones((64, 1), "float32")
found = {}
for name, source in json.load(sys.stdin).items():
    names = {"keras": keras, "tf": tf, "x": x, "y": y, "rate": 1e-3}
    keras.utils.set_random_seed(1)
    if "model =" not in source:
        names["model"] = keras.Sequential([keras.Input((512,)), keras.layers.Dense(1024), keras.layers.Dense(1)])
    exec(source, names)
    used = getattr(names["model"], "optimizer", None) or names["optimizer"]
    kept = sum(int(np.prod(v.shape)) * 4 for v in used.variables)
    weights = sum(int(np.prod(v.shape)) * 4 for v in names["model"].weights)
    finite = all(bool(np.isfinite(w).all()) for w in names["model"].get_weights())
    found[name] = [type(used).__name__, kept / weights, finite, used.clipnorm]
print("FOUND" + json.dumps(found))
"""


@pytest.fixture(scope="module")
def ran():
    cells = {}
    for name, text in WRITTEN.items():
        source = BUILD.format(text)
        answer = ask(source, optimizer=name)
        assert isinstance(answer, Proposal), answer.reason
        cells |= {f"{name} before": source, f"{name} {answer.title.split(' → ')[1]}": answer.source}
        cells |= {f"{name} {choice.label}": choice.source for choice in answer.choices}
    cells["loop"] = ask(LOOP).source
    return found_by(RUN, cells, bfc(512))


@pytest.mark.tf
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["Adam", "AdamW", "Nadam"])
def test_the_edited_cell_trains_and_keeps_what_the_remedy_says(ran, name):
    kept = {label: round(ran[f"{name} {label}"][1], 1) for label in LABELS}
    assert {"before": 2.0, "SGD with momentum": 1.0, "Adafactor": 1.0, "SGD": 0.0} == kept


@pytest.mark.tf
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["RMSprop", "Lion"])
def test_what_keeps_one_value_becomes_what_keeps_none(ran, name):
    assert (1.0, 0.0) == (round(ran[f"{name} before"][1], 1), round(ran[f"{name} SGD"][1], 1))


@pytest.mark.tf
@pytest.mark.timeout(900)
def test_every_way_trains_to_finite_weights(ran):
    assert dict.fromkeys(ran, True) == {name: one[2] for name, one in ran.items()}


@pytest.mark.tf
@pytest.mark.timeout(900)
def test_a_clipped_norm_stays_and_a_loop_gets_its_optimizer(ran):
    assert (1.0, "SGD") == (ran["AdamW Adafactor"][3], ran["loop"][0])


def test_nothing_is_promised_to_be_preserved_and_the_rate_is_named():
    answer = ask(BUILD.format('"adam"'))
    assert ("nothing", None) == (answer.preserves, answer.estimate)
    assert any("learning rate" in caveat for caveat in answer.caveats)


@pytest.mark.parametrize(
    ("source", "known", "reason"),
    [
        (BUILD.format('"adam"'), {"weights": 10}, "20 B of 500 B"),
        (BUILD.format('"adam"'), {"trained": 10}, "20 B of 500 B"),
        (BUILD.format('"adam"'), {"limit": None}, "is not known"),
        (BUILD.format('"adam"'), {"cause": "host"}, "own memory"),
        (BUILD.format('"adam"'), {"requested": 501, "cause": "too-big"}, "larger than the device"),
        (BUILD.format('"adam"'), {"keras": "2.15.0"}, "Keras 2"),
        (BUILD.format('"adam"'), {"optimizer": "Mine"}, "how much Mine keeps"),
        (BUILD.format("make()"), {}, "which optimizer `make()` is cannot be told"),
        (BUILD.format("Adam(1e-4)"), {"earlier": (IMPORTS, "from utils import *")}, "`Adam(0.0001)` is cannot be told"),
        (BUILD.format("keras.optimizers.get(chosen)"), {}, "which optimizer `keras.optimizers.get(chosen)` is"),
        (BUILD.format("parts['optimizer']"), {}, "which optimizer `parts['optimizer']` is cannot be told"),
        (BUILD.format("def_.Adam()"), {"earlier": ("import keras, tfa.optimizers as def_",)}, "none of Keras's own"),
        (BUILD.format("LAMB()"), {"earlier": (IMPORTS, "class LAMB(Base):\n    pass")}, "none of Keras's own"),
        (BUILD.format("keras.optimizers.Adam(**options)"), {}, "cannot be followed"),
        (BUILD.format("keras.optimizers.Adam(amsgrad=True)"), {}, "amsgrad"),
        (BUILD.format("keras.optimizers.Adam(pick())"), {}, "schedule, or not known"),
        (BUILD.format("keras.optimizers.Adam(0.1, 0.8)"), {}, "by position"),
        (LOOP.replace("Adam()", "SGD(0.1)"), {}, "SGD keeps little or nothing"),
        (LOOP.replace("keras.optimizers.Adam()", "tf.optimizers.SGD(momentum=0.9)"), {}, "SGD keeps little"),
        (LOOP.replace("Adam()", "RMSprop()"), {"limit": 1500}, "RMSprop keeps 100 B of 1.5 KiB"),
    ],
)
def test_where_it_is_not_sure_or_not_worth_it_is_declined(source, known, reason):
    answer = ask(source, **known)
    assert isinstance(answer, Declined), answer.diff
    assert reason in answer.reason


def test_a_request_that_was_too_big_only_for_what_was_left_is_no_reason_to_decline():
    assert isinstance(ask(BUILD.format('"adam"'), requested=300, in_use=300, cause="too-big"), Proposal)


def test_a_program_of_xla_that_is_larger_than_the_device_is_no_reason_to_decline():
    assert isinstance(ask(BUILD.format('"adam"'), requested=501, cause="too-big", jit=True), Proposal)


def test_a_model_compiled_earlier_comes_with_a_patch_to_copy():
    compiled = 'model.compile("adam", "mse")'
    answer = ask("model.fit(x, y)", earlier=(IMPORTS, compiled))
    assert '+model.compile(keras.optimizers.SGD(learning_rate=0.01, momentum=0.9), "mse")' in answer.patch


def test_keras_is_imported_where_the_cell_cannot_reach_it():
    source = (
        'from keras.models import Sequential\nmodel = Sequential([])\nmodel.compile("adam", "mse")\nmodel.fit(x, y)'
    )
    answer = ask(source, earlier=())
    assert "import keras" == answer.source.splitlines()[2]


NOISE = st.lists(
    st.sampled_from(
        ["# compile('adam')", "note = f'{1}adam'", "%matplotlib inline", "", "ü = 1", "!ls", "w = (1 +\n  2)"]
    ),
    max_size=4,
)


@given(st.sampled_from(sorted(WRITTEN)), NOISE, st.sampled_from(["\n", "\r\n"]), st.sampled_from(["", "%%tfmem\n"]))
@settings(max_examples=100, deadline=None)
def test_only_the_optimizer_changes(name, noise, end, tag):
    lead = (tag + "".join(line + "\n" for line in noise)).replace("\n", end)
    before, _, after = BUILD.replace("\n", end).partition("{0}")
    whole = lead + before + WRITTEN[name] + after
    answer = ask(whole, optimizer=name)
    assert isinstance(answer, Proposal), answer.reason
    for source in (answer.source, *(choice.source for choice in answer.choices)):
        assert source.startswith(lead + before)
        assert source.endswith(after)
    assert whole == answer.original


@given(st.text(alphabet="model.compile('adam')fit(x,y)\n #%!?\"[]:;\\\t\r", max_size=80))
@settings(max_examples=100, deadline=None)
def test_any_text_gets_an_answer(source):
    assert isinstance(ask(source or " "), (Proposal, Declined))


def test_a_comment_in_the_optimizer_is_not_thrown_away():
    answer = ask(BUILD.format("keras.optimizers.Adam(\n    1e-3,  # tuned\n)"))
    assert "a comment stands inside what would be replaced" == answer.reason


@pytest.mark.parametrize(
    ("written", "importing"),
    [
        ("tf.optimizers.Adam()", "import keras\nimport tensorflow as tf"),
        ("tensorflow.optimizers.Adam(1e-4)", "import keras\nimport tensorflow"),
        ("Adam()", "import keras\nfrom tensorflow.optimizers import Adam"),
    ],
)
def test_the_optimizers_of_keras_have_a_short_name_in_tensorflow(written, importing):
    answer = ask(BUILD.format(written), earlier=(importing,))
    assert isinstance(answer, Proposal), answer.reason
    assert "Adam → SGD with momentum" == answer.title
    assert "keras.optimizers.SGD(" in answer.source or "optimizers.SGD(" in answer.source


@pytest.mark.parametrize("source", ["model.predict(x)", "out = model(x)", "scores = model.evaluate(x, y)"])
def test_a_model_without_an_optimizer_is_said_to_be_compiled_with_none_that_is_known(source):
    assert ask(source, optimizer=None).reason == "`model` is compiled with no optimizer that is known"


@pytest.mark.parametrize("source", ["run(net, x)", "z = w * x", "with tf.GradientTape() as tape: z = f(w)"])
def test_a_statement_without_a_known_model_is_not_said_to_train_one(source):
    cell = Cell(source)
    models = (ModelFacts("a", ("Dense",)), ModelFacts("b", ("Dense",)))
    facts = Facts("2.21.0", "3.15.1", True, models=models, earlier_cells=(IMPORTS,))
    (only,) = propose(Context(cell, Recording(cell, status="oom", facts=facts), Diagnosis("GPU:0", line=1)))
    assert only.reason == "no name in the statement that ran out of memory is known to hold a Keras model"
