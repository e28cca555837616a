"""The probes of live models that the remedies bring: ``probe.py`` in a remedy's folder, found by the folder alone.

A probe is a module with ``WHEN``, after which runs its remedy is asked (``"failed"``: one that failed; ``"trained"``:
one that went well and is about a model), and ``probe(model)``, which gives fields of
:class:`~tf_mem_magic.core.facts.ModelFacts`. What it raises is contained: the fields keep their defaults.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any, Literal, Protocol, cast

from tf_mem_magic import remedies
from tf_mem_magic.core import troubles
from tf_mem_magic.core.facts import ModelFacts

When = Literal["failed", "trained"]


class Probe(Protocol):
    """What the module of a probe has."""

    WHEN: tuple[When, ...]

    def probe(self, model: Any) -> dict[str, Any]:
        """Give fields of ``ModelFacts``."""


@lru_cache(maxsize=1)
def all_probes() -> tuple[Probe, ...]:
    """Import every remedy's probe, in the order of their folders."""
    return tuple(cast(Probe, importlib.import_module(name)) for name in _modules())


def probed(facts: ModelFacts, model: Any, when: When) -> ModelFacts:
    """Complete what is known of a model with what the remedies ask for that are asked after such a run."""
    for one in all_probes():
        if when in one.WHEN:
            try:
                facts = replace(facts, **one.probe(model))
            except Exception as error:
                troubles.note("what a remedy asks of a model is not known", error)
    return facts


def _modules() -> Iterator[str]:
    for entry in pkgutil.iter_modules(remedies.__path__):
        name = f"{remedies.__name__}.{entry.name}"
        if entry.ispkg and not entry.name.startswith("_"):
            inside = {one.name for one in pkgutil.iter_modules(importlib.import_module(name).__path__)}
            if "probe" in inside:
                yield f"{name}.probe"
