"""The ``%tfmem`` commands."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tf_mem_magic.core.options import Command
    from tf_mem_magic.session.session import Session


class RefusedCommandError(Exception):
    """A command that others build on was refused: the cell ends as failed; what there is to say is said already."""

    def _render_traceback_(self) -> list[str]:
        return []


def run_command(session: Session, command: Command) -> None:
    """Carry out one command; what cannot be done is said in one line on stderr.

    Raises
    ------
    RefusedCommandError
        If the cells after it build on what was refused.
    """
    try:
        _COMMANDS[command.verb](session, command)
    except ValueError as error:
        print(f"%tfmem {command.verb}: {error}", file=sys.stderr)
        if command.verb in _BUILT_ON:
            raise RefusedCommandError(str(error)) from None


def _on(session: Session, _: Command) -> None:
    session.always_on = True
    print("Every cell is watched now; a report appears where there is something to say. %tfmem off ends it.")


def _off(session: Session, _: Command) -> None:
    session.always_on = False
    print("Only cells that start with %%tfmem are watched now.")


def _status(session: Session, _: Command) -> None:
    from tf_mem_magic.session.commands.status import status_text

    print(status_text(session))


def _last(session: Session, command: Command) -> None:
    from tf_mem_magic.session.commands.reports import show_last

    show_last(session, command.count, command.everything)


def _history(session: Session, _: Command) -> None:
    from tf_mem_magic.session.commands.reports import history_text

    print(history_text(session))


def _apply(session: Session, command: Command) -> None:
    from tf_mem_magic.session.commands.reports import apply

    apply(session, command.names[0])


def _free(session: Session, command: Command) -> None:
    from tf_mem_magic.session.commands.status import free_text

    print(free_text(session, command.names))


def _plan(session: Session, command: Command) -> None:
    from tf_mem_magic.session.commands.plan import show_plan

    show_plan(session, command)


def _budget(_: Session, command: Command) -> None:
    from tf_mem_magic.session.commands.budget import set_budget

    print(set_budget(command.size or 0))


def _doctor(session: Session, _: Command) -> None:
    from tf_mem_magic.session.commands.doctor import doctor_text

    print(doctor_text(session))


def _resume(session: Session, command: Command) -> None:
    from tf_mem_magic.session.restarts.resume import forget, resume

    name = next(iter(command.names), "")
    print(forget(session, name) if command.forget else resume(session, name, skip=command.skip))


_BUILT_ON = ("resume",)
"""Commands of which a script must know that they were refused."""

_COMMANDS: dict[str, Callable[[Session, Command], None]] = {
    "on": _on,
    "off": _off,
    "status": _status,
    "last": _last,
    "history": _history,
    "apply": _apply,
    "free": _free,
    "plan": _plan,
    "budget": _budget,
    "doctor": _doctor,
    "resume": _resume,
}
