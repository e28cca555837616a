"""Which earlier cells a restart replays."""

import pytest

from tf_mem_magic.notebook.rerun.replay import EarlierCell, choose_replay, telling_line


def ran(source, count=1, seconds=None, cell_id="a"):
    return EarlierCell(cell_id, source, count, seconds, source)


def verdict(*cells):
    return [(r.ticked, r.flags) for r in choose_replay(cells)]


@pytest.mark.parametrize(
    ("source", "flags"),
    [
        ("drive.mount('/content/drive')", ("mounts a drive",)),
        ("%pip install keras", ("installs packages",)),
        ("shutil.rmtree('data')", ("deletes files",)),
        ("name = input()", ("asks for input",)),
        ("model.fit(x)", ("long training",)),
        ("!nvidia-smi", ("shell command",)),
        ("%%bash\nls", ("shell command",)),
        ("import os; os._exit(0)", ("restarts or exits",)),
    ],
)
def test_what_should_not_happen_unasked_is_not_ticked(source, flags):
    assert [(False, flags)] == verdict(ran(source))


@pytest.mark.parametrize(
    ("source", "flags"),
    [
        ("x = load()", ()),
        ("import tensorflow as tf", ()),
        ("def train():\n    model.fit(x)\n    input()", ()),
        ("np.save('x.npy', x)", ("writes files",)),
        ("files = !ls\nx = load(files)", ("shell command",)),
    ],
)
def test_other_cells_that_ran_are_ticked(source, flags):
    assert [(True, flags)] == verdict(ran(source))


def test_training_that_was_short_is_replayed_without_a_word():
    assert [(True, ())] == verdict(ran("model.fit(x)", seconds=2.0))


def test_training_that_was_long_is_not_ticked():
    assert [(False, ("long training",))] == verdict(ran("model.fit(x)", seconds=200.0))


def test_a_call_of_a_function_that_trains_is_long_training():
    assert [(True, ()), (False, ("long training",))] == verdict(
        ran("def train():\n    model.fit(x)", 1), ran("train()", 2)
    )


def test_cells_come_in_the_order_in_which_they_ran():
    cells = (ran("b = 1", 7, cell_id="b"), ran("a = 1", 3, cell_id="a"))
    assert ["a", "b"] == [r.cell.cell_id for r in choose_replay(cells)]


def test_a_cell_edited_since_it_ran_says_so():
    assert [(True, ("edited since it ran",))] == verdict(EarlierCell("a", "x = 2", 1, None, "x = 1"))


def test_a_cell_that_failed_is_not_ticked_until_it_is_repaired():
    failed = EarlierCell("a", "import nothing", 1, 0.1, "import nothing", failed=True)
    repaired = EarlierCell("b", "import os", 2, 0.1, "import nothing", failed=True)
    assert [(False, ("failed",)), (True, ("edited since it ran", "failed"))] == verdict(failed, repaired)


@pytest.mark.parametrize("source", ["%tfmem resume", "%load_ext tf_mem_magic\n%tfmem resume async-allocator-1a2b"])
def test_a_cell_that_goes_on_with_another_plan_is_not_ticked(source):
    assert [(False, ("goes on with a plan",))] == verdict(ran(source))


def test_an_empty_cell_is_not_ticked():
    assert [(False, ())] == verdict(ran("\n"))


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("%load_ext tf_mem_magic\nimport tensorflow as tf\nx = load()\nfit(x)", "x = load()"),
        ("%%tfmem --on-oom auto\n# train it\n\nmodel.fit(x)", "model.fit(x)"),
        ("# %% data\nfrom a import b\n%matplotlib inline\n\n  y = b()", "y = b()"),
        ("%load_ext tf_mem_magic\nimport os\nfrom a import b", "%load_ext tf_mem_magic"),
        ("from a import (\n    b,\n    c,\n)\nx = b(c)", "x = b(c)"),
        ('"""Load the data."""\nimport os\nx = 1', "x = 1"),
        ("try:\n    import a\n    x = a.load()\nexcept ImportError:\n    x = None", "x = a.load()"),
        ("import os; x = load()", "import os; x = load()"),
        ("@tf.function\ndef step(x):\n    return x", "def step(x):"),
        ("%load_ext tf_mem_magic\n!nvidia-smi", "!nvidia-smi"),
        ("import os\nfor n in range(3) print(n)", "for n in range(3) print(n)"),
        ("# only a word", "# only a word"),
        ("%%bash\nls -l", "ls -l"),
        ("!pip install keras", "!pip install keras"),
        ("", "(empty)"),
        ("  \n", "(empty)"),
    ],
)
def test_a_cell_is_named_by_its_first_line_that_is_no_magic_comment_or_import(source, line):
    assert line == telling_line(source)
