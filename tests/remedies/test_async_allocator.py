"""The remedy ``async-allocator``: what it offers when, and that the new kernel has the variable before TensorFlow."""

from dataclasses import replace

import pytest

from tests.kernel import Kernel
from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.facts import DeviceFacts, Facts
from tf_mem_magic.core.proposals import Context, Proposal
from tf_mem_magic.core.recording import Cell, Recording
from tf_mem_magic.remedies._engine.ranking import propose_all
from tf_mem_magic.remedies.async_allocator import KEY, propose
from tf_mem_magic.session.restarts.restart import prologue_for

SOURCE = "%%tfmem\nmodel.fit(x, y, batch_size=64)\n"


def context(cause="fragmentation"):
    cell = Cell(SOURCE)
    devices = (DeviceFacts("GPU:0", compute_capability=(8, 0), others=None),)
    facts = Facts("2.21.0", keras="3.15.1", initialised=True, devices=devices)
    return Context(cell, Recording(cell, status="oom", facts=facts), Diagnosis("GPU:0", line=2, cause=cause))


def test_it_restarts_with_one_variable_and_leaves_the_cell_alone():
    (proposal,) = propose(context())
    assert ("restart", (("TF_GPU_ALLOCATOR", "cuda_malloc_async"),), "", "") == (
        proposal.takes_effect,
        proposal.environment,
        proposal.prologue,
        proposal.diff,
    )


def test_results_stay_the_same_and_nothing_is_estimated():
    (proposal,) = propose(context())
    assert ("same results", None) == (proposal.preserves, proposal.estimate)


@pytest.mark.parametrize(("cause", "place"), [("fragmentation", 0), ("unknown", 1)])
def test_it_comes_first_where_free_memory_was_in_pieces(cause, place):
    offered = [a.key for a in propose_all(context(cause)) if isinstance(a, Proposal)]
    assert (place == 0) is (offered.index(KEY) == 0)


@pytest.mark.parametrize(("cause", "warned"), [("fragmentation", False), ("unknown", True)])
def test_it_says_where_the_cause_is_not_known(cause, warned):
    (proposal,) = propose(context(cause))
    assert warned is any("not known" in caveat for caveat in proposal.caveats)


def test_where_the_last_bytes_were_in_pieces_it_is_offered_after_what_helps_more_and_says_so():
    full = context("too-big")
    full = replace(full, diagnosis=replace(full.diagnosis, requested=4, in_use=95, limit=100))
    (proposal,) = propose(full)
    assert proposal.answers_cause is False
    assert any("not far beyond" in caveat for caveat in proposal.caveats)


@pytest.mark.tf
@pytest.mark.kernel
def test_in_the_new_kernel_the_variable_is_there_before_tensorflow_is_imported(tmp_path):
    (proposal,) = propose(context())
    with Kernel({"IPYTHONDIR": str(tmp_path)}) as kernel:
        assert [] == kernel.run(prologue_for(proposal, "a-rerun")).errors
        assert kernel.value("'tensorflow' in __import__('sys').modules") is False
        ran = kernel.run(
            "import os\nimport tensorflow as tf\nprint(os.environ['TF_GPU_ALLOCATOR'], int(tf.constant(2) + 1))"
        )
    assert ([], "cuda_malloc_async 3") == (ran.errors, ran.out.strip())
