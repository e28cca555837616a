"""Whether a cell accumulates already: what is given as none, or is taken back, adds nothing up."""

from __future__ import annotations

import pytest

from tests.remedies.accumulate_gradients.test_remedy import BUILD, FIT, IMPORTS, LOOP, ask
from tf_mem_magic.core.facts import Facts, ScalarFact
from tf_mem_magic.core.proposals import Context, Declined, Proposal
from tf_mem_magic.core.recording import Cell, Recording
from tf_mem_magic.notebook.text.cell import read_cell
from tf_mem_magic.remedies.accumulate_gradients.already import sums_in
from tf_mem_magic.remedies.accumulate_gradients.remedy import done_already

ADAM = "keras.optimizers.Adam({0})"
BY_US = "apply.accumulate_gradients(model, {0})\n"
NOT_FOLLOWED = "the cell accumulates gradients already, in a way that cannot be followed"
EARLIER = "an earlier cell has set up gradient accumulation already"


def said(text):
    """Tell whether a cell adds gradients up, and that the engine is told the same."""
    found = sums_in(read_cell(text), Facts())
    cell = Cell(text)
    assert done_already(Context(cell, Recording(cell, facts=Facts()))).sums is found
    return found


@pytest.mark.parametrize(
    ("text", "adds"),
    [
        (ADAM.format("gradient_accumulation_steps=4"), True),
        (ADAM.format("1e-3, gradient_accumulation_steps=n"), True),
        (ADAM.format("gradient_accumulation_steps=None"), False),
        (ADAM.format("gradient_accumulation_steps=1"), False),
        ("STEPS = 1\n" + ADAM.format("gradient_accumulation_steps=STEPS"), False),
        ("STEPS = 8\n" + ADAM.format("gradient_accumulation_steps=STEPS"), True),
        (BY_US.format(4), True),
        (BY_US.format("steps=4"), True),
        (BY_US.format(1), False),
        (BY_US.format("steps=1"), False),
        (BY_US.format(4) + FIT + BY_US.format(1), False),
        (BY_US.format(1) + BY_US.format(4), True),
        (BY_US.format(1) + "apply.accumulate_gradients(other, 2)", True),
        ("from tf_mem_magic.apply import accumulate_gradients\naccumulate_gradients(model, 2)", True),
        ("trainer.accumulate_gradients(batch, 4)", False),
        ("# gradient_accumulation_steps=4", False),
    ],
)
def test_a_cell_adds_gradients_up_where_it_says_so_and_does_not_take_it_back(text, adds):
    assert said(text) is adds


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("gradient_accumulation_steps=None", "gradient_accumulation_steps=2"),
        ("gradient_accumulation_steps=1", "gradient_accumulation_steps=2"),
        ("0.01, gradient_accumulation_steps=None, beta_1=0.5", "0.01, gradient_accumulation_steps=2, beta_1=0.5"),
        ("gradient_accumulation_steps=STEPS", "gradient_accumulation_steps=2"),
    ],
)
def test_an_argument_that_adds_nothing_up_is_set(given, written):
    for before, made in (("", "{0}"), ("opt = {0}\n", "opt")):
        text = "STEPS = 1\n" + before.format(ADAM.format(given)) + BUILD.format(made.format(ADAM.format(given))) + FIT
        answer = ask(text)
        assert isinstance(answer, Proposal), answer.reason
        assert answer.source == text.replace(ADAM.format(given), ADAM.format(written)).replace("=64", "=32")
        assert answer.title == "Keep batch 64, in 2 steps of 32"


def test_so_in_a_loop():
    made = "optimizer = " + ADAM.format("gradient_accumulation_steps=None") + "\n"
    answer = ask(BUILD.format('"sgd"') + made + LOOP.format(""))
    assert isinstance(answer, Proposal), answer.reason
    assert "optimizer = keras.optimizers.Adam(gradient_accumulation_steps=2)\n" in answer.source


@pytest.mark.parametrize(
    "back",
    [
        BY_US.format(1),
        BY_US.format("steps=1"),
        BY_US.format(4) + BY_US.format(1),
        "for i in range(1):\n    " + BY_US.format(1),
    ],
)
def test_behind_a_line_that_takes_it_back_it_is_said_anew_before_the_training(back):
    text = BUILD.format('"adam"') + back + FIT
    answer = ask(text)
    assert isinstance(answer, Proposal), answer.reason
    here = "from tf_mem_magic import apply\napply.accumulate_gradients(model, 2)\n"
    assert answer.source == BUILD.format('"adam"') + back + here + FIT.replace("64", "32")


def test_what_is_taken_back_after_the_training_was_added_up_in_it():
    text = BY_US.format(4) + FIT + BY_US.format(1)
    answer = ask(text, line=2, old=True)
    assert isinstance(answer, Proposal), answer.reason
    assert answer.source == BY_US.format(8) + FIT.replace("64", "32") + BY_US.format(1)
    assert answer.title == "Keep batch 256, in 8 steps of 32"


@pytest.mark.parametrize("given", ["gradient_accumulation_steps=4", "learning_rate=0.1, gradient_accumulation_steps=4"])
def test_the_optimizer_of_another_model_is_left_alone(given):
    other = f"other.compile({ADAM.format(given)})\n"
    text = other + BUILD.format('"adam"') + FIT
    answer = ask(text)
    assert isinstance(answer, Proposal), answer.reason
    assert answer.source.startswith(other)
    assert answer.title == "Keep batch 64, in 2 steps of 32"


@pytest.mark.parametrize(
    "text",
    [
        BUILD.format(ADAM.format("gradient_accumulation_steps=pick()")) + FIT,
        "how = {'gradient_accumulation_steps': 4}\n" + BUILD.format(ADAM.format("**how")) + FIT,
        "def accumulate_gradients(sums, news):\n    pass\n" + FIT,
        BY_US.format("count") + FIT,
        BY_US.format(2) + BY_US.format(4) + FIT,
        "model.optimizer.gradient_accumulation_steps = 4\n" + FIT,
    ],
)
def test_what_cannot_be_followed_is_declined(text):
    answer = ask(text, old=True)
    assert isinstance(answer, Declined), answer.source
    assert answer.reason == NOT_FOLLOWED


@pytest.mark.parametrize(
    ("made", "adds"),
    [
        (BUILD.format(ADAM.format("gradient_accumulation_steps=4")), True),
        (BUILD.format('"adam"') + BY_US.format(4), True),
        (BUILD.format(ADAM.format("gradient_accumulation_steps=None")), False),
        (BUILD.format('"adam"') + BY_US.format(1), False),
        (BUILD.format('"adam"') + BY_US.format(4) + BY_US.format(1), False),
        (BUILD.format('"adam"') + BY_US.format(1) + "apply.accumulate_gradients(other, 4)\n", False),
        (BUILD.format('"adam"') + BY_US.format(1) + BY_US.format(4), True),
        (BUILD.format('"adam"') + "# then gradient_accumulation_steps=4 as well", False),
        (BUILD.format(ADAM.format("gradient_accumulation_steps=STEPS")), False),
    ],
)
def test_an_earlier_cell_that_adds_nothing_up_is_none_that_has_set_it_up(made, adds):
    answer = ask(FIT, old=True, earlier=(IMPORTS, "STEPS = 1", made), scalars=(ScalarFact("STEPS", 1),))
    assert isinstance(answer, Declined if adds else Proposal), answer
    assert not adds or answer.reason == EARLIER


@pytest.mark.parametrize(
    "words", ["# gradient_accumulation_steps=4 does not help\n", "print('accumulate_gradients(4)')\n"]
)
def test_words_about_it_are_no_code(words):
    answer = ask(words + BUILD.format('"adam"') + FIT)
    assert isinstance(answer, Proposal), answer.reason
