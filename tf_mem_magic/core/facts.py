"""Facts: numbers and names read once from the live objects, before anything is released."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from math import prod
from typing import Literal

from tf_mem_magic.core.step import PolicyTrial, StepFacts

Scalar = int | float | bool | str | None


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What is known of one Keras model that the cell reaches by name.

    ``name`` is the variable that holds it, ``layers`` the distinct layer class names in order of first use,
    ``weight_bytes`` and ``optimizer_bytes`` the bytes of its variables, ``steps`` the optimizer's iterations now and
    ``steps_before`` those when the cell began (None: the model did not exist then). A step that ran out of memory is
    counted too, and may have changed some weights: each is updated as soon as its gradient is there. ``kept``: its
    weights from before the cell were kept for a new start. ``rounds_ids``: in 16 bits it would round ids, which reach
    an ``Embedding`` as floats. ``copyable``: Keras can make it again from its own description; ``quantizable`` the
    bytes of the floats that ``quantize`` of Keras would turn into integers, ``widest`` those of the largest of these
    weights. ``form``: ``"sequential"``, ``"functional"`` or ``"subclassed"`` (None: unknown). ``no_student``: why no
    narrower model can be made of it that learns from it (empty: one can; None: unknown). ``trainable_bytes`` are those
    of the variables that training changes (None: not known), ``earlier_bytes`` those of ``weight_bytes`` that existed
    before the cell: a new model may be built around an earlier one. ``local``: only a function that led to the error
    held it, under this name. ``rowwise``: in inference it surely computes each sample on its own. ``own_step``: its
    class has a ``train_step`` that is not Keras's (None: not known). ``own_layers`` are the classes in it, its own
    included, whose ``call`` Keras did not write. ``halving`` counts the layers with weights that a 16-bit policy would
    change, without those that give the outputs (None: not known). ``trial`` is what became of 16-bit compute when it
    was tried (None: nothing asks for that). ``accumulates``: its optimizer adds up gradients of so many batches.
    """

    name: str
    layers: tuple[str, ...] = ()
    optimizer: str | None = None
    schedule: str | None = None
    dtype_policy: str = "float32"
    jit_compile: bool | None = None
    run_eagerly: bool = False
    weight_bytes: int = 0
    optimizer_bytes: int = 0
    steps: int = 0
    steps_before: int | None = None
    device: str | None = None
    kept: bool = False
    rounds_ids: bool = False
    copyable: bool = False
    quantizable: int = 0
    widest: int = 0
    form: str | None = None
    no_student: str | None = None
    trainable_bytes: int | None = None
    earlier_bytes: int = 0
    local: bool = False
    rowwise: bool = False
    own_step: bool | None = None
    own_layers: tuple[str, ...] = ()
    halving: int | None = None
    trial: PolicyTrial | None = None
    accumulates: int | None = None

    @property
    def is_new(self) -> bool:
        """Whether the cell itself created the model."""
        return self.steps_before is None


@dataclass(frozen=True, slots=True)
class DatasetFacts:
    """A ``tf.data.Dataset`` or ``PyDataset`` reachable by ``name``.

    ``batch`` is None where it cannot be told; ``cardinality`` counts batches (None: infinite or unknown).
    ``kind`` is ``"tf.data"``, ``"PyDataset"`` or ``"generator"``; ``is_new``: made by this cell. ``samples`` is the
    exact number of samples of one pass, None where it cannot be told (the last batch may be smaller).
    """

    name: str
    kind: str = "tf.data"
    batch: int | None = None
    cardinality: int | None = None
    is_new: bool = False
    samples: int | None = None


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """Another process that holds memory of a device; ``user`` and ``bytes`` are None where unreadable."""

    pid: int
    user: str | None = None
    bytes: int | None = None


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """One device as TensorFlow and NVML see it.

    ``name`` is TensorFlow's short name (``"GPU:0"``, ``"CPU:0"``). ``growth`` is None where unknown; ``logical``:
    a logical device with its own memory limit was configured. ``others`` is None where nobody can tell who else
    uses the card, and empty where nobody does. Sizes in bytes. ``uuid`` is the driver's name of the card
    (``GPU-…``, ``MIG-…``), which ``CUDA_VISIBLE_DEVICES`` takes.
    """

    name: str
    kind: Literal["GPU", "CPU", "TPU", "other"] = "GPU"
    hardware: str | None = None
    compute_capability: tuple[int, int] | None = None
    growth: bool | None = None
    logical: bool = False
    total: int | None = None
    free: int | None = None
    others: tuple[ProcessFacts, ...] | None = None
    uuid: str | None = None


@dataclass(frozen=True, slots=True)
class NamedValue:
    """A value that a name of the notebook holds: ``bytes`` on ``device`` (None: host memory), 0 as a part of another.

    ``origin`` is ``"earlier"`` (it existed before the cell) or ``"cell"`` (the cell made it). ``dtype`` of a container
    names those of its arrays, and the kinds of what else it holds (``"float32, object"``). ``keeps_model``: what it
    holds is a model that no name holds (that of a ``History``).
    """

    name: str
    bytes: int
    kind: str
    device: str | None = None
    origin: Literal["earlier", "cell"] = "earlier"
    shape: tuple[int, ...] | None = None
    dtype: str | None = None
    keeps_model: bool = False

    @property
    def number(self) -> int | None:
        """Bytes of one number of the array; None where that is not known."""
        own = re.fullmatch(r"(?:u?int|float|bfloat|complex)(\d+)|bool", self.dtype or "")
        return None if own is None else max(int(own[1] or 8) // 8, 1)

    @property
    def extent(self) -> int | None:
        """Bytes of the array itself: less than ``bytes`` where it is a part of one that it keeps."""
        return None if self.shape is None or self.number is None else prod(self.shape) * self.number


@dataclass(frozen=True, slots=True)
class ScalarFact:
    """A scalar that the cell reads: ``name`` as written in the source (``BATCH``, ``cfg.batch_size``)."""

    name: str
    value: Scalar


@dataclass(frozen=True, slots=True)
class BatchSeen:
    """The batch size that Keras really used in ``method`` (``"fit"``); ``samples``: those of the call, where fewer."""

    method: str
    batch: int
    source: str
    samples: int | None = None


@dataclass(frozen=True, slots=True)
class FunctionFacts:
    """A function that an earlier cell defined, and that the cell reaches by ``name``.

    ``source`` is its definition as Python ran it, decorators included; ``file`` and ``line`` (from 1, of the first
    decorator or the ``def``) are those that tracebacks name. ``staged``: ``tf.function`` holds it, so what was traced
    keeps the values that its names had then.
    """

    name: str
    source: str
    file: str
    line: int
    staged: bool = False


@dataclass(frozen=True, slots=True)
class ModuleFacts:
    """A file of the user's own whose code led to the error: its name as tracebacks tell it, and its text."""

    file: str
    source: str


@dataclass(frozen=True, slots=True)
class GrownFacts:
    """A list, dict or deque that holds more arrays or tensors than when the cell began.

    Attributes
    ----------
    name : str
        What reaches it; a function's own name for it where only a function that led to the error held it.
    before, after : int
        Its entries when the cell began (0: the cell made it) and now.
    bytes : int
        What the tensors take that came to it, each counted once.
    kind : str
        What its last tensor is (``"tf.Tensor"``).
    device : str or None
        Where that lies; None for host memory.
    """

    name: str
    before: int
    after: int
    bytes: int
    kind: str
    device: str | None = None


@dataclass(frozen=True, slots=True)
class TracedFacts:
    """A function under ``tf.function``: how often it had been traced when the cell began (``before``) and now."""

    name: str
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class BuildingFacts:
    """The weight that a layer of Keras was making: the layer's ``name`` and class, the weight's own name and size.

    ``kind`` is empty where only the weight's path tells the layer.
    """

    name: str
    kind: str
    weight: str = ""
    shape: tuple[int, ...] | None = None
    dtype: str | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything a remedy may know beside the recording; numbers, names and text only.

    ``tensorflow`` is its version (None: not imported), ``initialised`` whether its devices are;
    ``policy`` Keras's global dtype policy; ``earlier_cells`` the sources of the cells that ran before this one,
    oldest first; ``environment`` the variables that steer TensorFlow's allocator. ``epochs_done`` is the epoch in
    which ``fit`` failed, counted from 0, so ``initial_epoch`` is in it; ``steps_done`` the whole steps of that epoch.
    ``validating``: it failed while it validated, so the epoch's training is complete and its weights are whole.
    ``used`` are names that the cell uses without writing them: the functions that it names read them.
    ``sessions`` are names that hold sessions in TensorFlow 1's style, open since before the cell.
    ``repeatable`` are names in the cell that hold data which can be read again: arrays, tensors, tables, datasets
    (also what :attr:`values` and :attr:`datasets` leave out because another name holds it), and collections of them.
    ``functions`` are those of earlier cells that the cell can take over as they are: defining them once more makes the
    same. ``read_elsewhere`` are names that the code behind other names reads, whether the cell writes them or not, and
    ``used_besides`` what is left of these where the cell defines ``functions`` itself. ``modules`` are the user's own
    files whose code led to the error, innermost first. ``shadowed`` are names of models that mean another model in a
    function that led to the error. ``partial``: not everything was looked at, most often because the kernel died before
    that; so what is missing here is not known. ``step`` is the step that was running when memory ran out (None: it was
    not read). ``grown`` are the containers of tensors that grew during the cell, ``traced`` the functions under
    ``tf.function`` that were traced in it, ``inputs`` the arrays and tensors that the lines on the way to the error
    read, the innermost first, each under the text that stands there. ``building`` is the weight that was being made
    while the allocator waited for memory, ``full_at`` the batches that Keras was using each time it did.
    ``validation`` are the batches in which the ``fit`` that was running validates, where they are not those of the
    training (None: they are, or it is not known).
    """

    tensorflow: str | None = None
    keras: str | None = None
    initialised: bool = False
    policy: str = "float32"
    models: tuple[ModelFacts, ...] = ()
    datasets: tuple[DatasetFacts, ...] = ()
    devices: tuple[DeviceFacts, ...] = ()
    values: tuple[NamedValue, ...] = ()
    scalars: tuple[ScalarFact, ...] = ()
    batches: tuple[BatchSeen, ...] = ()
    epochs_done: int | None = None
    steps_done: int | None = None
    earlier_cells: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    validating: bool = False
    used: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ()
    repeatable: tuple[str, ...] = ()
    functions: tuple[FunctionFacts, ...] = ()
    read_elsewhere: tuple[str, ...] = ()
    used_besides: tuple[str, ...] = ()
    modules: tuple[ModuleFacts, ...] = ()
    shadowed: tuple[str, ...] = ()
    partial: bool = False
    step: StepFacts | None = None
    grown: tuple[GrownFacts, ...] = ()
    traced: tuple[TracedFacts, ...] = ()
    inputs: tuple[NamedValue, ...] = ()
    building: BuildingFacts | None = None
    full_at: tuple[BatchSeen, ...] = ()
    validation: BatchSeen | None = None

    def model(self, name: str) -> ModelFacts | None:
        """Find the model that ``name`` holds, in whichever quotes; None where it is not sure which it means."""
        plain = name.replace("'", '"')
        found = next((m for m in self.models if m.name.replace("'", '"') == plain), None)
        return None if name in self.shadowed else found

    def dataset(self, name: str) -> DatasetFacts | None:
        """Find the dataset that ``name`` holds."""
        return next((d for d in self.datasets if d.name == name), None)

    def value(self, name: str) -> NamedValue | None:
        """Find the array, tensor or table that ``name`` holds."""
        return next((v for v in self.values if v.name == name), None)

    def device(self, name: str) -> DeviceFacts | None:
        """Find the device called ``name`` (``"GPU:0"``)."""
        return next((d for d in self.devices if d.name == name), None)

    def scalar(self, name: str) -> Scalar:
        """Give the scalar that the source calls ``name``, in whichever quotes; None where it is not one."""
        plain = name.replace("'", '"')
        return next((s.value for s in self.scalars if s.name.replace("'", '"') == plain), None)


def merge_devices(devices: Iterable[DeviceFacts]) -> tuple[DeviceFacts, ...]:
    """Merge what several sources know of the same device; the first that knows a thing tells it."""
    merged: dict[str, DeviceFacts] = {}
    for device in devices:
        known = merged.setdefault(device.name, device)
        news = {f.name: getattr(device, f.name) for f in fields(known) if getattr(known, f.name) in (None, False)}
        merged[device.name] = replace(known, **news)
    return tuple(merged.values())


def release(version: str | None) -> tuple[int, int]:
    """Give the first two numbers of a version, to compare; below every release where it is unknown."""
    found = re.match(r"(\d+)\.(\d+)", version or "")
    return (int(found[1]), int(found[2])) if found else (-1, -1)


def untested_keras(facts: Facts, oldest: tuple[int, int]) -> str:
    """Say that Keras is older than what something was tested with; empty: it is not."""
    if release(facts.keras) >= oldest:
        return ""
    if facts.keras is None and facts.partial:
        return "it is not known whether the cell uses Keras"
    if facts.keras is None:
        return "the cell does not use Keras"
    return f"it was tested with Keras {oldest[0]}.{oldest[1]} and later; this is {facts.keras}"
