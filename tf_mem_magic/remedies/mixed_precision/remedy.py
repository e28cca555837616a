"""Mixed precision: compute in 16 bits, keep the weights in 32."""

from __future__ import annotations

import ast

from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.effects import Effect
from tf_mem_magic.core.facts import DeviceFacts, Facts, ModelFacts
from tf_mem_magic.core.proposals import Context, Example, Proposal, RefusedError
from tf_mem_magic.core.recording import Cell, Recording
from tf_mem_magic.core.step import PolicyTrial
from tf_mem_magic.notebook.text.cell import PythonCell
from tf_mem_magic.remedies._engine.guards import device_memory, python, uses_keras
from tf_mem_magic.remedies._engine.question import Ask, remedy
from tf_mem_magic.remedies.mixed_precision.change import change, is_built_anew
from tf_mem_magic.remedies.mixed_precision.derivatives import derived_twice
from tf_mem_magic.remedies.mixed_precision.output_layers import every_layer
from tf_mem_magic.remedies.mixed_precision.own_layers import why_not_in_16_bits
from tf_mem_magic.remedies.mixed_precision.places import Computing, computing, trained
from tf_mem_magic.remedies.mixed_precision.policy import choose_policy, cost_of

KEY = "mixed-precision"
TITLE = "Mixed precision"
IN_HELPERS = True
GUARDS = (
    python,
    device_memory.saying("host memory ran out; mixed precision saves memory of the device that computes"),
    uses_keras,
)

_RECURRENT = frozenset({"LSTM", "GRU", "SimpleRNN", "RNN", "Bidirectional", "ConvLSTM2D"})
_NORMALIZING = frozenset({"BatchNormalization", "LayerNormalization", "GroupNormalization", "RMSNormalization"})
_WITHOUT_WEIGHTS = frozenset(
    {"Flatten", "Reshape", "Input", "InputLayer", "Rescaling", "Dropout", "Activation", "Permute", "Resizing"}
    | {"Softmax", "ReLU", "LeakyReLU", "Normalization", "TextVectorization", "Masking", "GlobalAveragePooling2D"}
    | {"Lambda", "MaxPooling1D", "MaxPooling2D", "AveragePooling2D", "GlobalMaxPooling2D", "ZeroPadding2D"}
)
_SETS_PRECISION = frozenset(
    {"set_dtype_policy", "set_global_policy", "mixed_precision", "set_floatx", "enable_mixed_precision", "set_policy"}
    | {"enable_mixed_precision_graph_rewrite"}
)
_WHY = (
    "Layers compute in 16 bits, so most activations take half; weights, optimizer state and what normalization "
    "layers compute stay in 32 bits, so the whole does not halve."
)


@remedy(KEY, TITLE, GUARDS)
def propose(ask: Ask) -> Proposal:
    """Offer float16 or bfloat16, by what the device computes well."""
    facts = ask.facts
    _check_scope(ask)
    place = computing(ask)
    model = place.facts
    failed_on = ask.diagnosis.device if ask.diagnosis is not None else ""
    policy, caveats = choose_policy(facts, failed_on)
    trial = model.trial if model is not None and model.trial is not None and model.trial.policy == policy else None
    _check_model(ask, place, trial)
    loop = place.own_loop
    if loop and policy == "mixed_float16" and not _scales_loss(ask):
        raise RefusedError(
            "float16 needs gradients of a scaled loss, and no loss scaling can be seen where they are taken "
            "(optimizer.scale_loss, LossScaleOptimizer)"
        )
    others = sorted(trained(ask) - {place.model, place.written})
    if others and policy == "mixed_float16":
        raise RefusedError(
            f"`{others[0]}` is trained in this cell too: layers that it shares with `{place.model}` would compute in "
            "float16 there without the loss being scaled"
        )
    if loop and not (trial is not None and trial.outcome == "ok" and trial.traced == "step"):
        caveats += ("In your own loop, a float32 tensor mixed with a 16-bit output raises an error: cast it.",)
    changed, undo, more = change(ask, place, policy)
    return Proposal(
        key=KEY,
        title="16-bit compute",
        source=changed,
        original=ask.source,
        preserves="close numerics",
        caveats=caveats + more + _layer_caveats(model) + _id_caveats(ask.cell, model, facts),
        why=_WHY,
        undo=undo,
        cost=cost_of(facts, failed_on),
        effect=Effect(policy=policy),
    )


def _check_scope(ask: Ask) -> None:
    facts = ask.facts
    legacy = dict(facts.environment).get("TF_USE_LEGACY_KERAS", "").lower() in ("1", "true")
    if legacy or (facts.keras or "").startswith("2."):
        raise RefusedError("this is Keras 2 (tf_keras); only Keras 3 models are changed")
    if facts.policy.startswith("mixed_"):
        raise RefusedError(f"Keras's global policy is {facts.policy} already")
    code = {
        n.id if isinstance(n, ast.Name) else n.attr for n in ask.cell.nodes if isinstance(n, (ast.Name, ast.Attribute))
    }
    if code & _SETS_PRECISION:
        raise RefusedError("the cell sets its precision itself")


def _check_model(ask: Ask, place: Computing, trial: PolicyTrial | None) -> None:
    """Refuse a model that cannot compute in 16 bits, or that would save nothing.

    What was tried counts; where it was not, the code of its own layers is read.
    """
    model = place.facts
    policy = ask.facts.policy if model is None else model.dtype_policy
    if policy == "float64":
        raise RefusedError(
            f"`{place.model}` computes in float64, more digits than the usual, and 16 bits keep two or three"
        )
    if twice := derived_twice(ask.notebook):
        raise RefusedError(
            f"`{twice}` differentiates a derivative: of that 16 bits, with two or three digits, keep little"
        )
    listed = every_layer(ask.names, place.model, place.top)
    halving = None if model is None else model.halving
    if halving == 0 or (halving is None and listed is not None and len(_with_weights(listed)) < 2):
        raise RefusedError(
            f"only the layer that gives the output of `{place.model}` has weights, and that one stays in 32 bits"
        )
    if model is None:
        return
    if model.dtype_policy.startswith("mixed_"):
        raise RefusedError(f"`{place.model}` already computes in {model.dtype_policy}")
    if model.rounds_ids:
        raise RefusedError(
            f"`{place.model}` passes ids to an Embedding as float32, and 16 bits would round them to other ids: "
            'give its Input dtype="int32" first'
        )
    # Tried was the model as it is: built anew, one of the notebook's own class gives its outputs in 32 bits.
    other = trial is not None and trial.in_model and model.form == "subclassed" and is_built_anew(ask, place)
    if trial is not None and trial.outcome == "failed" and not other:
        what = f"`{trial.where}`" if trial.where else f"`{place.model}`"
        raise RefusedError(f"tried without data, {what} cannot compute in 16 bits: {trial.told}")
    if trial is not None and trial.outcome == "ok":
        return
    if reason := why_not_in_16_bits(ask.notebook, model):
        raise RefusedError(reason)


def _with_weights(layers: list[str]) -> list[str]:
    """List the layers that have weights, as far as their classes tell."""
    return [name for name in layers if name not in _WITHOUT_WEIGHTS]


def _scales_loss(ask: Ask) -> bool:
    return ask.notebook.has("scale_loss", "LossScaleOptimizer")


def _layer_caveats(model: ModelFacts | None) -> tuple[str, ...]:
    layers = set(model.layers) if model is not None else set()
    caveats: tuple[str, ...] = ()
    if layers & _RECURRENT:
        caveats += ("Recurrent layers can take more memory in 16 bits: an LSTM took 1.9 times as much on a CPU.",)
    if layers & _NORMALIZING:
        caveats += ("Normalization layers compute in 32 bits: a model full of them saves little.",)
    return caveats


def _id_caveats(cell: PythonCell, model: ModelFacts | None, facts: Facts) -> tuple[str, ...]:
    layers = model.layers if model is not None else ()
    texts = (cell.source, *facts.earlier_cells) if model is None else ()
    if "Embedding" not in layers and not any("Embedding(" in text for text in texts):
        return ()
    return ("Ids for an Embedding must come as integers: 16 bits round large ones that come as floats.",)


def _known(
    source: str,
    *,
    line: int | None = None,
    capability: tuple[int, int] | None = (7, 5),
    models: tuple[ModelFacts, ...] = (),
    earlier: tuple[str, ...] = (),
    device: str = "GPU:0",
) -> Context:
    cards = (DeviceFacts("GPU:0", compute_capability=capability), DeviceFacts("CPU:0", "CPU"))
    facts = Facts(
        tensorflow="2.21.0", keras="3.15.1", initialised=True, models=models, devices=cards, earlier_cells=earlier
    )
    cell = Cell(source)
    return Context(cell, Recording(cell, status="oom", facts=facts), Diagnosis(device, line=line))


_OLD = ModelFacts("model", ("Dense",), weight_bytes=4096, steps=3, steps_before=3)
_NEW = ModelFacts("model", ("Dense",), weight_bytes=4096)
_BUILD = """%%tfmem
import keras
from keras import layers
model = keras.Sequential([layers.Dense(64), layers.Dense(10, activation="softmax")])
model.compile("adam", "sparse_categorical_crossentropy")
model.fit(x, y)
"""
_BUILD_MIXED = """%%tfmem
import keras
from keras import layers
keras.config.set_dtype_policy("mixed_{0}")
model = keras.Sequential([layers.Dense(64), layers.Dense(10, activation="softmax", dtype="float32")])
model.compile("adam", "sparse_categorical_crossentropy")
model.fit(x, y)
"""
_LOOP = """%%tfmem
for x, y in data:
    with tf.GradientTape() as tape:
        loss = loss_of(y, model(x))
    optimizer.apply_gradients(zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables))
"""
_IN_PLACE = 'from tf_mem_magic import apply\napply.mixed_precision(model, "mixed_{0}")\n'

EXAMPLES: tuple[Example, ...] = (
    Example(
        "a model built in the cell, on a card with float16 tensor cores",
        _known(_BUILD, line=6, models=(_NEW,)),
        _BUILD_MIXED.format("float16"),
    ),
    Example(
        "a card that computes in bfloat16",
        _known(_BUILD, line=6, capability=(8, 0), models=(_NEW,)),
        _BUILD_MIXED.format("bfloat16"),
    ),
    Example(
        "a model from an earlier cell is changed in place",
        _known("%%tfmem\nhistory = model.fit(x, y)", line=2, models=(_OLD,)),
        "%%tfmem\n" + _IN_PLACE.format("float16") + "history = model.fit(x, y)",
    ),
    Example(
        "a custom loop on a card with bfloat16",
        _known(_LOOP, line=4, capability=(9, 0), models=(_OLD,)),
        _LOOP.replace("%%tfmem\n", "%%tfmem\n" + _IN_PLACE.format("bfloat16")),
    ),
    Example(
        "a custom loop whose loss scaling cannot be seen, on a card without bfloat16",
        _known(_LOOP, line=4, models=(_OLD,)),
        "no loss scaling can be seen",
        declined=True,
    ),
    Example(
        "tf.keras by the name of an earlier cell, a functional model",
        _known(
            "%%tfmem\ni = tf.keras.Input((8,))\nmodel = tf.keras.Model(i, tf.keras.layers.Dense(1)(i))\n"
            "model.fit(x, y)",
            line=4,
            models=(_NEW,),
            earlier=("import tensorflow as tf",),
        ),
        '%%tfmem\ntf.keras.config.set_dtype_policy("mixed_float16")\ni = tf.keras.Input((8,))\n'
        'model = tf.keras.Model(i, tf.keras.layers.Dense(1, dtype="float32")(i))\nmodel.fit(x, y)',
    ),
    Example(
        "host memory ran out",
        _known("%%tfmem\nmodel.fit(x, y)", line=2, models=(_OLD,), device="host"),
        "host memory ran out",
        declined=True,
    ),
)
