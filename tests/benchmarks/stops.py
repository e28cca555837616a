"""A hundred Stops at random moments, 40 of them in a cell's first tenth of a second.

``python -m tests.benchmarks.stops [SEED]`` prints those that did not stop their cell or left something behind, and
ends with 1 where there were any. For a nightly run: it takes about ten minutes.
"""

from __future__ import annotations

import random
import sys

from tests.kernel import Kernel
from tests.session.stops import SETUP, stops

EARLY, LATE = 40, 60


def main() -> int:
    """Count the Stops that went wrong."""
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else random.randrange(2**32)
    print(f"seed {seed}: {EARLY} Stops within 0.1 s, {LATE} later", flush=True)
    with Kernel() as kernel:
        assert kernel.run(SETUP).status == "ok"
        bad = [one for one in stops(kernel, EARLY, LATE, seed) if not one.is_good]
    for one in bad:
        print(one)
    print(f"{len(bad)} of {EARLY + LATE} went wrong")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
