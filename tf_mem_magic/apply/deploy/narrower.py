"""A new, narrower model of the same structure: half the units and filters, the same inputs and outputs."""

from __future__ import annotations

from typing import Any

from tf_mem_magic.remedies.deploy._widths import NONE, Widths, check_layers, graph_of


def narrower(model: Any, width: float = 0.5) -> Any:
    """Build a new, untrained model like ``model``, in which the layers between input and output are narrower.

    Units of dense and recurrent layers, filters of convolutions, the width of embeddings and of attention heads are
    multiplied by ``width``. What is added up stays equally wide; what must fit the inputs, the outputs, or a layer that
    looks at the width itself (a ``Reshape`` in the middle, grouped convolutions) keeps its width. Widths of 4 and below
    stay. The given model is not changed. Nothing of what it learned is copied, but for what a ``Normalization`` of the
    inputs knows of the data.

    Parameters
    ----------
    model : keras.Model
        A built Sequential or functional model of Keras 3, made of Keras's own layers.
    width : float
        More than 0 and less than 1.

    Returns
    -------
    keras.Model
        The same kind of model, with the same inputs and outputs, not compiled.

    Raises
    ------
    TypeError
        If it is not a Sequential or functional model of Keras 3: only those tell their structure.
    ValueError
        If the width is out of range, the model is not built, holds another model or layers that are not Keras's own,
        has its channels first, or no layer of it can be narrowed.
    """
    import keras

    if not 0 < width < 1:
        raise ValueError(f"the width must be more than 0 and less than 1; it is {width}")
    graph = graph_of(model)
    check_layers(graph)
    widths = Widths(graph, width)
    changes = {id(layer): widths.change(layer) for layer in graph.layers}
    if not any(changes.values()):
        raise ValueError(NONE)

    def make(layer: Any) -> Any:
        config = _without_sizes(layer.get_config() | changes.get(id(layer), {}))
        # A layer that was frozen held what it had learned; here it has learned nothing yet.
        frozen = getattr(layer, "weights", None) and type(layer).__name__ != "Normalization"
        return type(layer).from_config(config | {"trainable": True} if frozen else config)

    try:
        inputs = None if graph is not model else keras.tree.map_structure(_input_like, model.input)
        student = keras.models.clone_model(model, inputs, clone_function=make)
        if not student.built:
            student.build(model.input_shape)
    except Exception as error:
        raise ValueError(f"Keras cannot build this model with other widths: {error}") from error
    if (student.input_shape, student.output_shape) != (model.input_shape, model.output_shape):
        raise ValueError("the narrower model would have other inputs or outputs, so it is not used")
    for layer in graph.layers:
        if type(layer).__name__ == "Normalization":
            copied = student.get_layer(layer.name)
            copied.set_weights(layer.get_weights())
            copied.finalize_state()
    return student


def _input_like(tensor: Any) -> Any:
    """Make an input of the same name, by which data may be given; Keras's own copies have other names."""
    import keras

    name = tensor._keras_history.operation.name
    return keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, sparse=tensor.sparse, name=name)


def _without_sizes(config: Any) -> Any:
    """Leave out for which input sizes the layer inside a wrapper was built: it would be built for them again."""
    if isinstance(config, dict):
        return {word: _without_sizes(value) for word, value in config.items() if word != "build_config"}
    return config
