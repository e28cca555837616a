"""The registry of remedies: the folder ``remedies`` itself."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from functools import lru_cache
from typing import cast

from tf_mem_magic import remedies
from tf_mem_magic.core.proposals import Remedy


@lru_cache(maxsize=1)
def all_remedies() -> tuple[Remedy, ...]:
    """Import every remedy of the folder, in the order of their names."""
    found = sorted(_modules(), key=lambda name: name.removesuffix(".remedy").rpartition(".")[2])
    return tuple(cast(Remedy, importlib.import_module(name)) for name in found)


def _modules() -> Iterator[str]:
    """Name the modules of remedies: a file, the ``remedy.py`` of a folder, or the files of a pack of remedies."""
    for entry in pkgutil.iter_modules(remedies.__path__):
        name = f"{remedies.__name__}.{entry.name}"
        if entry.name.startswith("_"):
            continue
        if not entry.ispkg:
            yield name
            continue
        inside = {one.name for one in pkgutil.iter_modules(importlib.import_module(name).__path__)}
        files = {"remedy"} if "remedy" in inside else {one for one in inside if one != "probe" and one[0] != "_"}
        yield from (f"{name}.{one}" for one in files)
