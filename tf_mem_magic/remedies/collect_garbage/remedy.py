"""Collect garbage: a cell that makes one model after another keeps them all, unless each goes before the next."""

from __future__ import annotations

from dataclasses import replace

from tf_mem_magic.core.diagnosis import Diagnosis, Situation
from tf_mem_magic.core.effects import Effect
from tf_mem_magic.core.facts import Facts, ModelFacts, NamedValue
from tf_mem_magic.core.proposals import Context, Example, Proposal, RefusedError
from tf_mem_magic.core.recording import Cell, ErrorText, Frame, Recording
from tf_mem_magic.core.units import brief_unit, size
from tf_mem_magic.diagnose.breakdown import discarded
from tf_mem_magic.diagnose.cause import WORTH_NAMING
from tf_mem_magic.diagnose.situation_keys import ROOM
from tf_mem_magic.remedies._engine.guards import diagnosed
from tf_mem_magic.remedies._engine.question import Ask, remedy
from tf_mem_magic.remedies.collect_garbage.letting_go import (
    MOMENT,
    NEEDS,
    asks_model,
    collects,
    edits_of,
    loses_model,
)
from tf_mem_magic.remedies.collect_garbage.models import begins_empty, kept_models
from tf_mem_magic.remedies.collect_garbage.rounds import find_rounds
from tf_mem_magic.remedies.collect_garbage.weights import weights_instead

KEY = "collect-garbage"
TITLE = "Collect garbage"

_WHY = "Without it each round's trained model stays in memory."


@remedy(KEY, TITLE, (diagnosed,))
def propose(ask: Ask) -> Proposal:
    """Offer to let go of the models of earlier rounds before the next is made, where they filled the device."""
    diagnosis, facts = ask.diagnosis, ask.facts
    assert diagnosis is not None  # its guard
    if models := kept_models(ask, diagnosis):
        return weights_instead(ask, models, KEY)
    made = discarded(ask.recording, diagnosis.device)
    kept = _kept_results(ask, diagnosis.device)
    held = made + sum(kept.values())
    if not held or held < WORTH_NAMING * (diagnosis.limit or 0):
        raise RefusedError(_nothing(facts, diagnosis.device))
    cell = ask.cell
    if collects(cell):
        raise RefusedError("the cell lets go of earlier rounds already")
    found = find_rounds(cell, facts, ask.lines)
    if isinstance(found, str):
        raise RefusedError(found)
    results = tuple(
        name for name in kept if found.at_top and begins_empty(cell, ask.scopes, name, found.places[0].statement)
    )
    if not made and not results:
        raise RefusedError(f"the models of earlier rounds live on in {_listed([*kept])}")
    held = made + sum(kept[name] for name in results)
    changed = ask.edit().edit(*edits_of(cell, found, results)).source()
    names = sorted({name for one in found.places for name in one.forget})
    forget = _listed(names)
    caveats = (
        *((f"{forget} of one round {'is' if len(names) == 1 else 'are'} gone before the next.",) if forget else ()),
        *loses_model(results),
        MOMENT,
        NEEDS,
    )
    return Proposal(
        key=KEY,
        title=f"Let go of what earlier rounds left ({size(held, brief_unit([held]))})",
        source=changed,
        original=ask.source,
        preserves="same results",
        caveats=caveats,
        why=_WHY,
        answers_cause=diagnosis.cause == "leftovers" or bool(results),
        effect=Effect(released=held),
    )


def _listed(names: list[str]) -> str:
    quoted = [f"`{name}`" for name in names]
    return " and ".join([", ".join(quoted[:-1]), quoted[-1]] if len(quoted) > 1 else quoted)


def _kept_results(ask: Ask, device: str) -> dict[str, int]:
    """Give the lists and dicts of what ``fit`` gave in this cell, with the bytes of the models behind it."""
    facts, found = ask.facts, dict[str, int]()
    if asks_model(ask):
        return {}  # a History may be asked for its model
    for value in facts.values:
        name, bracket, _ = value.name.partition("[")
        if bracket and value.keeps_model and value.origin == "cell" and value.device == device:
            found[name] = found.get(name, 0) + value.bytes
    return found


def _nothing(facts: Facts, device: str) -> str:
    new = [m for m in facts.models if m.is_new and m.device == device and "[" in m.name]
    roots = {m.name.partition("[")[0] for m in new}
    for root in sorted(roots):
        held = [m.weight_bytes + m.optimizer_bytes for m in new if m.name.partition("[")[0] == root]
        if len(held) > 1:
            what = f"`{root}` keeps {len(held)} models of this cell ({size(sum(held))})"
            return f"{what}: keep what they measured, or save each to a file"
    return "no models of earlier rounds of this cell filled the memory"


_LOOP = """%%tfmem
for fold in range(5):
    model = build()
    model.fit(x, y)
"""
_KEPT = Situation("models-kept", "`models` keeps 3 models.", helps=ROOM, reason="`models` fills", holder="models")
_MODEL = ModelFacts("model", ("Dense",), weight_bytes=1 << 20, device="CPU:0")


def _example(
    name: str,
    expect: str,
    source: str = _LOOP,
    line: int = 4,
    *,
    made: int = 60 << 20,
    models: tuple[ModelFacts, ...] = (_MODEL,),
    values: tuple[NamedValue, ...] = (),
    used: tuple[str, ...] = (),
    declined: bool = False,
    situation: Situation | None = None,
) -> Example:
    frame = Frame("In[5]", line - 1, "<module>", in_cell=True, is_user=True)
    facts = Facts(models=models, values=values, used=used)
    cell = Cell(source)
    recording = Recording(
        cell,
        status="oom",
        facts=facts,
        errors=(ErrorText("ResourceExhaustedError", "", (frame,)),),
        discarded=(("allocator:CPU:0", made),) if made else (),
    )
    diagnosis = Diagnosis("CPU:0", line=line, in_use=98 << 20, limit=100 << 20, requested=4 << 20, cause="leftovers")
    diagnosis = replace(diagnosis, situation=situation)
    return Example(name, Context(cell, recording, diagnosis), expect, declined)


_GRID = """%%tfmem
results = {}
for rate in (1e-2, 1e-3):
    model = build()
    results[rate] = model.fit(x, y)
"""
_HISTORY = NamedValue("results[0.01]", 30 << 20, "History and its model", "CPU:0", "cell", keeps_model=True)

EXAMPLES: tuple[Example, ...] = (
    _example(
        "a loop over folds",
        "%%tfmem\nfrom tf_mem_magic import apply\nfor fold in range(5):\n    model = None\n"
        "    apply.collect_garbage()\n    model = build()\n    model.fit(x, y)\n",
    ),
    _example(
        "a dict of what fit gave keeps the models",
        _GRID.replace("results = {}", "from tf_mem_magic import apply\nresults = {}").replace(
            "    model = build", "    model = None\n    apply.collect_garbage(results)\n    model = build"
        ),
        _GRID,
        5,
        made=0,
        values=(_HISTORY,),
    ),
    _example(
        "the models of the results are used",
        "no models",
        _GRID + "results[0.01].model.summary()",
        5,
        made=0,
        values=(_HISTORY,),
        declined=True,
    ),
    _example("too little to matter", "no models", made=1 << 20, declined=True),
    _example("nothing was garbage", "no models", made=0, declined=True),
    _example(
        "a list of models",
        "keep what they measured",
        made=0,
        models=tuple(replace(_MODEL, name=f"models[{i}]") for i in range(3)),
        declined=True,
    ),
    _example(
        "a list of models that is only filled",
        "%%tfmem\nfrom tf_mem_magic import apply\nmodels = []\nfor fold in range(5):\n    model = None\n"
        "    apply.collect_garbage()\n    model = build()\n    model.fit(x, y)\n"
        "    models.append(model.get_weights())\n",
        _LOOP.replace("for fold", "models = []\nfor fold") + "    models.append(model)\n",
        5,
        made=0,
        models=(_MODEL, *(replace(_MODEL, name=f"models[{i}]") for i in range(3))),
        situation=_KEPT,
    ),
    _example(
        "a dict of models that is only filled",
        "%%tfmem\nfrom tf_mem_magic import apply\nbest = {}\nfor n in (8, 16):\n    model = None\n"
        "    apply.collect_garbage()\n    model = build(n)\n    model.fit(x, y)\n    best[n] = model.get_weights()\n",
        "%%tfmem\nbest = {}\nfor n in (8, 16):\n    model = build(n)\n    model.fit(x, y)\n    best[n] = model\n",
        5,
        made=0,
        models=(_MODEL, *(replace(_MODEL, name=f"best[{i}]") for i in range(3))),
        situation=replace(_KEPT, holder="best"),
    ),
    _example(
        "a list of models that is read",
        "does more with it",
        _LOOP + "    models.append(model)\nprint(len(models))\n",
        made=0,
        models=(_MODEL, *(replace(_MODEL, name=f"models[{i}]") for i in range(3))),
        situation=_KEPT,
        declined=True,
    ),
    _example("one model", "no second model", "%%tfmem\nmodel = build()\nmodel.fit(x, y)\n", 3, declined=True),
    _example(
        "where it is made is not known",
        "not found",
        "%%tfmem\nfor f in folds:\n    go(f)\n",
        3,
        models=(),
        declined=True,
    ),
)
