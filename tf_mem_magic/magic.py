"""The magics: ``%load_ext tf_mem_magic`` puts them in, ``%unload_ext`` takes them out."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from tf_mem_magic.core.tag import strip_tag

if TYPE_CHECKING:
    from tf_mem_magic.session.hooks import Hooks
    from tf_mem_magic.session.session import Session

_ATTRIBUTE = "_tf_mem_magic"


class Extension:
    """What loading put into one shell, so that unloading can take exactly that out."""

    def __init__(self, shell: Any) -> None:
        from tf_mem_magic.session.hooks import Hooks
        from tf_mem_magic.session.session import Session

        self.shell = shell
        self.session: Session = Session(shell)
        self.hooks: Hooks = Hooks(self.session)
        self._hidden: dict[str, Any] = {}

    def install(self) -> None:
        """Add the input transformer, the hooks and the two magics."""
        shell = self.shell
        shell.input_transformers_cleanup.append(_transformer)
        shell.events.register("pre_run_cell", self.hooks.pre)
        shell.events.register("post_run_cell", self.hooks.post)
        for kind, function in (("cell", self._cell_magic), ("line", self._line_magic)):
            self._hidden[kind] = shell.magics_manager.magics[kind].get("tfmem")
            shell.register_magic_function(function, kind, "tfmem")

    def remove(self) -> None:
        """Take out what :meth:`install` added; runs under way end without a report."""
        shell = self.shell
        if _transformer in shell.input_transformers_cleanup:
            shell.input_transformers_cleanup.remove(_transformer)
        for event, function in (("pre_run_cell", self.hooks.pre), ("post_run_cell", self.hooks.post)):
            try:
                shell.events.unregister(event, function)
            except ValueError:
                continue
        for kind, hidden in self._hidden.items():
            table = shell.magics_manager.magics[kind]
            if hidden is None:
                table.pop("tfmem", None)
            else:
                table["tfmem"] = hidden
        self.hooks.close()
        self.session.close()

    def _line_magic(self, line: str) -> None:
        """Run a ``%tfmem`` command; ``%tfmem -h`` lists them."""
        from tf_mem_magic.core.options import HelpRequestedError, OptionError, parse_line
        from tf_mem_magic.session.commands.dispatch import run_command

        try:
            command = parse_line(line)
        except HelpRequestedError as requested:
            print(requested)
        except OptionError as error:
            print(error, file=sys.stderr)
        else:
            run_command(self.session, command)

    def _cell_magic(self, line: str, cell: str) -> None:
        """Run the cell and report on its memory; ``%%tfmem -h`` lists the options.

        Only reached where the input transformer was bypassed: normally the cell runs as if untagged.
        """
        result = self.shell.run_cell(f"%%tfmem {line}\n{cell}", store_history=False)
        result.raise_error()


def _transformer(lines: list[str]) -> list[str]:
    return strip_tag(lines)


# IPython skips transformers with side effects when it asks whether a cell is complete: so a terminal still sees a
# cell magic there, and waits for the blank line that ends one.
_transformer.has_side_effects = True  # type: ignore[attr-defined]


def load(shell: Any) -> None:
    """Put the extension into ``shell``; harmless where it is there already."""
    if getattr(shell, _ATTRIBUTE, None) is not None:
        return
    if sys.platform == "win32":
        print("tf_mem_magic runs on Linux and macOS, on Windows inside WSL. Nothing was loaded.", file=sys.stderr)
        return
    extension = Extension(shell)
    extension.install()
    setattr(shell, _ATTRIBUTE, extension)
    _greet(extension.session)


def unload(shell: Any) -> None:
    """Take the extension out of ``shell``; harmless where it is not there."""
    extension: Extension | None = getattr(shell, _ATTRIBUTE, None)
    if extension is not None:
        extension.remove()
        delattr(shell, _ATTRIBUTE)


def _greet(session: Session) -> None:
    """Say what the last kernel of this notebook left: a plan to resume, or a recording of its death."""
    from tf_mem_magic.core import troubles
    from tf_mem_magic.session.earlier_kernel import found

    try:
        for sentence in found(session):
            print(sentence)
    except Exception as error:  # a file that nobody has foreseen must not keep the extension from loading
        troubles.tell("could not read what an earlier kernel left", error)
