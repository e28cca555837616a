"""What a test needs and this machine may not have: skipped where somebody works on the project, a failure in CI."""

from __future__ import annotations

import importlib.util
import os
from typing import NoReturn

import pytest


def lacking(reason: object, whole_module: bool = False) -> NoReturn:
    """Skip the calling test, or its ``whole_module``; with ``CI=true``, where all is to be there, fail instead."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"this must be tested here, but {reason}", pytrace=False)
    pytest.skip(str(reason), allow_module_level=whole_module)


def need(*modules: str) -> None:
    """See that ``modules`` are installed."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            lacking(f"{module} is not installed")


def heavy_test() -> None:
    """See that the running test has a mark that says it takes TensorFlow or a kernel: CI runs it apart by that."""
    assert not light_test, f"{light_test} starts TensorFlow or a kernel: mark it tf, kernel or browser"


light_test = ""
"""The running test, where it has no such mark."""
