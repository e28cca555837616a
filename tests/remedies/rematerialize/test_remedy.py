"""The remedy ``rematerialize``: which blocks it changes, which it declines, and that the edited cell trains the same."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernel import bfc
from tests.script import found_by
from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.facts import Facts, FunctionFacts, ModelFacts
from tf_mem_magic.core.proposals import Context, Declined, Proposal
from tf_mem_magic.core.recording import Cell, ErrorText, Frame, Recording
from tf_mem_magic.remedies._engine.ranking import propose_all
from tf_mem_magic.remedies.rematerialize.remedy import propose

IMPORTS = "import keras\nimport tensorflow as tf\nfrom keras import layers\n"
BLOCK = """class Block(layers.Layer):
    def __init__(self):
        super().__init__()
        self.inner = layers.Dense(256, "gelu"); self.outer = layers.Dense(32); self.norm = layers.LayerNormalization()

    def call(self, x, training=False):
        return self.norm(x + self.outer(self.inner(x)))

"""
BUILD = """h = inputs = keras.Input((64, 32))
for _ in range(4):
    h = Block()(h)
model = keras.Model(inputs, layers.Dense(1)(h))
"""
FIT = 'model.compile("adam", "mse", jit_compile=False)\nmodel.fit(x, y, batch_size=16, shuffle=False, verbose=0)\n'
LOOP = """optimizer = keras.optimizers.Adam()
@tf.function
def step(a, b):
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((b - model(a, training=True)) ** 2)
    optimizer.apply_gradients(zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables))
for i in range(0, 48, 16):
    step(x[i:i + 16], y[i:i + 16])
"""
OWN_MODEL = """class Net(keras.Model):
    def __init__(self):
        super().__init__()
        self.blocks = [Block() for _ in range(4)]; self.top = layers.Dense(1)
    def call(self, x, training=False):
        for block in self.blocks:
            x = block(x, training=training)
        return self.top(x)
model = Net()
"""
REAL = """class Depth(layers.Layer):
    def __init__(self):
        super().__init__()
        self.seeds = keras.random.SeedGenerator(5)

    def call(self, x, training=None):
        if not training:
            return x
        return x * tf.floor(0.8 + keras.random.uniform((tf.shape(x)[0], 1, 1), seed=self.seeds)) / 0.8

class Block(layers.Layer):
    def __init__(self, rate=0.2):
        super().__init__()
        self.attend = layers.MultiHeadAttention(2, 16, dropout=rate); self.norm = layers.BatchNormalization()
        self.inner = layers.Dense(256, "gelu"); self.dropout = layers.Dropout(rate); self.outer = layers.Dense(32)
        self.depth = Depth()

    def call(self, x):
        x = x + self.depth(self.attend(x, x))
        return self.norm(x + self.depth(self.outer(self.dropout(self.inner(x)))))

"""
ENCODER = """def encoder(inputs, width, rate=0.1):
    x = layers.MultiHeadAttention(2, 16, dropout=rate)(inputs, inputs)
    x = layers.BatchNormalization()(layers.Dropout(rate)(x) + inputs)
    y = layers.Dense(width, activation="gelu", kernel_regularizer="l2")(x)
    return layers.Dense(inputs.shape[-1])(layers.Dropout(rate)(y)) + x

"""
DECODER = """def decoder(x, memory, rate=0.1):
    x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 16, dropout=rate)(x, memory))
    return x + layers.Dropout(rate)(layers.Dense(32)(layers.Dense(256, "gelu")(x)))

"""
DECODE = BUILD.replace("for _", "memory = layers.Dense(32)(h)\nfor _").replace(
    "Block()(h)", "decoder(h, memory=memory)"
)
SGD = FIT.replace('"adam"', '"sgd"')
SGD_LOOP = LOOP.replace("Adam()", "SGD(0.01)")
"""Adam makes rounding visible: it divides by the size of a gradient, which is nearly 0 for a bias before a norm."""
FUNCTIONS = {
    "a function": ENCODER + BUILD.replace("Block()(h)", "encoder(h, 128)") + SGD,
    "a function of two tensors": DECODER + DECODE + SGD,
    "a function, in a loop of one's own": ENCODER + BUILD.replace("Block()(h)", "encoder(h, 128)") + SGD_LOOP,
}
TRAINED = {
    "fit": BLOCK + BUILD + FIT,
    "a loop of one's own": BLOCK + BUILD + LOOP,
    "a subclassed model": BLOCK + OWN_MODEL + FIT,
    "dropout and statistics": REAL + BUILD + SGD,
    "dropout and statistics in a loop of one's own": REAL + BUILD + SGD_LOOP,
    "dropout and statistics in a subclassed model": REAL
    + OWN_MODEL.replace("block(x, training=training)", "block(x)")
    + FIT,
}

NEW = ModelFacts("model", ("Block", "Dense"))


def ask(source, model=None, earlier=(IMPORTS,), line=None, **more):
    cell = Cell(source)
    models = () if model is None else (model,)
    facts = Facts("2.21.0", "3.15.1", True, models=models, earlier_cells=earlier)
    diagnosis = Diagnosis("GPU:0", line=line or len(source.splitlines()), **more)
    (only,) = propose(Context(cell, Recording(cell, status="oom", facts=facts), diagnosis))
    return only


def cell(old="", new="", rest=BUILD + FIT):
    assert old in BLOCK
    return BLOCK.replace(old, new) + rest


INNER = 'layers.Dense(256, "gelu")'
PLUS = "x + self.outer"


@pytest.mark.parametrize(
    ("reason", "source"),
    [
        ("uses RandomFlip", cell(INNER, "layers.RandomFlip()")),
        ("has LSTM, a recurrent layer", cell(INNER, "layers.LSTM(32, dropout=0.1)")),
        ("has SpectralNormalization", cell(INNER, "layers.SpectralNormalization(layers.Dense(32))")),
        ("has Embedding", cell(INNER, "layers.Embedding(8, 32)")),
        ("activity_regularizer", cell(INNER, 'layers.Dense(8, activity_regularizer="l2")')),
        ("uses random", cell(PLUS, "x + tf.random.normal([1]) + self.outer")),
        ("uses random", cell(PLUS, "x + keras.random.normal((1,)) + self.outer")),
        ("uses random", cell(PLUS, "x + keras.random.normal((1,), seed=SEEDS) + self.outer")),
        ("uses add_loss", cell("        return", "        self.add_loss(tf.reduce_sum(x))\n        return")),
        ("uses nn.dropout", cell(PLUS, "tf.nn.dropout(x, 0.1) + self.outer")),
        ("sets `self.last`", cell("        return", "        self.last = x\n        return")),
        ("calls `seen.append`", cell("        return", "        seen.append(x)\n        return")),
        ("does not give back one tensor", cell("return self.norm(x + self.outer(self.inner(x)))", "return x, x")),
        ("decorated already", cell("    def call", "    @tf.function\n    def call")),
        ("any number of arguments", cell("x, training=False", "x, *more")),
        ("not made of a repeated layer class", BLOCK + "model = keras.Sequential([Block()])\n" + FIT),
        ("not made of a repeated layer class", cell("layers.Layer", "keras.Model")),
        ("more than one GradientTape", BLOCK + BUILD + LOOP + LOOP),
        ("distribution strategy", BLOCK + "s = tf.distribute.MirroredStrategy()\n" + BUILD + FIT),
        ("outside training", BLOCK + BUILD + "model.predict(x)"),
        ("the cell does not train", BLOCK + BUILD),
        ("uses the name `apply`", "def apply(f):\n    return f\n" + BLOCK + BUILD + FIT),
        ("does not plainly build", BLOCK + "model.fit(x, y)"),
    ],
)
def test_it_declines_with_the_reason(reason, source):
    built = BUILD if "plainly" in reason else ""
    answer = ask(source, earlier=(IMPORTS, built))
    assert isinstance(answer, Declined), answer.diff
    assert reason in answer.reason


def test_a_reason_inside_a_layer_of_the_block_is_found():
    deep = "class Inner(layers.Layer):\n    def __init__(self):\n        self.read = layers.LSTM(32)\n\n"
    answer = ask(deep + cell(INNER, "Inner()"))
    assert "`Inner` has LSTM" in answer.reason


@pytest.mark.parametrize(
    "inner",
    [
        "layers.Dropout(0.1)",
        "layers.SpatialDropout1D(0.1)",
        "layers.GaussianNoise(0.1)",
        "layers.MultiHeadAttention(2, 8, dropout=0.1)",
        "layers.BatchNormalization()",
        "keras.random.SeedGenerator(1)",
    ],
)
def test_random_numbers_from_seeds_of_the_block_and_statistics_do_no_harm(inner):
    answer = ask(cell(INNER, inner))
    assert isinstance(answer, Proposal), answer.reason


def test_random_numbers_from_a_seed_generator_of_the_block_do_no_harm():
    answer = ask(cell(PLUS, "x + keras.random.uniform((1,), seed=self.seeds) + self.outer"))
    assert isinstance(answer, Proposal), answer.reason


def test_a_layer_inside_the_block_that_keras_tells_whether_it_trains_does_no_harm():
    inner = (
        "class Inner(layers.Layer):\n    def call(self, x, training=None):\n        return x if training else -x\n\n"
    )
    answer = ask(cell(INNER, "Inner()"), earlier=(IMPORTS, inner))
    assert isinstance(answer, Proposal), answer.reason


def test_one_allocation_larger_than_the_device_is_declined():
    assert "one allocation alone" in ask(TRAINED["fit"], cause="too-big", requested=501, limit=500).reason


def test_a_request_that_was_too_big_only_for_what_was_left_is_no_reason_to_decline():
    assert isinstance(ask(TRAINED["fit"], cause="too-big", requested=300, in_use=300, limit=500), Proposal)


def test_dropout_between_the_blocks_does_no_harm():
    answer = ask(TRAINED["fit"].replace("h = Block()(h)", "h = layers.Dropout(0.1)(Block()(h))"))
    assert isinstance(answer, Proposal), answer.reason


def test_blocks_of_an_earlier_cell_come_as_a_patch_to_copy():
    answer = ask(BUILD + FIT, earlier=(IMPORTS, BLOCK))
    assert "defined in an earlier cell" in answer.reason
    added = [line[1:] for line in answer.patch.splitlines() if line.startswith("+") and line[1:2] != "+"]
    assert ["from tf_mem_magic import apply", "    @apply.rematerialize"] == added


def test_only_the_outer_one_of_two_nested_blocks_is_changed():
    outer = BLOCK.replace("class Block", "class Outer").replace(INNER, "Block()").replace("layers.Dense(32)", "Block()")
    answer = ask(BLOCK.replace(", training=False", "") + outer + BUILD.replace("Block()", "Outer()") + FIT)
    assert "Compute Outer again in the backward pass" == answer.title


def test_a_block_that_the_model_does_not_hold_is_left_alone():
    answer = ask(TRAINED["fit"], ModelFacts("model", ("Dense",)))
    assert "not made of a repeated layer class" in answer.reason


HELPER = "inner = layers.ReLU()\n\ndef norm(y):\n    return inner(y)\n\n"


def function(old="", new="", rest=""):
    assert old in FUNCTIONS["a function"]
    return rest + FUNCTIONS["a function"].replace(old, new)


@pytest.mark.parametrize(
    ("reason", "source"),
    [
        ("`encoder` does not give back one tensor", function(" + x\n", " + x, x\n")),
        ("`encoder` is decorated already", function("def encoder", "@cache\ndef encoder")),
        ("any number of arguments", function("rate=0.1", "rate=0.1, *more")),
        ("defines a function or class of its own", function("    y =", "    f = lambda t: t\n    y =")),
        (
            "`encoder` reads `norm`, which is made",
            function("layers.Dropout(rate)(y)", "norm(y)", "norm = layers.ReLU()\n"),
        ),
        ("`encoder` reads `norms`, which is made", function("(y)", "(norms[0](y))", "norms = [f() for f in g]\n")),
        ("`norm` reads `inner`", function("layers.Dropout(rate)(y)", "norm(y)", HELPER)),
        ("has LSTM", function("layers.Dropout(rate)(y)", "layers.LSTM(32, return_sequences=True)(y)")),
        ("uses Lambda", function("layers.Dropout(rate)(y)", "layers.Lambda(abs)(y)")),
        ("calls `seen.append`", function("    return", "    seen.append(x)\n    return")),
        ("the notebook uses `model.layers`", function() + "model.layers[-1].trainable = False\n"),
        ("the notebook uses `model.get_layer`", function() + "model.get_layer('dense')\n"),
        ("not made of a repeated layer class or function", function("for _ in range(4):\n    ", "")),
        ("not made of a repeated layer class or function", function("    return", "    keras.Input((3,))\n    return")),
    ],
)
def test_it_declines_a_function_with_the_reason(reason, source):
    answer = ask(source, line=source[: source.index("model.fit")].count("\n") + 1)
    assert isinstance(answer, Declined), answer.diff
    assert reason in answer.reason


def test_a_function_may_read_constants_of_the_notebook():
    answer = ask(function("Dense(width", "Dense(2 * WIDTH", "WIDTH = 64\n"), earlier=(IMPORTS, "SIZES = [WIDTH]"))
    assert isinstance(answer, Proposal), answer.reason


def test_of_two_nested_functions_only_the_outer_one_is_changed():
    inner = "def wide(x):\n    return layers.Dense(8)(layers.Dense(9)(x))\n\n"
    answer = ask(function("layers.Dropout(rate)(y)", "wide(wide(y))", inner))
    assert "Compute encoder again in the backward pass" == answer.title


def test_functions_of_an_earlier_cell_come_as_a_patch_to_copy():
    answer = ask(FUNCTIONS["a function"].removeprefix(ENCODER), earlier=(IMPORTS, ENCODER))
    assert "defined in an earlier cell" in answer.reason
    assert "+@apply.rematerialize" in answer.patch.splitlines()


NOISE = st.lists(
    st.sampled_from(
        ["# call(self)", "note = f'{1}: @apply'", "%matplotlib inline", "", "ü = 1", "!ls", "def f():\n    return 1"]
    ),
    max_size=4,
)


@given(
    st.sampled_from(sorted(TRAINED | FUNCTIONS)),
    NOISE,
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["", "%%tfmem -q\n"]),
)
@settings(max_examples=150, deadline=None)
def test_two_lines_are_added_and_everything_else_stays(name, noise, end, tag):
    source = (tag + "".join(line + "\n" for line in noise) + (TRAINED | FUNCTIONS)[name]).replace("\n", end)
    answer = ask(source, NEW)
    assert isinstance(answer, Proposal), answer.reason
    decorator = "@apply.rematerialize" if name in FUNCTIONS else "    @apply.rematerialize"
    added = ("from tf_mem_magic import apply" + end, decorator + end)
    lines = answer.source.splitlines(keepends=True)
    assert [1, 1] == [lines.count(line) for line in added]
    assert source == "".join(line for line in lines if line not in added)


RUN = """
import gc, json, sys
import keras, numpy as np, tensorflow as tf
rng = np.random.default_rng(0)
x = rng.standard_normal((48, 64, 32)).astype("float32"); y = rng.standard_normal((48, 64, 1)).astype("float32")
info = tf.config.experimental.get_memory_info
found = {}
given = json.load(sys.stdin)
for name, sources in given["cells"].items():
    results = []
    for source in sources:
        keras.utils.set_random_seed(3)
        names = {"x": x, "y": y, "__name__": "__main__"}
        exec(given["imports"], names)
        gc.collect(); start = info("CPU:0")["current"]; tf.config.experimental.reset_memory_stats("CPU:0")
        exec(source, names)
        results.append((info("CPU:0")["peak"] - start, [v.numpy() for v in names["model"].variables]))
    gap = float(max(np.abs(p - q).max() for p, q in zip(results[0][1], results[1][1])))
    found[name] = {"peaks": [r[0] for r in results], "gap": gap}
print("FOUND" + json.dumps(found))
"""


@pytest.fixture(scope="module")
def ran():
    cells = {name: (source, ask(source, NEW).source) for name, source in (TRAINED | FUNCTIONS).items()}
    return found_by(RUN, {"cells": cells, "imports": IMPORTS}, bfc(1024))


@pytest.mark.tf
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", [*TRAINED, *FUNCTIONS])
def test_the_edited_cell_trains_the_same_weights_in_less_memory(ran, name):
    before, after = ran[name]["peaks"]
    assert ran[name]["gap"] <= 1e-6
    assert after < 0.7 * before, ran


@pytest.mark.parametrize(("policy", "said"), [("mixed_bfloat16", True), ("float32", False)])
def test_in_16_bits_rounding_is_named(policy, said):
    answer = ask(TRAINED["fit"], ModelFacts("model", ("Block", "Dense"), dtype_policy=policy))
    assert said is any("16 bits" in caveat for caveat in answer.caveats)


def test_tapes_of_a_training_step_do_not_count_where_a_loop_trains_without_keras():
    gan = "class Gan(keras.Model):\n    def train_step(self, x):\n        with tf.GradientTape() as a, tf.GradientTape() as b: ..."
    source = BLOCK + BUILD + LOOP
    earlier = ("import keras\nimport tensorflow as tf\nfrom keras import layers", gan)
    facts = Facts(keras="3.15.1", models=(ModelFacts("model", ("Block", "Dense")),), earlier_cells=earlier)
    cell = Cell(source)
    diagnosis = Diagnosis("GPU:0", line=source.splitlines().index("    step(x[i:i + 16], y[i:i + 16])") + 1)
    (answer,) = propose(Context(cell, Recording(cell, status="oom", facts=facts), diagnosis))
    assert isinstance(answer, Proposal), answer.reason


@pytest.mark.parametrize(
    ("earlier", "own_step", "counts"),
    [
        ("def f(x):\n    with tf.GradientTape() as a:\n        with tf.GradientTape() as b:\n            return x", False, False),
        ("class Gan(keras.Model):\n    def train_step(self, x):\n        with tf.GradientTape() as a, tf.GradientTape() as b: ...", False, False),
        ("class Gan(keras.Model):\n    def train_step(self, x):\n        with tf.GradientTape() as a, tf.GradientTape() as b: ...", True, True),
    ],
)  # fmt: skip
def test_tapes_of_other_cells_do_not_count_where_keras_trains(earlier, own_step, counts):
    source = BLOCK + BUILD + "model.fit(x, y)\n"
    facts = Facts(
        keras="3.15.1",
        models=(ModelFacts("model", ("Block", "Dense"), own_step=own_step),),
        earlier_cells=("import keras\nimport tensorflow as tf\nfrom keras import layers", earlier),
    )
    cell = Cell(source)
    diagnosis = Diagnosis("GPU:0", line=len(source.splitlines()))
    (answer,) = propose(Context(cell, Recording(cell, status="oom", facts=facts), diagnosis))
    assert isinstance(answer, Declined if counts else Proposal), answer
    assert not counts or "more than one GradientTape" in answer.reason


MLP = """def mlp(x, units):
    x = layers.Dense(units, activation="gelu")(x)
    return layers.Dropout(0.1)(x)"""
RES = """def res_block(x):
    y = layers.Conv1D(32, 3, padding="same", activation="relu")(x)
    y = layers.BatchNormalization()(y)
    return layers.Add()([x, y])"""
MADE = """def build(depth=4):
    h = inputs = keras.Input((64, 32))
    for _ in range(depth):
        h = {}
    return keras.Model(inputs, layers.Dense(1)(h))"""


@pytest.mark.parametrize(
    ("functions", "built", "is_new", "block"),
    [
        ((("mlp", MLP), ("build", MADE.format("mlp(h, 64)"))), "model = build()\n", True, "mlp"),
        ((("res_block", RES), ("build", MADE.format("res_block(h)"))), "depth = 6\nmodel = build(depth)\n", True, "res_block"),
        (
            (("res_block", RES),),
            "h = inputs = keras.Input((64, 32))\nfor _ in range(4):\n    h = res_block(h)\n"
            "model = keras.Model(inputs, layers.Dense(1)(h))\n",
            True,
            "res_block",
        ),
        ((("res_block", RES), ("build", MADE.format("res_block(h)"))), "", False, ""),
    ],
)  # fmt: skip
def test_a_block_of_an_earlier_cell_is_defined_anew_where_this_cell_builds_the_model(functions, built, is_new, block):
    earlier = ("import keras\nfrom keras import layers", *(text for _, text in functions))
    made = tuple(FunctionFacts(name, text, f"/tmp/ipykernel_1/{name}.py", 1) for name, text in functions)
    source = f"%%tfmem\n{built}{FIT}"
    model = ModelFacts("model", ("Dense", "Functional"), steps_before=None if is_new else 3, steps=3, own_step=False)
    facts = Facts("2.21.0", "3.15.1", True, models=(model,), functions=made, earlier_cells=earlier)
    cell = Cell(source)
    diagnosis = Diagnosis("GPU:0", line=len(source.splitlines()))
    answer = next(
        a
        for a in propose_all(Context(cell, Recording(cell, status="oom", facts=facts), diagnosis))
        if a.key == "rematerialize"
    )
    if block:
        assert f"@apply.rematerialize\ndef {block}(" in answer.source, getattr(answer, "reason", "")
        assert answer.source.endswith(built + FIT)
        assert "def build" not in answer.source
        assert answer.taken_over == (dict(functions)[block],)
    else:
        assert "in an earlier cell: change it there" in answer.reason
        assert "@apply.rematerialize" in answer.patch


@pytest.mark.parametrize(
    ("function", "call"),
    [
        ("def run(net):\n    return net.fit(x, y)", "history = run(model)"),
        ("def run(net):\n    for a, b in data:\n        net.train_on_batch(a, b)", "run(model)"),
        (
            "def run(net, n=3):\n    for k in range(n): net.fit(x, y)\n    return net",
            "losses = [run(m) for m in models]",
        ),
    ],
)
def test_a_training_in_a_function_of_another_cell_is_not_said_to_be_none(function, call):
    reason = ask(call, earlier=(IMPORTS, function), line=1).reason
    assert "the cell does not train" not in reason
    assert "the training is in a function of another cell" in reason


@pytest.mark.parametrize(
    ("cell", "function"),
    [
        ("painter = Painter()\npicture = painter.paint(x)", "paint"),
        ("scores = agent.learn()", "replay"),
        ("for episode in range(9):\n    memory.play(agent)", "play"),
    ],
)
def test_of_code_that_it_does_not_see_it_does_not_say_that_it_trains_nothing(cell, function):
    line = cell.count("\n") + 1
    frames = (Frame("/cells/9.py", line, "<module>", True, True), Frame("/cells/4.py", 7, function, False, True))
    error = ErrorText("ResourceExhaustedError", "OOM when allocating tensor with shape[64,1024]", frames)
    facts = Facts("2.21.0", "3.15.1", True, earlier_cells=(IMPORTS,))
    recording = Recording(Cell(cell), status="oom", errors=(error,), facts=facts)
    (answer,) = propose(Context(Cell(cell), recording, Diagnosis("GPU:0", line=line)))
    assert answer.reason == "what ran out lies in code outside this cell, where this does not follow it"
