"""A graph that ran, rebuilt at a batch size: calls of functions in line, shapes inferred anew. Nothing is run.

The operations are made again in a graph of their own, from what the traced graph says of them. TensorFlow infers
their shapes from those of the arguments; no Python code of the user's runs, and no variable, device or random state
is touched.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

MOST_NODES = 60_000
_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
_LOOPS = frozenset({"While", "StatelessWhile"})
_LEFT_OUT = frozenset({"_class", "_output_shapes", "_gradient_op_type", "_lower_using_switch_merge"})


class TooLargeError(Exception):
    """The graph has more operations than are looked at, or looking took longer than allowed."""


@dataclass
class Loop:
    """A loop that was found: its body as a graph of its own, and how often it runs (0: unknown)."""

    body: Flat
    trips: int


@dataclass
class Flat:
    """A flattened graph: its TensorFlow ``graph``, the tensors that stand for the arguments, and the results.

    ``loops`` and ``lists`` are by name. ``compiled``: XLA compiles a function of it.
    """

    graph: Any
    arguments: list[Any] = field(default_factory=list)
    results: list[Any] = field(default_factory=list)
    loops: dict[str, Loop] = field(default_factory=dict)
    lists: dict[str, List] = field(default_factory=dict)
    compiled: bool = False


@dataclass(frozen=True)
class List:
    """A TensorList: ``count`` elements (0: unknown) of ``shape`` (None: unknown) and ``dtype``.

    ``value``: the whole numbers that each element is, where they are known and the same in every round.
    """

    count: int = 0
    shape: tuple[int, ...] | None = None
    dtype: str = "float32"
    value: Any = None


class Flattener:
    """Flattens one traced graph.

    Parameters
    ----------
    resize : callable
        Gives the shape that a tensor of the data has at the wanted batch size, from the shape that the trace knows.
    deadline : float
        ``time.thread_time()`` at which to give up.
    shape_of : callable, optional
        Gives the shape of an argument; else it is resized.
    """

    def __init__(
        self, resize: Callable[[Any], Any], deadline: float, shape_of: Callable[[Any], Any] | None = None
    ) -> None:
        self._resize, self._deadline = resize, deadline
        self._shape_of = shape_of or (lambda old: resize(old.shape))
        self._made = 0

    def flatten(
        self,
        graph: Any,
        inputs: Sequence[Any] | None = None,
        outputs: Sequence[Any] | None = None,
        likes: Sequence[Any] | None = None,
        library: Any = None,
    ) -> Flat:
        """Rebuild a graph.

        Parameters
        ----------
        graph : FuncGraph or Graph
            The graph.
        inputs, outputs : sequence of tensors, optional
            Its arguments and results, where it is no ``FuncGraph``.
        likes : sequence of tensors, optional
            What knows of the arguments what they do not know themselves (of a variable's handle, its shape).
        library : FuncGraph, optional
            The graph that knows the functions which are called.
        """
        import tensorflow as tf

        inputs = graph.inputs if inputs is None else inputs
        flat = Flat(tf.Graph())
        with flat.graph.as_default():
            made: dict[int, Any] = {}
            for i, old in enumerate(inputs):
                like = old if likes is None else likes[i]
                new = _placeholder(flat.graph, like, self._shape_of(like), f"{old.op.name}/")
                made[id(old)] = new
                flat.arguments.append(new)
            self._inline(flat, graph, made, "", library or graph)
            flat.results = [made[id(t)] for t in (graph.outputs if outputs is None else outputs)]
        return flat

    def _inline(self, flat: Flat, graph: Any, made: dict[int, Any], prefix: str, library: Any) -> dict[Any, Any]:
        """Make the operations of ``graph`` in ``flat``; ``made`` maps the ids of old tensors to new ones.

        ``library`` is the graph that knows the functions which are called.
        """
        ops: dict[Any, list[Any]] = {}
        # A small constant that the function has captured is an argument too, and no placeholder.
        inputs = {id(op) for op in graph.get_operations() if op.outputs and all(id(t) in made for t in op.outputs)}
        for op in _in_order(graph):
            if id(op) in inputs:
                ops[op] = []
                continue
            self._count()
            control = [new for c in op.control_inputs for new in ops.get(c, [])]
            new_inputs = [made[id(t)] for t in op.inputs]
            with flat.graph.control_dependencies(control):
                outputs, ops[op] = self._make(flat, library, op, new_inputs, prefix)
            for old, new in zip(op.outputs, outputs):
                made[id(old)] = new
        return ops

    def _make(self, flat: Flat, graph: Any, op: Any, inputs: list[Any], prefix: str) -> tuple[list[Any], list[Any]]:
        """Make one operation anew; gives its outputs, and the operations that what waits for it waits for."""
        import tensorflow as tf

        if op.type in _CALLS:
            inner = _function_graph(graph, op.get_attr("f").name)
            if inner is not None:
                flat.compiled = flat.compiled or _is_compiled(op)
                made = {id(old): new for old, new in zip(inner.inputs, inputs)}
                ops = self._inline(flat, inner, made, f"{prefix}{op.name}/", inner)
                last = [new for made_of in list(ops.values())[-1:] for new in made_of]
                ends = [t.op for t in (made[id(t)] for t in inner.outputs)]
                held = [new for c in inner.control_outputs for new in ops.get(c, [])]
                return [made[id(t)] for t in inner.outputs], list(dict.fromkeys([*ends, *held, *last]))
        new = _operation(flat.graph, op, inputs, prefix, self._resize)
        if op.type in _LOOPS:
            self._loop(flat, graph, op, new, inputs)
        elif op.type.startswith("TensorList"):
            _follow_list(flat, new)
            known = flat.lists.get(inputs[0].name) if op.type == "TensorListPopBack" else None
            if known is not None and known.value is not None:
                # Shapes that the forward loop kept for its gradient: what is computed of them has known shapes too.
                return [new.outputs[0], tf.constant(known.value, new.outputs[1].dtype, name=f"{new.name}/value/")], [
                    new
                ]
        elif op.type == "Identity" and inputs[0].name in flat.lists:
            flat.lists[new.outputs[0].name] = flat.lists[inputs[0].name]
        return list(new.outputs), [new]

    def _loop(self, flat: Flat, graph: Any, op: Any, new: Any, inputs: list[Any]) -> None:
        inner = _function_graph(graph, op.get_attr("body").name)
        if inner is None:
            return
        held = [flat.lists.get(t.name) for t in inputs]
        body = self._body(inner, inputs, held)
        trips = _trips(inputs, held)
        flat.loops[new.name] = Loop(body, trips)
        for given, out, result, known in zip(inputs, new.outputs, body.results, held):
            grown = body.lists.get(result.name)
            if grown is not None or known is not None:
                now = grown or known
                assert now is not None
                count = known.count if known and known.count else trips
                flat.lists[out.name] = List(count, now.shape, now.dtype, now.value)
            elif out.dtype.name not in ("variant", "resource"):
                _refine(out, result.shape if result.shape.is_fully_defined() else given.shape)

    def _body(self, inner: Any, inputs: list[Any], held: list[List | None]) -> Flat:
        import tensorflow as tf

        flat = Flat(tf.Graph())
        with flat.graph.as_default():
            made: dict[int, Any] = {}
            for old, like, known in zip(inner.inputs, inputs, held):
                new = _placeholder(flat.graph, like, like.shape, f"{old.op.name}/")
                made[id(old)] = new
                flat.arguments.append(new)
                if known is not None:
                    flat.lists[new.name] = known
            self._inline(flat, inner, made, "", inner)
            flat.results = [made[id(t)] for t in inner.outputs]
        return flat

    def _count(self) -> None:
        self._made += 1
        if self._made > MOST_NODES:
            raise TooLargeError(f"the step has more than {MOST_NODES} operations")
        if not self._made % 100 and time.thread_time() > self._deadline:
            raise TooLargeError("reading the step took too long")


def _in_order(graph: Any) -> Iterator[Any]:
    """Yield a graph's operations, each after those that it needs.

    That is not the order they were made in: a loop whose gradient is taken is made anew, after what reads it.
    """
    operations = graph.get_operations()
    missing: dict[Any, int] = {}
    readers: dict[Any, list[Any]] = {}
    for op in operations:
        needed = {t.op for t in op.inputs} | set(op.control_inputs)
        missing[op] = len(needed)
        for one in needed:
            readers.setdefault(one, []).append(op)
    place = {op: i for i, op in enumerate(operations)}
    ready = [place[op] for op, count in missing.items() if not count]
    heapq.heapify(ready)
    while ready:
        op = operations[heapq.heappop(ready)]
        yield op
        for reader in readers.get(op, ()):
            missing[reader] -= 1
            if not missing[reader]:
                heapq.heappush(ready, place[reader])


def _placeholder(graph: Any, like: Any, shape: Any, name: str) -> Any:
    import tensorflow as tf
    from tensorflow.python.ops import handle_data_util

    attrs = {"dtype": _attr(type=like.dtype.as_datatype_enum), "shape": _attr(shape=tf.TensorShape(shape).as_proto())}
    op = graph._create_op_internal("Placeholder", [], [like.dtype], name=name, attrs=attrs, compute_device=False)
    new = op.outputs[0]
    if like.dtype in (tf.resource, tf.variant):
        handle_data_util.copy_handle_data(like, new)
    return new


def _operation(graph: Any, op: Any, inputs: list[Any], prefix: str, resize: Callable[[Any], Any]) -> Any:
    attrs = {key: value for key, value in op.node_def.attr.items() if key not in _LEFT_OUT}
    if op.type.startswith("IteratorGetNext"):
        attrs["output_shapes"] = _resized(attrs["output_shapes"], resize)
    dtypes = [t.dtype for t in op.outputs]
    name = f"{prefix}{op.name}/"
    new = graph._create_op_internal(
        op.type, inputs, dtypes, name=name, attrs=attrs, op_def=op.op_def, compute_device=False
    )
    for old, out in zip(op.outputs, new.outputs):
        # What the trace knew and inference does not find again: shapes that Python code had set.
        if not out.shape.is_fully_defined() and old.shape.is_fully_defined():
            _refine(out, resize(old.shape))
    return new


def _refine(tensor: Any, shape: Any) -> None:
    try:
        tensor.set_shape(shape)
    except ValueError:
        pass


def _resized(attr: Any, resize: Callable[[Any], Any]) -> Any:
    import tensorflow as tf

    shapes = [resize(tf.TensorShape(shape)).as_proto() for shape in attr.list.shape]
    return _attr(list=type(attr.list)(shape=shapes))


def _attr(**value: Any) -> Any:
    from tensorflow.core.framework import attr_value_pb2

    return attr_value_pb2.AttrValue(**value)


def _function_graph(graph: Any, name: str) -> Any:
    """Find the graph of a function that ``graph`` calls; None where TensorFlow no longer has it."""
    one: Any = graph
    while one is not None:
        found = getattr(one, "_functions", {}).get(name)
        if found is not None:
            return getattr(found, "graph", None)
        one = getattr(one, "outer_graph", None)
    return None


def _is_compiled(op: Any) -> bool:
    """Whether XLA compiles the function that ``op`` calls: it runs as one program then, in another order."""
    try:
        return bool(op.get_attr("_XlaMustCompile"))
    except ValueError:
        return False


def _follow_list(flat: Flat, op: Any) -> None:
    """Note what a list holds after an operation on it, and what it gives out."""
    import tensorflow as tf
    from tensorflow.python.framework import tensor_util

    lists, kind = flat.lists, op.type
    first = lists.get(op.inputs[0].name) if op.inputs else None
    if kind in ("TensorListReserve", "EmptyTensorList"):
        number = tensor_util.constant_value(op.inputs[1]) if kind == "TensorListReserve" else None
        shape = tensor_util.constant_value_as_shape(op.inputs[0])
        lists[op.outputs[0].name] = List(
            int(number) if number is not None else 0, _plain(shape), op.get_attr("element_dtype").name
        )
    elif kind == "TensorListFromTensor":
        shape = op.inputs[0].shape
        whole = shape.is_fully_defined()
        lists[op.outputs[0].name] = List(
            shape[0] if shape.rank and shape[0] else 0, _plain(shape[1:]) if whole else None, op.inputs[0].dtype.name
        )
    elif kind in ("TensorListSetItem", "TensorListPushBack"):
        item = op.inputs[2] if kind == "TensorListSetItem" else op.inputs[1]
        once = kind == "TensorListPushBack" and op.inputs[0].op.type != kind and item.dtype.is_integer
        value = tensor_util.constant_value(item) if once else None
        lists[op.outputs[0].name] = List(first.count if first else 0, _plain(item.shape), item.dtype.name, value)
    elif kind in ("TensorListGetItem", "TensorListPopBack") and first is not None:
        if first.shape is not None:
            _refine(op.outputs[-1], tf.TensorShape(first.shape))
        if kind == "TensorListPopBack":
            lists[op.outputs[0].name] = first
    elif kind == "TensorListStack" and first is not None and first.shape is not None and first.count:
        _refine(op.outputs[0], tf.TensorShape([first.count, *first.shape]))


def _plain(shape: Any) -> tuple[int, ...] | None:
    return tuple(shape.as_list()) if shape.is_fully_defined() else None


def _trips(inputs: Sequence[Any], held: Sequence[List | None]) -> int:
    """Tell how often a loop runs: as its longest list is long, or up to the constant bound that it begins with.

    A list may be shorter: of a layer that gives its last output alone, it has one element.
    """
    from tensorflow.python.framework import tensor_util

    counts = [known.count for known in held if known is not None and known.count]
    if counts:
        return max(counts)
    bound = tensor_util.constant_value(inputs[1]) if len(inputs) > 1 else None
    return int(bound) if bound is not None and bound.ndim == 0 and bound.dtype.kind == "i" and bound > 0 else 0
