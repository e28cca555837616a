"""Sphinx builds the documentation: ``python -m sphinx -W docs docs/_build/html``."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
GENERATED = HERE / "_generated"
sys.path.insert(0, str(ROOT))

project = "tf_mem_magic"
author = "the tf_mem_magic developers"
copyright = "2026, the tf_mem_magic developers"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "off"
autodoc_member_order = "bysource"
autodoc_typehints = "none"
napoleon_google_docstring = False
napoleon_use_ivar = True
templates_path: list[str] = []
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "tf_mem_magic"
suppress_warnings = ["myst.header", "mystnb.unknown_mime_type"]


def generate() -> None:
    """Write the pages that have their source elsewhere: the quickstart, the options, the commands, the glossary."""
    from tf_mem_magic.core.options import cell_parser, line_parser
    from tf_mem_magic.report.glossary import MEANINGS

    GENERATED.mkdir(exist_ok=True)
    shutil.copy(ROOT / "notebooks" / "quickstart.ipynb", GENERATED / "quickstart.ipynb")
    options = "\n".join(_option(a) for a in cell_parser()._actions)
    (GENERATED / "options.md").write_text(f"# Options of `%%tfmem`\n\n{options}", encoding="utf-8")
    verbs = next(a for a in line_parser()._actions if a.choices)
    told = {c.dest: c.help or "" for c in verbs._choices_actions}  # type: ignore[attr-defined]
    commands = "\n".join(_command(name, parser, told.get(name, "")) for name, parser in verbs.choices.items())
    (GENERATED / "commands.md").write_text(f"# Commands of `%tfmem`\n\n{commands}", encoding="utf-8")
    words = "\n\n".join(f"{term}\n: {meaning}" for term, meaning in sorted(MEANINGS.items()))
    (GENERATED / "glossary.md").write_text(f"# Glossary\n\n{words}\n", encoding="utf-8")


def _option(action: object) -> str:
    names = ", ".join(f"`{name}`" for name in action.option_strings)  # type: ignore[attr-defined]
    value = action.metavar or ("" if action.nargs == 0 else action.dest.upper())  # type: ignore[attr-defined]
    if action.choices:  # type: ignore[attr-defined]
        value = "|".join(map(str, action.choices))  # type: ignore[attr-defined]
    told = _plain(action.help, action.default)  # type: ignore[attr-defined]
    return f"{names}{f' *{value}*' if value else ''}\n: {told}\n"


def _command(name: str, parser: object, told: str) -> str:
    usage = " ".join(parser.format_usage().removeprefix("usage: ").split())  # type: ignore[attr-defined]
    return f"`{usage.replace('%tfmem [-h]', '%tfmem').replace(' [-h]', '')}`\n: {_plain(told, None)}\n"


def _plain(text: str | None, default: object) -> str:
    return (text or "").replace("%(default)s", str(default)).replace("%%", "%")


generate()
