"""The examples of ``accumulate-gradients``, which are its tests."""

from __future__ import annotations

from dataclasses import replace

from tf_mem_magic.core.diagnosis import Diagnosis, Part
from tf_mem_magic.core.facts import Facts, ModelFacts, NamedValue
from tf_mem_magic.core.proposals import Context, Example
from tf_mem_magic.core.recording import Cell, Recording


def _known(
    source: str,
    line: int | None = None,
    *,
    model: ModelFacts | None = None,
    earlier: tuple[str, ...] = (),
    rows: int = 1024,
    other: int = 0,
) -> Context:
    facts = Facts(
        tensorflow="2.21.0",
        keras="3.15.1",
        initialised=True,
        models=() if model is None else (model,),
        values=(NamedValue("x", rows * 40, "numpy.ndarray", shape=(rows, 10), dtype="float32"),),
        earlier_cells=earlier,
    )
    cell = Cell(source)
    parts = (Part("weights", 4096, "counted"), Part("other", other, "the rest")) if other else ()
    return Context(cell, Recording(cell, status="oom", facts=facts), Diagnosis("GPU:0", line=line, breakdown=parts))


_NEW = ModelFacts("model", ("Dense",), weight_bytes=4096)
_OLD = ModelFacts("model", ("Dense",), weight_bytes=4096, steps_before=3, steps=3)
_FIT = "model.fit(x, y, batch_size=256)"
_HALF = "model.fit(x, y, batch_size=128)"
_COMPILE = '%%tfmem\nimport keras\nmodel = keras.Sequential([keras.layers.Dense(1)])\nmodel.compile({0}, "mse")\n'
_CALL = "from tf_mem_magic import apply\napply.accumulate_gradients(model, 2)\n"
_SCHEDULE = "keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.1, 100))"
_LOOP = """%%tfmem
optimizer = keras.optimizers.Adam({0})
for a, b in tf.data.Dataset.from_tensor_slices((x, y)).batch({1}):
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((model(a, training=True) - b) ** 2)
    grads = tape.gradient(loss, model.trainable_variables)
    optimizer.apply_gradients(zip(grads, model.trainable_variables))
"""
_WHOLE = """%%tfmem
for step in range(100):
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(model(x) ** 2)
    grads = tape.gradient(loss, model.trainable_variables)
    optimizer.apply_gradients(zip(grads, model.trainable_variables))
"""
_IN_PARTS = """%%tfmem
for step in range(100):
    from tf_mem_magic import apply
    def loss_of_part(x):
        loss = tf.reduce_mean(model(x) ** 2)
        return loss
    loss, grads = apply.gradients_in_parts(loss_of_part, (x,), model.trainable_variables, 128)
    optimizer.apply_gradients(zip(grads, model.trainable_variables))
"""
_MADE = "optimizer = keras.optimizers.Adam()\n"
_IMPORTS = ("import keras\nimport tensorflow as tf",)

EXAMPLES: tuple[Example, ...] = (
    Example(
        "compiled in the cell by a string",
        _known(_COMPILE.format('"adam"') + _FIT, 5, model=_NEW),
        _COMPILE.format("keras.optimizers.Adam(gradient_accumulation_steps=2)") + _HALF,
    ),
    Example(
        "compiled in the cell with an optimizer",
        _known(_COMPILE.format("keras.optimizers.SGD(0.1, momentum=0.9)") + _FIT, 5, model=_NEW),
        _COMPILE.format("keras.optimizers.SGD(0.1, momentum=0.9, gradient_accumulation_steps=2)") + _HALF,
    ),
    Example(
        "a learning-rate schedule goes on counting updates",
        _known(_COMPILE.format(_SCHEDULE) + _FIT, 5, model=_NEW),
        _COMPILE.format(_SCHEDULE) + _CALL + _HALF,
    ),
    Example(
        "compiled in an earlier cell",
        _known(f"%%tfmem\n{_FIT}", 2, model=_OLD),
        f"%%tfmem\n{_CALL}{_HALF}",
    ),
    Example(
        "more parts where the cell accumulates already",
        _known(f"%%tfmem\n{_CALL}{_HALF}", 4, model=_OLD),
        f"%%tfmem\n{_CALL}{_HALF}".replace("2)", "4)").replace("128", "64"),
    ),
    Example(
        "a custom training loop",
        _known(_LOOP.format("", 64), 5, model=_NEW, earlier=_IMPORTS),
        _LOOP.format("gradient_accumulation_steps=2", 32),
    ),
    Example(
        "a custom training loop with an optimizer of an earlier cell",
        _known(_LOOP.format("", 64).replace(_MADE, ""), 4, model=_OLD, earlier=(*_IMPORTS, _MADE)),
        _LOOP.format("", 32).replace(_MADE, _CALL.replace("(model", "(optimizer")),
    ),
    Example(
        "a loop over all samples at once",
        _known(_WHOLE, 4, model=_OLD, earlier=(*_IMPORTS, _MADE)),
        _IN_PARTS,
    ),
    Example(
        "a loop over all samples at once, with a sum",
        _known(_WHOLE.replace("reduce_mean", "reduce_sum"), 4, model=_OLD, earlier=(*_IMPORTS, _MADE)),
        "is a mean over the samples",
        declined=True,
    ),
    Example(
        "gradients that are clipped by the loop",
        _known(
            _LOOP.format("", 64).replace(
                "    optimizer.", "    grads, _ = tf.clip_by_global_norm(grads, 1.0)\n    optimizer."
            ),
            5,
            model=_NEW,
            earlier=_IMPORTS,
        ),
        "the gradients are changed",
        declined=True,
    ),
    Example(
        "a loop whose loss is a sum",
        _known(_LOOP.format("", 64).replace("reduce_mean", "reduce_sum"), 5, model=_NEW, earlier=_IMPORTS),
        "computes with a mean or a sum over the whole batch",
        declined=True,
    ),
    Example(
        "a moving average of the weights",
        _known(_COMPILE.format("keras.optimizers.Adam(use_ema=True)") + _FIT, 5, model=_NEW),
        "a moving average of the weights",
        declined=True,
    ),
    Example(
        "weights that outweigh what smaller batches save",
        _known(f"%%tfmem\n{_FIT}", 2, model=_OLD, other=3 * 4096),
        "sums of gradients would take 4.0 KiB, and batches of 128 save about 4.0 KiB",
        declined=True,
    ),
    Example(
        "few weights that are trained",
        _known(f"%%tfmem\n{_FIT}", 2, model=replace(_OLD, trainable_bytes=64), other=3 * 4096),
        f"%%tfmem\n{_CALL}{_HALF}",
    ),
    Example(
        "prediction",
        _known("%%tfmem\nmodel.predict(x, batch_size=256)", 2, model=_OLD),
        "computes no gradients",
        declined=True,
    ),
)
