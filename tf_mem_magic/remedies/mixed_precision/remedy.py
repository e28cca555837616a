"""Mixed precision: compute in 16 bits, keep the weights in 32."""

from __future__ import annotations

import ast

from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.facts import DeviceFacts, Facts, ModelFacts
from tf_mem_magic.core.proposals import Context, Example, Proposal, RefusedError
from tf_mem_magic.core.recording import Cell, Recording
from tf_mem_magic.notebook.cell import PythonCell
from tf_mem_magic.remedies._engine.guards import device_memory, python, uses_keras
from tf_mem_magic.remedies._engine.question import Ask, remedy
from tf_mem_magic.remedies.mixed_precision.output_layers import all_layers, output_layers
from tf_mem_magic.remedies.mixed_precision.own_layers import why_not_in_16_bits
from tf_mem_magic.remedies.mixed_precision.places import Computing, computing, first_place, trained

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
    _check_model(ask, place)
    loop = place.own_loop
    policy, caveats = _choose_policy(facts, ask.diagnosis)
    if loop and policy == "mixed_float16" and not _scales_loss(ask):
        raise RefusedError(
            "float16 needs the loss to be scaled, and no loss scaling can be seen in the training loop "
            "(optimizer.scale_loss, LossScaleOptimizer)"
        )
    others = sorted(trained(ask) - {place.model})
    if others and policy == "mixed_float16":
        raise RefusedError(
            f"`{others[0]}` is trained in this cell too: layers that it shares with `{place.model}` would compute in "
            "float16 there without the loss being scaled"
        )
    if loop:
        caveats += ("In your own loop, a float32 tensor mixed with a 16-bit output raises an error: cast it.",)
    changed, undo, more = _change(ask, place, policy)
    return Proposal(
        key=KEY,
        title="16-bit compute",
        source=changed,
        original=ask.source,
        preserves="close numerics",
        caveats=caveats + more + _layer_caveats(model) + _id_caveats(ask.cell, model, facts),
        why=_WHY,
        undo=undo,
        cost=_cost(_device(facts, ask.diagnosis)),
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


def _code_words(cell: PythonCell) -> set[str]:
    """Give the names and attributes of a cell's code: what stands in comments and texts is left out."""
    found = (n for n in cell.nodes if isinstance(n, (ast.Name, ast.Attribute)))
    return {n.id if isinstance(n, ast.Name) else n.attr for n in found}


def _check_model(ask: Ask, place: Computing) -> None:
    """Refuse a model that cannot compute in 16 bits, or that would save nothing."""
    model = place.facts
    listed = all_layers(ask.names, place.model, place.top)
    halving = None if model is None else model.halving
    if halving == 0 or (halving is None and listed is not None and len(set_with_weights(listed)) < 2):
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
    if reason := why_not_in_16_bits(ask.notebook, model):
        raise RefusedError(reason)


def set_with_weights(layers: list[str]) -> list[str]:
    """List the layers that have weights, as far as their classes tell."""
    return [name for name in layers if name not in _WITHOUT_WEIGHTS]


def _choose_policy(facts: Facts, diagnosis: Diagnosis | None) -> tuple[str, tuple[str, ...]]:
    """Choose by the device: bfloat16 needs no loss scaling, but only newer cards compute in it."""
    device = _device(facts, diagnosis)
    if device.kind == "TPU":
        return "mixed_bfloat16", ()
    if device.kind == "CPU":
        return "mixed_bfloat16", ("Slower on a CPU: most CPUs compute faster in 32 bits.",)
    if device.compute_capability is None:
        return "mixed_float16", (f"It is not known how fast {device.name} computes in 16 bits.",)
    if device.compute_capability >= (8, 0):
        return "mixed_bfloat16", ()
    if device.compute_capability >= (7, 0):
        return "mixed_float16", ()
    return "mixed_float16", ("Slower on this card: it has no tensor cores. Memory may still fall.",)


def _cost(device: DeviceFacts) -> str:
    """Say in a few words where 16 bits are known to compute slower (the README's table has it measured)."""
    if device.kind == "CPU":
        return "slower on a CPU"
    old = device.compute_capability is not None and device.compute_capability < (7, 0)
    return "slower on this card" if old and device.kind == "GPU" else ""


def _device(facts: Facts, diagnosis: Diagnosis | None) -> DeviceFacts:
    name = diagnosis.device if diagnosis is not None else ""
    known = facts.device(name)
    if known is not None:
        return known
    if name:
        kind = name.partition(":")[0]
        return DeviceFacts(name, "CPU" if kind == "CPU" else "TPU" if kind == "TPU" else "GPU")
    cards = [d for d in facts.devices if d.kind != "CPU"]
    return cards[0] if cards else DeviceFacts("CPU:0", "CPU")


def _scales_loss(ask: Ask) -> bool:
    return any("scale_loss" in text or "LossScaleOptimizer" in text for text in ask.texts)


_Change = tuple[str, str, tuple[str, ...]]


def _change(ask: Ask, place: Computing, policy: str) -> _Change:
    """Set the policy before the model is built, or change the model that exists when it computes."""
    made = [s for s in ask.cell.tree.body if place.model in _targets(s)]
    start = _start_of_building(ask, place, made)
    if start is None:
        return _change_in_place(ask, place, policy)
    outputs = output_layers(ask.names, place.model, place.top)
    if outputs is not None:
        return _set_policy(ask, start, policy, outputs)
    if place.facts is not None and place.facts.form == "functional" and place.facts.weight_bytes and made:
        return _change_in_place(ask, place, policy)
    raise RefusedError(
        f"which layer gives the output of `{place.model}` cannot be told from this cell, and that one must stay in "
        '32 bits (dtype="float32")'
    )


def _start_of_building(ask: Ask, place: Computing, made: list[ast.stmt]) -> ast.stmt | None:
    """Find the top-level statement before which a global policy must stand; None for a model built earlier."""
    cell, names, facts = ask.cell, ask.names, place.facts
    if facts is not None and not facts.is_new and not any(map(names.builds, made)):
        return None
    if any(names.loads(s) for s in made) or (facts is not None and facts.earlier_bytes):
        return None
    if kept := _keeps_its_own(ask, made):
        if facts is not None and facts.form == "functional" and facts.weight_bytes and made:
            return None
        raise RefusedError(f"`{place.model}` is built around `{kept}`, which keeps the precision it was made with")
    building = [s for s in cell.tree.body if names.builds(s)]
    first = min(building, key=cell.start, default=None)
    before = [s for s in made if cell.start(s) < cell.start(place.top)]
    if len(before) > 1 and all_layers(names, place.model, place.top) is not None:
        return before[-1]
    if first is None and made:
        return made[0]
    is_called = isinstance(place.top, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.For, ast.While))
    if first is not None and not is_called and cell.start(first) > cell.start(place.top):
        raise RefusedError(f"`{place.model}` was built before what this cell builds, by code that cannot be seen here")
    return first


def _keeps_its_own(ask: Ask, made: list[ast.stmt]) -> str:
    """Name the model of an earlier cell, or from a file, around which the cell builds the one that ran out."""
    earlier = {m.name for m in ask.facts.models if not m.is_new and not m.local and m.weight_bytes}
    loaded = {t for s in ask.cell.tree.body if ask.names.loads(s) for t in _targets(s)}
    building = [s for s in ask.cell.tree.body if ask.names.builds(s) or s in made]
    functions = [f for f in ask.cell.tree.body if isinstance(f, ast.FunctionDef) and any(map(ask.names.builds, f.body))]
    for statement in (*building, *functions):
        bound = _targets(statement)
        read = {n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
        if kept := sorted(read & (earlier | loaded) - bound):
            return kept[0]
    return ""


def _targets(statement: ast.stmt) -> set[str]:
    nodes = (n for n in ast.walk(statement) if isinstance(n, (ast.Name, ast.Attribute, ast.Subscript)))
    return {ast.unparse(n) for n in nodes if isinstance(n.ctx, ast.Store)}


def _set_policy(ask: Ask, start: ast.stmt, policy: str, outputs: list[ast.Call]) -> _Change:
    """Set the global policy before the model is built, and keep its output layers in float32."""
    handle = ask.names.handle(start)
    keras = handle or "keras"
    lines = ([] if handle else ["import keras"]) + [f'{keras}.config.set_dtype_policy("{policy}")']
    editor = ask.edit().before(start, *lines)
    for call in outputs:
        editor.argument(call, "dtype", '"float32"')
    undo = f'import keras\nkeras.config.set_dtype_policy("{ask.facts.policy}")'
    return editor.source(), undo, ("The policy stays set for models that later cells build; Undo sets it back.",)


def _change_in_place(ask: Ask, place: Computing, policy: str) -> _Change:
    """Change the model that exists before it trains, by a call that stands in the cell."""
    model = place.facts
    if model is None:
        raise RefusedError("it could not be seen where the model is built")
    if not model.weight_bytes:
        raise RefusedError(f"`{place.model}` is not built yet: it has no weights")
    if place.own_loop and model.form == "subclassed" and not place.by_keras:
        raise RefusedError(
            f"what gives the outputs of `{place.model}` is not known, and your own loop needs them in 32 bits"
        )
    earlier = any("tf.function" in text for text in ask.facts.earlier_cells)
    if place.own_loop and earlier and "tf.function" not in ask.source and not place.by_keras:
        raise RefusedError("the training step may be a tf.function of an earlier cell, which keeps the old precision")
    at = first_place(ask, place)
    editor = ask.edit().before(at, f'apply.mixed_precision({place.model}, "{policy}")', apply=True)
    caveats = ("The changed cell needs tf_mem_magic; other models that share its layers change too.",)
    undo = f'from tf_mem_magic import apply\napply.mixed_precision({place.model}, "float32")'
    return editor.source(), undo, caveats


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
