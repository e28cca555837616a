"""Situations that a smaller batch cannot help, for real: the first button makes them fit."""

from __future__ import annotations

import pytest

from tests.kernel import Kernel, bfc
from tests.native.ramgpu import CannotBuildError, ramgpu_env

pytestmark = [pytest.mark.kernel, pytest.mark.tf]

REPORT = "__import__('tf_mem_magic').last_report()"
OFFERED = f"[p.key for p in {REPORT}.proposals if hasattr(p, 'source')]"


@pytest.fixture(scope="module")
def gpu(tmp_path_factory):
    try:
        env = ramgpu_env(tmp_path_factory.mktemp("gpu"), mib=64)
    except CannotBuildError as reason:
        pytest.skip(str(reason))
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
        kernel.run("%load_ext tf_mem_magic\nimport tensorflow as tf\nimport numpy as np")
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
    cpu.run("""import keras
from keras import layers
inp = keras.Input((32, 32, 3))
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
z = tf.random.normal((4, 32, 32, 3))""")
    cpu.run("%%tfmem\nwith tf.GradientTape() as g:\n    out = net(z)\njac = g.jacobian(out, net.weights)", timeout=120)
    if cpu.value(f"{REPORT}.status") == "ok":
        pytest.skip("all rows at once fitted with this TensorFlow")
    assert cpu.value(OFFERED)[:1] == ["jacobian-row-by-row"]
    cpu.run(f"again = {REPORT}.rerun('jacobian-row-by-row')", timeout=120)
    assert cpu.value("again.status") == "ok"
    assert cpu.value("jac[-2].shape.as_list()") == [4, 64, 16, 64]


def test_a_list_of_models_keeps_their_weights_and_the_loop_ends(cpu):
    cpu.run("""def build():
    m = keras.Sequential([keras.Input((1024,)), layers.Dense(2048), layers.Dense(1)])
    m.compile('adam', 'mse')
    return m
X, Y = np.zeros((64, 1024), 'float32'), np.zeros((64, 1), 'float32')""")
    loop = "models = []\nfor fold in range(9):\n    m = build()\n    m.fit(X, Y, verbose=0)\n    models.append(m)"
    cpu.run(f"%%tfmem\n{loop}", timeout=200)
    assert "keeps" in cpu.value(f"{REPORT}.diagnosis.situation.text")
    assert cpu.value(OFFERED)[:1] == ["collect-garbage"]
    cpu.run(f"again = {REPORT}.rerun('collect-garbage')", timeout=200)
    assert cpu.value("(again.status, len(models), models[0][0].shape)") == ("ok", 9, (1024, 2048))
