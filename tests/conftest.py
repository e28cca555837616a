"""What every test is checked for."""

from __future__ import annotations

import os
import sys

import pytest


@pytest.fixture(autouse=True)
def leaves_the_environment_alone():
    """No test leaves the variable set that a watch sets: the processes of later tests would inherit it."""
    before = os.environ.get("TF_BFC_MEMORY_DUMP")
    yield
    after = os.environ.get("TF_BFC_MEMORY_DUMP")
    if after != before:
        del os.environ["TF_BFC_MEMORY_DUMP"]
    assert after == before


@pytest.fixture(autouse=True)
def leaves_tensorflow_asleep():
    """No test imports TensorFlow into this process: others ask what we do where it is not there."""
    before = "tensorflow" in sys.modules
    yield
    assert before or "tensorflow" not in sys.modules, "run TensorFlow in a process of its own: tests/script.py"
