"""The remedy ``device-limit``: the share it names, and the limit that the new kernel really has."""

import pytest

from tests.kernel import Kernel
from tests.native.ramgpu import CannotBuildError, ramgpu_env
from tests.needs import lacking
from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.facts import DeviceFacts, Facts, ProcessFacts
from tf_mem_magic.core.proposals import Context
from tf_mem_magic.core.recording import Cell, Recording
from tf_mem_magic.core.units import GIB, MIB
from tf_mem_magic.remedies.device_limit import propose
from tf_mem_magic.session.restarts.restart import prologue_for

SOURCE = "%%tfmem\nmodel.fit(x, y)\n"
OTHER = ProcessFacts(4121, "alice", 10 * GIB)


def answer(*others, device="GPU:1", total=24 * GIB, requested=GIB, in_use=7 * GIB):
    cell = Cell(SOURCE)
    cards = (
        DeviceFacts("GPU:0", compute_capability=(8, 0), total=total, others=()),
        DeviceFacts("GPU:1", compute_capability=(8, 0), total=total, others=others),
    )
    facts = Facts("2.21.0", initialised=True, devices=cards)
    diagnosis = Diagnosis(device, requested=requested, in_use=in_use, cause="other-process")
    (only,) = propose(Context(cell, Recording(cell, status="oom", facts=facts), diagnosis))
    return only


def test_the_share_is_what_the_others_leave_less_what_cuda_needs():
    assert "Restart with 13.0 GiB of GPU:1" == answer(OTHER).title


def test_the_card_that_ran_out_gets_the_limit_and_the_cell_stays():
    proposal = answer(OTHER)
    assert ("restart", "", True, True) == (
        proposal.takes_effect,
        proposal.diff,
        f"memory_limit={13 * 1024}" in proposal.prologue,
        "gpus[1]" in proposal.prologue,
    )


def test_a_share_is_never_more_than_is_left():
    proposal = answer(ProcessFacts(1, None, 10 * GIB + 100 * MIB))
    assert "Restart with 12.8 GiB of GPU:1" == proposal.title


def test_what_was_not_measured_does_not_refuse():
    assert "restart" == answer(OTHER, requested=None, in_use=None).takes_effect


def test_memory_growth_cannot_be_applied_with_it():
    assert "memory-growth" in answer(OTHER).excludes


LIMITS = (
    "[[d.memory_limit for d in tf.config.get_logical_device_configuration(g) or []]"
    " for g in tf.config.list_physical_devices('GPU')]"
)
USE = "import tensorflow as tf\nwith tf.device('GPU:1'): x = tf.identity(tf.zeros((4,)))"


@pytest.fixture(scope="module")
def restarted(tmp_path_factory):
    """A kernel with two GPUs made of RAM that ran the prologue first; and one that ran it too late."""
    try:
        gpu = ramgpu_env(tmp_path_factory.mktemp("gpu"), count=2, mib=64)
    except CannotBuildError as reason:
        lacking(reason)
    found, prologue = {}, prologue_for(answer(OTHER), "a-rerun")
    env = {**gpu, "IPYTHONDIR": str(tmp_path_factory.mktemp("ipython"))}
    with Kernel(env) as new:
        found["prologue"] = new.run(prologue).errors
        found["names"] = new.value("[n for n in ('tf', 'gpus', 'share', 'os') if n in globals()]")
        new.run("import tensorflow as tf")
        found["limits"] = new.value(LIMITS)
        found["use"] = new.run(USE).errors
        found["device"] = new.value("x.device[-5:]")
        found["growth"] = new.run(
            "tf.config.experimental.set_memory_growth(tf.config.list_physical_devices('GPU')[1], True)"
        ).errors
        found["late"] = new.run(prologue_for(answer(ProcessFacts(1, None, 12 * GIB)), "a-rerun")).errors
    return found


@pytest.mark.tf
@pytest.mark.kernel
@pytest.mark.oldest
def test_in_the_new_kernel_only_that_card_has_the_limit(restarted):
    assert ([], [[], [13 * 1024]]) == (restarted["prologue"], restarted["limits"])


@pytest.mark.tf
@pytest.mark.kernel
@pytest.mark.oldest
def test_the_card_works_under_its_old_name(restarted):
    assert ([], "GPU:1") == (restarted["use"], restarted["device"])


@pytest.mark.tf
@pytest.mark.kernel
@pytest.mark.oldest
def test_the_prologue_leaves_no_name_in_the_notebook(restarted):
    assert [] == restarted["names"]


@pytest.mark.tf
@pytest.mark.kernel
@pytest.mark.oldest
def test_growth_is_really_refused_beside_a_limit(restarted):
    assert [True] == [
        "Cannot set memory growth on device when virtual devices configured" in t for t in restarted["growth"]
    ]


@pytest.mark.tf
@pytest.mark.kernel
@pytest.mark.oldest
def test_without_a_restart_it_would_come_too_late(restarted):
    assert [True] == ["TensorFlow has already set up its devices" in text for text in restarted["late"]]
