"""Notebooks in the styles of published ones whose last cell runs out of memory, and what is right to do.

``# <-`` is nothing but a reading aid. ``batch`` is what the failing call must use after the edit (None: declined, with
``reason`` in the sentence); ``has`` must stand in the changed cell. ``accumulates``: True where the same effective
batch can be kept, or a part of the reason where not.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    kind: str
    name: str
    cell: str
    earlier: tuple[str, ...] = ()
    batch: int | None = None
    reason: str = ""
    has: str = ""
    accumulates: bool | str | None = None
    limit: int | None = None
    before: int = 64


MODEL = 'model = keras.Sequential([Dense(8), Dense(1)])\nmodel.compile("adam", "mse")'
DS = "train_ds = tf.data.Dataset.from_tensor_slices((x_train, y_train)).shuffle(9).batch(64)"
ENDLESS = DS.replace(".batch(64)", ".batch(64).repeat()")
GAN_STEP = """class GAN(keras.Model):
    def train_step(self, data):
        images = data[0]
        noise = tf.random.normal((BATCH_SIZE, 8))
        return {"loss": images + noise}
"""
VAE_CALL = """class VAE(keras.Model):
    def call(self, x):
        eps = tf.random.normal([CFG.batch_size, 8])
        return x + eps
"""
STEP = """def train_step(images, labels):
    noise = tf.random.normal([BATCH_SIZE, 8])
    with tf.GradientTape() as tape:
        loss = model(images + noise)
    grads = tape.gradient(loss, model.trainable_variables)
"""
SEQUENCE = """class DataGen(keras.utils.Sequence):
    def __init__(self, x, y, batch_size=64):
        self.x, self.y = x, y
        self.batch_size = batch_size
    def __len__(self):
        return -(-len(self.x) // self.batch_size)
    def __getitem__(self, i):
        at = slice(i * self.batch_size, (i + 1) * self.batch_size)
        return self.x[at], self.y[at]
"""
FIXED = SEQUENCE.replace("DataGen", "Fixed").replace("self.batch_size = batch_size", "self.batch_size = 64")
PAIRS = """class Pairs(keras.utils.Sequence):
    def __init__(self, x, y, batch_size):
        self.left = DataGen(x, y, batch_size)
        self.right = Fixed(x, y, batch_size=batch_size)
    def __len__(self):
        return len(self.left)
    def __getitem__(self, i):
        return self.left[i][0], self.right[i][1]
"""
COUNTED = SEQUENCE.replace(
    "        self.batch_size = batch_size\n",
    "        self.batch_size = batch_size\n        self.n = -(-len(x) // batch_size)\n",
).replace("return -(-len(self.x) // self.batch_size)", "return self.n")
RANDOM = """def random_batch(x, y, batch_size=64):
    idx = np.random.randint(0, len(x), batch_size)
    return x[idx], y[idx]
"""

OTHERS = [
    Case("others", "a train_step of an earlier cell reads the name", "model.fit(train_ds, epochs=2)  # <-",
         ("BATCH_SIZE = 64", DS, GAN_STEP, "model = GAN()\nmodel.compile()"), reason="BATCH_SIZE",
         accumulates="BATCH_SIZE"),
    Case("others", "a train_step of this cell reads the name of an earlier one",
         GAN_STEP + "model = GAN()\nmodel.compile()\nmodel.fit(train_ds)  # <-", ("BATCH_SIZE = 64", DS), 32,
         has="BATCH_SIZE = 32", accumulates="train_step"),
    Case("others", "a call that reads a config",
         "model.fit(train_ds)  # <-", ("class CFG:\n    batch_size = 64", DS, VAE_CALL, "model = VAE()\nmodel.compile()"),
         reason="CFG.batch_size"),
    Case("others", "a call of this cell that reads a config of an earlier one",
         VAE_CALL + "model = VAE()\nmodel.compile()\nmodel.fit(train_ds)  # <-", ("class CFG:\n    batch_size = 64", DS), 32,
         has="CFG.batch_size = 32"),
    Case("others", "a layer that makes a state",
         "model.fit(train_ds)  # <-",
         ("bs = 64", DS, "class Net(keras.Model):\n    def call(self, x):\n        return x + tf.zeros([bs, 8])",
          "model = Net()\nmodel.compile()"), reason="`bs`"),
    Case("others", "a layer of this cell, a model of this cell",
         "class Net(keras.Model):\n    def call(self, x):\n        return x + tf.zeros([bs, 8])\n"
         "model = Net()\nmodel.compile()\nmodel.fit(train_ds)  # <-", ("bs = 64", DS), 32, has="bs = 32"),
    Case("others", "the number at the call and a name in a method",
         "model.fit(x_train, y_train, batch_size=64)  # <-",
         ("BATCH_SIZE = 64", GAN_STEP, "model = GAN()\nmodel.compile()"), reason="BATCH_SIZE"),
    Case("others", "the number at the call and a name in a method, all of this cell",
         "BATCH_SIZE = 64\n" + GAN_STEP + "model = GAN()\nmodel.compile()\n"
         "model.fit(x_train, y_train, batch_size=64)  # <-", batch=32, has="BATCH_SIZE = 32"),
    Case("others", "a loop over an earlier dataset with a step that reads the name",
         "for images, labels in train_ds:\n    train_step(images, labels)  # <-",
         ("BATCH_SIZE = 64", DS, MODEL, STEP), 32, has="BATCH_SIZE = 32"),
    Case("others", "a traced step of an earlier cell that reads the name",
         "for images, labels in train_ds:\n    step(images, labels)  # <-",
         ("BATCH_SIZE = 64", DS, MODEL, STEP, "step = tf.function(train_step)"), reason=""),
    Case("others", "a step of this cell", STEP + "for images, labels in train_ds:\n    train_step(images, labels)  # <-",
         ("BATCH_SIZE = 64", DS, MODEL), 32, has="BATCH_SIZE = 32"),
    Case("others", "a default argument of an earlier function",
         "for images, labels in train_ds:\n    noisy(images)  # <-",
         ("BATCH_SIZE = 64", DS, MODEL,
          "def noisy(x, n=BATCH_SIZE):\n    return model(x + tf.random.normal([n, 8]))"), 32, has="BATCH_SIZE = 32"),
    Case("others", "a default argument of this cell",
         "def noisy(x, n=BATCH_SIZE):\n    return model(x + tf.random.normal([n, 8]))\n"
         "for images, labels in train_ds:\n    noisy(images)  # <-", ("BATCH_SIZE = 64", DS, MODEL), 32,
         has="BATCH_SIZE = 32"),
    Case("others", "a closure", "model.fit(train_ds)  # <-",
         ("BATCH_SIZE = 64", DS, "def make(n):\n    def noise():\n        return tf.random.normal([BATCH_SIZE, n])\n    return noise",
          "noise = make(8)\nclass Net(keras.Model):\n    def call(self, x):\n        return x + noise()", "model = Net()\nmodel.compile()"),
         reason="BATCH_SIZE"),
    Case("others", "a function of an earlier cell that this cell calls reads what this cell sets",
         "batch_size = 64\nds = make_ds(x_train)\nmodel.fit(ds)  # <-",
         (MODEL, "batch_size = 16\ndef make_ds(x):\n    return tf.data.Dataset.from_tensor_slices((x, x)).batch(batch_size)"),
         32),
    Case("others", "a name that another, unused function reads", "model.fit(train_ds)  # <-",
         ("BATCH_SIZE = 64", DS, MODEL, "def other():\n    return tf.random.normal([BATCH_SIZE, 8])"), 32),
    Case("others", "a class of another model reads the name", "model.fit(train_ds)  # <-",
         ("BATCH_SIZE = 64", DS, MODEL, GAN_STEP, "gan = GAN()\ngan.compile()"), 32),
    Case("others", "the batch by a name of the same cell, read in its own train_step",
         "BATCH_SIZE = 64\n" + GAN_STEP + "model = GAN()\nmodel.compile()\n"
         "model.fit(x_train, y_train, batch_size=BATCH_SIZE)  # <-", batch=32, has="BATCH_SIZE = 32"),
    Case("others", "the batch by an earlier name, read by an earlier train_step",
         "model.fit(x_train, y_train, batch_size=BATCH_SIZE)  # <-",
         ("BATCH_SIZE = 64", GAN_STEP, "model = GAN()\nmodel.compile()"), reason="BATCH_SIZE"),
    Case("others", "the batch by an earlier name, read by a function that this cell calls",
         "ds = make_ds(x_train)\nmodel.fit(ds, steps_per_epoch=len(x_train) // BATCH)  # <-",
         ("BATCH = 64", MODEL, "def make_ds(x):\n    return tf.data.Dataset.from_tensor_slices((x, x)).batch(BATCH).repeat()"),
         32),
]  # fmt: skip

FEWER = [
    *(
        Case("fewer", f"one sample, {method}({data})", f"out = model.{method}({data})  # <-", (MODEL,),
             reason="one sample", limit=0, accumulates="")
        for method, data in [
            ("predict", "x_test[:1]"), ("predict", "x_test[0:1]"), ("predict", "x_test[5:6]"),
            ("predict", "img[np.newaxis]"), ("predict", "img[None, ...]"), ("predict", "img[tf.newaxis, ...]"),
            ("predict", "np.expand_dims(img, 0)"), ("predict", "np.expand_dims(img, axis=0)"),
            ("predict", "tf.expand_dims(img, axis=0)"), ("predict", "img.reshape(1, 32, 32, 3)"),
            ("predict", "np.array([img])"), ("predict", "np.array([img]) / 255."), ("evaluate", "x_test[:1], y_test[:1]"),
            ("predict", "x_test[[3]]"), ("predict", "np.random.normal(0, 1, (1, 8))"), ("predict", "tf.random.normal([1, 8])"),
        ]
    ),
    Case("fewer", "one sample by a name", "one = np.expand_dims(img, 0)\nout = model.predict(one)  # <-", (MODEL,),
         reason="one sample", limit=0),
    *(
        Case("fewer", f"one sample put together, {images}",
             f"for name in ['a', 'b']:\n    x = img * 1\n    x = np.expand_dims(x, axis=0)\n    images = {images}\n"
             "    classes = model.predict(images, batch_size=10)  # <-", (MODEL,), reason="one sample", limit=0, accumulates="")
        for images in ["np.vstack([x])", "np.concatenate((x,), axis=0)", "np.concatenate([x])"]
    ),
    Case("fewer", "two samples put together",
         "pair = np.vstack([x_test[:1], x_test[5:6]])\nout = model.predict(pair)  # <-", (MODEL,), 1, limit=1, before=2),
    Case("fewer", "one sample of an earlier cell", "out = model.predict(one)  # <-",
         (MODEL, "one = x_test[:1]"), reason="one sample", limit=0),
    Case("fewer", "one sample in a loop", "for i in range(3):\n    out = model.predict(x_test[i:i + 1])  # <-", (MODEL,),
         reason="one sample", limit=0),
    Case("fewer", "ten noise vectors", "noise = np.random.normal(0, 1, (10, 100))\nimages = model.predict(noise)  # <-",
         (MODEL,), 5, limit=5, before=10),
    Case("fewer", "ten noise vectors of TensorFlow", "images = model.predict(tf.random.normal([10, 100]))  # <-", (MODEL,), 5,
         limit=5, before=10),
    Case("fewer", "sixteen noise vectors by a name",
         "n = 16\nnoise = np.random.normal(size=(n, 100))\nimages = model.predict(noise, verbose=0)  # <-", (MODEL,), 8,
         limit=8, before=16),
    Case("fewer", "twenty samples", "model.predict(x_test[:20])  # <-", (MODEL,), 10, limit=10, before=20),
    Case("fewer", "twenty samples of an earlier cell", "model.predict(few)  # <-", (MODEL, "few = x_test[:20]"), 10, limit=10,
         before=20),
    Case("fewer", "fewer samples than the batch size at the call", "model.predict(x_test[:20], batch_size=256)  # <-",
         (MODEL,), 10, limit=10, before=20),
    Case("fewer", "training on few samples", "model.fit(x_train[:24], y_train[:24])  # <-", (MODEL,), 12, limit=12,
         before=24),
    Case("fewer", "training on few samples, a name for the batch",
         "BATCH = 64\nmodel.fit(x_train[:24], y_train[:24], batch_size=BATCH)  # <-", (MODEL,), 12, limit=12, before=24),
    Case("fewer", "enough samples", "model.predict(x_test[:100])  # <-", (MODEL,), 16, limit=16, before=32),
    Case("fewer", "all samples", "model.predict(x_test)  # <-", (MODEL,), 16, limit=16, before=32),
    Case("fewer", "a batch of a dataset", "for xb, yb in train_ds.take(1):\n    p = model.predict(xb)  # <-", (MODEL, DS), 16,
         limit=16, before=32),
    Case("fewer", "one image of a batch of a dataset",
         "for xb, yb in train_ds.take(1):\n    p = model.predict(xb[:1])  # <-", (MODEL, DS), reason="one sample", limit=0),
    Case("fewer", "one image of a batch, the model called",
         "for xb, yb in train_ds.take(1):\n    p = model(xb[:1])  # <-", (MODEL, DS), reason="one sample", limit=0),
    Case("fewer", "the first batch", "xb, yb = next(iter(train_ds))\np = model.predict(xb)  # <-", (MODEL, DS), 16, limit=16,
         before=32),
]  # fmt: skip

ENCODER = """class Encoder(keras.Model):
    def __init__(self, units, batch_sz):
        super().__init__()
        self.units, self.batch_sz = units, batch_sz
    def start(self):
        return tf.zeros((self.batch_sz, self.units))
"""
GET = """def get_training_dataset():
    ds = tf.data.Dataset.from_tensor_slices((x_train, y_train))
    ds = ds.shuffle(2048)
    ds = ds.batch(BATCH_SIZE)
    return ds.repeat().prefetch(-1)
"""

OTHERS += [
    Case("others", "a model that was made for the batch",
         "for epoch in range(2):\n    hidden = encoder.start()\n    for xb, yb in train_ds:\n        encoder(xb + hidden)  # <-",
         ("BATCH_SIZE = 64", DS, ENCODER, "encoder = Encoder(8, BATCH_SIZE)"), reason="self.batch_sz"),
    Case("others", "a model of this cell that is made for the batch",
         ENCODER + "encoder = Encoder(8, 64)\nhidden = encoder.start()\n"
         "for xb, yb in train_ds:\n    encoder(xb + hidden)  # <-", (DS,), 32, has="Encoder(8, 32)"),
    Case("others", "a local name of the same spelling",
         "class Net(keras.Model):\n    def train_step(self, data):\n        BATCH_SIZE = tf.shape(data[0])[0]\n"
         "        return data[0] + tf.random.normal((BATCH_SIZE, 8))\n"
         "model = Net()\nmodel.compile()\nmodel.fit(train_ds)  # <-", ("BATCH_SIZE = 64", DS), 32),
    Case("others", "functions without parameters that read a global",
         "model.fit(get_training_dataset(), steps_per_epoch=STEPS_PER_EPOCH, epochs=2)  # <-",
         ("BATCH_SIZE = 64\nSTEPS_PER_EPOCH = len(x_train) // BATCH_SIZE", GET, MODEL), 32),
    Case("others", "functions without parameters that read a global, the steps computed here",
         "model.fit(get_training_dataset(), steps_per_epoch=len(x_train) // BATCH_SIZE, epochs=2)  # <-",
         ("BATCH_SIZE = 64", GET, MODEL), 32, has="BATCH_SIZE = 32"),
    Case("others", "functions of this cell that read a global of this cell",
         "BATCH_SIZE = 64\n" + GET + "model.fit(get_training_dataset(), steps_per_epoch=len(x_train) // BATCH_SIZE)  # <-",
         (MODEL,), 32, has="BATCH_SIZE = 32"),
    Case("others", "a windowed dataset of an earlier function",
         "ds = windowed(x_train, 20, batch_size, 1000)\nmodel.fit(ds, epochs=2)  # <-",
         ("batch_size = 64", MODEL, "def windowed(series, window, batch_size, buffer):\n"
          "    ds = tf.data.Dataset.from_tensor_slices((series, series)).shuffle(buffer)\n    return ds.batch(batch_size).prefetch(1)"),
         32, has="batch_size = 32"),
]  # fmt: skip

STEPS = [
    Case("steps", "steps in a config", "model.fit(train_ds, steps_per_epoch=CFG.steps)  # <-",
         ("class CFG:\n    batch_size = 64\n    steps = 6400 // batch_size", ENDLESS, MODEL), 32,
         has="steps_per_epoch=200", accumulates=True),
    Case("steps", "half of a batch from each side",
         "def train(epochs, batch_size=16):\n    half_batch = int(batch_size / 2)\n    for epoch in range(epochs):\n"
         "        idx = np.random.randint(0, x_train.shape[0], half_batch)\n"
         "        model.train_on_batch(x_train[idx], np.ones((half_batch, 1)))  # <-\n\ntrain(epochs=3, batch_size=128)",
         (MODEL,), 32, has="batch_size=64"),
    Case("steps", "so many batches of a dataset", "model.fit(train_ds.take(50))  # <-", (DS, MODEL), 32, has=".take(50).rebatch(32)",
         accumulates=True),
    Case("steps", "so many batches of a dataset in a loop", "for xb, yb in train_ds.take(steps):\n    model.train_on_batch(xb, yb)  # <-",
         (DS, MODEL, "steps = len(x_train) // 64"), 32, has="rebatch(32)"),
    Case("steps", "so many batches of a dataset of this cell",
         "ds = tf.data.Dataset.from_tensor_slices((x_train, y_train)).batch(64)\nmodel.fit(ds.take(10))  # <-", (MODEL,), 32,
         accumulates=True),
    *(
        Case("steps", f"as many batches as the name says, {name}", cell, (*earlier, MODEL), 32, has=has)
        for name, earlier, cell, has in [
            ("in a loop", (f"{DS}.repeat()",),
             "batch_size = 64\nsteps = 3 * (len(x_train) // batch_size)\nfor xb, yb in train_ds.take(steps):\n"
             "    model.train_on_batch(xb, yb)  # <-", "train_ds.rebatch(32).take(steps)"),
            ("enumerated", (f"{DS}.repeat()",),
             "bs = 64\nfor i, (xb, yb) in enumerate(train_ds.take(len(x_train) // bs)):\n    model.train_on_batch(xb, yb)  # <-",
             "train_ds.rebatch(32).take(len(x_train) // bs)"),
            ("an earlier name in fit", ("BATCH_SIZE = 64", f"{DS}.repeat()"),
             "n = len(x_train) // BATCH_SIZE\nmodel.fit(train_ds.take(n), epochs=2)  # <-", "train_ds.rebatch(32).take(n)"),
            ("taken before the loop", (f"{DS}.repeat()",),
             "batch_size = 64\nds = train_ds.take(len(x_train) // batch_size).prefetch(1)\nfor xb, yb in ds:\n"
             "    model.train_on_batch(xb, yb)  # <-", "train_ds.rebatch(32).take(len(x_train) // batch_size).prefetch(1)"),
            ("batched here", (), "batch_size = 64\n"
             "ds = tf.data.Dataset.from_tensor_slices((x_train, y_train)).batch(batch_size).repeat()\n"
             "for xb, yb in ds.take(len(x_train) // batch_size):\n    model.train_on_batch(xb, yb)  # <-",
             "ds.take(len(x_train) // batch_size):"),
        ]
    ),
    *(
        Case("steps", f"so many batches of a size that has a name, {name}", f"{size}\nds = {made}\n{cell}", (MODEL, *earlier), 32, has=has)
        for made in ["tf.data.Dataset.from_tensor_slices((x_train, y_train)).batch(batch_size)"]
        for name, size, earlier, cell, has in [
            ("a loop", "batch_size = 64", (), "for xb, yb in ds.take(20):\n    model.train_on_batch(xb, yb)  # <-", "ds.take(40)"),
            ("fit", "batch_size = 64", (), "model.fit(ds.take(20))  # <-", "ds.take(40)"),
            ("a name for the number", "batch_size = 64", ("steps = 20",), "model.fit(ds.take(steps))  # <-", "ds.take(2 * steps)"),
            ("a number that is computed", "batch_size = 64", (), "model.fit(ds.take(10 + 10))  # <-", "ds.take(2 * (10 + 10))"),
            ("all of them", "batch_size = 64", (), "model.fit(ds.take(-1))  # <-", "ds.take(-1)"),
            ("validated too", "batch_size = 64", (), "model.fit(ds.take(20), validation_data=ds.take(5))  # <-", "ds.take(10)"),
        ]
    ),
    Case("steps", "directories and their samples",
         "batch_size = 64\ntrain = ImageDataGenerator().flow(x_train, y_train, batch_size=batch_size)\n"
         "val = ImageDataGenerator().flow(x_test, y_test, batch_size=batch_size)\n"
         "model.fit(train, steps_per_epoch=train.samples // batch_size, validation_data=val,\n"
         "          validation_steps=val.samples // batch_size)  # <-", (MODEL,), 32, has="batch_size = 32", accumulates=True),
    Case("steps", "an endless dataset, the steps from a config",
         "model.fit(train_ds, steps_per_epoch=len(x_train) // CFG.batch_size)  # <-",
         ("class CFG:\n    batch_size = 64", ENDLESS, MODEL), 32, has="len(x_train) // 32", accumulates=True),
    Case("steps", "an endless dataset, the steps from a name",
         "model.fit(train_ds, steps_per_epoch=len(x_train) // BATCH_SIZE, epochs=2)  # <-",
         ("BATCH_SIZE = 64", ENDLESS, MODEL), 32, has="len(x_train) // 32", accumulates=True),
    Case("steps", "steps in a name of this cell",
         "steps = len(x_train) // BATCH_SIZE\nmodel.fit(train_ds, steps_per_epoch=steps)  # <-",
         ("BATCH_SIZE = 64", ENDLESS, MODEL), 32, accumulates=True),
    Case("steps", "steps in a name of an earlier cell", "model.fit(train_ds, steps_per_epoch=STEPS)  # <-",
         ("BATCH_SIZE = 64\nSTEPS = len(x_train) // BATCH_SIZE", ENDLESS, MODEL), 32, has="steps_per_epoch=200",
         accumulates=True),
    Case("steps", "steps by math.ceil",
         "import math\nmodel.fit(train_ds, steps_per_epoch=math.ceil(len(x_train) / BATCH_SIZE))  # <-",
         ("BATCH_SIZE = 64", ENDLESS, MODEL), 32, has="len(x_train) / 32", accumulates=True),
    Case("steps", "steps by np.ceil",
         "model.fit(train_ds, steps_per_epoch=int(np.ceil(x_train.shape[0] / CFG['bs'])))  # <-",
         ("CFG = {'bs': 64}", ENDLESS, MODEL), 32, has="x_train.shape[0] / 32", accumulates=True),
    Case("steps", "a number of steps", "model.fit(train_ds, steps_per_epoch=100)  # <-", (ENDLESS, MODEL), 32,
         has="steps_per_epoch=200", accumulates=True),
    Case("steps", "steps that a function gives", "model.fit(train_ds, steps_per_epoch=count())  # <-",
         ("def count():\n    return 100", ENDLESS, MODEL), reason="steps_per_epoch", accumulates="steps_per_epoch"),
    Case("steps", "steps in an entry that is no batch size",
         "model.fit(train_ds, steps_per_epoch=info['steps'])  # <-", ("info = {'steps': 100}",
         ENDLESS, MODEL), batch=32, has="steps_per_epoch=200", accumulates=True),
    Case("steps", "a finite dataset and its length", "model.fit(train_ds, steps_per_epoch=len(train_ds))  # <-", (DS, MODEL),
         32, accumulates=True),
    Case("steps", "a repeated dataset and its length",
         "model.fit(train_ds.repeat(), steps_per_epoch=len(train_ds))  # <-", (DS, MODEL), 32, accumulates=True),
    Case("steps", "a dataset made here, endless",
         "ds = tf.data.Dataset.from_tensor_slices((x_train, y_train)).batch(64).repeat()\n"
         "model.fit(ds, steps_per_epoch=len(x_train) // 64)  # <-", (MODEL,), 32, has="len(x_train) // 32",
         accumulates=True),
    Case("steps", "a dataset made here by a name",
         "B = 64\nds = tf.data.Dataset.from_tensor_slices((x_train, y_train)).batch(B).repeat()\n"
         "model.fit(ds, steps_per_epoch=len(x_train) // B)  # <-", (MODEL,), 32, has="B = 32", accumulates=True),
    Case("steps", "a generator function with its steps",
         "def gen(x, y, batch_size):\n    while True:\n        for i in range(0, len(x), batch_size):\n"
         "            yield x[i:i + batch_size], y[i:i + batch_size]\n"
         "model.fit(gen(x_train, y_train, 64), steps_per_epoch=len(x_train) // 64)  # <-", (MODEL,), 32,
         has="len(x_train) // 32", accumulates=True),
    Case("steps", "an earlier generator function with its steps",
         "model.fit(gen(x_train, y_train, 64), steps_per_epoch=len(x_train) // 64)  # <-",
         (MODEL, "def gen(x, y, batch_size):\n    while True:\n        for i in range(0, len(x), batch_size):\n"
          "            yield x[i:i + batch_size], y[i:i + batch_size]\n"), 32, has="len(x_train) // 32", accumulates=True),
    Case("steps", "an earlier generator function with a name for both",
         "model.fit(gen(x_train, y_train, batch_size), steps_per_epoch=len(x_train) // batch_size)  # <-",
         (MODEL, "batch_size = 64\ndef gen(x, y, n):\n    while True:\n        for i in range(0, len(x), n):\n"
          "            yield x[i:i + n], y[i:i + n]\n"), 32, has="batch_size = 32", accumulates=True),
    Case("steps", "validation steps of a dataset",
         "model.fit(train_ds, validation_data=val_ds, validation_steps=5)  # <-",
         (DS, DS.replace("train_ds", "val_ds"), MODEL), 32, has="validation_steps=10", accumulates=True),
    Case("steps", "an odd batch and a number of steps",
         "model.fit(train_ds, steps_per_epoch=10)  # <-", (ENDLESS.replace("64", "50"), MODEL), 25, has="steps_per_epoch=20",
         before=50, accumulates=True),
    Case("steps", "evaluate with steps", "model.evaluate(train_ds, steps=10)  # <-", (ENDLESS, MODEL), 32, has="steps=20",
         accumulates="no gradients"),
    Case("steps", "steps of a progress bar",
         "steps = len(x_train) // 64\nbar = keras.utils.Progbar(steps) if False else None\n"
         "model.fit(x_train, y_train, batch_size=64)  # <-", (MODEL,), 32, accumulates=True),
]  # fmt: skip

GENERATORS = [
    Case("generators", "a Sequence of an earlier cell", "model.fit(train_gen, epochs=2)  # <-",
         (SEQUENCE, "train_gen = DataGen(x_train, y_train)", MODEL), 32, has="train_gen.batch_size = 32", accumulates=True),
    Case("generators", "a pair of Sequences", "model.fit(train_gen, validation_data=val_gen, epochs=2)  # <-",
         (SEQUENCE, "train_gen = DataGen(x_train, y_train)\nval_gen = DataGen(x_test, y_test)", MODEL), 32,
         has="val_gen.batch_size = 32", accumulates=True),
    Case("generators", "a Sequence that counted its batches", "model.fit(train_gen)  # <-",
         (COUNTED, "train_gen = DataGen(x_train, y_train)", MODEL), reason="made in an earlier cell", accumulates=""),
    Case("generators", "Keras's own iterator", "model.fit(train_gen)  # <-",
         ("datagen = ImageDataGenerator()", "train_gen = datagen.flow(x_train, y_train, batch_size=64)", MODEL), 32,
         has="train_gen.batch_size = 32", accumulates=True),
    Case("generators", "Keras's own iterator with its steps",
         "model.fit(train_gen, steps_per_epoch=train_gen.n // train_gen.batch_size)  # <-",
         ("datagen = ImageDataGenerator()", "train_gen = datagen.flow(x_train, y_train, batch_size=64)", MODEL), 32,
         has="train_gen.batch_size = 32", accumulates=True),
    Case("generators", "Keras's own iterator with its length", "model.fit(train_gen, steps_per_epoch=len(train_gen))  # <-",
         ("datagen = ImageDataGenerator()", "train_gen = datagen.flow(x_train, y_train, batch_size=64)", MODEL), 32,
         accumulates=True),
    Case("generators", "an iterator with steps by a name",
         "model.fit(train_gen, steps_per_epoch=train_gen.samples // BATCH)  # <-",
         ("BATCH = 64\ndatagen = ImageDataGenerator()", "train_gen = datagen.flow(x_train, y_train, batch_size=BATCH)", MODEL),
         32, has="train_gen.samples // 32", accumulates=True),
    Case("generators", "a Sequence of an earlier class made here",
         "gen = DataGen(x_train, y_train, batch_size=64)\nmodel.fit(gen)  # <-", (SEQUENCE, MODEL), 32, has="batch_size=32",
         accumulates=True),
    Case("generators", "a Sequence of an earlier class made here, by its default",
         "gen = DataGen(x_train, y_train)\nmodel.fit(gen)  # <-", (SEQUENCE, MODEL), 32, accumulates=True),
    Case("generators", "a Sequence that hands its batch size on",
         "gen = Pairs(x_train, y_train, 64)\nmodel.fit(gen)  # <-", (SEQUENCE, PAIRS.replace("Fixed", "DataGen"), MODEL), 32,
         has="y_train, 32)", accumulates=True),
    *(
        Case("generators", f"a batch size that is not used: {name}", cell, earlier,
             reason=f"`{unused}` gets the batch size and does not use it", accumulates="does not use it")
        for name, cell, earlier, unused in [
            ("by a part", "gen = Pairs(x_train, y_train, batch_size=64)\nmodel.fit(gen)  # <-",
             (SEQUENCE, FIXED + PAIRS, MODEL), "Fixed"),
            ("by a part that takes it later", "gen = Pairs(x_train, y_train, 64)\nmodel.fit(gen)  # <-",
             (SEQUENCE + FIXED, PAIRS.replace("Fixed(x, y, batch_size=batch_size)", "None").replace(
                 "self.left = DataGen", "self.bs = batch_size\n        self.left = DataGen").replace(
                 "self.right[i][1]", "Fixed(self.left.x, self.left.y, self.bs)[i][1]"), MODEL), "Fixed"),
            ("by a part, in this cell", PAIRS + "BATCH = 64\nmodel.fit(Pairs(x_train, y_train, BATCH))  # <-",
             (SEQUENCE, FIXED, MODEL), "Fixed"),
            ("by the class itself", "model.fit(Fixed(x_train, y_train, 64))  # <-", (FIXED, MODEL), "Fixed"),
            ("by a generator", "model.fit(gen(x_train, y_train, 64), steps_per_epoch=4)  # <-",
             (MODEL, "def gen(x, y, batch_size):\n    while True:\n        for i in range(0, len(x), 64):\n"
              "            yield x[i:i + 64], y[i:i + 64]\n"), "gen"),
        ]
    ),
    Case("generators", "prediction from a Sequence", "model.predict(test_gen)  # <-",
         (SEQUENCE, "test_gen = DataGen(x_test, y_test)", MODEL), 32, has="test_gen.batch_size = 32",
         accumulates="no gradients"),
    Case("generators", "a running generator", "model.fit(g, steps_per_epoch=100)  # <-",
         ("def gen():\n    while True:\n        yield x_train[:64], y_train[:64]", "g = gen()", MODEL), reason="earlier cell"),
]  # fmt: skip

HELPERS = [
    Case("helpers", "a batch helper of an earlier cell by keyword",
         "for step in range(3):\n    xb, yb = random_batch(x_train, y_train, batch_size=64)\n    model.train_on_batch(xb, yb)  # <-",
         (RANDOM, MODEL), 32, has="batch_size=32"),
    Case("helpers", "a batch helper by its default",
         "for step in range(3):\n    xb, yb = random_batch(x_train, y_train)\n    model.train_on_batch(xb, yb)  # <-",
         (RANDOM, MODEL), 32, has="batch_size=32"),
    Case("helpers", "a batch helper by position",
         "for step in range(3):\n    xb, yb = random_batch(x_train, y_train, 64)\n    model.train_on_batch(xb, yb)  # <-",
         (RANDOM, MODEL), 32),
    Case("helpers", "a batch helper with a name of an earlier cell",
         "for step in range(3):\n    xb, yb = random_batch(x_train, y_train, BATCH)\n    model.train_on_batch(xb, yb)  # <-",
         ("BATCH = 64", RANDOM, MODEL), 32, has="BATCH = 32"),
    Case("helpers", "n_batch", "for step in range(3):\n    xb = get_batch(x_train, n_batch=64)\n    model.train_on_batch(xb, None)  # <-".replace(", None", ", xb"),
         ("def get_batch(x, n_batch=16):\n    idx = np.random.randint(0, len(x), n_batch)\n    return x[idx]", MODEL), 32,
         has="n_batch=32"),
    Case("helpers", "a helper of this cell",
         RANDOM + "for step in range(3):\n    xb, yb = random_batch(x_train, y_train)\n    model.train_on_batch(xb, yb)  # <-",
         (MODEL,), 32),
    Case("helpers", "a helper with a list for a default",
         "def train(model, units=[64, 32], batch_size=64):\n    model.fit(x_train, y_train, batch_size=batch_size)  # <-\n"
         "train(model)", (MODEL,), 32),
    Case("helpers", "a helper of an earlier cell with a list for a default", "train(model)  # <-",
         ("def train(model, units=[64, 32], batch_size=64):\n    model.fit(x_train, y_train, batch_size=batch_size)", MODEL),
         32),
    Case("helpers", "a helper of an earlier cell that trains", "train(model, 64)  # <-",
         ("def train(model, batch_size):\n    model.fit(x_train, y_train, batch_size=batch_size)", MODEL), 32,
         has="train(model, 32)"),
    Case("helpers", "unpacked from a tuple of this cell",
         "params = (64, 10)\nbatch_size, epochs = params\nmodel.fit(x_train, y_train, batch_size=batch_size)  # <-",
         (MODEL,), 32, has="batch_size = 32"),
    Case("helpers", "unpacked from a tuple of an earlier cell",
         "batch_size, epochs = params\nmodel.fit(x_train, y_train, batch_size=batch_size)  # <-",
         (MODEL, "params = (64, 10)"), 32, has="batch_size = 32"),
    Case("helpers", "unpacked in a row", "batch_size, epochs = 64, 10\nmodel.fit(x_train, y_train, batch_size=batch_size)  # <-",
         (MODEL,), 32),
    Case("helpers", "as many as there are", "model.fit(few, few_y, batch_size=len(few_y))  # <-",
         (MODEL, "few, few_y = x_train[:64], y_train[:64]"), 32, has="batch_size=32"),
    Case("helpers", "as many as there are, by the shape", "model.fit(few, few_y, batch_size=few.shape[0])  # <-",
         (MODEL, "few, few_y = x_train[:64], y_train[:64]"), 32, has="batch_size=32"),
    Case("helpers", "a tenth of them", "bs = len(x_train) // 100\nmodel.fit(x_train, y_train, batch_size=bs)  # <-",
         (MODEL,), 32, has="bs = 32"),
    Case("helpers", "a choice by a condition",
         "model.fit(x_train, y_train, batch_size=64 if True else 16)  # <-", (MODEL,), 32, has="batch_size=32"),
]  # fmt: skip

FALSE = [
    Case("false", "the cell defines what trains, with an earlier name",
         "def run(model):\n    model.fit(x_train, y_train, batch_size=batch_size)  # <-\nrun(model)",
         ("batch_size = 64", MODEL), 32, has="batch_size = 32", accumulates=None),
    Case("false", "the cell defines what trains, with its own name",
         "batch_size = 64\n\ndef run_experiment(model):\n    history = model.fit(x_train, y_train, batch_size=batch_size)  # <-\n"
         "    return history\n\nhistory = run_experiment(model)", (MODEL,), 32, has="batch_size = 32"),
    Case("false", "the cell defines what makes and trains",
         "def build():\n    m = keras.Sequential([Dense(4)])\n    m.compile('adam', 'mse')\n    return m\n\n"
         "def run():\n    m = build()\n    m.fit(x_train, y_train, batch_size=BATCH)  # <-\n    return m\n\nm = run()",
         ("BATCH = 64",), 32, has="BATCH = 32"),
    Case("false", "a class of the cell trains",
         "class Trainer:\n    def run(self):\n        model.fit(x_train, y_train, batch_size=BATCH)  # <-\nTrainer().run()",
         ("BATCH = 64", MODEL), 32, has="BATCH = 32"),
    Case("false", "a shape for any batch",
         "model.fit(x_train, y_train, batch_size=64)  # <-",
         ("model = keras.Sequential([layers.LSTM(8, batch_input_shape=(None, 5, 1))])\nmodel.compile()",), 32,
         accumulates=True),
    Case("false", "another model is stateful", "model.fit(x_train, y_train, batch_size=64)  # <-",
         (MODEL, "other = keras.Sequential([layers.LSTM(8, stateful=True, batch_input_shape=(64, 5, 1))])\nother.compile()"),
         32, accumulates=True),
    Case("false", "another model of this cell is stateful",
         "other = keras.Sequential([layers.LSTM(8, batch_input_shape=(64, 5, 1))])\n"
         "model.fit(x_train, y_train, batch_size=64)  # <-", (MODEL,), 32, accumulates=True),
    Case("false", "the model is stateful", "model.fit(x_train, y_train, batch_size=64)  # <-",
         ("model = keras.Sequential([layers.LSTM(8, stateful=True, batch_input_shape=(64, 5, 1))])\nmodel.compile()",),
         reason="one batch size only", accumulates="one batch size only"),
    Case("false", "the model is stateful by add", "model.fit(x_train, y_train, batch_size=64)  # <-",
         ("model = keras.Sequential()", "model.add(layers.LSTM(8, stateful=True, batch_input_shape=(64, 5, 1)))\nmodel.compile()"),
         reason="one batch size only"),
    Case("false", "the model is stateful by a function", "model.fit(x_train, y_train, batch_size=64)  # <-",
         ("def build():\n    return keras.Sequential([layers.LSTM(8, batch_input_shape=(64, 5, 1))])", "model = build()"),
         reason="one batch size only"),
    Case("false", "the model was stateful and is made anew", "model.fit(x_train, y_train, batch_size=64)  # <-",
         ("model = keras.Sequential([layers.LSTM(8, stateful=True, batch_input_shape=(64, 5, 1))])", MODEL), 32),
    Case("false", "a class of another model has a train_step", "model.fit(x_train, y_train, batch_size=64)  # <-",
         (MODEL, GAN_STEP), 32, accumulates=True),
    Case("false", "its own class has a train_step", "model.fit(x_train, y_train, batch_size=64)  # <-",
         ("BATCH_SIZE = 128", GAN_STEP.replace("+ noise", ""), "model = GAN()\nmodel.compile()"), 32,
         accumulates="train_step"),
    Case("false", "a name that the cell sets before it reads it",
         "batch_size = 64\nmodel.fit(x_train, y_train, batch_size=batch_size)  # <-", (MODEL, "batch_size = 128"), 32,
         has="batch_size = 32", accumulates=True),
    Case("false", "a tape of another cell",
         "optimizer = keras.optimizers.Adam()\nfor a, b in train_ds:\n    with tf.GradientTape() as tape:\n"
         "        loss = tf.reduce_mean(model(a, training=True) - b)\n"
         "    grads = tape.gradient(loss, model.trainable_variables)\n"
         "    optimizer.apply_gradients(zip(grads, model.trainable_variables))".replace("model(a, training=True) - b)", "model(a, training=True) - b)  # <-"),
         (MODEL, DS, "def other(x):\n    with tf.GradientTape() as tape:\n        y = model(x)\n    return tape.gradient(y, [])"), 32,
         accumulates=True),
    Case("false", "words in a comment", "# exec the training, globals() are fine\nmodel.fit(x_train, y_train, batch_size=64)  # <-",
         (MODEL,), 32, accumulates=True),
]  # fmt: skip

INFERENCE = [
    Case("inference", "a loop that predicts on batches", "for xb, yb in train_ds:\n    p = model.predict_on_batch(xb)  # <-",
         (MODEL, DS), 32, accumulates="no gradients"),
    Case("inference", "a loop that calls the model", "outs = []\nfor xb, yb in train_ds:\n    outs.append(model(xb, training=False))  # <-",
         (MODEL, DS), 32, accumulates="no gradients"),
    Case("inference", "slices through the model",
         "bs = 64\nouts = []\nfor i in range(0, len(x_test), bs):\n    outs.append(model(x_test[i:i + bs]))  # <-", (MODEL,), 32,
         has="bs = 32", accumulates="no gradients"),
    Case("inference", "a function of an earlier cell that infers",
         "for xb, yb in train_ds:\n    embed(xb)  # <-", (MODEL, DS, "def embed(x):\n    return model(x, training=False)"), 32,
         accumulates="no gradients"),
    Case("inference", "evaluate", "model.evaluate(x_test, y_test, batch_size=64)  # <-", (MODEL,), 32,
         accumulates="no gradients"),
    Case("inference", "evaluate on a dataset", "model.evaluate(train_ds)  # <-", (MODEL, DS), 32, accumulates="no gradients"),
]  # fmt: skip

DRAWN = [
    Case("drawn", "a grid from the batch",
         "batch_size = 64\nmodel.fit(x_train, y_train, batch_size=batch_size)  # <-\nn = int(batch_size ** .5)\nplt.subplots(n, n)",
         (MODEL,), 32, has="batch_size = 64"),
    Case("drawn", "figures from the batch",
         "batch_size = 64\nmodel.fit(x_train, y_train, batch_size=batch_size)  # <-\n"
         "for i in range(batch_size):\n    plt.imshow(i)", (MODEL,), 32, has="batch_size = 64"),
    Case("drawn", "a size from the batch",
         "BATCH = 64\nplt.figure(figsize=(BATCH, 4))\nmodel.fit(x_train, y_train, batch_size=BATCH)  # <-", (MODEL,), 32,
         has="BATCH = 64"),
    Case("drawn", "an earlier name that draws",
         "model.fit(x_train, y_train, batch_size=BATCH)  # <-\nplt.figure(figsize=(BATCH, 4))", ("BATCH = 64", MODEL), 32,
         has="batch_size=32"),
    Case("drawn", "steps and a figure",
         "batch_size = 64\nds = tf.data.Dataset.from_tensor_slices((x_train, y_train)).batch(batch_size).repeat()\n"
         "model.fit(ds, steps_per_epoch=len(x_train) // batch_size)  # <-\nplt.figure(figsize=(batch_size, 4))", (MODEL,), 32),
]  # fmt: skip

PLAIN = [
    Case("plain", name, cell, (MODEL, *earlier), 32, accumulates=accumulates)
    for name, cell, earlier, accumulates in [
        ("a number", "model.fit(x_train, y_train, batch_size=64, epochs=3)  # <-", (), True),
        ("a constant", "BATCH = 64\nmodel.fit(x_train, y_train, BATCH)  # <-", (), True),
        ("an earlier constant", "h = model.fit(x_train, y_train, batch_size=BATCH)  # <-", ("BATCH = 64",), True),
        ("a config class", "class CFG:\n    epochs = 3\n    bs = 64\nmodel.fit(x_train, y_train, batch_size=CFG.bs)  # <-", (), True),
        ("an earlier config class", "model.fit(x_train, y_train, batch_size=CFG.bs)  # <-", ("class CFG:\n    bs = 64",), True),
        ("a dataclass", "from dataclasses import dataclass\n@dataclass\nclass C:\n    bs: int = 64\nc = C()\n"
         "model.fit(x_train, y_train, batch_size=c.bs)  # <-", (), True),
        ("an earlier dataclass", "model.fit(x_train, y_train, batch_size=c.batch_size)  # <-",
         ("from dataclasses import dataclass\n@dataclass\nclass C:\n    batch_size: int = 64\nc = C()",), True),
        ("a dict", "hp = {'batch_size': 64}\nmodel.fit(x_train, y_train, batch_size=hp['batch_size'])  # <-", (), True),
        ("an earlier dict", "model.fit(x_train, y_train, batch_size=hp['batch_size'])  # <-", ("hp = {'batch_size': 64}",), True),
        ("argparse", "import argparse\np = argparse.ArgumentParser()\np.add_argument('--batch_size', type=int, default=64)\n"
         "args = p.parse_args([])\nmodel.fit(x_train, y_train, batch_size=args.batch_size)  # <-", (), True),
        ("a dataset here", "ds = tf.data.Dataset.from_tensor_slices((x_train, y_train)).shuffle(9).batch(64).prefetch(1)\n"
         "model.fit(ds, epochs=2)  # <-", (), True),
        ("an earlier dataset", "model.fit(train_ds, epochs=2)  # <-", (DS,), True),
        ("earlier datasets", "model.fit(train_ds, validation_data=val_ds)  # <-", (DS, DS.replace("train_ds", "val_ds")), True),
        ("a helper for datasets", "def make(x, y, bs=64):\n    return tf.data.Dataset.from_tensor_slices((x, y)).batch(bs)\n"
         "model.fit(make(x_train, y_train))  # <-", (), True),
        ("an earlier helper for datasets", "model.fit(make(x_train, y_train, 64))  # <-",
         ("def make(x, y, batch_size):\n    return tf.data.Dataset.from_tensor_slices((x, y)).batch(batch_size)",), True),
        ("an earlier helper for datasets by keyword", "ds = make(x_train, y_train, batch_size=64)\nmodel.fit(ds)  # <-",
         ("def make(x, y, batch_size=8):\n    return tf.data.Dataset.from_tensor_slices((x, y)).batch(batch_size)",), True),
        ("folds", "for fold in range(2):\n    model.fit(x_train, y_train, batch_size=64)  # <-", (), True),
        ("a main function", "def main():\n    batch_size = 64\n    model.fit(x_train, y_train, batch_size=batch_size)  # <-\nmain()",
         (), True),
        ("a try", "try:\n    model.fit(x_train, y_train, batch_size=64)  # <-\nexcept KeyboardInterrupt:\n    pass", (), True),
        ("callbacks", "model.fit(x_train, y_train, batch_size=64, callbacks=[keras.callbacks.EarlyStopping()])  # <-", (), True),
        ("a loop over slices", "bs = 64\nfor i in range(0, len(x_train), bs):\n    model.train_on_batch(x_train[i:i + bs], y_train[i:i + bs])  # <-",
         (), "train_on_batch"),
        ("a loop with random samples", "batch_size = 64\nfor k in range(3):\n    idx = np.random.randint(0, len(x_train), batch_size)\n"
         "    model.train_on_batch(x_train[idx], y_train[idx])  # <-", (), "train_on_batch"),
        ("a loop of epochs over a dataset", "for epoch in range(2):\n    for step, (xb, yb) in enumerate(train_ds):\n"
         "        model.train_on_batch(xb, yb)  # <-", (DS,), "train_on_batch"),
        ("a traced step", "@tf.function\ndef step(a):\n    return model(a)  # <-\nfor xb, yb in train_ds:\n    step(xb)", (DS,), None),
        ("a traced loop", "@tf.function\ndef epoch(ds):\n    for xb, yb in ds:\n        model(xb)  # <-\nepoch(train_ds)", (DS,), None),
        ("a traced loop by a number", "@tf.function\ndef epoch(ds):\n    for xb, yb in ds:\n        model(xb)  # <-\n"
         "epoch(tf.data.Dataset.from_tensor_slices((x_train, y_train)).batch(64))", (), None),
        ("a GAN of this cell", "BATCH_SIZE = 64\nds = tf.data.Dataset.from_tensor_slices((x_train, y_train)).batch(BATCH_SIZE)\n"
         "def train_step(images):\n    noise = tf.random.normal([BATCH_SIZE, 8])\n    model(noise)\n    return model(images)  # <-\n"
         "def train(ds, epochs):\n    for e in range(epochs):\n        for images, _ in ds:\n            train_step(images)\ntrain(ds, 2)",
         (), None),
        ("adversarial batches", "half = 64\nfor k in range(3):\n    real = x_train[np.random.randint(0, len(x_train), half)]\n"
         "    model.train_on_batch(real, real)  # <-".replace("half", "batch_size"), (), "train_on_batch"),
        ("a subclass with an __init__", "class T:\n    def __init__(self, batch_size=64):\n        self.batch_size = batch_size\n"
         "    def go(self):\n        model.fit(x_train, y_train, batch_size=self.batch_size)  # <-\nT().go()", (), True),
        ("double stars", "args = dict(batch_size=64, epochs=2)\nmodel.fit(x_train, y_train, **args)  # <-", (), None),
    ]
]  # fmt: skip

FLOW = "gen = ImageDataGenerator().flow(x_train, y_train, batch_size=64)"
WINDOW = """class Window:
    def __init__(self, x, y):
        self.x, self.y = x, y
    @property
    def train(self):
        return tf.data.Dataset.from_tensor_slices((self.x, self.y)).batch(64)
    def make(self, which):
        return self.train
window = Window(x_train, y_train)
sets = {"train": window.train}"""
RUN = """def run(model):
    history = model.fit(x_train, y_train, batch_size=batch_size, epochs=2)
    return history"""
OWN_SIZE = """class Patches:
    def __init__(self, n):
        self.batch_size = n
    def call(self, x):
        batch_size = len(x)
        return x.reshape((batch_size, 8))
patches = Patches(4)"""

ROWS = [
    *(
        Case("rows", name, cell, (MODEL, *earlier), 2, has="batch_size=2", before=32, limit=4)
        for name, cell, earlier in [
            ("a default of a helper", "show(model)  # <-",
             ("def show(net, images=x_test, n_images=5):\n    return net.predict(images[:n_images])",)),
            ("a number given to a helper", "show(model, 5)  # <-",
             ("def show(net, n, images=x_test):\n    return net.predict(images[:n])",)),
            ("a default of this cell", "def show(net, n=5):\n    return net.predict(x_test[:n])  # <-\nshow(model)", ()),
            ("a dict of some rows", "model.predict(dict({'x': x_test[:5]}))  # <-", ()),
        ]
    ),
    *(
        Case("rows", name, cell, (MODEL, *earlier), reason="computes one sample", limit=0)
        for name, cell, earlier in [
            ("a text made a row", "tokens = vectorizer([text])\nmodel.predict(tokens)  # <-",
             ("text = 'a'\ndef vectorizer(texts):\n    return np.zeros((len(texts), 8))",)),
            ("a list of one number", "model.predict([17.0])  # <-", ()),
            ("a window that a loop makes longer",
             "X = img[np.newaxis]\nfor k in range(3):\n    y = model.predict(X)  # <-\n    X = np.concatenate([X, y], axis=1)", ()),
            ("a step of play beside one that learns",
             "for episode in range(3):\n    obs = img\n    for step in range(2):\n        done = play(obs)  # <-\n"
             "    if episode > 1:\n        learn(batch_size)",
             ("batch_size = 64", "def choose(state):\n    return model.predict(state[np.newaxis])",
              "def play(state):\n    return choose(state)",
              "def learn(batch_size):\n    model.train_on_batch(x_train[:batch_size], y_train[:batch_size])")),
            ("a list of one text", "sentence = ['granny is here']\nsequences = texts_to_sequences(sentence)\nmodel.predict(sequences)  # <-",
             ("def texts_to_sequences(texts):\n    return np.zeros((len(texts), 8))",)),
            ("two of them", "a, b = encode([text]), encode([text])\nfor i in range(2):\n    t = tokenize([text])\n"
             "    model.predict([tokenize([text]), t])  # <-",
             ("text = 'a'\ndef tokenize(texts):\n    return np.zeros((len(texts), 8))\nencode = tokenize",)),
        ]
    ),
    Case("rows", "a validation that is smaller already", "model.fit(gen, validation_data=val_gen)  # <-",
         (MODEL, FLOW, FLOW.replace("gen", "val_gen").replace("64", "32")), 32, has="gen.batch_size = 32"),
    Case("rows", "validation datasets that are smaller already", "model.fit(train_ds, validation_data=val_ds)  # <-",
         (MODEL, DS, DS.replace("train_ds", "val_ds").replace("64", "16")), 32, has="validation_data=val_ds)"),
    Case("rows", "a loop of steps over random batches", "for step in range(n_steps):\n    xb, yb = random_batch(x_train, y_train)\n"
         "    model.train_on_batch(xb, yb)  # <-", (MODEL, RANDOM, "n_steps = len(x_train) // 64"), 32, has="batch_size=32"),
]  # fmt: skip

COUNTED_STEPS = [
    Case("counted", name, cell, (MODEL, *earlier), 32, has=has, reason=reason, accumulates=True)
    for name, cell, earlier, has, reason in [
        ("a part of an epoch", "model.fit(train_ds, steps_per_epoch=int(0.1 * len(train_ds)))  # <-", (DS,),
         "2 * int(0.1 * len(train_ds))", ""),
        ("a half of an epoch", "model.fit(train_ds, steps_per_epoch=len(train_ds) // 2)  # <-", (DS,),
         "2 * (len(train_ds) // 2)", ""),
        ("a part of both", "model.fit(train_ds, steps_per_epoch=int(0.2 * len(train_ds)), validation_data=val_ds,\n"
         "          validation_steps=int(0.5 * len(val_ds)))  # <-", (DS, DS.replace("train_ds", "val_ds")),
         "validation_steps=2 * int(0.5 * len(val_ds))", ""),
        ("rounded up", "steps = int(np.ceil(len(train_ds) / 3))\nmodel.fit(train_ds, steps_per_epoch=steps)  # <-", (DS,),
         "2 * steps", ""),
        ("of an earlier cell", "model.fit(train_ds, steps_per_epoch=setup.steps)  # <-",
         (ENDLESS, "class setup:\n    steps = len(x_train) // 64"), "", ""),
        ("a dataset made here", "ds = tf.data.Dataset.from_tensor_slices((x_train, y_train)).batch(64)\n"
         "model.fit(ds, steps_per_epoch=int(0.5 * len(ds)))  # <-", (), "batch(32)", ""),
        ("a generator that counts itself", "model.fit(gen, steps_per_epoch=len(gen) // 2)  # <-", (FLOW,),
         "gen.batch_size = 32", ""),
    ]
] + [
    Case("counted", "the validation's samples by the old batch",
         "validation_steps = val_gen.n // batch_size\nmodel.fit(gen, validation_data=val_gen, steps_per_epoch=gen.n // batch_size,\n"
         "          validation_steps=validation_steps)  # <-",
         (MODEL, "batch_size = 64", FLOW, FLOW.replace("gen", "val_gen")), 32, has="validation_steps=2 * validation_steps"),
    Case("counted", "the validation's samples by the old batch, at the call",
         "model.fit(gen, validation_data=val_gen, validation_steps=val_gen.samples // 64)  # <-",
         (MODEL, FLOW, FLOW.replace("gen", "val_gen")), 32, has="2 * (val_gen.samples // 64)"),
    Case("counted", "the validation's samples by a number of an earlier cell",
         "model.fit(train_ds, validation_data=val_ds, validation_steps=len(x_test) // bs)  # <-",
         (MODEL, "bs = 64", DS, DS.replace("train_ds", "val_ds")), 32, has="validation_steps="),
    Case("counted", "by samples, in evaluate", "model.evaluate(train_ds, steps=len(x_train) // size)  # <-",
         (MODEL, DS, "size = 64"), 32, has="steps=len(x_train) // 32"),
    Case("counted", "by samples, in predict", "model.predict(train_ds, steps=len(x_train) // 64)  # <-", (MODEL, ENDLESS), 32,
         has="// 32"),
    Case("counted", "by a function that may look at the batch",
         "batch_size = 64\nds = tf.data.Dataset.from_tensor_slices((x_train, y_train)).batch(batch_size).repeat()\n"
         "model.fit(ds, steps_per_epoch=steps_of(x_train))  # <-",
         (MODEL, "def steps_of(x):\n    return len(x) // batch_size", "batch_size = 64"), reason="cannot be followed"),
]  # fmt: skip

OLDER = [
    Case("older", "fit_generator", "model.fit_generator(gen, steps_per_epoch=100, epochs=2)  # <-", (MODEL, FLOW), 32,
         has="steps_per_epoch=200"),
    Case("older", "fit_generator, by its name", "h = model.fit_generator(generator=gen, steps_per_epoch=len(gen))  # <-",
         (MODEL, FLOW), 32, has="gen.batch_size = 32"),
    Case("older", "fit_generator, made here", FLOW + "\nmodel.fit_generator(gen, steps_per_epoch=50)  # <-", (MODEL,), 32,
         has="steps_per_epoch=100"),
    Case("older", "evaluate_generator", "model.evaluate_generator(gen, steps=50)  # <-", (MODEL, FLOW), 32, has="steps=100"),
    Case("older", "predict_generator", "model.predict_generator(gen)  # <-", (MODEL, FLOW), 32),
    Case("older", "a generator function of an earlier cell", "model.fit_generator(gen, steps_per_epoch=10)  # <-",
         (MODEL, "def batches():\n    while True:\n        yield x_train[:64], y_train[:64]", "gen = batches()"),
         reason="earlier cell"),
]  # fmt: skip

SEEN = [
    Case("seen", "a property", "model.fit(window.train, epochs=2)  # <-", (MODEL, WINDOW), 32, has="window.train.rebatch(32)"),
    Case("seen", "a method", "model.fit(window.make('train'))  # <-", (MODEL, WINDOW), 32, has=".make('train').rebatch(32)"),
    Case("seen", "an entry", "model.fit(sets['train'], epochs=2)  # <-", (MODEL, WINDOW), 32,
         has="sets['train'].rebatch(32)"),
    Case("seen", "under a condition", "if True:\n    ds = train_ds\nelse:\n    ds = None\nmodel.fit(ds)  # <-", (MODEL, DS), 32,
         has="ds.rebatch(32)"),
    Case("seen", "a model that counts on the batch", "model.fit(window.train)  # <-",
         ("BATCH_SIZE = 64", WINDOW, GAN_STEP, "model = GAN()\nmodel.compile()"), reason="BATCH_SIZE"),
    Case("seen", "a dict of an earlier cell", "model.fit(x_train, y_train, **config)  # <-",
         (MODEL, "config = dict(batch_size=64, epochs=2)"), 32, has='**{**config, "batch_size": 32}'),
    Case("seen", "a dict literal of an earlier cell", "model.fit(x_train, y_train, verbose=0, **config)  # <-",
         (MODEL, "config = {'epochs': 2, 'batch_size': 64}"), 32, has='**{**config, "batch_size": 32}'),
    Case("seen", "a dict of an earlier cell without a batch size", "model.fit(x_train, y_train, **config)  # <-",
         (MODEL, "config = dict(epochs=2)"), 16, has="batch_size=16", before=32),
    Case("seen", "a dict that was changed since", "model.fit(x_train, y_train, **config)  # <-",
         (MODEL, "config = dict(batch_size=64)", "config['epochs'] = 2"), reason="cannot be followed"),
    Case("seen", "a dict that says the data", "model.fit(**config)  # <-", (MODEL, "config = dict(x=x_train, batch_size=64)"),
         reason="cannot be followed"),
    Case("seen", "a dict with steps", "model.fit(train_ds, **config)  # <-", (MODEL, DS, "config = dict(steps_per_epoch=10)"),
         reason="cannot be followed"),
]  # fmt: skip

REACHED = [
    Case("reached", "an attribute and a local of that name elsewhere", "net = model\nrun(net)\npatches.call(x_test)  # <-",
         (MODEL, "batch_size = 64", OWN_SIZE, RUN), 32, has="batch_size = 32"),
    Case("reached", "a function of this cell around one of an earlier cell",
         "def go():\n    h = run(model)\n    return h\ngo()  # <-", (MODEL, "batch_size = 64", RUN), 32, has="batch_size = 32"),
    Case("reached", "a function of this cell around a number of an earlier one",
         "def go(rate):\n    return train(rate)\ngo(0.1)  # <-",
         (MODEL, "def train(rate):\n    model.compile()\n    return model.fit(x_train, y_train, batch_size=64)"), 32),
    Case("reached", "another class that does read it", "run(model)\nother.call(x_test)  # <-",
         (MODEL, "batch_size = 64", "class Other:\n    def call(self, x):\n        return x.reshape((batch_size, 8))\nother = Other()", RUN),
         reason="`batch_size`"),
    Case("reached", "one sample in a function of an earlier cell", "text = extend(x_test)  # <-",
         (MODEL, "def extend(x):\n    for _ in range(3):\n        y = model.predict(x[:1])\n    return y"),
         reason="in `extend` computes one sample", limit=0),
    Case("reached", "one sample, two functions deep", "y = play(3)  # <-",
         (MODEL, "def act(x):\n    return model.predict(np.expand_dims(x, 0))", "def play(n):\n    return [act(img) for _ in range(n)]"),
         reason="in `act` computes one sample", limit=0),
    Case("reached", "one sample by a shape", "x = x_test[0]\nx = x.reshape((1,) + x.shape)\nx /= 255\nmodel.predict(x)  # <-", (MODEL,),
         reason="one sample", limit=0),
    Case("reached", "a loop over something else than data", "for hp in candidates:\n    y = model(hp)  # <-",
         (MODEL, "candidates = [x_test, x_test]"), reason="no batch size was found", before=200),
]  # fmt: skip

GENERATOR = "datagen = ImageDataGenerator()"
PAIR = (
    "train_gen = datagen.flow(x_train, y_train, batch_size=64)\nval_gen = datagen.flow(x_test, y_test, batch_size=64)"
)
NAMED = "tf.data.Dataset.from_tensor_slices((x_{0}, y_{0})).batch(BATCH_SIZE)"

FIELD = [
    *(
        Case("field", f"the name also makes the data: {name}", cell, (MODEL, *earlier), 32, has="batch_size=32",
             accumulates=accumulates)
        for name, cell, earlier, accumulates in [
            ("an earlier name", "x = np.zeros((bs * 10, 8))\nmodel.fit(x, x, batch_size=bs)  # <-", ("bs = 64",), True),
            ("a name of the cell", "bs = 64\nx = np.zeros((bs * 10, 8))\nmodel.fit(x, x, batch_size=bs)  # <-", (), True),
            ("two inputs", "a = np.zeros((n_b * bs, 8))\nb = np.zeros((bs * n_b, 8))\n"
             "model.fit([a, b], a, batch_size=bs)  # <-", ("bs = 64\nn_b = 5",), True),
            ("noise", "noise = np.random.normal(size=(3 * bs, 8))\nmodel.predict(noise, batch_size=bs)  # <-", ("bs = 64",),
             "no gradients"),
            ("a slice", "model.fit(x_train[: bs * 20], y_train[: bs * 20], batch_size=bs)  # <-", ("bs = 64",), True),
        ]
    ),
    *(
        Case("field", f"steps counted before the generator is changed: {name}", cell, (GENERATOR, PAIR, MODEL), 32,
             has="train_gen.batch_size = 32", accumulates=True)
        for name, cell in [
            ("of the validation", "steps = val_gen.n // val_gen.batch_size\n"
             "model.fit(train_gen, validation_data=val_gen, validation_steps=steps)  # <-"),
            ("of the training", "n = train_gen.samples // train_gen.batch_size\nmodel.fit(train_gen, steps_per_epoch=n)  # <-"),
            ("a length", "n = len(train_gen)\nmodel.compile()\nmodel.fit(train_gen, steps_per_epoch=n)  # <-"),
        ]
    ),
    Case("field", "a dict whose batch size is a name", "model.fit(x_train, y_train, **config)  # <-",
         (MODEL, "BATCH = 64", "config = dict(batch_size=BATCH, epochs=2)"), 32, has='"batch_size": 32', accumulates=True),
    Case("field", "a dict with data to validate on", "model.fit(x_train, y_train, **config)  # <-",
         (MODEL, "BATCH = 64", 'config = {"batch_size": BATCH, "validation_data": (x_test, y_test), "validation_batch_size": 20}'),
         32, has='"batch_size": 32', accumulates=True),
    Case("field", "an optimizer that splits each batch", "model.fit(x_train, y_train, batch_size=64)  # <-",
         (MODEL, "class DPSGD:\n    def __init__(self, **k): pass\nopt = DPSGD(num_microbatches=64)"),
         reason="`num_microbatches`, which must divide it", accumulates="`num_microbatches`"),
    Case("field", "an optimizer that splits each batch by a name", "model.fit(train_ds)  # <-",
         (MODEL, DS, "class DPSGD:\n    def __init__(self, **k): pass\nparts = 16\nopt = DPSGD(num_microbatches=parts)"),
         reason="`num_microbatches`, which must divide it"),
    Case("field", "an optimizer that could split each batch", "model.fit(x_train, y_train, batch_size=64)  # <-",
         (MODEL, "class DPSGD:\n    def __init__(self, **k): pass\nopt = DPSGD(num_microbatches=1)"), 32),
    Case("field", "an optimizer that splits each batch, in inference", "model.predict(x_test, batch_size=64)  # <-",
         (MODEL, "class DPSGD:\n    def __init__(self, **k): pass\nopt = DPSGD(num_microbatches=64)"), 32),
    Case("field", "a model that batches something else", "model.fit(train_ds)  # <-",
         (DS, "movies = tf.data.Dataset.from_tensor_slices((x_test, y_test))",
          "class Net(keras.Model):\n    def __init__(self):\n        self.found = movies.batch(64).map(lambda *a: a)",
          "model = Net()\nmodel.compile()"), 32, has="train_ds.rebatch(32)"),
    Case("field", "a function that batches something else", "for x, y in train_ds:\n    step(x)  # <-",
         (DS, MODEL, "batch = tf.data.Dataset.from_tensor_slices((x_test, y_test))",
          "def step(x):\n    others = batch.batch(64)\n    return model(x)"), 32, has="train_ds.rebatch(32)"),
    Case("field", "a callback that reads the name", "model.fit(x_train, y_train, batch_size=batch_size, callbacks=[Report()])  # <-",
         (MODEL, "batch_size = 64",
          "class Report(keras.callbacks.Callback):\n    def on_epoch_end(self, epoch, logs=None):\n"
          "        self.model.predict(x_test, batch_size=batch_size)"), 32, has="batch_size = 32", accumulates=True),
    *(
        Case("field", f"two data sets of one name: {name}", f"BATCH_SIZE = 64\n{cell}", (MODEL,), 32, has="BATCH_SIZE = 32")
        for name, cell in [
            ("taken", f"n = 2\nmodel.evaluate({NAMED.format('train')}.take(2 * n))  # <-\n"
             f"model.evaluate({NAMED.format('test')}.take(n))"),
            ("skipped by a name", f"n = 2\na = {NAMED.format('train')}\nb = {NAMED.format('test')}.skip(n)\n"
             "model.fit(a)  # <-\nmodel.evaluate(b)"),
            ("steps", f"a = {NAMED.format('train')}\nb = {NAMED.format('test')}\nmodel.fit(a)  # <-\nmodel.evaluate(b, steps=2)"),
            ("steps that follow", f"a = {NAMED.format('train')}\nb = {NAMED.format('test')}\n"
             "model.fit(a)  # <-\nmodel.predict(b, steps=128 // BATCH_SIZE)"),
        ]
    ),
    Case("field", "arguments of a function in a dict", "config = dict(rate=0.1, batch_size=64)\ntrain(**config)  # <-",
         (MODEL, "def train(rate, batch_size, epochs=2):\n    model.fit(x_train, y_train, batch_size=batch_size, epochs=epochs)"),
         32, has="batch_size=32"),
    Case("field", "a dict of names", "size = 64\nargs = {'n': size}\ndef run(n, k=1):\n    model.fit(x_train, y_train, batch_size=n)\n"
         "run(**args)  # <-", (MODEL,), 32, has="size = 32"),
    Case("field", "a dict that is changed", "args = {'n': 64}\nargs['n'] = 64\ndef run(n):\n    model.fit(x_train, y_train, batch_size=n)\n"
         "run(**args)  # <-", (MODEL,), reason="`n` is not given"),
    Case("field", "a name that is only printed", "print('batch size', BATCH_SIZE)\nfor x, y in train_ds:\n    model(x)  # <-",
         ("BATCH_SIZE = 64", DS, MODEL), 32, has="train_ds.rebatch(32)"),
    Case("field", "a name set and read in one block",
         "with tf.GradientTape() as t:\n    BATCH_SIZE = 64\n    model.fit(x_train, y_train, batch_size=BATCH_SIZE)  # <-", (MODEL,), 32,
         has="BATCH_SIZE = 32"),
    Case("field", "a name set in a block, read in one inside it and after it",
         "with tf.GradientTape() as t:\n    n = 64\n    try:\n        model.fit(x_train, y_train, batch_size=n)  # <-\n"
         "    finally:\n        pass\nmodel.evaluate(x_test, y_test, batch_size=n)", (MODEL,), 32, has="n = 32"),
    Case("field", "a name set again under a condition in one block",
         "with tf.GradientTape() as t:\n    n = 64\n    if len(x_train) < 9:\n        n = 8\n"
         "    model.fit(x_train, y_train, batch_size=n)  # <-", (MODEL,), reason="under a condition"),
    *(
        Case("field", f"what a function is handed by an earlier cell: {name}", cell, (MODEL, "class Parameters: pass", *earlier), 32,
             has="batch_size=32")
        for name, cell, earlier in [
            ("an attribute", "run(model, params)  # <-", ("params = Parameters()\nparams.batch_size = 64",
             "def run(net, params):\n    net.fit(x_train, y_train, batch_size=params.batch_size)")),
            ("an entry", "run(model, cfg=config)  # <-", ("config = {'batch_size': 64, 'epochs': 2}",
             "def run(net, cfg):\n    net.fit(x_train, y_train, batch_size=cfg['batch_size'], epochs=cfg['epochs'])")),
            ("an attribute, and steps of it", "run(params)  # <-", ("params = Parameters()\nparams.batch_size = 64",
             "def run(p):\n    model.fit(x_train, y_train, batch_size=p.batch_size, steps_per_epoch=len(x_train) // p.batch_size)")),
        ]
    ),
    Case("field", "slices from one name to another", "attributions(x_train)  # <-",
         (MODEL, "def attributions(x, batch_size=64):\n    for at in range(0, len(x), batch_size):\n        from_ = at\n"
          "        to = min(from_ + batch_size, len(x))\n        model(x[from_:to])"), 32),
]  # fmt: skip


CASES = [
    *FIELD,
    *OTHERS,
    *FEWER,
    *STEPS,
    *GENERATORS,
    *HELPERS,
    *FALSE,
    *INFERENCE,
    *DRAWN,
    *PLAIN,
    *ROWS,
    *COUNTED_STEPS,
    *OLDER,
    *SEEN,
    *REACHED,
]
