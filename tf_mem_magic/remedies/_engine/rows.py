"""How many rows fit: for remedies that compute some of them at a time."""

from __future__ import annotations

from tf_mem_magic.core.diagnosis import Diagnosis


def rows_that_fit(diagnosis: Diagnosis, each: float, share: float) -> int | None:
    """Give how many rows of ``each`` bytes take that share of the device's memory at most; None where it is not known.

    Where its limit is not known, what was in use is a part of it.
    """
    memory = diagnosis.limit or diagnosis.in_use
    return int(share * memory / each) if memory and each > 0 else None
