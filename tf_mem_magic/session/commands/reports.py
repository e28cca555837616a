"""``%tfmem last``, ``history`` and ``apply``: the reports so far, and their numbered changes."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tf_mem_magic.api import Report
    from tf_mem_magic.core.proposals import Proposal
    from tf_mem_magic.session.session import Session


def show_last(session: Session, count: int, everything: bool) -> None:
    """Show the last reports again, oldest first; ``everything``: as text with every change unfolded.

    Raises
    ------
    ValueError
        With a sentence for the user: there is none yet.
    """
    from tf_mem_magic.report.text import render_text
    from tf_mem_magic.views.slots import can_show

    for report in _kept(session)[-count:]:
        if everything:
            width = shutil.get_terminal_size().columns
            print(render_text(report.outcome, width, getattr(sys.stdout, "encoding", None), everything=True))
        elif can_show(session.shell):
            from IPython.display import display

            from tf_mem_magic.report.bundle import whole_bundle

            # Whole: a report that its own run has shown stands for itself in one line only.
            display(whole_bundle(report.outcome), raw=True)  # type: ignore[no-untyped-call]  # IPython types none of its displays
        else:
            print(report)


def history_text(session: Session) -> str:
    """List the reports so far, oldest first, a line each.

    Raises
    ------
    ValueError
        With a sentence for the user: there is none yet.
    """
    from tf_mem_magic.report.sentences import one_line

    reports = _kept(session)
    width = len(str(len(reports)))
    return "\n".join(f"{number:>{width}}  {one_line(r.outcome)}" for number, r in enumerate(reports, 1))


def apply(session: Session, which: str) -> None:
    """Take a change of the last report, by its number or its key, and run the cell again.

    Raises
    ------
    ValueError
        With a sentence for the user: nothing of that name is offered, or it cannot be run from here.
    """
    report = _kept(session)[-1]
    proposal = find_choice(report, which)
    from tf_mem_magic.session.restarts.restart import RestartPlannedError

    try:
        report.rerun(proposal.key)
    except RestartPlannedError as planned:
        print(planned)
    except (LookupError, RuntimeError, OSError) as error:
        raise ValueError(str(error)) from None


def find_choice(report: Report, which: str) -> Proposal:
    """Find what a report numbers ``which``, or calls by that key.

    Raises
    ------
    ValueError
        With the numbers and keys that there are, and the one that was probably meant.
    """
    from tf_mem_magic.core.options import nearest
    from tf_mem_magic.report.view import view_of

    choices = view_of(report.outcome).numbered
    found = next((c for c in choices if which in (str(c.number), c.proposal.key)), None)
    if found is not None:
        return found.proposal
    if not choices:
        raise ValueError("the last report offers no change")
    meant = nearest(which, [choice.proposal.key for choice in choices])
    listed = ", ".join(f"{choice.number} {choice.proposal.key}" for choice in choices)
    guess = f"; did you mean {meant}?" if meant else ""
    raise ValueError(
        f"{which!r} is not offered{guess} Offered: {listed}"
        if guess
        else f"{which!r} is not offered. Offered: {listed}"
    )


def _kept(session: Session) -> list[Report]:
    if not session.reports:
        raise ValueError("no cell was watched yet: start one with %%tfmem")
    return [*session.reports]
