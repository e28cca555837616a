"""What was garbage when memory ran out: counted by collecting it."""

from __future__ import annotations

from dataclasses import replace

from tf_mem_magic.core.recording import Recording
from tf_mem_magic.diagnose.breakdown import find_leftovers
from tf_mem_magic.diagnose.cause import WORTH_NAMING
from tf_mem_magic.diagnose.dump import device_of
from tf_mem_magic.release.counted import bytes_in_use, collect, gained


def with_garbage(recording: Recording) -> Recording:
    """Count what was garbage when memory ran out: what the run began with, and what it has made since.

    What the failed step holds is not collected yet: the error's frames still refer to it.
    """
    series = recording.main
    if recording.status != "oom" or series is None or series.kind != "allocator":
        return recording
    dumps = (dump.limit for dump in reversed(recording.dumps) if device_of(dump.allocator) == series.device)
    # TensorFlow does not tell the limit that it chose itself; its dump does.
    limit = series.limit or next((limit for limit in dumps if limit), None) or series.peak or 0
    unnamed = find_leftovers(recording, series.device or "").unnamed or 0
    counted = bytes_in_use()
    collect()
    back = dict(gained(counted, bytes_in_use())).get(series.name, 0)
    begun, made = min(back, unnamed), max(back - unnamed, 0)
    return replace(
        recording,
        garbage=((series.name, begun),) if begun and unnamed >= WORTH_NAMING * limit else (),
        discarded=((series.name, made),) if made and made >= WORTH_NAMING * limit else (),
    )
