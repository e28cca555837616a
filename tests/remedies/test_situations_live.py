"""Situations that a smaller batch cannot help, for real: the first button makes them fit."""

from __future__ import annotations

import pytest

from tests.kernel import Kernel, bfc
from tests.native.ramgpu import CannotBuildError, ramgpu_env
from tests.needs import lacking

pytestmark = [pytest.mark.kernel, pytest.mark.tf]

REPORT = "__import__('tf_mem_magic').last_report()"
OFFERED = f"[p.key for p in {REPORT}.proposals if hasattr(p, 'source')]"


@pytest.fixture(scope="module")
def gpu(tmp_path_factory):
    try:
        env = ramgpu_env(tmp_path_factory.mktemp("gpu"), mib=64)
    except CannotBuildError as reason:
        lacking(reason)
    with Kernel(env={**env, "CUDA_VISIBLE_DEVICES": ""}) as kernel:
        kernel.run("%load_ext tf_mem_magic\nimport tensorflow as tf\nimport numpy as np")
        yield kernel


def test_arrays_that_would_go_to_a_gpu_as_a_whole_stay_on_the_host(gpu):
    gpu.run("x = np.arange(40 * 2**20, dtype='float32').reshape(40, -1)")
    gpu.run("%%tfmem\nds = tf.data.Dataset.from_tensor_slices(x).batch(4)", timeout=120)
    assert gpu.value(f"{REPORT}.diagnosis.situation.kind") == "constant"
    assert gpu.value(OFFERED)[:1] == ["keep-on-host"]
    gpu.run(f"again = {REPORT}.rerun('keep-on-host')", timeout=120)
    assert gpu.value("again.status") == "ok"
    assert gpu.value("float(sum(tf.reduce_sum(b[:, 0]) for b in ds)) == float(x[:, 0].sum())") is True


@pytest.fixture(scope="module")
def cpu():
    with Kernel(env=bfc(200)) as kernel:
        kernel.run("%load_ext tf_mem_magic\nimport tensorflow as tf, numpy as np, keras\nfrom keras import layers")
        yield kernel


def test_rows_that_do_not_fit_together_are_computed_in_chunks_with_the_same_result(cpu):
    cpu.run("images = np.random.default_rng(0).random((600, 32, 32, 3), dtype='float32')")
    cpu.run("%%tfmem\nbig = tf.image.resize(images, (224, 224))", timeout=120)
    assert cpu.value(OFFERED)[:1] == ["rows-in-chunks"]
    cpu.run(f"again = {REPORT}.rerun('rows-in-chunks')", timeout=120)
    assert cpu.value("again.status") == "ok"
    assert cpu.value("big.shape") == (600, 224, 224, 3)
    assert cpu.value("bool(np.array_equal(big[500:504], tf.image.resize(images[500:504], (224, 224)).numpy()))") is True


def test_results_that_predict_keeps_on_the_device_are_computed_in_parts(cpu):
    cpu.run("""inp = keras.Input((32, 32, 3))
up = keras.Model(inp, layers.Conv2D(8, 3, padding='same')(layers.UpSampling2D(4)(inp)))
x = np.random.default_rng(0).random((280, 32, 32, 3), dtype='float32')""")
    cpu.run("%%tfmem\npred = up.predict(x, batch_size=4, verbose=0)", timeout=120)
    assert cpu.value(f"{REPORT}.diagnosis.situation.kind") == "outputs"
    assert cpu.value(OFFERED)[:1] == ["outputs-to-host"]
    cpu.run(f"again = {REPORT}.rerun('outputs-to-host')", timeout=120)
    assert cpu.value("again.status") == "ok"
    assert cpu.value("pred.shape") == (280, 128, 128, 8)
    assert cpu.value("bool(np.array_equal(pred[100:104], up.predict(x[100:104], verbose=0)))") is True
    cpu.run("del pred, x")


def test_the_rows_of_a_jacobian_are_computed_one_after_the_other_with_the_same_result(cpu):
    cpu.run("""net = keras.Sequential([keras.Input((32, 32, 3)), layers.Conv2D(16, 3, activation='relu', padding='same'),
    layers.Conv2D(16, 3, activation='relu', padding='same'), layers.GlobalAveragePooling2D(), layers.Dense(64)])
z = tf.random.normal((6, 32, 32, 3))""")
    cell = """%%tfmem
with tf.GradientTape(persistent=False) as g:
    out = net(z)
jac = g.jacobian(out, net.weights)"""
    cpu.run(cell, timeout=120)
    assert cpu.value(f"{REPORT}.status") == "oom"
    assert cpu.value(OFFERED)[:1] == ["jacobian-row-by-row"]
    cpu.run(f"again = {REPORT}.rerun('jacobian-row-by-row')", timeout=240)
    assert cpu.value("again.status") == "ok"
    cpu.run("""def row(sample, unit):
    with tf.GradientTape() as tape:
        one = net(z)[sample, unit]
    return tape.gradient(one, net.weights)
same = [all(np.allclose(j[at], r, atol=1e-5) for j, r in zip(jac, row(*at))) for at in ((0, 0), (2, 17), (5, 63))]""")
    assert cpu.value("same") == [True, True, True]
    assert cpu.value("jac[-2].shape.as_list()") == [6, 64, 16, 64]


def test_a_callback_calls_its_model_on_some_samples_at_a_time_with_the_same_result(cpu):
    cpu.run("""deep = keras.Sequential([keras.Input((64, 64, 3)), layers.Conv2D(32, 3, padding='same', activation='relu'),
    layers.GlobalAveragePooling2D(), layers.Dense(10)])
deep.compile('sgd', 'mse')
few, few_y = np.random.rand(16, 64, 64, 3).astype('float32'), np.zeros((16, 10), 'float32')
many = np.random.rand(600, 64, 64, 3).astype('float32')""")
    cpu.run("""class Other(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        self.last = self.model(few, training=False)
class Score(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        self.out = self.model(many, training=False)""")
    cpu.run(
        "%%tfmem\nscore = Score()\ndeep.fit(few, few_y, batch_size=8, verbose=0, callbacks=[Other(), score])",
        timeout=120,
    )
    assert cpu.value(OFFERED)[:1] == ["callback-in-batches"]
    cpu.run(f"again = {REPORT}.rerun('callback-in-batches')", timeout=120)
    assert cpu.value("again.status") == "ok"
    assert cpu.value("np.allclose(score.out, deep.predict(many, verbose=0), atol=1e-5)") is True
    cpu.run("del many, score, deep")


def test_a_list_of_models_keeps_the_weights_of_the_trained_ones_and_the_loop_ends(cpu):
    cpu.run("""def build():
    m = keras.Sequential([keras.Input((1024,)), layers.Dense(2048), layers.Dense(1)])
    m.compile('adam', 'mse')
    return m
X, Y = np.random.rand(64, 1024).astype('float32'), np.ones((64, 1), 'float32')""")
    loop = """models, told = [], []
for fold in range(14):
    m = build()
    models.append(m)
    m.fit(X, Y, verbose=0)
    told.append(m.predict(X, verbose=0))"""
    cpu.run(f"%%tfmem\n{loop}", timeout=200)
    assert "keeps" in cpu.value(f"{REPORT}.diagnosis.situation.text")
    assert cpu.value(OFFERED)[:1] == ["collect-garbage"]
    cpu.run(f"again = {REPORT}.rerun('collect-garbage')", timeout=200)
    assert cpu.value("(again.status, len(models), models[0][0].shape)") == ("ok", 14, (1024, 2048))
    cpu.run("""m, same = build(), []
for weights, before in zip(models, told):
    m.set_weights(weights)
    same.append(np.allclose(m.predict(X, verbose=0), before, atol=1e-5))""")
    assert cpu.value("same") == [True] * 14
