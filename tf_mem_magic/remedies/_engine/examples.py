"""A remedy's own examples, written as a cell and the answer to expect; what is known besides is the same for all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.facts import Facts
from tf_mem_magic.core.proposals import Context, Example
from tf_mem_magic.core.recording import Cell, Recording

FACTS = Facts(tensorflow="2.21.0", keras="3.15.1", initialised=True)
"""What is known in every example where it says nothing else."""

GPU = Diagnosis("GPU:0")
FIT = "%%tfmem\nmodel.fit(x, y)\n"
"""A cell that trains, for examples in which the cell does not matter."""

RAN_OUT: dict[str, Any] = {"status": "oom"}


def example(
    name: str,
    cell: str,
    expect: str,
    *,
    declined: bool = False,
    diagnosis: Diagnosis | None = GPU,
    recorded: Mapping[str, Any] = RAN_OUT,
    **facts: Any,
) -> Example:
    """Make an example: the remedy changes ``cell`` to ``expect``, or declines with a reason that has ``expect`` in it.

    Parameters
    ----------
    name : str
        What the example shows.
    cell : str
        The source of the cell that ran out of memory.
    expect : str
        The changed cell; for a decline, a part of its reason.
    declined : bool
        Whether it is a decline that is expected.
    diagnosis : Diagnosis, optional
        Why memory ran out; on ``GPU:0`` where nothing is said.
    recorded : mapping of str
        Fields of the recording; it ran out of memory where nothing is said.
    **facts
        Fields of :class:`~tf_mem_magic.core.facts.Facts` that differ from :data:`FACTS`.
    """
    source = Cell(cell)
    return Example(
        name,
        Context(source, Recording(source, **recorded, facts=replace(FACTS, **facts)), diagnosis),
        expect,
        declined,
    )
