"""A graph that ran, rebuilt at the sizes that its data had: the batch, and the length of samples that may be any."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tf_mem_magic.diagnose.errortext import read_error
from tf_mem_magic.trace.flatten import Flat, Flattener
from tf_mem_magic.trace.variables import captured_shape


def batch_in(graph: Any, arguments: Sequence[tuple[int, ...] | None]) -> int | None:
    """Tell the batch size of a step by its arguments and by the data that its graph draws; None where neither tells.

    Parameters
    ----------
    graph : FuncGraph
        As TensorFlow ran it.
    arguments : sequence
        The shapes that its inputs really had, in their order; None where that is not known.
    """
    leading = [
        (real[0], t.shape.rank is None or t.shape[0] is None) for t, real in zip(graph.inputs, arguments) if real
    ]
    variables = {captured_shape(t) for t in graph.inputs if t.dtype.name == "resource"}
    led: Counter[int] = Counter()
    for op in graph.get_operations():
        for t in op.outputs:
            if not t.shape.rank or t.shape[0] is None:
                continue
            if op.type.startswith("IteratorGetNext"):
                leading.append((t.shape[0], False))
            if fixed(t.shape) not in variables:
                led[t.shape[0]] += 1
    return batch_of(leading, led)


def batch_of(leading: Sequence[tuple[int, bool]], led: Mapping[int, int]) -> int | None:
    """Tell which of the leading sizes of a step's arguments is its batch.

    A picture or a mask that goes along with the batch has a height there.

    Parameters
    ----------
    leading : sequence of tuple
        The leading size of each argument, and whether the step was traced for any.
    led : mapping
        How many of the step's results begin with a size: nearly all that is computed of a batch does.
    """
    counts = Counter([size for size, of_any in leading if of_any] or [size for size, _ in leading])
    alike = any(of_any for _, of_any in leading)
    return max(counts, key=lambda size: (0 if alike else led.get(size, 0), counts[size]), default=None)


def failed_shape(messages: Iterable[str]) -> tuple[int, ...]:
    """Give the shape of the tensor for which memory ran out; empty where no message tells."""
    return next((shape for text in messages if (shape := read_error(text).shape)), ())


def at_length(
    graph: Any,
    arguments: list[tuple[int, ...] | None],
    batch: int | None,
    failed: tuple[int, ...],
    deadline: float,
    taken: tuple[int, ...] | None = None,
) -> tuple[Flat | None, int | tuple[int, ...] | None]:
    """Rebuild a graph at the failing batch; where its samples may be of any length, at the length that they had.

    That is what the model takes (``taken``: a sample of its only input), where it takes one shape only. Else it is one
    of the numbers in the shape of the tensor that failed, and the right one brings a tensor of that shape about. None
    where no number does, and where samples of any length would: the shape of a shape is that of all of them.
    """
    flat = flatten_at(graph, arguments, batch, batch, deadline)
    if _is_known(flat):
        return flat, None
    if taken is not None and _is_known(flat := flatten_at(graph, arguments, batch, batch, deadline, taken)):
        return flat, taken
    if _makes(flat, failed):
        return None, None
    for length in sorted({n for n in failed if n > 1}, reverse=True):
        flat = flatten_at(graph, arguments, batch, batch, deadline, length)
        if _makes(flat, failed):
            return flat, length
    return None, None


def _makes(flat: Flat, wanted: tuple[int, ...]) -> bool:
    shapes = (t.shape for op in flat.graph.get_operations() for t in op.outputs)
    return any(fixed(shape) == wanted for shape in shapes if shape.rank == len(wanted))


def _is_known(flat: Flat) -> bool:
    return all(None not in shape[1:] for shape in data_of(flat))


def data_of(flat: Flat) -> tuple[tuple[int | None, ...], ...]:
    """List the shapes of the data that a step draws."""
    drawn = [t for op in flat.graph.get_operations() if op.type.startswith("IteratorGetNext") for t in op.outputs]
    return tuple(tuple(t.shape.as_list()) for t in drawn if t.shape.rank)


def flatten_at(
    graph: Any,
    arguments: list[tuple[int, ...] | None],
    batch: int | None,
    wanted: int | None,
    deadline: float,
    length: int | tuple[int, ...] | None = None,
) -> Flat:
    """Rebuild a graph at the batch size ``wanted``, its samples of the ``length``, or shape, where that may be any."""
    import tensorflow as tf

    def resize(shape: Any) -> Any:
        if shape.rank and shape[0] is None and wanted is not None:
            known = shape.as_list()[1:]
            if not isinstance(length, tuple):
                return tf.TensorShape([wanted, *(length if n is None else n for n in known)])
            agrees = len(known) == len(length) and all(n in (None, own) for n, own in zip(known, length))
            return tf.TensorShape([wanted, *(length if agrees else known)])
        return shape

    place = {id(t): i for i, t in enumerate(graph.inputs)}

    def real(old: Any) -> Any:
        known = arguments[place[id(old)]]
        if known is None:
            return resize(old.shape)
        if known and known[0] == batch and wanted is not None:
            known = (wanted, *known[1:])
        return tf.TensorShape(known)

    return Flattener(resize, deadline, real).flatten(graph)


def fixed(shape: Any) -> tuple[int, ...] | None:
    """Give a shape as numbers; None where one of them is not known."""
    try:
        return tuple(int(n) for n in shape)
    except (TypeError, ValueError):
        return None
