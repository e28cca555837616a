"""Whole NumPy arrays that Keras's methods copy into the pool of the CPU before they cut batches from them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod

from tf_mem_magic.core.diagnosis import Part
from tf_mem_magic.core.recording import Dump, Recording

LEAST = 0.01
"""Share of the bytes in use from which one chunk is looked up among the arrays."""

BASIS = "arrays that Keras copied as a whole, with what their chunks have beyond them"

LONG_ROW = 256
"""Bytes of a row from which some rows of an array can be told by their bytes: anything is a multiple of a number's."""

LONG_BATCHES = 16 << 10
"""The same of rows that are so many batches: a kernel's workspace is a multiple of smaller ones too."""

MOST_ALIKE = 4
"""Chunks of one size that may be arrays of one shape, such as inputs and targets; of more they are a layer's."""

_CHUNK = 256
"""The allocator hands out multiples of so many bytes."""

_FLOATX = 4
"""Bytes of a number after Keras has made its own floating-point type (``keras.config.floatx``) of it."""


@dataclass(frozen=True, slots=True)
class Copied:
    """An array that lies in the device's memory as a whole.

    ``name`` is the name that holds it, empty where it is a part of what a name holds (``x[1000:]``). ``bytes`` were
    asked for, ``taken`` are those of the chunk.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int
    taken: int


@dataclass(frozen=True, slots=True)
class _Array:
    """An array of the notebook as Keras copies it: floating-point numbers in its own type, of ``number`` bytes each.

    ``rows``: those of the array that its name keeps, of which it may show a part.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    number: int
    rows: int


def copied_whole(recording: Recording, dump: Dump | None, device: str) -> tuple[Copied, ...]:
    """Find the arrays given to ``fit``, ``evaluate`` or ``predict`` among the chunks of a dump, largest first.

    Only on a CPU with a pool: on a GPU Keras leaves such arrays in the computer's memory. A chunk is one of them where
    it has the bytes of an array that a name holds, or of some of its rows: more than a batch. A multiple of one may be
    a layer's values: it is an array's rows only where the step is known and has no values of that size.
    """
    batch = _batch(recording)
    if batch is None or dump is None or not dump.chunks or not device.startswith("CPU"):
        return ()
    least = LEAST * sum(size * count for _, size, count in dump.chunks)
    large = sorted((chunk for chunk in dump.chunks if chunk[0] >= least), reverse=True)
    arrays, of_step = list(_arrays(recording)), _of_step(recording)
    longest = LONG_BATCHES if of_step else None
    found: list[Copied] = []
    for asked, chunk, count in large:
        array = None if asked in of_step else _is_of(asked, arrays, batch, longest)
        if array is not None and count <= MOST_ALIKE:
            found += [replace(array, taken=chunk, name=name) for name in _names(recording, array, arrays, count)]
    return tuple(found)


def _names(recording: Recording, found: Copied, arrays: list[_Array], count: int) -> list[str]:
    """Give the names of ``count`` chunks that have the bytes of an array; empty where it may be one of more arrays.

    Those that stand in the cell go before others. One array may be copied twice, as inputs and as targets.
    """
    alike = [one.name for one in arrays if one.shape == found.shape and one.dtype == found.dtype]
    written = [name for name in alike if re.search(rf"\b{re.escape(name)}\b", recording.cell.source)]
    names = written or alike
    if not found.name or len(names) > count:
        return [""] * count
    return (names * count)[:count] if len(names) == 1 else (names + [""] * count)[:count]


def asked_for(
    recording: Recording, requested: int | None, device: str, shape: tuple[int, ...] | None = None
) -> Copied | None:
    """Tell whether what was asked for in vain is one of these arrays; ``shape`` is what the error says of it."""
    batch = _batch(recording)
    if batch is None or not requested or not device.startswith("CPU") or requested in _of_step(recording):
        return None
    arrays = list(_arrays(recording))
    # An error's text has the exact bytes, a dump's those of the chunk that was looked for.
    exact = dict.fromkeys(size for one in arrays for size in _sizes(one, requested) if 0 <= requested - size < _CHUNK)
    found = (one for asked in exact if (one := _is_of(asked, arrays, batch)) is not None)
    one = next((one for one in found if shape in (None, one.shape)), None)
    return None if one is None else replace(one, name=_names(recording, one, arrays, 1)[0])


def with_arrays(parts: tuple[Part, ...], arrays: tuple[Copied, ...]) -> tuple[Part, ...]:
    """Take copied arrays out of what is left as ``other``: they lie beside the step, whatever its batch."""
    rest = next((part.bytes for part in parts if part.kind == "other"), 0)
    taken = min(sum(one.taken for one in arrays), rest)
    if not taken:
        return parts
    names = tuple(dict.fromkeys(one.name for one in arrays if one.name))
    held = [part for part in parts if part.kind != "other"]
    rests = (replace(part, bytes=rest - taken) for part in parts if part.kind == "other")
    return (*held, Part("arrays", taken, BASIS, names), *rests)


def _batch(recording: Recording) -> int | None:
    """Give the largest batch of Keras's methods that were given arrays; None where none was."""
    return max((seen.batch for seen in recording.facts.batches if seen.source == "arrays"), default=None)


def _arrays(recording: Recording) -> Iterator[_Array]:
    """Yield the arrays in the computer's memory as Keras copies them."""
    for value in recording.facts.values:
        number = value.number
        if value.kind == "numpy.ndarray" and value.device is None and value.shape and number and value.dtype:
            is_float = value.dtype.startswith("float")
            held = max(value.shape[0], value.bytes // max(prod(value.shape[1:]) * number, 1))
            yield _Array(
                value.name, value.shape, "float32" if is_float else value.dtype, _FLOATX if is_float else number, held
            )


def _is_of(asked: int, arrays: list[_Array], batch: int, whole_batches: int | None = None) -> Copied | None:
    """Find the array that takes ``asked`` bytes as a whole, or in a part of its rows.

    Rows that are so many batches count from ``whole_batches`` bytes of a row on; None: they do not.
    """
    for one in arrays:
        if prod(one.shape) * one.number == asked and one.shape[0] > batch:
            return Copied(one.name, one.shape, one.dtype, asked, asked)
    for one in arrays:
        row = prod(one.shape[1:]) * one.number
        rows = asked // row if row else 0
        least = LONG_ROW if rows % batch else whole_batches
        if least is not None and row >= least and asked % row == 0 and batch < rows <= one.rows:
            return Copied("", (rows, *one.shape[1:]), one.dtype, asked, asked)
    return None


def _sizes(one: _Array, requested: int) -> Iterator[int]:
    """Yield the bytes of an array, and of as many of its rows as go into ``requested``."""
    row = prod(one.shape[1:]) * one.number
    yield one.shape[0] * row
    if row >= LONG_ROW:
        yield requested // row * row


def _of_step(recording: Recording) -> frozenset[int]:
    """Give the sizes of the values that the step computes, in its loops too, where it is known."""
    step = recording.facts.step
    ahead = list(step.steps[:1]) if step is not None and step.packed else []
    sizes: set[int] = set()
    while ahead:
        one = ahead.pop()
        sizes |= {t.bytes for node in one.nodes for t in node.outputs if t.bytes}
        ahead += one.bodies
    return frozenset(sizes)
