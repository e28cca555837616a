"""Run-time functions that an edited cell may call, visibly: one file each, plain and documented.

``apply.NAME`` is the function ``NAME`` of the file ``NAME.py``; adding one is adding its file. Files that begin with an
underscore are what several of them share. The files import Keras and TensorFlow only when their function is called.
"""

from __future__ import annotations

import importlib
import pkgutil

# Imported now, not when first asked for: a later import of a submodule would put the module in its function's place.
for _file in pkgutil.iter_modules(__path__):
    if not _file.name.startswith("_"):
        globals()[_file.name] = getattr(importlib.import_module(f"{__name__}.{_file.name}"), _file.name)
