"""The memory that a report is about: the one that mattered."""

from __future__ import annotations

import pytest

from tf_mem_magic.core.facts import BatchSeen, Facts, ModelFacts
from tf_mem_magic.core.outcome import Outcome
from tf_mem_magic.core.recording import Cell, Recording, Series
from tf_mem_magic.report.measures import focus
from tf_mem_magic.report.sentences import headline

MIB = 1 << 20


def ran(device, host, limit=600, **facts):
    """Give a run in which the device rose to and the host by so many MiB."""
    series = (
        Series("allocator:CPU:0", (0.0, 1.0), (MIB, device * MIB), device * MIB, "counter", limit * MIB),
        Series("host:rss", (0.0, 1.0), (500 * MIB, (500 + host) * MIB), (500 + host) * MIB, "sampled", 24000 * MIB),
    )
    before = (("allocator:CPU:0", MIB), ("host:rss", 500 * MIB))
    return Outcome(Recording(Cell("x"), 1.0, series, before=before, facts=Facts(**facts)))


def test_a_cell_that_takes_host_memory_beside_an_idle_device_is_about_the_host():
    assert focus(ran(5, 785)).name == "host:rss"
    assert "host memory of this process" in headline(ran(5, 785))


@pytest.mark.parametrize(("device", "host"), [(300, 785), (5, 20), (40, 300)])
def test_a_device_that_was_used_or_a_host_that_was_not_leaves_the_device_in_the_headline(device, host):
    assert focus(ran(device, host)).name == "allocator:CPU:0"


def test_a_training_is_about_the_device_however_little_it_took():
    trained = {"models": (ModelFacts("model", steps=3, steps_before=0),)}
    assert focus(ran(5, 785, **trained)).name == "allocator:CPU:0"
    assert focus(ran(5, 785, batches=(BatchSeen("predict", 8, "arrays"),))).name == "allocator:CPU:0"
