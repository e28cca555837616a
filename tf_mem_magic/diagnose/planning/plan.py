"""What training will need, and what fits: a step that has not run, simulated at any batch size and for every change."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from tf_mem_magic.core.step import Node, Processor, Step
from tf_mem_magic.core.units import size
from tf_mem_magic.diagnose.expected import ABOVE_ELSEWHERE, AGAIN
from tf_mem_magic.diagnose.planning.values import Ahead, Place, Plan, Row
from tf_mem_magic.memory.any_batch import AnyBatch, Line, any_batch
from tf_mem_magic.memory.forecast import zeros_of
from tf_mem_magic.memory.pools.pooled import executed_in_pool
from tf_mem_magic.memory.recompute import recomputed
from tf_mem_magic.memory.sizes import in_half

BELOW, ABOVE = 0.87, 1.13
"""How far the ends of the range lie from the simulated step on a processor, chunks counted whole."""

CARDS = (8, 12, 16, 24, 40, 48, 80)
"""Sizes of cards, in GiB."""

KEPT_BY_TENSORFLOW = 1800 << 20
"""Bytes of a card that TensorFlow leaves to the system, at most (MinSystemMemory in gpu_device.cc)."""

PARTS = 4
"""Parts that a batch is divided into where gradients are accumulated."""

MOST = 1 << 20
"""The largest batch size that is looked for: where it fits, any does."""

BATCHES = 2
"""Batches of data that an input pipeline may hold on the device at once: the one that the step reads, and the next."""

MOST_UNSPLIT = 128 << 20
"""Bytes below which TensorFlow's allocator leaves what a chunk has beyond a request with it (bfc_allocator.cc)."""

_WORTH = 0.01
"""Share of the peak from which on arrays as a whole are worth a sentence."""

Bounds = Callable[[int], tuple[int, int]]
"""Gives the peak at a batch size: its lower and its upper end."""


@dataclass(frozen=True, slots=True)
class _Change:
    """A way to train: what becomes of the step, and of what lies beside it.

    ``parts``: a batch goes through the model in that many. ``slots``: values of the optimizer for each weight.
    """

    key: str
    name: str
    policy: str = ""
    blocks: tuple[str, ...] = ()
    slots: int | None = None
    parts: int = 1
    note: str = ""


def make_plan(ahead: Ahead, here: Iterable[Place]) -> Plan:
    """Make the plan of a model's training.

    Parameters
    ----------
    ahead : Ahead
        The step that has not run.
    here : iterable of Place
        The devices of this process whose size is known; cards of usual sizes come after them.
    """
    places = (*here, *(Place(f"{n} GB", (n << 30) - KEPT_BY_TENSORFLOW) for n in CARDS))
    cpu = bool(places and places[0].here and places[0].cpu)
    rows, walked = [], _Walked(ahead)
    for change in _changes(ahead):
        bounds = {on_cpu: _bounds(walked, change, on_cpu) for on_cpu in {cpu, *(place.cpu for place in places)}}
        low, high = bounds[cpu](ahead.batch)
        fits = tuple(_largest(ahead, bounds[place.cpu], place, change.parts) for place in places)
        rows.append(Row(change.key, change.name, low, high, fits, change.note))
    kept = [rows[0], *(row for row in rows[1:] if row.low + row.high < rows[0].low + rows[0].high)]
    return Plan(ahead, ahead.batch, tuple(kept), places, _notes(ahead, places, rows[0].low))


def peak_at(ahead: Ahead, batch: int, cpu: bool = False) -> tuple[int, int]:
    """Give the lower and the upper end of the peak of training as it is, at a batch size."""
    return _bounds(_Walked(ahead), _Change("", "as it is"), cpu)(batch)


def _changes(ahead: Ahead) -> list[_Change]:
    """List the ways to train whose effect on memory is known."""
    found = [_Change("", "as it is")]
    mixed = not ahead.policy.startswith("mixed_") and ahead.policy == "float32"
    blocks = ahead.blocks if len(ahead.blocks) > 1 else ()
    if mixed:
        found.append(_Change("mixed-precision", "mixed_float16", "float16"))
    if blocks:
        found.append(_Change("rematerialize", f"rematerialize {len(blocks)} blocks", blocks=blocks))
    if mixed and blocks:
        found.append(_Change("mixed-precision", "mixed_float16 and rematerialize", "float16", blocks))
    values = ahead.slots / ahead.trainable if ahead.trainable else 0
    if values > 1.5:
        found.append(_Change("lighter-optimizer", "SGD with momentum", slots=1))
    if values > 0.5:
        found.append(_Change("lighter-optimizer", "SGD", slots=0))
    if len(ahead.steps) > 1 and ahead.batch >= PARTS:
        found.append(_Change("accumulate-gradients", f"accumulate, {PARTS} parts", parts=PARTS))
    return found


class _Walked:
    """The peaks of a step at any batch size; each way to run it is walked through once."""

    def __init__(self, ahead: Ahead) -> None:
        self.ahead = ahead
        self._steps: dict[tuple[str, tuple[str, ...]], tuple[Step, ...]] = {}
        self._peaks: dict[tuple[str, tuple[str, ...], Processor | None], AnyBatch] = {}
        self._rounding: dict[tuple[str, tuple[str, ...], Processor], float] = {}

    def steps(self, policy: str, blocks: tuple[str, ...]) -> tuple[Step, ...]:
        """Give the step as it is computed under a policy, with blocks that are computed again in the backward pass."""
        key = policy, blocks
        if key not in self._steps:
            steps = (in_half(step, policy, self.ahead.layers) if policy else step for step in self.ahead.steps)
            groups = tuple((block,) for block in blocks)
            self._steps[key] = tuple(recomputed(step, groups, self.ahead.layers) for step in steps)
        return self._steps[key]

    def peaks(self, policy: str, blocks: tuple[str, ...], processor: Processor | None) -> AnyBatch:
        """Give its peaks."""
        key = policy, blocks, processor
        if key not in self._peaks:
            steps, batch = self.steps(policy, blocks), self.ahead.batch
            self._peaks[key] = any_batch((steps[0], steps[-1]), batch, 2 * batch, processor)
        return self._peaks[key]

    def rounding(self, policy: str, blocks: tuple[str, ...], processor: Processor | None) -> float:
        """Give by how much the chunks of the step are larger than what is asked for, where its pool is known.

        Those of 16 bits are not: what comes free of 32 is twice as large, and is split.
        """
        if processor is None or policy:
            return 1.0
        key = policy, blocks, processor
        if key not in self._rounding:
            shares, held = [], self.ahead.variables
            for step, times in zip(self.steps(policy, blocks), (1, 2)):
                in_pool = median(executed_in_pool(step, processor, held)) - sum(held)
                asked = self.peaks(policy, blocks, processor).peak(times * self.ahead.batch).high
                shares.append(in_pool / max(asked, 1))
            self._rounding[key] = max(fmean(shares), 1.0)
        return self._rounding[key]


def _bounds(walked: _Walked, change: _Change, cpu: bool) -> Bounds:
    """Give the function that tells the peak under a change at any batch size."""
    ahead = walked.ahead
    processor = ahead.processor if cpu else None
    steps = walked.steps(change.policy, change.blocks)
    peaks = walked.peaks(change.policy, change.blocks, processor)
    rounding = walked.rounding(change.policy, change.blocks, processor)
    unsplit = _line(ahead, [_largest_tensor(step) for step in steps])
    stays = ahead.weights + (ahead.slots if change.slots is None else change.slots * ahead.trainable)
    stays += ahead.trainable if change.parts > 1 else 0
    zeros = min(zeros_of(ahead.variables), ahead.trainable) if change.parts > 1 else 0

    def at(batch: int) -> tuple[int, int]:
        samples = -(-batch // change.parts)
        peak = peaks.peak(samples)
        low, high = int(peak.low * rounding), int(peak.high * rounding)
        data = ahead.data * samples
        # Where nothing was measured one chunk at the least may be larger than what was asked for, by as much again.
        slack = min(unsplit.at + unsplit.slope * (samples - ahead.batch), MOST_UNSPLIT) if processor is None else 0
        step = max(low, high) * (ABOVE_ELSEWHERE if processor is None else ABOVE) * (
            AGAIN if change.blocks else 1
        ) + max(slack, 0)
        return stays + int(low * BELOW) + data, stays + zeros + int(step) + BATCHES * data

    return at


def _line(ahead: Ahead, sizes: Sequence[int]) -> Line:
    """Give the line through the bytes at the batch and at twice that."""
    return Line(sizes[0], (sizes[-1] - sizes[0]) / ahead.batch)


def _largest_tensor(step: Step) -> int:
    return max((tensor.bytes or 0 for node in _all(step) for tensor in node.outputs if not tensor.count), default=0)


def _largest(ahead: Ahead, bounds: Bounds, place: Place, parts: int) -> int:
    """Give the largest batch whose upper end fits a place, as a number that one would write; 0: not one sample.

    Where the model takes one batch size only it is that, or 0.
    """
    room = place.limit - place.taken

    def fits(batch: int) -> bool:
        return bounds(batch)[1] <= room

    if len(ahead.steps) < 2:
        return ahead.batch if fits(ahead.batch) else 0
    if not fits(parts):
        return 0
    first, last = 1, MOST
    while first < last:
        middle = (first + last + 1) // 2
        if fits(middle * parts):
            first = middle
        else:
            last = middle - 1
    return MOST if first == MOST else rounded(first) * parts


def rounded(batch: int) -> int:
    """Round a batch size down to one that one would write: four binary digits, then zeros (13, 26, 104, 960)."""
    unit = 1 << max(batch.bit_length() - 4, 0)
    return batch // unit * unit


def _notes(ahead: Ahead, places: tuple[Place, ...], low: int) -> tuple[str, ...]:
    """Say what the numbers do not cover."""
    notes = []
    if ahead.jit:
        notes.append("XLA compiles this step: it then runs as one program, whose memory is another.")
    kinds = {node.kind for step in ahead.steps[:1] for node in _all(step)}
    if any(kind.startswith("Conv") for kind in kinds):
        notes.append("On a GPU convolutions take workspace beside this, as much as cuDNN chooses.")
    if ahead.arrays > _WORTH * low:
        notes.append(
            f"On a GPU Keras may copy arrays there as a whole, {size(ahead.arrays)} beside this; batches of a"
            " tf.data.Dataset go one by one."
        )
    if places and places[0].cpu and any(kind.startswith("Conv3D") for kind in kinds):
        notes.append(
            "On a CPU the gradients of Conv3D lay patches out from some batch size on: the peak leaps there, which the"
            " columns do not know."
        )
    unknown = sum(t.shape is None and "float" in t.dtype for node in ahead.steps[0].nodes for t in node.outputs)
    if unknown:
        sizes = "1 tensor has a size" if unknown == 1 else f"{unknown} tensors have sizes"
        notes.append(f"{sizes} that only the run tells: not counted.")
    if len(ahead.steps) < 2:
        notes.append(f"The model takes batches of {ahead.batch} and no others: the columns say whether they fit.")
    return tuple(notes)


def _all(step: Step) -> Iterator[Node]:
    yield from step.nodes
    for body in step.bodies:
        yield from _all(body)
