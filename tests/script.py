"""Run a script with real TensorFlow in a process of its own, and give what it found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from tests.kernel import ROOT
from tests.needs import heavy_test


def found_by(script: str, given: Any, env: Mapping[str, str] | None = None, timeout: float = 850) -> Any:
    """Run ``script`` on the CPU with ``given`` as JSON on its input; give the JSON that it prints after ``FOUND``."""
    heavy_test()
    quiet = {"TF_ENABLE_ONEDNN_OPTS": "0", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=json.dumps(given),
        cwd=ROOT,
        env={**os.environ, **quiet, **(env or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert "FOUND" in done.stdout, done.stderr[-3000:]
    return json.loads(done.stdout.partition("FOUND")[2])
