"""Whether the layers of a Keras model can be made narrower, and which widths hang together; the model is only read."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from tf_mem_magic.core.units import named_kind

_WIDTHS = {
    "Dense": "units",
    "Conv1D": "filters",
    "Conv2D": "filters",
    "Conv3D": "filters",
    "Conv1DTranspose": "filters",
    "Conv2DTranspose": "filters",
    "Conv3DTranspose": "filters",
    "SeparableConv1D": "filters",
    "SeparableConv2D": "filters",
    "Embedding": "output_dim",
    "LSTM": "units",
    "GRU": "units",
    "SimpleRNN": "units",
}
"""Layers that choose how wide their output is, and the name of that argument."""

_RECURRENT = frozenset({"LSTM", "GRU", "SimpleRNN"})
_SAME_WIDTH = frozenset(
    "Activation ReLU LeakyReLU PReLU ELU Softmax Dropout SpatialDropout1D SpatialDropout2D SpatialDropout3D "
    "AlphaDropout GaussianDropout GaussianNoise BatchNormalization LayerNormalization UnitNormalization "
    "RMSNormalization MaxPooling1D MaxPooling2D MaxPooling3D AveragePooling1D AveragePooling2D AveragePooling3D "
    "GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D GlobalMaxPooling1D GlobalMaxPooling2D "
    "GlobalMaxPooling3D ZeroPadding1D ZeroPadding2D ZeroPadding3D Cropping1D Cropping2D Cropping3D UpSampling1D "
    "UpSampling2D UpSampling3D Masking RepeatVector ActivityRegularization Relu Gelu Sigmoid Silu Tanh".split()
)
"""Layers and operations that leave the last axis as wide as it is, whatever its width."""

_JOINING = frozenset("Add Subtract Multiply Average Maximum Minimum Divide TrueDivide".split())
_NARROWEST = 4
NONE = "no layer of the model can be narrowed: each must fit the inputs, the outputs, or a shape"


def check_widths(model: Any) -> None:
    """See that the model can be narrowed, as far as its structure tells; raises what ``apply.narrower`` raises."""
    graph = graph_of(model)
    check_layers(graph)
    if not Widths(graph, 0.5).any_free():
        raise ValueError(NONE)


def graph_of(model: Any) -> Any:
    """Give the functional model in which the layers and their calls are."""
    functional = sys.modules.get("keras.src.models.functional")
    sequential = sys.modules.get("keras.src.models.sequential")
    if functional is not None and type(model) is functional.Functional:
        return model
    if sequential is None or type(model) is not sequential.Sequential:
        raise TypeError(
            f"apply.narrower needs a Sequential or functional model of Keras 3; this is {named_kind(model)}"
        )
    if not model.built or model._functional is None:
        raise ValueError("the model is not built yet, so its widths are not known: call it once on data")
    return model._functional


def check_layers(graph: Any) -> None:
    """Refuse what cannot surely be made again."""
    for layer in graph.layers:
        name = type(layer).__name__
        if hasattr(layer, "layers"):
            raise ValueError(f"it holds another model, `{layer.name}`, and only layers are narrowed")
        if not type(layer).__module__.startswith("keras.src.") or name == "Lambda":
            raise ValueError(f"`{layer.name}` ({name}) is not one of Keras's own layers, and may look at any width")
        if getattr(layer, "data_format", None) == "channels_first":
            raise ValueError(f"`{layer.name}` has its channels first, with which this was not tested")
        if hasattr(layer, "adapt") and name != "Normalization":
            raise ValueError(f"`{layer.name}` ({name}) holds what it learned of the data, which cannot be copied")
        if getattr(layer, "quantization_mode", None) is not None:
            raise ValueError(f"`{layer.name}` is quantized")


class Widths:
    """Which tensors of a model must stay equally wide (one set each), and which sets must stay as they are."""

    def __init__(self, graph: Any, width: float) -> None:
        self._width = width
        self._parent: dict[int, int] = {}
        self._fixed: set[int] = set()
        self._computed: list[tuple[int, list[int]]] = []
        self._divided: list[tuple[int, int]] = []
        self._sizes: dict[int, int] = {}
        self._choosing: list[Any] = []
        for depth in sorted(graph._nodes_by_depth, reverse=True):
            for node in graph._nodes_by_depth[depth]:
                self._read(node)
        for tensor in graph.outputs:
            self._fix(tensor)
        self._settle()

    def any_free(self) -> bool:
        """Whether any layer may choose another width."""
        return any(map(self._is_free, self._choosing))

    def change(self, layer: Any) -> dict[str, Any]:
        """Give what changes in the layer's description; empty where it stays."""
        name, config = type(layer).__name__, layer.get_config()
        if name in ("Bidirectional", "TimeDistributed") and layer in self._choosing and self._is_free(layer):
            inner = {word: config[word] for word in ("layer", "backward_layer") if word in config}
            changed = self._scaled(config["layer"]["config"], (_WIDTHS[type(_inside(layer)).__name__],))
            return {w: one | {"config": one["config"] | changed} for w, one in inner.items()} if changed else {}
        if name == "MultiHeadAttention":
            return self._scaled(config, ("key_dim", "value_dim"))
        if name == "Reshape" and id(layer) in self._parent and self._is_free(layer):
            shape = config["target_shape"]
            return {"target_shape": (*shape[:-1], self._scale(shape[-1]))} if shape[-1] > 0 else {}
        if layer in self._choosing and self._is_free(layer):
            return self._scaled(config, (_WIDTHS[name],))
        return {}

    def _scaled(self, config: dict[str, Any], words: Iterable[str]) -> dict[str, Any]:
        return {
            word: self._scale(config[word])
            for word in words
            if config.get(word) is not None and self._scale(config[word]) != config[word]
        }

    def _scale(self, size: int) -> int:
        return size if size <= _NARROWEST else max(_NARROWEST, int(size * self._width + 0.5))

    def _read(self, node: Any) -> None:
        """Note what one call of a layer or an operation means for the widths of what goes in and comes out."""
        layer, made = node.operation, node.output_tensors
        given = [one for one in node.input_tensors if one.dtype != "bool"]  # masks have no width that matters
        name = type(layer).__name__
        rank = len(given[0].shape) if given else 0
        if name == "TimeDistributed":
            layer_name, inner = type(layer.layer).__name__, layer.layer
            name = layer_name if layer_name in _SAME_WIDTH | set(_WIDTHS) and _is_plain(inner) else ""
            name = name if _is_last_axis(inner, rank - 1) else ""
        if name == "InputLayer" or not _is_plain(layer):
            self._fix(*given, *made)
        elif name in _WIDTHS:
            self._choose(layer, *made, *(given[1:] if name in _RECURRENT else ()))
        elif name == "Bidirectional" and _is_symmetric(layer) and len(given) == len(made) == 1:
            self._choosing.append(layer)
            self._size(layer)
            self._compute(made[0], [layer])
        elif name in _SAME_WIDTH and len(given) == len(made) == 1 and _is_last_axis(layer, rank):
            self._tie(given[0], *made)
        elif name == "GroupNormalization" and _is_last_axis(layer, rank):
            self._tie(given[0], *made)
            self._divided.append((id(given[0]), layer.groups))
        elif name in ("DepthwiseConv1D", "DepthwiseConv2D"):
            self._tie(given[0], made[0]) if layer.depth_multiplier == 1 else self._compute(made[0], given)
        elif name in _JOINING and _joins_tensors_only(node):
            self._tie(*made, *(one for one in given if one.shape[-1] == made[0].shape[-1]))
        elif name == "Concatenate" and _joins_tensors_only(node):
            last = layer.axis in (-1, len(made[0].shape) - 1)
            self._compute(made[0], given) if last else self._tie(*given, *made)
        elif name == "Flatten":
            self._compute(made[0], given)
        elif name == "MultiHeadAttention" and layer.get_config().get("output_shape") is None:
            self._tie(given[0], made[0])
        elif name == "Reshape" and len(given[0].shape) == 2 and _only_adds_axes(layer, given[0]):
            self._tie(layer, given[0], *made)
        else:
            self._fix(*given, *made)

    def _choose(self, layer: Any, *tensors: Any) -> None:
        self._choosing.append(layer)
        self._tie(layer, *tensors)

    def _compute(self, made: Any, given: list[Any]) -> None:
        """Note that a width is computed from those of ``given``."""
        for one in (made, *given):
            self._size(one)
        self._computed.append((id(made), [id(one) for one in given]))

    def _size(self, one: Any) -> None:
        shape = getattr(one, "shape", None)
        if shape:
            self._sizes[id(one)] = shape[-1]
        self._parent.setdefault(id(one), id(one))

    def _tie(self, *ones: Any) -> None:
        """Keep tensors, and the layers that choose their width, equally wide."""
        for one in ones:
            self._size(one)
            self._parent[self._find(id(one))] = self._find(id(ones[-1]))

    def _fix(self, *ones: Any) -> None:
        for one in ones:
            self._size(one)
            self._fixed.add(id(one))

    def _find(self, one: int) -> int:
        while self._parent.setdefault(one, one) != one:
            one = self._parent[one]
        return one

    def _is_free(self, one: Any) -> bool:
        return self._find(id(one)) not in self._fixed

    def _settle(self) -> None:
        """Fix what depends on what is fixed, until nothing changes."""
        self._fixed = {self._find(one) for one in self._fixed}
        chosen = {self._find(id(layer)) for layer in self._choosing}
        for one, groups in self._divided:
            if self._scale(self._sizes[one]) % groups:
                self._fixed.add(self._find(one))
        count = -1
        while count != len(self._fixed):
            count = len(self._fixed)
            roots = [self._find(made) for made, _ in self._computed]
            for root, (_, sources) in zip(roots, self._computed):
                # A computed width may come out differently from one that is chosen: together, neither may change.
                if root in self._fixed or root in chosen or roots.count(root) > 1:
                    self._fixed |= {root, *(self._find(one) for one in sources)}


def _is_plain(layer: Any) -> bool:
    """Whether its convolution looks at all channels alike, and its weights are not shared out in groups."""
    return getattr(layer, "groups", 1) == 1 or type(layer).__name__.startswith(("Depthwise", "GroupNorm"))


def _is_last_axis(layer: Any, rank: int) -> bool:
    """Whether a layer that works along an axis, such as a normalization, works along the last one."""
    return getattr(layer, "axis", -1) in (-1, rank - 1, [-1], [rank - 1], (-1,), (rank - 1,))


def _joins_tensors_only(node: Any) -> bool:
    """Whether no array of a fixed width is among what is joined."""
    keras = sys.modules["keras"]
    given = keras.tree.flatten((node.arguments.args, node.arguments.kwargs))
    return all(isinstance(one, keras.KerasTensor) or not getattr(one, "shape", ()) for one in given)


def _only_adds_axes(layer: Any, given: Any) -> bool:
    shape = layer.target_shape
    return all(size == 1 for size in shape[:-1]) and shape[-1] in (-1, given.shape[-1])


def _inside(layer: Any) -> Any:
    """Give the layer that a wrapper holds; a Bidirectional calls it its forward layer."""
    return layer.forward_layer if hasattr(layer, "forward_layer") else layer.layer


def _is_symmetric(layer: Any) -> bool:
    """Whether both directions are recurrent layers of one kind and width."""
    both = (layer.forward_layer, layer.backward_layer)
    return type(both[0]) is type(both[1]) and type(both[0]).__name__ in _RECURRENT and both[0].units == both[1].units
