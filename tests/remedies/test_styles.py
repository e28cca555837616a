"""The right answers for the gallery of styles: sixteen bits, a lighter optimizer, and what holds for every edit."""

from __future__ import annotations

import ast
import functools

import pytest

from tests.golden.styles import COMPILE, SGD, STYLES, Style
from tf_mem_magic.core.outcome import Outcome
from tf_mem_magic.core.proposals import Declined, Proposal
from tf_mem_magic.explain import explain

each = pytest.mark.parametrize("style", STYLES, ids=lambda style: style.name)


@functools.cache
def outcome(style: Style) -> Outcome:
    return explain(style.recording())


def answer(style: Style, key: str) -> Proposal | Declined:
    found = [a for a in (*outcome(style).offered, *outcome(style).declined) if a.key == key]
    assert len(found) == 1, found
    return found[0]


@each
def test_nothing_fails_and_every_edit_is_python(style):
    answers = (*outcome(style).offered, *outcome(style).declined)
    assert [] == [a for a in answers if isinstance(a, Declined) and "it failed on this cell" in a.reason]
    for one in outcome(style).offered:
        ast.parse(one.source.replace("%%tfmem", "#"))


@each
def test_sixteen_bits_reach_the_model_with_its_outputs_in_32_or_are_declined(style):
    found = answer(style, "mixed-precision")
    if style.why_not_mixed:
        assert isinstance(found, Declined), found.diff
        assert style.why_not_mixed in found.reason
        return
    assert isinstance(found, Proposal), found.reason
    lines = [line.strip() for line in found.source.splitlines()]
    for line in style.making.mixed:
        assert line.strip() in lines, found.source
    assert found.source.count("float32") == sum("float32" in line for line in style.making.mixed)
    at = next(i for i, line in enumerate(lines) if "mixed_bfloat16" in line)
    training = next(i for i, line in enumerate(lines) if "# <-" in line)
    start = lines.index(style.running.before) if style.running.before else training
    assert at < start, found.source


@each
def test_a_lighter_optimizer_is_compiled_with_or_declined(style):
    found = answer(style, "lighter-optimizer")
    if style.running.own_loop:
        assert isinstance(found, Declined)
        assert "SGD keeps little or nothing" in found.reason
    elif style.running.inference:
        assert isinstance(found, Declined), found.diff
        assert f"in `{style.running.inference}`" in found.reason
    elif style.running.name.startswith("a function of the cell") and style.making.is_earlier:
        assert isinstance(found, Declined), found.diff
        assert "trained in a function" in found.reason
    else:
        assert isinstance(found, Proposal), found.reason
        line = COMPILE.strip().replace('"adam"', SGD)
        lines = [text.strip() for text in found.source.splitlines()]
        assert lines.count(line) == 1, found.source
        assert COMPILE.strip() not in lines
        start = style.running.before or next(text for text in lines if "# <-" in text)
        assert lines.index(line) < lines.index(start)
