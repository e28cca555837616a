"""A gallery of 154 cells: ways in which notebooks make a model, times ways in which they train or run it.

What is right for a cell follows from how its model is made and how it runs, so each way says its part of the answer;
nothing here is computed by what is tested. ``# <-`` marks the line that ran out of memory.
"""

from __future__ import annotations

import ast
import itertools
from dataclasses import dataclass, field, replace

from tf_mem_magic.core.facts import BatchSeen, DatasetFacts, DeviceFacts, Facts, FunctionFacts, ModelFacts, NamedValue
from tf_mem_magic.core.recording import Cell, ErrorText, Frame, Recording, Series
from tf_mem_magic.core.units import GIB, MIB

IMPORTS = (
    "import argparse\nimport numpy as np\nimport tensorflow as tf\nimport keras\nfrom keras import layers\n"
    "from dataclasses import dataclass"
)
COMPILE = 'model.compile(optimizer="adam", loss="mse")\n'
SGD = "keras.optimizers.SGD(learning_rate=0.01, momentum=0.9)"


@dataclass(frozen=True)
class Making:
    """How the model is made: in the cell by ``text``, or in ``earlier`` cells; ``facts`` are those of the model.

    ``mixed`` are lines that the cell has once it computes in 16 bits; none: it is declined because of ``why_not``.
    """

    name: str
    text: str = ""
    earlier: tuple[str, ...] = ()
    facts: ModelFacts = field(default_factory=lambda: ModelFacts("model", ("Dense",), form="functional", halving=2))
    mixed: tuple[str, ...] = ()
    why_not: str = ""

    @property
    def is_earlier(self) -> bool:
        return not self.text


@dataclass(frozen=True)
class Running:
    """How the model runs: the lines of the cell, what Keras saw, and whether the loop is the notebook's own."""

    name: str
    text: str
    batches: tuple[BatchSeen, ...] = ()
    earlier: tuple[str, ...] = ()
    own_loop: bool = False
    inference: str = ""
    before: str = ""


IN_PLACE = ('apply.mixed_precision(model, "mixed_bfloat16")',)
POLICY = 'keras.config.set_dtype_policy("mixed_bfloat16")'
OLD = ModelFacts("model", ("Dense",), form="functional", halving=2, steps=3, steps_before=3)

MAKINGS = (
    Making(
        "a list of layers",
        'model = keras.Sequential([\n    layers.Dense(64, activation="relu"),\n    layers.Dense(10),  # logits\n])\n' + COMPILE,
        mixed=(POLICY, '    layers.Dense(10, dtype="float32"),  # logits'),
    ),
    Making(
        "layers added one by one",
        "model = keras.models.Sequential()\nmodel.add(layers.Dense(64))\nmodel.add(layers.Dropout(0.5))\n"
        'model.add(layers.Dense(1, activation="sigmoid"))\n' + COMPILE,
        mixed=(POLICY, 'model.add(layers.Dense(1, activation="sigmoid", dtype="float32"))'),
    ),
    Making(
        "the functional way",
        "inputs = keras.Input((8,))\nx = layers.Dense(64)(inputs)\nx = layers.Dense(64)(x)\noutputs = layers.Dense(1)(x)\n"
        "model = keras.Model(inputs, outputs)\n" + COMPILE,
        mixed=(POLICY, 'outputs = layers.Dense(1, dtype="float32")(x)'),
    ),
    Making(
        "a function of the cell",
        "def build(units):\n    inputs = keras.Input((8,))\n    x = layers.Dense(units)(inputs)\n"
        "    return keras.Model(inputs, layers.Dense(1)(x))\n\nmodel = build(64)\n" + COMPILE,
        mixed=(POLICY, '    return keras.Model(inputs, layers.Dense(1, dtype="float32")(x))'),
    ),
    Making(
        "a function of an earlier cell",
        "model = build(64)\n" + COMPILE,
        ("def build(units):\n    model = keras.Sequential()\n    model.add(layers.Dense(units))\n"
         "    model.add(layers.Dense(1))\n    return model",),
        ModelFacts("model", ("Dense",), form="sequential", halving=1),
        (POLICY, '    model.add(layers.Dense(1, dtype="float32"))'),
    ),
    Making(
        "a class of the cell",
        "class Net(keras.Model):\n    def __init__(self):\n        super().__init__()\n        self.hidden = layers.Dense(64)\n"
        "        self.head = layers.Dense(1)\n\n    def call(self, x):\n        return self.head(self.hidden(x))\n\n"
        "model = Net()\n" + COMPILE,
        facts=ModelFacts("model", ("Dense",), form="subclassed", halving=2, own_layers=("Net",), own_step=False),
        mixed=(POLICY, '        self.head = layers.Dense(1, dtype="float32")'),
    ),
    Making(
        "a class of an earlier cell",
        "model = Net()\n" + COMPILE,
        ("class Net(keras.Model):\n    def __init__(self):\n        super().__init__()\n        self.head = layers.Dense(1)\n"
         "    def call(self, x):\n        return self.head(x)",),
        ModelFacts("model", ("Dense",), form="subclassed", halving=1, own_layers=("Net",), own_step=False),
        why_not="cannot be told from this cell",
    ),
    Making(
        "from a file",
        'model = keras.models.load_model("best.keras")\n' + COMPILE,
        mixed=IN_PLACE,
    ),
    Making(
        "a new head on a known body",
        'base = keras.applications.ResNet50(include_top=False, pooling="avg")\nbase.trainable = False\n'
        "head = layers.Dense(5)\nmodel = keras.Model(base.input, head(base.output))\n" + COMPILE,
        facts=ModelFacts("model", ("Conv2D", "BatchNormalization", "Dense"), form="functional", halving=90),
        mixed=(POLICY, 'head = layers.Dense(5, dtype="float32")'),
    ),
    Making(
        "in an earlier cell",
        earlier=("model = keras.Sequential([layers.Dense(64), layers.Dense(1)])\n" + COMPILE,),
        facts=OLD,
        mixed=IN_PLACE,
    ),
    Making(
        "in an earlier cell, with a layer that draws noise",
        earlier=(
            "class Noise(layers.Layer):\n    def call(self, x):\n        return x + tf.random.normal(tf.shape(x))",
            "model = keras.Sequential([Noise(), layers.Dense(64), layers.Dense(1)])\n" + COMPILE,
        ),
        facts=replace(OLD, layers=("Noise", "Dense"), own_layers=("Noise",)),
        why_not="`Noise` mixes in float32 tensors",
    ),
)  # fmt: skip


def fit(batch: int, source: str = "arrays") -> tuple[BatchSeen, ...]:
    return (BatchSeen("fit", batch, source),)


RUNNINGS = (
    Running("arrays", "history = model.fit(x, y, batch_size=64, epochs=3)  # <-\n", fit(64)),
    Running("a dataset of an earlier cell", "model.fit(train_ds, epochs=3, validation_data=val_ds)  # <-\n", fit(32, "tf.data")),
    Running("a class of settings", "class CFG:\n    batch = 64\n    epochs = 3\n\nmodel.fit(x, y, batch_size=CFG.batch)  # <-\n", fit(64)),
    Running(
        "a dataclass of settings",
        "@dataclass\nclass Config:\n    batch_size: int = 64\n    epochs: int = 3\n\ncfg = Config()\n"
        "model.fit(x, y, batch_size=cfg.batch_size, epochs=cfg.epochs)  # <-\n",
        fit(64),
    ),
    Running(
        "arguments of a command line",
        'parser = argparse.ArgumentParser()\nparser.add_argument("--batch", type=int, default=64)\nargs = parser.parse_args([])\n'
        "model.fit(x, y, batch_size=args.batch)  # <-\n",
        fit(64),
    ),
    Running(
        "a generator",
        "def batches(size=64):\n    while True:\n        rows = np.random.randint(0, len(x), size)\n        yield x[rows], y[rows]\n\n"
        "model.fit(batches(), steps_per_epoch=100)  # <-\n",
        fit(64, "generator"),
    ),
    Running("a PyDataset of an earlier cell", "model.fit(train_gen, validation_data=val_gen)  # <-\n", fit(32, "PyDataset")),
    Running(
        "a function of the cell that reads the model",
        "def train():\n    return model.fit(x, y, batch_size=64, verbose=0)  # <-\n\nhistory = train()\n",
        fit(64),
    ),
    Running(
        "part after part",
        "for part in range(3):\n    a, b = load(part)\n    model.fit(a, b, batch_size=64)  # <-\n",
        fit(64),
        before="for part in range(3):",
    ),
    Running("on a device", 'with tf.device("GPU:0"):\n    model.fit(x, y, batch_size=64)  # <-\n', fit(64)),
    Running(
        "batch by batch",
        "for step in range(0, 6400, 64):\n    loss = model.train_on_batch(x[step:step + 64], y[step:step + 64])  # <-\n",
        (BatchSeen("train_on_batch", 64, "arrays"),),
        before="for step in range(0, 6400, 64):",
    ),
    Running(
        "a loop of its own",
        "optimizer = keras.optimizers.SGD()\nfor a, b in train_ds:\n    with tf.GradientTape() as tape:\n"
        "        loss = tf.reduce_mean((model(a, training=True) - b) ** 2)  # <-\n"
        "    grads = tape.gradient(loss, model.trainable_variables)\n"
        "    optimizer.apply_gradients(zip(grads, model.trainable_variables))\n",
        own_loop=True,
        before="for a, b in train_ds:",
    ),
    Running("an evaluation", "loss = model.evaluate(x_test, y_test, batch_size=256)  # <-\nprint(loss)\n",
            (BatchSeen("evaluate", 256, "arrays"),), inference="evaluate"),
    Running(
        "predictions in a loop",
        "found = []\nfor part in parts:\n    found.append(model.predict(part, batch_size=128))  # <-\n",
        (BatchSeen("predict", 128, "arrays"),),
        inference="predict",
        before="for part in parts:",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Style:
    """One cell of the gallery."""

    making: Making
    running: Running

    @property
    def name(self) -> str:
        return f"{self.making.name}; {self.running.name}"

    @property
    def source(self) -> str:
        return f"%%tfmem\n{self.making.text}{self.running.text}"

    @property
    def why_not_mixed(self) -> str:
        """A part of the reason for which 16 bits are declined; empty: they are offered."""
        subclass = self.making.facts.form == "subclassed"
        return "is not known" if self.running.own_loop and subclass and self.making.is_earlier else self.making.why_not

    def recording(self, weights: int = GIB) -> Recording:
        """Say what is known when the marked line ran out of memory on a card that computes in bfloat16."""
        earlier = (IMPORTS, *self.making.earlier, *self.running.earlier)
        trained = self.running.own_loop
        model = replace(
            self.making.facts,
            optimizer="SGD" if trained else "Adam",
            weight_bytes=weights,
            trainable_bytes=weights,
            optimizer_bytes=0 if trained else 2 * weights,
            device="GPU:0",
            own_step=False,
        )
        line = next(n for n, text in enumerate(self.source.splitlines(), 1) if "# <-" in text)
        values = tuple(NamedValue(n, 300 * MIB, "numpy.ndarray", None, "earlier", (6400, 8), "float32") for n in "xy")
        datasets = (
            *(DatasetFacts(name, "tf.data", 32, 200, samples=6400) for name in ("train_ds", "val_ds")),
            *(DatasetFacts(name, "PyDataset", 32, 200) for name in ("train_gen", "val_gen")),
        )
        facts = Facts(
            "2.21.0",
            "3.15.1",
            True,
            models=(model,),
            datasets=datasets,
            devices=(
                DeviceFacts("GPU:0", compute_capability=(8, 0), total=24 * GIB, others=()),
                DeviceFacts("CPU:0", "CPU"),
            ),
            values=values,
            batches=self.running.batches,
            earlier_cells=earlier,
            functions=tuple(functions_of(earlier, self.source)),
            repeatable=("x", "y"),
        )
        keras = "/site-packages/keras/src/backend/tensorflow/trainer.py"
        method = self.running.batches[0].method if self.running.batches else ""
        inside = (
            Frame(keras, 300, method) if method else Frame("/site-packages/keras/src/layers/layer.py", 900, "__call__")
        )
        frames = (Frame("/tmp/ipykernel_1/9.py", line, "<module>", True, True), inside)
        message = "OOM when allocating tensor with shape[64,1024] and type float on GPU:0 by allocator GPU_0_bfc"
        bases = tuple(f"tensorflow.python.framework.errors_impl.{n}" for n in ("ResourceExhaustedError", "OpError"))
        series = Series("allocator:GPU:0", (0.0, 1.0), (GIB, 5 * GIB), 5 * GIB, "counter", 6 * GIB, "configured")
        error = ErrorText("ResourceExhaustedError", message, frames, bases)
        return Recording(Cell(self.source), 9.0, (series,), "oom", (error,), facts=facts)


def functions_of(earlier: tuple[str, ...], source: str) -> list[FunctionFacts]:
    """List the functions of earlier cells whose names the cell has."""
    found = []
    for number, text in enumerate(earlier):
        for node in ast.parse(text).body:
            if isinstance(node, ast.FunctionDef) and f"{node.name}(" in source:
                lines = text.splitlines()[node.lineno - 1 : node.end_lineno]
                found.append(FunctionFacts(node.name, "\n".join(lines), f"/tmp/ipykernel_1/{number}.py", node.lineno))
    return found


STYLES = tuple(Style(making, running) for making, running in itertools.product(MAKINGS, RUNNINGS))
