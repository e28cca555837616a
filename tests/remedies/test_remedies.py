"""Every remedy's own examples, and what must hold for the answer of any remedy."""

import pytest

from tf_mem_magic.core.proposals import Declined, Proposal
from tf_mem_magic.notebook.text.cell import read_cell
from tf_mem_magic.remedies._engine.registry import all_remedies

EXAMPLES = [
    pytest.param(remedy, example, id=f"{remedy.KEY}: {example.name}")
    for remedy in all_remedies()
    for example in remedy.EXAMPLES
]


def all_answers(remedy, example):
    answers = remedy.propose(example.context)
    settings = [a.settings for a in answers if isinstance(a, Declined) and a.settings is not None]
    return [*answers, *settings]


@pytest.mark.parametrize(("remedy", "example"), EXAMPLES)
def test_an_example_gives_its_answer(remedy, example):
    answers = remedy.propose(example.context)
    if example.declined:
        reasons = [a.reason for a in answers if isinstance(a, Declined)]
        assert [True] == [example.expect in reason for reason in reasons], reasons
    else:
        assert example.expect in [a.source for a in answers if isinstance(a, Proposal)], answers


@pytest.mark.parametrize(("remedy", "example"), EXAMPLES)
def test_a_proposal_is_python_that_parses(remedy, example):
    proposals = [a for a in all_answers(remedy, example) if isinstance(a, Proposal)]
    sources = [p.source for p in proposals] + [c.source for p in proposals for c in p.choices]
    readable = [hasattr(read_cell(source), "tree") for source in sources]
    assert [True] * len(sources) == readable


@pytest.mark.parametrize(("remedy", "example"), EXAMPLES)
def test_a_proposal_shows_a_change_unless_it_restarts(remedy, example):
    proposals = [a for a in all_answers(remedy, example) if isinstance(a, Proposal)]
    silent = [p for p in proposals if not p.diff and p.takes_effect != "restart"]
    assert [] == [p for p in silent if not p.choices]


@pytest.mark.parametrize(("remedy", "example"), EXAMPLES)
def test_a_proposal_keeps_the_original_cell(remedy, example):
    proposals = [a for a in all_answers(remedy, example) if isinstance(a, Proposal)]
    assert [example.context.cell.source] * len(proposals) == [p.original for p in proposals]


@pytest.mark.parametrize(("remedy", "example"), EXAMPLES)
def test_an_answer_is_complete_for_the_panel(remedy, example):
    for answer in all_answers(remedy, example):
        assert answer.key
        assert answer.title
        assert getattr(answer, "reason", "-").strip()


def test_each_remedy_has_examples_that_propose_and_that_decline():
    lacking = [r.KEY for r in all_remedies() if {e.declined for e in r.EXAMPLES} != {True, False}]
    assert [] == lacking


def test_keys_are_unique():
    keys = [r.KEY for r in all_remedies()]
    assert sorted(set(keys)) == sorted(keys)
