"""``prune``: which cell is offered after which training, what is refused; then the new cells run in a real kernel."""

from __future__ import annotations

import ast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernel import Kernel, bfc
from tf_mem_magic.core.facts import DatasetFacts, Facts, ModelFacts, ScalarFact
from tf_mem_magic.core.proposals import Context, Declined, Proposal
from tf_mem_magic.core.recording import Cell, Recording
from tf_mem_magic.notebook.text.cell import read_cell
from tf_mem_magic.remedies.deploy.prune import propose

MODEL = {"layers": ("Dense",), "steps": 9, "steps_before": 3, "form": "functional"}
LEFT_OUT = ("epochs", "callbacks", "initial_epoch")


def ask(source, *, status="ok", keras="3.15.1", earlier=(), model=None, data=()):
    facts = Facts(
        "2.21.0",
        keras,
        True,
        models=(ModelFacts("net", **(MODEL | (model or {}))), ModelFacts("idle", ("Dense",), form="sequential")),
        datasets=data,
        scalars=(ScalarFact("cfg.batch", 64), ScalarFact("n", 900), ScalarFact("nothing", None)),
        earlier_cells=("import keras", *earlier),
        repeatable=("x", "y", "w", "val", "parts", *(d.name for d in data if d.kind != "generator")),
    )
    cell = Cell(source)
    (only,) = propose(Context(cell, Recording(cell, status=status, facts=facts)))
    return only


def calls(source):
    """The arguments of each call of the cell, by what is called: texts, in the order of the cell."""
    tree = read_cell(source).tree
    return {
        ast.unparse(node.func).rpartition(".")[2]: [ast.unparse(a) for a in (*node.args, *node.keywords)]
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
    }


@pytest.mark.parametrize(
    ("fit", "fitted", "measured"),
    [
        ("net.fit(x, y)", ["x", "y", "epochs=2"], ["x", "y"]),
        ("net.fit(x, y, 64, 5)", ["x", "y", "batch_size=64", "epochs=3"], ["x", "y", "batch_size=64"]),
        ("net.fit(x, None, 64)", ["x", "batch_size=64", "epochs=2"], ["x", "batch_size=64"]),
        ("h = net.fit(y=y, x=x, epochs=cfg.deep)", ["x", "y", "epochs=2"], ["x", "y"]),
        ("net.fit(x, y, batch_size=cfg.batch)", None, ["x", "y", "batch_size=cfg.batch"]),
        ("net.fit([x, w], {'out': y})", ["[x, w]", "{'out': y}", "epochs=2"], ["[x, w]", "{'out': y}"]),
        ("net.fit(parts['x'], y[:n])", ["parts['x']", "y[:n]", "epochs=2"], ["parts['x']", "y[:n]"]),
        ("net.fit(x[:, 1:-1], y)", ["x[:, 1:-1]", "y", "epochs=2"], ["x[:, 1:-1]", "y"]),
        ("net.fit(x, y, sample_weight=w)", ["x", "y", "sample_weight=w", "epochs=2"], ["x", "y", "sample_weight=w"]),
        ("net.fit(x, y, validation_data=val)", ["x", "y", "validation_data=val", "epochs=2"], ["val"]),
        ("net.fit(x, y, validation_data=(w, y, w))", None, ["w", "y", "sample_weight=w"]),
        ("net.fit(x, y, validation_data=None)", ["x", "y", "epochs=2"], ["x", "y"]),
        ("net.fit(ds, validation_data=ds, validation_steps=3)", None, ["ds", "steps=3"]),
        ("net.fit(ds, steps_per_epoch=3)", ["ds", "steps_per_epoch=3", "epochs=2"], ["ds", "steps=3"]),
        ("net.fit(x, y, steps_per_epoch=len(x) // n)", None, ["x", "y", "steps=len(x) // n"]),
        ("net.fit(x, y, class_weight={0: 1.0, 1: 2.0})", None, ["x", "y"]),
        ("net.fit(x, y, epochs=7, initial_epoch=2, callbacks=[stop])", ["x", "y", "epochs=4"], ["x", "y"]),
    ],
)
def test_the_new_cell_trains_on_the_same_data_by_the_same_names(fit, fitted, measured):
    answer = ask(fit, data=(DatasetFacts("ds", batch=8, cardinality=4),))
    assert isinstance(answer, Proposal), answer.reason
    found = calls(answer.source)
    if fitted is not None:
        assert [*fitted, "callbacks=[pruning]"] == found["fit"]
    assert measured == found["report"]
    assert ["net", "sparsity=0.75"] == found["prune"]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("for i in range(3):\n    net.fit(x, y)", "not a statement of its own"),
        ("def run():\n    net.fit(x, y)\nrun()", "not a statement of its own"),
        ("with tf.device('CPU'):\n    net.fit(x, y)", "not a statement of its own"),
        ("loss = net.fit(x, y).history", "not a statement of its own"),
        ("net.fit(x, y)\nnet.fit(x, y)", "more than once"),
        ("for a, b in ds:\n    net.train_on_batch(a, b)", "does not call `fit`"),
        ("train(net)", "does not call `fit`"),
        ("idle.fit(x, y)", "does not call `fit`"),
        ("net.fit(x, **more)", "hidden behind **"),
        ("net.fit(*data)", "cannot be told apart"),
        ("net.fit(x, y, workers=2)", "`workers` is no argument"),
        ("net.fit()", "given no data"),
        ("net.fit(gone, y)", "`gone` is no array"),
        ("net.fit(x, nothing)", "`nothing` is no array"),
        ("net.fit(rows, steps_per_epoch=2)", "`rows` is a generator, which can be read only once"),
        ("net.fit(ds)", "how many batches `ds` has is not known"),
        ("net.fit(x.astype('float32'), y)", "which is made in the call"),
        ("net.fit(ds.repeat(), steps_per_epoch=2)", "which is made in the call"),
        ("net.fit(x, y, validation_data=load())", "`load()`, which is made in the call"),
        ("net.fit(x, y)\nx = x[:3]", "`x` is changed after"),
        ("net.fit(x, y)\nx[0] = 0", "`x` is changed after"),
        ("net.fit(x[:n], y)\nn += 1", "`n` is changed after"),
        ("net.fit(x, y)\ndel y", "`y` is changed after"),
        ("net.fit(x, y, batch_size=cfg.batch)\ncfg.batch = 3", "`cfg` is changed after"),
        ("net.fit(x, y)\nnet = keras.models.load_model('a')", "`net` is changed after"),
        ("with strategy.scope(): pass\nMirroredStrategy()\nnet.fit(x, y)", "distribution strategy"),
        ("%%bash\nls", "not read as Python"),
    ],
)
def test_what_cannot_be_written_again_is_declined_with_the_reason(source, reason):
    data = (DatasetFacts("ds", batch=8), DatasetFacts("rows", "generator"))
    answer = ask(source, data=data)
    assert isinstance(answer, Declined), answer.source
    assert reason in answer.reason


@pytest.mark.parametrize(
    ("known", "reason"),
    [
        ({"status": "oom"}, "not the memory that the model takes while it runs"),
        ({"status": "killed"}, "not the memory that the model takes while it runs"),
        ({"keras": "3.3.3"}, "tested with Keras 3.12 and later; this is 3.3.3"),
        ({"keras": "2.16.0"}, "tested with Keras 3.12"),
        ({"keras": None}, "does not use Keras"),
        ({"model": {"form": "subclassed"}}, "`net` is a model class of its own"),
        ({"model": {"form": None}}, "`net` is a model class of its own"),
        ({"model": {"layers": ("Lambda", "Dense")}}, "Lambda layer"),
        ({"model": {"layers": ("Embedding",)}}, "no dense, convolution or recurrent layer"),
        ({"model": {"steps": 3}}, "trained no Keras model"),
        ({"earlier": ("apply = print",)}, "uses the name `apply`"),
    ],
)
def test_a_model_that_cannot_be_pruned_is_declined_with_the_reason(known, reason):
    answer = ask("net.fit(x, y)", **known)
    assert isinstance(answer, Declined), answer.source
    assert reason in answer.reason


def test_data_that_a_generator_may_feed_are_declined_also_with_steps():
    endless = (DatasetFacts("ds", batch=8),)
    source = "net.fit(ds, steps_per_epoch=4)"
    assert isinstance(ask(source, data=endless), Proposal)
    answer = ask(source, data=endless, earlier=("ds = tf.data.Dataset.from_generator(rows)",))
    assert "`ds` may come from a generator" in answer.reason


def test_a_value_given_before_the_training_on_its_line_is_no_change():
    assert isinstance(ask("n = 900; net.fit(x[:n], y)"), Proposal)


def test_names_of_the_notebook_are_not_taken():
    answer = ask("net.fit(x, y)", earlier=("pruning = 1\nnet_pruned = 2",))
    assert "pruning_2 = apply.prune(net, sparsity=0.75)\nnet_pruned_2 = pruning_2.model\n" in answer.source
    assert "callbacks=[pruning_2])" in answer.source


def test_names_of_an_earlier_pruning_are_taken_again():
    once = ask("net.fit(x, y)").source
    assert once == ask("net.fit(x, y)", earlier=(once,)).source


def test_a_cell_that_prunes_is_not_pruned_again():
    assert "prunes already" in ask("net.fit(x, y, callbacks=[apply.prune(net)])").reason


def test_it_is_a_cell_of_its_own_and_keeps_nothing_of_the_training():
    answer = ask("%%time\n%%tfmem --no-live\nnet.fit(x, y)")
    assert (True, "nothing", "", None) == (answer.new_cell, answer.preserves, answer.undo, answer.estimate)
    assert answer.source.startswith("%%tfmem\nfrom tf_mem_magic import apply\n")


def caveats(source="net.fit(x, y)", **known):
    return " ".join(ask(source, **known).caveats)


def test_the_caveats_say_that_memory_does_not_get_smaller_and_what_it_costs():
    told = caveats("net.fit(x, y, epochs=10)")
    assert "Memory is not smaller" in told
    assert "It trains for 5 more epochs" in told
    assert "the copy and its optimizer take memory beside the model" in told


@pytest.mark.parametrize(
    ("words", "with_it", "without"),
    [
        ("callbacks of your `fit` are left out", {"source": "net.fit(x, y, callbacks=[stop])"}, {}),
        ("measured on the data that it trains on", {}, {"source": "net.fit(x, y, validation_data=val)"}),
        ("learning-rate schedule goes on", {"model": {"schedule": "CosineDecay"}}, {}),
        ("BatchNormalization", {"model": {"layers": ("Dense", "BatchNormalization")}}, {}),
    ],
)
def test_a_caveat_is_there_only_where_it_applies(words, with_it, without):
    assert words in caveats(**with_it)
    assert words not in caveats(**without)


NOISE = st.lists(
    st.sampled_from(
        [
            "# net.fit(x)",
            "note = f'{1}fit'",
            "%matplotlib inline",
            "",
            "ü = 1",
            "!ls",
            "q = (1 +\n  2)",
            "def f(): pass",
        ]
    ),
    max_size=4,
)
ARGUMENTS = {
    "batch_size": "n",
    "verbose": "0",
    "shuffle": "False",
    "validation_split": "0.25",
    "sample_weight": "w",
    "epochs": "3",
    "callbacks": "[stop]",
}


@given(
    st.lists(st.sampled_from(sorted(ARGUMENTS)), unique=True),
    NOISE,
    NOISE,
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["", "%%tfmem\n", "%%tfmem -q\n"]),
    st.sampled_from([", ", ",\n    ", ",  # why\n    "]),
)
@settings(max_examples=150, deadline=None)
def test_the_new_cell_has_the_same_arguments_whatever_stands_around_the_training(words, lead, rest, end, tag, joint):
    given_words = joint.join(["x", "y", *(f"{w}={ARGUMENTS[w]}" for w in words)])
    lines = [*lead, f"history = net.fit({given_words}\n)", *rest]
    source = (tag + "".join(line + "\n" for line in lines)).replace("\n", end)
    answer = ask(source)
    assert isinstance(answer, Proposal), answer.reason
    assert source == answer.original
    assert end in answer.source
    assert "\n" not in answer.source.replace(end, "")
    kept = {"x", "y", *(f"{w}={ARGUMENTS[w]}" for w in words if w not in LEFT_OUT)}
    assert kept | {"epochs=2", "callbacks=[pruning]"} == set(calls(answer.source)["fit"])


@given(st.text(alphabet='net.fit(x,y)\n #%!?"[]:;=\\\t\r', max_size=80))
@settings(max_examples=100, deadline=None)
def test_any_text_gets_an_answer(source):
    assert isinstance(ask(source or " "), (Proposal, Declined))


SETUP = """%load_ext tf_mem_magic
import keras, numpy as np, tensorflow as tf
import tf_mem_magic as t
from keras import layers
from tf_mem_magic.core.proposals import Context
from tf_mem_magic.remedies.deploy import prune

rng = np.random.default_rng(0)
table = rng.normal(size=(640, 16)).astype("float32")
labels = (table @ rng.normal(size=(16, 4))).argmax(1)
x, x_val = table[:512], table[512:]
y, y_val = labels[:512], labels[512:]
held_out = (x_val, y_val)
weights = {i: 1.0 for i in range(4)}
EPOCHS, BATCH = 6, 32
train = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(512).batch(BATCH)
endless = train.repeat()

def build(kind=keras.Sequential):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((16,)); stack = [layers.Dense(64, "relu"), layers.BatchNormalization(), layers.Dense(4)]
    if kind is keras.Sequential:
        model = keras.Sequential([inputs, *stack])
    else:
        h = inputs
        for layer in stack:
            h = layer(h)
        model = kind(inputs, h)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return model

class Own(keras.Model):
    def __init__(self):
        super().__init__(); self.dense = layers.Dense(4)
    def call(self, x):
        return self.dense(x)

def once():
    for a, b in train:
        yield a, b

def offered():
    recording = t.last_report().recording
    (answer,) = prune.propose(Context(recording.cell, recording))
    return getattr(answer, "source", ""), getattr(answer, "reason", "")

def kept():
    return [w.tobytes() for w in model.get_weights()]

def after():
    made = pruning.report()
    return {"status": t.last_report().status, "sparsity": made.sparsity, "files": [made.file, made.before, made.after]}
"""

TRAINED = {
    "arrays that are views of one table": """%%tfmem
model = build()
history = model.fit(x, y, BATCH, EPOCHS, verbose=0)
""",
    "a dataset, validation data in one name": """%%tfmem
model = build(keras.Model)
model.fit(train, epochs=EPOCHS, validation_data=held_out, class_weight=weights, verbose=0)
""",
    "an endless dataset with steps": """%%tfmem
model = build()
model.fit(endless, steps_per_epoch=12, epochs=4, validation_data=(x_val, y_val), verbose=0)
""",
    "a slice, a split": """%%tfmem
model = build()
model.fit(x[:400], y[:400], epochs=4, batch_size=BATCH, validation_split=0.2, verbose=0)
""",
}
REFUSED = {
    "`fit` is given `once()`": "%%tfmem\nmodel = build()\nmodel.fit(once(), verbose=0)",
    "`rows` is a generator": "%%tfmem\nmodel = build()\nrows = once()\nmodel.fit(rows, steps_per_epoch=9, verbose=0)",
    "how many batches `fed` has": (
        "%%tfmem\nmodel = build()\nfed = train.filter(lambda a, b: True)\nmodel.fit(fed, verbose=0)"
    ),
    "`model` is a model class of its own": (
        "%%tfmem\nmodel = Own()\nmodel.compile('adam', 'mse')\nmodel.fit(x, x[:, :4], verbose=0)"
    ),
    "does not call `fit`": "%%tfmem\nmodel = build()\nfor a, b in train:\n    loss = model.train_on_batch(a, b)",
    "trained no Keras model": "%%tfmem\nmodel = build()\nmodel.evaluate(x, y, verbose=0)",
}


def run(kernel, code):
    ran = kernel.run(code)
    assert ran.status == "ok", "\n".join([ran.out, ran.err, *ran.errors])
    return ran


@pytest.fixture(scope="module")
def in_kernel():
    found = {}
    with Kernel(bfc(1024)) as kernel:
        run(kernel, SETUP)
        for name, cell in TRAINED.items():
            run(kernel, cell)
            source, reason = kernel.value("offered()")
            assert source, reason
            run(kernel, "before = kept()")
            told = run(kernel, source).out
            found[name] = {"source": source, "told": told, **kernel.value("after()")}
            found[name]["untouched"] = kernel.value("before == kept()")
            found[name]["again"] = kernel.value("offered()")[1]
        run(kernel, "get_ipython()._tf_mem_magic.session.deployed.clear()  # offered once for each model")
        run(kernel, TRAINED["arrays that are views of one table"] + "\nbefore = kept()\n")
        run(kernel, "first = t.last_report()\nsecond = first.rerun('prune')")
        found["by its key"] = kernel.value("['prune' in [p.key for p in first.proposals], after(), before == kept()]")
        for reason, cell in REFUSED.items():
            run(kernel, cell)
            found[reason] = kernel.value("offered()")
    return found


@pytest.mark.kernel
@pytest.mark.tf
@pytest.mark.timeout(900)
class TestInAKernel:
    @pytest.mark.parametrize("name", TRAINED)
    def test_the_new_cell_runs_and_prunes_a_copy(self, in_kernel, name):
        ran = in_kernel[name]
        assert ("ok", 0.75, True) == (ran["status"], ran["sparsity"], ran["untouched"])

    def test_after_a_run_that_went_well_the_report_offers_it_and_runs_it_by_its_key(self, in_kernel):
        offered, after, untouched = in_kernel["by its key"]
        assert (True, True) == (offered, untouched)
        assert ("ok", 0.75) == (after["status"], after["sparsity"])

    @pytest.mark.parametrize("name", TRAINED)
    def test_it_prints_what_it_measured(self, in_kernel, name):
        told = in_kernel[name]["told"]
        assert "75.0% of 1,280 kernel weights are zero; the aim was 75.0%." in told
        assert "accuracy: " in told

    @pytest.mark.parametrize("name", TRAINED)
    def test_the_compressed_file_is_smaller(self, in_kernel, name):
        plain, before, after = in_kernel[name]["files"]
        assert after < 0.8 * before < plain

    @pytest.mark.parametrize("name", TRAINED)
    def test_the_new_cell_is_not_offered_pruning_itself(self, in_kernel, name):
        assert "prunes already" in in_kernel[name]["again"]

    @pytest.mark.parametrize("reason", REFUSED)
    def test_a_training_that_cannot_be_gone_on_with_is_declined(self, in_kernel, reason):
        source, said = in_kernel[reason]
        assert "" == source
        assert reason in said
