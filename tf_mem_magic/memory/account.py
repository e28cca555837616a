"""Every chunk that the allocator handed out, told by what is in it; the parts add up to the bytes in use."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tf_mem_magic.core.step import Step
from tf_mem_magic.memory.live import Held, Live
from tf_mem_magic.memory.roles import DATA
from tf_mem_magic.memory.temporaries import may_need_workspace

SURE_BATCHES = 2
"""Batches that an input pipeline surely may hold: the one that the step reads, and the next."""

Chunks = Sequence[tuple[int, int, int]]
"""Chunks in use: the bytes that were requested, those of the chunk, and how many are alike."""


@dataclass(frozen=True, slots=True)
class Share:
    """Bytes of one thing: its ``part`` of the breakdown, what it is called, the layer where it has one.

    ``slack``: the bytes that the chunks of an input have beyond what was asked for.
    """

    part: str
    name: str
    bytes: int
    layer: str = ""
    shape: tuple[int, ...] | None = None
    dtype: str = ""
    count: int = 1
    slack: int = 0


@dataclass
class Ledger:
    """Chunks that are still to be explained, and what has been found in them."""

    left: Counter[tuple[int, int]] = field(default_factory=Counter)
    shares: list[Share] = field(default_factory=list)
    rounding: int = 0

    def __post_init__(self) -> None:
        self._sizes: dict[int, list[int]] = {}
        for requested, size in sorted(self.left):
            self._sizes.setdefault(requested, []).append(size)

    def take(self, requested: int, count: int = 1) -> int:
        """Take up to ``count`` chunks that were requested with exactly these bytes; gives how many there were."""
        taken = 0
        for size in self._sizes.get(requested, ()):
            some = min(self.left[requested, size], count - taken)
            if some > 0:
                self.left[requested, size] -= some
                self.rounding += (size - requested) * some
                taken += some
        return taken

    def counts(self) -> Counter[int]:
        """Count what is left by requested bytes."""
        counts: Counter[int] = Counter()
        for (requested, _), count in self.left.items():
            if count > 0:
                counts[requested] += count
        return counts

    def rest(self) -> int:
        """Bytes that were requested and are not explained."""
        return sum(requested * count for (requested, _), count in self.left.items() if count > 0)


def open_ledger(chunks: Chunks) -> Ledger:
    """Begin with all chunks in use."""
    left: Counter[tuple[int, int]] = Counter()
    for requested, size, count in chunks:
        left[requested, size] += count
    return Ledger(left)


def take_known(ledger: Ledger, known: Iterable[tuple[str, str, int]]) -> None:
    """Take what is known by name, as ``(part, name, bytes)``, each in a chunk of its own."""
    for part, name, size in known:
        if size and ledger.take(size):
            ledger.shares.append(Share(part, name, size))


def take_live(ledger: Ledger, live: Live) -> None:
    """Take the step's tensors, the largest first; those for sure before those of lists that were being filled."""
    for one in sorted(live.held, key=lambda held: (-held.least, -held.bytes)):
        taken = ledger.take(one.bytes, one.count) if one.bytes else 0
        if taken:
            ledger.shares.append(_share(one, taken))


def _share(one: Held, count: int) -> Share:
    return Share(one.role, one.op, one.bytes * count, one.layer, one.shape, one.dtype, count)


def take_batches(ledger: Ledger, sizes: Mapping[int, str], step: Step) -> None:
    """Take what the input pipeline holds: whole batches that it prepared, arrays that it reads from.

    Where other tensors of the step have a batch's size too, no more than :data:`SURE_BATCHES` chunks are called so.
    """
    others = {t.bytes for node in step.nodes if node.kind not in DATA for t in node.outputs}
    counts = ledger.counts()
    for size in sorted(sizes, reverse=True):
        most = SURE_BATCHES if size in others else counts[size]
        before = ledger.rounding
        taken = ledger.take(size, min(counts[size], most)) if size and counts[size] else 0
        if taken:
            slack = ledger.rounding - before
            ledger.shares.append(Share("inputs", sizes[size], size * taken, count=taken, slack=slack))


def take_workspace(ledger: Ledger, step: Step, live: Live) -> None:
    """Take chunks of sizes that no tensor of the step has, where kernels with temporaries had just run or ran."""
    kinds = may_need_workspace(step, live.stop)
    if not kinds:
        return
    tensors = {tensor.bytes for node in step.nodes for tensor in node.outputs}
    for requested, count in sorted(ledger.counts().items(), reverse=True):
        if requested and requested not in tensors:
            taken = ledger.take(requested, count)
            ledger.shares.append(Share("workspace", " and ".join(kinds[:3]), requested * taken, count=taken))
