"""Capture what real out-of-memory errors of several causes record: ``PYTHONPATH=. python tests/data/capture_situations.py``.

Each case runs in a kernel of its own, on a CPU with the allocator and the limit (MiB) given here.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from tests.data.capture_errors import without_folders
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
    "kfold_list": (
        250,
        """def build():
    m = keras.Sequential([keras.Input((1024,)), layers.Dense(2048, activation='relu'), layers.Dense(1)])
    m.compile('adam', 'mse')
    return m
X, Y = np.random.rand(200, 1024).astype('float32'), np.random.rand(200, 1).astype('float32')""",
        """models, scores = [], []
for fold in range(12):
    m = build()
    h = m.fit(X, Y, batch_size=32, epochs=1, verbose=0)
    scores.append(h.history['loss'][-1])
    models.append(m)
print(np.mean(scores))""",
    ),
    "predict_concat": (
        300,
        """inp = keras.Input((32, 32, 3))
h = layers.UpSampling2D(4)(layers.Conv2D(16, 3, padding='same', activation='relu')(inp))
model = keras.Model(inp, layers.Conv2D(8, 3, padding='same')(h))
x = np.zeros((400, 32, 32, 3), 'float32')""",
        """pred = model.predict(x, batch_size=4, verbose=0)
print(pred.shape)""",
    ),
    "shuffle_buffer": (
        250,
        """def load(i):
    return tf.zeros((128, 128, 3)) + tf.cast(i, 'float32'), tf.cast(i % 10, 'float32')
model = keras.Sequential([keras.Input((128, 128, 3)), layers.Conv2D(8, 3, strides=2, activation='relu'), layers.GlobalAveragePooling2D(), layers.Dense(1)])
model.compile('adam', 'mse')""",
        """ds = tf.data.Dataset.range(3000).map(load).shuffle(3000).batch(8)
model.fit(ds, epochs=1, verbose=0)""",
    ),
    "epoch_end": (
        250,
        """model = keras.Sequential([keras.Input((64, 64, 3)), layers.Conv2D(32, 3, padding='same', activation='relu'), layers.GlobalAveragePooling2D(), layers.Dense(10)])
model.compile('adam', 'mse')
x, y = np.zeros((64, 64, 64, 3), 'float32'), np.zeros((64, 10))
x_val = np.zeros((600, 64, 64, 3), 'float32')
class Score(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        out = self.model(x_val, training=False)
        print('score', float(tf.reduce_mean(out)))""",
        """model.fit(x, y, batch_size=8, epochs=3, callbacks=[Score()], verbose=0)""",
    ),
    "tape_over_loop": (
        250,
        """net = keras.Sequential([keras.Input((64, 64, 3)), layers.Conv2D(16, 3, padding='same', activation='relu'), layers.GlobalAveragePooling2D(), layers.Dense(1)])
opt = keras.optimizers.Adam(1e-3)
data = tf.data.Dataset.from_tensor_slices((np.zeros((800, 64, 64, 3), 'float32'), np.zeros((800, 1), 'float32'))).batch(16)""",
        """with tf.GradientTape() as tape:
    total = 0.
    for xb, yb in data:
        total += tf.reduce_mean((net(xb, training=True) - yb) ** 2)
grads = tape.gradient(total, net.trainable_variables)
opt.apply_gradients(zip(grads, net.trainable_variables))""",
    ),
    "longer": (
        250,
        """inp = keras.Input((None,), dtype='int32')
h = layers.Embedding(500, 64)(inp)
a = layers.MultiHeadAttention(4, 16)(h, h)
model = keras.Model(inp, layers.Dense(2)(layers.GlobalAveragePooling1D()(a + h)))
model.compile('adam', keras.losses.SparseCategoricalCrossentropy(from_logits=True))
rng = np.random.default_rng(0)
lengths = [40] * 160 + [900] * 16
texts = [rng.integers(0, 500, n).astype('int32') for n in lengths]
def gen():
    for t in texts:
        yield t, 0""",
        """ds = tf.data.Dataset.from_generator(gen, output_signature=(tf.TensorSpec((None,), tf.int32), tf.TensorSpec((), tf.int32))).padded_batch(16)
model.fit(ds, epochs=1, verbose=0)""",
    ),
    "leftovers_and_batch": (
        300,
        """old = keras.Sequential([keras.Input((2048,)), layers.Dense(4096), layers.Dense(2048)])
old.compile('adam', 'mse')
old.fit(np.zeros((8, 2048), 'float32'), np.zeros((8, 2048)), verbose=0)
model = keras.Sequential([keras.Input((64,64,3)), layers.Conv2D(32,3,padding='same',activation='relu'), layers.Conv2D(32,3,padding='same',activation='relu'), layers.GlobalAveragePooling2D(), layers.Dense(10)])
model.compile('adam', 'mse')
x, y = np.zeros((256,64,64,3),'float32'), np.zeros((256,10))""",
        """model.fit(x, y, batch_size=256, verbose=0)""",
    ),
    "long_attention": (
        300,
        """inp = keras.Input((2048,), dtype='int32')
h = layers.Embedding(500, 64)(inp)
for _ in range(2):
    h = layers.LayerNormalization()(h + layers.MultiHeadAttention(8, 8)(h, h))
model = keras.Model(inp, layers.Dense(2)(layers.GlobalAveragePooling1D()(h)))
model.compile('adam', keras.losses.SparseCategoricalCrossentropy(from_logits=True))
x, y = np.zeros((8, 2048), 'int32'), np.zeros(8)""",
        """model.fit(x, y, batch_size=1, epochs=1, verbose=0)""",
    ),
    "whole_arrays": (
        274,
        """rng = np.random.default_rng(0)
encoder_input = keras.utils.to_categorical(rng.integers(0, 80, (1500, 17)), 80)
decoder_input, decoder_target = (keras.utils.to_categorical(rng.integers(0, 104, (1500, 72)), 104) for _ in range(2))
one, two = keras.Input((None, 80)), keras.Input((None, 104))
_, *states = layers.LSTM(256, return_state=True)(one)
out, _, _ = layers.LSTM(256, return_sequences=True, return_state=True)(two, initial_state=states)
model = keras.Model([one, two], layers.Dense(104, activation='softmax')(out))
model.compile('rmsprop', 'categorical_crossentropy')""",
        """model.fit(x=[encoder_input, decoder_input], y=decoder_target, batch_size=256, epochs=1, verbose=0, validation_split=0.2)""",
    ),
    "style_transfer": (
        150,
        """vgg = keras.applications.VGG19(weights=None, include_top=False)
features = keras.Model(vgg.inputs, {layer.name: layer.output for layer in vgg.layers})
content, style = (tf.random.uniform((1, 96, 144, 3)) * 255 for _ in range(2))
final = tf.Variable(content)
opt = keras.optimizers.SGD(100.0)
@tf.function
def step():
    with tf.GradientTape() as tape:
        found = features(tf.concat([content, style, final], 0))
        loss = sum(tf.reduce_mean((found[name][1] - found[name][2]) ** 2) for name in ('block1_conv1', 'block3_conv1'))
        loss += tf.reduce_mean((found['block5_conv2'][0] - found['block5_conv2'][2]) ** 2)
    return tape.gradient(loss, final)""",
        """for i in range(2):
    opt.apply_gradients([(step(), final)])""",
    ),
    "jacobian": (
        150,
        """net = keras.Sequential([keras.Input((32, 32, 3)), layers.Conv2D(16, 3, activation='relu', padding='same'), layers.Conv2D(16, 3, activation='relu', padding='same'), layers.GlobalAveragePooling2D(), layers.Dense(64)])
x = tf.random.normal((4, 32, 32, 3))""",
        """with tf.GradientTape() as g:
    out = net(x)
jac = g.jacobian(out, net.trainable_variables)
print([j.shape for j in jac])""",
    ),
    "caught": (
        150,
        """model = keras.Sequential([keras.Input((64,64,3)), layers.Conv2D(32,3,padding='same',activation='relu'), layers.Conv2D(32,3,padding='same',activation='relu'), layers.GlobalAveragePooling2D(), layers.Dense(10)])
model.compile('adam', 'mse')
x, y = np.zeros((128,64,64,3),'float32'), np.zeros((128,10))""",
        """for bs in (128, 64, 8):
    try:
        model.fit(x, y, batch_size=bs, verbose=0)
        break
    except tf.errors.ResourceExhaustedError:
        print('too big', bs)""",
    ),
}


def capture(name: str) -> None:
    """Run one case and write its recording, with the last samples of its allocators only."""
    mib, *cells = CASES[name]
    target = FOLDER / f"{name}.json"
    with Kernel(env=bfc(mib)) as kernel:
        for cell in ("%load_ext tf_mem_magic", IMPORTS, *cells[:-1]):
            kernel.run(cell)
        kernel.run(f"%%tfmem\n{cells[-1]}", timeout=280)
        kernel.run(f"import tf_mem_magic\ntf_mem_magic.last_report().save({str(target)!r}, full=True)")
    recording = load(target).recording
    own = [one for one in recording.series if one.kind == "allocator"]
    series = tuple(replace(one, times=one.times[-3:], values=one.values[-3:]) for one in own)
    text = encode(replace(recording, series=series, stderr="")).decode()
    target.write_text(without_folders(text), encoding="utf-8")


if __name__ == "__main__":
    for case in sys.argv[1:] or CASES:
        capture(case)
