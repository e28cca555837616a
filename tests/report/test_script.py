"""The report of a script: what happened, and each change as a patch."""

from __future__ import annotations

from dataclasses import replace

from tests import gallery
from tf_mem_magic.core.proposals import Declined, Proposal
from tf_mem_magic.report.script import MOST_PATCHES, patch_of, script_text

BEFORE = "import keras\n\nnet.fit(x, batch_size=256)\n"
AFTER = BEFORE.replace("256", "128")
HALF = Proposal("smaller-batch", "Batch 128", AFTER, BEFORE, "same model, other gradients")
GROW = Proposal(
    "memory-growth", "Memory growth", BEFORE, BEFORE, "same results", takes_effect="restart", environment=(("A", "1"),)
)


def outcome(*offered, declined=()):
    return replace(gallery.out_of_memory(), offered=offered, further=(), declined=declined)


def test_a_change_is_a_patch_of_the_file():
    assert patch_of(HALF, "train.py") == (
        "--- train.py\n+++ train.py\n@@ -1,3 +1,3 @@\n import keras\n \n"
        "-net.fit(x, batch_size=256)\n+net.fit(x, batch_size=128)"
    )


def test_the_text_says_what_happened_and_shows_the_patch():
    text = script_text(outcome(HALF), "train.py")
    assert text.startswith("✗ Out of memory")
    assert "1. Batch 128 (other gradients):\n--- train.py\n" in text


def test_no_command_of_a_notebook_is_named():
    assert "%tfmem" not in script_text(outcome(HALF, GROW, declined=(Declined("xla", "XLA", "no"),)), "train.py")


def test_a_setting_is_said_as_what_the_script_must_start_with():
    assert "Memory growth: start the script with A=1." in script_text(outcome(GROW), "train.py")


def test_a_patch_for_a_module_is_shown_with_its_reason():
    declined = Declined("smaller-batch", "Smaller batch", "the batch is in loop.py", "--- loop.py\n+++ loop.py")
    assert "Smaller batch: the batch is in loop.py\n--- loop.py" in script_text(
        outcome(declined=(declined,)), "train.py"
    )


def test_more_changes_than_one_reads_are_named():
    many = [replace(HALF, title=f"Batch {number}") for number in range(MOST_PATCHES + 2)]
    assert "Also: Batch 3, Batch 4." in script_text(outcome(*many), "train.py")
