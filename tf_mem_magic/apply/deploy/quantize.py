"""A quantized copy of a Keras model, for inference."""

from __future__ import annotations

import gc
import sys
import warnings
from functools import partial
from typing import Any

from tf_mem_magic.apply.deploy._inference import count_samples, describe_error, first_samples, predict, weight_bytes
from tf_mem_magic.core.units import brief_unit, named_kind, size

MODES = ("int8", "int4")


def quantize(model: Any, mode: str = "int8", sample: Any = None) -> Any:
    """Make a quantized copy of a Keras model for inference, and print what it saves and costs.

    The model itself stays as it is: the copy is made from its description (``get_config``) and its weights, then
    ``keras.Model.quantize`` changes the layers that it can (``Dense``, ``EinsumDense``, ``Embedding``); the others
    stay in float32, and are named. What is printed is measured: the bytes of the weights, and, on at most 32 samples,
    how far the copy's outputs are from the model's, and the peak of ``predict`` (the weights and what ``predict``
    takes beside them, by TensorFlow's own counter; not on a device without one). The counter is reset for that.

    The copy is not compiled and is meant for ``predict``. ``copy.save("name.keras")`` keeps it, unless layers inside
    another layer were quantized (``MultiHeadAttention``, a layer of one's own): Keras cannot load such a file again,
    which is printed. The memory of the model's own weights comes back only when the model itself is let go.

    Parameters
    ----------
    model : keras.Model
        A built functional or sequential model of Keras 3, computing in float32.
    mode : {"int8", "int4"}
        The precision of the weights.
    sample : arrays, tf.data.Dataset or keras.utils.PyDataset, optional
        Inputs to compare on: as ``model.predict`` takes them, or a dataset, whose first batch is taken. Without it
        only the weights are measured.

    Returns
    -------
    keras.Model
        The copy.

    Raises
    ------
    TypeError
        If ``model`` is not a functional or sequential model of Keras 3, or ``sample`` is a generator.
    ValueError
        If the mode is neither of the two, the model is not built, computes in 16 bits or is quantized already, Keras
        cannot make one of its layers again, or none of its layers can be quantized.
    """
    _check(model, mode)
    inputs = None if sample is None else first_samples(sample)
    copy = _copy(model)
    changed, kept = _quantize(copy, mode)
    if not changed:
        raise ValueError(f"Keras can quantize none of the model's layers ({', '.join(kept)})")
    before, after = weight_bytes(model), weight_bytes(copy)
    unit = brief_unit([before, after])
    print(f"weights: {unit.text(before)} → {size(after, unit)} ({mode}: {', '.join(changed)})")
    if kept:
        print(f"not quantized: {', '.join(kept)}")
    if holders := _holders(copy):
        print(f"do not save this copy: Keras cannot load what it quantized inside {', '.join(holders)}")
    if inputs is None:
        print("peak of predict and output error: not measured, because no sample was given")
        return copy
    own, quantized = predict(model, inputs), predict(copy, inputs)
    if own.took is None or quantized.took is None:
        print("peak of predict: not counted by TensorFlow on this device")
    else:
        peaks = before + own.took, after + quantized.took
        unit = brief_unit(peaks)
        words = f"{unit.text(peaks[0])} → {size(peaks[1], unit)}, weights included"
        print(f"peak of predict on {count_samples(inputs)} samples: {words}")
    print(describe_error(own.outputs, quantized.outputs))
    return copy


def _check(model: Any, mode: str) -> None:
    if mode not in MODES:
        raise ValueError(f"the mode must be one of {', '.join(MODES)}; it is {mode!r}")
    module = sys.modules.get("keras.src.models.functional")
    if module is None or not isinstance(model, (module.Functional, sys.modules["keras"].Sequential)):
        raise TypeError(
            f"apply.quantize copies a functional or sequential model of Keras 3; this is {named_kind(model)}"
        )
    if not model.built:
        raise ValueError("the model is not built yet, so it has no weights: call it once on data")
    if any(layer.dtype_policy.quantization_mode for layer in model._flatten_layers()):
        raise ValueError("the model is quantized already")
    if model.compute_dtype != model.variable_dtype or any(
        layer.compute_dtype != layer.variable_dtype for layer in model._flatten_layers()
    ):
        raise ValueError("the model computes in 16 bits, and was not tested with quantized weights")


def _copy(model: Any) -> Any:
    """Make the model again, with the same weights: TensorFlow shares their memory until one of the two changes.

    The copy's variables get no values of their own first: there may be no room for them.
    """
    import keras
    from keras.src.backend.common import global_state
    from keras.src.saving.serialization_lib import SafeModeScope

    own = {type(layer).__name__: type(layer) for layer in model._flatten_layers() if not _is_of_keras(layer)}
    # A Lambda layer's function is the person's own, in this very process: nothing foreign is loaded.
    scopes = keras.saving.custom_object_scope(own), SafeModeScope(False)
    waiting = list(global_state.get_global_attribute("uninitialized_variables", []))
    try:
        with scopes[0], scopes[1], keras.StatelessScope(initialize_variables=False):
            copy = type(model).from_config(model.get_config())
            if not copy.built:
                copy.build(model.input_shape)
        if [tuple(v.shape) for v in copy.variables] != [tuple(v.shape) for v in model.variables]:
            raise ValueError("it makes other weights")
        for variable, source in zip(copy.variables, model.variables):
            variable._initializer = partial(_value_of, source)
            variable._deferred_initialize()
    except Exception as error:
        raise ValueError(f"Keras cannot make this model again from its own description: {error}") from error
    finally:
        # Else Keras would try to give them values once more.
        global_state.set_global_attribute("uninitialized_variables", waiting)
    copy.jit_compile = model.jit_compile
    return copy


def _value_of(source: Any, _shape: Any, dtype: Any = None) -> Any:
    return source.value


def _is_of_keras(layer: Any) -> bool:
    return type(layer).__module__.partition(".")[0] == "keras"


def _quantize(model: Any, mode: str) -> tuple[list[str], list[str]]:
    """Quantize in place; give the class names of the layers that were changed, and of those with weights that were not.

    Keras warns of each layer that it cannot quantize, an ``InputLayer`` too: the names are told instead.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Layer .* does not have a `quantize` method")
        model.quantize(mode)
    gc.collect()
    leaves = [layer for layer in model._flatten_layers() if len(list(layer._flatten_layers())) == 1]
    changed = [type(layer).__name__ for layer in leaves if layer.dtype_policy.quantization_mode]
    kept = [type(layer).__name__ for layer in leaves if layer.weights and not layer.dtype_policy.quantization_mode]
    return list(dict.fromkeys(changed)), list(dict.fromkeys(kept))


def _holders(model: Any) -> list[str]:
    """Name the classes of layers that hold quantized layers: their saved form does not say that they do."""
    names = []
    for layer in model.layers:
        if hasattr(layer, "layers"):
            names += _holders(layer)
        elif any(inner.dtype_policy.quantization_mode for inner in layer._flatten_layers(include_self=False)):
            names.append(type(layer).__name__)
    return list(dict.fromkeys(names))
