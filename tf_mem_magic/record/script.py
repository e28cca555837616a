"""A recorded block of a script: its file is read like a cell, and what it comes to is told on stderr."""

from __future__ import annotations

import linecache
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from typing import Any

from tf_mem_magic.core import troubles
from tf_mem_magic.core.outcome import Outcome
from tf_mem_magic.core.recording import Cell, Recording
from tf_mem_magic.diagnose.places import is_cell_file
from tf_mem_magic.record.capture import Capture
from tf_mem_magic.record.held_stop import HeldStop, StoppedError
from tf_mem_magic.record.pool import SourcePool

Complete = Callable[[Recording, BaseException | None, Mapping[str, Any]], Recording]

_LONGEST = 200_000
"""Characters; of a longer file only the name is kept."""


class Script:
    """The recording of one block, from :meth:`start` to :meth:`finish`.

    Parameters
    ----------
    name : str
        What the report calls the block where its file cannot be read.
    namespace : mapping
        The names of the module that the block is in.
    file : str
        The file that the block is in.
    interval : float
        Seconds between samples.
    trace : bool
        Trace a few steps allocation by allocation.
    """

    def __init__(
        self, name: str, namespace: Mapping[str, Any], file: str, interval: float, trace: bool = False
    ) -> None:
        source = "".join(linecache.getlines(file, dict(namespace)))
        is_known = 0 < len(source) <= _LONGEST
        self._file = file if is_known else ""
        self._namespace = namespace
        self._pool = SourcePool()
        script = os.path.basename(file) if is_known and not is_cell_file(file) else ""
        cell = Cell(source if is_known else f"# {name}", tagged=False, script=script)
        self._capture = Capture(cell, namespace, self._pool, interval=interval, trace=trace)

    def start(self) -> None:
        """Begin to record."""
        self._capture.start()

    def finish(self, error: BaseException | None, tell: Callable[[Outcome], None], complete: Complete) -> None:
        """Stop recording, explain, hand the outcome to ``tell``; where memory ran out, print the report to stderr.

        ``complete`` adds to the recording what is only known of the live objects that the error holds.

        Raises
        ------
        KeyboardInterrupt
            If a Stop came meanwhile and the block itself had ended well.
        """
        stop = HeldStop()
        stop.hold()
        try:
            self._capture.end()
            stop.run(lambda: self._report(error, tell, complete))
        except StoppedError:
            tell(Outcome(self._capture.tell_stopped()))
        except Exception as problem:
            what = troubles.note("a recorded block could not be reported on", problem).what
            print(f"tf_mem_magic could not report on this block ({what}).", file=sys.stderr)
        finally:
            self._pool.close()
            stop.let_go()
        if stop.stopped and error is None:
            raise KeyboardInterrupt("stopped while tf_mem_magic made its report")

    def _report(self, error: BaseException | None, tell: Callable[[Outcome], None], complete: Complete) -> None:
        from tf_mem_magic.explain import explain

        files = frozenset({self._file} if self._file else ())
        recording = complete(self._capture.tell(error, files), error, self._namespace)
        outcome = explain(recording, notices=self._capture.notices, deploys=False)
        tell(outcome)
        if outcome.recording.status == "oom":
            from tf_mem_magic.report.script import script_text

            width = shutil.get_terminal_size().columns
            name = os.path.relpath(self._file) if self._file else "script"
            print(script_text(outcome, name, width, getattr(sys.stderr, "encoding", None)), file=sys.stderr)
