"""Effect: what a proposal's change does to memory, as data, from which one place makes the estimate."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace


@dataclass(frozen=True, slots=True)
class Effect:
    """What a change to the cell does to the step and to what lies beside it; what it leaves alone keeps its default.

    Attributes
    ----------
    batch : tuple of (int, int) or None
        Samples that one pass through the model takes, before and after (accumulation: the micro-batch after).
    accumulates : bool
        The gradients of several passes are added up in variables of their own, one for each trainable weight.
    sums : bool
        Gradients are added up over several passes, in variables that ``accumulates`` adds or that are there already.
    policy : str or None
        The dtype policy that the layers compute in afterwards (``"mixed_float16"``, ``"mixed_bfloat16"``).
    recompute : tuple of tuple of str, or None
        The groups of layers whose activations are computed again in the backward pass instead of kept, each group as a
        whole, by the names that operations carry; empty: which they are is not known.
    optimizer : str or None
        The optimizer afterwards, by Keras's class name in lower case (``"sgd"``).
    slots : int or None
        How many variables of a weight's size it keeps for each weight; None: unknown.
    released : int
        Bytes on the device that are let go of before the rerun.
    to_host : int
        Bytes on the device that lie in host memory, or are not made, afterwards.
    staged : bool
        What ran operation by operation runs as one graph.
    jit : bool or None
        Whether XLA compiles the step afterwards; None: as before.
    validation : int or None
        Samples in a batch of the validation, where that stays as it is though the training's changes.
    limit : int or None
        Bytes that the allocator may take afterwards, where the change raises or lowers that; None: as before.
    """

    batch: tuple[int, int] | None = None
    accumulates: bool = False
    sums: bool = False
    policy: str | None = None
    recompute: tuple[tuple[str, ...], ...] | None = None
    optimizer: str | None = None
    slots: int | None = None
    released: int = 0
    to_host: int = 0
    staged: bool = False
    jit: bool | None = None
    validation: int | None = None
    limit: int | None = None

    def then(self, later: Effect) -> Effect:
        """Give the effect of this change and, on top of it, of ``later``."""
        nothing, names = Effect(), (f.name for f in fields(later))
        news = {name: value for name in names if (value := getattr(later, name)) != getattr(nothing, name)}
        if self.batch is not None and later.batch is not None:
            news["batch"] = (self.batch[0], later.batch[1])
        if self.recompute is not None and later.recompute is not None:
            known = bool(self.recompute) and bool(later.recompute)
            news["recompute"] = tuple(dict.fromkeys((*self.recompute, *later.recompute))) if known else ()
        news |= {name: getattr(self, name) + getattr(later, name) for name in ("released", "to_host")}
        return replace(self, **news)
