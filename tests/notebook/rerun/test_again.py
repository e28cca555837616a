from __future__ import annotations

import pytest

from tf_mem_magic.core.facts import Facts, ModelFacts
from tf_mem_magic.notebook.rerun.again import choices_again

CELL = "%%tfmem\nh = model.fit(x, y, batch_size=64, epochs=5)\nplot(h)"


def facts(epochs_done=1, validating=True, **model):
    known = {"name": "model", "steps": 12, "steps_before": 4} | model
    return Facts(models=(ModelFacts(**known),), epochs_done=epochs_done, steps_done=4, validating=validating)


def test_whole_epochs_can_be_continued():
    (choice,) = choices_again(CELL, facts())
    assert (choice.label, choice.source) == (
        "Continue from epoch 3",
        "%%tfmem\nh = model.fit(x, y, batch_size=64, epochs=5, initial_epoch=2)\nplot(h)",
    )


def test_kept_weights_let_the_training_start_again():
    (choice,) = choices_again(CELL, facts(validating=False, kept=True))
    assert (choice.label, choice.source) == (
        "Start again",
        "%%tfmem\nfrom tf_mem_magic import apply\napply.start_again(model)\n"
        "h = model.fit(x, y, batch_size=64, epochs=5)\nplot(h)",
    )


def test_both_are_offered_where_both_are_exact():
    labels = [choice.label for choice in choices_again(CELL, facts(kept=True))]
    assert labels == ["Continue from epoch 3", "Start again"]


@pytest.mark.parametrize(
    ("cell", "known"),
    [
        (CELL, facts(validating=False)),
        (CELL, facts(epochs_done=4)),
        (CELL, facts(steps_before=None)),
        (CELL, facts(steps=4)),
        (CELL, facts(name="other")),
        (CELL.replace("epochs=5", "epochs=EPOCHS"), facts()),
        (CELL.replace("epochs=5", "epochs=5, initial_epoch=1"), facts()),
        (CELL.replace("epochs=5", "**options"), facts()),
        (CELL + "\nmodel.fit(x, y)", facts(kept=True)),
        ("%%bash\nls", facts(kept=True)),
        ("def train():\n    model.fit(x, y, epochs=5)\ntrain()", facts(kept=True)),
    ],
)
def test_nothing_is_offered_where_it_would_not_be_exact(cell, known):
    assert choices_again(cell, known) == ()


def test_a_loop_gets_the_lines_before_it_and_not_inside():
    cell = "for fold in range(3):\n    model.fit(x, y)\n"
    (choice,) = choices_again(cell, facts(validating=False, kept=True))
    assert choice.source.startswith("from tf_mem_magic import apply\napply.start_again(model)\nfor fold")
