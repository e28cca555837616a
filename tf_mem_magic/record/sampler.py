"""The sampler: a thread that reads every source while a cell runs, at the price of about one percent of a core."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from tf_mem_magic.core import units
from tf_mem_magic.core.recording import LimitBasis, MissingSource, PeakBasis, Series
from tf_mem_magic.core.timeline import LIVE_BUCKETS, Timeline
from tf_mem_magic.record.dumps import DumpWatch
from tf_mem_magic.record.pool import OpenSource, SourcePool
from tf_mem_magic.record.stderr import StderrCapture
from tf_mem_magic.record.store.file import Store
from tf_mem_magic.report.picture.live import Live, LiveSeries

INTERVAL = 0.01
_BUDGET = 0.008
"""Share of one core that sampling may take: costlier rounds, and costlier sources, are done less often.

With what it takes to begin and to end a run, one of ten seconds stays below one percent."""

_SPIKE = 0.002
"""Processor seconds that a round may count for: one that opens a source or the panel is no reason to slow down."""

_SLOW_CPU = 0.0005
_SLOW_WALL = 0.05
_SLOWEST = 1.0
_TICK = 0.22
_STDERR_EVERY = 0.05
_DUMPS_EVERY = 0.1
_LIMITS_EVERY = 2.0
_STOP_WITHIN = 1.0
_NEARLY_FULL = 0.9


@dataclass(frozen=True, slots=True)
class Sampled:
    """What a run's sampler saw.

    ``before`` holds the first readings (series that came into being later have none), ``after`` the last ones;
    ``notices`` are sentences for the user.
    """

    series: tuple[Series, ...] = ()
    missing: tuple[MissingSource, ...] = ()
    before: tuple[tuple[str, int], ...] = ()
    after: tuple[tuple[str, int], ...] = ()
    seconds: float = 0.0
    notices: tuple[str, ...] = ()


class _Track:
    """One series while it is being sampled."""

    def __init__(self, timeline: Timeline) -> None:
        self.timeline = timeline
        self.live = Timeline(buckets=LIVE_BUCKETS)
        self.value = 0
        self.peak = -1
        self.limit: int | None = None
        self.limit_basis: LimitBasis | None = None

    def add(self, seconds: float, value: int) -> None:
        self.timeline.add(seconds, value)
        self.live.add(seconds, value)
        self.value = value
        self.peak = max(self.peak, value)


class _Pace:
    """When a source is read next: a cheap one in every round, a slow one so that it takes half of the budget."""

    def __init__(self) -> None:
        self.due = 0.0

    def took(self, now: float, cpu: float, wall: float) -> None:
        pause = 2 * cpu / _BUDGET if cpu > _SLOW_CPU else 0.0
        self.due = now + min(max(pause, wall if wall > _SLOW_WALL else 0.0), _SLOWEST)


class Sampler:
    """Samples the sources of ``pool`` into ``store`` from :meth:`start` to :meth:`stop`.

    Parameters
    ----------
    pool : SourcePool
        The sources, shared with other runs.
    store : Store
        Where the timelines live.
    interval : float
        Seconds between two rounds; stretched where a round costs more than one percent of a core.
    on_tick : callable, optional
        Called in the sampler's thread four to five times a second with a :class:`Live`. If it raises, it is not
        called again and a notice says so.
    dumps, stderr : optional
        Polled on the way: the first tells when an allocator waits, the second forwards lines.
    host_stop : callable, optional
        Gives the seconds after which it is called again; interrupts a cell that is about to use up the host's memory.
    last_words : callable, optional
        Gives the seconds after which it is called again; writes what a kernel that dies must leave.
    """

    def __init__(
        self,
        pool: SourcePool,
        store: Store,
        *,
        interval: float = INTERVAL,
        on_tick: Callable[[Live], None] | None = None,
        dumps: DumpWatch | None = None,
        stderr: StderrCapture | None = None,
        host_stop: Callable[[], float] | None = None,
        last_words: Callable[[], float] | None = None,
    ) -> None:
        self._pool = pool
        self._store = store
        self._interval = max(interval, 0.001)
        self._on_tick = on_tick
        self._dumps = dumps
        self._stderr = stderr
        self._host_stop = host_stop
        self._last_words = last_words
        self._pid = os.getpid()
        self._lock = threading.Lock()
        # Held until the end: waiting for a lock costs half of what waiting for an event does.
        self._running = threading.Lock()
        self._running.acquire()
        self._ready = threading.Event()
        self._done = threading.Event()
        self._tracks: dict[str, _Track] = {}
        self._paces: dict[OpenSource, _Pace] = {}
        self._before: dict[str, int] = {}
        self._after: dict[str, int] = {}
        self._peaks: dict[str, tuple[int, PeakBasis]] = {}
        self._notices: list[str] = []
        self._given_up = False
        self._warning = ""
        self._waiting: str | None = None
        self._began = time.monotonic()
        self._result: Sampled | None = None

    def start(self) -> None:
        """Take the first readings and go on in a thread; returns within about a second, whatever the sources do."""
        self._began = time.monotonic()
        thread = threading.Thread(target=self._run, name="tfmem-sampler", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            self._notices.append(f"Memory was not sampled: no thread could be started ({error}).")
            self._done.set()
            return
        self._ready.wait(_STOP_WITHIN)

    def stop(self) -> Sampled:
        """Take the last readings and give what was seen; idempotent, within about a second."""
        if self._result is None:
            seconds = time.monotonic() - self._began
            if self._running.locked():
                self._running.release()
            if os.getpid() == self._pid and not self._done.wait(_STOP_WITHIN):
                self._notices.append("A source of memory figures did not answer; its last values are missing.")
            with self._lock:
                self._given_up = True
                self._result = self._collect(seconds)
        return self._result

    def _run(self) -> None:
        try:
            try:
                self._pool.begin(self)
                if not self._ready.is_set():
                    self._began = time.monotonic()
                self._read_all()
                self._before = {name: track.value for name, track in self._tracks.items()}
                for name, value in self._before.items():
                    self._store.set_before(name, value)
                self._read_limits()
            finally:
                self._ready.set()
            self._loop()
            self._read_all()
            self._after = {name: track.value for name, track in self._tracks.items()}
        except Exception as error:
            with self._lock:
                if not self._given_up:
                    self._notices.append(f"Sampling stopped early ({type(error).__name__}: {error}).")
        finally:
            self._peaks = dict(self._pool.end(self))
            self._done.set()

    def _loop(self) -> None:
        pause = self._interval
        cost = tick_cost = 0.0
        spent = time.thread_time()
        next_stderr = next_dumps = next_host_stop = next_words = 0.0
        host_stop_in = _SLOWEST
        next_tick = time.monotonic() + _TICK
        next_limits = time.monotonic() + _LIMITS_EVERY
        while not self._running.acquire(timeout=pause):
            now = time.monotonic()
            self._pool.refresh()
            self._read_due(now)
            if self._stderr is not None and now >= next_stderr:
                self._stderr.poll()
                next_stderr = now + _STDERR_EVERY
            if self._dumps is not None and now >= next_dumps:
                if self._look_for_waiting(self._dumps):
                    next_tick = now
                next_dumps = now + _DUMPS_EVERY
            if self._host_stop is not None and now >= next_host_stop:
                host_stop_in = self._host_stop()
                next_host_stop = now + host_stop_in
            if self._last_words is not None and now >= next_words:
                next_words = now + self._write_last_words(self._last_words)
            if now >= next_limits:
                self._read_limits()
                next_limits = now + _LIMITS_EVERY
            total = time.thread_time()
            cost = 0.95 * cost + 0.05 * min(total - spent, _SPIKE)
            spent = total
            if now >= next_tick:
                self._tick(now)
                next_tick = now + _TICK
                total = time.thread_time()
                tick_cost = 0.8 * tick_cost + 0.2 * min(total - spent, _SPIKE)
                spent = total
            # The live view keeps its pace; what it leaves of the budget, half at least, is for samples.
            budget = max(_BUDGET - tick_cost / _TICK, _BUDGET / 2)
            pause = min(max(self._interval, cost / budget), host_stop_in, _SLOWEST)

    def _read_all(self) -> None:
        for source in self._pool.sources:
            self._read(source)

    def _read_due(self, now: float) -> None:
        for source in self._pool.sources:
            pace = self._paces.setdefault(source, _Pace())
            if now >= pace.due:
                cpu, wall = time.thread_time(), time.monotonic()
                self._read(source)
                wall = time.monotonic() - wall
                pace.took(now, time.thread_time() - cpu, wall)

    def _read(self, source: OpenSource) -> None:
        values = source.read()
        seconds = max(time.monotonic() - self._began, 0.0)
        with self._lock:
            if self._given_up:
                return
            for name, value in values.items():
                track = self._tracks.get(name)
                if track is None:
                    track = self._tracks[name] = _Track(self._store.timeline(name))
                track.add(seconds, value)

    def _read_limits(self) -> None:
        for source in self._pool.sources:
            for name, (limit, basis) in source.limits().items():
                track = self._tracks.get(name)
                if track is not None and track.limit != limit:
                    track.limit, track.limit_basis = limit, basis
                    self._store.set_limit(name, limit, basis)

    def _write_last_words(self, write: Callable[[], float]) -> float:
        try:
            return write()
        except Exception as error:
            self._last_words = None
            self._store.note(f"What the cell is doing is no longer noted ({type(error).__name__}: {error}).")
            return _SLOWEST

    def _look_for_waiting(self, dumps: DumpWatch) -> bool:
        """Ask whether an allocator waits; whether that has changed."""
        waiting = dumps.poll({name: track.value for name, track in self._tracks.items()})
        if waiting == self._waiting:
            return False
        if waiting is not None:
            self._store.note(f"{waiting} is full: its allocator is waiting for memory to be freed.")
            self._store.set_dumps(dumps.read())
        else:
            self._store.note(f"{self._waiting}: the wait is over.")
        self._waiting = waiting
        return True

    def _tick(self, now: float) -> None:
        seconds = now - self._began
        self._store.set_seconds(seconds)
        warning = self._nearly_full()
        if warning and warning.partition(":")[0] != self._warning.partition(":")[0]:
            self._store.note(warning)
        self._warning = warning
        if self._on_tick is None:
            return
        series = tuple(
            LiveSeries(name, track.value, track.peak, track.limit, *track.live.points())
            for name, track in self._tracks.items()
        )
        try:
            self._on_tick(Live(seconds, series, warning, self._waiting))
        except Exception as error:
            self._on_tick = None
            self._notices.append(f"The live view stopped ({type(error).__name__}: {error}).")

    def _nearly_full(self) -> str:
        """Say which memory is nearly full; empty: none.

        A card's total is no measure of how full an allocator's pool is, unless the bytes in use themselves fill it:
        TensorFlow reserves most of a card at once.
        """
        for name, track in self._tracks.items():
            kind, _, device = name.partition(":")
            card = self._tracks.get(f"device:{device}")
            limit = track.limit
            if kind == "allocator":
                limit = limit or (card.limit if card is not None else None)
            elif kind == "device" and f"allocator:{device}" in self._tracks:
                continue
            if kind in ("allocator", "device", "host") and limit and track.value > _NEARLY_FULL * limit:
                unit = units.brief_unit([track.value, limit])
                who = "Host memory" if kind == "host" else device
                return f"{who} is nearly full: {unit.text(track.value)} of {units.size(limit, unit)}."
        return ""

    def _collect(self, seconds: float) -> Sampled:
        series = tuple(self._series(name, track) for name, track in self._tracks.items())
        for one in series:
            if one.peak is not None:
                self._store.set_peak(one.name, one.peak, one.peak_basis)
        for name, value in self._after.items():
            self._store.set_after(name, value)
        self._store.set_seconds(seconds)
        return Sampled(
            series=series,
            missing=self._pool.missing(),
            before=tuple(self._before.items()),
            after=tuple(self._after.items()),
            seconds=seconds,
            notices=tuple(self._notices),
        )

    def _series(self, name: str, track: _Track) -> Series:
        times, values = track.timeline.points()
        peak, basis = self._peaks.get(name, (track.peak, "sampled"))
        if track.peak > peak:
            peak, basis = track.peak, "sampled"
        return Series(name, times, values, peak, basis, track.limit, track.limit_basis)
