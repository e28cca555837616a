"""Diagnosis: what ran out, where in the user's code, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tf_mem_magic.core.recording import Frame

Cause = Literal["host", "other-process", "leftovers", "fragmentation", "too-big", "unknown"]
PartKind = Literal[
    "weights",
    "optimizer",
    "values",
    "arrays",
    "earlier",
    "garbage",
    "inputs",
    "activations",
    "gradients",
    "updates",
    "workspace",
    "rounding",
    "other",
]
OF_STEP: frozenset[str] = frozenset({"inputs", "activations", "gradients", "updates", "workspace", "rounding", "other"})
"""Kinds of parts that a step holds only while it runs; the others lie there before it and after it."""


@dataclass(frozen=True, slots=True)
class Part:
    """A share of the bytes in use: ``kind``, ``bytes``, and how it is known."""

    kind: PartKind
    bytes: int
    basis: str
    names: tuple[str, ...] = ()


SituationKind = Literal[
    "weight",
    "slots",
    "weights-fill",
    "constant",
    "eager-data",
    "outputs",
    "one-sample",
    "growing",
    "models-kept",
    "validation",
    "jacobian",
    "one-tape",
    "in-pieces",
    "pipeline",
    "arrays",
    "callback",
    "callback-call",
]
"""What a failed request was for, where that decides what can help; :mod:`tf_mem_magic.diagnose.situation` tells."""


@dataclass(frozen=True, slots=True)
class Situation:
    """What was being made when memory ran out, where that decides which remedies can help at all.

    Attributes
    ----------
    kind : str
        ``weight`` (a layer's weight was being made), ``slots`` (the optimizer's values), ``weights-fill`` (both fill
        the device), ``constant`` (an array was copied to the device as a whole), ``eager-data`` (an operation on all
        rows at once, outside any model), ``outputs`` (what ``predict`` keeps of all batches), ``one-sample`` (a single
        sample), ``growing`` (a list or dict of the notebook that a loop filled with tensors), ``models-kept`` (one
        that it filled with models), ``validation`` (that of a training which itself fits), ``jacobian`` (all rows of a
        Jacobian at once), ``one-tape`` (a gradient tape that records all rounds of a loop), ``in-pieces`` (memory that
        an earlier failure left in pieces), ``pipeline`` (what a pipeline of ``tf.data`` holds), ``arrays`` (whole
        arrays that Keras copies into the CPU's pool), ``callback`` (what a callback computes beside the training),
        ``callback-call`` (a model that one calls like a function, on all samples at once).
    text : str
        One sentence that says so.
    advice : str
        One sentence on what would help by hand; empty where a remedy does it.
    code : str
        Lines to copy that do it; empty where there are none.
    helps : tuple of str or None
        The keys of the remedies that can help, beside those which name this kind as what they are made for; None: none
        is ruled out.
    rules_out : tuple of str
        Keys of remedies that cannot help.
    reason : str
        Why the others cannot, as the end of a refusal.
    holder : str
        The name of the list or dict that grew; empty where it was none.
    """

    kind: SituationKind
    text: str
    advice: str = ""
    code: str = ""
    helps: tuple[str, ...] | None = None
    rules_out: tuple[str, ...] = ()
    reason: str = ""
    holder: str = ""

    def admits(self, key: str) -> bool:
        """Whether the remedy ``key`` can help, as far as the situation knows it."""
        return key in self.helps if self.helps is not None else key not in self.rules_out


@dataclass(frozen=True, slots=True)
class LayerBytes:
    """What one layer holds of one kind: ``bytes`` in ``count`` tensors, the largest with ``shape`` and ``dtype``.

    ``layer`` is empty where the operations belong to none.
    """

    layer: str
    kind: PartKind
    bytes: int
    shape: tuple[int, ...] | None = None
    dtype: str = ""
    count: int = 1


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """An out-of-memory error explained.

    ``device`` is TensorFlow's short name, or ``"host"``. ``requested``, ``in_use``, ``limit`` are bytes or None.
    ``line`` is the cell's line that led there (the ``%%tfmem`` line being 1); ``file`` and ``frame`` the innermost
    frame of the user's own code. ``fragmentation`` is 0–1 or None. ``breakdown`` sums to ``in_use``; ``layers`` tells
    those of its bytes by layer that a step holds, most first.
    ``text`` is the paragraph a person reads, one sentence a line; ``detail`` those of its lines that say what was
    needed and why there was no room. ``jit``: XLA had compiled what failed. ``situation``: what was being made, where
    that decides what can help.
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
    situation: Situation | None = None
    layers: tuple[LayerBytes, ...] = ()

    @property
    def of_step(self) -> int:
        """Bytes in use that only the step held."""
        return sum(part.bytes for part in self.breakdown if part.kind in OF_STEP)

    @property
    def larger_than_device(self) -> bool:
        """Whether the one allocation that failed is larger than all that the device has; False where that is unknown.

        The cause ``"too-big"`` says less: that it was too big for what was left beside the bytes in use.
        """
        return self.requested is not None and self.limit is not None and self.requested > self.limit
