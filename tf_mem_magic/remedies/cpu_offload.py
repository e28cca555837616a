"""CPU offload: an evaluation, a prediction or a preparation of data is computed by the CPU, in host memory."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from tf_mem_magic.core.diagnosis import Diagnosis, SituationKind
from tf_mem_magic.core.facts import Facts, ModelFacts
from tf_mem_magic.core.proposals import Context, Example, Proposal, RefusedError
from tf_mem_magic.core.recording import Cell, Recording
from tf_mem_magic.diagnose.situation_keys import CREATES
from tf_mem_magic.notebook.origins import KerasNames, tensorflow_name
from tf_mem_magic.notebook.text.cell import PythonCell, read_cell
from tf_mem_magic.notebook.text.mask import NotPython
from tf_mem_magic.notebook.text.ranges import CellEdit, apply_edits, put_under
from tf_mem_magic.notebook.uses import called_name
from tf_mem_magic.remedies._engine.in_code import in_code
from tf_mem_magic.remedies._engine.question import Ask, remedy

KEY = "cpu-offload"
TITLE = "Compute on the CPU"
HELPS: tuple[SituationKind, ...] = ("eager-data",)

_INFERENCE = {"evaluate": "Evaluate", "predict": "Predict", "test_on_batch": "Evaluate", "predict_on_batch": "Predict"}
_TRAINING = frozenset({"fit", "train_on_batch", "GradientTape", "apply_gradients", "minimize", "compile", "build"})
_PREPARES_TRAINING = frozenset({"compile", "build"})
_VALIDATES = "`fit` ran out while it validated, and its validation runs where it trains"
_MAKES = frozenset({"fit", "train_on_batch", "build", "load_weights", "load_model"})
_PREPARES = ("tensorflow.image.", "tensorflow.math.", "tensorflow.linalg.", "tensorflow.signal.", "tensorflow.strings.")
_PREPARES_BY = frozenset(
    f"tensorflow.{name}"
    for name in "constant convert_to_tensor cast concat stack one_hot pad reshape transpose expand_dims squeeze tile "
    "gather matmul tensordot einsum reduce_mean reduce_sum reduce_max reduce_min clip_by_value where repeat split "
    "identity zeros ones fill range square sqrt abs exp divide multiply add subtract".split()
)
_PLAIN = frozenset("len int float str bool range list tuple dict zip enumerate print sum min max sorted".split())
_METHODS = frozenset(
    "astype reshape numpy append extend copy to_numpy item tolist argmax argmin mean std sum max min flatten ravel "
    "squeeze round batch take skip prefetch items values keys format join".split()
)
_RECURRENT = frozenset({"LSTM", "GRU", "Bidirectional", "RNN", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"})
_COMPILED_BY_XLA = in_code(r"jit_compile\s*=")
_NOT_CERTAIN = (
    (
        in_code(r"\b\w*Strategy\("),
        ("Strategy(",),
        "the notebook uses a distribution strategy, which places the work itself",
    ),
    (
        in_code(r"\bdevice\(|\bset_visible_devices\b"),
        ("device(", "set_visible_devices"),
        "the notebook places its work on devices itself",
    ),
    (
        in_code(r"\bchannels_first\b"),
        ("channels_first",),
        "images with their channels first are not computed by the CPU",
    ),
)
"""What makes it uncertain: a pattern, the words of which one must stand in a text that has it, and the reason."""
_WHY = "Nothing but the training needs the GPU: what this statement computes is held in the computer's own memory."
_CAVEATS = (
    "A CPU is slower than a GPU, and the computer's own memory must have the room.",
    "Rounding differs a little; some GPUs compute in fewer bits (TF32) than a CPU. Not measured on a real GPU.",
)


@dataclass(frozen=True, slots=True)
class _Work:
    """What is moved: the place of its statement in the cell's body, its title, and the models that it calls."""

    place: int
    title: str
    models: tuple[ModelFacts, ...] = ()
    by_keras: bool = False


@remedy(KEY, TITLE)
def propose(ask: Ask) -> Proposal:
    """Offer it where a GPU ran out in a statement that does not train and is surely the same on the CPU."""
    _check_scope(ask)
    cell, names = ask.cell, ask.names
    work = _find_work(ask)
    for model in work.models:
        _check_model(cell, work, model)
    if work.models and not work.by_keras and ask.notebook.matches(_COMPILED_BY_XLA, "jit_compile"):
        raise RefusedError("the notebook compiles with XLA, which cannot compute on the CPU with weights on a GPU")
    found = tensorflow_name(names, work.place)
    if found is None:
        raise RefusedError("what `tf` means in this cell is not certain")
    tf, lines = found
    compiled = [m.name for m in work.models if work.by_keras and m.jit_compile]
    lines += [line for model in compiled for line in _compiled(model, False)]
    after = [line for model in compiled for line in _compiled(model, True)]
    bare = isinstance(cell.tree.body[work.place], ast.Expr)
    return Proposal(
        key=KEY,
        title=work.title,
        source=_edited(cell, work.place, lines, f'with {tf}.device("CPU:0"):', after),
        original=ask.source,
        preserves="close numerics",
        caveats=(*_CAVEATS, *_more_caveats(work, bool(compiled), bare)),
        why=_WHY,
        undo="\n".join(after),
        cost="slower than a GPU",
    )


def _check_scope(ask: Ask) -> None:
    facts, diagnosis = ask.facts, ask.diagnosis
    if diagnosis is None:
        raise RefusedError("it is not known that a GPU ran out of memory")
    if diagnosis.device == "host" or diagnosis.cause == "host":
        raise RefusedError("it was the computer's own memory that ran out, and this needs more of it")
    if not diagnosis.device.startswith("GPU"):
        raise RefusedError(f"it was {diagnosis.device} that ran out, and the CPU's memory is what this would use")
    if facts.keras is not None and facts.keras.startswith("2."):
        raise RefusedError("this is Keras 2 (tf_keras), with which it was not tested")
    if any(frame.function in CREATES for error in ask.recording.errors for frame in error.frames):
        raise RefusedError("it ran out while weights were made, and they belong on the GPU")
    for pattern, words, reason in _NOT_CERTAIN:
        if ask.notebook.matches(pattern, *words):
            raise RefusedError(reason)


def _find_work(ask: Ask) -> _Work:
    """Find the statement that ran out, and be certain that it neither trains nor builds anything."""
    cell, names, facts, statement = ask.cell, ask.names, ask.facts, ask.failing_statement
    if statement is None:
        raise RefusedError("the statement that ran out of memory was not found in the cell")
    place = cell.tree.body.index(statement)
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        name = f"the class `{statement.name}`" if isinstance(statement, ast.ClassDef) else f"`{statement.name}`"
        if ask.gradients == "fit" and facts.validating:
            raise RefusedError(_VALIDATES)
        if ask.gradients:
            raise RefusedError(f"it ran out in {name}, which calls `{ask.gradients}`{_belongs(ask.gradients)}")
        raise RefusedError(f"it ran out in {name}, and what else calls that is not certain")
    calls = [node for node in ast.walk(statement) if isinstance(node, ast.Call)]
    called = [called_name(call) for call in (*ask.failing, *calls)]
    trains = [name for name in called if name in _TRAINING]
    trains = [name for name in trains if name not in _PREPARES_TRAINING] or trains
    if "fit" in trains and facts.validating:
        raise RefusedError(_VALIDATES)
    if trains:
        more = any("Embedding" in model.layers for model in facts.models)
        also = "; an Embedding kept on the CPU has its optimizer's state on the GPU all the same" if more else ""
        raise RefusedError(f"the statement that ran out calls `{trains[0]}`{_belongs(trains[0])}{also}")
    keras = [c for c in calls if isinstance(c.func, ast.Attribute) and c.func.attr in _INFERENCE and _model(c, facts)]
    direct = [c for c in calls if isinstance(c.func, ast.Name) and facts.model(c.func.id)]
    if keras and direct:
        raise RefusedError("it calls a model in two ways, and only one of them can be moved surely")
    if names.builds(statement):
        raise RefusedError("the statement also builds layers, whose weights would stay on the CPU")
    if keras:
        models = tuple({m.name: m for m in (_model(c, facts) for c in keras) if m is not None}.values())
        _check_calls(names, [c for c in calls if c not in keras], (), imported=_is_simple(statement))
        title = f"{_INFERENCE[called_name(keras[0])]} on the CPU"
        return _Work(place, title, models, by_keras=True)
    if direct:
        models = tuple({m.name: m for m in facts.models if any(_name(c) == m.name for c in direct)}.values())
        _check_calls(names, calls, models)
        return _Work(
            cell.tree.body.index(statement), f"Call {' and '.join(f'`{m.name}`' for m in models)} on the CPU", models
        )
    if not any(_prepares(names, call) for call in calls):
        raise RefusedError("what ran out is no evaluation, prediction or preparation of data that is known")
    _check_calls(names, calls, ())
    return _Work(place, "Prepare the data on the CPU")


def _belongs(call: str) -> str:
    """Say what belongs on the GPU: a tape may take gradients without training anything."""
    return f", and {'gradients belong' if call == 'GradientTape' else 'training belongs'} on the GPU"


def _model(call: ast.Call, facts: Facts) -> ModelFacts | None:
    assert isinstance(call.func, ast.Attribute)
    return facts.model(ast.unparse(call.func.value))


def _name(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _prepares(names: KerasNames, call: ast.Call) -> bool:
    origin = names.origin(call.func)
    return "random" not in origin and (origin.startswith(_PREPARES) or origin in _PREPARES_BY)


def _is_simple(statement: ast.stmt) -> bool:
    return isinstance(statement, (ast.Expr, ast.Assign, ast.AnnAssign, ast.AugAssign))


def _check_calls(
    names: KerasNames, calls: list[ast.Call], models: tuple[ModelFacts, ...], imported: bool = False
) -> None:
    """Refuse where the statement calls something of which it is not known that it does not train.

    ``imported``: what comes from a module does not (``classification_report`` of a prediction).
    """
    known = _PLAIN | {model.name for model in models}
    for call in calls:
        origin = names.origin(call.func)
        plain = origin.startswith("numpy.") or _name(call) in known or _prepares(names, call)
        method = isinstance(call.func, ast.Attribute) and call.func.attr in _METHODS and not origin
        if not (plain or method or (imported and origin)):
            raise RefusedError(f"it also calls `{ast.unparse(call.func)}`, and what that does is not known")


def _check_model(cell: PythonCell, work: _Work, model: ModelFacts) -> None:
    """Refuse where the model cannot be computed on the CPU, or where its weights would be made there."""
    if _RECURRENT & set(model.layers):
        raise RefusedError("recurrent layers choose code for the GPU wherever one is there")
    if work.by_keras and model.jit_compile is None:
        raise RefusedError(f"it is not known whether `{model.name}` is compiled with XLA")
    if work.by_keras and not model.name.isidentifier():
        raise RefusedError(f"`{model.name}` is no plain name")
    before = [n for s in cell.tree.body[: work.place] for n in ast.walk(s) if isinstance(n, ast.Call)]
    if not model.weight_bytes or (model.is_new and not {called_name(call) for call in before} & _MAKES):
        raise RefusedError(f"`{model.name}` may get its weights in this statement, and they belong on the GPU")


def _compiled(model: str, wanted: bool) -> tuple[str, str]:
    """Write the setting, and forget the functions for inference that were compiled before it."""
    return f"{model}.jit_compile = {wanted}", f"{model}.test_function = {model}.predict_function = None"


def _edited(cell: PythonCell, place: int, lines: list[str], header: str, after: list[str]) -> str:
    changed = put_under(cell, place, place, lines, header)
    if isinstance(changed, NotPython):
        raise RefusedError("the statement cannot be indented without changing it")
    if not after:
        return changed
    now = read_cell(changed)
    assert not isinstance(now, NotPython)
    end = now.end(now.tree.body[place + len(lines)])
    at = min((start for start in now.starts if start >= end), default=len(changed))
    rows = cell.newline.join(after)
    text = f"{rows}{cell.newline}" if changed[:at].endswith("\n") else f"{cell.newline}{rows}"
    final = apply_edits(now, [CellEdit(at, at, text)])
    if isinstance(final, NotPython):
        raise RefusedError(final.reason)
    return final


def _more_caveats(work: _Work, compiled: bool, bare: bool) -> tuple[str, ...]:
    found: tuple[str, ...] = ()
    if work.models:
        found += ("The weights stay on the GPU and are copied for each step.",)
    else:
        found += ("The values stay in the computer's memory; what uses them whole on the GPU copies them there.",)
    if compiled:
        found += ("XLA is off for this statement: it cannot compute on the CPU with weights on a GPU.",)
    if any(model.dtype_policy.startswith("mixed_") for model in work.models):
        found += ("The model computes in 16 bits, which is slow on most CPUs.",)
    if bare:
        found += ("If the value of this statement was shown below the cell, it no longer is.",)
    return found


def _example(
    name: str,
    source: str,
    expect: str,
    *,
    line: int = 2,
    device: str = "GPU:0",
    jit: bool | None = False,
    layers: tuple[str, ...] = ("Dense",),
    validating: bool = False,
    declined: bool = False,
) -> Example:
    model = ModelFacts("model", layers, jit_compile=jit, weight_bytes=4096, steps=3, steps_before=3)
    cell = Cell(source)
    earlier = ("import keras\nimport tensorflow as tf",)
    facts = Facts("2.21.0", "3.15.1", True, models=(model,), earlier_cells=earlier, validating=validating)
    return Example(
        name, Context(cell, Recording(cell, status="oom", facts=facts), Diagnosis(device, line=line)), expect, declined
    )


_PREDICT = "%%tfmem\nout = model.predict(x, batch_size=4096)\n"
_UNDER = '%%tfmem\nwith tf.device("CPU:0"):\n    {0}\n'

EXAMPLES: tuple[Example, ...] = (
    _example("predict", _PREDICT, _UNDER.format("out = model.predict(x, batch_size=4096)")),
    _example(
        "evaluate of a model that is compiled with XLA",
        "%%tfmem\nscores = model.evaluate(x, y)\nprint(scores)\n",
        "%%tfmem\nmodel.jit_compile = False\nmodel.test_function = model.predict_function = None\n"
        'with tf.device("CPU:0"):\n    scores = model.evaluate(x, y)\n'
        "model.jit_compile = True\nmodel.test_function = model.predict_function = None\nprint(scores)\n",
        jit=True,
    ),
    _example("a call", "%%tfmem\nout = model(x).numpy()\n", _UNDER.format("out = model(x).numpy()")),
    _example(
        "a preparation", "%%tfmem\nx = tf.image.resize(x, (9, 9))\n", _UNDER.format("x = tf.image.resize(x, (9, 9))")
    ),
    _example("training", "%%tfmem\nmodel.fit(x, y)\n", "training belongs on the GPU", declined=True),
    _example(
        "validation",
        "%%tfmem\nmodel.fit(x, y)\n",
        "its validation runs where it trains",
        validating=True,
        declined=True,
    ),
    _example("the host", _PREDICT, "the computer's own memory", device="host", declined=True),
    _example("a CPU", _PREDICT, "it was CPU:0 that ran out", device="CPU:0", declined=True),
    _example("an LSTM", _PREDICT, "recurrent layers", layers=("LSTM",), declined=True),
    _example("XLA not known", _PREDICT, "not known whether `model`", jit=None, declined=True),
    _example("a function", "%%tfmem\nrun(model(x))\n", "also calls `run`", declined=True),
    _example("random", "%%tfmem\nx = tf.random.normal((9,))\n", "is no evaluation", declined=True),
)
