"""Memory growth for real: on the GPU made of RAM, in the cell and after a restart."""

import os
import subprocess
import sys

import pytest

from tests.kernel import Kernel
from tests.native.ramgpu import CannotBuildError, ramgpu_env
from tests.needs import lacking
from tf_mem_magic.core.facts import DeviceFacts, Facts, ProcessFacts
from tf_mem_magic.core.proposals import Context, Declined
from tf_mem_magic.core.recording import Cell, Recording
from tf_mem_magic.remedies.memory_growth import propose
from tf_mem_magic.session.restarts.restart import prologue_for

SOURCE = "%%tfmem\nmodel.fit(x, y)\n"


def answer(*devices, initialised=True, source=SOURCE):
    cell = Cell(source)
    facts = Facts(tensorflow="2.16.1", initialised=initialised, devices=devices)
    (only,) = propose(Context(cell, Recording(cell, facts=facts)))
    return only


SHARED = DeviceFacts("GPU:0", growth=False, others=(ProcessFacts(1),))
ALONE = DeviceFacts("GPU:0", growth=False, others=())


def test_once_tensorflow_runs_it_takes_a_restart_and_leaves_the_cell_alone():
    proposal = answer(SHARED)
    assert ("restart", "", (("TF_FORCE_GPU_ALLOW_GROWTH", "true"),)) == (
        proposal.takes_effect,
        proposal.diff,
        proposal.environment,
    )


def test_before_tensorflow_runs_it_takes_effect_at_once_and_visibly():
    proposal = answer(SHARED, initialised=False)
    assert ("rerun", (), "") == (proposal.takes_effect, proposal.environment, proposal.prologue)
    assert "+    tf.config.experimental.set_memory_growth(gpu, True)" in proposal.diff


def test_results_stay_the_same_and_nothing_is_estimated():
    assert ("same results", None) == (answer(SHARED).preserves, answer(SHARED).estimate)


def test_where_nobody_else_uses_the_card_it_is_reached_under_other_settings():
    declined = answer(ALONE)
    assert isinstance(declined, Declined)
    assert "restart" == declined.settings.takes_effect


def test_a_cell_of_comments_only_gets_its_lines_at_the_end():
    assert answer(SHARED, initialised=False, source="# to do").source.startswith("# to do\nimport tensorflow as tf\n")


@pytest.fixture(scope="module")
def gpu(tmp_path_factory):
    try:
        return ramgpu_env(tmp_path_factory.mktemp("gpu"), mib=64)
    except CannotBuildError as reason:
        lacking(reason)


GROWTH = 'tf.config.experimental.get_memory_growth(tf.config.list_physical_devices("GPU")[0])'
INITIALISED = "__import__('sys').modules['tensorflow.python.eager.context']._context._initialized"


@pytest.fixture(scope="module")
def restarted(gpu, tmp_path_factory):
    """A kernel whose GPU was set up without growth, then a new one that ran the prologue first."""
    found = {}
    env = {**gpu, "IPYTHONDIR": str(tmp_path_factory.mktemp("ipython"))}
    with Kernel(env) as old:
        old.run("import tensorflow as tf\nwith tf.device('GPU:0'): x = tf.identity(tf.zeros((4,)))")
        found["late"] = old.run(
            "for gpu in tf.config.list_physical_devices('GPU'): tf.config.experimental.set_memory_growth(gpu, True)"
        ).errors
    with Kernel(env) as new:
        found["prologue"] = new.run(prologue_for(answer(SHARED), "a-rerun")).errors
        found["names"] = new.value("[n for n in ('tf', 'gpu', 'os', '_tfmem_prologue') if n in globals()]")
        new.run("import tensorflow as tf")
        found["growth"] = new.value(GROWTH)
        found["asleep"] = new.value(INITIALISED)
        new.run("with tf.device('GPU:0'): x = tf.identity(tf.zeros((4,)))")
        found["growth after"] = new.value(GROWTH)
        found["device"] = new.value("x.device[-5:]")
    return found


@pytest.mark.tf
@pytest.mark.kernel
@pytest.mark.oldest
def test_a_kernel_whose_gpu_is_set_up_cannot_be_changed(restarted):
    assert [True] == ["cannot be modified after being initialized" in text for text in restarted["late"]]


@pytest.mark.tf
@pytest.mark.kernel
@pytest.mark.oldest
def test_in_the_new_kernel_growth_is_on_before_anything_ran(restarted):
    assert ([], True, False) == (restarted["prologue"], restarted["growth"], restarted["asleep"])


@pytest.mark.tf
@pytest.mark.kernel
@pytest.mark.oldest
def test_the_prologue_leaves_no_name_in_the_notebook(restarted):
    assert [] == restarted["names"]


@pytest.mark.tf
@pytest.mark.kernel
@pytest.mark.oldest
def test_growth_is_still_on_once_the_gpu_is_used(restarted):
    assert (True, "GPU:0") == (restarted["growth after"], restarted["device"])


@pytest.mark.tf
def test_the_lines_in_the_cell_set_growth_in_a_fresh_process(gpu):
    cell = answer(SHARED, initialised=False, source="print('cell ran')\n").source + f"print({GROWTH})\n"
    env = {**os.environ, **gpu, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run([sys.executable, "-c", cell], env=env, capture_output=True, text=True, timeout=240)
    assert ["cell ran", "True"] == done.stdout.split("\n")[-3:-1], done.stderr[-2000:]


def test_a_cell_that_sets_growth_itself_is_left_alone():
    answer_ = answer(SHARED, initialised=False, source="tf.config.experimental.set_memory_growth(gpu, True)\nfit()\n")
    assert "the cell sets memory growth itself" == answer_.reason


def test_the_lines_stand_outside_a_text_that_ends_on_the_first_line():
    source = '"""Train.\n"""; model.fit(x, y)\n'
    assert answer(SHARED, initialised=False, source=source).source.endswith(f"True)\n{source}")


def test_a_future_import_that_shares_its_line_is_not_parted():
    source = "from __future__ import annotations; model.fit(x, y)\n"
    assert "must come first" in answer(SHARED, initialised=False, source=source).reason
