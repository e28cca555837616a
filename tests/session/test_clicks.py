"""What a panel's buttons do in the kernel, without one."""

from types import SimpleNamespace

import pytest

from tf_mem_magic.core.proposals import Proposal
from tf_mem_magic.session.clicks import PanelActions


@pytest.mark.parametrize(("key", "told"), [("free-leftovers", True), ("smaller-batch", False)])
def test_undo_says_that_what_was_let_go_of_stays_gone(key, told):
    applied = Proposal(key, "", "new", "old", "same results")
    value = SimpleNamespace(lineage=SimpleNamespace(applied=applied))
    run = SimpleNamespace(run=value, host=SimpleNamespace(shell=None))
    assert told == ("stays gone" in PanelActions(run).undo())
