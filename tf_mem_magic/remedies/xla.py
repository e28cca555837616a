"""XLA off where it may be what fills the memory; on is there to be tried, not recommended."""

from __future__ import annotations

import ast

from tf_mem_magic.core.facts import ModelFacts
from tf_mem_magic.core.proposals import Declined, Example, Proposal, RefusedError
from tf_mem_magic.notebook.text.edits import argument
from tf_mem_magic.notebook.training import binds_model
from tf_mem_magic.remedies._engine.examples import example
from tf_mem_magic.remedies._engine.guards import device_memory
from tf_mem_magic.remedies._engine.question import Ask, remedy

KEY = "xla"
TITLE = "XLA"
GUARDS = (device_memory.saying("host memory ran out; XLA changes the memory of the device that computes"),)

_MEASURE = "What XLA does to memory cannot be told beforehand: look at what the rerun measures."
_OFF = "XLA compiles the whole step into one program with temporary memory of its own; Keras turns it on by itself."
_UNSURE = "XLA is off already; on, it took 0.7 to 2.5 times the memory of measured models, and nothing told which"
_ON = "XLA joins operations, so that fewer intermediate results are kept."


@remedy(KEY, TITLE, GUARDS)
def propose(ask: Ask) -> Proposal | Declined:
    """Offer XLA off where the model is compiled with it; on only under other settings, because it may cost memory."""
    is_on = _is_on(ask)
    source, undo = _changed(ask, wanted=not is_on)
    slower = "Steps may be slower." if is_on else "The first step takes longer: it is compiled anew."
    proposal = Proposal(
        key=KEY,
        title="Without XLA" if is_on else "Compile with XLA",
        source=source,
        original=ask.source,
        preserves="close numerics",
        caveats=(_MEASURE, slower),
        why=_OFF if is_on else _ON,
        undo=undo,
    )
    return proposal if is_on else Declined(KEY, TITLE, _UNSURE, "", proposal)


def _is_on(ask: Ask) -> bool:
    place = ask.place
    if place.facts is None or not place.by_keras:
        raise RefusedError("it is not known whether the model is compiled with XLA")
    if place.facts.run_eagerly:
        raise RefusedError(f"`{place.model}` runs eagerly, where XLA has no part")
    jit = place.facts.jit_compile
    if jit is None and ask.diagnosis is not None and ask.diagnosis.jit:
        return True
    if jit is None:
        raise RefusedError(f"it is not known whether `{place.model}` is compiled with XLA")
    return jit


def _changed(ask: Ask, wanted: bool) -> tuple[str, str]:
    """Change ``compile`` where the cell compiles the model, else set it on the model before it trains."""
    model, compiles = ask.place.model, ask.notebook.calls("compile", on=ask.place.model)
    if len(compiles) > 1:
        raise RefusedError(f"the cell compiles `{model}` more than once")
    if compiles:
        _check_compile(compiles[0], wanted)
        return ask.edit().argument(compiles[0], "jit_compile", str(wanted)).source(), ""
    if any(k.arg == "jit_compile" for call in ask.cell.calls for k in call.keywords):
        raise RefusedError("the cell sets jit_compile where it cannot be followed")
    if not model.isidentifier():
        raise RefusedError(f"`{model}` is no plain name")
    if f"{model}.jit_compile" in {ast.unparse(n) for n in ask.cell.nodes if isinstance(n, ast.Attribute)}:
        raise RefusedError(f"the cell sets `{model}.jit_compile` itself")
    source = ask.edit().before(_before(ask), *_setting(model, wanted)).source()
    return source, "\n".join(_setting(model, not wanted))


def _check_compile(call: ast.Call, wanted: bool) -> None:
    given = argument(call, "jit_compile")
    if given is None:
        return
    if not isinstance(given, ast.Constant) or given.value is wanted:
        raise RefusedError("what `compile` gets for jit_compile is decided when the cell runs")
    if wanted and given.value is False:
        raise RefusedError("the cell itself turns XLA off")


def _before(ask: Ask) -> ast.stmt:
    """Choose the statement before which to set it: not in a loop, where the model would be compiled in every round."""
    place = ask.place
    if not any(isinstance(node, (ast.For, ast.AsyncFor, ast.While)) for node in ast.walk(place.top)):
        return place.statement
    if binds_model(place.top, place.model):
        raise RefusedError(f"`{place.model}` is made or chosen in the statement that uses it")
    if place.facts is None:
        raise RefusedError(ask.why_unknown(place.model))
    if place.facts.is_new:
        raise RefusedError(
            f"`{place.model}` is made in this cell, and whether before the loop that uses it is not followed"
        )
    return place.top


def _setting(model: str, wanted: bool) -> tuple[str, str]:
    """Write the setting, and forget the functions that were compiled before it."""
    functions = " = ".join(f"{model}.{name}_function" for name in ("train", "test", "predict"))
    return f"{model}.jit_compile = {wanted}", f"{functions} = None"


def _example(name: str, source: str, expect: str, *, jit: bool | None = True, declined: bool = False) -> Example:
    model = ModelFacts("model", ("Dense",), jit_compile=jit, steps=3, steps_before=3)
    return example(name, source, expect, declined=declined, models=(model,))


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
