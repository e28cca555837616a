"""Stops (SIGINT) at random moments of watched cells, in a real kernel: each must stop its cell and leave nothing."""

from __future__ import annotations

import random
from dataclasses import dataclass

from tests.kernel import Kernel, Ran

SETUP = """%load_ext tf_mem_magic
import asyncio, os, signal, threading, time
_stderr = os.fstat(2).st_ino
def _left():
    shell = get_ipython()
    found = {
        "threads": [t.name for t in threading.enumerate() if t.name.startswith("tfmem-sampler")],
        "variable": os.environ.get("TF_BFC_MEMORY_DUMP"),
        "handlers": [str(e) for e in shell.custom_exceptions],
        "descriptor": os.fstat(2).st_ino != _stderr,
        "cells": len(shell._tf_mem_magic.hooks._stack) - 1,
        "transformers": len(shell.ast_transformers),
        "signal": signal.getsignal(signal.SIGINT) is not signal.default_int_handler,
    }
    return {name: value for name, value in found.items() if value}
"""
CELLS = {
    "sync": "%%tfmem{options}\nfor _ in range({steps}):\n    time.sleep(0.05)\nended = True",
    "await": "%%tfmem{options}\nfor _ in range({steps}):\n    await asyncio.sleep(0.05)\nended = True",
}
EARLY = 0.1
"""Seconds after the request in which a Stop is early: our own code runs then."""


@dataclass(frozen=True)
class Stopped:
    """What one Stop led to."""

    kind: str
    after: float
    status: str
    ended: bool
    left: dict[str, object]
    report: tuple[str, ...]
    errors: tuple[str, ...]

    @property
    def is_good(self) -> bool:
        """Whether the cell was stopped, nothing stayed behind, and the report is one line that says so."""
        named = len(self.report) == 1 and "nterrupted" in self.report[0]
        return self.status == "error" and not self.ended and not self.left and named


def stop_at(kernel: Kernel, kind: str, after: float, options: str = " --no-live", steps: int = 100) -> Stopped:
    """Run a watched cell that takes five seconds, and stop it ``after`` seconds."""
    kernel.run("ended = False")
    ran = kernel.run(CELLS[kind].format(options=options, steps=steps), timeout=120, interrupt_after=after)
    ended, left = kernel.value("(ended, _left())")
    return Stopped(kind, after, ran.status, ended, left, headline(ran), tuple(e[-300:] for e in ran.errors))


def headline(ran: Ran) -> tuple[str, ...]:
    """Give the report's lines above its chart; a line that is wrapped goes on two columns further in."""
    return tuple(ran.report_text.strip().partition("\n\n")[0].replace("\n  ", " ").splitlines())


def stops(kernel: Kernel, early: int, late: int, seed: int) -> list[Stopped]:
    """Stop cells ``early`` times within the first tenth of a second and ``late`` times after it; every fourth awaits."""
    rng = random.Random(seed)
    moments = [rng.uniform(0, EARLY) for _ in range(early)] + [rng.uniform(EARLY, 2) for _ in range(late)]
    return [stop_at(kernel, "await" if i % 4 == 3 else "sync", after) for i, after in enumerate(moments)]
