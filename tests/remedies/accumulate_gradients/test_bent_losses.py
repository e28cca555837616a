"""Losses that compute with a mean over the batch: of its parts they do not average to what they are of the whole."""

from __future__ import annotations

import ast
import textwrap

import pytest

from tf_mem_magic.core.facts import Facts
from tf_mem_magic.notebook.follow.reader import Reader
from tf_mem_magic.notebook.text.cell import read_cell
from tf_mem_magic.remedies.accumulate_gradients.bent_losses import Loss, read_losses

RMSE = "def rmse(y, p):\n    return K.sqrt(K.mean(K.square(p - y)))"
F1 = """def soft_f1(y, p):
    tp = tf.reduce_sum(y * p, axis=0)
    fp, fn = tf.reduce_sum((1 - y) * p, axis=0), tf.reduce_sum(y * (1 - p), axis=0)
    precision = tp / (tp + fp + 1e-7)
    return 1 - tf.reduce_mean(2 * tp / (2 * tp + fp + fn))
"""
INSIDE = "def f1_loss(y, p, weights=None):\n    return soft_f1(y, p)"
R2 = "def r2(y, p):\n    rest = K.sum(K.square(y - p))\n    return rest / K.sum(K.square(y - K.mean(y)))"
PSNR = "def psnr(y, p):\n    mse = tf.reduce_mean((y - p) ** 2)\n    return 10 * tf.math.log(mse)"
POWER = "def root(y, p):\n    return tf.reduce_mean(tf.abs(y - p)) ** 0.5"

DISTANCE = "def distance(y, p):\n    return K.mean(K.sqrt(K.sum(K.square(p - y), axis=-1)))"
PER_IMAGE = """def dice(y, p):
    both = tf.reduce_sum(y * p, axis=(1, 2, 3))
    return 1 - tf.reduce_mean(2 * both / tf.reduce_sum(y + p, axis=[1, 2, 3]))
"""
MASKED = "def masked(y, p):\n    mask = tf.cast(y != 0, tf.float32)\n    return tf.reduce_sum(cce(y, p) * mask) / tf.reduce_sum(mask)"
VAE = "def vae_loss(y, p):\n    return tf.reduce_mean(bce(y, p)) - 0.5 * K.mean(1 + v - K.square(m) - K.exp(v))"
HALF = "def half(y, p):\n    return K.mean(K.square(p - y)) / 2"

SUMMED = "def focal(y, p):\n    return -K.sum(y * K.pow(1.0 - p, 2.0) * K.log(p))"
RECALL = "def recall(y, p):\n    hits = K.sum(y * p)\n    return 1 - hits / (K.sum(y) + K.epsilon())"
WEIGHTED = "def weighted(y, p):\n    weights = 1 + 4 * y\n    return tf.reduce_sum(weights * bce(y, p)) / tf.reduce_sum(weights)"
BY_SIZE = (
    "def by_size(y, p):\n    sizes = tf.norm(y, axis=-1)\n    return tf.reduce_sum(mse(y, p)) / tf.reduce_sum(sizes)"
)
LENGTHS = "def by_length(y, p):\n    length = K.sum(K.cast(y > 0, 'float32'))\n    return K.sum(cce(y, p)) / length"
SQUARED = "def bias(y, p):\n    return K.square(K.mean(p - y))"
COVARIANCE = "def cov(y, p):\n    return -K.mean(y) * K.mean(p)"
SPREAD = "def spread(y, p):\n    return K.mean(K.abs(y - p)) + tf.math.reduce_std(y - p)"
THROUGH = "def mse_of(y, p):\n    return K.mean(K.square(y - p))\n\ndef rmse_of(y, p):\n    return K.sqrt(mse_of(y, p))"
FACTORY = "def make(alpha=0.5):\n    def rooted(y, p):\n        return alpha * K.sqrt(K.mean(K.square(y - p)))\n    return rooted"
CLASS = """class F1(keras.losses.Loss):
    def __init__(self, beta=1.0):
        super().__init__()
        self.beta = beta

    def call(self, y, p):
        both = tf.reduce_sum(y * p)
        return 1 - both / tf.reduce_sum(y + p)
"""
AXES = """def axes(y, p, axis=(1, 2)):
    return K.mean(K.sqrt(K.mean(K.square(y - p), axis=axis)))
"""
RANGED = """def ranged(y, p):
    axes = tuple(range(1, len(y.shape)))
    return 1 - K.mean(K.sum(y * p, axis=axes) / K.sum(y + p, axes))
"""
WEIGHTS = """def decayed(y, p):
    return K.mean(K.square(y - p)) + 0.1 * K.sqrt(K.sum(K.square(kernel)))
"""
SIZE = "def sized(y, p):\n    return K.sum(K.square(y - p)) / K.cast(K.shape(y)[0], 'float32')"
BATCH = "def averaged(y, p):\n    return tf.nn.compute_average_loss(tf.reduce_sum(cce(y, p), -1))"
ALPHA = "def make_balanced(weights):\n    def balanced(y, p):\n        return K.mean(y * weights / K.sum(weights) * cce(y, p))\n    return balanced"
METHOD = "def of_rows(y, p):\n    return ((y - p) ** 2).sum(-1) ** 0.5"

COMPILED = [
    (RMSE, "loss=rmse)", "rmse"),
    (F1, "loss=soft_f1, metrics=['accuracy'])", "soft_f1"),
    (f"{F1}\n\n{INSIDE}", "loss=f1_loss)", "soft_f1"),
    (R2, "'adam', r2)", "r2"),
    (PSNR, "keras.optimizers.Adam(1e-3), psnr, metrics=[mse])", "psnr"),
    (POWER, "optimizer='sgd', loss = root,)", "root"),
    (RMSE, "loss=[rmse, 'mse'])", "rmse"),
    (RMSE, "loss={'age': rmse, 'sex': 'bce'}, loss_weights=[1, 2])", "rmse"),
    (f"{RMSE}\nloss_fn = rmse", "'adam', loss_fn)", "rmse"),
    (f"{RMSE}\nlosses = {{'a': 'mse', 'b': rmse}}", "loss=losses)", "rmse"),
    (f"{RMSE}\nRMSE = LossFunctionWrapper(rmse, name='rmse')", "'adam', RMSE)", "rmse"),
    (RMSE, "keras.optimizers.Adam(Schedule(d_model, warmup(3)), beta_2=0.98), loss=partial(rmse))", "rmse"),
    (CLASS, "loss=F1())", "F1"),
    (f"{CLASS}\nf1 = F1(beta=2.0)", "loss=[f1], optimizer=opt)", "F1"),
    (FACTORY, "loss=make(0.3))", "make"),
    (f"{FACTORY}\nrooted = make()", "optimizer, rooted)", "make"),
    ("", "loss=lambda y, p: K.sqrt(K.mean(K.square(y - p))))", "K.sqrt(K.mean(K.square(y - p)))"),
    (
        "root = lambda y, p: tf.sqrt(tf.reduce_mean((y - p) ** 2))",
        "loss=root)",
        "tf.sqrt(tf.reduce_mean((y - p) ** 2))",
    ),
    ("", "loss=keras.metrics.RootMeanSquaredError())", "RootMeanSquaredError"),
    (THROUGH, "loss=rmse_of)", "rmse_of"),
    (f"{RMSE}\nKNOWN = {{'rmse': rmse}}\ndef pick(name):\n    return KNOWN[name]", "loss=pick('rmse'))", "rmse"),
    (f"{RMSE}\nKNOWN = dict(a='mse')\ndef pick():\n    return rmse", "'adam', pick())", "rmse"),
    (f"{RMSE}\nALL = ['mae', rmse]\ndef pick(at=1):\n    return ALL.copy()[at]", "loss=pick())", "rmse"),
    (f"{RMSE}\nclass Losses:\n    root = rmse", "loss=Losses.root)", "rmse"),
    (f"{RMSE}\nKNOWN = {{'mae': 'mae'}}\ndef pick(name):\n    return KNOWN[name]", "loss=pick('mae'))", ""),
    (WEIGHTED, "loss=weighted)", "weighted"),
    (BY_SIZE, "loss=by_size)", "by_size"),
    (LENGTHS, "loss=by_length)", "by_length"),
    (RECALL, "loss=recall)", "recall"),
    (SQUARED, "loss=bias)", "bias"),
    (COVARIANCE, "loss=cov)", "cov"),
    (SPREAD, "loss=spread)", "spread"),
    (SUMMED, "loss=focal)", "focal"),
    (DISTANCE, "loss=distance)", ""),
    (PER_IMAGE, "loss=dice)", ""),
    (VAE, "loss=vae_loss)", ""),
    (HALF, "loss=half)", ""),
    (AXES, "loss=axes)", ""),
    (RANGED, "loss=ranged)", ""),
    (WEIGHTS, "loss=decayed)", ""),
    (SIZE, "loss=sized)", ""),
    (BATCH, "loss=averaged)", ""),
    (ALPHA, "loss=make_balanced(w))", ""),
    (METHOD, "loss=of_rows)", ""),
    (RMSE, "loss='mse', metrics=[rmse])", ""),
    (RMSE, "'adam', 'mse', [rmse])", ""),
    ("", "loss=tf.keras.losses.MeanSquaredError())", ""),
]


def losses_of(source, earlier=()):
    """Read the losses of a cell; of its last ``fit`` where it has one, else of its loop."""
    cell = read_cell(source)
    fits = [c for c in cell.calls if isinstance(c.func, ast.Attribute) and c.func.attr == "fit"]
    reader = Reader(cell, Facts(earlier_cells=tuple(earlier)), frozenset({len(cell.starts)}))
    return read_losses(reader, fits[-1] if fits else None)


@pytest.mark.parametrize(("defined", "loss", "found"), COMPILED)
def test_a_root_or_quotient_of_means_over_the_batch_is_found_and_what_each_sample_has_alone_is_not(
    defined, loss, found
):
    compiled = f"model = build()\nmodel.compile({loss}"
    fitted = "model.fit(x, y)"
    assert losses_of(f"{compiled}\n{fitted}", (defined,)).bent == found
    assert losses_of(f"{defined}\n{compiled}\n{fitted}").bent == found
    assert losses_of(fitted, (f"{defined}\n{compiled}",)).bent == found
    inside = textwrap.indent(f"{compiled}\nreturn model", "    ")
    assert losses_of(f"model = made()\n{fitted}", (defined, f"def made():\n{inside}")).bent == found


@pytest.mark.parametrize(
    "built",
    [
        "def made(loss):\n    model = build()\n    model.compile('adam', loss)\n    return model\nmodel = made(rmse)",
        "def made(loss='mse'):\n    model = build()\n    model.compile('adam', loss=loss)\n    return model\nmodel = made(loss=rmse)",
        "def made(units, loss=rmse):\n    model = build()\n    model.compile('adam', loss=loss)\n    return model\nmodel = made(3)",
    ],
)
def test_a_loss_that_a_function_is_given_is_followed(built):
    assert losses_of("model.fit(x, y)", (RMSE, built)).bent == "rmse"
    assert losses_of(f"{RMSE}\n{built}\nmodel.fit(x, y)").bent == "rmse"
    assert losses_of("model.fit(x, y)", (RMSE, built.replace("rmse", "'mae'"))).bent == ""


@pytest.mark.parametrize(
    "cell",
    [
        "other.compile(loss=rmse)\nmodel.compile(loss='mse')\nmodel.fit(x, y)",
        "other = build()\nother.compile('adam', rmse)\nmodel = build()\nmodel.compile('adam', 'mse')\nmodel.fit(x, y)",
        "def train(net):\n    net.compile(loss='mae')\n    net.fit(x, y)\nwrong.compile(loss=rmse)\ntrain(net)",
    ],
)
def test_the_loss_of_another_model_is_none_of_this_training(cell):
    assert losses_of(cell, (RMSE,)).bent == ""


TAPE = """def step(a, b):
    with tf.GradientTape() as tape:
{0}
    grads = tape.gradient(loss, model.trainable_variables)
    {1}optimizer.apply_gradients(zip(grads, model.trainable_variables))

for a, b in data:
    step(a, b)
"""
ON_TOP = """for a, b in data:
    with tf.GradientTape() as tape:
{0}
    grads = tape.gradient(loss, model.trainable_variables)
    {1}optimizer.apply_gradients(zip(grads, model.trainable_variables))
"""


@pytest.mark.parametrize("loop", [TAPE, ON_TOP])
@pytest.mark.parametrize(
    ("taped", "found"),
    [
        ("loss = rmse(b, model(a))", "rmse"),
        ("p = model(a)\nloss = tf.reduce_mean(rmse(b, p))", "rmse"),
        ("loss = tf.sqrt(tf.reduce_mean((model(a) - b) ** 2))", "tf.sqrt(tf.reduce_mean((model(a) - b) ** 2))"),
        ("mse = tf.reduce_mean((model(a) - b) ** 2)\nloss = tf.reduce_mean(mse ** 0.5)", "mse ** 0.5"),
        ("loss = tf.reduce_mean(hits(a) / tf.reduce_sum(b))", "hits(a) / tf.reduce_sum(b)"),
        ("error = model(a) - b\nloss = tf.reduce_mean(error ** 2) + spread(b, error)", "spread"),
        ("loss = loss_of(b, model(a))", "rmse"),
        ("loss = tf.reduce_mean((model(a) - b) ** 2)", ""),
        ("p = model(a)\nloss = tf.reduce_mean(cce(b, p))\nright = hits(p) / tf.reduce_sum(b)", ""),
        ("loss = tf.reduce_mean(tf.sqrt(tf.reduce_sum((model(a) - b) ** 2, axis=1)))", ""),
    ],
)
def test_a_loop_s_loss_is_what_the_tape_gives_gradients_of(loop, taped, found):
    cell = loop.format(textwrap.indent(taped, "        "), "seen.append(right / tf.reduce_sum(b)); ")
    earlier = (RMSE, SPREAD, "loss_of = rmse")
    assert losses_of(cell, earlier).bent == found
    assert losses_of("\n".join((*earlier, cell))).bent == found


@pytest.mark.parametrize(
    ("added", "found"),
    [
        ("self.add_loss(tf.sqrt(tf.reduce_mean(x ** 2)))", "tf.sqrt(tf.reduce_mean(x ** 2))"),
        ("size = tf.reduce_mean(x ** 2)\n        self.add_loss(size ** 0.5)", "size ** 0.5"),
        ("self.add_loss(lambda: rmse(x, x0))", "rmse"),
        ("self.add_loss(0.1 * tf.reduce_mean(x ** 2))", ""),
        ("self.add_loss(tf.sqrt(tf.reduce_sum(self.kernel ** 2)))", ""),
    ],
)
def test_a_loss_that_a_layer_adds_is_read(added, found):
    layer = f"class Added(keras.layers.Layer):\n    def call(self, x):\n        {added}\n        return x\n"
    earlier = (RMSE, f"{layer}\nmodel = keras.Sequential([Added()])\nmodel.compile('adam', 'mse')")
    assert losses_of("model.fit(x, y)", earlier).bent == found


@pytest.mark.parametrize(
    "masked",
    [
        MASKED,
        MASKED.replace("/ tf.reduce_sum(mask)", "/ (tf.reduce_sum(mask) + 1e-8)"),
        MASKED.replace("/ tf.reduce_sum(mask)", "/ tf.maximum(tf.reduce_sum(mask), 1)"),
        MASKED.replace("return", "count = tf.reduce_sum(tf.cast(mask, 'float32'))\n    return").replace(
            "/ tf.reduce_sum(mask)", "/ count"
        ),
        MASKED.replace("/ tf.reduce_sum(mask)", "/ tf.reduce_mean(mask)").replace("mask", "is_valid"),
    ],
)
def test_a_mean_over_what_a_mask_lets_through_weighs_the_parts_a_little_differently(masked):
    name = masked.partition("def ")[2].partition("(")[0]
    cell = f"model.compile(loss={name})\nmodel.fit(x, y)"
    assert losses_of(cell, (masked,)) == Loss("", is_masked=True)
    assert losses_of(f"{masked}\n{cell}") == Loss("", is_masked=True)


def test_a_loss_that_calls_itself_ends():
    defined = "def a(y, p):\n    return b(y, p)\ndef b(y, p):\n    return a(y, p)"
    assert losses_of("model.compile(loss=a)\nmodel.fit(x, y)", (defined,)) == Loss()


@pytest.mark.parametrize("kept", ["sum(model.losses)", "tf.reduce_sum(model.losses)", "tf.add_n(model.losses)"])
def test_what_a_loop_adds_for_its_weights_is_no_sum_over_samples(kept):
    loss = f"        loss = tf.reduce_mean((model(a) - b) ** 2) + {kept}"
    assert losses_of(TAPE.format(loss, "")).bent == losses_of(ON_TOP.format(loss, "")).bent == ""
