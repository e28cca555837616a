"""Run-time functions that an edited cell may call, visibly: one file each, plain and documented.

``apply.NAME`` is the function ``NAME`` of the file ``NAME.py``, here or in the pack ``deploy``; adding one is adding
its file. Files that begin with an underscore are what several of them share. The files import Keras and TensorFlow
only when their function is called.
"""

from __future__ import annotations

import importlib
import pkgutil

from tf_mem_magic.apply import deploy

# Imported now, not when first asked for: a later import of a submodule would put the module in its function's place.
for _folder, _package in ((__path__, __name__), (deploy.__path__, deploy.__name__)):
    for _file in pkgutil.iter_modules(_folder):
        if not _file.name.startswith("_") and not _file.ispkg:
            globals()[_file.name] = getattr(importlib.import_module(f"{_package}.{_file.name}"), _file.name)
