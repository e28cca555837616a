"""The sources that are open: shared by all runs, opened when they can be, their windows kept in order."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import TypeVar

from tf_mem_magic.core.facts import DeviceFacts
from tf_mem_magic.core.recording import LimitBasis, MissingSource, PeakBasis
from tf_mem_magic.sources import Source, Unavailable, all_sources

_RETRY = 0.1
"""Seconds between two tries to open a source that may open later."""

_PATIENCE = 0.3
"""Seconds to wait for a source that another thread is reading before it counts as broken."""

Peaks = Mapping[str, tuple[int, PeakBasis]]
T = TypeVar("T")


class OpenSource:
    """One source, asked by one thread at a time, so that a driver that hangs holds up one thread only."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._busy = threading.Lock()
        self._broken: str | None = None

    @property
    def trouble(self) -> str | None:
        """Why it gives no, or not all of its, values."""
        return self._broken or self.source.trouble

    def read(self) -> Mapping[str, int]:
        """Read the bytes of each series now; nothing while another thread is reading."""
        return self._ask(self.source.read, {}, wait=False)

    def limits(self) -> Mapping[str, tuple[int, LimitBasis]]:
        """Give the limits that are known; nothing while another thread is reading."""
        return self._ask(self.source.limits, {}, wait=False)

    def begin_window(self) -> None:
        """Begin a window in which peaks are counted."""
        self._ask(self.source.begin_window, None)

    def end_window(self) -> Peaks:
        """End the innermost window and give its peaks."""
        return self._ask(self.source.end_window, {})

    def devices(self) -> tuple[DeviceFacts, ...]:
        """Describe the devices it knows."""
        return self._ask(self.source.devices, ())

    def close(self) -> None:
        """Let go of its handles."""
        self._ask(self.source.close, None)

    def _ask(self, question: Callable[[], T], otherwise: T, wait: bool = True) -> T:
        if self._broken is not None:
            return otherwise
        if not (self._busy.acquire(timeout=_PATIENCE) if wait else self._busy.acquire(blocking=False)):
            if wait:
                self._broken = "It did not answer."
            return otherwise
        try:
            return question()
        except Exception as error:  # A source promises not to raise; one that does is not asked again.
            self._broken = f"It failed ({type(error).__name__}: {error})."
            return otherwise
        finally:
            self._busy.release()


class SourcePool:
    """Opens each source once and keeps it for all runs, nested ones too, until :meth:`close`.

    Parameters
    ----------
    modules : iterable of modules, optional
        The source modules; by default the folder ``tf_mem_magic/sources``, imported when first needed.
    """

    def __init__(self, modules: Iterable[ModuleType] | None = None) -> None:
        self._modules = None if modules is None else tuple(modules)
        self._lock = threading.Lock()
        self._open: dict[str, OpenSource] = {}
        self._unavailable: dict[str, Unavailable] = {}
        self._next_try = 0.0
        self._runs: list[object] = []
        self._ended: set[object] = set()

    @property
    def sources(self) -> tuple[OpenSource, ...]:
        """The sources that are open now."""
        return tuple(self._open.values())

    def missing(self) -> tuple[MissingSource, ...]:
        """Name the sources that give no, or not all of their, values, and say why."""
        closed = [MissingSource(u.name, u.reason) for u in tuple(self._unavailable.values())]
        troubled = [MissingSource(name, s.trouble) for name, s in tuple(self._open.items()) if s.trouble]
        return tuple(closed + troubled)

    def devices(self) -> tuple[DeviceFacts, ...]:
        """Describe the devices that the open sources know."""
        return tuple(device for source in self.sources for device in source.devices())

    def refresh(self, at_once: bool = False) -> None:
        """Open what can be opened by now; at most every tenth of a second, unless ``at_once``."""
        now = time.monotonic()
        if not at_once and now < self._next_try:
            return
        with self._lock:
            self._next_try = now + _RETRY
            for module in self._modules if self._modules is not None else all_sources():
                name = module.NAME
                earlier = self._unavailable.get(name)
                if name not in self._open and (earlier is None or earlier.later):
                    self._try_to_open(module, name)

    def _try_to_open(self, module: ModuleType, name: str) -> None:
        try:
            found = module.open()
        except Exception as error:
            found = Unavailable(name, f"It could not be opened ({type(error).__name__}: {error}).")
        if isinstance(found, Unavailable):
            self._unavailable[name] = found
            return
        self._unavailable.pop(name, None)
        # What opens during a run began during it. Its counters have counted for every open run from the start, so
        # none of them needs a window: a source without one tells the peak since counting began.
        self._open[name] = OpenSource(found)

    def begin(self, run: object) -> None:
        """Begin ``run``, innermost from now on: a window of each open source."""
        self.refresh(at_once=True)
        with self._lock:
            self._runs.append(run)
            for source in self.sources:
                source.begin_window()

    def end(self, run: object) -> Peaks:
        """End ``run`` and give the peaks that counters know; none where the runs did not end inside one another."""
        with self._lock:
            if run not in self._runs:
                return {}
            if self._runs[-1] is not run:
                self._ended.add(run)
                return {}
            peaks = self._end_innermost()
            while self._runs and self._runs[-1] in self._ended:
                self._end_innermost()
            return peaks

    def _end_innermost(self) -> Peaks:
        self._ended.discard(self._runs.pop())
        return {name: peak for source in self.sources for name, peak in source.end_window().items()}

    def close(self) -> None:
        """Close every source; what is needed again is opened again."""
        with self._lock:
            for source in self.sources:
                source.close()
            self._open.clear()
            self._unavailable.clear()
