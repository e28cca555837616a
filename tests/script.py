"""Run a script with real TensorFlow in a process of its own, and give what it found."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.forked import forks
from tests.kernel import ROOT
from tests.needs import heavy_test


def found_by(
    script: str, given: Any = None, env: Mapping[str, str] | None = None, folder: Path = ROOT, fresh: bool = False
) -> Any:
    """Run ``script`` on the CPU with ``given`` as JSON on its input; give the JSON that it prints after ``FOUND``.

    TensorFlow is imported there from the start, but not in a ``fresh`` one.
    """
    heavy_test()
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, **forks.AT_IMPORT, "CUDA_VISIBLE_DEVICES": "", **(env or {})}
    done = forks.run(script, json.dumps(given), environment, folder, fresh)
    assert "FOUND" in done.stdout, done.stderr[-3000:]
    return json.loads(done.stdout.partition("FOUND")[2])
