"""Plan: what a model's training is expected to need before it ran, at any batch size, on any device."""

from __future__ import annotations

from dataclasses import dataclass

from tf_mem_magic.core.step import Processor, Step


@dataclass(frozen=True, slots=True)
class Ahead:
    """A training step that has not run, in numbers.

    Attributes
    ----------
    model : str
        The name that holds the model.
    batch : int
        Samples in the step.
    steps : tuple of Step
        The step at that batch size, and, where the model takes any, at twice that.
    weights : int
        Bytes of the weights, the metrics and all else that stays, those that training will make included.
    slots : int
        Bytes of the optimizer's values, likewise.
    made : int
        Bytes of both that are there already.
    data : int
        Bytes that the data of one sample takes.
    arrays : int
        Bytes of the data as a whole where they are arrays; 0: they are not.
    trainable : int
        Bytes of the weights that are trained.
    optimizer : str
        The class of the optimizer, or those of several; empty: there is none.
    policy : str
        The dtype policy that the model follows.
    layers : tuple of str
        The names of the layers that are no models themselves.
    blocks : tuple of str
        Those of layers of the user's own that hold other layers: they could be rematerialized.
    processor : Processor or None
        The processor here, by which kernels on the CPU size their temporaries.
    jit : bool
        XLA compiles the step when it runs.
    variables : tuple of int
        Bytes of each of the weights, the metrics and the optimizer's values.
    batch_from : str
        Where the batch size is from, in words.
    """

    model: str
    batch: int
    steps: tuple[Step, ...]
    weights: int = 0
    slots: int = 0
    made: int = 0
    data: int = 0
    trainable: int = 0
    optimizer: str = ""
    policy: str = "float32"
    layers: tuple[str, ...] = ()
    blocks: tuple[str, ...] = ()
    processor: Processor | None = None
    jit: bool = False
    batch_from: str = ""
    arrays: int = 0
    variables: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Place:
    """A device to train on: its ``name``, and the bytes that TensorFlow may use there.

    ``taken``: bytes in use by other things. ``cpu``: it is the processor. ``here``: it is this process's device.
    """

    name: str
    limit: int
    taken: int = 0
    cpu: bool = False
    here: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """One way to train.

    ``low`` to ``high``: the peak to expect at the plan's batch, in bytes. ``batches``: for each place the largest
    batch that fits it; 0: not even one sample.
    """

    key: str
    name: str
    low: int
    high: int
    batches: tuple[int, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to expect: ``rows``, the first of which is training as it is, for each of ``places``.

    ``batch``: samples in a step, to which the peaks of ``rows`` belong. ``notes``: what the numbers do not cover.
    ``seconds``: how long planning took.
    """

    ahead: Ahead
    batch: int
    rows: tuple[Row, ...]
    places: tuple[Place, ...]
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
