"""The device that this process trains on: how much of it TensorFlow may use, and what is in use by other things."""

from __future__ import annotations

from tf_mem_magic.diagnose.planning.values import Place
from tf_mem_magic.record.pool import SourcePool

_KEPT = 1800 << 20


def place_here(pool: SourcePool, made: int) -> Place | None:
    """Describe the first GPU, or the CPU where there is none.

    Parameters
    ----------
    pool : SourcePool
        The open sources.
    made : int
        Bytes in use that the model itself holds already.

    Returns
    -------
    Place or None
        None where the size of the device is not known.
    """
    pool.refresh(at_once=True)
    values = {name: value for source in pool.sources for name, value in source.read().items()}
    limits = {name: limit for source in pool.sources for name, (limit, _) in source.limits().items()}
    has_gpu = any(name.endswith("GPU:0") for name in values)
    device = "GPU:0" if has_gpu else "CPU:0"
    for series, kept in ((f"allocator:{device}", 0), (f"pool:{device}", 0), (f"device:{device}", _KEPT)):
        if series in limits:
            in_use = values.get(f"allocator:{device}", 0)
            return Place(device, limits[series] - kept, max(in_use - made, 0), not has_gpu, True)
    if not has_gpu and "host" in limits:
        return Place("this computer's memory", limits["host"], max(values.get("host", 0) - made, 0), True, True)
    return None
