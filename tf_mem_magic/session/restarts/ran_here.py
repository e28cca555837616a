"""What has become of a plan's cells in this kernel: which ran well in it, and what each is now.

Cells with a name are known by it. One without (a console, a terminal, nbclient) is known by its text: what ran since,
and is an edited version of it, counts as that cell.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tf_mem_magic.notebook.read_first import assigned_names, bound_anew
from tf_mem_magic.notebook.rerun.versions import is_version, newest_version, version_among
from tf_mem_magic.notebook.text.cell import PythonCell, read_cell
from tf_mem_magic.session.restarts.notebook_file import saved_cells
from tf_mem_magic.session.restarts.plans import Plan, this_notebook

if TYPE_CHECKING:
    from tf_mem_magic.session.restarts.replaying import Replaying
    from tf_mem_magic.session.session import Session
    from tf_mem_magic.session.state import RanCell


@dataclass(frozen=True, slots=True)
class PlannedCell:
    """A cell of a plan.

    Attributes
    ----------
    cell_id : str
        Its name; empty: none is known.
    source : str
        Its text then.
    others : tuple of str
        The texts of the plan's other cells.
    ids : frozenset of str
        The names of all cells of the plan.
    time : float
        When the plan was made (Unix time).
    """

    cell_id: str
    source: str
    others: tuple[str, ...] = ()
    ids: frozenset[str] = frozenset()
    time: float = 0.0


def planned_cell(plan: Plan, number: int) -> PlannedCell:
    """Give the cell of that place in the plan's list."""
    last = (plan.proposal.replaces, plan.proposal.source)
    others = (one.cell.source for place, one in enumerate(plan.replay) if place != number)
    cell = plan.replay[number].cell
    return PlannedCell(cell.cell_id, cell.source, (*others, *last), _ids(plan), plan.time)


def last_cell(plan: Plan) -> PlannedCell:
    """Give the cell of the remedy, as it was before."""
    others = tuple(one.cell.source for one in plan.replay)
    return PlannedCell(plan.cell_id or "", plan.proposal.replaces, others, _ids(plan), plan.time)


def _ids(plan: Plan) -> frozenset[str]:
    return frozenset({one.cell.cell_id for one in plan.replay} | {plan.cell_id or ""}) - {""}


def newest_run(session: Session, cell: PlannedCell) -> RanCell | None:
    """Give the newest run of a cell that the extension has seen in this kernel; None: it saw none."""
    runs = session.ran_cells
    if cell.cell_id:
        return next((ran for ran in reversed(runs) if ran.cell_id == cell.cell_id), None)
    place = newest_version([ran.source for ran in runs], cell.source, cell.others)
    return None if place is None else runs[place]


def ran_unseen(session: Session, cell: PlannedCell, source: str) -> bool:
    """Tell whether a cell ran well while the extension was not there yet; ``source`` is what it is now.

    IPython's history has its text, since version 9 also whether it failed. Before that it counts as run only where
    something shows it.
    """
    history = session.shell.history_manager
    seen = {ran.count for ran in session.ran_cells} | {session.shell.execution_count}
    unseen = [(n, text) for n, text in enumerate(history.input_hist_raw) if text.strip() and n not in seen]
    texts = [text for _, text in unseen]
    if cell.cell_id:
        place = next((at for at in reversed(range(len(texts))) if texts[at].strip() == source.strip()), None)
    else:
        place = newest_version(texts, cell.source, cell.others)
    if place is None:
        return False
    number, text = unseen[place]
    failed = getattr(history, "exceptions", None)
    if failed is not None:
        return number not in failed
    last_error = session.error_before if number != session.loaded_at else getattr(sys, "last_value", None)
    return last_error is None or _shows_its_end(session, text, texts)


def as_it_is_now(session: Session, replaying: Replaying | None, cell: PlannedCell, *, runs: bool = True) -> str | None:
    """Give a cell's source: as the page has it; else as its file has it or as it last ran here, whichever is newer.

    None where it is no longer in the notebook. ``runs``: whether what ran here counts for a cell without a name.
    """
    if replaying is not None and replaying.page_cells is not None:
        return _among(replaying.page_cells, cell)
    ran = newest_run(session, cell) if runs or cell.cell_id else None
    saved = saved_cells(this_notebook(session.shell))
    if saved is not None and (ran is None or saved.time >= ran.time):
        found = _among(saved.by_id, cell)
        if found is None and ran is None and saved.time > cell.time:
            return None
        if found is not None and (cell.cell_id or ran is None or found != cell.source):
            return found
    return ran.source if ran is not None else cell.source


def is_last_cell(plan: Plan, text: str) -> bool:
    """Tell whether a cell without a name is that of the plan's remedy, edited."""
    last = last_cell(plan)
    return any(is_version(text, one, last.others) for one in (plan.proposal.source, last.source))


def _among(cells: Mapping[str, str], cell: PlannedCell) -> str | None:
    """Give what the notebook's cells have for this one; None where it is none of them.

    A cell that was copied and pasted has a new name and the same text. An old notebook gives all its cells new names
    each time it is opened: there, edited texts count too.
    """
    if cell.cell_id and cell.ids & set(cells):
        same = (text for text in cells.values() if text.strip() == cell.source.strip())
        return cells[cell.cell_id] if cell.cell_id in cells else next(same, None)
    return version_among(cells.values(), cell.source, cell.others)


def _shows_its_end(session: Session, text: str, texts: list[str]) -> bool:
    """Tell whether what is there shows that a cell ran to its end, in a kernel in which some cell failed.

    Its last statement bound a name that no other cell binds.
    """
    read = read_cell(text)
    if not isinstance(read, PythonCell) or not read.tree.body or texts.count(text) > 1:
        return False
    others = (assigned_names(other) for other in texts if other != text)
    shown = bound_anew(read.tree.body[-1:]).difference(*others)
    return bool(shown) and shown <= set(session.shell.user_ns)
