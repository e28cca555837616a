"""What a recording must hold in case the kernel dies: where the code is, and the facts, from the start on."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tf_mem_magic.core.facts import Facts, merge_devices
from tf_mem_magic.facts.before import Before
from tf_mem_magic.facts.frames import running_calls
from tf_mem_magic.facts.gather import gather_facts, known_at_once
from tf_mem_magic.record.store.file import Store

if TYPE_CHECKING:
    from types import FrameType

    from tf_mem_magic.core.recording import Cell, Frame
    from tf_mem_magic.record.pool import SourcePool

_CALLS_EVERY = 0.1
_CALLS_FIRST = 0.01
_FACTS_AFTER = 0.25
"""Seconds before the names are first looked at where no Keras is imported: most cells have ended by then."""

_FACTS_EVERY = 5.0
_SHARE = 0.01
"""Of a core, what reading facts may take."""

_SECONDS_A_CHARACTER = 2e-5
"""A cell of this many seconds a character is worth being parsed: that takes about a hundredth of it."""


class LastWords:
    """Writes into ``store`` what nobody could tell any more after the kernel has died.

    :meth:`begin` is called by the thread that runs the user's code, :meth:`poll` by the sampler's thread, which asks
    TensorFlow nothing. A cell that ends within a few hundredths of a second costs two small writes.
    """

    def __init__(self, store: Store, cell: Cell, namespace: Mapping[str, Any], pool: SourcePool) -> None:
        self._store, self._cell, self._namespace, self._pool = store, cell, namespace, pool
        self._before: Before | None = None
        self._thread = 0
        self._began = self._next_facts = 0.0
        self._calls: tuple[Frame, ...] = ()
        self._is_warm = False

    def begin(self, thread: int, before: Before, earlier_cells: Sequence[str]) -> None:
        """Write what is known before the cell's first line; ``thread`` runs it, ``before`` is what the names held."""
        self._thread, self._before = thread, before
        self._began = time.monotonic()
        after = 0.0 if "keras" in sys.modules or "tf_keras" in sys.modules else _FACTS_AFTER
        self._next_facts = self._began + max(after, _SECONDS_A_CHARACTER * len(self._cell.source))
        self._store.set_earlier(earlier_cells)
        self._store.set_facts(replace(known_at_once(merge_devices(self._pool.devices())), partial=True))

    def poll(self) -> float:
        """Write what has changed; give the seconds after which to be called again."""
        now = time.monotonic()
        calls = running_calls(self._frame(), self._namespace)
        if calls and calls != self._calls:
            self._calls = calls
            self._store.set_calls(calls)
        if calls and now >= self._next_facts:
            spent = time.thread_time()
            self._write_facts()
            # The first time it is imports that take long.
            pause = (time.thread_time() - spent) / _SHARE if self._is_warm else 0.0
            self._is_warm = True
            # Often at first, when a training comes into being, then ever more seldom.
            self._next_facts = time.monotonic() + max(pause, min(max(_FACTS_AFTER, now - self._began), _FACTS_EVERY))
        return min(max(_CALLS_FIRST, (now - self._began) / 2), _CALLS_EVERY)

    def _frame(self) -> FrameType | None:
        return sys._current_frames().get(self._thread)

    def _write_facts(self) -> None:
        if self._before is not None:
            self._store.set_facts(self.facts())

    def facts(self, earlier_cells: Sequence[str] = ()) -> Facts:
        """Read the facts while the cell runs, in whatever thread."""
        devices = merge_devices(self._pool.devices())
        if self._before is None:
            return known_at_once(devices, earlier_cells)
        names, source = self._namespace, self._cell.source
        return gather_facts(names, self._before, source, None, devices, earlier_cells, "running", self._frame())
