"""Let go of leftovers: what earlier cells hold on the device that is full, and this cell does not need."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.effects import Effect
from tf_mem_magic.core.facts import Facts, ModelFacts, NamedValue
from tf_mem_magic.core.proposals import Choice, Context, Declined, Example, Pick, Proposal, RefusedError
from tf_mem_magic.core.recording import Cell, Recording, Series
from tf_mem_magic.core.units import size
from tf_mem_magic.diagnose.breakdown import find_leftovers
from tf_mem_magic.diagnose.cause import WORTH_NAMING
from tf_mem_magic.notebook.read_first import rebuilt_names
from tf_mem_magic.notebook.text.cell import PythonCell
from tf_mem_magic.notebook.uses import called_name
from tf_mem_magic.remedies._engine.guards import diagnosed, python
from tf_mem_magic.remedies._engine.question import Ask, remedy
from tf_mem_magic.remedies.free_leftovers.ancestry import needed_by
from tf_mem_magic.remedies.free_leftovers.reads import hidden_use, used_words

KEY = "free-leftovers"
TITLE = "Let go of leftovers"

SMALLEST = 1 << 20
"""Bytes below which a name is not worth a word."""

MOST_NAMES = 40
"""Names offered at most, the largest: nobody reads through more."""

_WORD = re.compile(r"[^\W\d]\w*")
_WHY = "What earlier runs left in memory is not used by this cell; without it there is that much more room."
_GONE = "What is let go of is lost: to have it again, run the cells that made it."
_EMPTIED = "A model that is let go of is emptied: what else still refers to it cannot use it any more."


@dataclass(frozen=True, slots=True)
class _Leftover:
    """A name that can be let go, its bytes on the device, what it is, and the trained models that go with it."""

    name: str
    bytes: int
    what: str = ""
    is_model: bool = False
    trained: tuple[str, ...] = ()


@remedy(KEY, TITLE, (diagnosed, python))
def propose(ask: Ask) -> Proposal | Declined:
    """Offer to let go of what the cell does not need, where that may be enough; largest first, models by name."""
    diagnosis, context = ask.diagnosis, ask.context
    assert diagnosis is not None  # its guard
    if hidden := hidden_use(ask.cell, ask.facts.functions):
        raise RefusedError(f"the cell reaches names in a way that cannot be followed: `{hidden}`")
    found, needed = _leftovers(ask, diagnosis)
    if not found:
        again = _run_again(context, diagnosis)
        return again or Declined(KEY, TITLE, _nothing(context, diagnosis, needed))
    if ask.picked is not None:
        picked = [one for one in found if one.name in ask.picked]
        if not picked:
            raise RefusedError("nothing is ticked")
        return _proposal(ask, found, picked)
    proposal = _proposal(ask, found, _surely(found, diagnosis))
    reason = _too_little(found, diagnosis)
    missing = _missing(diagnosis, found)
    if not reason and missing > 0:
        reason = f"{proposal.title[0].lower()}{proposal.title[1:]}: {size(missing)} would still be missing"
    return Declined(KEY, TITLE, reason, "", proposal) if reason else proposal


def _leftovers(ask: Ask, diagnosis: Diagnosis) -> tuple[list[_Leftover], frozenset[str]]:
    """List what earlier cells hold on the full device and the cell does not need, largest first.

    The names that it may need are given too.
    """
    facts, recording, cell = ask.facts, ask.recording, ask.cell
    places = {diagnosis.device}
    if diagnosis.device == "host" and recording.get("allocator:CPU:0") is None:
        places.add("CPU:0")
    used = used_words(cell) | {word for name in facts.used for word in _WORD.findall(name)}
    used |= _let_go(cell) | {_root(m.name) for m in facts.models if m.steps > (m.steps_before or 0) or m.is_new}
    # A History that the cell sets anew keeps the model of the training before alive until then.
    anew = rebuilt_names(ask.source)
    used -= {v.name for v in facts.values if v.keeps_model and v.name in anew}
    found: dict[str, _Leftover] = {}
    everything: tuple[ModelFacts | NamedValue, ...] = (*facts.models, *facts.values)
    there = [(one, _bytes(one)) for one in everything if (one.device or "host") in places]
    needed = needed_by(used, [_root(one.name) for one, size_here in there if size_here], facts.earlier_cells)
    for one, size_here in there:
        root = _root(one.name)
        if not size_here or root in needed or not re.fullmatch(r"Out\[\d+\]|[^\W\d]\w*", root) or set(root) == {"_"}:
            continue
        before = found.get(root, _Leftover(root, 0))
        is_model = isinstance(one, ModelFacts)
        trained = (one.name,) if isinstance(one, ModelFacts) and one.steps else ()
        found[root] = _Leftover(
            root,
            before.bytes + size_here,
            before.what or _what(one),
            before.is_model or is_model,
            (*before.trained, *trained),
        )
    large = sorted((one for one in found.values() if one.bytes >= SMALLEST), key=lambda one: -one.bytes)
    return large[:MOST_NAMES], needed


def _let_go(cell: PythonCell) -> set[str]:
    """Give the names that the cell itself lets go of, by ``apply.free``: nothing is left to do about them."""
    calls = (call for call in cell.calls if called_name(call) == "free")
    return {a.value for c in calls for a in c.args if isinstance(a, ast.Constant) and isinstance(a.value, str)}


def _what(one: ModelFacts | NamedValue) -> str:
    if isinstance(one, ModelFacts):
        return "trained model" if one.steps else "model"
    return f"displayed, {one.kind}" if one.name.startswith("Out[") else one.kind


def _bytes(one: ModelFacts | NamedValue) -> int:
    if isinstance(one, ModelFacts):
        return 0 if one.is_new else one.weight_bytes + one.optimizer_bytes
    # A model's own variables live on in the model, whatever other name lets go of them.
    return one.bytes if one.origin == "earlier" and "keras.Variable" not in one.kind else 0


def _root(name: str) -> str:
    result = re.match(r"Out\[\d+\]", name)
    return result[0] if result else re.split(r"[.\[]", name, maxsplit=1)[0]


_UNNAMED = "a rerun collects garbage first, and a restart frees them"


def _nothing(context: Context, diagnosis: Diagnosis, needed: frozenset[str]) -> str:
    earlier = next((part for part in diagnosis.breakdown if part.kind == "earlier"), None)
    built = [] if earlier is None else [name for name in earlier.names if _root(name) in needed]
    if earlier is not None and built and earlier.bytes >= SMALLEST:
        few = [f"`{name}`" for name in built[:2]]
        told = f"{', '.join(few)} and others" if len(built) > 2 else " and ".join(few)
        it = "it" if len(built) == 1 else "them"
        return f"{told}: earlier cells had {it} at hand where they made what this cell uses, which may hold {it} still"
    if earlier is not None and not earlier.names and earlier.bytes >= SMALLEST:
        held = size(earlier.bytes)
        if find_leftovers(context.recording, diagnosis.device).maybe_used:
            return (
                f"{held} were in use when the cell began: the data of a dataset that this cell uses may be among them"
            )
        return f"{held} were in use when the cell began, but no name of yours was found that holds them: {_UNNAMED}"
    where = "in host memory" if diagnosis.device == "host" else f"on {diagnosis.device}"
    return f"no name of earlier cells was found that holds memory {where} and that this cell does not need"


def _run_again(context: Context, diagnosis: Diagnosis) -> Proposal | None:
    """Offer the cell as it is, where what Python's collector has given back since is what was missing."""
    back = dict(context.recording.garbage).get(f"allocator:{diagnosis.device}", 0)
    missing = _missing(diagnosis, ())
    if not 0 < missing <= back or back < WORTH_NAMING * (diagnosis.limit or 0):
        return None
    return Proposal(
        key=KEY,
        title=f"Run it again: {size(back)} of garbage are gone",
        source=context.cell.source,
        original=context.cell.source,
        preserves="same results",
        caveats=("More may be asked for later in the cell than what failed here.",),
        why="Earlier cells had left them in memory, where no name holds them; Python has collected them since.",
        doubtful=True,
        effect=Effect(released=back),
    )


def _too_little(found: list[_Leftover], diagnosis: Diagnosis) -> str:
    """Say that all that was found cannot matter beside the device's limit; empty where it may."""
    whole = diagnosis.limit or diagnosis.requested
    held = sum(one.bytes for one in found)
    if whole is None or held >= WORTH_NAMING * whole:
        return ""
    of = f"a limit of {size(whole)}" if diagnosis.limit else f"the {size(whole)} that were asked for"
    return f"all that earlier cells hold there ({_listed(found)}) is {size(held)}, of {of}: too little to matter"


def _missing(diagnosis: Diagnosis, freed: Sequence[_Leftover]) -> int:
    """Give the bytes that would be missing all the same; not above 0 where it may be enough."""
    if diagnosis.requested is None or diagnosis.in_use is None or diagnosis.limit is None:
        return 0
    return diagnosis.in_use + diagnosis.requested - sum(one.bytes for one in freed) - diagnosis.limit


def _surely(found: list[_Leftover], diagnosis: Diagnosis) -> list[_Leftover]:
    """Tick what a cell can make again; trained models too, the largest first, where that is not enough."""
    ticked = [one for one in found if not one.trained]
    for one in found:
        if one.trained and (not ticked or _missing(diagnosis, ticked) > 0):
            ticked.append(one)
    return [one for one in found if one in ticked]


def _proposal(ask: Ask, found: list[_Leftover], ticked: list[_Leftover]) -> Proposal:
    """Let go of ``ticked``, and name all that was ``found``."""
    source = _freed(ask, ticked)
    missing = 0 if ask.diagnosis is None else _missing(ask.diagnosis, ticked)
    saving = _saving(ask, ticked)
    kept = [one for one in found if one not in ticked]
    caveats = (
        *((f"Not ticked, so kept: {_listed(kept)} ({size(sum(one.bytes for one in kept))}).",) if kept else ()),
        _GONE,
        *((_EMPTIED,) if any(one.is_model for one in ticked) else ()),
        "The changed cell needs tf_mem_magic.",
    )
    return Proposal(
        key=KEY,
        title=f"Let go of {_listed(ticked)} ({size(sum(one.bytes for one in ticked))})",
        source=source,
        original=ask.source,
        preserves="same results",
        caveats=caveats,
        why=f"{size(missing)} would still be missing." if missing > 0 else _WHY,
        choices=() if saving is None else (saving,),
        answers_cause=ask.diagnosis is not None and ask.diagnosis.cause == "leftovers",
        asks=True,
        picks=tuple(Pick(one.name, one.bytes, one.what, one in ticked) for one in found),
        effect=Effect(released=sum(one.bytes for one in ticked)),
    )


def _listed(some: Sequence[_Leftover]) -> str:
    names = [one.name for one in some]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _freed(ask: Ask, found: Sequence[_Leftover], given: str = "") -> str:
    names = ", ".join(f'"{one.name}"' for one in found)
    return ask.edit().on_top(f"apply.free({names}{given})", apply=True).source()


def _saving(ask: Ask, found: Sequence[_Leftover]) -> Choice | None:
    """Offer to save the trained models first."""
    files = {name: _file(name, ask.context) for one in found for name in one.trained}
    if not files:
        return None
    source = _freed(ask, found, f", save={json.dumps(files, ensure_ascii=False)}")
    note = f"Writes {', '.join(files.values())} into the notebook's folder; a file of that name is replaced."
    return Choice(f"Save {', '.join(files)} first", source, note)


def _file(name: str, context: Context) -> str:
    """Choose a file name that no cell speaks of."""
    plain = re.sub(r"\W+", "_", name).strip("_")
    texts = (context.cell.source, *context.recording.facts.earlier_cells)
    names = (f"{plain}.keras", f"{plain}_kept.keras", f"{plain}_kept_by_tfmem.keras")
    return next((file for file in names if not any(file in text for text in texts)), names[-1])


_FIT = "%%tfmem\nmodel.fit(x, y)\n"
_OLD = ModelFacts("old", ("Dense",), weight_bytes=64 << 20, optimizer_bytes=128 << 20, steps=9, steps_before=9)
_USED = replace(_OLD, name="model", device="GPU:0")
_CACHE = NamedValue("cache", 300 << 20, "tf.Tensor", "GPU:0")
_SHOWN = NamedValue("Out[3]", 50 << 20, "tf.Tensor", "GPU:0")


def _example(
    name: str,
    expect: str,
    *,
    source: str = _FIT,
    models: tuple[ModelFacts, ...] = (replace(_OLD, device="GPU:0"), _USED),
    values: tuple[NamedValue, ...] = (_CACHE, _SHOWN),
    earlier: tuple[str, ...] = ("old = build()", "model = build()", "cache = tf.zeros((9, 9))"),
    used: tuple[str, ...] = (),
    device: str = "GPU:0",
    requested: int = 100 << 20,
    limit: int = 1024 << 20,
    picked: tuple[str, ...] | None = None,
    declined: bool = False,
) -> Example:
    facts = Facts(models=models, values=values, earlier_cells=earlier, used=used)
    cell = Cell(source)
    recording = Recording(cell, status="oom", facts=facts, series=(Series(f"allocator:{device}"),))
    diagnosis = Diagnosis(device, requested=requested, in_use=limit - (24 << 20), limit=limit, cause="leftovers")
    return Example(name, Context(cell, recording, diagnosis, picked=picked), expect, declined)


def _with(names: str, rest: str = "model.fit(x, y)\n") -> str:
    return f"%%tfmem\nfrom tf_mem_magic import apply\napply.free({names})\n{rest}"


EXAMPLES: tuple[Example, ...] = (
    _example("the largest first; no trained model that need not go", _with('"cache", "Out[3]"')),
    _example("a trained model where the rest is not enough", _with('"cache", "old", "Out[3]"'), requested=400 << 20),
    _example("what a person ticked", _with('"old", "Out[3]"'), picked=("Out[3]", "old")),
    _example(
        "what a function of an earlier cell reads is needed",
        _with('"old", "Out[3]"', "train(model)\n"),
        source="%%tfmem\ntrain(model)\n",
        used=("cache",),
    ),
    _example(
        "what was built from another model needs it",
        _with('"cache", "Out[3]"', "features.fit(x, y)\n"),
        source="%%tfmem\nfeatures.fit(x, y)\n",
        earlier=("old = build()", "model = build()\nfeatures = keras.Model(old.input, old.layers[-2].output)"),
        models=(replace(_OLD, device="GPU:0"),),
    ),
    _example(
        "another name of the same model",
        _with('"cache", "Out[3]"'),
        models=(replace(_OLD, device="GPU:0"),),
        earlier=("old = build()", "model = old"),
    ),
    _example(
        "what lies in host memory does not fill the card", "no name of earlier cells", device="GPU:1", declined=True
    ),
    _example("nothing ticked", "nothing is ticked", picked=(), declined=True),
    _example("too little to matter", "is 542 MiB, of a limit of 40.0 GiB", limit=40 << 30, declined=True),
    _example("not enough", "would still be missing", requested=2 << 30, declined=True),
    _example("names that cannot be followed", "cannot be followed", source="eval(text)\n", declined=True),
    _example("everything is needed", "does not need", source="f(old, cache, model)\n", values=(_CACHE,), declined=True),
)
