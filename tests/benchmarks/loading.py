"""``%load_ext tf_mem_magic`` in a fresh kernel: how long it takes, and what it imports."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from tests.benchmarks.pairs import Pairs
from tests.benchmarks.table import Row, paired_row
from tests.kernel import Kernel

MOST_MS = 50
HEAVY = frozenset("tensorflow keras matplotlib ipywidgets libcst anywidget psutil pynvml msgspec numpy".split())
RECORDINGS = 8
"""Earlier recordings that lie in the cache: loading looks for that of a kernel that died."""


def measure(environment: Mapping[str, str], kernels: int = 7) -> Iterator[Row]:
    """Load the extension in fresh kernels; the plain cell is ``pass`` in the same kernel."""
    fill_cache(environment)
    plain, tagged, imported = [], [], set()
    for _ in range(kernels):
        with Kernel(dict(environment)) as kernel:
            kernel.run("import sys; before = set(sys.modules)")
            rounds = sorted(timed(kernel, "pass") for _ in range(9))
            plain.append(rounds[len(rounds) // 2])
            tagged.append(timed(kernel, "%load_ext tf_mem_magic"))
            imported |= set(kernel.value("sorted(set(sys.modules) - before)"))
    heavy = sorted(HEAVY & {name.partition(".")[0] for name in imported})
    own = {name for name in imported if name.partition(".")[0] == "tf_mem_magic"}
    others = sorted(imported - own)
    yield paired_row("`%load_ext tf_mem_magic`", Pairs(tuple(plain), tuple(tagged)), MOST_MS)
    brought = f"{len(own)} modules of its own; beyond: {', '.join(others) or 'none'}"
    yield Row("imported by `%load_ext`", "—", "—", "—", brought, "nothing heavy", not heavy)


def fill_cache(environment: Mapping[str, str]) -> None:
    """Leave as many recordings as are kept, and compiled modules."""
    with Kernel(dict(environment)) as kernel:
        kernel.run("%load_ext tf_mem_magic")
        for _ in range(RECORDINGS):
            kernel.run("%%tfmem\npass")


def timed(kernel: Kernel, code: str) -> float:
    """Run a cell and give the seconds from the request to the kernel's last word."""
    began = time.perf_counter()
    ran = kernel.run(code)
    seconds = time.perf_counter() - began
    assert ran.status == "ok", ran.errors
    return seconds
