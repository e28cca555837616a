"""What the text of an out-of-memory error tells: device, bytes, shape, type, operation, layer."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import dropwhile, takewhile
from math import prod

from tf_mem_magic.core.units import parse_size
from tf_mem_magic.diagnose.dump import device_of

_DTYPES = {
    "float": ("float32", 4),
    "double": ("float64", 8),
    "half": ("float16", 2),
    "float32": ("float32", 4),
    "float64": ("float64", 8),
    "float16": ("float16", 2),
    "bfloat16": ("bfloat16", 2),
    "complex64": ("complex64", 8),
    "complex128": ("complex128", 16),
    "int8": ("int8", 1),
    "int16": ("int16", 2),
    "int32": ("int32", 4),
    "int64": ("int64", 8),
    "uint8": ("uint8", 1),
    "uint16": ("uint16", 2),
    "uint32": ("uint32", 4),
    "uint64": ("uint64", 8),
    "qint8": ("qint8", 1),
    "quint8": ("quint8", 1),
    "qint32": ("qint32", 4),
    "bool": ("bool", 1),
}
"""How TensorFlow and NumPy write a type, its plain name, and bytes per element."""

_TENSOR = re.compile(
    r"OOM when allocating (?:temporary )?tensor (?:with|of) shape ?\[(?P<shape>[\d, ]*)\] and type (?P<dtype>\w+)"
)
_ARRAY = re.compile(r"for an array with shape \((?P<shape>[\d, ]*)\) and data type (?P<dtype>\w+)")
_TEMPORARY = "OOM when allocating temporary tensor"
_EXACT_BYTES = re.compile(r"\((?P<size>\d+) ?(?:B|bytes)\)|(?:allocate|allocating) (?P<plain>\d+) bytes")
_SIZE = re.compile(
    r"(?:[Uu]nable to allocate|(?:trying|tried) to allocate|[Ff]ailed to allocate(?: request for)?)"
    r" (?P<size>\d+(?:\.\d+)? ?(?:[KMGT]i?B?|B))\b"
)
_ALLOCATOR = re.compile(r"by allocator (?P<name>\S+)|\bAllocator \((?P<quoted>\w+)\)")
_TENSOR_DEVICE = re.compile(r" on \S*/device:(?P<kind>\w+):(?P<index>\d+)")
_COPIED_TO = re.compile(r" to \S*(?P<kind>GPU|CPU|TPU):(?P<index>\d+) in order to run ")
_TO_RUN = re.compile(r" in order to run (?P<op>\w+)")
_RECEIVED_ON = re.compile(
    r"unable to allocate output tensor\. Key: [^;]*;[^;]*;\S*device:(?P<kind>\w+):(?P<index>\d+);"
)
_ORDINAL = re.compile(r"device ordinal (?P<index>\d+)")
_ANY_DEVICE = re.compile(r"/?device:(?P<kind>GPU|CPU|TPU):(?P<index>\d+)", re.I)
_OP = re.compile(r"\{\{node (?P<node>[^}]+)\}\}|\[Op:(?P<type>(?!__)\w+)\]")
_DETECTED = re.compile(r"Detected at node:? '?(?P<node>[^\s']+)'? defined at")
_FAILED = re.compile(r"OOM when allocating|Failed to allocate|Out of memory")
_CALLING = re.compile(
    r"Exception encountered when calling (?:layer ['\"](?P<name>[^'\"]+)['\"]|(?P<cls>\w+)\.call\(\))"
)
_XLA = re.compile(r"(?:^|: )Out of memory (?:while trying to allocate|allocating) |XlaLaunch|_XlaRun", re.M)
_HOST_MEMORY_ERROR = re.compile(r"\bMemoryError: |Unable to allocate [\d.]+ \w+ for an array|bad_alloc")
_NUMBERED = re.compile(r"\w_\d+$")
_FUNCTION = re.compile(r"(?:mul|sub|truediv|floordiv|pow|neg|einsum|strided_slice|moments|batchnorm)_\d+$")
_LAYER_CALL = re.compile(r'keras[\\/]src[\\/]layers[\\/]layer\.py", line \d+, in __call__')
_KERAS_3 = re.compile(r"keras[\\/]src[\\/]backend[\\/]")
_INPUT = re.compile(r"\bIteratorGetNext\b|__IteratorGetNext_")
_GRADIENT = "gradient_tape/"
_NO_ACTIVATION = re.compile(r"^(?:Cast|Read|Assign|VarHandle)", re.I)


@dataclass(frozen=True, slots=True)
class TextFacts:
    """What one error's text tells; everything that it does not tell is None.

    ``device`` is TensorFlow's short name, or ``"host"`` where Python's or NumPy's own allocation failed.
    ``allocator`` is its name in the text. ``op`` is the operation: the path of a graph's node, else its type.
    ``role`` says what the memory was for: ``"activations"`` or ``"gradients"`` of ``layer``, a ``"temporary"``, the
    ``"input"`` pipeline, or None where the text does not tell.
    """

    device: str | None = None
    allocator: str | None = None
    requested: int | None = None
    shape: tuple[int, ...] | None = None
    dtype: str | None = None
    op: str | None = None
    layer: str | None = None
    role: str | None = None
    jit: bool = False


def read_error(message: str) -> TextFacts:
    """Read the text of an out-of-memory error."""
    tensor = _TENSOR.search(message) or _ARRAY.search(message)
    shape = _shape(tensor["shape"]) if tensor else None
    dtype, width = _DTYPES.get(tensor["dtype"], (tensor["dtype"], None)) if tensor else (None, None)
    exact = prod(shape) * width if shape is not None and width is not None else None
    allocator = _ALLOCATOR.search(message)
    name = (allocator["name"] or allocator["quoted"]).rstrip(".,;") if allocator else None
    op = _op(message)
    layer = layer_of(op, message) if op else None
    return TextFacts(
        device=_device(message, name),
        allocator=name,
        requested=exact if exact is not None else _size(message),
        shape=shape,
        dtype=dtype,
        op=op,
        layer=layer or _called(message),
        role=_role(message, op if layer else None),
        jit=_XLA.search(message) is not None,
    )


def layer_of(op: str, message: str) -> str | None:
    """Give the Keras layer that the path of a graph's node leads through; None where no layer can be told.

    Keras 3 opens each layer's name scope twice, to build and to call, so TensorFlow makes the second unique:
    ``functional_1_1/conv2d_4_1/convolution`` was computed by ``conv2d_4``, and every further call counts on. The
    stack in ``message`` tells how many layers were called inside one another; a gradient's stack does not.
    """
    forward = op.removeprefix(_GRADIENT)
    numbered = [part for part in forward.split("/")[:-1] if _NUMBERED.search(part)]
    depth = len(_LAYER_CALL.findall(message))
    if forward != op and _KERAS_3.search(message):
        # Layers lie directly inside one another; a function of TensorFlow may open a numbered scope of its own in them.
        scopes = dropwhile(lambda part: not _NUMBERED.search(part), forward.split("/")[:-1])
        numbered = [part for part in takewhile(_NUMBERED.search, scopes) if not _FUNCTION.match(part)]
        depth = len(numbered)
    if not 0 < depth <= len(numbered):
        return None
    return re.sub(r"_\d+$", "", numbered[depth - 1])


def _op(message: str) -> str | None:
    failed = _FAILED.search(message)
    found = _OP.search(message, failed.start() if failed else 0)
    found = found or _OP.search(message) or _DETECTED.search(message) or _TO_RUN.search(message)
    name = next((text for text in found.groupdict().values() if text), None) if found else None
    if name is None:
        return None
    # A whole graph, or a program of XLA, is one call, whose name says nothing; a copy between devices has a number.
    return re.sub(r"^(?:(?:Stateful)?PartitionedCall(?:_\d+)?(?:/|$))+|/_\d+$", "", name) or None


def _called(message: str) -> str | None:
    found = _CALLING.search(message)
    return found["cls"] if found else None


def _role(message: str, node: str | None) -> str | None:
    if _INPUT.search(message):
        return "input"
    if _TEMPORARY in message:
        return "temporary"
    if node is None or _NO_ACTIVATION.search(node.rsplit("/", 1)[-1]):
        return None
    return "gradients" if node.startswith(_GRADIENT) else "activations"


def _device(message: str, allocator: str | None) -> str | None:
    if _HOST_MEMORY_ERROR.search(message):
        return "host"
    named = device_of(allocator) if allocator else None
    if named is not None:
        return named
    for pattern in (_TENSOR_DEVICE, _RECEIVED_ON, _COPIED_TO):
        found = pattern.search(message)
        if found:
            return f"{found['kind']}:{found['index']}"
    ordinal = _ORDINAL.search(message)
    if ordinal:
        return f"GPU:{ordinal['index']}"
    found = _ANY_DEVICE.search(message)
    return f"{found['kind'].upper()}:{found['index']}" if found else None


def _size(message: str) -> int | None:
    exact = _EXACT_BYTES.search(message)
    if exact:
        return int(exact["size"] or exact["plain"])
    found = _SIZE.search(message)
    try:
        return parse_size(found["size"]) if found else None
    except ValueError:
        return None


def _shape(text: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", text))
