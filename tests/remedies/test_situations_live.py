"""Data that ran out outside any model, for real: the first button makes it fit."""

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
