"""Models that nobody looked at before they were measured, the first four, the mixer, the graphs and the signals; the others wait to be.

One that has driven a change of the rules moves to :mod:`.unseen_models`.
"""

from __future__ import annotations

from tests.benchmarks.estimates.unseen_models import Unseen

FRESH = {
    "siamese": Unseen(
        """def build():
    one = keras.Sequential([keras.Input((40, 40, 1)), L.Conv2D(24, 5, activation='relu'), L.MaxPooling2D(),
        L.Conv2D(48, 3, activation='relu'), L.MaxPooling2D(), L.Conv2D(96, 3, activation='relu'), L.Flatten(), L.Dense(64)])
    a, b = keras.Input((40, 40, 1)), keras.Input((40, 40, 1))
    apart = L.Lambda(lambda t: keras.ops.abs(t[0] - t[1]))([one(a), one(b)])
    return compiled(keras.Model([a, b], L.Dense(1, activation='sigmoid')(apart)), loss='binary_crossentropy')""",
        "[rows(n, 40, 40, 1), rows(n, 40, 40, 1)], rng.integers(0, 2, (n, 1)).astype('float32')",
        192,
    ),
    "critic with a gradient penalty": Unseen(
        """class Pair(keras.Model):
    def __init__(self):
        super().__init__()
        self.maker = keras.Sequential([keras.Input((48,)), L.Dense(7 * 7 * 48), L.Reshape((7, 7, 48)), L.LeakyReLU(),
            L.UpSampling2D(), L.Conv2D(32, 3, padding='same'), L.BatchNormalization(), L.LeakyReLU(),
            L.UpSampling2D(), L.Conv2D(1, 3, padding='same', activation='tanh')])
        self.critic = keras.Sequential([keras.Input((28, 28, 1)), L.Conv2D(32, 5, strides=2, padding='same'), L.LeakyReLU(),
            L.Conv2D(64, 5, strides=2, padding='same'), L.LeakyReLU(), L.Dropout(0.3), L.Flatten(), L.Dense(1)])
    def compile(self, one, two):
        super().compile(); self.one, self.two = one, two
    def train_step(self, real):
        n = tf.shape(real)[0]
        with tf.GradientTape() as tape:
            fake = self.maker(tf.random.normal((n, 48)), training=True)
            mixed = real + tf.random.uniform((n, 1, 1, 1)) * (fake - real)
            with tf.GradientTape() as inner:
                inner.watch(mixed); said = self.critic(mixed, training=True)
            slope = tf.sqrt(tf.reduce_sum(tf.square(inner.gradient(said, mixed)), [1, 2, 3]) + 1e-8)
            cost = tf.reduce_mean(self.critic(fake, training=True)) - tf.reduce_mean(self.critic(real, training=True))
            cost += 10.0 * tf.reduce_mean((slope - 1.0) ** 2)
        grads = tape.gradient(cost, self.critic.trainable_variables)
        self.two.apply_gradients(zip(grads, self.critic.trainable_variables))
        with tf.GradientTape() as tape:
            lost = -tf.reduce_mean(self.critic(self.maker(tf.random.normal((n, 48)), training=True), training=True))
        grads = tape.gradient(lost, self.maker.trainable_variables)
        self.one.apply_gradients(zip(grads, self.maker.trainable_variables))
        return {'cost': cost, 'lost': lost}
def build():
    model = Pair(); model.compile(keras.optimizers.Adam(1e-4, 0.5), keras.optimizers.Adam(1e-4, 0.5))
    return model""",
        "rows(n, 28, 28, 1), None",
        192,
        "model.fit(x, batch_size={batch}, epochs=1, verbose=0, shuffle=False)",
    ),
    "temporal convolutions": Unseen(
        """def build():
    i = x = keras.Input((300, 6))
    for dilation in (1, 2, 4, 8):
        h = x
        for _ in range(2):
            h = L.Conv1D(48, 3, padding='causal', dilation_rate=dilation)(h)
            h = L.SpatialDropout1D(0.1)(L.ReLU()(L.LayerNormalization()(h)))
        x = L.ReLU()(L.Add()([h, L.Conv1D(48, 1)(x)]))
    return compiled(keras.Model(i, L.Dense(1)(L.Lambda(lambda t: t[:, -1])(x))), 'nadam', 'mae')""",
        "rows(n, 300, 6), rows(n, 1)",
        96,
    ),
    "text in pictures": Unseen(
        """def build():
    i = x = keras.Input((32, 96, 1))
    for width in (24, 48, 64):
        x = L.BatchNormalization()(L.Conv2D(width, 3, padding='same', activation='relu')(x))
        x = L.MaxPooling2D((2, 2) if width < 64 else (2, 1))(x)
    x = L.Reshape((24, 4 * 64))(L.Permute((2, 1, 3))(x))
    for _ in range(2): x = L.Bidirectional(L.LSTM(64, return_sequences=True))(x)
    return compiled(keras.Model(i, L.Dense(30)(x)))""",
        "rows(n, 32, 96, 1), rng.integers(0, 30, (n, 24)).astype('int32')",
        96,
    ),
    "volumes": Unseen(
        """def build():
    i = keras.Input((16, 24, 24, 1))
    a = L.Conv3D(8, 3, padding='same', activation='relu')(i); a = L.Conv3D(12, 3, padding='same', activation='relu')(a)
    b = L.MaxPooling3D()(a); b = L.Conv3D(24, 3, padding='same', activation='relu')(b)
    b = L.Conv3DTranspose(12, 2, strides=2)(b)
    x = L.Conv3D(12, 3, padding='same', activation='relu')(L.Concatenate()([a, b]))
    return compiled(keras.Model(i, L.Conv3D(1, 1, activation='sigmoid')(x)), loss='binary_crossentropy')""",
        "rows(n, 16, 24, 24, 1), rng.integers(0, 2, (n, 16, 24, 24, 1)).astype('float32')",
        24,
    ),
    "mixer": Unseen(
        """def build():
    def mlp(x, inside, out): return L.Dense(out)(L.Dense(inside, activation='gelu')(x))
    i = keras.Input((32, 32, 3)); x = L.Reshape((64, 128))(L.Conv2D(128, 4, strides=4)(i))
    for _ in range(4):
        h = L.Permute((2, 1))(L.LayerNormalization()(x))
        x = L.Add()([x, L.Permute((2, 1))(mlp(h, 96, 64))])
        x = L.Add()([x, mlp(L.LayerNormalization()(x), 256, 128)])
    return compiled(keras.Model(i, L.Dense(10)(L.GlobalAveragePooling1D()(L.LayerNormalization()(x)))), 'adamw')""",
        "images(n), labels(n)",
        128,
    ),
    "graphs": Unseen(
        """class Spread(L.Layer):
    def __init__(self, width):
        super().__init__(); self.own, self.near = L.Dense(width), L.Dense(width, use_bias=False)
    def call(self, given):
        x, edges = given
        share = edges / (tf.reduce_sum(edges, -1, keepdims=True) + 1e-6)
        return tf.nn.relu(self.own(x) + tf.matmul(share, self.near(x)))
def build():
    x, edges = keras.Input((60, 12)), keras.Input((60, 60)); h = x
    for width in (64, 96, 96): h = L.Dropout(0.2)(Spread(width)([h, edges]))
    return compiled(keras.Model([x, edges], L.Dense(10)(L.GlobalMaxPooling1D()(h))))""",
        "[rows(n, 60, 12), rng.random((n, 60, 60)).astype('float32')], labels(n)",
        256,
    ),
    "gated both ways": Unseen(
        """def build():
    i = keras.Input((36,), dtype='int32'); x = L.Embedding(4000, 72)(i)
    for width in (72, 48): x = L.Bidirectional(L.GRU(width, return_sequences=True))(x)
    x = L.Bidirectional(L.GRU(32))(L.Dropout(0.3)(x))
    return compiled(keras.Model(i, L.Dense(10)(x)), 'rmsprop')""",
        "tokens(n, 36, 4000), labels(n)",
        384,
    ),
    "inverted bottlenecks": Unseen(
        """def build():
    i = keras.Input((48, 48, 3)); x = L.Conv2D(16, 3, strides=2, padding='same', activation='swish')(i)
    for width, stride in ((16, 1), (24, 2), (24, 1), (40, 2), (40, 1)):
        h = L.Activation('swish')(L.BatchNormalization()(L.Conv2D(4 * x.shape[-1], 1, use_bias=False)(x)))
        h = L.Activation('swish')(L.BatchNormalization()(L.DepthwiseConv2D(3, strides=stride, padding='same', use_bias=False)(h)))
        gate = L.Dense(h.shape[-1], activation='sigmoid')(L.Dense(8, activation='swish')(L.GlobalAveragePooling2D(keepdims=True)(h)))
        h = L.BatchNormalization()(L.Conv2D(width, 1, use_bias=False)(L.Multiply()([h, gate])))
        x = L.Add()([x, h]) if x.shape == h.shape else h
    return compiled(keras.Model(i, L.Dense(10)(L.GlobalAveragePooling2D()(x))), keras.optimizers.SGD(0.1, momentum=0.9))""",
        "images(n, 48), labels(n)",
        128,
    ),
    "dense connections": Unseen(
        """def build():
    i = keras.Input((32, 32, 3)); x = L.Conv2D(24, 3, padding='same')(i)
    for block in range(3):
        for _ in range(4):
            h = L.Conv2D(12, 3, padding='same')(L.ReLU()(L.BatchNormalization()(x)))
            x = L.Concatenate()([x, h])
        if block < 2: x = L.AveragePooling2D()(L.Conv2D(x.shape[-1] // 2, 1)(L.ReLU()(L.BatchNormalization()(x))))
    return compiled(keras.Model(i, L.Dense(10)(L.GlobalAveragePooling2D()(L.ReLU()(x)))))""",
        "images(n), labels(n)",
        96,
    ),
    "signals": Unseen(
        """def build():
    i = x = keras.Input((512, 2))
    for width in (32, 64, 96): x = L.PReLU(shared_axes=[1])(L.Conv1D(width, 9, strides=2, padding='same')(x))
    for width in (96, 64, 32): x = L.PReLU(shared_axes=[1])(L.Conv1DTranspose(width, 9, strides=2, padding='same')(x))
    return compiled(keras.Model(i, L.Conv1D(2, 9, padding='same')(x)), loss='mse')""",
        "(lambda x: (x, x))(rows(n, 512, 2))",
        128,
    ),
    "next tokens": Unseen(
        """def build():
    i = keras.Input((48,), dtype='int32')
    x = L.Embedding(2000, 96)(i) + L.Embedding(48, 96)(keras.ops.arange(48))
    for _ in range(3):
        h = L.LayerNormalization()(x)
        x = L.Add()([x, L.Dropout(0.1)(L.MultiHeadAttention(4, 24)(h, h, use_causal_mask=True))])
        x = L.Add()([x, L.Dropout(0.1)(L.Dense(96)(L.Dense(384, activation='relu')(L.LayerNormalization()(x))))])
    return compiled(keras.Model(i, L.Dense(2000)(L.LayerNormalization()(x))))""",
        "tokens(n, 48, 2000), tokens(n, 48, 2000)",
        64,
    ),
}
"""By name; ``model`` is what ``build()`` returns."""
