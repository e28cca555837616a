"""Models with layers and steps of the notebook's own, in the styles of published examples: written small, for 16 bits.

Each cell leaves ``model``, compiled, with ``x`` and ``y`` to train it on.
"""

from __future__ import annotations

IMPORTS = "import numpy as np\nimport tensorflow as tf\nimport keras\nfrom keras import layers, ops\nrng = np.random.default_rng(0)\n"

_ROWS = "x = rng.standard_normal((16, 8)).astype('float32')\ny = x[:, :1]\n"
_IMAGES = "x = rng.random((8, 16, 16, 3)).astype('float32')\ny = np.arange(8) % 4\n"
_TOKENS = "x = rng.integers(0, 50, (8, 12))\ny = np.arange(8) % 2\n"
_COMPILE = "model.compile('adam', 'mse', jit_compile=False)\n"
_CLASSES = "model.compile('adam', keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)\n"

MODELS = {
    "patches and positions of a vision transformer": (
        "class Patches(layers.Layer):\n    def __init__(self, size):\n        super().__init__()\n        self.size = size\n"
        "    def call(self, images):\n        patches = ops.image.extract_patches(images, size=self.size)\n"
        "        return ops.reshape(patches, (ops.shape(images)[0], -1, 4 * 4 * 3))\n"
        "class PatchEncoder(layers.Layer):\n    def __init__(self, n, dim):\n        super().__init__()\n        self.n = n\n"
        "        self.projection = layers.Dense(dim)\n        self.position = layers.Embedding(n, dim)\n"
        "    def call(self, patch):\n        positions = ops.expand_dims(ops.arange(start=0, stop=self.n, step=1), axis=0)\n"
        "        return self.projection(patch) + self.position(positions)\n"
        "inputs = keras.Input((16, 16, 3))\nh = PatchEncoder(16, 8)(Patches(4)(inputs))\n"
        "h = layers.Add()([layers.MultiHeadAttention(2, 4)(h, h), h])\nh = layers.Flatten()(layers.LayerNormalization()(h))\n"
        "model = keras.Model(inputs, layers.Dense(4)(h))\n" + _CLASSES + _IMAGES
    ),
    "tokens and positions of a transformer": (
        "class TokenAndPosition(layers.Layer):\n    def __init__(self, maxlen, vocab, dim):\n        super().__init__()\n"
        "        self.token, self.pos = layers.Embedding(vocab, dim), layers.Embedding(maxlen, dim)\n"
        "    def call(self, x):\n        positions = tf.range(start=0, limit=tf.shape(x)[-1], delta=1)\n"
        "        return self.token(x) + self.pos(positions)\n"
        "class Block(layers.Layer):\n    def __init__(self, dim):\n        super().__init__()\n        self.att = layers.MultiHeadAttention(2, dim)\n"
        "        self.ffn = keras.Sequential([layers.Dense(dim, 'relu'), layers.Dense(dim)])\n        self.norm = layers.LayerNormalization()\n"
        "    def call(self, x):\n        return self.norm(x + self.ffn(self.att(x, x)))\n"
        "inputs = keras.Input((12,), dtype='int32')\nh = Block(8)(TokenAndPosition(12, 50, 8)(inputs))\n"
        "model = keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling1D()(h)))\n" + _CLASSES + _TOKENS
    ),
    "sines of positions from a table": (
        "def encoding(n, d):\n    at = np.arange(n)[:, None] / 10000 ** (np.arange(d)[None] / d)\n    return tf.cast(np.sin(at), tf.float32)\n"
        "class Positions(layers.Layer):\n    def __init__(self, d):\n        super().__init__()\n        self.embedding, self.table = layers.Embedding(50, d), encoding(64, d)\n"
        "    def call(self, x):\n        h = self.embedding(x)\n        return h + self.table[: tf.shape(x)[1]]\n"
        "model = keras.Sequential([keras.Input((12,), dtype='int32'), Positions(8), layers.GlobalAveragePooling1D(), layers.Dense(8), layers.Dense(2)])\n"
        + _CLASSES + _TOKENS
    ),
    "a graph convolution by its adjacency": (
        "class GraphConv(layers.Layer):\n    def __init__(self, units, adjacency):\n        super().__init__()\n        self.adjacency = tf.constant(adjacency, tf.float32)\n        self.dense = layers.Dense(units)\n"
        "    def call(self, x):\n        return tf.einsum('ij,bjf->bif', self.adjacency, self.dense(x))\n"
        "adjacency = np.eye(8)\nmodel = keras.Sequential([keras.Input((8, 3)), GraphConv(4, adjacency), layers.Flatten(), layers.Dense(1)])\n"
        + _COMPILE + "x = rng.random((8, 8, 3)).astype('float32')\ny = x[:, 0, :1]\n"
    ),
    "sampling of a variational autoencoder": (
        "class Sampling(layers.Layer):\n    def __init__(self, **kwargs):\n        super().__init__(**kwargs)\n        self.seed = keras.random.SeedGenerator(1337)\n"
        "    def call(self, inputs):\n        mean, log_var = inputs\n        epsilon = keras.random.normal(shape=ops.shape(mean), seed=self.seed)\n"
        "        return mean + ops.exp(0.5 * log_var) * epsilon\n"
        "inputs = keras.Input((8,))\nh = layers.Dense(8, 'relu')(inputs)\nz = Sampling()([layers.Dense(2)(h), layers.Dense(2)(h)])\n"
        "model = keras.Model(inputs, layers.Dense(1)(layers.Dense(8)(z)))\n" + _COMPILE + _ROWS
    ),
    "a variational autoencoder with its own step": (
        "class VAE(keras.Model):\n    def __init__(self):\n        super().__init__()\n        self.encoder = keras.Sequential([layers.Dense(8, 'relu'), layers.Dense(4)])\n"
        "        self.decoder = keras.Sequential([layers.Dense(8, 'relu'), layers.Dense(8)])\n"
        "    def call(self, x):\n        mean, log_var = tf.split(self.encoder(x), 2, axis=1)\n        noise = tf.random.normal(tf.shape(mean), dtype=mean.dtype)\n"
        "        return self.decoder(mean + tf.exp(0.5 * log_var) * noise)\n"
        "    def train_step(self, data):\n        x, y = data\n        with tf.GradientTape() as tape:\n            loss = tf.reduce_mean(tf.square(x - self(x)))\n"
        "        grads = tape.gradient(loss, self.trainable_weights)\n        self.optimizer.apply_gradients(zip(grads, self.trainable_weights))\n        return {'loss': loss}\n"
        "model = VAE()\nmodel.compile('adam', jit_compile=False)\n" + _ROWS + "model(x[:2])\n"
    ),
    "a generator and a critic with a gradient penalty": (
        "class WGAN(keras.Model):\n    def __init__(self, critic, generator):\n        super().__init__()\n        self.critic, self.generator = critic, generator\n"
        "    def call(self, x):\n        return self.critic(x)\n"
        "    def train_step(self, data):\n        real, _ = data\n        n = tf.shape(real)[0]\n        noise = tf.random.normal((n, 4))\n"
        "        with tf.GradientTape() as tape:\n            fake = self.generator(noise)\n            alpha = tf.random.normal((n, 1), 0.0, 1.0)\n"
        "            with tf.GradientTape() as inner:\n                between = real + alpha * (fake - real)\n                inner.watch(between)\n                told = self.critic(between)\n"
        "            slope = inner.gradient(told, between)\n            loss = tf.reduce_mean(self.critic(fake)) - tf.reduce_mean(self.critic(real)) + tf.reduce_mean(tf.square(slope))\n"
        "        grads = tape.gradient(loss, self.critic.trainable_variables)\n        self.optimizer.apply_gradients(zip(grads, self.critic.trainable_variables))\n        return {'loss': loss}\n"
        "critic = keras.Sequential([keras.Input((8,)), layers.Dense(8), layers.Dense(1)])\ngenerator = keras.Sequential([keras.Input((4,)), layers.Dense(8), layers.Dense(8)])\n"
        "model = WGAN(critic, generator)\nmodel.compile('adam', jit_compile=False)\n" + _ROWS + "model(x[:2])\n"
    ),
    "a step that weighs inner features in 32 bits": (
        "class Net(keras.Model):\n    def __init__(self):\n        super().__init__()\n        self.body, self.head = layers.Dense(8), keras.Sequential([layers.Dense(4), layers.Dense(1)])\n"
        "        self.center = self.add_weight(shape=(8,), initializer='zeros', trainable=False)\n    def call(self, x):\n        return self.head(self.body(x))\n"
        "    def train_step(self, data):\n        x, y = data\n        with tf.GradientTape() as tape:\n            features = self.body(x)\n            loss = tf.reduce_mean(tf.square(self.head(features) - y))\n"
        "            loss += tf.reduce_mean(tf.square(features - tf.zeros((1, 8))))\n"
        "        grads = tape.gradient(loss, self.trainable_variables)\n        self.optimizer.apply_gradients(zip(grads, self.trainable_variables))\n        return {'loss': loss}\n"
        "model = Net()\nmodel.compile('adam', jit_compile=False)\n" + _ROWS + "model(x[:2])\n"
    ),
    "a model that only trains two others": (
        "class Pair(keras.Model):\n    def __init__(self, maker, judge):\n        super().__init__()\n        self.maker, self.judge = maker, judge\n"
        "    def compile(self):\n        super().compile(jit_compile=False)\n        self.of_maker, self.of_judge = keras.optimizers.Adam(), keras.optimizers.Adam()\n"
        "    def train_step(self, data):\n        rows, wanted = data\n        noise = tf.concat([tf.random.normal(tf.shape(rows)), wanted], 1)\n"
        "        made = tf.concat([tf.concat([self.maker(noise), wanted], 1), tf.concat([rows, wanted], 1)], 0)\n"
        "        with tf.GradientTape() as tape:\n            told = tf.reduce_mean(self.judge(made) ** 2)\n"
        "        self.of_judge.apply_gradients(zip(tape.gradient(told, self.judge.trainable_weights), self.judge.trainable_weights))\n"
        "        with tf.GradientTape() as tape:\n            lost = tf.reduce_mean(self.judge(tf.concat([self.maker(noise), wanted], 1)))\n"
        "        self.of_maker.apply_gradients(zip(tape.gradient(lost, self.maker.trainable_weights), self.maker.trainable_weights))\n"
        "        return {'told': told, 'lost': lost}\n"
        "maker = keras.Sequential([keras.Input((9,)), layers.Dense(16, 'relu'), layers.Dense(8)])\n"
        "judge = keras.Sequential([keras.Input((9,)), layers.Dense(16, 'relu'), layers.Dense(1)])\n"
        "model = Pair(maker, judge)\nmodel.compile()\n" + _ROWS
    ),
    "a model that only trains another, and mixes": (
        "class Learns(keras.Model):\n    def __init__(self, small):\n        super().__init__()\n        self.small = small\n"
        "        self.early, self.late = small.layers\n"
        "    def train_step(self, data):\n        rows, wanted = data\n        with tf.GradientTape() as tape:\n"
        "            inner = self.early(rows)\n            lost = tf.reduce_mean((self.late(inner) - wanted) ** 2) + tf.reduce_mean(inner * rows)\n"
        "        self.optimizer.apply_gradients(zip(tape.gradient(lost, self.small.trainable_weights), self.small.trainable_weights))\n"
        "        return {'lost': lost}\n"
        "model = Learns(keras.Sequential([keras.Input((8,)), layers.Dense(8), layers.Dense(1)]))\n" + _COMPILE + _ROWS
    ),
    "stochastic depth": (
        "class StochasticDepth(layers.Layer):\n    def __init__(self, drop):\n        super().__init__()\n        self.drop = drop\n"
        "    def call(self, x, training=None):\n        if training:\n            keep = 1 - self.drop\n            shape = (tf.shape(x)[0],) + (1,) * (len(x.shape) - 1)\n"
        "            return x / keep * tf.floor(keep + tf.random.uniform(shape, 0, 1))\n        return x\n"
        "inputs = keras.Input((8,))\nh = layers.Dense(8)(inputs)\nh = layers.Add()([h, StochasticDepth(0.1)(layers.Dense(8)(h))])\nmodel = keras.Model(inputs, layers.Dense(1)(h))\n"
        + _COMPILE + _ROWS
    ),
    "a mask of padding in 32 bits": (
        "class MaskedMean(layers.Layer):\n    def call(self, inputs):\n        h, ids = inputs\n        mask = tf.cast(ids > 0, tf.float32)[:, :, None]\n        return tf.reduce_sum(tf.multiply(h, mask), 1) / tf.reduce_sum(mask, 1)\n"
        "ids = keras.Input((12,), dtype='int32')\nh = layers.Embedding(50, 8)(ids)\nh = layers.Dense(8)(MaskedMean()([h, ids]))\nmodel = keras.Model(ids, layers.Dense(2)(h))\n"
        + _CLASSES + _TOKENS
    ),
    "a spectrum": (
        "class Spectrum(layers.Layer):\n    def call(self, x):\n        return tf.abs(tf.signal.rfft(x))\n"
        "model = keras.Sequential([keras.Input((8,)), layers.Dense(8), Spectrum(), layers.Dense(4), layers.Dense(1)])\n" + _COMPILE + _ROWS
    ),
    "a spectrum that casts itself": (
        "class Spectrum(layers.Layer):\n    def call(self, x):\n        return tf.cast(tf.abs(tf.signal.rfft(tf.cast(x, tf.float32))), x.dtype)\n"
        "model = keras.Sequential([keras.Input((8,)), layers.Dense(8), Spectrum(), layers.Dense(4), layers.Dense(1)])\n" + _COMPILE + _ROWS
    ),
    "distances of a siamese network": (
        "def distance(pair):\n    a, b = pair\n    return tf.math.sqrt(tf.math.maximum(tf.math.reduce_sum(tf.math.square(a - b), axis=1, keepdims=True), 1e-7))\n"
        "one, two = keras.Input((8,)), keras.Input((8,))\ntower = keras.Sequential([layers.Dense(8, 'relu'), layers.Dense(4)])\n"
        "h = layers.Lambda(distance, output_shape=(1,))([tower(one), tower(two)])\nmodel = keras.Model([one, two], layers.Dense(1)(layers.BatchNormalization()(h)))\n"
        + _COMPILE + _ROWS + "x = (x, x[::-1].copy())\n"
    ),
    "a class token and weights of its own": (
        "class ClassToken(layers.Layer):\n    def build(self, shape):\n        self.token = self.add_weight(shape=(1, 1, shape[-1]), initializer='zeros')\n"
        "    def call(self, x):\n        return tf.concat([tf.broadcast_to(tf.cast(self.token, x.dtype), (tf.shape(x)[0], 1, x.shape[-1])), x], 1)\n"
        "model = keras.Sequential([keras.Input((12,), dtype='int32'), layers.Embedding(50, 8), ClassToken(), layers.Flatten(), layers.Dense(8), layers.Dense(2)])\n"
        + _CLASSES + _TOKENS
    ),
    "a physical unit that is kept as a tensor": (
        "scale = tf.constant([2.0] * 8)\nclass Scaled(layers.Layer):\n    def call(self, x):\n        return scale * x\n"
        "model = keras.Sequential([keras.Input((8,)), layers.Dense(8), Scaled(), layers.Dense(4), layers.Dense(1)])\n" + _COMPILE + _ROWS
    ),
    "relative positions from an array": (
        "class Relative(layers.Layer):\n    def __init__(self, n):\n        super().__init__()\n        self.bias = self.add_weight(shape=(2 * n, 1), initializer='zeros')\n"
        "        at = np.arange(n)\n        self.index = (at[:, None] - at[None, :] + n).reshape(-1)\n        self.n = n\n"
        "    def call(self, x):\n        bias = ops.reshape(ops.take(self.bias, self.index, axis=0), (self.n, self.n))\n        return ops.matmul(ops.softmax(ops.matmul(x, ops.transpose(x, (0, 2, 1))) + bias), x)\n"
        "model = keras.Sequential([keras.Input((6, 4)), layers.Dense(4), Relative(6), layers.Flatten(), layers.Dense(4), layers.Dense(1)])\n"
        + _COMPILE + "x = rng.random((8, 6, 4)).astype('float32')\ny = x[:, 0, :1]\n"
    ),
}  # fmt: skip
