"""Is an error out of memory? Decides on the chain of errors, and tells what ran out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tf_mem_magic.core.facts import DeviceFacts, Facts
from tf_mem_magic.core.recording import Dump, ErrorText
from tf_mem_magic.diagnose.dump import device_of
from tf_mem_magic.diagnose.errortext import TextFacts, read_error

LITTLE_FREE = 0.05
"""A device with less than this share free counts as full when an error's own text only hints at memory."""

_ERRORS = "tensorflow.python.framework.errors_impl"
_RESOURCE_EXHAUSTED = f"{_ERRORS}.ResourceExhaustedError"
_OP_ERROR = f"{_ERRORS}.OpError"
_INVALID = f"{_ERRORS}.InvalidArgumentError"
_MEMORY_ERROR = "builtins.MemoryError"
_XLA_ERRORS = ("XlaRuntimeError", "JaxRuntimeError")

# In a ResourceExhaustedError: the words for a failed allocation.
_MEMORY = re.compile(
    r"OOM when allocating|out of memory|OUT_OF_MEMORY|failed to allocate|ALLOC_FAILED|MemoryError: |Unable to allocate"
    r"|bad_alloc|Exceeded memory limit|tr(?:ying|ied) to allocate",
    re.I,
)
# In a ResourceExhaustedError: exhausted resources that are not memory.
_OTHER_RESOURCE = re.compile(r"larger than max|too many open files|no space left|quota|file descriptor", re.I)
# In TensorFlow's other exceptions: words that only it and its drivers use, never a person's message.
_DRIVER = re.compile(
    r"OOM when allocating (?:temporary )?tensor|CUDA_ERROR_OUT_OF_MEMORY|cudaErrorMemoryAllocation"
    r"|CU[A-Z]+_STATUS_ALLOC_FAILED|cuMemAlloc(?:Async)? failed to allocate|CUDA error \(failed to allocate"
    r"|Failed to allocate request for|EigenAllocator for GPU ran out of memory|RESOURCE_EXHAUSTED: Out of memory"
    r"|Exceeded memory limit \(failed to allocate|Status: out of memory"
    r"|(?<![\w.])(?:tensorflow\.[\w.]+\.)?ResourceExhaustedError: .*OOM when"
    r"|(?<![\w.])(?:numpy\.[\w.]+\.)?_?(?:Array)?MemoryError: "
)
# What a full device causes, but not only a full device.
_DISGUISED = re.compile(
    r"Dst tensor is not initialized|Failed copying input tensor|could not create cudnn handle"
    r"|failed to create cu(?:blas|dnn|solver|sparse) handle|CU[A-Z]+_STATUS_NOT_INITIALIZED|CUDNN_STATUS_INTERNAL_ERROR"
    r"|Blas \w+ launch failed|No algorithm worked|Failed to get convolution algorithm"
    r"|DNN library (?:is not found|initialization failed)|failed to allocate the scratch space",
    re.I,
)
# What an operation says that found no memory for its constant (constant_op.cc), such as an optimizer's zeros.
_NO_ROOM_FOR_CONSTANT = "Cannot parse tensor from proto"
# A frame as a message tells it.
_TOLD_FILE = re.compile(r'^\s+File "([^"]+)", line \d+, in ', re.M)
# What Keras raises after a weight could not be made while it traced a model: it goes on without the weight's value.
_WEIGHT_MISSING = re.compile(
    r"'(?:SymbolicTensor|NoneType|KerasTensor)' object has no attribute '(?:handle|_handle|assign)'"
)
_NO_FAILURE = re.compile(r"^.*freed_by_count=0.*not a failure.*$", re.M)


@dataclass(frozen=True, slots=True)
class OutOfMemory:
    """An out-of-memory error: ``error`` is the one of the chain that says so, ``text`` what it tells.

    ``device`` is TensorFlow's short name, ``"host"`` for the machine's own memory, or None where nothing tells.
    ``disguised``: its words do not speak of memory, the allocator's dump or the full device does.
    """

    error: ErrorText
    text: TextFacts
    device: str | None
    disguised: bool = False


def find_oom(errors: Sequence[ErrorText], facts: Facts, dumps: Sequence[Dump]) -> OutOfMemory | None:
    """Decide whether a chain of errors (the raised one first) is out of memory; None where it is not.

    An error whose own words do not speak of memory counts only where a dump was written or the device had little
    free. What a person's own exception says in its text proves nothing.
    """
    if errors and errors[0].type in ("KeyboardInterrupt", "SystemExit"):
        return None
    for error in errors:
        if _is_sure(error, dumps):
            return _describe(error, facts, dumps, disguised=False)
    for error in errors:
        if _lost_a_weight(error) and dumps:
            return _describe(error, facts, dumps, disguised=True)
        if _is_disguised(error) and (dumps or any(_is_full(device) for device in facts.devices)):
            return _describe(error, facts, dumps, disguised=True)
    return None


def _is_sure(error: ErrorText, dumps: Sequence[Dump]) -> bool:
    if _MEMORY_ERROR in error.bases:
        return True
    message = _NO_FAILURE.sub("", error.message)
    if _RESOURCE_EXHAUSTED in error.bases:
        if "OOM when allocating" in message:
            return True
        other = _OTHER_RESOURCE.search(message) is not None
        return not other and (_MEMORY.search(message) is not None or bool(dumps))
    if error.type in _XLA_ERRORS:
        return message.startswith("RESOURCE_EXHAUSTED") and _MEMORY.search(message) is not None
    if _OP_ERROR in error.bases and _INVALID not in error.bases:
        return _DRIVER.search(message) is not None
    return False


def _is_disguised(error: ErrorText) -> bool:
    if _INVALID in error.bases:
        return _NO_ROOM_FOR_CONSTANT in error.message
    return _OP_ERROR in error.bases and _DISGUISED.search(error.message) is not None


def _lost_a_weight(error: ErrorText) -> bool:
    """Whether Keras met a weight that was never made; only a dump shows that memory was the reason."""
    inside = "keras/src/" in _raised_in(error).replace("\\", "/")
    return error.type == "AttributeError" and inside and _WEIGHT_MISSING.search(error.message) is not None


def _raised_in(error: ErrorText) -> str:
    """Give the file that raised an error: AutoGraph tells it in the message, below frames of the user's code."""
    told = _TOLD_FILE.findall(error.message)
    files = [*(frame.file for frame in error.frames), *told]
    return files[-1] if files else ""


def _is_full(device: DeviceFacts) -> bool:
    return bool(device.total) and device.free is not None and device.free < LITTLE_FREE * (device.total or 0)


def _describe(error: ErrorText, facts: Facts, dumps: Sequence[Dump], disguised: bool) -> OutOfMemory:
    text = read_error(error.message)
    return OutOfMemory(error, text, _device(error, text, facts, dumps), disguised)


def _device(error: ErrorText, text: TextFacts, facts: Facts, dumps: Sequence[Dump]) -> str | None:
    if _MEMORY_ERROR in error.bases or text.device == "host":
        return "host"
    dumped = device_of(dumps[-1].allocator) if dumps else None
    gpus = [device.name for device in facts.devices if device.kind == "GPU"]
    device = text.device or dumped or (gpus[0] if len(gpus) == 1 else None)
    if device is None or not device.startswith("CPU"):
        return device
    # Only the BFC allocator has a limit and counters of its own, and only where it is the CPU's own device memory;
    # any other allocation of a CPU is the machine's memory.
    own = text.allocator in (None, "bfc_cpu_allocator_for_gpu") and not gpus
    return device if own else "host"
