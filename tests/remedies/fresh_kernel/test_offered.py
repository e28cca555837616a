"""A fresh kernel where only a new process has the memory back that no name holds."""

import pytest

from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.proposals import Context, Declined, Proposal
from tf_mem_magic.core.recording import Cell, Recording, Series
from tf_mem_magic.remedies.fresh_kernel import propose

MIB = 1 << 20
GPU = "allocator:GPU:0"


def ask(unnamed=116, failed_before=1, cause="leftovers", requested=20):
    """A run that held 240 of 250 MiB, of which so many were there before, though no name held them."""
    series = Series(GPU, (0.0, 1.0), (unnamed * MIB, 240 * MIB), 240 * MIB, "counter", 250 * MIB)
    cell = Cell("model.fit(x, y)")
    recording = Recording(cell, 1.0, (series,), "oom", before=((GPU, unnamed * MIB),), failed_before=failed_before)
    diagnosis = Diagnosis("GPU:0", line=1, in_use=240 * MIB, requested=requested * MIB, limit=250 * MIB, cause=cause)
    (answer,) = propose(Context(cell, recording, diagnosis))
    return answer


def test_what_no_name_holds_after_it_was_collected_goes_with_the_process():
    answer = ask()
    assert isinstance(answer, Proposal)
    assert (answer.takes_effect, answer.source) == ("restart", "model.fit(x, y)")
    assert "no name holds" in answer.why


@pytest.mark.parametrize(
    "known",
    [{"failed_before": 0}, {"unnamed": 8}, {"cause": "too-big"}],
    ids=["not collected yet", "too little", "other"],
)
def test_where_a_rerun_collects_it_or_it_is_not_what_was_missing_nothing_is_restarted(known):
    assert isinstance(ask(**known), Declined)
