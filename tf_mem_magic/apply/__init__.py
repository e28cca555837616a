"""Run-time functions that an edited cell may call, visibly: one file each, plain and documented.

``apply.NAME`` is the function ``NAME`` of the module ``tf_mem_magic.apply.NAME``, imported when it is first asked for.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any


def __getattr__(name: str) -> Any:
    if name not in __dir__():
        raise AttributeError(f"tf_mem_magic.apply has no function {name!r}; it has: {', '.join(__dir__())}")
    return getattr(importlib.import_module(f"{__name__}.{name}"), name)


def __dir__() -> list[str]:
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))
