"""Which text is an edited version of a cell that has no name."""

import pytest

from tf_mem_magic.notebook.rerun.versions import is_version, newest_version, version_among

LOADS = "x = load('train.npy')\ny = load('labels.npy')"
MODEL = "model = build(64)\nmodel.compile('adam', 'mse')"
CELLS = (LOADS, MODEL, "print(x.shape)")


@pytest.mark.parametrize(
    "text",
    [
        LOADS,
        f"{LOADS}\n\n",
        f"%%tfmem\n{LOADS}",
        LOADS.replace("train.npy", "other.npy"),
        "import numpy as np\nx = np.zeros((3, 3))\ny = np.ones(3)",
        f"try:\n    {LOADS.splitlines()[0]}\nexcept OSError:\n    x = None\ny = 1",
    ],
    ids=["the same", "blank lines", "tagged", "another file", "binds the same", "inside a try"],
)
def test_what_binds_the_same_or_is_mostly_the_same_is_the_cell_edited(text):
    assert is_version(text, LOADS, CELLS[1:])


@pytest.mark.parametrize(
    "text", ["", "  \n", "!ls", "x.shape", MODEL, "model = build(32)\nmodel.compile('adam', 'mse')", "x = 1", "y"]
)
def test_other_texts_are_not(text):
    assert not is_version(text, LOADS, CELLS[1:])


def test_a_cell_that_does_not_parse_is_known_by_its_likeness():
    assert is_version("for n in range(3):\n    print(n)", "for n in range(3)\n    print(n)")


def test_a_text_that_is_more_like_another_cell_is_not_this_one():
    assert not is_version("test = load('test.npy', 'r')", "valid = load('valid.npy')", ["test = load('test.npy')"])


def test_the_last_version_counts():
    assert 2 == newest_version([LOADS, MODEL, LOADS.replace("train", "other"), "z"], LOADS, CELLS[1:])
    assert newest_version([MODEL, "z"], LOADS, CELLS[1:]) is None


def test_of_the_notebooks_cells_the_cell_itself_counts_then_its_only_version():
    edited = LOADS.replace("train", "other")
    assert LOADS == version_among((LOADS, edited, MODEL), LOADS, CELLS[1:])
    assert edited == version_among((edited, MODEL), LOADS, CELLS[1:])
    assert LOADS == version_among((edited, LOADS.replace("labels", "marks"), MODEL), LOADS, CELLS[1:])


def test_long_texts_are_compared_by_lines():
    lines = [f"print({n}, 'a line that is not short')" for n in range(200)]
    edited = [*lines[:100], "print('new')", *lines[100:]]
    assert is_version("\n".join(edited), "\n".join(lines))
