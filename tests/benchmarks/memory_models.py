"""Small models of many kinds, to hold the memory model against: half were used to build it, half were not."""

HEAD = """
import numpy as np, keras, tensorflow as tf
from keras import layers as L
rng = np.random.default_rng(0)
images = lambda n, s=32: rng.standard_normal((n, s, s, 3)).astype("float32")
labels = lambda n: rng.integers(0, 10, n).astype("int32")
tokens = lambda n, t=64, v=3000: rng.integers(0, v, (n, t)).astype("int32")
rows = lambda n, *shape: rng.standard_normal((n, *shape)).astype("float32")
CE = lambda: keras.losses.SparseCategoricalCrossentropy(from_logits=True)

def compiled(model, optimizer="adam", loss=None):
    model.compile(optimizer, loss or CE(), jit_compile=False)
    return model

def block(x, width=128, heads=4, dropout=0.0):
    x = L.LayerNormalization()(x + L.MultiHeadAttention(heads, width // heads, dropout=dropout)(x, x))
    return L.LayerNormalization()(x + L.Dense(width)(L.Dense(4 * width, activation="gelu")(x)))

def application(name, size=32):
    build = getattr(keras.applications, name)
    return compiled(build(input_shape=(size, size, 3), weights=None, classes=10, classifier_activation=None))
"""

DEVELOPMENT = {
    "conv stack": (
        "model = compiled(keras.Sequential([keras.Input((32, 32, 3)), *(l for _ in range(4) for l in (L.Conv2D(32, 3, "
        "activation='relu', padding='same'), L.BatchNormalization())), L.GlobalAveragePooling2D(), L.Dense(10)]))",
        "images(n), labels(n)",
        256,
    ),
    "dense stack": (
        "model = compiled(keras.Sequential([keras.Input((64,)), *(L.Dense(1024, activation='relu') for _ in range(4)), "
        "L.Dense(10)]))",
        "rows(n, 64), labels(n)",
        8192,
    ),
    "transformer": (
        "i = keras.Input((64,), dtype='int32'); x = L.Embedding(3000, 128)(i); x = block(block(x)); "
        "model = compiled(keras.Model(i, L.Dense(10)(L.GlobalAveragePooling1D()(x))))",
        "tokens(n), labels(n)",
        128,
    ),
    "lstm": (
        "model = compiled(keras.Sequential([keras.Input((30,), dtype='int32'), L.Embedding(3000, 128), "
        "L.LSTM(128, return_sequences=True), L.LSTM(128), L.Dense(10)]))",
        "tokens(n, 30), labels(n)",
        512,
    ),
    "ResNet50": ("model = application('ResNet50')", "images(n), labels(n)", 128),
}
"""Code, data for ``n`` samples, and the batch that is to run out."""

HELD_OUT = {
    "conv1d": (
        "model = compiled(keras.Sequential([keras.Input((256, 8)), L.Conv1D(64, 7, padding='same', activation='swish'), "
        "L.SeparableConv1D(64, 5), L.LayerNormalization(), L.SpatialDropout1D(0.2), L.AveragePooling1D(2), L.Flatten(), "
        "L.Dense(10)]), 'sgd')",
        "rows(n, 256, 8), labels(n)",
        256,
    ),
    "conv3d": (
        "model = compiled(keras.Sequential([keras.Input((8, 20, 20, 3)), L.Conv3D(16, 3, activation='relu'), "
        "L.MaxPooling3D((1, 2, 2)), L.Conv3D(32, 3, activation='relu'), L.Flatten(), L.Dense(10)]))",
        "rows(n, 8, 20, 20, 3), labels(n)",
        256,
    ),
    "embedding": (
        "i = keras.Input((20,), dtype='int32'); x = L.Flatten()(L.Embedding(20000, 64)(i)); "
        "model = compiled(keras.Model(i, L.Dense(10)(L.Dense(256, activation='relu')(x))))",
        "tokens(n, 20, 20000), labels(n)",
        8192,
    ),
    "gru both ways": (
        "model = compiled(keras.Sequential([keras.Input((20, 32)), L.Bidirectional(L.GRU(96, return_sequences=True)), "
        "L.GlobalMaxPooling1D(), L.Dense(10)]), 'rmsprop')",
        "rows(n, 20, 32), labels(n)",
        1024,
    ),
    "subclassed": (
        "class Net(keras.Model):\n"
        "    def __init__(self):\n"
        "        super().__init__(); self.convs = [L.Conv2D(32, 3, padding='same', activation='relu') for _ in range(5)]\n"
        "        self.out = L.Dense(10)\n"
        "    def call(self, x):\n"
        "        for conv in self.convs: x = conv(x)\n"
        "        return self.out(tf.reduce_mean(x, (1, 2)))\n"
        "model = compiled(Net())",
        "images(n), labels(n)",
        256,
    ),
    "MobileNetV2": ("model = application('MobileNetV2')", "images(n), labels(n)", 128),
    "DenseNet121": ("model = application('DenseNet121')", "images(n), labels(n)", 64),
    "mixed precision": (
        "keras.config.set_dtype_policy('mixed_float16')\n"
        "model = compiled(keras.Sequential([keras.Input((32, 32, 3)), *(L.Conv2D(32, 3, activation='relu', "
        "padding='same') for _ in range(6)), L.GlobalAveragePooling2D(), L.Dense(10, dtype='float32')]))",
        "images(n), labels(n)",
        256,
    ),
}
