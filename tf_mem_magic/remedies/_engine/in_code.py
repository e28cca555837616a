"""Patterns that are looked for in the code of a cell, not in its comments."""

from __future__ import annotations

import re

_BEFORE = r"""^[^#\n]*(?:(?<=["'])#[^#\n]*)*"""
"""What stands in a line before code that is no comment: ``"#fff"`` begins none."""


def in_code(pattern: str, *, ignore_case: bool = False) -> re.Pattern[str]:
    """Compile a pattern that a comment (``# with tf.device("GPU:1"):``) does not match."""
    return re.compile(f"{_BEFORE}(?:{pattern})", re.MULTILINE | (re.IGNORECASE if ignore_case else 0))
