"""Cells in the styles of real notebooks, for what must hold of every remedy's edit. ``# <-`` marks the failing line."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class NotebookCell:
    """A cell, the models that it trains, and whether it builds them itself."""

    name: str
    source: str
    new: bool = True
    model: str = "model"
    layers: tuple[str, ...] = ("Dense",)


def cell(name: str, source: str, **more: object) -> NotebookCell:
    return NotebookCell(name, source, **more)  # type: ignore[arg-type]


def old(name: str, source: str, **more: object) -> NotebookCell:
    return NotebookCell(name, source, False, **more)  # type: ignore[arg-type]


_BLOCK = '''class Block(keras.layers.Layer):
    """A block: model.fit(x, y, batch_size=512)."""

    def __init__(self, width=64):
        super().__init__()
        self.inner = keras.layers.Dense(2 * width, "gelu")
        self.outer = keras.layers.Dense(width)

    def call(self, x):  # the residual
        return x + self.outer(self.inner(x))
'''

_TAPES = """optimizer = keras.optimizers.Adam(1e-3)
for model in nets:
    for a, b in tf.data.Dataset.from_tensor_slices((x, y)).batch(64):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(a, training=True) - b) ** 2)
        grads = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(grads, model.trainable_variables))  # <-
"""

CELLS = (
    old("one line", "model.fit(x, y, batch_size=256)  # <-"),
    old("no argument", "history = model.fit(x, y);  # <-"),
    old("no line end", "z = 1\nmodel.fit(x, y, batch_size=64, epochs=2)  # <-"),
    old("semicolons on one line", "epochs = 2; lr = 0.1; model.fit(x, y, batch_size=64, epochs=epochs);  # <-"),
    old("after a text that ends on its line", 'note = """a\nb"""; model.fit(x, y, batch_size=64)  # <-'),
    old("after a call that ends on its line", "print(\n    1,\n); model.fit(x, y, batch_size=64)  # <-"),
    old("after a continuation", "z = 1; \\\nmodel.fit(x, y, batch_size=64)  # <-"),
    old("a continued call", "history = \\\n    model.fit(x, y, \\\n              batch_size=64)  # <-"),
    old("on the line of its if", "if True: model.fit(x, y, batch_size=64)  # <-"),
    old("on the line of its with", "with open('log.txt') as f: model.fit(x, y, batch_size=64)  # <-"),
    old("a with over several lines", "with (\n    open('log.txt') as f,\n): model.fit(x, y, batch_size=64)  # <-"),
    old("tabs", "if True:\n\tfor fold in range(1):\n\t\tmodel.fit(x, y, batch_size=64)  # <-"),
    old("form feed", "z = 1\n\x0c\nmodel.fit(x, y, batch_size=64)  # <-\n"),
    old("form feed on the line", "z = 1\n\x0cmodel.fit(x, y, batch_size=64)  # <-\n"),
    old("strange line ends in a text", "note = 'a\u2028b\x0bc\x1cd'\nmodel.fit(x, y, batch_size=64)  # <-\n"),
    old("a byte order mark", "\ufeffmodel.fit(x, y, batch_size=64)  # <-\n"),
    old("names that are not ASCII", 'größe = "日本語"; 模型 = model\nmodel.fit(x, y, batch_size=64)  # <- größe'),
    old("a model whose name is not ASCII", "modèle.fit(x, y, batch_size=64)  # <-\n", model="modèle"),
    old("a model in a dict", 'models["net"].fit(x, y, batch_size=64)  # <-\n', model="models['net']"),
    old("a model in an attribute", "trainer.model.fit(x, y, batch_size=64)  # <-\n", model="trainer.model"),
    old("an f-string", 'print(f"loss {model.fit(x, y, batch_size=64).history}")  # <-'),
    old("an f-string with ü", 'print(f"größe ü {model.evaluate(x, y, batch_size=64)[1]:.3f}")  # <-'),
    old("an f-string without a batch", 'print(f"accuracy {model.evaluate(x, y)[1]:.3f} of 1")  # <-\n'),
    old("an f-string twice", 'print(f"{model.fit(x, y)}", f"{model.name} {{fit(x, y)}} {model.name}")  # <-'),
    old("a fit in an f-string over lines", 'print(f"""\n{model.fit(x, y, )}\n""",\n)  # <-'),
    old("an f-string over lines", 'print(f"""loss\n{model.fit(x, y, batch_size=64).history}\n""")  # <-'),
    old("an f-string before it", 'print(f"batch {64} of {len(x)!r:>10}"); print(f\'{"a"}\')\nmodel.fit(x, y)  # <-'),
    old("a nested call", "losses.append(model.fit(x, y, batch_size=64).history['loss'][-1])  # <-"),
    old("a tuple", "score, best = model.fit(x, y, batch_size=64), None  # <-"),
    old(
        "brackets and comments",
        "model.fit(  # train\n    x,  # data\n    y,\n    batch_size=64,  # as (before)\n)  # <-",
    ),
    old("brackets around", "(\n    model\n    .fit(x, y, batch_size=64)  # <-\n)"),
    old("a generator expression", "runs = [model.fit(x, y, batch_size=64) for _ in range(2)]  # <-"),
    old("a lambda", "go = lambda: model.fit(x, y, batch_size=64)\ngo()  # <-"),
    old("a decorator", "@timed\ndef train():\n    return model.fit(x, y, batch_size=64)  # <-\n\n\ntrain()"),
    old("async", "async def train():\n    model.fit(x, y, batch_size=64)  # <-\n\nawait train()\n"),
    old("await at the top", "await asyncio.sleep(0)\nmodel.fit(x, y, batch_size=64)  # <-\n"),
    old(
        "try",
        "try:\n    model.fit(x, y, batch_size=64)  # <-\nexcept KeyboardInterrupt:\n    pass\nfinally:\n    z = 1\n",
    ),
    old(
        "folds",
        "for fold, (a, b) in enumerate(folds):\n    # of five\n    model.fit(x[a], y[a], batch_size=64)  # <-\n",
    ),
    old("models in a loop", "for model in nets:\n    model.fit(x, y, batch_size=64)  # <-\n"),
    old("models in a loop on its line", "for model in nets: model.fit(x, y, batch_size=64)  # <-\n"),
    old("models with a tape in a loop", _TAPES),
    old("a model that is loaded on its line", "model = pick(); model.fit(x, y, batch_size=64)  # <-\n"),
    old("a model of a with", "with pick() as model:\n    model.fit(x, y, batch_size=64)  # <-\n"),
    old("a model that is a parameter", "def go(model):\n    model.fit(x, y, batch_size=64)  # <-\n\ngo(net)\n"),
    old("a while loop", "while n < 2:\n    n += 1\n    model.fit(x, y, batch_size=64)  # <-\n"),
    old("match", "match kind:\n    case 1:\n        model.fit(x, y, batch_size=64)  # <-\n    case _:\n        pass\n"),
    old("main", 'def main():\n    model.fit(x, y, batch_size=64)  # <-\n\nif __name__ == "__main__":\n    main()'),
    old("a docstring first", '"""Train.\n\nmodel.fit(x, y, batch_size=512)\n"""; z = 1\nmodel.fit(x, y)  # <-\n'),
    old("a docstring only before it", '"""Train."""\nmodel.fit(x, y, batch_size=64)  # <-\n'),
    old("future import", "from __future__ import annotations\nmodel.fit(x, y, batch_size=64)  # <-\n"),
    old("future import on its line", "from __future__ import annotations; import os\nmodel.fit(x, y)  # <-\n"),
    old("all after a future import", "from __future__ import annotations; model.fit(x, y)  # <-"),
    old("%%time", "%%time\nmodel.fit(x, y, batch_size=64)  # <-"),
    old("%%time and more", "%%time\n\n# train\n%matplotlib inline\nmodel.fit(x, y, batch_size=64)  # <-"),
    old("%time", "z = 1\n%time model.fit(x, y, batch_size=64)  # <-"),
    old("%time in a block", "if True:\n    %time model.fit(x, y, batch_size=64)  # <-"),
    old("%time assigned", "%time history = model.fit(x, y, batch_size=64)  # <-\nprint(history)"),
    old(
        "magics first", "%matplotlib inline\n!pip install -q keras \\\n    numpy\nmodel.fit(x, y, batch_size=64)  # <-"
    ),
    old("shell lines", "files = !ls *.npy\n!echo {len(files)}\nmodel.fit(x, y, batch_size=64)  # <-\n!nvidia-smi"),
    old("help", "model.fit?\nmodel.fit(x, y, batch_size=64)  # <-\n?model\n"),
    old("blank lines first", "\n\n\nmodel.fit(x, y, batch_size=64)  # <-"),
    old("callbacks", "model.fit(x, y, batch_size=64, callbacks=[stop, keras.callbacks.TensorBoard('logs')])  # <-"),
    old("validation", "model.fit(x, y, batch_size=64, validation_data=(v, w), validation_steps=4)  # <-"),
    old("evaluate", "loss, acc = model.evaluate(x, y, batch_size=512)  # <-\n"),
    old("predict", "p = model.predict(x, batch_size=512)  # <-\n"),
    old("a dataset", "model.fit(train_ds, epochs=2)  # <-\n"),
    old("a dataset with its steps", "model.fit(train_ds, epochs=2, steps_per_epoch=100)  # <-\n"),
    old("a config dict", 'args = {"lr": 1e-3, "batch_size": 64}\nmodel.fit(x, y, batch_size=args["batch_size"])  # <-'),
    old(
        "arguments like those of a trainer",
        "args = dict(\n    output_dir='out',\n    per_device_train_batch_size=64,  # per card\n    num_train_epochs=3,\n)\n"
        "model.fit(x, y, batch_size=args['per_device_train_batch_size'], epochs=args['num_train_epochs'])  # <-\n",
    ),
    old(
        "argparse",
        "import argparse\np = argparse.ArgumentParser()\np.add_argument('--batch-size', type=int, default=64)\n"
        "args, _ = p.parse_known_args([])\nmodel.fit(x, y, batch_size=args.batch_size)  # <-\n",
    ),
    old(
        "a dataclass",
        "from dataclasses import dataclass\n\n\n@dataclass\nclass Config:\n    lr: float = 1e-3\n    batch_size: int = 64\n\n\n"
        "cfg = Config()\nmodel.fit(x, y, batch_size=cfg.batch_size)  # <-\n",
    ),
    cell(
        "sequential",
        'import keras\nmodel = keras.Sequential([\n    keras.layers.Dense(64, activation="relu"),  # hidden\n'
        '    keras.layers.Dense(10),\n])\nmodel.compile("adam", "mse")\nmodel.fit(x, y, batch_size=64)  # <-\n',
    ),
    cell(
        "sequential on one line",
        'model = keras.Sequential([keras.layers.Dense(1)]); model.compile("adam", "mse"); model.fit(x, y)  # <-',
    ),
    cell(
        "sequential after a text on its line",
        'note = """\n"""; model = keras.Sequential([keras.layers.Dense(1)])\nmodel.compile("adam", "mse")\nmodel.fit(x, y)  # <-',
    ),
    cell(
        "compile after a text on its line",
        'model = keras.Sequential([keras.layers.Dense(1)])\nnote = """\n"""; model.compile("adam", "mse")\nmodel.fit(x, y)  # <-',
    ),
    cell(
        "add",
        "model = keras.Sequential()\nmodel.add(keras.layers.Dense(64))\nmodel.add(keras.layers.Dense(1))\n"
        "model.compile(optimizer='rmsprop', loss='mse')\nmodel.summary()\nmodel.fit(x, y, batch_size=64)  # <-\n",
    ),
    cell(
        "functional",
        "from keras import layers\ninputs = keras.Input((8,))\nh = layers.Dense(64, 'relu')(inputs)\n"
        "h = layers.Dropout(0.5)(h)\noutputs = layers.Dense(1)(h)\nmodel = keras.Model(inputs, outputs)\n"
        "model.compile(\n    optimizer=keras.optimizers.Adam(\n        learning_rate=1e-3,\n        clipnorm=1.0,\n    ),\n"
        "    loss='mse',\n)\nmodel.fit(x, y, batch_size=64)  # <-\n",
        layers=("Dense", "Dropout"),
    ),
    cell(
        "a comment in the optimizer",
        "model = keras.Sequential([keras.layers.Dense(1)])\nmodel.compile(\n    keras.optimizers.Adam(\n"
        "        1e-3,  # tuned\n        beta_1=0.8,\n    ),\n    'mse',\n)\nmodel.fit(x, y, batch_size=64)  # <-\n",
    ),
    cell(
        "an optimizer by name",
        "opt = tf.keras.optimizers.AdamW(learning_rate=(lr := 3e-4), weight_decay=0.01)\n"
        "model = tf.keras.Sequential([tf.keras.layers.Dense(1)])\nmodel.compile(opt, 'mse')\nprint(lr)\n"
        "model.fit(x, y, batch_size=64)  # <-\n",
    ),
    cell(
        "eager",
        "model = keras.Sequential([keras.layers.Dense(1)])\nmodel.compile('adam', 'mse', run_eagerly=True)\n"
        "model.fit(x, y, batch_size=64)  # <-\n",
    ),
    cell(
        "a builder function",
        "def build_model(width=64):\n    '''Build it.'''\n    model = keras.Sequential([keras.layers.Dense(width), keras.layers.Dense(1)])\n"
        "    model.compile('adam', 'mse')\n    return model\n\nmodel = build_model()\nmodel.fit(x, y, batch_size=64)  # <-\n",
    ),
    cell(
        "subclassed",
        "class Net(keras.Model):\n    def __init__(self):\n        super().__init__()\n        self.d = keras.layers.Dense(1)\n\n"
        "    def call(self, x):\n        return self.d(x)\n\n\nmodel = Net()\nmodel.compile('adam', 'mse')\n"
        "model.fit(x, y, batch_size=64)  # <-\n",
    ),
    cell(
        "blocks",
        f"{_BLOCK}\n\nh = inputs = keras.Input((8, 64))\nfor _ in range(3):\n    h = Block()(h)\n"
        "model = keras.Model(inputs, keras.layers.Dense(1)(h))\nmodel.compile('adam', 'mse')\nmodel.fit(x, y)  # <-\n",
        layers=("Block", "Dense"),
    ),
    cell(
        "blocks after a text on their line",
        'note = """\n"""\n'
        + _BLOCK.replace("    def call", "    def call", 1).replace(
            "        self.outer = keras.layers.Dense(width)\n\n    def",
            '        self.outer = keras.layers.Dense(width)\n\n    note = """\n"""; size = 1\n    def',
        )
        + "h = inputs = keras.Input((8, 64))\nfor _ in range(3): h = Block()(h)\n"
        "model = keras.Model(inputs, h); model.compile('adam', 'mse'); model.fit(x, y)  # <-\n",
        layers=("Block",),
    ),
    cell(
        "function blocks",
        "from tensorflow.keras import layers\n\n\ndef encoder(inputs, width, dropout=0.1):\n"
        "    x = layers.MultiHeadAttention(2, 32, dropout=dropout)(inputs, inputs)\n"
        "    x = layers.LayerNormalization()(x + inputs)\n    y = layers.Dense(width, 'gelu')(x)  # wide\n"
        "    return layers.Dense(inputs.shape[-1])(y) + x\n\n\nx_in = inputs = keras.Input((8, 64))\n"
        "for _ in range(3):\n    x_in = encoder(x_in, 256)\nmodel = keras.Model(inputs, layers.Dense(1)(x_in))\n"
        "model.compile('adam', 'mse')\nmodel.fit(x, y, batch_size=64)  # <-\n",
        layers=("MultiHeadAttention", "LayerNormalization", "Dense"),
    ),
    cell(
        "a strategy",
        "strategy = tf.distribute.MirroredStrategy()\nwith strategy.scope():\n"
        "    model = tf.keras.Sequential([tf.keras.layers.Dense(1)])\n    model.compile('adam', 'mse')\n"
        "model.fit(x, y, batch_size=64 * strategy.num_replicas_in_sync)  # <-\n",
    ),
    old(
        "a loop of one's own",
        "optimizer = keras.optimizers.Adam(1e-3)\nds = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(100).batch(64)\n"
        "for epoch in range(2):\n    for a, b in ds:\n        with tf.GradientTape() as tape:\n"
        "            loss = tf.reduce_mean((model(a, training=True) - b) ** 2)\n"
        "        grads = tape.gradient(loss, model.trainable_variables)\n"
        "        optimizer.apply_gradients(zip(grads, model.trainable_variables))  # <-\n",
    ),
    old(
        "a training step",
        "optimizer = keras.optimizers.Adam()\n\n\ndef train_step(a, b):\n    with tf.GradientTape() as tape:\n"
        "        loss = tf.reduce_mean((model(a, training=True) - b) ** 2)\n"
        "    grads = tape.gradient(loss, model.trainable_variables)\n"
        "    optimizer.apply_gradients(zip(grads, model.trainable_variables))\n    return loss\n\n\n"
        "for a, b in tf.data.Dataset.from_tensor_slices((x, y)).batch(64):\n    train_step(a, b)  # <-\n",
    ),
    old(
        "a training step after a text on its line",
        'optimizer = keras.optimizers.Adam()\nnote = """\n"""\n# the step\ndef train_step(a, b):\n'
        "    with tf.GradientTape() as tape: loss = tf.reduce_mean((model(a) - b) ** 2)\n"
        "    grads = tape.gradient(loss, model.trainable_variables); "
        "optimizer.apply_gradients(zip(grads, model.trainable_variables))\n"
        "z = 1; ds = tf.data.Dataset.from_tensor_slices((x, y)).batch(64)\n"
        "for a, b in ds: train_step(a, b)  # <-\n",
    ),
    old(
        "GAN",
        "BATCH_SIZE = 64\nnoise_dim = 100\nds = tf.data.Dataset.from_tensor_slices(x).shuffle(100).batch(BATCH_SIZE)\n\n\n"
        "@tf.function\ndef train_step(images):\n    noise = tf.random.normal([BATCH_SIZE, noise_dim])\n"
        "    with tf.GradientTape() as gen_tape, tf.GradientTape() as disc_tape:\n"
        "        fake = generator(noise, training=True)\n        loss = gan_loss(model(images), model(fake))\n"
        "    g = gen_tape.gradient(loss, generator.trainable_variables)\n"
        "    d = disc_tape.gradient(loss, model.trainable_variables)\n"
        "    g_opt.apply_gradients(zip(g, generator.trainable_variables))\n"
        "    d_opt.apply_gradients(zip(d, model.trainable_variables))\n\n\n"
        "def train(dataset, epochs):\n    for epoch in range(epochs):\n        for image_batch in dataset:\n"
        "            train_step(image_batch)  # <-\n\n\ntrain(ds, 2)\n",
    ),
    old(
        "tf.data",
        "AUTOTUNE = tf.data.AUTOTUNE\nds = (\n    tf.data.Dataset.from_tensor_slices((x, y))\n    .cache()  # in memory\n"
        "    .shuffle(1000)\n    .batch(64)  # .batch(128)\n    .prefetch(1000)\n)\nmodel.fit(ds, epochs=2)  # <-\n",
    ),
    old("arrays from files", 'x = np.load("x.npy"); y = np.load("y.npy")\nmodel.fit(x, y, batch_size=64)  # <-\n'),
    old("arrays, keywords", "model.fit(x=x, y=y, batch_size=64, shuffle=False, epochs=3)  # <-\n"),
    old(
        "arrays, continued",
        "model.fit(x, \\\n          y, \\\n          batch_size=64, \\\n          epochs=2)  # <-\n",
    ),
    cell(
        "a new model for each fold",
        "scores = []\nfor fold in range(3):  # one after the other\n    # a new one\n"
        "    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4), keras.layers.Dense(1)])\n"
        '    model.compile("adam", "mse")\n    history = model.fit(x, y, batch_size=64, verbose=0)  # <-\n'
        '    scores.append(history.history["loss"][-1])\n',
    ),
    cell(
        "a grid, with a magic and a text over lines",
        'note = """\nfor each\n"""\n%precision 3\nwith tf.device("CPU:0"):\n    for units in (4, 8):\n'
        "        for rate in 1e-2, \\\n                1e-3:\n            # build\n"
        "            model = keras.Sequential(\n                [keras.Input((8,)), keras.layers.Dense(units)])\n"
        "            model.compile(keras.optimizers.Adam(rate), 'mse')\n"
        "            model.fit(x, y, batch_size=64, verbose=0)  # <-\n            print(rate)\n",
    ),
    cell(
        "one model after the other",
        "model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)]); model.compile('adam', 'mse')\n"
        "model.fit(x, y, batch_size=64)\n"
        "model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(2)])\n"
        "model.compile('adam', 'mse')\nmodel.fit(x, y, batch_size=64)  # <-\n",
    ),
    cell(
        "folds in a function",
        "def cross_validate(folds):\n\tfor fold in range(folds):\n\t\tif fold == 0:\n\t\t\tunits = 4\n"
        "\t\tmodel = keras.Sequential([keras.Input((8,)), keras.layers.Dense(units)])\n"
        "\t\tmodel.compile('adam', 'mse')\n\t\tmodel.fit(x, y, batch_size=64)  # <-\n\ncross_validate(3)\n",
    ),
    old("arrays, a batch that is named", "model.fit(x, y, batch_size=(batch := 64))\nprint(batch)  # <-\n"),
)
