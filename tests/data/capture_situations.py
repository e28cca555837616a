"""Capture what real out-of-memory errors of several causes record: ``PYTHONPATH=. python tests/data/capture_situations.py``.

Each case runs in a kernel of its own, on a CPU with the allocator and the limit (MiB) given here.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from tests.kernel import Kernel, bfc
from tf_mem_magic import load
from tf_mem_magic.core.jsonio import encode

FOLDER = Path(__file__).parent / "situations"
IMPORTS = "import tensorflow as tf, keras, numpy as np\nfrom keras import layers\nkeras.utils.set_random_seed(0)"
CASES = {
    "flatten_dense": (
        300,
        """model = keras.Sequential([
    keras.Input((64, 64, 3)), layers.Conv2D(32, 3, padding='same'), layers.Flatten(), layers.Dense(1024), layers.Dense(10)
])
model.compile('adam', 'mse')
model.fit(np.zeros((64, 64, 64, 3), 'float32'), np.zeros((64, 10)), batch_size=8)""",
    ),
    "weights_adam": (
        200,
        """model = keras.Sequential([keras.Input((2048,)), layers.Dense(4096), layers.Dense(2048), layers.Dense(10)])
model.compile('adam', 'mse')""",
        "model.fit(np.zeros((64, 2048), 'float32'), np.zeros((64, 10)), batch_size=16)",
    ),
    "lazy_net": (
        200,
        """class Net(keras.Model):
    def __init__(self):
        super().__init__()
        self.conv = layers.Conv2D(16, 3, padding='same')
        self.flat = layers.Flatten()
        self.out = layers.Dense(2048)

    def call(self, x):
        return self.out(self.flat(self.conv(x)))""",
        """net = Net()
net.compile('adam', 'mse')
net.fit(np.zeros((16, 64, 64, 3), 'float32'), np.zeros((16, 2048)), batch_size=4)""",
    ),
    "big_picture": (
        250,
        """inp = keras.Input((None, None, 3))
h = layers.Conv2D(32, 3, padding='same', activation='relu')(inp)
h = layers.Conv2D(32, 3, padding='same', activation='relu')(h)
model = keras.Model(inp, layers.Conv2D(3, 1)(h))
photo = np.zeros((1600, 1200, 3), 'float32')""",
        "out = model.predict(photo[np.newaxis])",
    ),
    "one_hot_eager": (
        200,
        "ids = np.random.default_rng(0).integers(0, 8000, (500, 64))",
        "targets = tf.one_hot(ids, 8000)",
    ),
    "resize_eager": (
        200,
        "images = np.zeros((600, 32, 32, 3), 'float32')",
        "big = tf.image.resize(images, (224, 224))",
    ),
    "pairwise": (
        200,
        "emb = np.zeros((1200, 64), 'float32')",
        "diff = emb[:, None, :] - tf.constant(emb)[None, :, :]\ndist = tf.reduce_sum(diff ** 2, -1)",
    ),
    "validation": (
        250,
        """model = keras.Sequential([
    keras.Input((64, 64, 3)), layers.Conv2D(32, 3, padding='same'), layers.GlobalAveragePooling2D(), layers.Dense(10)
])
model.compile('adam', 'mse')
x, y = np.zeros((64, 64, 64, 3), 'float32'), np.zeros((64, 10))
vx, vy = np.zeros((1000, 64, 64, 3), 'float32'), np.zeros((1000, 10))""",
        "model.fit(x, y, batch_size=8, epochs=2, validation_data=(vx, vy), validation_batch_size=1000)",
    ),
}


def capture(name: str) -> None:
    """Run one case and write its recording, with the last samples of its allocators only."""
    mib, *cells = CASES[name]
    target = FOLDER / f"{name}.json"
    with Kernel(env=bfc(mib)) as kernel:
        for cell in ("%load_ext tf_mem_magic", IMPORTS, *cells[:-1]):
            kernel.run(cell)
        kernel.run(f"%%tfmem --save {target}\n{cells[-1]}", timeout=280)
    recording = load(target).recording
    own = [one for one in recording.series if one.kind == "allocator"]
    series = tuple(replace(one, times=one.times[-3:], values=one.values[-3:]) for one in own)
    target.write_bytes(encode(replace(recording, series=series, stderr="")))


if __name__ == "__main__":
    for case in sys.argv[1:] or CASES:
        capture(case)
