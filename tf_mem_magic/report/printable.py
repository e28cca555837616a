"""Text from outside made safe to show: nothing in it steers a terminal, reorders a line, or fails to encode."""

from __future__ import annotations

import re

_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_PLAIN = str.maketrans(
    {
        **dict(zip("▁▂▃▄▅▆▇█", "_.-=+*%#")),
        **{"✓": "[ok]", "✗": "[x]", "●": "[*]", "≥": ">=", "≤": "<=", "→": "->", "×": "x", "–": "-", "—": "-"},
        **{"…": "...", "▓": "#", "░": ".", "·": "-", "↑": "^"},
    }
)


def visible(text: str) -> str:
    """Replace control characters, marks that reorder text, and lone surrogates; tabs and line ends stay."""
    return _STEERING.sub("\N{REPLACEMENT CHARACTER}", text)


def printable(text: str, encoding: str | None = None) -> str:
    """Make ``text`` safe to print; what ``encoding`` cannot write becomes plain ASCII."""
    text = visible(text)
    if encoding is None:
        return text
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(_PLAIN).encode(encoding, "replace").decode(encoding)
    except LookupError:
        return text.translate(_PLAIN).encode("ascii", "replace").decode("ascii")
    return text
