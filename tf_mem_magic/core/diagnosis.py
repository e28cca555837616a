"""Diagnosis: what ran out, where in the user's code, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tf_mem_magic.core.recording import Frame

Cause = Literal["host", "other-process", "leftovers", "fragmentation", "too-big", "unknown"]
PartKind = Literal["weights", "optimizer", "values", "earlier", "garbage", "other"]


@dataclass(frozen=True, slots=True)
class Part:
    """A share of the bytes in use: ``kind``, ``bytes``, and how it is known."""

    kind: PartKind
    bytes: int
    basis: str
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """An out-of-memory error explained.

    ``device`` is TensorFlow's short name, or ``"host"``. ``requested``, ``in_use``, ``limit`` are bytes or None.
    ``line`` is the cell's line that led there (the ``%%tfmem`` line being 1); ``file`` and ``frame`` the innermost
    frame of the user's own code. ``fragmentation`` is 0–1 or None. ``breakdown`` sums to ``in_use``.
    ``text`` is the paragraph a person reads, one sentence a line; ``detail`` those of its lines that say what was
    needed and why there was no room. ``jit``: XLA had compiled what failed.
    """

    device: str
    requested: int | None = None
    shape: tuple[int, ...] | None = None
    dtype: str | None = None
    op: str | None = None
    layer: str | None = None
    line: int | None = None
    file: str | None = None
    frame: Frame | None = None
    in_use: int | None = None
    limit: int | None = None
    fragmentation: float | None = None
    cause: Cause = "unknown"
    breakdown: tuple[Part, ...] = ()
    text: str = ""
    jit: bool = False
    detail: str = ""

    @property
    def larger_than_device(self) -> bool:
        """Whether the one allocation that failed is larger than all that the device has; False where that is unknown.

        The cause ``"too-big"`` says less: that it was too big for what was left beside the bytes in use.
        """
        return self.requested is not None and self.limit is not None and self.requested > self.limit
