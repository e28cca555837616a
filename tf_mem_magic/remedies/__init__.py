"""The remedies: one file each; the folder is the registry.

A remedy is a module with ``KEY``, ``TITLE``, ``EXAMPLES`` and ``propose(context) -> tuple[Proposal | Declined, ...]``.
Adding one is adding its file.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import lru_cache
from typing import cast

from tf_mem_magic.core.proposals import Answer, Context, Declined, Proposal, Remedy

_RANK = {"same results": 0, "same effective batch": 1, "same model, other gradients": 2, "close numerics": 3}
"""How much an edit preserves; between the two that change results, the one whose effect is surer comes first."""


@lru_cache(maxsize=1)
def all_remedies() -> tuple[Remedy, ...]:
    """Import every remedy of the folder, in the order of their file names."""
    names = sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))
    return tuple(cast(Remedy, importlib.import_module(f"{__name__}.{name}")) for name in names)


def propose_all(context: Context) -> Answer:
    """Ask every remedy and rank the answers: proposals before declines, what is made for the cause first, then best.

    A remedy that raises is a decline that says so: the rest of the panel keeps working.
    """
    answers: list[Proposal | Declined] = []
    for remedy in all_remedies():
        try:
            answers.extend(remedy.propose(context))
        except Exception as error:
            reason = f"it failed on this cell ({type(error).__name__}: {error}); please report that"
            answers.append(Declined(remedy.KEY, remedy.TITLE, reason))
    return tuple(sorted(answers, key=_rank))


def _rank(answer: Proposal | Declined) -> tuple[int, int, int, int]:
    if isinstance(answer, Declined):
        return (1, 0, 0, 0)
    rank = _RANK.get(answer.preserves, 9)
    return (0, int(not answer.answers_cause), int(answer.takes_effect == "restart"), rank)
