"""The mixed-precision remedy beyond its own examples: edits, declines, and its edited cells run for real."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.script import found_by
from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.facts import DeviceFacts, Facts, ModelFacts
from tf_mem_magic.core.proposals import Context, Declined, Proposal
from tf_mem_magic.core.recording import Cell, Recording
from tf_mem_magic.core.step import PolicyTrial
from tf_mem_magic.remedies.mixed_precision.remedy import propose

ROOT = Path(__file__).resolve().parents[3]
OLD = ModelFacts("model", ("Dense",), weight_bytes=4096, steps_before=3)
NEW = ModelFacts("model", ("Dense",), weight_bytes=4096)


def ask(source, *models, line=None, earlier=(), policy="float32", keras="3.15.1", environment=(), shadowed=(), **card):
    device = DeviceFacts(**{"name": "GPU:0", "compute_capability": (7, 5), **card})
    facts = Facts(
        keras=keras, policy=policy, models=models, devices=(device,), earlier_cells=earlier, environment=environment,
        shadowed=shadowed,
    )  # fmt: skip
    cell = Cell(source)
    return propose(Context(cell, Recording(cell, facts=facts), Diagnosis(device.name, line=line)))[0]


@pytest.mark.parametrize(
    ("card", "policy", "caveat"),
    [
        ({"compute_capability": (6, 1)}, "mixed_float16", "Slower on this card"),
        ({"compute_capability": (7, 0)}, "mixed_float16", ""),
        ({"compute_capability": (8, 9)}, "mixed_bfloat16", ""),
        ({"compute_capability": None}, "mixed_float16", "It is not known how fast GPU:0"),
        ({"name": "CPU:0", "kind": "CPU", "compute_capability": None}, "mixed_bfloat16", "Slower on a CPU"),
        ({"name": "TPU:0", "kind": "TPU", "compute_capability": None}, "mixed_bfloat16", ""),
    ],
)
def test_the_device_decides_the_policy(card, policy, caveat):
    answer = ask("model.fit(x, y)", OLD, line=1, **card)
    assert f'"{policy}"' in answer.source
    assert caveat in " ".join(answer.caveats)


@pytest.mark.parametrize(
    ("reason", "answer"),
    [
        ("already computes in mixed_float16", ask("model.fit(x)", ModelFacts("model", dtype_policy="mixed_float16"))),
        ("Keras's global policy is mixed_bfloat16 already", ask("model.fit(x)", OLD, policy="mixed_bfloat16")),
        ("the cell sets its precision itself", ask("keras.config.set_dtype_policy('float64')\nmodel.fit(x)", OLD)),
        ("only Keras 3 models are changed", ask("model.fit(x)", OLD, keras="2.15.0")),
        ("only Keras 3 models are changed", ask("model.fit(x)", OLD, environment=(("TF_USE_LEGACY_KERAS", "1"),))),
        ("the cell does not use Keras", ask("model.fit(x)", OLD, keras=None)),
        ("16 bits would round them", ask("model.fit(x)", replace(OLD, rounds_ids=True))),
        ("is not built yet", ask("model.fit(x)", ModelFacts("model", steps_before=0))),
        ("is not built yet", ask("model.fit(x)", ModelFacts("model", steps_before=0, trainable_bytes=0))),
        ("it is not sure which model", ask("run(a, b)", ModelFacts("a"), ModelFacts("b"), line=1)),
        ("cannot be read as Python", ask("model.fit(x", OLD)),
        ("the statement that trains the model was not found", ask("x = 1", OLD)),
        (
            "a tf.function of an earlier cell",
            ask("train(model)", OLD, line=1, earlier=("@tf.function\ndef train(m):\n  with tf.GradientTape() as t: ...",)
                , compute_capability=(8, 0)),
        ),
        (
            "no loss scaling can be seen",
            ask("gan.fit(x)", ModelFacts("gan", weight_bytes=1, steps_before=0), line=1,
                earlier=("class Gan(keras.Model):\n  def train_step(self, data): ...",)),
        ),
    ],
)  # fmt: skip
def test_it_declines_with_the_reason(reason, answer):
    assert isinstance(answer, Declined), answer
    assert reason in answer.reason


NOISY = "class Own(keras.layers.Layer):\n    def call(self, x):\n        return x + tf.random.normal((8,))"
CLASH = "Input 'y' of 'AddV2' Op has type float32 that does not match type float16 of argument 'x'"


def tried(outcome, traced="call", policy="mixed_float16", **more):
    model = replace(OLD, layers=("Dense", "Own"), own_layers=("Own",), **more)
    told = {"where": "Own", "told": CLASH} if outcome == "failed" else {}
    return replace(model, trial=PolicyTrial(policy, outcome, traced, **told))


def test_what_was_tried_and_fails_is_declined_with_what_tensorflow_said():
    answer = ask("model.fit(x)", tried("failed"), line=1)
    assert isinstance(answer, Declined)
    assert answer.reason == f"tried without data, `Own` cannot compute in 16 bits: {CLASH}"


@pytest.mark.parametrize("earlier", [(), ("import keras\nimport tensorflow as tf", NOISY)], ids=["elsewhere", "read"])
def test_what_was_tried_and_goes_is_offered_whatever_its_code_looks_like(earlier):
    assert isinstance(ask("model.fit(x)", replace(tried("ok"), trial=None), line=1, earlier=earlier), Declined)
    assert ask("model.fit(x)", tried("ok"), line=1, earlier=earlier).title == "16-bit compute"


@pytest.mark.parametrize("trial", [tried("not tried"), tried("ok", policy="mixed_bfloat16")], ids=["not", "other"])
def test_the_code_is_read_where_this_policy_was_not_tried(trial):
    assert "is not in the notebook" in ask("model.fit(x)", trial, line=1).reason


CARD = {"compute_capability": (8, 0)}
BUILT = (
    "import keras\nclass Net(keras.Model):\n    def __init__(self):\n        super().__init__()\n"
    "        self.a = keras.layers.Dense(8)\n        self.out = keras.layers.Dense(1)\n"
    "    def call(self, x):\n        return self.out(self.a(x))\nmodel = Net()\nmodel.fit(x, y)"
)


@pytest.mark.parametrize(("where", "in_model", "offered"), [("Net", True, True), ("Own", False, False)])
def test_a_failure_of_the_models_own_class_does_not_count_where_it_is_built_anew(where, in_model, offered):
    trial = PolicyTrial("mixed_bfloat16", "failed", "step", where, CLASH, in_model)
    made = replace(NEW, form="subclassed", halving=1, own_layers=("Net",), own_step=False, trial=trial)
    answer = ask(BUILT, made, line=10, **CARD)
    assert isinstance(answer, Declined) is not offered
    if offered:
        assert 'self.out = keras.layers.Dense(1, dtype="float32")' in answer.source


@pytest.mark.parametrize(("traced", "warned"), [("step", False), ("call", True)])
def test_a_training_step_of_ones_own_that_was_tried_needs_no_warning(traced, warned):
    answer = ask("model.fit(x)", tried("ok", traced, "mixed_bfloat16", own_step=True), line=1, **CARD)
    assert ("a float32 tensor mixed with a 16-bit output" in " ".join(answer.caveats)) is warned


def test_a_loop_that_scales_its_loss_may_use_float16():
    cell = "with tf.GradientTape() as t:\n    loss = optimizer.scale_loss(f(model(x)))\n"
    assert ask(cell, OLD, line=2).title == "16-bit compute"


def test_a_training_loop_of_an_earlier_cell_does_not_concern_fit():
    loop = "def train_step(x, y):\n    with tf.GradientTape() as tape: ..."
    assert ask("model.fit(x)", OLD, line=1, earlier=(loop,)).title == "16-bit compute"


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("import keras\nmodel = keras.Sequential([keras.layers.Dense(4), keras.layers.Dense(1)])", 2),
        (
            "import keras\nmodel = keras.Sequential([keras.layers.Dense(9)])\nmodel.build((None, 10**6))\nmodel.fit(x)",
            3,
        ),
        ("from keras import layers\ni = keras.Input((10**6,))\nh = layers.Dense(10**5)(i)", 3),
        ("from tensorflow.keras.applications import VGG16\nbase = VGG16(input_shape=(9000, 9000, 3))", 2),
    ],
)
def test_weights_that_are_being_made_stay_in_32_bits(source, line):
    assert "their weights stay in 32 bits" in ask(source, OLD, line=line).reason


@pytest.mark.parametrize(
    ("source", "line", "method"),
    [
        ("for b in data:\n    logs = model.train_step(b)", 2, "model.train_step"),
        ("loss = float(model.compute_loss(x))", 1, "model.compute_loss"),
        ("for b in data: model.train(b)", 1, "model.train"),
    ],
)
def test_a_method_of_ones_own_model_is_not_said_to_train_none(source, line, method):
    reason = ask(source, OLD, line=line).reason
    assert reason == f"what `{method}` computes with the model is not followed"


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("x = tf.random.normal((10**5, 10**5))", 1),
        ("images = tf.image.resize(images, (2048, 2048))\nmodel.fit(images)", 1),
        ("data = tf.constant(table)\nprint(model.name)\nmodel.fit(data)", 1),
        ("x = np.stack([load(f) for f in files])", 1),
        ("features = tf.one_hot(ids, 10**6)\nloss = model(features)", 1),
    ],
)
def test_the_preparation_of_data_is_no_computation_of_the_model(source, line):
    assert "neither trains a Keras model nor calls one" in ask(source, OLD, line=line).reason


@pytest.mark.parametrize(
    "source",
    [
        "det.fit(x, optimizer=adam)",
        "class Detector:\n    def fit(self, x): ...\ndet = Detector()\ndet.fit(x)",
        "from sklearn.svm import SVC\nclf = SVC()\nclf.fit(x, y)",
        "pipe.predict(x)",
    ],
)
def test_what_is_no_keras_model_is_not_changed(source):
    answer = ask(source, OLD, line=len(source.splitlines()))
    assert "is not known to be a Keras model" in answer.reason


@pytest.mark.parametrize(
    "answer",
    [
        ask("model.fit(x)", replace(OLD, halving=0), line=1),
        ask("import keras\nmodel = keras.Sequential([keras.layers.Dense(1)])\nmodel.fit(x)", NEW, line=3),
        ask(
            "from keras import Sequential, layers\nmodel = Sequential([layers.Flatten(), layers.Dense(9), layers.Softmax()])\n"
            "model.fit(x)",
            NEW,
        ),
        ask("import keras\nmodel = keras.Sequential()\nmodel.add(keras.layers.Dense(1))\nmodel.fit(x)", NEW, line=4),
        ask(
            "import keras\nL = keras.layers\nmodel = keras.Sequential([L.Flatten()])\nmodel.add(L.Dense(3))\n"
            "model.add(L.Softmax())\nmodel.fit(x)",
            NEW,
        ),
        ask("import keras\nline = keras.layers.Dense(1)\nmodel = keras.Sequential([line])\nmodel.fit(x)", NEW, line=4),
        ask(
            "import keras\nL = keras.layers\nmodel = keras.Sequential([L.MaxPooling2D(), L.Flatten(), L.Lambda(abs)])\n"
            "model.add(L.Dense(3))\nmodel.fit(x)",
            NEW,
        ),
        ask("import keras\nd = keras.layers.Dense(8)\nmodel = keras.Sequential([d, d])\nmodel.fit(x)", NEW, line=4),
        ask(
            "import keras\ndef build():\n    net = keras.Sequential()\n    net.add(keras.layers.Dense(1))\n"
            "    return net\nmodel = build()\nmodel.fit(x)",
            NEW,
        ),
    ],
)
def test_a_model_of_one_layer_would_save_nothing(answer):
    assert "only the layer that gives the output of `model` has weights" in answer.reason


@pytest.mark.parametrize(
    "lines",
    [
        "model = keras.Sequential()\nmodel.add(L.Dense(9))\nmodel.add(L.Dense(1))",
        "first = L.Dense(9)\nlast = L.Dense(1)\nmodel = keras.Sequential([first, last])",
        "last = L.Dense(1)\nmodel = keras.Sequential([L.Dense(9)])\nmodel.add(last)",
        "base = build()\nmodel = keras.Sequential()\nmodel.add(base)\nmodel.add(L.Dense(1))",
        "model = keras.Sequential()\nfor n in sizes:\n    model.add(L.Dense(n))\nmodel.add(L.Dense(1))",
    ],
)
def test_layers_that_are_added_or_have_names_are_counted_where_all_are_seen(lines):
    answer = ask(f"import keras\nL = keras.layers\n{lines}\nmodel.fit(x)", NEW)
    if "base" in lines or "for n" in lines:
        assert "only the layer" not in getattr(answer, "reason", "")
        return
    text = answer.source
    assert text.count('dtype="float32"') == 1
    assert 'L.Dense(1, dtype="float32")' in text
    assert text.index("set_dtype_policy") < text.index("L.Dense")


def test_a_loaded_model_is_changed_in_place_because_a_global_policy_does_not_reach_it():
    answer = ask("import keras\nmodel = keras.models.load_model(path)\nmodel.fit(x)", NEW, line=3)
    expected = (
        "import keras\nmodel = keras.models.load_model(path)\nfrom tf_mem_magic import apply\n"
        'apply.mixed_precision(model, "mixed_float16")\nmodel.fit(x)'
    )
    assert answer.source == expected


def test_indentation_is_kept_inside_a_block():
    answer = ask("for x in parts:\n    model = pick(x)\n    model.fit(x)\n", OLD, line=3)
    assert answer.source == (
        "for x in parts:\n    model = pick(x)\n    from tf_mem_magic import apply\n"
        '    apply.mixed_precision(model, "mixed_float16")\n    model.fit(x)\n'
    )


GAN = """for epoch in range(9):
    for batch in data:
        fake = maker.predict(noise)
        judge.train_on_batch(fake, zeros)
        model.train_on_batch(noise, ones)
"""


@pytest.mark.parametrize(
    ("source", "line"),
    [
        (GAN, 5),
        ("with strategy:\n    for step in range(4):\n        model.fit(x)\n", 3),
        ("for text in texts:\n    if text:\n        print(model.predict(text))\n", 3),
        ("while True:\n    try:\n        model.fit(x)\n    finally:\n        pass\n", 3),
    ],
)
def test_the_change_stands_before_the_loops_in_which_it_trains(source, line):
    lines = ask(source, OLD, line=line, compute_capability=(8, 0)).source.splitlines()
    at = next(i for i, text in enumerate(lines) if "apply.mixed_precision" in text)
    assert lines[at + 1].lstrip().startswith(("for ", "while "))
    assert not any(text.lstrip().startswith(("for ", "while ")) for text in lines[:at])


def test_keras_is_imported_where_no_name_means_it():
    answer = ask(
        "from keras.layers import Dense\nfrom keras import Sequential\nmodel = Sequential([Dense(2), Dense(1)])\nmodel.fit(x)",
        NEW,
    )
    assert answer.source.splitlines()[2:5] == [
        "import keras",
        'keras.config.set_dtype_policy("mixed_float16")',
        'model = Sequential([Dense(2), Dense(1, dtype="float32")])',
    ]


def test_a_model_made_by_a_function_of_an_earlier_cell_is_changed_in_place_where_it_is_built_then():
    build = "import keras\ndef build():\n    i = keras.Input((8,))\n    return keras.Model(i, keras.layers.Dense(1)(i))"
    made = replace(NEW, form="functional", halving=2)
    answer = ask("data = load()\nmodel = build()\nmodel.fit(data)", made, earlier=(build,), line=3)
    assert answer.source.splitlines()[2:4] == [
        "from tf_mem_magic import apply",
        'apply.mixed_precision(model, "mixed_float16")',
    ]


@pytest.mark.parametrize(
    "cell",
    [
        "model = build()\nmodel.fit(data)",
        "model = keras.Sequential([keras.layers.Dense(2), *more])\nmodel.fit(x)",
        "model = Net()\nmodel.compile('adam', 'mse')\nmodel.fit(x)",
        "model = keras.Sequential([keras.layers.Dense(2), head])\nmodel.fit(x)",
    ],
)
def test_a_model_whose_last_layer_cannot_be_seen_would_end_in_16_bits_so_it_is_declined(cell):
    build = "import keras\ndef build():\n    return keras.Sequential([keras.layers.Dense(2), keras.layers.Dense(1)])"
    net = "class Net(keras.Model):\n    def call(self, x): return self.a(x)"
    answer = ask(cell, NEW, earlier=(build, net), line=cell.count("\n") + 1)
    assert "cannot be told from this cell" in answer.reason


SUBCLASS = """import keras
from keras import layers
class Net(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden = layers.Dense(64)
        self.head = layers.Dense(10)
    def call(self, x):
        x = self.hidden(x)
        return self.head(x)
"""


@pytest.mark.parametrize(
    ("source", "last"),
    [
        (SUBCLASS + "model = Net()\nmodel.fit(x)", '        self.head = layers.Dense(10, dtype="float32")'),
        (
            SUBCLASS.replace("return self.head(x)", "y = self.head(x)\n        return y")
            + "model = Net()\nmodel.fit(x)",
            '        self.head = layers.Dense(10, dtype="float32")',
        ),
        (
            "import keras\nL = keras.layers\ndef build():\n    m = keras.Sequential()\n    m.add(L.Dense(2))\n"
            "    m.add(L.Dense(1))\n    return m\nmodel = build()\nmodel.fit(x)",
            '    m.add(L.Dense(1, dtype="float32"))',
        ),
        (
            "import keras\nfrom keras import layers\ndef block(x):\n    return keras.Sequential([layers.Dense(3)])(x)\n"
            "def build(n):\n    i = keras.Input((8,))\n    head = layers.Dense(n)\n    return keras.Model(i, head(block(i)))\n"
            "model = build(3)\nmodel.fit(x)",
            '    head = layers.Dense(n, dtype="float32")',
        ),
    ],
)
def test_the_last_layer_is_found_in_functions_and_classes_of_the_cell(source, last):
    answer = ask(source, NEW, line=len(source.splitlines()))
    assert last in answer.source.splitlines()
    assert answer.source.count("float32") == 1


def test_the_policy_stands_before_the_first_layer_of_a_functional_model():
    cell = "import keras\nn = 3\ni = keras.Input((8,))\nx = keras.layers.Dense(4)(i)\nmodel = keras.Model(i, x)\nmodel.fit(y)"
    lines = ask(cell, NEW).source.splitlines()
    assert lines[2] == 'keras.config.set_dtype_policy("mixed_float16")'
    assert lines[4] == 'x = keras.layers.Dense(4, dtype="float32")(i)'


def test_a_dtype_of_the_users_own_is_left_alone():
    cell = "import keras\nmodel = keras.Sequential([keras.layers.Dense(2), keras.layers.Dense(1, dtype='float64')])\nmodel.fit(x)"
    assert "dtype='float64')])" in ask(cell, NEW).source


def test_layers_that_are_added_one_by_one_have_a_last_one():
    cell = "import keras\nmodel = keras.Sequential()\nmodel.add(keras.layers.Dense(2))\nmodel.add(keras.layers.Dense(1))\nmodel.fit(x)"
    lines = ask(cell, NEW).source.splitlines()
    assert lines[3] == "model.add(keras.layers.Dense(2))"
    assert lines[4] == 'model.add(keras.layers.Dense(1, dtype="float32"))'


LISTED = "import keras\nL = keras.layers\n{}\nmodel.fit(x)"


@pytest.mark.parametrize(
    "lines",
    [
        "model = keras.Sequential([L.Dense(2) for _ in range(3)] + [L.Dense(1)])",
        "stack = [L.Dense(2)] + [L.Dense(1)]\nmodel = keras.Sequential(stack)",
        "head = [L.Dense(1)]\nmodel = keras.Sequential(layers=[L.Dense(2)] * 3 + head)",
        "def build():\n    stack = [L.Dense(2), L.Dense(1)]\n    return keras.Sequential(stack)\nmodel = build()",
    ],
)
def test_the_last_layer_is_found_at_the_end_of_a_sum_of_lists_and_of_a_list_with_a_name(lines):
    source = LISTED.format(lines)
    answer = ask(source, NEW, line=len(source.splitlines()))
    assert answer.source.count("float32") == 1
    assert 'L.Dense(1, dtype="float32")' in answer.source


@pytest.mark.parametrize(
    "lines",
    [
        "stack = [L.Dense(2), L.Dense(1)]\nstack.append(L.Dense(3))\nmodel = keras.Sequential(stack)",
        "stack = [L.Dense(2)]\nstack += [L.Dense(1)]\nmodel = keras.Sequential(stack)",
        "stack = [L.Dense(2), L.Dense(1)]\nother = stack\nother.pop()\nmodel = keras.Sequential(other)",
        "model = keras.Sequential([L.Dense(2)] + [L.Dense(1) for _ in range(3)])",
        "stack = [L.Dense(2), L.Dense(1)]\nencoder = keras.Sequential(stack)\nmodel = keras.Sequential(stack)",
    ],
)
def test_a_list_that_may_end_otherwise_has_no_last_layer(lines):
    source = LISTED.format(lines)
    answer = ask(source, NEW, line=len(source.splitlines()))
    assert "cannot be told from this cell" in answer.reason


def test_undo_sets_the_policy_back_that_was_there():
    cell = "import keras\nmodel = keras.Sequential([keras.layers.Dense(2), keras.layers.Dense(1)])\nmodel.fit(x)"
    assert ask(cell, NEW, policy="float64").undo == 'import keras\nkeras.config.set_dtype_policy("float64")'


def test_nothing_is_promised_that_was_not_measured():
    answer = ask("model.fit(x)", ModelFacts("model", ("LSTM", "LayerNormalization"), weight_bytes=1, steps_before=0))
    assert answer.estimate is None
    assert answer.preserves == "close numerics"
    words = " ".join(answer.caveats)
    assert "Recurrent layers can take more memory" in words
    assert "Normalization layers compute in 32 bits" in words


SCRIPT = """
import json, sys
from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.facts import DeviceFacts
from tf_mem_magic.core.proposals import Context
from tf_mem_magic.core.recording import Cell, Recording
from tf_mem_magic.remedies.mixed_precision.remedy import propose
from tf_mem_magic.facts.before import snapshot
from tf_mem_magic.facts.gather import gather_facts

FIRST = '''import numpy as np, tensorflow as tf, keras
from keras import layers
x = np.random.default_rng(0).standard_normal((64, 8)).astype("float32"); y = np.arange(64) % 4
'''
BUILD = '''model = keras.Sequential([layers.Input((8,)), layers.Dense(16, "relu"), layers.Dense(4, "softmax")])
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
'''
FIT = "history = model.fit(x, y, batch_size=16, verbose=0)"
LOOP = '''optimizer = keras.optimizers.Adam()
loss_of = keras.losses.SparseCategoricalCrossentropy()
@tf.function
def step(a, b):
    with tf.GradientTape() as tape:
        loss = loss_of(b, model(a, training=True))
    gradients = tape.gradient(loss, model.trainable_variables)
    optimizer.apply_gradients(zip(gradients, model.trainable_variables))
    return loss
for start in range(0, 64, 16):
    loss = step(x[start:start + 16], y[start:start + 16])
'''
CASES = {
    "built in the cell": ((FIRST,), "%%tfmem -q\\n" + BUILD + FIT),
    "built in an earlier cell": ((FIRST, BUILD + FIT), "%%tfmem -q\\n" + FIT),
    "custom loop, model of the cell": ((FIRST,), "%%tfmem -q\\n" + BUILD + LOOP),
    "custom loop, model of an earlier cell": ((FIRST, BUILD), "%%tfmem -q\\n" + LOOP),
}
run = lambda source, ns: exec(source.replace("%%tfmem -q", "#"), ns)
told = {}
for name, (earlier, source) in CASES.items():
    for device in (DeviceFacts("GPU:0", compute_capability=(8, 0)), DeviceFacts("GPU:0", compute_capability=(7, 5))):
        ns = {}
        for one in earlier:
            run(one, ns)
        before = snapshot(ns)
        run(source, ns)
        facts = gather_facts(ns, before, source, None, (device,), earlier)
        line = source.count("\\n", 0, source.rindex("fit(" if "fit(" in source else "step(x")) + 1
        answer = propose(Context(Cell(source), Recording(Cell(source), facts=facts), Diagnosis("GPU:0", line=line)))[0]
        if not hasattr(answer, "source"):
            told[f"{name} {device.compute_capability[0]}"] = {"declined": answer.reason}
            continue
        kept, weights = ns["model"], ns["model"].get_weights()
        run(answer.source, ns)
        model = ns["model"]
        told[f"{name} {device.compute_capability[0]}"] = {
            "computes": [l.compute_dtype for l in model.layers],
            "weights": sorted({str(v.dtype) for v in model.trainable_variables}),
            "output": model(ns["x"][:2]).dtype.name,
            "same model": model is kept,
            "trained": any((a != b).any() for a, b in zip(weights, model.get_weights())),
            "finite": bool(all(ns["np"].isfinite(w).all() for w in model.get_weights())),
            "optimizer": type(model.optimizer).__name__ if model.compiled else None,
            "facts now": gather_facts(ns, before, source).model("model").dtype_policy,
        }
        run(answer.undo, ns)
        import keras
        told[f"{name} {device.compute_capability[0]}"]["after undo"] = [
            keras.config.dtype_policy().name, ns["model"].layers[0].compute_dtype]
print("FOUND" + json.dumps(told))
"""


@pytest.fixture(scope="module")
def told():
    return found_by(SCRIPT)


@pytest.mark.tf
@pytest.mark.parametrize("case", ["built in the cell", "built in an earlier cell"])
@pytest.mark.parametrize(
    ("card", "dtype", "optimizer"), [(8, "bfloat16", "Adam"), (7, "float16", "LossScaleOptimizer")]
)
def test_an_edited_fit_cell_runs_in_16_bits(told, case, card, dtype, optimizer):
    found = told[f"{case} {card}"]
    assert found["computes"] == [dtype, "float32"]
    assert (found["weights"], found["output"], found["optimizer"]) == (["float32"], "float32", optimizer)
    assert found["facts now"] == f"mixed_{dtype}"
    assert found["trained"]
    assert found["finite"]


@pytest.mark.tf
def test_a_model_of_an_earlier_cell_stays_the_same_object(told):
    assert told["built in an earlier cell 8"]["same model"]
    assert not told["built in the cell 8"]["same model"]


@pytest.mark.tf
@pytest.mark.parametrize("case", ["custom loop, model of the cell", "custom loop, model of an earlier cell"])
def test_an_edited_custom_loop_runs_in_bfloat16(told, case):
    found = told[f"{case} 8"]
    assert found["computes"] == ["bfloat16", "float32"]
    assert found["trained"]
    assert found["finite"]


@pytest.mark.tf
@pytest.mark.parametrize("case", ["custom loop, model of the cell", "custom loop, model of an earlier cell"])
def test_a_custom_loop_is_declined_where_only_float16_is_fast(told, case):
    assert "no loss scaling can be seen" in told[f"{case} 7"]["declined"]


@pytest.mark.tf
@pytest.mark.parametrize("card", [7, 8])
def test_undo_gives_back_the_global_policy_and_the_model(told, card):
    assert told[f"built in the cell {card}"]["after undo"][0] == "float32"
    assert told[f"built in an earlier cell {card}"]["after undo"] == ["float32", "float32"]


@pytest.mark.parametrize(
    "answer",
    [
        ask("model.fit(x)", replace(OLD, layers=("Embedding", "Dense"))),
        ask("import keras\nm = keras.Sequential([keras.layers.Embedding(9, 4), keras.layers.Dense(1)])\nm.fit(x)"),
    ],
)
def test_an_embedding_brings_the_advice_to_pass_integers(answer):
    assert "Ids for an Embedding must come as integers" in " ".join(answer.caveats)


def test_both_lines_stand_before_a_timed_statement_at_its_indentation():
    edited = ask("if go:\n    %time model.fit(x)", OLD, line=2).source.splitlines()
    assert ["    from tf_mem_magic import apply", "    %time model.fit(x)"] == [edited[1], edited[3]]
    assert edited[2].startswith("    apply.mixed_precision(model, ")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("model = pick(); model.fit(x)", "shares its line"),
        ('note = """\n"""; model.fit(x)', "shares its line"),
        ("for model in nets: model.fit(x)", "shares its line"),
        (
            "for model in nets:\n    with tf.GradientTape() as tape:\n        loss = model(x)",
            "made or chosen in the statement that trains it",
        ),
    ],
)
def test_where_a_line_before_would_mean_another_model_it_is_declined(source, reason):
    assert reason in ask(source, OLD, line=len(source.splitlines()), compute_capability=(8, 0)).reason


def test_of_models_made_one_after_the_other_only_the_one_that_ran_out_is_changed():
    one = "model = keras.Sequential([keras.layers.Dense(2), keras.layers.Dense({0})])\nmodel.fit(x)\n"
    lines = ask("import keras\n" + one.format(1) + one.format(3), NEW, line=5).source.splitlines()
    assert lines[3] == 'keras.config.set_dtype_policy("mixed_float16")'
    assert lines[4] == 'model = keras.Sequential([keras.layers.Dense(2), keras.layers.Dense(3, dtype="float32")])'


TAPE = """for a, b in data:
    with tf.GradientTape() as tape:
        loss = f(b, model(a))
    grads = tape.gradient(loss, model.trainable_variables)
    opt.apply_gradients(zip(grads, model.trainable_variables))
"""


@pytest.mark.parametrize(
    ("source", "line"),
    [
        (TAPE, 3),
        (TAPE, 5),
        ("with tf.GradientTape() as tape:\n    loss = model(x)\ngrads = tape.gradient(loss, model.weights)\n", 3),
        ("def step(a):\n    with tf.GradientTape() as t:\n        y = model(a)\n    return t.gradient(y, model.weights)\n"
         "for a in data:\n    g = step(a)\n", 6),
    ],
)  # fmt: skip
def test_every_line_of_a_training_loop_of_ones_own_belongs_to_it(source, line):
    assert "mixed_bfloat16" in ask(source, OLD, line=line, compute_capability=(8, 0)).source


@pytest.mark.parametrize(
    ("layers", "changed"),
    [
        ("L.Dense(8), L.Dense(6), L.Reshape((2, 3))", ['L.Dense(6, dtype="float32")', 'L.Reshape((2, 3), dtype="float32")']),
        ("L.Dense(8), L.Dense(1), L.Lambda(lambda x: x * 200)", ['L.Dense(1, dtype="float32")', 'x * 200, dtype="float32")']),
        ("L.LSTM(8, True), L.TimeDistributed(L.Dense(1))", ['L.TimeDistributed(L.Dense(1, dtype="float32"), dtype="float32")']),
        ("L.Dense(8), L.Dense(9), L.Activation('softmax')", ['L.Dense(9, dtype="float32")', '"softmax", dtype="float32")']),
    ],
)  # fmt: skip
def test_the_last_layer_with_weights_stays_in_32_bits_where_others_only_reshape_behind_it(layers, changed):
    cell = f"import keras\nL = keras.layers\nmodel = keras.Sequential([{layers}])\nmodel.fit(x)"
    source = ask(cell, NEW, line=4).source.replace("'", '"')
    assert all(text in source for text in changed), source
    assert source.count("float32") == 2


def test_behind_a_functional_model_too():
    cell = (
        "import keras\nL = keras.layers\ni = keras.Input((8,))\nh = L.Dense(9)(L.Dense(9)(i))\no = L.Softmax()(h)\n"
        "model = keras.Model(i, o)\nmodel.fit(x)"
    )
    lines = ask(cell, NEW, line=7).source.splitlines()
    assert lines[4:6] == [
        'h = L.Dense(9, dtype="float32")(L.Dense(9)(i))',
        'o = L.Softmax(dtype="float32")(h)',
    ]


@pytest.mark.parametrize(
    ("source", "line", "other"),
    [
        (GAN, 5, "judge"),
        ("for i in range(9):\n    fake = model.predict(z)\n    gan.train_on_batch(z, ones)\n", 2, "gan"),
        ("base.fit(x)\nmodel.fit(x)", 2, "base"),
    ],
)
def test_float16_is_not_put_into_layers_that_another_model_may_train_without_scaling(source, line, other):
    assert f"`{other}` is trained in this cell too" in ask(source, OLD, line=line).reason
    assert "mixed_bfloat16" in ask(source, OLD, line=line, compute_capability=(8, 0)).source


def test_inference_in_a_loop_that_trains_with_a_tape_needs_its_loss_scaled_too():
    step = "def learn(x):\n    with tf.GradientTape() as t:\n        loss = f(model(x))\n    opt.apply(t.gradient(loss, model.weights))"
    cell = "for episode in range(9):\n    action = model.predict(state)\n    learn(action)\n"
    assert "no loss scaling can be seen" in ask(cell, OLD, line=2, earlier=(step,)).reason


@pytest.mark.parametrize(
    "cell",
    [
        "model = keras.Sequential([base, keras.layers.Dense(4), keras.layers.Dense(1)])\nmodel.fit(x)",
        "def build():\n    i = keras.Input((8,))\n    return keras.Sequential([base, keras.layers.Dense(1)])\nmodel = build()\nmodel.fit(x)",
        "saved = keras.models.load_model('a.keras')\nmodel = keras.Sequential([saved, keras.layers.Dense(1)])\nmodel.fit(x)",
    ],
)  # fmt: skip
def test_a_model_built_around_one_that_keeps_its_precision_is_changed_in_place_or_not_at_all(cell):
    base = ModelFacts("base", ("Conv2D",), weight_bytes=9, steps_before=0)
    cell, line = "import keras\n" + cell, cell.count("\n") + 2
    assert "which keeps the precision it was made with" in ask(cell, NEW, base, line=line).reason
    functional = replace(NEW, form="functional")
    assert ask(cell, functional, base, line=line).source.splitlines()[-2:] == [
        'apply.mixed_precision(model, "mixed_float16")',
        "model.fit(x)",
    ]


@pytest.mark.parametrize(
    "reads",
    [
        "net.add(keras.layers.Dense(3))",
        "net.add_layer(keras.layers.Dense(3))",
        "head = keras.layers.Dense(3)(net.output)",
        "def grow():\n    net.top = keras.layers.Dense(3)",
        "net.tail = keras.Sequential([keras.layers.Dense(3)])\nprint(net.count_params())",
    ],
)
def test_a_model_is_never_said_to_be_built_around_itself(reads):
    cell = f"import keras\nnet = Net(keras.Sequential([keras.layers.Dense(9)]))\n{reads}\nnet.fit(x, y)"
    for net in (ModelFacts("net", ("Dense",), weight_bytes=9, steps_before=3), ModelFacts("net", weight_bytes=9)):
        assert "around `net`" not in getattr(ask(cell, net, line=cell.count("\n") + 1), "reason", "")


@pytest.mark.parametrize(
    ("cell", "line"),
    [
        ("if model is None:\n    model = keras.Sequential([keras.layers.Dense(2), keras.layers.Dense(3)])\nmodel.fit(x)", 3),
        ("try:\n    model\nexcept NameError:\n    model = keras.Sequential([keras.layers.Dense(5), keras.layers.Dense(2)])\nmodel.fit(x)", 5),
        ("model.fit(x)\nmodel = keras.Sequential([model, keras.layers.Dense(2)])", 1),
        ("model.predict(x)\nmodel = keras.Sequential([keras.layers.Dense(5), keras.layers.Dense(2)])", 1),
    ],
)  # fmt: skip
def test_a_model_that_was_there_before_is_changed_in_place_where_the_cell_may_not_have_made_it(cell, line):
    lines = ask(f"import keras\n{cell}", OLD, line=line + 1).source.splitlines()
    at = lines.index('apply.mixed_precision(model, "mixed_float16")')
    assert lines[at + 1].startswith(("model.fit", "model.predict"))
    assert not any("set_dtype_policy" in one for one in lines)


@pytest.mark.parametrize("call", ["run(build())", "run(model=build())", "for one in many:\n    run(one)"])
def test_a_parameter_that_hides_a_model_of_the_notebook_is_not_taken_for_it(call):
    cell = f"import keras\ndef build():\n    return keras.Sequential([keras.layers.Dense(2)])\ndef run(model):\n    model.fit(x)\n{call}"
    reason = ask(cell, OLD, line=5, shadowed=("model",)).reason
    assert reason == "`model` is a parameter of `run`, and which model it is given is not followed"


def test_a_function_that_infers_is_left_alone_where_the_model_is_there_before_it():
    cell = (
        "def translate(text):\n    for word in text:\n        p = model.predict(word)\n    return p\ntranslate(text)\n"
    )
    lines = ask(cell, OLD, line=3).source.splitlines()
    assert lines[1:3] == ['apply.mixed_precision(model, "mixed_float16")', "def translate(text):"]


@pytest.mark.parametrize(
    ("source", "line", "function"),
    [
        ("def train(net):\n    net.fit(x, y)\ntrain(pick(model))", 2, "train"),
        (
            "def show(images, net=None):\n    found = net.predict(images)\n    return found\nshow(x, net=models[0])",
            2,
            "show",
        ),
        ("async def go(*, net):\n    net.evaluate(x)\nawait go(**given)", 2, "go"),
    ],
)
def test_a_parameter_is_called_one(source, line, function):
    reason = ask(source, OLD, line=line).reason
    assert reason == f"`net` is a parameter of `{function}`, and which model it is given is not followed"


@pytest.mark.parametrize("step", ["y = net(x)", "loss = tf.reduce_mean(net(x, training=True))", "a, b = net(x), 1"])
def test_a_parameter_that_is_called_in_a_loop_of_ones_own_is_called_one(step):
    cell = (
        f"def step(net, x):\n    with tf.GradientTape() as tape:\n        {step}\n    return tape\n"
        "for x in data:\n    step(model, x)"
    )
    reason = ask(cell, OLD, line=3, compute_capability=(8, 0)).reason
    assert reason == "`net` is a parameter of `step`, and which model it is given is not followed"


@pytest.mark.parametrize("trainable", [1, 4096])
@pytest.mark.parametrize("form", ["subclassed", "functional", None])
def test_a_model_whose_weights_another_name_holds_too_is_built(form, trainable):
    """What two models share is counted under the first: the triplet network of a shared encoder has none of its own."""
    known = replace(OLD, name="triplets", weight_bytes=0, trainable_bytes=trainable, form=form)
    shared = replace(OLD, name="encoder", weight_bytes=trainable)
    answer = ask("triplets.fit(x)", shared, known)
    assert "not built" not in getattr(answer, "reason", "")


MADE_AROUND = {
    "by itself": "gan = GAN(maker, judge)\ngan.compile(opt, opt)\ngan.fit(ds)",
    "as it is fitted": "gan = GAN(maker=maker, judge=judge)\nhistory = gan.fit(ds, epochs=3)",
    "with its optimizer": "gan = GAN(maker, 8)\ngan.compile(optimizer=keras.optimizers.Adam())\ngan.fit(ds)",
}


@pytest.mark.parametrize("source", MADE_AROUND.values(), ids=MADE_AROUND)
@pytest.mark.parametrize("own", [0, 4 << 20])
def test_a_model_made_around_others_is_changed_where_all_of_it_is_built(source, own):
    """What it is given was built in an earlier cell; what it makes itself is built by its first batch."""
    tried = PolicyTrial("mixed_bfloat16", "ok", "step")
    gan = ModelFacts(
        "gan", ("Dense",), weight_bytes=own + (8 << 20), earlier_bytes=8 << 20, steps_before=None, form="subclassed",
        own_step=True, halving=4, trial=tried,
    )  # fmt: skip
    answer = ask(source, gan, line=source.count("\n") + 1, earlier=("import keras",), compute_capability=(8, 0))
    if own:
        assert answer.reason.startswith("`gan` makes layers of its own beside the models that it is given")
    else:
        before, _, fit = source.rpartition("\n")
        call = 'from tf_mem_magic import apply\napply.mixed_precision(gan, "mixed_bfloat16")'
        assert answer.source == f"{before}\n{call}\n{fit}"


AROUND = """inputs = keras.Input((8,))
hidden = base(inputs)
outputs = keras.layers.Dense(3)(hidden)
model = keras.Model(inputs, outputs)
model.compile("adam", "mse")
model.fit(x, y)"""
STACK = 'model = keras.Sequential([base, keras.layers.Dense(3)])\nmodel.compile("adam", "mse")\nmodel.fit(x, y)'
ADDED = "model = keras.Sequential()\nmodel.add(base)\nmodel.add(keras.layers.Dense(3))\nmodel.fit(x, y)"
OUTPUT = "hidden = keras.layers.Flatten()(base.output)\n" + AROUND.partition("\n")[2].partition("\n")[2].replace(
    "Model(inputs", "Model(base.input"
)


@pytest.mark.parametrize(
    "made", ["base = load_bert(path)", "base = hub.layer(url)", "base = Zoo.get('b0')(weights=None)"]
)
@pytest.mark.parametrize("cell", [AROUND, STACK, ADDED, OUTPUT])
def test_a_policy_is_not_set_behind_what_code_that_is_not_seen_has_made(made, cell):
    source = f"{made}\n{cell}"
    answer = ask(source, replace(NEW, form="sequential"), line=source.count("\n") + 1, earlier=("import keras",))
    assert isinstance(answer, Declined), answer.source
    assert "is built around `base`, which keeps the precision it was made with" in answer.reason
    answer = ask(source, replace(NEW, form="functional"), line=source.count("\n") + 1, earlier=("import keras",))
    assert "set_dtype_policy" not in answer.source
    assert "apply.mixed_precision(model" in answer.source


@pytest.mark.parametrize(
    "made",
    [
        "base = keras.applications.ResNet50()",
        "base = keras.layers.Dense(4)",
        "def make():\n    return keras.Sequential([keras.layers.Dense(4)])\nbase = make()",
        "x, y = load_data()\nbase = keras.layers.Dense(x.shape[1])",
    ],
)
def test_a_policy_stands_before_what_the_cell_itself_makes(made):
    source = f"{made}\n{AROUND}"
    answer = ask(source, replace(NEW, form="functional"), line=source.count("\n") + 1, earlier=("import keras",))
    assert "set_dtype_policy" in answer.source
    assert answer.source.index("set_dtype_policy") < answer.source.index("base = ")


@pytest.mark.parametrize(
    ("made", "layer"),
    [
        ("Wide = partial(keras.layers.Dense, activation='relu')", "Wide(100)"),
        ("wide = functools.partial(keras.layers.Dense, units)", "wide(name=title)"),
        ("Block = blocks.of('relu')", "Block(filters=64, strides=[2, 2])"),
        ("make = factory(path)", "make('first')"),
    ],
)
def test_what_makes_layers_where_they_stand_makes_them_by_the_policy(made, layer):
    source = f"{made}\nmodel = keras.Sequential([{layer}, {layer}, keras.layers.Dense(9)])\nmodel.compile('sgd')\nmodel.fit(x, y)"
    answer = ask(source, replace(NEW, form="sequential"), line=source.count("\n") + 1, earlier=("import keras",))
    assert not isinstance(answer, Declined), answer.reason
    assert "set_dtype_policy" in answer.source


@pytest.mark.parametrize(
    "later",
    [
        "saved = keras.models.load_model('a.keras')\nprint(saved.evaluate(x, y))",
        "saved = keras.models.load_model('a.keras')\nhead = keras.Sequential([saved, keras.layers.Dense(1)])",
        "other = keras.models.load_model(path)\nboth = keras.Model(i, keras.layers.add([other(i), other(j)]))",
    ],
)
def test_what_is_loaded_behind_what_ran_out_is_no_part_of_its_model(later):
    cell = "import keras\nmodel = keras.Sequential([keras.layers.Dense(4), keras.layers.Dense(1)])\nmodel.fit(x, y)\n"
    answer = ask(cell + later, NEW, line=3)
    assert isinstance(answer, Proposal), answer.reason
    assert answer.source.splitlines()[1].startswith("keras.config.set_dtype_policy")
    assert answer.source.endswith(later)
