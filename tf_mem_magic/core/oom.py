"""Is an error out of memory, and what does its text tell: device, bytes, shape, operation, layer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tf_mem_magic.core.facts import DeviceFacts, Facts
from tf_mem_magic.core.recording import Dump, ErrorText

LITTLE_FREE = 0.05
"""A device with less than this share free counts as full when an error's own text only hints at memory."""

_RESOURCE_EXHAUSTED = ".ResourceExhaustedError"
_OP_ERROR = "tensorflow.python.framework.errors_impl.OpError"
_XLA_ERRORS = ("XlaRuntimeError", "JaxRuntimeError")

# TensorFlow's own words for a failed allocation; they decide for any of its exceptions.
_SURE = re.compile(
    r"OOM when allocating|[Oo]ut of memory|OUT_OF_MEMORY|[Rr]an out of memory|[Ff]ailed to allocate|ALLOC_FAILED"
    r"|ResourceExhaustedError: |MemoryError: |Unable to allocate|bad_alloc|Exceeded memory limit"
)
# Exhausted resources that are not memory.
_OTHER_RESOURCE = re.compile(
    r"larger than max|[Tt]oo many open files|No space left on device|[Qq]uota|file descriptors?|[Dd]isk", re.I
)
# A person's own exception inside tf.py_function comes back as UnknownError: its text proves nothing but this.
_WRAPPED = re.compile(
    r"(?<![\w.])(?:tensorflow\.\S+\.)?(?:ResourceExhaustedError|MemoryError|_ArrayMemoryError): "
    r"|OOM when allocating tensor"
)
# Texts that a full device causes, but not only a full device.
_DISGUISED = re.compile(
    r"Dst tensor is not initialized|Failed copying input tensor|[Cc]ould not create cudnn handle"
    r"|CUDNN_STATUS_NOT_INITIALIZED"
    r"|failed to create cublas handle|CUBLAS_STATUS_NOT_INITIALIZED|Blas (?:x?GEMM\w*|xGEMV|SGEMM) launch failed"
    r"|No algorithm worked|[Ff]ailed to get convolution algorithm|DNN library (?:is not found|initialization failed)"
)
_NO_FAILURE = re.compile(r"^.*freed_by_count=0.*not a failure.*$", re.M)


@dataclass(frozen=True, slots=True)
class OutOfMemory:
    """What an out-of-memory error tells.

    ``device`` is TensorFlow's short name, ``"host"`` for the machine's own memory, or None where the text does not
    say. ``requested`` is bytes. ``op`` is the operation's name or type, ``op_type`` its type where told.
    ``disguised``: the text does not speak of memory, the facts do. ``evidence`` is the sentence that decided.
    """

    device: str | None = None
    requested: int | None = None
    shape: tuple[int, ...] | None = None
    dtype: str | None = None
    op: str | None = None
    op_type: str | None = None
    layer: str | None = None
    jit: bool = False
    disguised: bool = False
    evidence: str = ""


def find_oom(errors: Sequence[ErrorText], facts: Facts, dumps: Sequence[Dump]) -> OutOfMemory | None:
    """Decide whether a chain of errors (the raised one first) is out of memory; None where it is not.

    An error whose own words do not speak of memory counts only where a dump was written or the device had little
    free.
    """
    if errors and errors[0].type in ("KeyboardInterrupt", "SystemExit"):
        return None
    for error in errors:
        if _is_sure(error, dumps):
            return OutOfMemory(evidence=error.message[:200])
    for error in errors:
        if _is_disguised(error) and (dumps or any(_is_full(d) for d in facts.devices)):
            return OutOfMemory(disguised=True, evidence=error.message[:200])
    return None


def _is_sure(error: ErrorText, dumps: Sequence[Dump]) -> bool:
    text = _NO_FAILURE.sub("", error.message)
    if "builtins.MemoryError" in error.bases:
        return True
    if any(base.endswith(_RESOURCE_EXHAUSTED) for base in error.bases):
        return (_SURE.search(text) is not None or bool(dumps)) and _OTHER_RESOURCE.search(text) is None
    if error.type == "UnknownError" and _OP_ERROR in error.bases:
        return _WRAPPED.search(text) is not None
    if _OP_ERROR in error.bases or error.type in _XLA_ERRORS:
        return _SURE.search(text) is not None
    return False


def _is_disguised(error: ErrorText) -> bool:
    return _OP_ERROR in error.bases and _DISGUISED.search(error.message) is not None


def _is_full(device: DeviceFacts) -> bool:
    return bool(device.total) and device.free is not None and device.free < LITTLE_FREE * (device.total or 0)
