"""The remedy ``distribute``: what its edit keeps, and that the edited cell really trains the same on two devices."""

import ast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.native.ramgpu import CannotBuildError, ramgpu_env
from tests.needs import lacking
from tests.script import found_by
from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.facts import BatchSeen, DeviceFacts, Facts, ModelFacts, NamedValue
from tf_mem_magic.core.proposals import Context, Declined
from tf_mem_magic.core.recording import Cell, ErrorText, Frame, Recording
from tf_mem_magic.notebook.text.cell import read_cell
from tf_mem_magic.remedies.distribute import propose

CARDS = tuple(DeviceFacts(f"GPU:{i}", compute_capability=(8, 0), others=()) for i in (0, 1))

CELL = """import keras
keras.utils.set_random_seed(1)
opt = keras.optimizers.{optimizer}
model = keras.Sequential([
    keras.layers.Input((8,)),
    keras.layers.Dense(64, "relu"),{norm}
    keras.layers.Dense(4, "softmax"),
])
model.compile(opt, "sparse_categorical_crossentropy", jit_compile=False)
history = model.fit({data}, epochs=2, shuffle=False, verbose=0)
"""


def ask(source, batch=32, line=None, errors=(), models=None, kind="arrays", earlier=("import tensorflow as tf",)):
    cell = Cell(source)
    models = (ModelFacts("model", weight_bytes=100),) if models is None else models
    facts = Facts(
        "2.21.0",
        "3.15.1",
        initialised=True,
        models=models,
        devices=CARDS,
        values=tuple(NamedValue(name, 100, "numpy.ndarray") for name in "xyw"),
        batches=(BatchSeen("fit", batch, kind),),
        earlier_cells=earlier,
    )
    last = max(n for n, text in enumerate(source.splitlines(), 1) if ".fit(" in text)
    recording = Recording(cell, status="oom", facts=facts, errors=errors)
    (only,) = propose(Context(cell, recording, Diagnosis("GPU:0", line=line or last)))
    return only


def cell(optimizer="Adam(0.01)", norm="", data="x, y, batch_size=32"):
    return CELL.format(optimizer=optimizer, norm=norm, data=data)


CASES = {
    "adam": cell(),
    "sgd with momentum": cell("SGD(0.1, momentum=0.9)"),
    "validation split": cell(data="x, y, batch_size=32, validation_split=0.25"),
    "sample weights": cell(data="x, y, batch_size=32, sample_weight=w"),
    "tf.data": cell(data="tf.data.Dataset.from_tensor_slices((x, y)).batch(32)"),
    "regularized": cell().replace('Dense(64, "relu")', 'Dense(64, "relu", kernel_regularizer="l2")'),
    "even last batch": cell(data="x[:80], y[:80], batch_size=32"),
    "odd last batch": cell(data="x[:81], y[:81], batch_size=32"),
    "batch normalization": cell(norm="keras.layers.BatchNormalization(),"),
    "built by a function": """import keras
def make():
    m = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(4, "softmax")])
    m.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    return m
keras.utils.set_random_seed(1)
model = make()
history = model.fit(x, y, batch_size=32, epochs=2, shuffle=False, verbose=0)
""",
    "subclassed, built by a call": """import keras
class Net(keras.Model):
    def __init__(self):
        super().__init__()
        self.out = keras.layers.Dense(4, "softmax")
    def call(self, inputs):
        return self.out(inputs)
keras.utils.set_random_seed(1)
model = Net()
model.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
model(x[:1])
history = model.fit(x, y, batch_size=32, epochs=2, shuffle=False, verbose=0)
""",
}
EXACT = [name for name in CASES if name not in ("odd last batch", "batch normalization")]

SCRIPT = """
import json, sys
import numpy as np, tensorflow as tf
kind, cases = json.load(sys.stdin)
if kind == "CPU":
    two = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], two)
rng = np.random.default_rng(0)
x, y = rng.standard_normal((96, 8)).astype("float32"), rng.integers(0, 4, 96)
w = rng.uniform(0.5, 2, 96).astype("float32")
found = {}
for name, (plain, edited) in cases.items():
    one, two = {"x": x, "y": y, "w": w, "tf": tf}, {"x": x, "y": y, "w": w, "tf": tf}
    exec(plain, one)
    exec(edited, two)
    differences = [float(abs(a - b).max()) for a, b in zip(one["model"].get_weights(), two["model"].get_weights())]
    copies = two["model"].trainable_variables[0].value.values
    found[name] = {
        "difference": max(differences), "devices": [v.device[-5:] for v in copies],
        "loss": abs(one["history"].history["loss"][-1] - two["history"].history["loss"][-1]),
        "steps": [int(m["model"].optimizer.iterations.numpy()) for m in (one, two)],
    }
print("FOUND" + json.dumps(found))
"""


def run(kind, cases, env=None):
    return found_by(SCRIPT, [kind, cases], env)


COMMENTS = {
    "a strategy": ("# strategy = tf.distribute.MirroredStrategy()", "strategy = tf.distribute.MirroredStrategy()"),
    "a step": ("n = 1  # def train_step(self, data):", "class Net:\n    def train_step(self, data): ..."),
    "a device": ("    # with tf.device('GPU:1'):", "with tf.device('GPU:1'): pass  # there"),
    "eager steps": ("#model.compile('sgd', 'mse', run_eagerly=True)", "c = '#f00'; tf.config.run_eagerly = True"),
}


@pytest.mark.parametrize("name", COMMENTS)
def test_what_a_comment_says_is_no_reason_and_what_code_says_is(name):
    said, done = (ask(cell(), earlier=("import tensorflow as tf", text)) for text in COMMENTS[name])
    assert [False, True] == [isinstance(answer, Declined) for answer in (said, done)]


def edited(name):
    proposal = ask(CASES[name])
    assert not isinstance(proposal, Declined), proposal.reason
    return proposal.source


@pytest.fixture(scope="module")
def trained():
    """Every case as it was and as it is edited, one after the other, on two logical CPUs in place of two cards."""
    return run("CPU", {name: (text, edited(name).replace("GPU:", "CPU:")) for name, text in CASES.items()})


@pytest.mark.tf
@pytest.mark.parametrize("name", EXACT)
def test_two_devices_train_the_weights_that_one_does(trained, name):
    assert trained[name]["difference"] < 2e-6
    assert trained[name]["loss"] < 2e-5


@pytest.mark.tf
@pytest.mark.parametrize("name", CASES)
def test_the_batch_is_the_global_one_so_the_number_of_updates_stays(trained, name):
    one, two = trained[name]["steps"]
    assert one == two


@pytest.mark.tf
@pytest.mark.parametrize("name", CASES)
def test_each_device_holds_the_weights(trained, name):
    assert ["CPU:0", "CPU:1"] == trained[name]["devices"]


@pytest.mark.tf
@pytest.mark.parametrize("name", ["odd last batch", "batch normalization"])
def test_results_differ_where_the_caveats_say_so(trained, name):
    assert trained[name]["difference"] > 1e-4


@pytest.mark.tf
def test_on_two_gpus_made_of_ram_it_trains_the_same(tmp_path):
    try:
        env = ramgpu_env(tmp_path, count=2, mib=64)
    except CannotBuildError as reason:
        lacking(reason)
    (found,) = run("GPU", {"adam": (CASES["adam"], edited("adam"))}, env).values()
    assert (["GPU:0", "GPU:1"], True) == (found["devices"], found["difference"] < 2e-6)


UNEQUAL = """
import json, sys
import numpy as np, tensorflow as tf
two = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], two)
x, y = np.zeros((62, 8), "float32"), np.zeros(62, "int64")
try:
    exec(json.load(sys.stdin))
except Exception as error:
    print("FOUND" + json.dumps(type(error).__name__))
"""


@pytest.mark.tf
def test_keras_really_refuses_the_odd_batch_that_is_declined():
    odd = edited("adam").replace("GPU:", "CPU:").replace("batch_size=32", "batch_size=31")
    assert "InvalidArgumentError" == found_by(UNEQUAL, odd)
    assert "cannot be divided" in ask(cell(data="x, y, batch_size=31"), batch=31).reason


def test_the_caveats_name_batch_normalization_and_dropout():
    layers = ModelFacts("model", ("Dense", "BatchNormalization", "Dropout"), weight_bytes=1)
    caveats = " ".join(ask(cell(), models=(layers,)).caveats)
    assert (True, True) == ("BatchNormalization" in caveats, "Dropout" in caveats)


def test_memory_for_weights_is_not_divided():
    errors = (ErrorText("OOM", "OOM", (Frame("k.py", 1, "add_weight"),)),)
    assert "every card holds all of them" in ask(cell(), errors=errors).reason


REFUSED = {
    "trains before": (cell().replace("history", "model.fit(x, y)\nhistory"), "trains before"),
    "a shell line within": (cell().replace("model.compile", "!ls\nmodel.compile"), "no plain Python"),
    "one line": (cell().replace(")\nhistory", "); history"), ""),
    "parts afterwards": (cell().replace("history", "more = keras.layers.Dense(3)\nhistory"), "after it is compiled"),
    "from a file": ("import keras\nmodel = keras.models.load_model('m.keras')\nmodel.fit(x, y)\n", "from a file"),
    "tf is something else": ("import keras\ntf = 3\n" + cell().partition("\n")[2], "not certain"),
    "fit in a function": (cell().replace("history = model.fit", "def go():\n    return model.fit"), ""),
    "an optimizer of an earlier cell": (cell().replace("opt = keras.optimizers.Adam(0.01)\n", ""), "`opt`"),
    "sums of losses": (cell().replace('"sparse_categorical_crossentropy"', "Loss(reduction='sum')"), "added up"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_certain_is_refused(name):
    source, reason = REFUSED[name]
    answer = ask(source)
    assert isinstance(answer, Declined), answer.diff
    assert reason in answer.reason


NOISE = st.lists(
    st.sampled_from(
        [
            "# batch",
            "",
            "note = f'a {1 + 1}'",
            "%matplotlib inline",
            "!ls",
            "ü = 1",
            "def f(a):\n    return [\n  a]",
            "z = 1 + \\\n  2",
        ]
    ),
    max_size=3,
)
INSIDE = st.lists(
    st.sampled_from(
        ["# the model", "", "ü = 'é'  # note", "def g(a):\n    return [\n  a]", "z = 1 + \\\n  2", "if 1:\n\tq = 2"]
    ),
    max_size=3,
)


@given(
    NOISE, INSIDE, NOISE, st.sampled_from(["\n", "\r\n"]), st.sampled_from(["", "%%tfmem\n", "\n%%tfmem -q\n%%time\n"])
)
@settings(max_examples=200, deadline=None)
def test_only_indentation_and_the_scope_change(before, inside, after, end, tag):
    first, middle, last = cell().partition("model.compile")
    imports, _, build = first.partition("opt =")
    lead = tag + imports + "".join(line + "\n" for line in before)
    build = "opt =" + build + "".join(line + "\n" for line in inside)
    compiled, _, fit = (middle + last).partition("\n")
    fit = "".join(line + "\n" for line in after) + fit
    source = (lead + build + compiled + "\n" + fit).replace("\n", end)
    physical = source.splitlines()
    skipped = next(n for n, line in enumerate(physical) if line.strip())
    line = max(n for n, text in enumerate(physical, 1) if ".fit(" in text) - skipped
    proposal = ask(source, line=line)
    assert not isinstance(proposal, Declined), proposal.reason
    assert proposal.source.startswith(lead.replace("\n", end))
    assert proposal.source.endswith(fit.replace("\n", end))
    added = [
        'strategy = tf.distribute.MirroredStrategy(["GPU:0", "GPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice())',
        "with strategy.scope():",
    ]
    block = proposal.source[len(lead.replace("\n", end)) : len(proposal.source) - len(fit.replace("\n", end))]
    lines = block.split(end)
    assert (added, (build + compiled).split("\n")) == (
        lines[:2],
        [line.removeprefix("    ") for line in lines[2:-1]],
    )
    trees = [read_cell(text).tree for text in (source, proposal.source)]
    flat = [s for s in trees[1].body if not isinstance(s, ast.With)]
    scope = next(s for s in trees[1].body if isinstance(s, ast.With))
    assert len(trees[0].body) == len(flat) - 1 + len(scope.body)
