"""What ``stream-data`` saves: the peak of resident memory of a cell as it is and as the remedy changes it."""

import pytest

from tests.remedies.stream_data.test_remedy import array, ask
from tests.stream_runtime import measure

SETUP = """
import keras, numpy as np, os, tensorflow as tf
model = keras.Sequential([keras.Input((512,)), keras.layers.Dense(1)])
model.compile("sgd", "mse")
def scale(a, b): return a * 2, b
few = np.ones((64, 512), "float32"), np.zeros((64, 1), "float32")
model.fit(*few, verbose=0, validation_data=few)
model.fit(tf.data.Dataset.from_tensor_slices(few).map(scale).batch(8), verbose=0)
model.predict(few[0], verbose=0)
list(tf.data.Dataset.range(4).map(lambda i: tf.numpy_function(lambda n: n, [i], tf.int64)))
def gen():
    for i in range(40_000): yield np.full(512, i, "float32")
def load(i):
    return tf.ones((512,)) * tf.cast(i, "float32")
x = np.ones((40_000, 512), "float32"); y = np.zeros((40_000, 1), "float32")
DATA = x.nbytes
"""
SLICES = "tf.data.Dataset.from_tensor_slices((x, y))"
CELLS = {
    "a split": "model.fit(x, y, batch_size=256, validation_split=0.25, verbose=0)",
    "predict": "model.predict(x, 256, verbose=0)",
    "a dataset": f"d = {SLICES}.batch(256).prefetch(2)\nmodel.fit(d, verbose=0)",
    "a shuffled dataset": f"d = {SLICES}.shuffle(len(x)).batch(256).prefetch(2)\nmodel.fit(d, verbose=0)",
    "a mapped dataset": f"d = {SLICES}.shuffle(len(x)).map(scale).batch(256)\nmodel.fit(d, verbose=0)",
    "files shuffled after loading": "n = 0\nfor b in tf.data.Dataset.range(40_000).map(load).shuffle(40_000).batch(99): n += 1",
    "a generator shuffled": "n = 0\nfor b in tf.data.Dataset.from_generator(gen, "
    "output_signature=tf.TensorSpec((512,))).shuffle(40_000).batch(99): n += 1",
}


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    folder = tmp_path_factory.mktemp("measured")
    found = {}
    for name, cell in CELLS.items():
        values = (array("x"), array("y", shape=(1000, 1)))
        pair = [measure(SETUP, source, folder) for source in (cell, ask(cell, values=values).source)]
        found[name] = [one["grown"] / one["data"] for one in pair]
        print(name, *(f"{one['grown'] / 2**20:.0f} MiB {one['seconds']:.1f} s" for one in pair))
    return found


@pytest.mark.tf
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", CELLS)
def test_the_changed_cell_copies_little_of_the_arrays(grown, name):
    before, after = grown[name]
    assert before > 0.9
    assert after < 0.4
