"""What an allocator did, event by event, and what its bytes were at each moment: exact, and bounded in work."""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field

from tf_mem_magic.core.step import Holder, TracedSteps
from tf_mem_magic.memory.roles import DATA, layer_of, scopes_of

MOMENTS = 160
"""Equal spans of the traced time; of each the moment with the most bytes in use is kept."""

MOST_STEPS = 3
MOST_HOLDERS = 40

BEFORE = ("weights", "optimizer", "values")
"""Kinds of what lay there before the traced steps, in the order in which its bytes are shared out."""

_SMALLEST = 0.3
"""Of runs without gradients those are no steps that allocate less than this share of what the largest does."""

_FEWEST = 3
"""A run with fewer different operations is an operation by itself."""

_GRADIENT = re.compile(r"(?:^|/)(?:gradient_tape|gradients)/")
_NUMBER = re.compile(r"_\d+$")


@dataclass(frozen=True, slots=True)
class Events:
    """The events of one allocator in the order in which they happened, as columns of equal length.

    Columns of numbers, not one object each: there can be a million.

    Attributes
    ----------
    device : str
        Whose memory (``"GPU:0"``).
    limit : int or None
        The allocator's ceiling in bytes.
    seconds : array of float
        When, since the trace began.
    sizes : array of int
        Bytes of the chunk: allocated, or freed (negative).
    requested : array of int
        Bytes that were asked for; the rest of the chunk is the allocator's rounding.
    addresses : array of int
        Where the chunk lies.
    in_use : array of int
        The allocator's own counter after the event.
    runs : array of int
        Which run of a graph (or operation) asked for it; 0: unknown.
    ops : array of int
        Index into ``names``.
    names : tuple of (str, str, bool)
        The operation's path, the kind of region (``"output"``, ``"temp"``, …), and whether a thread of ``tf.data`` ran
        it.
    cut : float or None
        Seconds after which events were not read; None: all were.
    """

    device: str
    limit: int | None = None
    seconds: array[float] = field(default_factory=lambda: array("d"))
    sizes: array[int] = field(default_factory=lambda: array("q"))
    requested: array[int] = field(default_factory=lambda: array("q"))
    addresses: array[int] = field(default_factory=lambda: array("Q"))
    in_use: array[int] = field(default_factory=lambda: array("q"))
    runs: array[int] = field(default_factory=lambda: array("q"))
    ops: array[int] = field(default_factory=lambda: array("l"))
    names: tuple[tuple[str, str, bool], ...] = ()
    cut: float | None = None

    def __len__(self) -> int:
        return len(self.sizes)


def kind_of(op: str, region: str, is_data: bool, optimizers: Collection[str]) -> str:
    """Say what an operation's allocation is, by its path alone.

    Parameters
    ----------
    op : str
        The path, such as ``"StatefulPartitionedCall/adam/Sqrt_1"``; empty: the allocator was not told.
    region : str
        ``"temp"`` for what a kernel needs only while it runs.
    is_data : bool
        A thread of ``tf.data`` ran it.
    optimizers : collection of str
        Names of the optimizers, which are the scopes of their operations.
    """
    path = op.split("/")
    if is_data or _NUMBER.sub("", path[-1]) in DATA:
        return "inputs"
    if not op:
        return "other"
    is_gradient = _GRADIENT.search(op) is not None
    scopes = {scope for part in path[:-1] for scope in (part, _NUMBER.sub("", part))}
    if not is_gradient and not scopes.isdisjoint(optimizers):
        return "updates"
    if region == "temp":
        return "workspace"
    return "gradients" if is_gradient else "activations"


def steps_in(events: Events) -> tuple[tuple[int, ...], bool]:
    """Find where the runs of the training function begin.

    Returns
    -------
    starts : tuple of int
        The index of the first event of each run, in order. The first run had perhaps begun before the trace.
    trains : bool
        Whether they compute gradients.
    """
    total: dict[int, int] = {}
    first: dict[int, int] = {}
    seen: dict[int, set[int]] = {}
    gradients = {i for i, (op, _, _) in enumerate(events.names) if _GRADIENT.search(op)}
    data = {i for i, (_, _, is_data) in enumerate(events.names) if is_data}
    for i, (run, size, op) in enumerate(zip(events.runs, events.sizes, events.ops)):
        if run and size > 0 and op not in data:
            total[run] = total.get(run, 0) + size
            first.setdefault(run, i)
            seen.setdefault(run, set()).add(op)
    found = [run for run in first if seen[run] & gradients]
    if found:
        return tuple(sorted(first[run] for run in found)), True
    found = [run for run in first if len(seen[run]) >= _FEWEST]
    most = max((total[run] for run in found), default=0)
    return tuple(sorted(first[run] for run in found if total[run] >= _SMALLEST * most)), False


def traced_steps(
    events: Events,
    *,
    layers: Collection[str] = (),
    optimizers: Collection[str] = (),
    weights: int = 0,
    slots: int = 0,
    began: float = 0.0,
    failed: bool = False,
) -> TracedSteps:
    """Follow the allocator through two or three whole steps.

    At each moment the bytes of all kinds sum to the allocator's own counter: what it counts beside the pieces whose
    allocation was seen lay there before.

    Parameters
    ----------
    events : Events
        What the allocator did.
    layers, optimizers : collection of str
        The names of the models' layers and optimizers, which are scopes in the operations' paths.
    weights, slots : int
        Bytes of the models' and the optimizers' variables on the device.
    began : float
        Seconds of the cell at which the trace began.
    failed : bool
        The cell ended while traced: its last step counts though it is not whole.
    """
    if not len(events):
        return TracedSteps(events.device, why_not="the allocator told of nothing while it was traced")
    starts, trains = steps_in(events)
    whole = starts[1 : MOST_STEPS + 2]
    if failed and starts[1:]:
        whole = starts[-MOST_STEPS:] if len(starts) > MOST_STEPS else starts[1:]
        begin, end = whole[0], len(events)
        count = len(whole) - 1
    elif len(whole) >= 2:
        begin, end, count = whole[0], whole[-1], len(whole) - 1
        whole = whole[:-1]
    else:
        begin, end, whole, count = 0, len(events), (), 0
    replay = _Replay(events, layers, optimizers, weights, slots)
    replay.run(0, begin, (), step=-1)
    return replay.told(begin, end, whole, count, began, trains)


class _Piece:
    __slots__ = ("born", "kind", "op", "requested", "size")

    def __init__(self, kind: str, op: int, size: int, requested: int, born: int) -> None:
        self.kind, self.op, self.size, self.requested, self.born = kind, op, size, requested, born


class _Replay:
    """The pieces that are alive, and the bytes of each kind, while events are gone through."""

    def __init__(
        self, events: Events, layers: Collection[str], optimizers: Collection[str], weights: int, slots: int
    ) -> None:
        self.events = events
        self._scopes = scopes_of((name[0] for name in events.names), layers)
        self._kinds = tuple(kind_of(*name, optimizers) for name in events.names)
        self._before = (weights, slots)
        self._alive: dict[int, _Piece] = {}
        self._bytes: dict[str, int] = {}
        self._known = 0
        self.data: list[int] = []
        self.unknown = self.unknown_bytes = 0

    def run(
        self, begin: int, end: int, marks: Sequence[int], look: Callable[[int], None] | None = None, step: int = 0
    ) -> None:
        """Go through the events from ``begin`` to ``end``, in ``step``; the next one begins at each of ``marks``."""
        events, alive, held = self.events, self._alive, self._bytes
        columns = zip(*(c[begin:end] for c in (events.sizes, events.requested, events.addresses, events.ops)))
        coming = _following(marks)
        following = next(coming)
        for i, (size, requested, address, op) in enumerate(columns, begin):
            if i == following:
                step, following = step + 1, next(coming)
                self.data.append(held.get("inputs", 0))
                self._settle(step)
            if size >= 0:
                if address in alive:  # its end was not told of
                    self._free(address, 0)
                piece = alive[address] = _Piece(self._kinds[op], op, size, requested, step)
                held[piece.kind] = held.get(piece.kind, 0) + piece.requested
                held["rounding"] = held.get("rounding", 0) + size - requested
                self._known += size
            else:
                self._free(address, -size)
            if look is not None:
                look(i)

    def _free(self, address: int, size: int) -> None:
        piece = self._alive.pop(address, None)
        if piece is None:
            self.unknown += 1
            self.unknown_bytes += size
        elif piece.kind:
            self._forget(piece)

    def _forget(self, piece: _Piece) -> None:
        self._bytes[piece.kind] -= piece.requested
        self._bytes["rounding"] -= piece.size - piece.requested
        self._known -= piece.size

    def _settle(self, step: int) -> None:
        """Count what has outlived the whole step after its own among what lies there: a variable's new value, say."""
        for piece in self._alive.values():
            if piece.kind and piece.kind != "inputs" and piece.born < step - 1:
                self._forget(piece)
                piece.kind = ""

    def parts(self, in_use: int) -> dict[str, int]:
        """Share out the allocator's counter among the kinds; what nobody saw allocated lay there before."""
        found = {kind: held for kind, held in self._bytes.items() if held}
        room = in_use - self._known
        for kind, most in zip(BEFORE, (*self._before, None)):
            part = room if most is None else max(min(most, room), 0)
            if part:
                found[kind] = found.get(kind, 0) + part
            room -= part
        return found

    def holders(self) -> tuple[Holder, ...]:
        """Add up what is alive by layer and kind, most first."""
        total: dict[tuple[str, str], list[int]] = {}
        for piece in self._alive.values():
            if not piece.kind:
                continue
            op = self.events.names[piece.op][0]
            layer = "" if piece.kind in ("inputs", "other") else layer_of(op, self._scopes)
            row = total.setdefault((layer, piece.kind), [0, 0, -1, 0])
            row[0] += piece.requested
            row[1] += 1
            if piece.requested > row[2]:
                row[2:] = [piece.requested, piece.op]
        ranked = sorted(total.items(), key=lambda entry: (-entry[1][0], entry[0]))[:MOST_HOLDERS]
        return tuple(Holder(*key, held, count, self.events.names[op][0]) for key, (held, count, _, op) in ranked)

    def told(self, begin: int, end: int, starts: Sequence[int], count: int, began: float, trains: bool) -> TracedSteps:
        """Go through the steps and tell of them."""
        events = self.events
        self.unknown = self.unknown_bytes = 0
        zero, last = events.seconds[begin], events.seconds[end - 1]
        spans = _highest_of_spans(events, begin, end, zero, last)
        peak = max(range(begin, end), key=events.in_use.__getitem__)
        times: list[float] = []
        course: list[dict[str, int]] = []
        parts: dict[str, int] = {}
        holders: tuple[Holder, ...] = ()

        def look(i: int) -> None:
            nonlocal holders
            if i == peak:
                parts.update(self.parts(events.in_use[i]))
                holders = self.holders()
            if i in spans:
                times.append(events.seconds[i] - zero)
                course.append(self.parts(events.in_use[i]))

        self.data = [self._bytes.get("inputs", 0)]
        self.run(begin, end, starts[1:], look)
        self.data.append(self._bytes.get("inputs", 0))
        kinds = sorted({kind for one in course for kind in one}, key=lambda kind: (-parts.get(kind, 0), kind))
        notes = () if trains or not count else ("No gradients were computed in these steps: they are no training.",)
        if events.cut is not None:
            notes = (*notes, f"Only the first {events.cut:.2g} s of the trace were read: there was more than is read.")
        if not count:
            shown = "what ran since the last one began" if begin else "all that was traced"
            notes = (*notes, f"No whole step could be told from the next: {shown} is shown.")
        ends = [events.in_use[i - 1] if i else events.in_use[0] - events.sizes[0] for i in starts] or [events.in_use[0]]
        return TracedSteps(
            device=events.device,
            began=began + zero,
            seconds=last - zero,
            steps=count,
            starts=tuple(events.seconds[i] - zero for i in starts),
            in_use=(*ends, events.in_use[end - 1]),
            data=tuple(self.data),
            peak=events.in_use[peak],
            peak_time=events.seconds[peak] - zero,
            parts=tuple((kind, parts[kind]) for kind in kinds if parts.get(kind)),
            holders=holders,
            times=tuple(times),
            course=tuple((kind, tuple(one.get(kind, 0) for one in course)) for kind in kinds),
            limit=events.limit,
            events=end - begin,
            unknown=self.unknown,
            unknown_bytes=self.unknown_bytes,
            notes=notes,
        )


def _following(marks: Sequence[int]) -> Iterator[int]:
    yield from marks
    while True:
        yield -1


def _highest_of_spans(events: Events, begin: int, end: int, zero: float, last: float) -> frozenset[int]:
    """Give, for each of :data:`MOMENTS` equal spans, the event with the most bytes in use; the ends as well."""
    width = (last - zero) / MOMENTS or 1.0
    highest: dict[int, int] = {}
    for i in range(begin, end):
        span = min(int((events.seconds[i] - zero) / width), MOMENTS - 1)
        if events.in_use[i] > events.in_use[highest.setdefault(span, i)]:
            highest[span] = i
    return frozenset((begin, *highest.values(), end - 1))
