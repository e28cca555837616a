"""The device that this process trains on: how much of it TensorFlow may use, and what is in use by other things."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tf_mem_magic.diagnose.planning.plan import KEPT_BY_TENSORFLOW
from tf_mem_magic.diagnose.planning.values import Place
from tf_mem_magic.record.pool import SourcePool
from tf_mem_magic.sources.host import used_by_group, used_by_machine

HOST = "host:rss"
"""The series of the host's memory."""


def place_here(pool: SourcePool, made: int, root: Path = Path("/")) -> Place | None:
    """Describe the first GPU, or the CPU where there is none.

    Parameters
    ----------
    pool : SourcePool
        The open sources.
    made : int
        Bytes in use that the model itself holds already.
    root : Path
        Stands for ``/``, so that tests can lay out a tree of their own.

    Returns
    -------
    Place or None
        None where the size of the device is not known.
    """
    pool.refresh(at_once=True)
    values = {name: value for source in pool.sources for name, value in source.read().items()}
    limits = {name: limit for source in pool.sources for name, (limit, _) in source.limits().items()}
    # By both: a source that another thread is reading just now gives nothing.
    has_gpu = any(name.endswith("GPU:0") for name in (*values, *limits))
    device = "GPU:0" if has_gpu else "CPU:0"
    for series, kept in ((f"allocator:{device}", 0), (f"pool:{device}", 0), (f"device:{device}", KEPT_BY_TENSORFLOW)):
        if series in limits:
            taken = max(values.get(f"allocator:{device}", 0) - made, 0)
            if kept:
                taken += _of_others(values, device)
            return Place(device, limits[series] - kept, taken, not has_gpu, True)
    if not has_gpu and HOST in limits:
        full = [use.used for use in (used_by_group(root), used_by_machine(root)) if use is not None]
        taken = max(values.get(HOST, 0), *full, 0) - made
        return Place("this computer's memory", limits[HOST], max(taken, 0), True, True)
    return None


def _of_others(values: Mapping[str, int], device: str) -> int:
    """Give what other processes hold of a card; 0 where the driver does not tell this one's share."""
    used, own = values.get(f"device:{device}"), values.get(f"process:{device}")
    return max(used - own, 0) if used is not None and own is not None else 0
