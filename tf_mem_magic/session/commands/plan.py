"""``%tfmem plan``: what a model's training will need, before anything ran."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tf_mem_magic.core.options import Command
    from tf_mem_magic.session.session import Session


def show_plan(session: Session, command: Command) -> None:
    """Plan the training of a model in the notebook, and show the table.

    Raises
    ------
    ValueError
        With a sentence for the user: which model is not clear, or why it cannot be planned.
    """
    from tf_mem_magic.api import plan_named
    from tf_mem_magic.session.commands.fit_data import FitData, fit_data
    from tf_mem_magic.views.slots import can_show

    namespace = session.shell.user_ns
    name, model = find_model(namespace, command.names)
    data = find_data(namespace, command.names[1:])
    from_fit = FitData() if data or command.shape else fit_data(name, session.sources(), namespace)
    batch, batch_from = (command.batch, "given") if command.batch else (from_fit.batch, "that of its `fit`")
    planned = plan_named(
        name, model, data or from_fit.data, batch, command.shape, session.pool, batch_from, from_fit.call
    )
    if can_show(session.shell):
        from IPython.display import display

        display(planned)  # type: ignore[no-untyped-call]  # IPython types none of its displays
    else:
        print(planned)


def find_model(namespace: Mapping[str, Any], names: tuple[str, ...]) -> tuple[str, Any]:
    """Find the model that is meant: the one of that name, or the only compiled one.

    Raises
    ------
    ValueError
        With the names that there are.
    """
    from tf_mem_magic.core.options import nearest
    from tf_mem_magic.core.units import named_kind
    from tf_mem_magic.facts.models import find_models
    from tf_mem_magic.facts.names import own_names, reachable

    pairs = reachable(namespace)
    models = find_models(pairs)
    every = dict(pairs)
    if names:
        name = names[0]
        if name in every and any(model is every[name] for _, model in models):
            return name, every[name]
        known = [one for one, _ in models]
        if name in every:
            raise ValueError(f"`{name}` is {named_kind(every[name])}, no Keras model{_there(known)}")
        guess = nearest(name, known)
        raise ValueError(f"there is no `{name}`" + (f"; did you mean {guess}?" if guess else _there(known)))
    own = find_models(own_names(namespace))
    compiled = [(one, model) for one, model in own if _is_compiled(model)]
    if len(compiled) == 1:
        return compiled[0]
    if compiled:
        raise ValueError(f"which model? Compiled are {', '.join(one for one, _ in compiled)}: %tfmem plan NAME")
    if own:
        raise ValueError(f"no model is compiled yet{_there([one for one, _ in own])}")
    raise ValueError("no name holds a Keras model yet: make and compile it first")


def find_data(namespace: Mapping[str, Any], names: tuple[str, ...]) -> tuple[tuple[str, Any], ...]:
    """Find the data by name.

    Raises
    ------
    ValueError
        If a name holds nothing, or there are more than inputs, targets and sample weights.
    """
    from tf_mem_magic.core.options import nearest

    if len(names) > 3:
        raise ValueError("data are at most three names: inputs, targets and sample weights")
    for name in names:
        if name not in namespace:
            guess = nearest(name, [one for one in namespace if not one.startswith("_")])
            raise ValueError(f"there is no `{name}`" + (f"; did you mean {guess}?" if guess else ""))
    return tuple((name, namespace[name]) for name in names)


def _is_compiled(model: Any) -> bool:
    """Whether a model was compiled; one of Keras 2 says so under another name."""
    return bool(getattr(model, "compiled", False) or getattr(model, "_is_compiled", False))


def _there(known: list[str]) -> str:
    return f"; models are {', '.join(known)}" if known else "; no name holds a Keras model"
