"""Models that no rule of the memory model was made from: ready-made ones at small inputs, and what people write."""

from __future__ import annotations

from dataclasses import dataclass

FIT = "model.fit(x, y, batch_size={batch}, epochs=1, verbose=0, shuffle=False)"


@dataclass(frozen=True, slots=True)
class Unseen:
    """A model: ``code`` defines ``build()``, ``data`` are ``n`` samples, ``cell`` trains it at ``batch``."""

    code: str
    data: str
    batch: int
    cell: str = FIT


def _ready_made(name: str, size: int, batch: int, optimizer: str = "adam") -> Unseen:
    """Give one of ``keras.applications``."""
    arguments = f"input_shape=({size}, {size}, 3), weights=None, classes=10, classifier_activation=None"
    code = f"def build(): return compiled(keras.applications.{name}({arguments}), {optimizer!r})"
    return Unseen(code, f"images(n, {size}), labels(n)", batch)


UNSEEN = {
    "MobileNetV3Small": _ready_made("MobileNetV3Small", 64, 96),
    "EfficientNetB0": _ready_made("EfficientNetB0", 32, 96),
    "Xception": _ready_made("Xception", 71, 16, "sgd"),
    "InceptionV3": _ready_made("InceptionV3", 75, 32, "sgd"),
    "NASNetMobile": _ready_made("NASNetMobile", 32, 64),
    "ConvNeXtTiny": _ready_made("ConvNeXtTiny", 32, 64, "sgd"),
    "VGG like": Unseen(
        """def build():
    i = x = keras.Input((64, 64, 3))
    for width in (16, 32, 64):
        x = L.Conv2D(width, 3, padding='same', activation='relu')(x)
        x = L.Conv2D(width, 3, padding='same', activation='relu')(x)
        x = L.MaxPooling2D()(x)
    x = L.Dropout(0.5)(L.Dense(256, activation='relu')(L.Flatten()(x)))
    return compiled(keras.Model(i, L.Dense(10)(x)))""",
        "images(n, 64), labels(n)",
        96,
    ),
    "U-Net": Unseen(
        """def build():
    def twice(x, width):
        for _ in range(2): x = L.Activation('relu')(L.BatchNormalization()(L.Conv2D(width, 3, padding='same')(x)))
        return x
    i = x = keras.Input((48, 48, 3)); skips = []
    for width in (16, 32):
        x = twice(x, width); skips.append(x); x = L.MaxPooling2D()(x)
    x = twice(x, 64)
    for width, skip in zip((32, 16), skips[::-1]):
        x = twice(L.Concatenate()([L.Conv2DTranspose(width, 2, strides=2)(x), skip]), width)
    return compiled(keras.Model(i, L.Conv2D(1, 1)(x)), loss=keras.losses.BinaryCrossentropy(from_logits=True))""",
        "images(n, 48), rows(n, 48, 48, 1)",
        64,
    ),
    "autoencoder": Unseen(
        """def build():
    return compiled(keras.Sequential([keras.Input((32, 32, 3)),
        L.Conv2D(32, 3, strides=2, padding='same', activation='elu'), L.Conv2D(64, 3, strides=2, padding='same', activation='elu'),
        L.Flatten(), L.Dense(64), L.Dense(8 * 8 * 64), L.Reshape((8, 8, 64)),
        L.Conv2DTranspose(64, 3, strides=2, padding='same', activation='elu'),
        L.Conv2DTranspose(32, 3, strides=2, padding='same', activation='elu'), L.Conv2D(3, 3, padding='same')]), loss='mse')""",
        "(lambda x: (x, x))(images(n))",
        256,
    ),
    "ViT": Unseen(
        """def build():
    class Patches(L.Layer):
        def __init__(self, count, width):
            super().__init__(); self.cut = L.Conv2D(width, 4, strides=4); self.place = L.Embedding(count, width)
        def call(self, x):
            x = self.cut(x); x = keras.ops.reshape(x, (-1, x.shape[1] * x.shape[2], x.shape[3]))
            return x + self.place(keras.ops.arange(x.shape[1]))
    i = keras.Input((32, 32, 3)); x = Patches(64, 96)(i)
    for _ in range(3):
        h = L.LayerNormalization(epsilon=1e-6)(x)
        x = x + L.MultiHeadAttention(6, 16, dropout=0.1)(h, h)
        h = L.LayerNormalization(epsilon=1e-6)(x)
        x = x + L.Dropout(0.1)(L.Dense(96)(L.Dense(192, activation='gelu')(h)))
    return compiled(keras.Model(i, L.Dense(10)(L.Flatten()(L.LayerNormalization()(x)))), keras.optimizers.AdamW(1e-3))""",
        "images(n), labels(n)",
        96,
    ),
    "encoder and decoder": Unseen(
        """class Block(L.Layer):
    def __init__(self, width, heads, causal):
        super().__init__(); self.causal = causal
        self.own, self.other = L.MultiHeadAttention(heads, width // heads), L.MultiHeadAttention(heads, width // heads)
        self.norms = [L.LayerNormalization() for _ in range(3)]
        self.wide, self.back = L.Dense(4 * width, activation='relu'), L.Dense(width)
    def call(self, x, memory=None):
        x = self.norms[0](x + self.own(x, x, use_causal_mask=self.causal))
        if memory is not None: x = self.norms[1](x + self.other(x, memory))
        return self.norms[2](x + self.back(self.wide(x)))
def build():
    a, b = keras.Input((40,), dtype='int32'), keras.Input((32,), dtype='int32')
    m = L.Embedding(3000, 96)(a); t = L.Embedding(3000, 96)(b)
    for _ in range(2): m = Block(96, 4, False)(m)
    for _ in range(2): t = Block(96, 4, True)(t, m)
    return compiled(keras.Model([a, b], L.Dense(3000)(t)))""",
        "[tokens(n, 40), tokens(n, 32)], tokens(n, 32)",
        64,
    ),
    "recurrent stack": Unseen(
        """def build():
    return compiled(keras.Sequential([keras.Input((48, 16)), L.LSTM(96, return_sequences=True), L.Dropout(0.2),
        L.GRU(96, return_sequences=True), L.LSTM(64), L.Dense(32, activation='tanh'), L.Dense(1)]), 'rmsprop', 'mse')""",
        "rows(n, 48, 16), rows(n, 1)",
        512,
    ),
    "seq2seq with attention": Unseen(
        """def build():
    a, b = keras.Input((24,), dtype='int32'), keras.Input((20,), dtype='int32')
    memory, h, c = L.LSTM(96, return_sequences=True, return_state=True)(L.Embedding(2000, 64)(a))
    t = L.LSTM(96, return_sequences=True)(L.Embedding(2000, 64)(b), initial_state=[h, c])
    t = L.Concatenate()([t, L.AdditiveAttention()([t, memory])])
    return compiled(keras.Model([a, b], L.Dense(2000)(t)))""",
        "[tokens(n, 24, 2000), tokens(n, 20, 2000)], tokens(n, 20, 2000)",
        96,
    ),
    "WaveNet like": Unseen(
        """def build():
    i = keras.Input((256, 1)); x = L.Conv1D(32, 1)(i); out = []
    for dilation in (1, 2, 4, 8, 16):
        gate = L.Multiply()([L.Conv1D(32, 2, padding='causal', dilation_rate=dilation, activation=f)(x) for f in ('tanh', 'sigmoid')])
        out.append(L.Conv1D(32, 1)(gate)); x = L.Add()([x, L.Conv1D(32, 1)(gate)])
    x = L.Conv1D(64, 1, activation='relu')(L.ReLU()(L.Add()(out)))
    return compiled(keras.Model(i, L.Conv1D(1, 1)(x)), loss='mse')""",
        "rows(n, 256, 1), rows(n, 256, 1)",
        128,
    ),
    "two towers": Unseen(
        """def build():
    a, b = keras.Input((1,), dtype='int32'), keras.Input((10,), dtype='int32')
    u = L.Dense(64)(L.Flatten()(L.Embedding(50000, 64)(a)))
    v = L.Dense(64)(L.GlobalAveragePooling1D()(L.Embedding(30000, 64)(b)))
    return compiled(keras.Model([a, b], L.Dense(1)(L.Dot(1)([u, v]))), loss='mse')""",
        "[tokens(n, 1, 50000), tokens(n, 10, 30000)], rows(n, 1)",
        16384,
    ),
    "table": Unseen(
        """def build():
    i = x = keras.Input((40,))
    for width in (512, 512, 256):
        x = L.Dropout(0.3)(L.Activation('swish')(L.BatchNormalization()(L.Dense(width)(x))))
    return compiled(keras.Model(i, L.Dense(1, activation='sigmoid')(x)), loss='binary_crossentropy')""",
        "rows(n, 40), rng.integers(0, 2, (n, 1)).astype('float32')",
        8192,
    ),
    "frames": Unseen(
        """def build():
    i = x = keras.Input((6, 20, 20, 1))
    for width in (12, 16): x = L.LayerNormalization()(L.ConvLSTM2D(width, 3, padding='same', return_sequences=True)(x))
    return compiled(keras.Model(i, L.Conv3D(1, 3, padding='same', activation='sigmoid')(x)), loss='mse')""",
        "rows(n, 6, 20, 20, 1), rows(n, 6, 20, 20, 1)",
        48,
    ),
    "GAN, a loop of one's own": Unseen(
        """def build():
    maker = keras.Sequential([keras.Input((64,)), L.Dense(8 * 8 * 64), L.Reshape((8, 8, 64)), L.BatchNormalization(), L.LeakyReLU(),
        L.Conv2DTranspose(32, 4, strides=2, padding='same'), L.BatchNormalization(), L.LeakyReLU(),
        L.Conv2DTranspose(3, 4, strides=2, padding='same', activation='tanh')])
    judge = keras.Sequential([keras.Input((32, 32, 3)), L.Conv2D(32, 4, strides=2, padding='same'), L.LeakyReLU(), L.Dropout(0.3),
        L.Conv2D(64, 4, strides=2, padding='same'), L.LeakyReLU(), L.Flatten(), L.Dense(1)])
    one, two = keras.optimizers.Adam(1e-4), keras.optimizers.Adam(1e-4)
    say = keras.losses.BinaryCrossentropy(from_logits=True)
    @tf.function
    def step(real):
        noise = tf.random.normal((tf.shape(real)[0], 64))
        with tf.GradientTape() as a, tf.GradientTape() as b:
            fake = maker(noise, training=True)
            yes, no = judge(real, training=True), judge(fake, training=True)
            for_maker = say(tf.ones_like(no), no)
            for_judge = say(tf.ones_like(yes), yes) + say(tf.zeros_like(no), no)
        one.apply_gradients(zip(a.gradient(for_maker, maker.trainable_variables), maker.trainable_variables))
        two.apply_gradients(zip(b.gradient(for_judge, judge.trainable_variables), judge.trainable_variables))
    return step""",
        "images(n), labels(n)",
        256,
        "for real in tf.data.Dataset.from_tensor_slices(x).batch({batch}): model(real)",
    ),
}
"""By name; ``model`` is what ``build()`` returns."""
