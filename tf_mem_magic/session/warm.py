"""Warm-up: the imports of an out-of-memory report are done while TensorFlow's allocator waits for memory anyway."""

from __future__ import annotations

import importlib
import threading
from functools import lru_cache

from tf_mem_magic.core import troubles
from tf_mem_magic.core.recording import Cell, Recording

_FIGURE = ("matplotlib.figure", "matplotlib.backends.backend_agg", "tf_mem_magic.report.picture.figure")


@lru_cache(maxsize=1)
def warm_up() -> None:
    """Import what a report needs, in a thread of its own, once in a process; returns at once and never raises.

    Only for a cell that is about to fail: elsewhere its imports would slow the cell down and change ``sys.modules``.
    """
    try:
        threading.Thread(target=_import_all, name="tfmem-warm", daemon=True).start()
    except RuntimeError:
        pass  # no thread to be had: the report imports what it needs itself


def _import_all() -> None:
    try:
        from tf_mem_magic.explain import explain
        from tf_mem_magic.release import errors, release  # noqa: F401 - needed once the report is shown
        from tf_mem_magic.report.bundle import whole_bundle

        nothing = explain(Recording(Cell("pass"), 0.0, (), "oom"))
        whole_bundle(nothing)
        for name in _FIGURE:
            importlib.import_module(name)
    except Exception as error:  # what is broken shows when the report itself is made
        troubles.note("what a report needs could not be imported ahead", error)
