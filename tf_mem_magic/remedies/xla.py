"""XLA off where it may be what fills the memory; on is there to be tried, not recommended."""

from __future__ import annotations

import ast

from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.facts import Facts, ModelFacts
from tf_mem_magic.core.proposals import Answer, Context, Declined, Example, Proposal, RefusedError
from tf_mem_magic.core.recording import Cell, Recording
from tf_mem_magic.notebook.cell import (
    CellEdit,
    PythonCell,
    apply_edits,
    insert_argument,
    insert_line,
    read_cell,
    shares_line,
)
from tf_mem_magic.notebook.mask import NotPython
from tf_mem_magic.notebook.origins import KerasNames
from tf_mem_magic.notebook.training import TrainingPlace, binds_model, find_training

KEY = "xla"
TITLE = "XLA"

_MEASURE = "What XLA does to memory cannot be told beforehand: look at what the rerun measures."
_OFF = "XLA compiles the whole step into one program with temporary memory of its own; Keras turns it on by itself."
_UNSURE = "XLA is off already; on, it took 0.7 to 2.5 times the memory of measured models, and nothing told which"
_ON = "XLA joins operations, so that fewer intermediate results are kept."


def propose(context: Context) -> Answer:
    """Offer XLA off where the model is compiled with it; on only under other settings, because it may cost memory."""
    try:
        proposal, is_on = _proposal(context)
        return (proposal,) if is_on else (Declined(KEY, TITLE, _UNSURE, "", proposal),)
    except RefusedError as refused:
        return (refused.declined(KEY, TITLE),)


def _proposal(context: Context) -> tuple[Proposal, bool]:
    """Give the proposal to change the setting, and what the setting is now."""
    facts, diagnosis = context.recording.facts, context.diagnosis
    if diagnosis is not None and (diagnosis.device == "host" or diagnosis.cause == "host"):
        raise RefusedError("host memory ran out; XLA changes the memory of the device that computes")
    cell = read_cell(context.cell.source)
    if isinstance(cell, NotPython):
        raise RefusedError(cell.reason)
    place = find_training(cell, KerasNames(cell, facts.earlier_cells), facts, diagnosis)
    if isinstance(place, str):
        raise RefusedError(place)
    wanted = not _is_on(place, diagnosis)
    changed, undo = _changed(cell, place, wanted)
    if isinstance(changed, NotPython):
        raise RefusedError(changed.reason)
    proposal = Proposal(
        key=KEY,
        title="Compile with XLA" if wanted else "Without XLA",
        source=changed,
        original=context.cell.source,
        preserves="close numerics",
        caveats=(_MEASURE, "The first step takes longer: it is compiled anew." if wanted else "Steps may be slower."),
        why=_ON if wanted else _OFF,
        undo=undo,
    )
    return proposal, not wanted


def _is_on(place: TrainingPlace, diagnosis: Diagnosis | None) -> bool:
    if place.facts is None or not place.by_keras:
        raise RefusedError("it is not known whether the model is compiled with XLA")
    if place.facts.run_eagerly:
        raise RefusedError(f"`{place.model}` runs eagerly, where XLA has no part")
    jit = place.facts.jit_compile
    if jit is None and diagnosis is not None and diagnosis.jit:
        jit = True
    if jit is None:
        raise RefusedError(f"it is not known whether `{place.model}` is compiled with XLA")
    return jit


def _changed(cell: PythonCell, place: TrainingPlace, wanted: bool) -> tuple[str | NotPython, str]:
    """Change ``compile`` where the cell compiles the model, else set it on the model before it trains."""
    compiles = [
        node
        for top in cell.tree.body
        for node in ast.walk(top)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "compile"
        and cell.text(node.func.value) == place.model
    ]
    if len(compiles) > 1:
        raise RefusedError(f"the cell compiles `{place.model}` more than once")
    if compiles:
        return apply_edits(cell, (_in_compile(cell, compiles[0], wanted),)), ""
    if any(k.arg == "jit_compile" for node in ast.walk(cell.tree) if isinstance(node, ast.Call) for k in node.keywords):
        raise RefusedError("the cell sets jit_compile where it cannot be followed")
    if not place.model.isidentifier():
        raise RefusedError(f"`{place.model}` is no plain name")
    if f"{place.model}.jit_compile" in {ast.unparse(n) for n in ast.walk(cell.tree) if isinstance(n, ast.Attribute)}:
        raise RefusedError(f"the cell sets `{place.model}.jit_compile` itself")
    at = _before(place)
    if shares_line(cell, at):
        raise RefusedError("the statement that trains shares its line with another: give it a line of its own")
    edit = insert_line(cell, at, *_setting(place.model, wanted))
    return apply_edits(cell, (edit,)), "\n".join(_setting(place.model, not wanted))


def _before(place: TrainingPlace) -> ast.stmt:
    """Choose the statement before which to set it: not in a loop, where the model would be compiled in every round."""
    if not any(isinstance(node, (ast.For, ast.AsyncFor, ast.While)) for node in ast.walk(place.top)):
        return place.statement
    if place.facts is None or place.facts.is_new or binds_model(place.top, place.model):
        raise RefusedError("the model is made or chosen in the loop that trains it")
    return place.top


def _setting(model: str, wanted: bool) -> tuple[str, str]:
    """Write the setting, and forget the functions that were compiled before it."""
    functions = " = ".join(f"{model}.{name}_function" for name in ("train", "test", "predict"))
    return f"{model}.jit_compile = {wanted}", f"{functions} = None"


def _in_compile(cell: PythonCell, call: ast.Call, wanted: bool) -> CellEdit:
    if any(k.arg is None for k in call.keywords) or any(isinstance(a, ast.Starred) for a in call.args):
        raise RefusedError("some arguments of `compile` are hidden behind stars")
    given = next((k.value for k in call.keywords if k.arg == "jit_compile"), None)
    if given is None:
        return insert_argument(cell, call, f"jit_compile={wanted}")
    if not isinstance(given, ast.Constant) or given.value is wanted:
        raise RefusedError("what `compile` gets for jit_compile is decided when the cell runs")
    if wanted and given.value is False:
        raise RefusedError("the cell itself turns XLA off")
    return CellEdit(cell.start(given), cell.end(given), str(wanted))


def _example(name: str, source: str, expect: str, *, jit: bool | None = True, declined: bool = False) -> Example:
    model = ModelFacts("model", ("Dense",), jit_compile=jit, steps=3, steps_before=3)
    cell = Cell(source)
    recording = Recording(cell, status="oom", facts=Facts(keras="3.15.1", models=(model,)))
    return Example(name, Context(cell, recording, Diagnosis("GPU:0")), expect, declined)


_FIT = "%%tfmem\nmodel.fit(x, y)"
_FUNCTIONS = "model.train_function = model.test_function = model.predict_function = None\n"

EXAMPLES: tuple[Example, ...] = (
    _example(
        "Keras turned it on, the cell compiles",
        '%%tfmem\nmodel.compile("adam", "mse")\nmodel.fit(x, y)',
        '%%tfmem\nmodel.compile("adam", "mse", jit_compile=False)\nmodel.fit(x, y)',
    ),
    _example(
        "the cell turned it on",
        '%%tfmem\nmodel.compile("adam", "mse", jit_compile=True)\nmodel.fit(x, y)',
        '%%tfmem\nmodel.compile("adam", "mse", jit_compile=False)\nmodel.fit(x, y)',
    ),
    _example(
        "an earlier cell compiled the model",
        _FIT,
        f"%%tfmem\nmodel.jit_compile = False\n{_FUNCTIONS}model.fit(x, y)",
    ),
    _example("off already", _FIT, "nothing told which", jit=False, declined=True),
    _example("not known", _FIT, "not known whether", jit=None, declined=True),
    _example(
        "the cell's own choice",
        "%%tfmem\nmodel.compile('adam', jit_compile=False)\nmodel.fit(x, y)",
        "the cell itself turns XLA off",
        jit=False,
        declined=True,
    ),
)
