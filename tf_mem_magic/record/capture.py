"""Capture: everything that goes on beside one run, from the first reading to the Recording."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Mapping, MutableSequence, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tf_mem_magic.core import troubles
from tf_mem_magic.core.facts import BatchSeen, BuildingFacts, Facts, merge_devices
from tf_mem_magic.core.recording import Cell, Dump, ErrorText, FailedRequest, HostFull, Recording, Status
from tf_mem_magic.diagnose.oom import find_oom
from tf_mem_magic.facts.before import Before, snapshot
from tf_mem_magic.facts.building import observe_building
from tf_mem_magic.facts.fit import observe_all
from tf_mem_magic.facts.gather import Ended, gather_facts
from tf_mem_magic.record.dumps import DumpWatch
from tf_mem_magic.record.host_stop import HostStop
from tf_mem_magic.record.last_words import LastWords
from tf_mem_magic.record.sampler import Sampled, Sampler
from tf_mem_magic.record.stderr import StderrCapture
from tf_mem_magic.record.step_trace import StepTrace, with_limit
from tf_mem_magic.record.store.file import open_store
from tf_mem_magic.record.traceback import to_error_texts

if TYPE_CHECKING:
    from tf_mem_magic.record.pool import SourcePool
    from tf_mem_magic.report.picture.live import Live

MOST_BATCHES = 8
"""Batch sizes noted of one run: more than a few mean a loop that nobody reads."""


class Capture:
    """Records one run; :meth:`start` and :meth:`stop` are called by the thread that runs the user's code.

    Parameters
    ----------
    cell : Cell
        What runs.
    namespace : mapping
        The names that the cell sees.
    pool : SourcePool
        The sources.
    interval : float
        Seconds between samples.
    on_tick : callable, optional
        Called with a :class:`Live` four to five times a second, in the sampler's thread.
    earlier_cells : sequence of str
        The sources of the cells that ran before.
    keep_weights : bool
        Keep copies of the weights of models that exist before the run.
    host_stop : int
        Percent of the host's memory limit at which the cell is interrupted; 0: never.
    goes_on : bool
        Remedies are asked about the run even where it goes well: read all that they need.
    trace : bool
        Trace a few steps allocation by allocation.
    """

    def __init__(
        self,
        cell: Cell,
        namespace: Mapping[str, Any],
        pool: SourcePool,
        *,
        interval: float,
        on_tick: Callable[[Live], None] | None = None,
        earlier_cells: Sequence[str] = (),
        keep_weights: bool = False,
        host_stop: int = 0,
        goes_on: bool = False,
        trace: bool = False,
    ) -> None:
        self.cell, self._namespace, self._pool = cell, namespace, pool
        self._on_tick, self._earlier_cells = on_tick, tuple(earlier_cells)
        self._keep_weights, self._goes_on = keep_weights, goes_on
        self.before: Before = snapshot({})
        self._batches: MutableSequence[BatchSeen] = []
        self._full_at: MutableSequence[BatchSeen] = []
        self._building: BuildingFacts | None = None
        self._is_waiting = False
        self._thread = threading.get_ident()
        self._notices: list[str] = []
        self._ended = False
        self._seconds = 0.0
        self._sampled = Sampled()
        self._dumped: tuple[Dump, ...] = ()
        self._gave_up: tuple[FailedRequest, ...] = ()
        self._host_full: HostFull | None = None
        self._started = time.time()
        self._began = time.monotonic()
        self._store = open_store(cell, self._started)
        sources = (cell.source, *self._earlier_cells)
        self._trace = StepTrace(sources, self._store.beside(".trace")) if trace else None
        profiles = self._trace is not None and self._trace.is_wanted
        self._stderr = StderrCapture(self._store.beside(".stderr"), profiles)
        self._dumps = DumpWatch(self._store.beside(".dumps"))
        self._last_words = LastWords(self._store, cell, namespace, pool)
        self._host_stop = HostStop(host_stop, self._thread) if host_stop else None
        self._sampler = Sampler(
            pool,
            self._store,
            interval=interval,
            on_tick=self._tick,
            dumps=self._dumps,
            stderr=self._stderr,
            host_stop=self._host_stop.poll if self._host_stop is not None else None,
            last_words=self._last_words.poll,
        )

    @property
    def notices(self) -> tuple[str, ...]:
        """Sentences for the user about the recording itself."""
        return tuple(self._notices)

    def start(self) -> None:
        """Take the first readings, then watch."""
        self._thread = threading.get_ident()
        self.before = snapshot(self._namespace)
        if self._keep_weights:
            self._notices.append(_keep_weights(self.cell.source, self._namespace))
        self._last_words.begin(self._thread, self.before, self._earlier_cells)
        self._dumps.start()
        self._sampler.start()
        self._began = time.monotonic()
        self._stderr.start()
        if self._trace is not None:
            self._trace.start(self._thread)

    def end(self) -> None:
        """Stop watching and put back what was led elsewhere; idempotent, and never raises.

        What fails on the way is noted, and the rest is put back all the same.
        """
        if self._ended:
            return
        self._ended = True
        self._seconds = time.monotonic() - self._began
        for what, step in (
            ("the trace could not be ended", self._stop_trace),
            ("descriptor 2 could not be given back", self._stderr.stop),
            ("the sampler could not be stopped", self._stop_sampler),
            ("the memory dumps could not be read", self._read_dumps),
            ("the memory dumps could not be ended", self._dumps.stop),
            ("the watch of the host's memory could not be ended", self._close_host_stop),
        ):
            try:
                step()
            except Exception as error:
                troubles.note(what, error)

    def so_far(self) -> Recording:
        """Give what is known while the cell runs, as of one that ran out of memory now; in whatever thread."""
        facts = replace(self._last_words.facts(self._earlier_cells), batches=tuple(self._batches))
        return Recording(self.cell, time.monotonic() - self._began, (), "oom", facts=facts)

    def tell(
        self,
        error: BaseException | None,
        files: frozenset[str] = frozenset(),
        count: int | None = None,
        was_stopped: bool = False,
    ) -> Recording:
        """Give everything as a Recording, after :meth:`end`; the error is only read.

        ``files`` are the names under which the cell was compiled, ``count`` is its execution count. ``was_stopped``:
        the error is how a Stop of the person's came through.
        """
        errors, facts = self._texts_of(error, files), Facts()
        try:
            facts = self._facts(error)
        except Exception as problem:
            troubles.tell("could not read what this cell holds", problem)
        status: Status = "interrupted" if was_stopped else _status(error, errors, facts, self._dumped)
        if self._host_full is not None and status == "interrupted":
            status = "oom"
        traced = self._trace.tell(facts, self._namespace, error is not None) if self._trace is not None else None
        recording = self._recording(status, count)
        if traced is not None:
            recording = replace(recording, series=tuple(with_limit(one, traced) for one in recording.series))
        return replace(recording, errors=errors, facts=facts, traced=traced)

    def _texts_of(self, error: BaseException | None, files: frozenset[str]) -> tuple[ErrorText, ...]:
        if error is None:
            return ()
        try:
            return to_error_texts(error, files)
        except Exception as problem:
            troubles.tell("could not read this cell's error", problem)
            return (ErrorText(type(error).__name__, ""),)

    def tell_stopped(self, count: int | None = None) -> Recording:
        """Give what was sampled, as an interrupted run: a Stop left no time for more."""
        return self._recording("interrupted", count)

    def stop(
        self, error: BaseException | None, files: frozenset[str] = frozenset(), count: int | None = None
    ) -> Recording:
        """Stop watching and give everything as a Recording; :meth:`end` and :meth:`tell` in one."""
        self.end()
        return self.tell(error, files, count)

    @property
    def stopped_for_memory(self) -> bool:
        """Whether we have interrupted the cell because the host's memory was about to run out."""
        return self._host_full is not None

    def _recording(self, status: Status, count: int | None) -> Recording:
        """Give what was sampled and captured, and end the file."""
        self._store.finish(status, self._seconds)
        self._notices += [text for text in (self._store.notice, *self._sampled.notices) if text]
        return Recording(
            cell=replace(self.cell, execution_count=count),
            seconds=self._seconds,
            series=self._sampled.series,
            status=status,
            dumps=self._dumped,
            stderr=self._stderr.dump_text,
            failed_requests=self._stderr.failures or self._gave_up,
            missing=self._sampled.missing,
            before=self._sampled.before,
            after=self._sampled.after,
            started=self._started,
            host_full=self._host_full,
        )

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Tell, while the run is still being recorded, whether an error of it is out of memory."""
        if isinstance(error, KeyboardInterrupt):
            return self._host_stop is not None and self._host_stop.full is not None
        facts = Facts(devices=merge_devices(self._pool.devices()))
        return find_oom(to_error_texts(error), facts, self._dumps.read(self._stderr.dump_text)) is not None

    def abandon(self) -> None:
        """Stop watching; nothing is reported."""
        self.end()
        self._store.finish("interrupted", self._seconds)

    def _stop_trace(self) -> None:
        if self._trace is not None:
            self._trace.stop()

    def _stop_sampler(self) -> None:
        self._sampled = self._sampler.stop()

    def _read_dumps(self) -> None:
        # TF_CPP_MIN_LOG_LEVEL=3 keeps the allocator's words off stderr, and its dumps are written all the same.
        self._gave_up = tuple(FailedRequest(allocator, 0) for allocator in self._dumps.gave_up())
        self._dumped = self._dumps.read(self._stderr.dump_text)

    def _close_host_stop(self) -> None:
        if self._host_stop is not None:
            self._host_full = self._host_stop.full
            self._host_stop.close()

    def _facts(self, error: BaseException | None) -> Facts:
        devices = merge_devices(self._pool.devices())
        ended: Ended = "well" if error is None and not self._goes_on else "failed"
        facts = gather_facts(self._namespace, self.before, self.cell.source, error, devices, self._earlier_cells, ended)
        batches = tuple(dict.fromkeys((*self._batches, *facts.batches)))
        if self._keep_weights:
            facts = replace(facts, models=tuple(_mark_kept(m, self._namespace) for m in facts.models))
        building = self._building if error is not None else None
        return replace(facts, batches=batches, building=building, full_at=tuple(self._full_at))

    def _tick(self, live: Live) -> None:
        if len(self._batches) < MOST_BATCHES:
            self._observe()
        if (live.waiting is not None) != self._is_waiting:
            self._is_waiting = live.waiting is not None
            if self._is_waiting:
                self._observe_wait()
        if self._on_tick is not None:
            self._on_tick(live)

    def _observe(self) -> None:
        """Note the batch sizes that Keras is using right now, from the stack of the thread that runs the cell."""
        frame = sys._current_frames().get(self._thread)
        for seen in observe_all(frame):
            if seen not in self._batches:
                self._batches.append(seen)

    def _observe_wait(self) -> None:
        """Note what is being made, and in which batches, as the allocator begins to wait for memory."""
        frame = sys._current_frames().get(self._thread)
        self._building = observe_building(frame)
        seen = next(iter(observe_all(frame)), None)
        if seen is not None and len(self._full_at) < MOST_BATCHES:
            self._full_at.append(seen)


def _status(
    error: BaseException | None, errors: tuple[ErrorText, ...], facts: Facts, dumps: tuple[Dump, ...]
) -> Status:
    if error is None:
        return "ok"
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return "oom" if find_oom(errors, facts, dumps) is not None else "error"


def _keep_weights(source: str, namespace: Mapping[str, Any]) -> str:
    if "start_again(" in source:
        # What the models hold now is what the failed run left: the copies that this cell asks for must stay.
        return "The weights that were kept before stay kept: this run starts again from them."
    from tf_mem_magic.apply import start_again
    from tf_mem_magic.facts.models import find_models
    from tf_mem_magic.facts.names import reachable

    module = sys.modules[start_again.__module__]
    kept = 0
    for _, model in find_models(reachable(namespace)):
        try:
            kept += module.keep(model)
        except Exception as error:
            return f"The weights from before this run could not be kept ({type(error).__name__}: {error})."
    return module.describe(kept) if kept else "There was no model yet whose weights could be kept."


def _mark_kept(model: Any, namespace: Mapping[str, Any]) -> Any:
    from tf_mem_magic.apply import start_again

    held = namespace.get(model.name)
    return replace(model, kept=held is not None and sys.modules[start_again.__module__].is_kept(held))
