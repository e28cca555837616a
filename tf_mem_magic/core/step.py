"""Step: one step of a model as a list of operations with the sizes of their tensors. Names and numbers only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Literal

WIDTHS = {
    "float16": 2,
    "bfloat16": 2,
    "float32": 4,
    "float64": 8,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
    "int16": 2,
    "uint16": 2,
    "int32": 4,
    "uint32": 4,
    "int64": 8,
    "uint64": 8,
    "complex64": 8,
    "complex128": 16,
    "qint8": 1,
    "quint8": 1,
    "qint32": 4,
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
}
"""Bytes of one element; what is not listed (handles, variants, strings) takes no memory of the device itself."""

OF_GRAPH = "variables of the step"
"""Whose variables are that only the step's graph leads to: those of a model that a closure holds, say."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One output of an operation.

    ``shape`` is None where it is known only at run time. ``dtype`` is TensorFlow's name. ``count``: the tensor is a
    list that comes to hold that many elements of this shape and dtype, each in a buffer of its own (0: no list).
    """

    shape: tuple[int, ...] | None
    dtype: str
    count: int = 0

    @property
    def bytes(self) -> int | None:
        """Bytes of its buffer, or of one element of a list; None where the shape is unknown."""
        return None if self.shape is None else prod(self.shape) * WIDTHS.get(self.dtype, 0)


@dataclass(frozen=True, slots=True)
class Node:
    """One operation.

    Attributes
    ----------
    name : str
        Its path in the graph (``functional_1/dense_1/MatMul``).
    kind : str
        Its type (``MatMul``).
    inputs : tuple of (int, int)
        Which output of which node each input is: indices into :attr:`Step.nodes` and its outputs.
    after : tuple of int
        Nodes that must have run before, though it reads nothing of them.
    outputs : tuple of Tensor
        What it makes.
    shares : tuple of int
        For each output the input whose buffer it is, as far as only shapes and constants tell; -1: none.
    body : int or None
        For a loop, its body among :attr:`Step.bodies`: a step whose first nodes are its arguments.
    trips : int
        How often a loop runs its body; 0: unknown.
    """

    name: str
    kind: str
    inputs: tuple[tuple[int, int], ...] = ()
    after: tuple[int, ...] = ()
    outputs: tuple[Tensor, ...] = ()
    shares: tuple[int, ...] = ()
    body: int | None = None
    trips: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """A step at one batch size.

    ``nodes`` stand in an order in which they can run. ``results`` are the outputs that the caller gets. ``given`` are
    the nodes whose tensors the caller holds while the step runs. ``bodies`` are those of loops.
    """

    nodes: tuple[Node, ...] = ()
    results: tuple[tuple[int, int], ...] = ()
    given: tuple[int, ...] = ()
    bodies: tuple[Step, ...] = ()


def pack(steps: Sequence[Step]) -> str:
    """Give steps as one short text, for a file; :func:`unpack` reads it."""
    import base64
    import zlib

    import msgspec

    return base64.b85encode(zlib.compress(msgspec.json.encode(tuple(steps)), 6)).decode()


@lru_cache(maxsize=4)
def unpack(text: str) -> tuple[Step, ...]:
    """Read what :func:`pack` gave; the same text is read once.

    Raises
    ------
    ValueError
        If the text is damaged.
    """
    import base64
    import zlib

    import msgspec

    try:
        return msgspec.json.decode(zlib.decompress(base64.b85decode(text)), type=tuple[Step, ...])
    except (zlib.error, msgspec.MsgspecError) as error:
        raise ValueError(f"the step is damaged ({error})") from error


@dataclass(frozen=True, slots=True)
class Processor:
    """A processor, as TensorFlow's kernels for it see it.

    ``cache``: bytes of its last-level cache, 0: unknown. ``threads``: how many of them one operation may use.
    ``onednn``: the kernels are oneDNN's where it has some.
    """

    cache: int = 0
    threads: int = 1
    onednn: bool = False


@dataclass(frozen=True, slots=True)
class StepFacts:
    """The step that was running when memory ran out, in numbers.

    Attributes
    ----------
    function : str
        TensorFlow's name of the graph that ran.
    op : str
        The operation that failed, as the error names it.
    batch : int or None
        Samples in the step.
    packed : str
        The step (:func:`unpack`), and after it, where the graph is of any batch, the step at :attr:`other`.
    other : int or None
        The second batch size.
    variables : tuple of (str, str, int)
        The variables that the models and optimizers hold: ``"weights"`` or ``"optimizer"``, whose, and bytes, each.
    layers : tuple of str
        The names of the models' layers that are no models themselves, outermost first, as the models run them.
    classes : tuple of str
        The classes of these layers, in the same order.
    optimizers : tuple of str
        The names of the optimizers, by which the operations of their updates are called.
    compiled : bool
        XLA had compiled the step, or a part of it: that part runs as one program, which takes its memory at once.
    why_not : str
        Why there is no step; empty: there is.
    seconds : float
        How long reading it took.
    cache : int
        Bytes of the processor's last-level cache, by which kernels on the CPU size their temporaries; 0: the step ran
        on another device, or it is unknown.
    threads : int
        How many threads one operation may use on the CPU; 0: the step ran on another device.
    onednn : bool
        TensorFlow computed with oneDNN's kernels on the CPU.
    data : tuple of tuple of (int or None)
        The shapes of what the step drew from the data, as they were when it failed.
    length : int or None
        How long the samples of that batch were, where the step takes samples of any length.
    coming : int or None
        The bytes that the notebook's optimizers will keep of the weights, which none of them had updated yet: a loop
        of one's own makes them after its first step. None: they are there, or none has a name.
    """

    function: str = ""
    op: str = ""
    batch: int | None = None
    packed: str = ""
    other: int | None = None
    variables: tuple[tuple[str, str, int], ...] = ()
    layers: tuple[str, ...] = ()
    optimizers: tuple[str, ...] = ()
    compiled: bool = False
    why_not: str = ""
    seconds: float = 0.0
    cache: int = 0
    data: tuple[tuple[int | None, ...], ...] = ()
    length: int | None = None
    threads: int = 0
    classes: tuple[str, ...] = ()
    onednn: bool = False
    coming: int | None = None

    @property
    def processor(self) -> Processor | None:
        """The processor that the step ran on; None: it ran on another device.

        Recordings of earlier versions do not tell its threads; two at once are then assumed.
        """
        return Processor(self.cache, self.threads or 2, self.onednn) if self.cache or self.threads else None

    @property
    def steps(self) -> tuple[Step, ...]:
        """The step, and the one at the other batch size; empty where there is none or it is damaged."""
        try:
            return unpack(self.packed) if self.packed else ()
        except ValueError:
            return ()


@dataclass(frozen=True, slots=True)
class Holder:
    """What one layer held of one kind at the peak of traced steps: ``bytes`` in ``count`` pieces.

    ``layer`` is empty where the operations belong to none; ``op`` is the operation that made the largest piece.
    """

    layer: str
    kind: str
    bytes: int
    count: int = 1
    op: str = ""


@dataclass(frozen=True, slots=True)
class TracedSteps:
    """A few steps as TensorFlow's allocator told of them, event by event. Sizes are bytes, times seconds.

    Attributes
    ----------
    device : str
        Whose allocator (``"GPU:0"``).
    began, seconds : float
        When the first of the steps began, since the cell's start (about: the two clocks are read one after the
        other), and how long they took together.
    steps : int
        Whole steps; 0 where none could be told apart, and all that was traced is meant.
    starts : tuple of float
        When each step began, the first at 0.0.
    in_use : tuple of int
        The bytes in use as each step began, and at the end of the last.
    data : tuple of int
        How many of these are batches of data, drawn ahead of their step, say.
    peak, peak_time : int, float
        The most bytes in use, by the allocator's own counter, and when.
    parts : tuple of (str, int)
        What the bytes in use at the peak were, by kind, most first; they sum to ``peak``.
    holders : tuple of Holder
        The same by layer and kind, most first, as far as they were allocated while traced.
    times : tuple of float
        Moments of the course, ascending.
    course : tuple of (str, tuple of int)
        For each kind its bytes at these moments; at each they sum to the allocator's counter.
    limit : int or None
        Of the allocator.
    events : int
        Events of the allocator in these steps.
    unknown, unknown_bytes : int
        Pieces freed in them that had been allocated before the trace began.
    why_not : str
        Why nothing is known; empty: something is.
    notes : tuple of str
        Sentences about what is missing.
    """

    device: str = ""
    began: float = 0.0
    seconds: float = 0.0
    steps: int = 0
    starts: tuple[float, ...] = ()
    in_use: tuple[int, ...] = ()
    data: tuple[int, ...] = ()
    peak: int = 0
    peak_time: float = 0.0
    parts: tuple[tuple[str, int], ...] = ()
    holders: tuple[Holder, ...] = ()
    times: tuple[float, ...] = ()
    course: tuple[tuple[str, tuple[int, ...]], ...] = ()
    limit: int | None = None
    events: int = 0
    unknown: int = 0
    unknown_bytes: int = 0
    why_not: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PolicyTrial:
    """A dtype policy tried on a model without data: its computation traced, nothing of it run.

    Attributes
    ----------
    policy : str
        The policy (``"mixed_bfloat16"``).
    outcome : str
        ``"ok"``, ``"failed"`` or ``"not tried"``.
    traced : str
        What it computed: ``"step"`` (a whole step, as its own ``train_step`` has it) or ``"call"`` (a forward pass).
    where : str
        The class whose code failed; empty where that is not known.
    in_model : bool
        That is the model's own class, whose outputs may be in 32 bits where it is built anew.
    told : str
        What Keras or TensorFlow said, in short; or why it was not tried.
    seconds : float
        How long the trial took.
    """

    policy: str
    outcome: Literal["ok", "failed", "not tried"]
    traced: Literal["step", "call"] = "call"
    where: str = ""
    told: str = ""
    in_model: bool = False
    seconds: float = 0.0
