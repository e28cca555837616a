"""On a real NVIDIA card: the acceptance notebook, where nothing may fail. Skipped with the reason elsewhere."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.run_notebook import failures, names, run_acceptance

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.tf,
    pytest.mark.kernel,
    pytest.mark.timeout(1800),
]

CORE = {
    "TensorFlow's counters",
    "The peak",
    "NVIDIA's figures",
    "Device used",
    "Memory left behind",
    "A disguised error",
    "Out of memory in fit",
    "What was requested",
    "In use and limit",
    "The cause",
    "Mixed precision",
    "A smaller batch",
    "Release",
    "Mixed precision, rerun",
    "The optimizer does not fit",
    "Letting go of a trained model",
    "The live view",
    "Sampling",
    "From the exception to the report",
    "Out of memory under XLA",
}

ASK = """
import tensorflow as tf
print("CARDS", len(tf.config.list_physical_devices("GPU")) if tf.test.is_built_with_cuda() else "CPU build")
"""


def why_not():
    """Say why nothing can be run on a card here; None where it can."""
    if shutil.which("nvidia-smi") is None:
        return "no NVIDIA card: nvidia-smi is not installed"
    if subprocess.run(["nvidia-smi", "-L"], capture_output=True, check=False).returncode:
        return "no NVIDIA card: nvidia-smi finds none"
    done = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=False)
    cards = done.stdout.rpartition("CARDS ")[2].strip()
    if not cards.isdecimal():
        return "the installed TensorFlow is not built for GPUs"
    return None if int(cards) else "TensorFlow finds no card, or not CUDA's libraries"


@pytest.fixture(scope="module")
def card():
    reason = why_not()
    if reason:
        pytest.skip(reason)


@pytest.fixture(scope="module")
def rows(card, tmp_path_factory):
    """The table of a plain kernel, and of one with cuda_malloc_async, in folders of their own."""
    plain = {name: "" for name in ("TF_GPU_ALLOCATOR", "TF_FORCE_GPU_ALLOW_GROWTH") if name in os.environ}
    asynchronous = {**plain, "TF_GPU_ALLOCATOR": "cuda_malloc_async"}
    return {
        "plain": run_acceptance(tmp_path_factory.mktemp("plain"), plain)["rows"],
        "async": run_acceptance(tmp_path_factory.mktemp("async"), asynchronous)["rows"],
    }


def test_no_check_fails_on_the_card(rows):
    assert {} == failures(rows["plain"])


def test_the_core_checks_pass_on_the_card(rows):
    assert set() == CORE - names(rows["plain"], "pass")


def test_the_other_allocator_is_counted_or_the_report_says_that_it_is_not(rows):
    assert ({}, "pass") == (failures(rows["async"]), rows["async"]["cuda_malloc_async"]["verdict"])
