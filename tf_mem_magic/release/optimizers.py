"""Optimizers of earlier cells: those that a run has built for models which are made anew begin anew with them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from tf_mem_magic.core import troubles
from tf_mem_magic.facts.models import built_on, find_models, find_optimizers, variables_of
from tf_mem_magic.facts.names import reachable, stored

if TYPE_CHECKING:
    from tf_mem_magic.facts.before import Before


def built_for_what_goes(namespace: Mapping[str, Any], before: Before, names: Collection[str]) -> list[tuple[str, Any]]:
    """Find the optimizers from before a run that it has built for nothing but models which go with ``names``.

    Keras builds an optimizer once, for the variables of one model, and refuses those of another: running the cell
    again, which makes the model anew, would fail. One that was built before, or for a model that stays, is left alone.

    Parameters
    ----------
    namespace : mapping of str to object
        The names of the notebook, those that go included.
    before : Before
        What they held as the run began.
    names : collection of str
        What is let go.

    Returns
    -------
    list of (str, optimizer)
        The name that holds each, and the optimizer.
    """
    known = find_optimizers(reachable(namespace))
    mine = [(n, one) for n, one in known if before.had(one) and id(one) in before.unbuilt and built_on(one)]
    if not mine:
        return []
    going = _variables({name: value for name, value in namespace.items() if name in names})
    going -= _variables({name: value for name, value in namespace.items() if name not in names})
    return [(name, one) for name, one in mine if going.issuperset(map(id, built_on(one)))]


def _variables(namespace: Mapping[str, Any]) -> set[int]:
    return {id(one) for one in variables_of(find_models(reachable(namespace)), [])}


def begin_anew(found: list[tuple[str, Any]]) -> tuple[str, ...]:
    """Put optimizers back to how they are made, with the settings that they have; give the names of those that are.

    The object stays the same, so that whatever holds it goes on with it.
    """
    done = []
    for name, one in found:
        try:
            config = one.get_config()
            schedule = stored(one).get("_learning_rate")
            if callable(getattr(schedule, "get_config", None)) and "learning_rate" in config:
                config["learning_rate"] = schedule
            fresh = stored(type(one).from_config(config))
        except Exception as problem:  # most often a class of the notebook's own that cannot be made of its settings
            troubles.note(f"the optimizer `{name}` could not be made to begin anew", problem)
            continue
        held = stored(one)
        held.clear()
        held.update(fresh)
        done.append(name)
    return tuple(done)
