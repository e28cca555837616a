"""Pieces of HTML that every page of ours is made of: escaped text, sentences with terms and code, folds, code to copy.

All styles stand in the elements: a saved notebook has no style sheet, and sanitisers drop one.
"""

from __future__ import annotations

import html
import re

from tf_mem_magic.report.glossary import MEANINGS
from tf_mem_magic.report.printable import visible

FAINT = "rgba(127,127,127,0.14)"
LINE = "1px solid rgba(127,127,127,0.4)"
MONO = "font-family:var(--jp-code-font-family,Menlo,Consolas,'DejaVu Sans Mono',monospace);font-size:12px"
CODE = f"{MONO};background:{FAINT};color:inherit;padding:1px 4px"
_PRE = (
    f"margin:4px 0;padding:6px 8px;{MONO};line-height:1.4;white-space:pre-wrap;overflow-wrap:anywhere;"
    f"background:{FAINT};color:inherit;border-radius:3px"
)
_TERM = "text-decoration:underline dotted;cursor:help;border:0"
_TINTS = {"+": "background:rgba(60,160,80,0.22);font-weight:600", "-": "background:rgba(217,54,47,0.16)"}
_CODE_OR_TERM = re.compile(
    r"`([^`]+)`|\b(" + "|".join(sorted(map(re.escape, MEANINGS), key=len, reverse=True)) + r")\b", re.I
)
_MEANING = re.compile(r'<abbr title="([^"]*)"[^>]*>([^<]*)</abbr>')


def escaped(text: str) -> str:
    """Make ``text`` safe to stand in HTML, as text and as an attribute; control characters become visible."""
    return html.escape(visible(text))


def prose(text: str) -> str:
    """Give a sentence as HTML: what stands in backticks is code, a term of the glossary has its meaning to hover."""
    parts, end = [], 0
    for match in _CODE_OR_TERM.finditer(text):
        parts.append(escaped(text[end : match.start()]))
        code, term = match.groups()
        if code is not None:
            parts.append(code_words(code))
        else:
            parts.append(f'<abbr title="{escaped(MEANINGS[term.lower()])}" style="{_TERM}">{escaped(term)}</abbr>')
        end = match.end()
    return "".join((*parts, escaped(text[end:])))


def plain(text: str) -> str:
    """Give a sentence for where nothing can be marked up, such as a button: without its backticks."""
    return re.sub(r"`([^`]+)`", r"\1", text)


def explained_once(body: str) -> str:
    """Keep the meaning of each term only where it first stands, so that the page stays calm."""
    seen: set[str] = set()

    def first(match: re.Match[str]) -> str:
        if match.group(1) in seen:
            return match.group(2)
        seen.add(match.group(1))
        return match.group(0)

    return _MEANING.sub(first, body)


def code_words(code: str) -> str:
    """Give a few words of code inside a sentence."""
    return f'<code style="{CODE}">{escaped(code)}</code>'


def line(body: str, style: str = "") -> str:
    """Give HTML as a line of its own; empty where there is nothing in it."""
    return f'<div style="margin:2px 0{";" + style if style else ""}">{body}</div>' if body else ""


def folded(summary: str, body: str, about: str = "") -> str:
    """Fold ``body`` behind a line; ``about`` makes its name unique for who hears it. Empty without a body."""
    name = f' aria-label="{escaped(plain(f"{summary}: {about}"))}"' if about else ""
    return fold(prose(summary), body, name)


def fold(summary: str, body: str, name: str = "") -> str:
    """Fold ``body`` behind a line of HTML; ``name`` are attributes of that line. Empty without a body."""
    if not body:
        return ""
    return (
        f'<details style="margin:3px 0"><summary style="cursor:pointer"{name}>{summary}</summary>'
        f'<div style="margin:2px 0 6px 14px">{body}</div></details>'
    )


def beside(*folds: str) -> str:
    """Put several folds beside one another; an open one takes the width it needs."""
    side = 'style="display:inline-block;vertical-align:top;max-width:100%;margin:3px 18px 3px 0"'
    return "".join(fold.replace('style="margin:3px 0"', side, 1) for fold in folds)


def code_to_copy(source: str, room: int | None = None) -> str:
    """Show code that one click selects; past ``room`` characters only how much more there is."""
    rows = source.splitlines()
    fit = _rows_within(rows, room, 0)
    if len(fit) == len(rows):
        return f'<pre style="{_PRE};user-select:all">{escaped(source)}</pre>'
    return code_to_copy("\n".join(fit)) + line(_more(len(rows) - len(fit)))


def _rows_within(rows: list[str], room: int | None, each: int) -> list[str]:
    """Give the rows that ``room`` characters hold, one of them at least, where each takes ``each`` more."""
    if room is None:
        return rows
    fit, left = [], room
    for row in rows:
        left -= len(row) + each
        if left < 0:
            break
        fit.append(row)
    return fit or [f"{row[:room]}…" for row in rows[:1]]


def _more(count: int) -> str:
    return f"… {count} more line{'s' * (count > 1)}"


def raw(text: str) -> str:
    """Show long text as it was written, in a box of its own height."""
    return f'<pre style="{_PRE};max-height:300px;overflow-y:auto">{escaped(text)}</pre>'


def diff(text: str, room: int | None = None) -> str:
    """Show a unified diff line by line; its signs carry the meaning, the colour only helps.

    Of what takes more than ``room`` characters of HTML only the changed lines stand there, as many as have room.
    """
    rows = text.splitlines()[2:]
    if len(_rows_within(rows, room, _MARKED)) == len(rows):
        return f'<pre style="{_PRE}">{_tinted(rows)}</pre>'
    return changed_lines((("", text),), room)


def changed_lines(diffs: tuple[tuple[str, str], ...], room: int | None) -> str:
    """Show of unified diffs, each under its name, the changed lines alone, as many of each as ``room`` holds."""
    shown, more = "", 0
    for name, text in diffs:
        rows = [row for row in text.splitlines()[2:] if row[:1] in _TINTS]
        fit = _rows_within(rows, room, _MARKED)
        shown, more = shown + _tinted(([name] if name else []) + fit), more + len(rows) - len(fit)
    return f'<pre style="{_PRE}">{shown}</pre>{line(_more(more) if more else "")}'


def _tinted(rows: list[str]) -> str:
    return "".join(
        f'<span style="display:block;{_TINTS.get(row[:1], "")}">{escaped(row) or " "}</span>' for row in rows
    )


_MARKED = 80
"""Characters of HTML that mark a line of a diff."""


def table(heads: tuple[str, ...], rows: tuple[tuple[str, ...], ...]) -> str:
    """Show rows of text under their heads; the first column is numbers, set to the right."""
    if not rows:
        return ""
    first, rest = "text-align:right;padding:1px 14px 1px 0;white-space:nowrap", "text-align:left;padding:1px 14px 1px 0"
    styles = (first, *(rest for _ in heads[1:]))
    head = "".join(f'<th scope="col" style="{s};font-weight:600">{escaped(h)}</th>' for h, s in zip(heads, styles))
    body = "".join(_row(row, styles) for row in rows)
    opening = f'<table style="border-collapse:collapse;margin:4px 0;{MONO};border:0">'
    return f'{opening}<thead><tr style="background:none">{head}</tr></thead><tbody>{body}</tbody></table>'


def _row(row: tuple[str, ...], styles: tuple[str, ...]) -> str:
    cells = "".join(f'<td style="{style}">{escaped(cell)}</td>' for cell, style in zip(row, styles))
    return f'<tr style="background:none">{cells}</tr>'
