"""What each remedy saves, on real models: ``python -m tests.benchmarks.remedies``.

Each cell runs as it is in a fresh kernel; then every change that the remedies offer for it runs in a kernel of its
own. Peaks are the allocator's counter on the CPU with the GPU's allocator; times are the processor time of the second
epoch, so that other work on the machine counts little. The result is the same where the weights after both epochs lie
within one percent (of the way that training moved them) of those that the cell as it was came to, from the same seed.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.benchmarks.table import machine
from tests.kernel import Kernel, bfc

LIMIT_MIB = 6000

SETUP = """%load_ext tf_mem_magic
import json, time
import keras, numpy as np, tensorflow as tf
from keras import layers
keras.utils.set_random_seed(0)
def weights_now():
    models = [v for n, v in sorted(globals().items()) if isinstance(v, keras.Model) and n[0] != "_"]
    return np.concatenate([np.ravel(w) for m in {id(m): m for m in models}.values() for w in m.get_weights()])
class Clock(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 0 and not hasattr(self, "start"): self.start = weights_now()
        self.began = time.process_time()
    def on_epoch_end(self, epoch, logs=None): self.seconds = time.process_time() - self.began
clock = Clock()
rng = np.random.default_rng(0)"""

PROPOSALS = """
from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.lineage import Lineage
from tf_mem_magic.core.proposals import Context, Proposal
from tf_mem_magic.remedies._engine.ranking import propose_all
from tf_mem_magic.diagnose.breakdown import break_down
_peak = _r.recording.main.peak
_trains = ("model.fit(", "    train_step(")
_lines = enumerate(_r.recording.cell.source.split("\\n"), 1)
_line = max(number for number, line in _lines if any(word in line for word in _trains))
_d = Diagnosis("CPU:0", line=_line, in_use=_peak, limit=_peak,
               breakdown=break_down(_r.recording, "CPU:0", _peak))
_all = propose_all(Context(_r.recording.cell, _r.recording, _d))
_offered = [p for p in _all if isinstance(p, Proposal) and p.takes_effect == "rerun" and not p.new_cell]
print(json.dumps([(p.key, p.title, p.source) for p in _offered]))"""

RESULT = "print(json.dumps((_r.status, _r.recording.main.peak, getattr(clock, 'seconds', None))))"

KEEP = "np.savez({path!r}, start=clock.start, end=weights_now())"

COMPARE = """_b, _w = np.load({path!r}), weights_now()
_moved = np.linalg.norm(_b["end"] - _b["start"])
_same_start = _w.shape == _b["start"].shape and np.allclose(clock.start, _b["start"])
print(float(np.linalg.norm(_w - _b["end"]) / _moved) if _same_start and _moved else "")"""

SAME = 0.01
"""How far two trainings may end apart, as a share of the way that training went, to count as the same result."""


def images(name: str, arguments: str, size: int, batch: int) -> str:
    """Write the cell that trains one of Keras's own image models."""
    return f"""x = rng.random(({2 * batch}, {size}, {size}, 3), dtype="float32"); y = rng.integers(0, 10, {2 * batch})
model = keras.applications.{name}(weights=None, input_shape=({size}, {size}, 3), classes=10{arguments})
model.compile("adam", "sparse_categorical_crossentropy")
model.fit(x, y, batch_size={batch}, epochs=2, verbose=0, callbacks=[clock]);"""


CELLS = {
    "MobileNetV2": images("MobileNetV2", "", 96, 32),
    "ResNet50": images("ResNet50", "", 64, 16),
    "EfficientNetB0": images("EfficientNetB0", "", 64, 16),
    "transformer": """x = rng.integers(0, 500, (64, 128)); y = rng.integers(0, 10, 64)
inputs = keras.Input((128,), dtype="int32")
h = layers.Embedding(500, 64)(inputs)
def encoder(h, dropout):
    attended = layers.MultiHeadAttention(4, 16, dropout=dropout)(h, h)
    h = layers.LayerNormalization()(h + layers.Dropout(dropout)(attended))
    fed = layers.Dense(64)(layers.Dense(256, activation="gelu")(h))
    return layers.LayerNormalization()(h + layers.Dropout(dropout)(fed))
for _ in range(4):
    h = encoder(h, 0.1)
model = keras.Model(inputs, layers.Dense(10, activation="softmax")(layers.GlobalAveragePooling1D()(h)))
model.compile("adam", "sparse_categorical_crossentropy")
model.fit(x, y, batch_size=32, epochs=2, verbose=0, callbacks=[clock]);""",
    "LSTM": """x = rng.random((128, 100, 32), dtype="float32"); y = rng.random((128, 1), dtype="float32")
model = keras.Sequential([keras.Input((100, 32)), layers.LSTM(128, return_sequences=True), layers.LSTM(64), layers.Dense(1)])
model.compile("adam", "mse")
model.fit(x, y, batch_size=64, epochs=2, verbose=0, callbacks=[clock]);""",
    "subclassed MLP": """class Net(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden = [layers.Dense(1024, activation="relu") for _ in range(3)]
        self.last = layers.Dense(1)
    def call(self, inputs):
        for layer in self.hidden:
            inputs = layer(inputs)
        return self.last(inputs)
x = rng.random((8192, 64), dtype="float32"); y = rng.random((8192, 1), dtype="float32")
model = Net()
model(x[:1])
model.compile("adam", "mse")
model.fit(x, y, batch_size=4096, epochs=2, verbose=0, callbacks=[clock]);""",
    "GAN, own loop": """x = rng.random((2048, 784), dtype="float32")
BATCH_SIZE = 1024
make = lambda n, out: keras.Sequential([keras.Input((n,)), layers.Dense(512, "relu"), layers.Dense(512, "relu"), layers.Dense(out)])
generator, critic = make(64, 784), make(784, 1)
g_opt, c_opt = keras.optimizers.Adam(), keras.optimizers.Adam()
bce = keras.losses.BinaryCrossentropy(from_logits=True)
@tf.function
def train_step(real):
    noise = tf.random.normal([BATCH_SIZE, 64])
    with tf.GradientTape() as g_tape, tf.GradientTape() as c_tape:
        fake = generator(noise, training=True)
        real_out, fake_out = critic(real, training=True), critic(fake, training=True)
        g_loss = bce(tf.ones_like(fake_out), fake_out)
        c_loss = bce(tf.ones_like(real_out), real_out) + bce(tf.zeros_like(fake_out), fake_out)
    g_opt.apply_gradients(zip(g_tape.gradient(g_loss, generator.trainable_variables), generator.trainable_variables))
    c_opt.apply_gradients(zip(c_tape.gradient(c_loss, critic.trainable_variables), critic.trainable_variables))
dataset = tf.data.Dataset.from_tensor_slices(x).batch(BATCH_SIZE, drop_remainder=True)
for epoch in range(2):
    clock.on_epoch_begin(epoch)
    for batch in dataset:
        train_step(batch)
    clock.on_epoch_end(epoch)""",
}
"""Cells in the styles of notebooks; one line of each trains."""


@dataclass(frozen=True)
class Measured:
    """One run: its status, the peak in bytes, the seconds of the second epoch (None: not told)."""

    status: str
    peak: int
    seconds: float | None


def run(source: str, then: str) -> tuple[Measured, str]:
    """Run a cell in a fresh kernel; give what was measured, and what the code ``then`` printed."""
    with Kernel(bfc(LIMIT_MIB)) as kernel:
        kernel.run(SETUP)
        kernel.run(source)
        kernel.run("import tf_mem_magic\n_r = tf_mem_magic.last_report()")
        told = kernel.run(RESULT).out
        measured = Measured(*json.loads(told)) if told else Measured("the kernel gave no answer", 0, None)
        return measured, kernel.run(then).out


def row_of(before: Measured, after: Measured, apart: str) -> str:
    """Give the table's last four columns; ``apart``: how far the weights ended apart, as printed."""
    if after.status != "ok":
        return f"{before.peak / 2**20:.0f} → – ({after.status}) | – | – | –"
    times = f"× {after.seconds / before.seconds:.2f}" if before.seconds and after.seconds else "–"
    same = "not comparable"
    if apart.strip():
        same = "yes" if float(apart) <= SAME else f"no ({100 * float(apart):.0f} % apart)"
    ratio = f"{after.peak / before.peak:.2f}"
    return f"{before.peak / 2**20:.0f} → {after.peak / 2**20:.0f} | {ratio} | {times} | {same}"


def main() -> int:
    """Measure and print one Markdown table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.remedies", description=__doc__)
    parser.add_argument("model", nargs="*", choices=[[], *CELLS], help=f"which to run: {', '.join(CELLS)}")
    names = parser.parse_args().model or list(CELLS)
    begin = machine()
    heading = "| model | remedy | peak before → after, MiB | ratio | processor time of an epoch | same result |"
    print(f"{heading}\n|---|---|---|---|---|---|", flush=True)
    with TemporaryDirectory() as folder:
        kept = str(Path(folder, "weights.npz"))
        for name in names:
            print(f"measuring: {name} …", file=sys.stderr)
            before, offered = run(f"%%tfmem --no-live\n{CELLS[name]}", f"{PROPOSALS}\n{KEEP.format(path=kept)}")
            for key, title, source in json.loads(offered):
                after, apart = run(source, COMPARE.format(path=kept))
                print(f"| {name} | {key}: {title} | {row_of(before, after, apart)} |", flush=True)
    print(f"\nAt the start: {begin}\nAt the end: {machine()}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
