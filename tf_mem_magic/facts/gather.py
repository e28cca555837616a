"""Facts from live objects: a thorough look after the cell, or while it runs.

TensorFlow and Keras are only looked up among the imported modules; nothing is imported, initialised, copied or
kept alive here.
"""

from __future__ import annotations

import os
import re
import sys
import tokenize
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any, Literal

from tf_mem_magic.core import troubles
from tf_mem_magic.core.facts import BatchSeen, DeviceFacts, Facts, ModelFacts, ModuleFacts
from tf_mem_magic.diagnose.breakdown import mentions
from tf_mem_magic.diagnose.places import is_cell_file
from tf_mem_magic.facts import names
from tf_mem_magic.facts.before import Before
from tf_mem_magic.facts.data import find_datasets, is_repeatable
from tf_mem_magic.facts.fit import Progress, observe_all, observe_fit, observe_progress, observe_validation
from tf_mem_magic.facts.frames import error_frames, innermost_frames, lines_to, local_names, user_frames
from tf_mem_magic.facts.functions import find_functions
from tf_mem_magic.facts.growth import find_grown, find_traced
from tf_mem_magic.facts.inputs import find_inputs
from tf_mem_magic.facts.kinds import Kinds
from tf_mem_magic.facts.models import (
    describe_kept_models,
    describe_left_optimizers,
    describe_models,
    find_models,
    find_optimizers,
    is_keras_2,
    steps_of,
    training_of,
    variables_of,
)
from tf_mem_magic.facts.names import stored
from tf_mem_magic.facts.probes import probed
from tf_mem_magic.facts.scalars import find_scalars
from tf_mem_magic.facts.uses import defined_names, used_by_others, used_names
from tf_mem_magic.facts.values import find_values
from tf_mem_magic.notebook.text.mask import Masked, mask

__all__ = ["gather_facts", "observe_fit"]

_WORD = re.compile(r"[^\W\d]\w*")
_MOST_MODULES = 3
_LONGEST_MODULE = 200_000
"""Characters; a longer file is not looked through for a change to copy."""

ENVIRONMENT = (
    "CUDA_VISIBLE_DEVICES",
    "TF_FORCE_GPU_ALLOW_GROWTH",
    "TF_GPU_ALLOCATOR",
    "TF_PER_DEVICE_MEMORY_LIMIT_MB",
    "TF_GPU_HOST_MEM_LIMIT_IN_MB",
    "TF_FORCE_UNIFIED_MEMORY",
    "TF_ENABLE_GPU_GARBAGE_COLLECTION",
    "TF_DEVICE_MIN_SYS_MEMORY_IN_MB",
    "TF_CUDA_MALLOC_ASYNC_SUPPORTED_PREALLOC",
    "TF_CUDNN_WORKSPACE_LIMIT_IN_MB",
    "TF_CPU_ALLOCATOR_USE_BFC",
    "TF_CPU_BFC_MEM_LIMIT_IN_MB",
    "TF_ENABLE_ONEDNN_OPTS",
    "TF_USE_LEGACY_KERAS",
    "TF_XLA_FLAGS",
    "XLA_FLAGS",
    "XLA_PYTHON_CLIENT_PREALLOCATE",
    "XLA_PYTHON_CLIENT_MEM_FRACTION",
    "XLA_PYTHON_CLIENT_ALLOCATOR",
    "CUDA_MODULE_LOADING",
)
"""Variables that steer how TensorFlow, XLA and CUDA use memory."""

_LONGEST_READ = 20_000
"""Characters of a cell that went well up to which its text is read, where it is about a model."""

Ended = Literal["failed", "well", "running"]
"""How a run ended, for what is read after it; one that failed, or may be changed and run again, needs everything."""


@dataclass(frozen=True, slots=True)
class _Look:
    """What is looked at: the names, the cell, how its run ended, and its error or the innermost frame of what runs."""

    namespace: Mapping[str, Any]
    before: Before
    source: str
    ended: Ended
    exception: BaseException | None = None
    frame: FrameType | None = None


def gather_facts(
    namespace: Mapping[str, Any],
    before: Before,
    cell_source: str,
    exception: BaseException | None = None,
    devices: Sequence[DeviceFacts] = (),
    earlier_cells: Sequence[str] = (),
    ended: Ended = "failed",
    frame: FrameType | None = None,
) -> Facts:
    """Read everything a remedy may want to know from the live objects, after the run and before any release.

    A part that cannot be read is left out: nothing here raises. ``cell_source`` is the cell as it ran. After a run that
    went well (``ended="well"``) only what its report shows is read: the cell's text is looked at, and what the remedies
    for deployment ask for, only where the cell is about a model. While it runs (``"running"``, from another
    thread; ``frame`` is the innermost of its stack) TensorFlow is not asked anything, so that nobody waits for it.
    """
    facts = known_at_once(devices, earlier_cells)
    look = _Look(namespace, before, cell_source, ended, exception, frame)
    # First what is read from frames: one that has returned meanwhile no longer knows who called it.
    for part in (_live, _uses) if ended == "well" else (_running, _live, _uses):
        if ended == "well" and part is _uses and not _is_about_a_model(facts, look):
            continue
        try:
            facts = replace(facts, **part(facts, look))
        except Exception as error:
            if ended != "running":  # while the cell runs its names come and go under our eyes
                troubles.note("a part of what remedies know of the cell is missing", error)
            facts = replace(facts, partial=True)
    return facts


def known_at_once(devices: Sequence[DeviceFacts] = (), earlier_cells: Sequence[str] = ()) -> Facts:
    """Read what is known without looking at any name."""
    return Facts(
        tensorflow=_version("tensorflow"),
        keras=_version("keras") or _version("tf_keras"),
        initialised=_initialised(),
        policy=_policy(),
        devices=tuple(devices),
        earlier_cells=tuple(earlier_cells),
        environment=tuple((name, os.environ[name]) for name in ENVIRONMENT if name in os.environ),
    )


def _live(facts: Facts, look: _Look) -> dict[str, Any]:
    namespace, before, running = look.namespace, look.before, look.ended == "running"
    in_use = _in_use(look)
    # A model or an array that two names hold is known by the one that the cell writes.
    pairs = sorted(names.reachable(namespace), key=lambda pair: not in_use(pair[0]))
    kept = names.history(namespace)
    inner = list(local_names(look.exception))
    local = [(name, value) for name, value in inner if name not in namespace]
    others = find_models([(name, value) for name, value in inner if value is not namespace.get(name, value)])
    named_optimizers = find_optimizers(pairs)
    optimizers = [one for _, one in find_optimizers([*pairs, *local])]
    found = find_datasets(pairs, facts.initialised, counts=not running)
    named = find_models(pairs)
    models = find_models([*pairs, *local]) if local else named
    of_functions = {id(model) for _, model in models} - {id(model) for _, model in named}
    legacy = models and all(is_keras_2(model) for _, model in models)
    described = describe_models(
        models,
        optimizers,
        lambda model: before.steps_of(training_of(model, optimizers)) if before.had(model) else None,
        before.had,
        (lambda one: before.steps_of([one])) if running else steps_of,
        in_use,
    )
    described = tuple(
        _probed(replace(one, local=id(model) in of_functions), model, look)
        for one, (_, model) in zip(described, models)
    )
    return {
        "keras": _version("tf_keras") if legacy else facts.keras,
        "models": described,
        "datasets": tuple(replace(one, is_new=not before.had(value)) for one, value in found),
        "values": (
            *find_values(
                sorted(names.own_names(namespace), key=lambda pair: not in_use(pair[0])) + kept,
                before.held,
                variables_of(models, optimizers),
            ),
            *describe_left_optimizers(named_optimizers, models, before.held),
            *describe_kept_models([*pairs, *kept], models, before.held),
        ),
        "grown": find_grown([*pairs, *local], before.names),
        "traced": find_traced(pairs, before.traces),
        "sessions": _open_sessions(pairs, before),
        "shadowed": tuple(dict.fromkeys(name for name, _ in others)),
    }


def _in_use(look: _Look) -> Callable[[str], bool]:
    """Give what tells whether a cell that failed uses a name: it writes it, or the code that it reaches does."""
    if look.ended != "failed":
        return lambda _: False
    plain = _plain_python(look.source)
    words = {word for word in _WORD.findall(plain) if word in look.namespace}
    words |= set(used_names(plain, look.namespace))

    def is_used(name: str) -> bool:
        root = _WORD.match(name)
        return root is not None and root[0] in words

    return is_used


def _is_about_a_model(facts: Facts, look: _Look) -> bool:
    """Whether a cell that went well made or trained a model: the remedies for deployment read its text then."""
    return len(look.source) <= _LONGEST_READ and any(
        model.is_new or model.steps > (model.steps_before or 0) or mentions(look.source, model.name)
        for model in facts.models
        if not model.local
    )


def _probed(described: ModelFacts, model: Any, look: _Look) -> ModelFacts:
    """Complete a model with what the remedies ask for that will be asked about it."""
    if look.ended != "well":
        return probed(described, model, "failed")
    is_trained = described.steps > (described.steps_before or 0)
    about = described.is_new or is_trained or mentions(look.source, described.name)
    return probed(described, model, "trained") if about and not described.local else described


def _uses(_: Facts, look: _Look) -> dict[str, Any]:
    namespace, plain = look.namespace, _plain_python(look.source)
    own = dict(names.own_names(namespace))
    written = [name for name in dict.fromkeys(_WORD.findall(plain)) if name in own]
    followed = look.exception is not None or look.ended == "running"
    functions = find_functions(plain, namespace) if followed else ()
    whole = "\n\n".join([plain, *(function.source for function in functions)])
    return {
        "used": used_names(plain, namespace),
        "functions": functions,
        "read_elsewhere": used_by_others(plain, namespace, defined_names(plain)),
        "used_besides": used_by_others(whole, namespace, {f.name for f in functions} | defined_names(plain)),
        "scalars": find_scalars(whole, namespace),
        "repeatable": tuple(name for name in written if is_repeatable(own[name])),
    }


def _running(_: Facts, look: _Look) -> dict[str, Any]:
    batches: list[BatchSeen] = []
    progress, validation = Progress(), None
    for frame in innermost_frames(look.exception) if look.frame is None else (look.frame,):
        batches += observe_all(frame)
        progress = observe_progress(frame) if progress == Progress() else progress
        validation = validation or observe_validation(frame)
    own = error_frames(look.exception) if look.frame is None else user_frames(look.frame)
    return {
        "batches": tuple(dict.fromkeys(batches)),
        "epochs_done": progress.epochs,
        "steps_done": progress.steps,
        "validating": progress.validating,
        "validation": validation,
        "modules": tuple(_modules(own)),
        "inputs": find_inputs(lines_to(look.exception)),
    }


def _modules(own: Iterable[FrameType]) -> Iterator[ModuleFacts]:
    """Read the user's own files whose code led to the error; one that has changed since or is gone is left out."""
    files = dict.fromkeys(frame.f_code.co_filename for frame in own)
    for file in [file for file in files if not is_cell_file(file)][:_MOST_MODULES]:
        try:
            with tokenize.open(file) as opened:
                source = opened.read(_LONGEST_MODULE + 1)
        except (OSError, SyntaxError, UnicodeError):
            continue
        if len(source) <= _LONGEST_MODULE:
            yield ModuleFacts(file, source)


def _open_sessions(pairs: Sequence[tuple[str, Any]], before: Before) -> tuple[str, ...]:
    """Name the open sessions in TensorFlow 1's style that were there before the cell, each once."""
    kinds = Kinds([(("tensorflow.python.client.session", "BaseSession"), "session")])
    return tuple(n for n, one in kinds.pick(pairs) if before.had(one) and stored(one).get("_closed") is False)


def _plain_python(source: str) -> str:
    """Replace what only IPython reads, so that every other line keeps its number."""
    masked = mask(source)
    return masked.python if isinstance(masked, Masked) else ""


def _version(module: str) -> str | None:
    version = getattr(sys.modules.get(module), "__version__", None)
    return version if isinstance(version, str) else None


def _initialised() -> bool:
    context = getattr(sys.modules.get("tensorflow.python.eager.context"), "_context", None)
    return bool(getattr(context, "_initialized", False))


def _policy() -> str:
    policies = sys.modules.get("keras.src.dtype_policies.dtype_policy")
    try:
        return str(policies.dtype_policy().name) if policies is not None else "float32"
    except Exception:
        return "float32"
