"""Cells as people write them, for the tests of the batch size: the cell, the failing line's mark, and the promise.

Each cell is run with stand-ins that note the batch sizes really used. ``# <-`` marks the line that ran out of memory.
``batch`` is what the run after the edit must show on that line (None: the remedy must decline); ``given`` are facts
and names of earlier cells.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class CellCase:
    name: str
    source: str
    batch: int | None
    given: dict = field(default_factory=dict)
    before: int | None = None
    reason: str = ""


def case(name, batch, source, reason="", before=None, **given):
    return CellCase(name, source, batch, given, before, reason)


CASES = [
    # Keras fit, the number in the call
    case("keyword", 128, "model.fit(x, y, batch_size=256, epochs=2)  # <-"),
    case("keyword first", 128, "model.fit(batch_size=256, x=x, y=y)  # <-"),
    case("third positional", 64, "model.fit(x, y, 128)  # <-"),
    case("several lines", 50, "model.fit(\n    x, y,\n    epochs=3,\n    batch_size=100,  # as in the paper\n)  # <-"),
    case("hexadecimal", 32, "model.fit(x, y, batch_size=0x40)  # <-"),
    case("underscore", 32000, "model.fit(x, y, batch_size=64_000)  # <-"),
    case("odd", 12, "model.fit(x, y, batch_size=25)  # <-"),
    case("arithmetic in the call", 64, "model.fit(x, y, batch_size=2**7)  # <-"),
    case("shift", 128, "model.fit(x, y, batch_size=1 << 8)  # <-"),
    case("int of a float", 32, "model.fit(x, y, batch_size=int(6.4e1))  # <-"),
    case("in brackets", 32, "model.fit(x, y, batch_size=(64))  # <-"),
    case("double minus", 32, "model.fit(x, y, batch_size=-(-64))  # <-"),
    case("history kept", 32, "history = model.fit(x, y, epochs=2, batch_size=64, verbose=0);  # <-"),
    case("non-ASCII before it", 32, 'naïve = "日本語"; model.fit(x, y, batch_size=64)  # <-'),
    case("tabs", 32, "if True:\n\tmodel.fit(x, y, batch_size=64)  # <-"),
    case("Windows line ends", 32, "z = 1\r\nmodel.fit(x, y,\r\n    batch_size=64)  # <-\r\n"),
    case("inside with", 32, "with strategy.scope():\n    model.fit(x, y, batch_size=64)  # <-"),
    case("inside a loop over folds", 32, "for fold in range(2):\n    model.fit(x, y, batch_size=64)  # <-"),
    # The default of 32
    case("default", 16, "model.fit(x, y)  # <-"),
    case("default, trailing comma", 16, "model.fit(\n    x,\n    y,  # labels\n)  # <-"),
    case("default, bracketed last argument", 16, "model.fit(x, (y))  # <-"),
    case("default, keywords", 16, "model.fit(x=x, y=y, epochs=2, verbose=0)  # <-"),
    case("default, validation split", 16, "model.fit(x, y, validation_split=0.2)  # <-"),
    case("default of evaluate", 16, "model.fit(x, y, batch_size=64)\nmodel.evaluate(x, y)  # <-"),
    case("default of predict", 16, "pred = model.predict(x)  # <-", arrays=("x",)),
    # Constants
    case("constant", 32, "BATCH_SIZE = 64\nmodel.fit(x, y, batch_size=BATCH_SIZE)  # <-"),
    case(
        "constant with a form",
        32,
        'batch_size = 64 #@param {type:"integer"}\nmodel.fit(x, y, batch_size=batch_size)  # <-',
    ),
    case("constant arithmetic", 64, "bs = 2**7\nmodel.fit(x, y, batch_size=bs)  # <-"),
    case("annotated", 32, "batch: int = 64\nmodel.fit(x, y, batch_size=batch)  # <-"),
    case("tuple assignment", 32, "EPOCHS, BATCH = 3, 64\nmodel.fit(x, y, batch_size=BATCH, epochs=EPOCHS)  # <-"),
    case("list assignment", 32, "[EPOCHS, BATCH] = [3, 64]\nmodel.fit(x, y, batch_size=BATCH)  # <-"),
    case("alias", 32, "BATCH = 64\nbs = BATCH\nmodel.fit(x, y, batch_size=bs)  # <-"),
    case("walrus", 32, "model.fit(x, y, batch_size=(bs := 64))  # <-"),
    case("walrus before", 32, "print(bs := 64)\nmodel.fit(x, y, batch_size=bs)  # <-"),
    case("several on one line", 32, "epochs = 2; bs = 64; lr = 0.1\nmodel.fit(x, y, batch_size=bs)  # <-"),
    case("set twice in a row", 32, "bs = 16\nbs = 64\nmodel.fit(x, y, batch_size=bs)  # <-"),
    case(
        "two fits, one name set twice",
        64,
        "bs = 16\nmodel.fit(x, y, batch_size=bs)\nbs = 128\nmodel.fit(x, y, batch_size=bs)  # <-",
    ),
    case("two fits, second fails", 8, "model.fit(x, y, batch_size=64)\nmodel.fit(x, y, batch_size=16)  # <-"),
    case("two fits, first fails", 32, "model.fit(x, y, batch_size=64)  # <-\nmodel.fit(x, y, batch_size=16)"),
    case(
        "the word in a comment and a string",
        32,
        '# batch_size=512\ns = "batch_size=512"\nmodel.fit(x, y, batch_size=64)  # <-',
    ),
    case(
        "constant in an f-string too",
        32,
        'BATCH = 64\nprint(f"batch {BATCH}")\nmodel.fit(x, y, batch_size=BATCH)  # <-',
    ),
    case("shared with another meaning", 32, "N = 64\nlatent_dim = N\nmodel.fit(x, y, batch_size=N)  # <-"),
    case(
        "batch name reused for the model",
        32,
        "BATCH = 64\nlayer = Dense(BATCH)\nmodel.fit(x, y, batch_size=BATCH)  # <-",
    ),
    case("chained assignment", 32, "a = b = 64\nmodel.fit(x, y, batch_size=a)  # <-"),
    case("chained, other is a unit count", 32, "a = b = 64\nlayer = Dense(b)\nmodel.fit(x, y, batch_size=a)  # <-"),
    case("earlier constant", 32, "model.fit(x, y, batch_size=BATCH)  # <-", scalars={"BATCH": 64}),
    case(
        "earlier constant in a loop",
        32,
        "for k in range(2):\n    model.fit(x, y, batch_size=BATCH)  # <-",
        scalars={"BATCH": 64},
    ),
    case(
        "earlier constant, steps too",
        32,
        "spe = 6400 // BATCH\nmodel.fit(x, y, batch_size=BATCH)  # <-",
        scalars={"BATCH": 64},
    ),
    case(
        "earlier constant, several statements in a line",
        32,
        "k = 1; model.fit(x, y, batch_size=BATCH)  # <-",
        scalars={"BATCH": 64},
    ),
    case(
        "earlier constant after magics",
        32,
        "%matplotlib inline\n!ls\nmodel.fit(x, y, batch_size=BATCH)  # <-",
        scalars={"BATCH": 64},
    ),
    case("under %%time", 32, "%%time\nmodel.fit(x, y, batch_size=64)  # <-"),
    case("under %time", 32, "%time model.fit(x, y, batch_size=64)  # <-"),
    # Functions
    case("main", 32, "def main():\n    batch_size = 64\n    model.fit(x, y, batch_size=batch_size)  # <-\nmain()"),
    case("parameter", 32, "def train(bs):\n    model.fit(x, y, batch_size=bs)  # <-\ntrain(64)"),
    case(
        "parameter by keyword",
        32,
        "def train(model, bs=16):\n    model.fit(x, y, batch_size=bs)  # <-\ntrain(model, bs=64)",
    ),
    case("parameter default", 8, "def train(model, bs=16):\n    model.fit(x, y, batch_size=bs)  # <-\ntrain(model)"),
    case("keyword-only default", 8, "def train(*, bs=16):\n    model.fit(x, y, batch_size=bs)  # <-\ntrain()"),
    case(
        "default from a constant",
        32,
        "BATCH = 64\ndef train(bs=BATCH):\n    model.fit(x, y, batch_size=bs)  # <-\ntrain()",
    ),
    case(
        "global read in a function",
        32,
        "BATCH = 64\ndef train():\n    model.fit(x, y, batch_size=BATCH)  # <-\ntrain()",
    ),
    case(
        "shadowed in a function",
        8,
        "batch_size = 64\ndef train():\n    batch_size = 16\n    model.fit(x, y, batch_size=batch_size)  # <-\ntrain()",
    ),
    case(
        "nested functions",
        32,
        "def outer(bs=64):\n    def inner():\n        model.fit(x, y, batch_size=bs)  # <-\n    inner()\nouter()",
    ),
    case(
        "decorated",
        32,
        "def timed(f):\n    return f\n@timed\ndef train(bs):\n    model.fit(x, y, batch_size=bs)  # <-\ntrain(64)",
    ),
    case("method", 32, "class T:\n    def run(self, bs):\n        model.fit(x, y, batch_size=bs)  # <-\nT().run(64)"),
    case(
        "self",
        32,
        "class T:\n    def __init__(self, batch_size=64):\n        self.batch_size = batch_size\n    def run(self):\n        model.fit(x, y, batch_size=self.batch_size)  # <-\nT().run()",
    ),
    # Configs
    case("dict", 32, 'cfg = {"batch_size": 64, "lr": 0.1}\nmodel.fit(x, y, batch_size=cfg["batch_size"])  # <-'),
    case("dict, other quotes", 32, "cfg = {'batch_size': 64}\nmodel.fit(x, y, batch_size=cfg[\"batch_size\"])  # <-"),
    case("dict get", 32, 'cfg = {"batch_size": 64}\nmodel.fit(x, y, batch_size=cfg.get("batch_size", 8))  # <-'),
    case("dict()", 32, "cfg = dict(batch_size=64, lr=0.1)\nmodel.fit(x, y, batch_size=cfg['batch_size'])  # <-"),
    case(
        "dict set later",
        32,
        "cfg = {'batch_size': 8}\ncfg['batch_size'] = 64\nmodel.fit(x, y, batch_size=cfg['batch_size'])  # <-",
    ),
    case(
        "nested dict",
        32,
        "cfg = {'train': {'batch_size': 64}}\nmodel.fit(x, y, batch_size=cfg['train']['batch_size'])  # <-",
    ),
    case("double star dict", 32, "fit_args = {'batch_size': 64, 'epochs': 2}\nmodel.fit(x, y, **fit_args)  # <-"),
    case("double star dict()", 32, "fit_args = dict(batch_size=64)\nmodel.fit(x, y, **fit_args)  # <-"),
    case("double star without it", 16, "fit_args = dict(epochs=2)\nmodel.fit(x, y, **fit_args)  # <-"),
    case("earlier dict", 32, "model.fit(x, y, batch_size=cfg['batch_size'])  # <-", scalars={"cfg['batch_size']": 64}),
    case(
        "earlier config object", 32, "model.fit(x, y, batch_size=cfg.batch_size)  # <-", scalars={"cfg.batch_size": 64}
    ),
    case(
        "Kaggle CFG class",
        32,
        "class CFG:\n    epochs = 3\n    batch_size = 64\nmodel.fit(x, y, batch_size=CFG.batch_size)  # <-",
    ),
    case(
        "CFG instance",
        32,
        "class CFG:\n    batch_size = 64\ncfg = CFG()\nmodel.fit(x, y, batch_size=cfg.batch_size)  # <-",
    ),
    case(
        "SimpleNamespace",
        32,
        "from types import SimpleNamespace\ncfg = SimpleNamespace(batch_size=64)\nmodel.fit(x, y, batch_size=cfg.batch_size)  # <-",
    ),
    case(
        "dataclass",
        32,
        "from dataclasses import dataclass\n@dataclass\nclass C:\n    lr: float = 0.1\n    batch_size: int = 64\nc = C()\nmodel.fit(x, y, batch_size=c.batch_size)  # <-",
    ),
    case(
        "dataclass, given",
        16,
        "from dataclasses import dataclass\n@dataclass\nclass C:\n    lr: float = 0.1\n    batch_size: int = 64\nc = C(batch_size=32)\nmodel.fit(x, y, batch_size=c.batch_size)  # <-",
    ),
    case(
        "dataclass, positional",
        16,
        "from dataclasses import dataclass\n@dataclass\nclass C:\n    lr: float = 0.1\n    batch_size: int = 64\nc = C(0.2, 32)\nmodel.fit(x, y, batch_size=c.batch_size)  # <-",
    ),
    case(
        "argparse",
        32,
        "import argparse\np = argparse.ArgumentParser()\np.add_argument('--batch-size', '-b', type=int, default=64)\nargs = p.parse_args([])\nmodel.fit(x, y, batch_size=args.batch_size)  # <-",
    ),
    case(
        "argparse, known",
        32,
        "import argparse\np = argparse.ArgumentParser()\np.add_argument('--batch_size', type=int, default=64)\nargs, _ = p.parse_known_args([])\nmodel.fit(x, y, batch_size=args.batch_size)  # <-",
    ),
    case(
        "replicas",
        64,
        "PER = 64\nBATCH = PER * strategy.num_replicas_in_sync\nmodel.fit(x, y, batch_size=BATCH)  # <-",
        before=128,
    ),
    # tf.data
    case("batch", 32, "ds = Dataset(x).shuffle(100).batch(64).prefetch(2)\nmodel.fit(ds)  # <-"),
    case(
        "batch keyword", 32, "ds = Dataset(x).batch(batch_size=64, drop_remainder=True)\nmodel.fit(ds, epochs=2)  # <-"
    ),
    case("batch constant", 32, "BATCH_SIZE = 64\nds = Dataset(x).cache().batch(BATCH_SIZE)\nmodel.fit(ds)  # <-"),
    case(
        "batch in steps",
        32,
        "ds = Dataset(x)\nds = ds.shuffle(10)\nds = ds.batch(64)\nds = ds.prefetch(1)\nmodel.fit(ds)  # <-",
    ),
    case(
        "many lines",
        32,
        "ds = (\n    Dataset(x)\n    .map(f)\n    .batch(64)  # big\n    .prefetch(1)\n)\nmodel.fit(ds)  # <-",
    ),
    case("padded_batch", 32, "ds = Dataset(x).padded_batch(64)\nmodel.fit(ds)  # <-"),
    case("rebatch", 32, "ds = Dataset(x).batch(8).rebatch(64)\nmodel.fit(ds)  # <-"),
    case(
        "training and validation",
        32,
        "train = Dataset(x).batch(64)\nval = Dataset(x).batch(128)\nmodel.fit(train, validation_data=val)  # <-",
    ),
    case(
        "test data stay",
        32,
        "BATCH = 64\ntrain = Dataset(x).batch(BATCH)\ntest = Dataset(x).batch(16)\nmodel.fit(train)  # <-\nmodel.evaluate(test)",
    ),
    case(
        "dataset function",
        32,
        "def make(x, bs):\n    return Dataset(x).batch(bs).prefetch(1)\nmodel.fit(make(x, 64))  # <-",
    ),
    case(
        "dataset function, two callers",
        32,
        "def make(x, bs=64):\n    ds = Dataset(x)\n    return ds.batch(bs)\ntrain = make(x)\nval = make(x, 16)\nmodel.fit(train, validation_data=val)  # <-",
    ),
    case("batch_size beside a dataset is ignored", 32, "ds = Dataset(x).batch(64)\nmodel.fit(ds, batch_size=8)  # <-"),
    case("earlier dataset", 32, "model.fit(train_ds)  # <-", datasets={"train_ds": 64}),
    case("earlier dataset, chained", 32, "model.fit(train_ds.prefetch(2), epochs=2)  # <-", datasets={"train_ds": 64}),
    case(
        "earlier datasets",
        32,
        "model.fit(train_ds, validation_data=val_ds)  # <-",
        datasets={"train_ds": 64, "val_ds": 64},
    ),
    case(
        "image folder",
        16,
        "ds = keras.utils.image_dataset_from_directory('d', image_size=(64, 64))\nmodel.fit(ds)  # <-",
    ),
    case("image folder, given", 32, "ds = image_dataset_from_directory('d', batch_size=64)\nmodel.fit(ds)  # <-"),
    case(
        "time series",
        64,
        "ds = keras.utils.timeseries_dataset_from_array(x, y, sequence_length=10)\nmodel.fit(ds)  # <-",
    ),
    case(
        "generator flow",
        32,
        "gen = datagen.flow(x, y, batch_size=64)\nmodel.fit(gen, steps_per_epoch=len(x) // 64)  # <-",
    ),
    case("flow_from_directory", 16, "gen = datagen.flow_from_directory('d', target_size=(8, 8))\nmodel.fit(gen)  # <-"),
    case(
        "sequence",
        32,
        "class Gen(PyDataset):\n    def __init__(self, x, batch_size=64, **kw):\n        super().__init__(**kw)\n        self.x, self.batch_size = x, batch_size\ngen = Gen(x)\nmodel.fit(gen)  # <-",
    ),
    case(
        "sequence, given",
        16,
        "class Gen(PyDataset):\n    def __init__(self, x, batch_size=64):\n        super(Gen, self).__init__()\n        self.batch_size = batch_size\ngen = Gen(x, 32)\nmodel.fit(gen)  # <-",
    ),
    case("earlier sequence class", 16, "gen = MyGen(x, batch_size=32)\nmodel.fit(gen)  # <-"),
    # Loops
    case(
        "loop over a dataset",
        32,
        "ds = Dataset(x).batch(64)\nfor epoch in range(2):\n    for xb in ds:\n        step(xb)  # <-",
    ),
    case("loop with enumerate", 32, "ds = Dataset(x).batch(64)\nfor i, xb in enumerate(ds):\n    step(xb)  # <-"),
    case("loop over an earlier dataset", 32, "for xb in train_ds:\n    step(xb)  # <-", datasets={"train_ds": 64}),
    case("slices", 32, "bs = 64\nfor i in range(0, len(x), bs):\n    step(x[i:i + bs])  # <-"),
    case("slices with numbers", 32, "for i in range(0, len(x), 64):\n    step(x[i:i + 64])  # <-"),
    case(
        "slices of a count",
        32,
        "batch_size = 64\nfor k in range(len(x) // batch_size):\n    step(x[k * batch_size:(k + 1) * batch_size])  # <-",
    ),
    case(
        "slices by names",
        32,
        "BATCH = 64\nfor k in range(len(x) // BATCH):\n    start = k * BATCH\n    end = start + BATCH\n    step(x[start:end])  # <-",
    ),
    case(
        "train_on_batch",
        32,
        "batch_size = 64\nfor k in range(2):\n    idx = np.random.randint(0, len(x), batch_size)\n    model.train_on_batch(x[idx], y[idx])  # <-",
    ),
    case(
        "GAN",
        32,
        "BATCH_SIZE = 64\nnoise_dim = 100\nds = Dataset(x).shuffle(100).batch(BATCH_SIZE)\ndef train_step(images):\n    noise = np.random.normal(0, 1, (BATCH_SIZE, noise_dim))\n    step(images)  # <-\ndef train(dataset, epochs):\n    for epoch in range(epochs):\n        for image_batch in dataset:\n            train_step(image_batch)\ntrain(ds, 2)",
    ),
    case(
        "train function",
        32,
        "def train(x, epochs=1, batch_size=64):\n    noise = np.zeros((batch_size, 1))\n    for e in range(epochs):\n        idx = np.random.randint(0, len(x), batch_size)\n        step(x[idx])  # <-\ntrain(x, epochs=2)",
    ),
    case(
        "tf.function in a loop",
        32,
        "@function\ndef train_step(xb):\n    step(xb)  # <-\nds = Dataset(x).batch(64)\nfor xb in ds:\n    train_step(xb)",
    ),
    # Declines
    case("computed by a call", None, "model.fit(x, y, batch_size=pick(len(x)))  # <-", "computed"),
    case("computed from len", None, "bs = len(x) // 10\nmodel.fit(x, y, batch_size=bs)  # <-", "computed"),
    case("conditional expression", None, "bs = 64 if gpu else 16\nmodel.fit(x, y, batch_size=bs)  # <-", "computed"),
    case(
        "if and else",
        None,
        "if gpu:\n    bs = 64\nelse:\n    bs = 16\nmodel.fit(x, y, batch_size=bs)  # <-",
        "condition",
    ),
    case(
        "changed under a condition",
        None,
        "bs = 64\nif gpu:\n    bs = 16\nmodel.fit(x, y, batch_size=bs)  # <-",
        "condition",
    ),
    case("augmented", None, "bs = 64\nbs *= 2\nmodel.fit(x, y, batch_size=bs)  # <-"),
    case(
        "in a loop over sizes", None, "for bs in [16, 64]:\n    model.fit(x, y, batch_size=bs)  # <-", "several values"
    ),
    case("comprehension", None, "[model.fit(x, y, batch_size=b) for b in (16, 64)]  # <-", "several values"),
    case("star arguments", None, "model.fit(*data, batch_size=64)  # <-", "cannot be followed"),
    case("double star from elsewhere", None, "model.fit(x, y, **kw)  # <-", "cannot be followed"),
    case("double star updated", None, "kw = dict(batch_size=64)\nkw.update(batch_size=8)\nmodel.fit(x, y, **kw)  # <-"),
    case("deleted", None, "bs = 64\ndel bs\nmodel.fit(x, y, batch_size=bs)  # <-"),
    case(
        "global changed in a function",
        None,
        "bs = 64\ndef f():\n    global bs\n    bs = 16\nf()\nmodel.fit(x, y, batch_size=bs)  # <-",
    ),
    case(
        "also a model size, with steps",
        None,
        "N = 64\nlayer = Dense(N)\nsteps = 640 // N\nmodel.fit(x, y, batch_size=N)  # <-",
        "something else",
    ),
    case("parameter from elsewhere", None, "def train(bs):\n    model.fit(x, y, batch_size=bs)  # <-\nrun(train)"),
    case(
        "parameter replaced when None",
        None,
        "def train(bs=None):\n    if bs is None:\n        bs = 64\n    model.fit(x, y, batch_size=bs)  # <-\ntrain()",
    ),
    case("dataset without a batch", None, "ds = Dataset(x).map(f)\nmodel.fit(ds)  # <-"),
    case("batched twice", None, "ds = Dataset(x).batch(2).map(f).batch(32)\nmodel.fit(ds)  # <-", "twice"),
    case(
        "bucketed",
        None,
        "ds = Dataset(x).bucket_by_sequence_length(f, [1], [64, 32])\nmodel.fit(ds)  # <-",
        "decides the batches",
    ),
    case("one", None, "model.fit(x, y, batch_size=1)  # <-", "already 1"),
    case("sklearn", None, "from sklearn.svm import SVC\nclf = SVC()\nclf.fit(x, y)  # <-", "no Keras"),
    case("scaler beside models", None, "scaler.fit(x, y)  # <-", "no Keras", models=("model",)),
    case("full batch", None, "for e in range(3):\n    step(x)  # <-"),
    case("float", None, "model.fit(x, y, batch_size=64.0)  # <-", "no whole number"),
    case("single argument, unknown", None, "model.fit(data)  # <-", "not known"),
    case("earlier generator", None, "model.fit(gen)  # <-", "earlier cell", generators={"gen": 64}),
    case("unknown earlier name", None, "model.fit(x, y, batch_size=BATCH)  # <-", "not known"),
    case("bash", None, "%%bash\nls  # <-", "%%bash"),
    case("HTML", None, "%%html\n<b>x</b>  # <-", "%%html"),
    case("syntax error", None, "model.fit(x, y, batch_size=64  # <-", "cannot be read"),
    case(
        "random slices of different size",
        None,
        "for i in range(0, len(x), 64):\n    step(x[i:i + 32])  # <-",
        "several",
    ),
    case(
        "argparse with arguments",
        None,
        "import argparse\np = argparse.ArgumentParser()\np.add_argument('--batch-size', type=int, default=64)\nargs = p.parse_args(['--batch-size', '8'])\nmodel.fit(x, y, batch_size=args.batch_size)  # <-",
        "given",
    ),
    case(
        "earlier name also a layer size",
        None,
        "layer = Dense(BATCH)\nsteps = 640 // BATCH\nmodel.fit(x, y, batch_size=BATCH)  # <-",
        "something else",
        scalars={"BATCH": 64},
    ),
    # Traps found while trying to break it
    case(
        "stateful, shared constant",
        32,
        "BATCH = 64\nlayer = LSTM(10, batch_input_shape=(BATCH, 5, 1), stateful=True)\nmodel.fit(x, y, batch_size=BATCH)  # <-",
    ),
    case(
        "stateful, number twice",
        None,
        "layer = LSTM(10, batch_input_shape=(64, 5, 1))\nmodel.fit(x, y, batch_size=64)  # <-",
        "one batch size only",
    ),
    case(
        "input with a batch size",
        None,
        "inp = keras.Input((5,), batch_size=64)\nmodel.fit(x, y, batch_size=64)  # <-",
        "one batch size only",
    ),
    case(
        "earlier stateful model",
        None,
        "model.fit(x, y, batch_size=64)  # <-",
        "one batch size only",
        cells=("model = M(batch_input_shape=(64, 5))",),
    ),
    case(
        "handed to a model builder",
        None,
        "BATCH = 64\nnet = build(BATCH)\nmodel.fit(x, y, batch_size=BATCH)  # <-",
        "something else",
    ),
    case(
        "hidden size from the batch",
        32,
        "batch_size = 64\nhidden = batch_size * 2\nmodel.fit(x, y, batch_size=batch_size)  # <-",
    ),
    case(
        "learning rate from the batch",
        32,
        "batch_size = 64\nlr = 1e-3 * batch_size / 256\nmodel.fit(x, y, batch_size=batch_size)  # <-",
    ),
    case(
        "shuffle buffer from the batch",
        32,
        "B = 64\nBUFFER = B * 10\nds = Dataset(x).shuffle(BUFFER).batch(B)\nmodel.fit(ds)  # <-",
    ),
    case(
        "generator over a constant",
        32,
        "BATCH = 64\ndef gen():\n    while True:\n        i = np.random.randint(0, 10, BATCH)\n        yield x[i], y[i]\nmodel.fit(gen(), steps_per_epoch=len(x) // BATCH)  # <-",
    ),
    case(
        "generator with a parameter",
        32,
        "def gen(x, batch_size):\n    while True:\n        yield x[:batch_size], None\nmodel.fit(gen(x, 64), steps_per_epoch=100)  # <-",
    ),
    case(
        "own class with its own fit",
        None,
        "class T:\n    def fit(self, a, b, n):\n        step(a)  # <-\nT().fit(x, y, 64)",
    ),
    case(
        "star import after it",
        None,
        "BATCH = 64\nfrom settings import *\nmodel.fit(x, y, batch_size=BATCH)  # <-",
        "import in line 2",
    ),
    case(
        "set again later in the loop",
        None,
        "bs = 64\nfor e in range(3):\n    model.fit(x, y, batch_size=bs)  # <-\n    bs = 32",
    ),
    case("retried with half", None, "bs = 64\nwhile True:\n    model.fit(x, y, batch_size=bs)  # <-\n    bs //= 2"),
    case(
        "changed through another name",
        None,
        "cfg = {'batch_size': 64}\nother = cfg\nother['batch_size'] = 16\nmodel.fit(x, y, batch_size=cfg['batch_size'])  # <-",
        "line 3",
    ),
    case(
        "dict with more stars",
        None,
        "cfg = {'batch_size': 64, **extra}\nmodel.fit(x, y, batch_size=cfg['batch_size'])  # <-",
    ),
    case(
        "two calls on one line",
        None,
        "a = model.fit(x, y, batch_size=64); b = model.fit(x, y, batch_size=16)  # <-",
        "more than once",
    ),
    case("smallest of two", None, "model.fit(x, y, batch_size=min(64, len(x)))  # <-", "computed"),
    case("None", 16, "model.fit(x, y, batch_size=None)  # <-"),
    case("match", None, "match k:\n    case 1:\n        bs = 64\nmodel.fit(x, y, batch_size=bs)  # <-"),
    case("lambda", None, "go = lambda bs: model.fit(x, y, batch_size=bs)  # <-\ngo(64)"),
    case("building the model failed", None, "layer = Dense(10**9)  # <-\nmodel.fit(x, y, batch_size=64)"),
    case("a builder that takes a batch size", None, "net = build_model(batch_size=64)  # <-"),
    case(
        "earlier dataset and its constant in the loss",
        32,
        "for xb in train_ds:\n    step(xb, 1 / BATCH_SIZE)  # <-",
        datasets={"train_ds": 64},
        scalars={"BATCH_SIZE": 64},
    ),
    case(
        "earlier dataset and a function with its constant",
        None,
        "for xb in train_ds:\n    train_step(xb)  # <-",
        "earlier cell",
        datasets={"train_ds": 64},
        cells=("def train_step(x):\n    return normal([BATCH_SIZE, 100])",),
        used=("BATCH_SIZE",),
    ),
    case(
        "earlier dataset and a function with its constant that the cell does not reach",
        32,
        "for xb in train_ds:\n    step(xb)  # <-",
        datasets={"train_ds": 64},
        cells=("def other(x):\n    return normal([BATCH_SIZE, 100])",),
    ),
    case(
        "earlier dataset and a constant that is not its batch size",
        None,
        "for xb in train_ds:\n    loss = step(xb) / BATCH_SIZE  # <-",
        "counts on batches",
        datasets={"train_ds": 64},
        scalars={"BATCH_SIZE": 128},
    ),
    case("exec", None, "exec(code)\nmodel.fit(x, y, batch_size=64)  # <-", "exec"),
    case("unknown object", None, "pipe.fit(x, y)  # <-", "Keras model", models=()),
    case(
        "class body uses it",
        32,
        "class CFG:\n    batch_size = 64\n    units = batch_size\nmodel.fit(x, y, batch_size=CFG.batch_size)  # <-",
    ),
    case(
        "own method uses it",
        32,
        "class CFG:\n    batch_size = 64\n    def net(self):\n        return Dense(self.batch_size)\nmodel.fit(x, y, batch_size=CFG.batch_size)  # <-",
    ),
    case(
        "wrapped again under its name",
        32,
        "train_ds = train_ds.cache().prefetch(2)\nmodel.fit(train_ds)  # <-",
        datasets={"train_ds": 64},
    ),
    case(
        "shuffled under a condition",
        32,
        "def prepare(ds, shuffle=False):\n    ds = ds.map(f)\n    if shuffle:\n        ds = ds.shuffle(10)\n    ds = ds.batch(batch_size)\n    return ds.prefetch(1)\nbatch_size = 64\ntrain = prepare(Dataset(x), True)\nmodel.fit(train)  # <-",
    ),
    case(
        "made in several ways, but known",
        32,
        "def prepare(ds, train):\n    if train:\n        return ds.batch(64)\n    return ds.batch(16)\ntrain_ds = prepare(Dataset(x), True)\nmodel.fit(train_ds)  # <-",
        datasets={"train_ds": 64},
    ),
    case(
        "generator class with double star",
        32,
        "params = {'batch_size': 64}\ngen = MyGen(x, **params)\nmodel.fit(gen)  # <-",
    ),
    case(
        "own generator class with double star",
        32,
        "class Gen(PyDataset):\n    def __init__(self, x, batch_size=8):\n        self.batch_size = batch_size\nparams = {'batch_size': 64}\ngen = Gen(x, **params)\nmodel.fit(gen)  # <-",
    ),
    case(
        "two callers, the stack tells which",
        32,
        "def train(bs):\n    model.fit(x, y, batch_size=bs)  # <-\nfor k in range(1):\n    train(64)\nprint('x')",
    ),
    case(
        "noise beside a known dataset",
        32,
        "BATCH = 64\nfor xb in train_ds:\n    step(xb, np.zeros((BATCH, 3)))  # <-",
        datasets={"train_ds": 64},
    ),
    case(
        "a width beside a known dataset",
        None,
        "BATCH = 64\nwidth = 2 * BATCH\nfor xb in train_ds:\n    step(xb, width)  # <-",
        "counts on batches",
        datasets={"train_ds": 64},
    ),
    case(
        "dict set by a computed key",
        None,
        "cfg = {'bs': 64}\nfor k in list(cfg):\n    cfg[k] = 8\nmodel.fit(x, y, batch_size=cfg['bs'])  # <-",
    ),
    case(
        "changed through __dict__",
        None,
        "cfg = C(bs=64)\ncfg.__dict__.update(over)\nmodel.fit(x, y, batch_size=cfg.bs)  # <-",
    ),
    case(
        "the number again in a shape",
        None,
        "ds = d.batch(64).map(lambda a: reshape(a, (64, 10)))\nmodel.fit(ds)  # <-",
        "line 1 has a shape",
    ),
    case("an image of that size", 32, "canvas = np.zeros((64, 64, 3))\nmodel.fit(x, y, batch_size=64)  # <-"),
    case("slices of another axis", None, "for i in range(0, 640, 64):\n    step(x[:, i:i + 64])  # <-"),
    case(
        "pieces of a text", None, "seq_len = 64\nfor i in range(0, len(x), seq_len):\n    step(x[i:i + seq_len])  # <-"
    ),
    case("pieces that nothing trains on", None, "for i in range(0, len(x), 64):\n    show(x[i:i + 64])  # <-"),
    case("concatenated datasets", None, "ds = a.batch(64).concatenate(b.batch(32))\nmodel.fit(ds)  # <-", "not known"),
    case(
        "global set in a function",
        None,
        "def f():\n    global B\n    B = 64\n    model.fit(x, y, batch_size=B)  # <-\nf()",
    ),
    case("doubled under its name", 64, "bs = 64\nbs = bs * 2\nmodel.fit(x, y, batch_size=bs)  # <-"),
]
