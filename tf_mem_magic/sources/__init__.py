"""Where numbers come from: one file each; the folder is the registry.

A source module has ``NAME`` and ``open() -> Source | Unavailable``. Opening never wakes TensorFlow and never
raises: what is missing says why.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import Protocol

from tf_mem_magic.core.facts import DeviceFacts
from tf_mem_magic.core.recording import LimitBasis, PeakBasis


@dataclass(frozen=True, slots=True)
class Unavailable:
    """A source that cannot be opened, with the reason. ``later``: it may open while the cell runs."""

    name: str
    reason: str
    later: bool = False


class Source(Protocol):
    """An open source. No method raises; one thread may read while another begins and ends windows.

    ``trouble`` is None, or says in sentences for the user why some or all of the values are missing.
    """

    name: str
    trouble: str | None

    def read(self) -> Mapping[str, int]:
        """Read the bytes of each series now, by series name. Called every few milliseconds: keep it cheap.

        A series that could not be read, or is too costly to read this often, is left out of this answer.
        """

    def begin_window(self) -> None:
        """Begin a window in which peaks are counted; windows nest, an inner one never spoils an outer one.

        Not to be called for a window that was open before the source was (see ``end_window``).
        """

    def end_window(self) -> Mapping[str, tuple[int, PeakBasis]]:
        """End the innermost window; give the peaks that a counter knows, by series name.

        With no window open, give the peaks since counting began. So a source that was opened while a cell ran,
        because the cell woke TensorFlow, tells that cell's peak: nothing was counted before. A peak whose basis is
        ``"sampled"`` is a lower bound (the user's code reset the counter); the largest sample may be larger.
        """

    def limits(self) -> Mapping[str, tuple[int, LimitBasis]]:
        """Give the limit of each series where one is known, in bytes."""

    def devices(self) -> tuple[DeviceFacts, ...]:
        """Describe the devices this source knows; fields it cannot tell stay at their defaults."""

    def close(self) -> None:
        """Let go of handles. Idempotent."""


@lru_cache(maxsize=1)
def all_sources() -> tuple[ModuleType, ...]:
    """Import every source module of the folder."""
    names = sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))
    return tuple(importlib.import_module(f"{__name__}.{name}") for name in names)
