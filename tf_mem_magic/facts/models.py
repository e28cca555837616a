"""Keras models: what they are made of and how many bytes their variables take. No value is ever copied."""

from __future__ import annotations

import inspect
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from math import prod
from typing import Any, Literal

from tf_mem_magic.core.facts import ModelFacts, NamedValue
from tf_mem_magic.facts.kinds import Kinds, classes_of, is_a
from tf_mem_magic.facts.names import stored

_MODELS = (
    (("keras.src.models.model", "Model"), "model"),
    (("tf_keras.src.engine.training", "Model"), "model"),
)
_OPTIMIZERS = (
    (("keras.src.optimizers.base_optimizer", "BaseOptimizer"), "optimizer"),
    (("tf_keras.src.optimizers.optimizer", "_BaseOptimizer"), "optimizer"),
)
_CALLBACKS = (
    (("keras.src.callbacks.callback", "Callback"), "callback"),
    (("tf_keras.src.callbacks", "Callback"), "callback"),
)


def find_models(pairs: Iterable[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Find the distinct Keras models among named values, each under the first name that holds it."""
    return Kinds(_MODELS).pick(pairs)


def is_keras_2(model: Any) -> bool:
    """Whether a model belongs to Keras 2 (the package tf_keras)."""
    return any(base.__module__.partition(".")[0] == "tf_keras" for base in type(model).__mro__)


def find_optimizers(pairs: Iterable[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Find the distinct Keras optimizers among named values (a custom loop holds its own)."""
    return Kinds(_OPTIMIZERS).pick(pairs)


def optimizer_names(optimizers: Iterable[Any] = ()) -> frozenset[str]:
    """Give the names of optimizers, and those that Keras's classes of them have by default.

    An optimizer's name is the scope of its operations; one that only a function holds has most often its default.
    """
    held = [*optimizers, *(one for o in optimizers if (one := stored(o).get("inner_optimizer")) is not None)]
    named = {str(getattr(one, "name", "")) for one in held}
    ahead = list(classes_of(*(place for place, _ in _OPTIMIZERS)))
    while ahead:
        cls = ahead.pop()
        ahead += cls.__subclasses__()
        name = inspect.signature(cls).parameters.get("name") if "__init__" in vars(cls) else None
        named |= {name.default} if name is not None and isinstance(name.default, str) else {cls.__name__}
    return frozenset(named - {""})


def optimizers_of(model: Any) -> list[Any]:
    """List the optimizers that a model holds: its own, or a GAN's ``d_optimizer`` and ``g_optimizer``."""
    return [held for _, held in find_optimizers(stored(model).items())]


def training_of(model: Any, others: Iterable[Any] = ()) -> list[Any]:
    """List the optimizers that train a model: those it holds, and those of ``others`` that were built on it."""
    return [*optimizers_of(model), *_training(model, others)]


def steps_of(optimizer: Any) -> int:
    """Read how many steps an optimizer has taken; 0 where that cannot be read."""
    try:
        return int(optimizer.iterations)
    except Exception:
        return 0


def _training(model: Any, optimizers: Iterable[Any]) -> list[Any]:
    """Pick the optimizers outside the model that were built on its variables."""
    try:
        mine = {id(v) for v in model.trainable_variables}
    except Exception:
        return []
    return [one for one in optimizers if any(id(v) in mine for v in built_on(one))]


def built_on(optimizer: Any) -> list[Any]:
    """List the variables that an optimizer was built on; none: it is not built yet."""
    held: Any = stored(optimizer).get("_trainable_variables")
    return list(held) if is_a(held, (list, tuple)) else []


def describe_models(
    models: list[tuple[str, Any]],
    optimizers: list[Any],
    steps_before: Callable[[Any], int | None],
    existed: Callable[[Any], bool],
    count_steps: Callable[[Any], int],
    in_use: Callable[[str], bool] = lambda _: False,
) -> tuple[ModelFacts, ...]:
    """Describe models; a variable that several of them share is counted once, so that sums are true.

    It counts with the largest of those that the cell uses (``in_use`` tells by their names), else with the largest:
    what a model in use shares with another is in use.
    """
    counted: set[int] = set()
    order = sorted(models, key=lambda pair: (not in_use(pair[0]), -len(_variables(pair[1]))))
    facts = {}
    for name, model in order:
        early = _bytes_once((v for v in _variables(model) if existed(v)), set(counted))
        described = _describe(name, model, optimizers, steps_before(model), counted)
        steps = max(map(count_steps, training_of(model, optimizers)), default=0)
        facts[id(model)] = replace(described, earlier_bytes=early, steps=steps)
    return tuple(facts[id(model)] for _, model in models)


def variables_of(models: list[tuple[str, Any]], optimizers: list[Any]) -> list[Any]:
    """List the variables of models and of the optimizers that they or names hold."""
    owners = [
        *(model for _, model in models),
        *optimizers,
        *(one for _, model in models for one in optimizers_of(model)),
    ]
    return [variable for owner in owners for variable in _variables(owner)]


def describe_left_optimizers(
    optimizers: list[tuple[str, Any]], models: list[tuple[str, Any]], is_earlier: Callable[[str, Any], bool]
) -> tuple[NamedValue, ...]:
    """Describe the optimizers of models that are gone: they hold their own variables and the models' as well."""
    every = [one for _, one in optimizers]
    used = {id(one) for _, model in models for one in training_of(model, every)}
    found, counted = [], set[int]()
    for name, one in optimizers:
        trained = built_on(one)
        if id(one) not in used and trained:
            variables = [*_variables(one), *trained]
            device = next((d for d in map(variable_device, variables) if d), None)
            origin: Literal["earlier", "cell"] = "earlier" if is_earlier(name, one) else "cell"
            found.append(NamedValue(name, _bytes_once(variables, counted), "optimizer", device, origin))
    return tuple(found)


def describe_kept_models(
    pairs: Iterable[tuple[str, Any]], models: list[tuple[str, Any]], is_earlier: Callable[[str, Any], bool]
) -> tuple[NamedValue, ...]:
    """Describe callbacks that keep a model alive which no name holds: a ``History`` refers to what ``fit`` trained."""
    known = {id(model) for _, model in models}
    found, counted = [], {id(v) for _, model in models for v in _variables(model)}
    for name, one in Kinds(_CALLBACKS).pick(pairs):
        for _, model in find_models(stored(one).items()):
            if id(model) in known:
                continue
            variables = [*_variables(model), *(v for held in optimizers_of(model) for v in _variables(held))]
            device = next((d for d in map(variable_device, variables) if d), None)
            origin: Literal["earlier", "cell"] = "earlier" if is_earlier(name, one) else "cell"
            kind = f"{type(one).__name__} and its model"
            held = _bytes_once(variables, counted)
            found.append(NamedValue(name, held, kind, device, origin, keeps_model=True))
    return tuple(value for value in found if value.bytes)


def _describe(name: str, model: Any, others: list[Any], before: int | None, counted: set[int]) -> ModelFacts:
    optimizers = training_of(model, others)
    weights = _variables(model)
    weight_bytes = _bytes_once(weights, counted)
    slots = [v for one in optimizers for v in _variables(one)]
    first = _inner(optimizers[0]) if optimizers else None
    layers = _layers(model)
    eager = _attribute(model, "_run_eagerly", bool) or _functions_run_eagerly()
    return ModelFacts(
        name=name,
        layers=tuple(dict.fromkeys(type(layer).__name__ for layer in layers)),
        optimizer=type(first).__name__ if first is not None else None,
        schedule=_schedule(first),
        dtype_policy=_policy(model, layers),
        jit_compile=False if eager else _attribute(model, "_jit_compile", bool),
        run_eagerly=bool(eager),
        weight_bytes=weight_bytes,
        optimizer_bytes=_bytes_once(slots, counted),
        steps_before=before,
        device=next((d for d in map(variable_device, weights) if d), None),
        trainable_bytes=_trainable_bytes(model),
        accumulates=max((_accumulates(one) for one in optimizers), default=None),
    )


def _accumulates(optimizer: Any) -> int:
    steps = stored(_inner(optimizer)).get("gradient_accumulation_steps")
    return steps if isinstance(steps, int) else 1


def _trainable_bytes(model: Any) -> int | None:
    try:
        return _bytes_once(model.trainable_variables, set())
    except Exception:
        return None


def _inner(optimizer: Any) -> Any:
    return stored(optimizer).get("inner_optimizer", optimizer)


def _schedule(optimizer: Any) -> str | None:
    rate = stored(optimizer).get("_learning_rate") if optimizer is not None else None
    is_schedule = any(base.__name__ == "LearningRateSchedule" for base in type(rate).__mro__)
    return type(rate).__name__ if is_schedule else None


def _attribute(model: Any, name: str, kind: type) -> Any:
    value = stored(model).get(name)
    return value if is_a(value, kind) else None


def _functions_run_eagerly() -> bool:
    module = sys.modules.get("tensorflow.python.eager.polymorphic_function.eager_function_run")
    return bool(getattr(module, "RUN_FUNCTIONS_EAGERLY", False))


def _layers(model: Any) -> list[Any]:
    try:
        return [layer for layer in model._flatten_layers() if layer is not model]
    except Exception:
        return []


def _policy(model: Any, layers: list[Any]) -> str:
    """Give the mixed policy that layers with weights follow, if any does; else what most follow, or the model's own."""
    names: Counter[str] = Counter()
    for layer in layers:
        try:
            if layer.weights and not layer._flatten_layers(include_self=False):
                names[layer.dtype_policy.name] += 1
        except Exception:
            continue
    ranked = [name for name, _ in names.most_common()]
    if ranked:
        return next((name for name in ranked if name.startswith("mixed_")), ranked[0])
    return str(getattr(getattr(model, "dtype_policy", None), "name", "float32"))


def _variables(owner: Any) -> list[Any]:
    """List the variables of a model or an optimizer, whichever Keras it comes from."""
    try:
        held = owner.weights if hasattr(owner, "weights") else owner.variables
        return list(held() if callable(held) and not isinstance(held, list) else held)
    except Exception:
        return []


def _bytes_once(variables: Iterable[Any], counted: set[int]) -> int:
    total = 0
    for variable in variables:
        if id(variable) not in counted:
            counted.add(id(variable))
            total += array_bytes(variable)
    return total


def array_bytes(value: Any) -> int:
    """Compute the bytes of a tensor, variable or array from its shape and dtype; 0 where they cannot be told."""
    try:
        return prod(int(n) for n in value.shape) * dtype_bytes(value.dtype)
    except Exception:
        return 0


def dtype_bytes(dtype: Any) -> int:
    """Give the bytes of one element of a dtype: TensorFlow's, NumPy's, or Keras's name of one."""
    size = getattr(dtype, "itemsize", None) or getattr(dtype, "size", None)
    if isinstance(size, int):
        return size
    name = str(getattr(dtype, "name", dtype))
    bits = re.search(r"\d+", name)
    return max(1, int(bits.group()) // 8) if bits else int(name == "bool")


def variable_device(value: Any) -> str | None:
    """Give TensorFlow's short name of the device that holds a tensor or variable (``"GPU:0"``)."""
    try:
        inner = getattr(value, "_value", None)
        text = getattr(value if inner is None else inner, "device", None)
        found = re.search(r"(CPU|GPU|TPU|XLA_\w+):(\d+)", text, re.IGNORECASE) if isinstance(text, str) else None
    except Exception:
        return None
    return f"{found.group(1).upper()}:{found.group(2)}" if found else None
