"""What the names of a notebook hold as a cell begins: a cheap look, which keeps nothing alive."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tf_mem_magic.facts import names
from tf_mem_magic.facts.growth import count_traces, length_of
from tf_mem_magic.facts.models import built_on, find_models, find_optimizers, steps_of, training_of, variables_of


@dataclass(frozen=True, slots=True)
class Before:
    """What the names held when a cell began: identities, weak references and numbers, never the objects.

    ``names`` maps a name to the value's id and, for containers, its length; ``alive`` an id to a weak reference;
    ``steps`` the id of an optimizer to the steps that it had taken, ``unbuilt`` has those that had no variables yet;
    ``traces`` maps the id of a ``tf.function`` to how often it had been traced.
    """

    names: Mapping[str, tuple[int, int]]
    alive: Mapping[int, weakref.ref[Any]]
    steps: Mapping[int, int]
    traces: Mapping[int, int] = field(default_factory=dict)
    unbuilt: frozenset[int] = frozenset()

    def had(self, value: Any) -> bool:
        """Whether ``value`` is an object that a name reached before the cell; for objects with weak references."""
        reference = self.alive.get(id(value))
        return reference is not None and reference() is value

    def steps_of(self, optimizers: Iterable[Any]) -> int:
        """Give the steps that optimizers had taken; those that were made since had taken none."""
        return max((self.steps.get(id(one), 0) for one in optimizers if self.had(one)), default=0)

    def held(self, name: str, value: Any) -> bool:
        """Whether ``name`` held this value, not grown since, or the value was already there under another name."""
        return self.had(value) or self.names.get(name) == (id(value), length_of(value))


def snapshot(namespace: Mapping[str, Any]) -> Before:
    """Note what the names hold as a cell begins. Cheap, and keeps nothing alive."""
    pairs = names.reachable(namespace) + names.history(namespace)
    models, named = find_models(pairs), [one for _, one in find_optimizers(pairs)]
    optimizers = [*named, *(one for _, model in models for one in training_of(model))]
    alive = {}
    # A cell that builds its model around an earlier one keeps only the variables of that.
    for value in (*(value for _, value in pairs), *variables_of(models, []), *optimizers):
        try:
            alive[id(value)] = weakref.ref(value)
        except Exception:  # most often: its type takes no weak references
            continue
    return Before(
        names={name: (id(value), length_of(value)) for name, value in pairs},
        alive=alive,
        steps={id(one): steps_of(one) for one in optimizers},
        traces=count_traces(pairs),
        unbuilt=frozenset(id(one) for one in optimizers if not built_on(one)),
    )
