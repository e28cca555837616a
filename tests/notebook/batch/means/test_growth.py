"""Which numbers count batches, and which count samples: run, the edited cell tells what it told before."""

from __future__ import annotations

import pytest

from tests.notebook.batch.means.runs import ADDS, LOOK, TOLD, changed, same
from tf_mem_magic.core.facts import DatasetFacts, Facts, ScalarFact
from tf_mem_magic.notebook.batch.found import BatchFound, set_batch
from tf_mem_magic.notebook.batch.search import find_batch
from tf_mem_magic.notebook.text.cell import PythonCell, read_cell


@pytest.mark.parametrize(
    ("count", "told"),
    [
        ("n = len(paths) // 64", "total / n"),
        ("n = int(np.ceil(len(paths) / batch_size))", "total / n"),
        ("n = -(-len(paths) // 64)", "total / n"),
        ("n = (len(paths) + batch_size - 1) // batch_size", "total / n"),
        ("n = len(train)", "total / n"),
        ("n = math.ceil(len(paths) / 64)", "total / (1.0 * n)"),
        ("steps = len(paths) // 64\nn = steps", "total / n"),
        ("n = 100", "total / n"),
        ("", "total / 100"),
        ("", "total / len(train)"),
        ("", "total / train.cardinality().numpy()"),
        ("", "float(total) / float(len(train))"),
        ("", "total / (len(paths) // 64)"),
    ],
)
def test_a_count_of_batches_grows(count, told):
    scalars = (ScalarFact("n", 100),) if count else ()
    after, notes = same(f"{ADDS}tell({told})", *([count] if count else []), scalars=scalars)
    assert any(note.startswith(TOLD) for note in notes)
    assert "rebatch(32)" in after


@pytest.mark.parametrize(
    "count",
    [
        "n = len(paths) // 64 * 64",
        "steps = len(paths) // 64\nn = steps * 64",
        "n = 64 * (len(paths) // batch_size)",
    ],
)
def test_a_number_of_samples_is_no_count_of_batches(count):
    after, _ = changed(f"{ADDS}tell(total / n)", count)
    assert after.endswith("tell(total / n)")


@pytest.mark.parametrize(
    "earlier",
    [
        ("n = len(train)", "train = train.batch(64)"),
        ("n = len(train)\ntrain = train.batch(64)",),
        ("n = train.cardinality().numpy()", "train = train.shuffle(9).batch(64)"),
    ],
)
def test_the_length_that_data_had_before_they_were_batched_is_no_count_of_batches(earlier):
    cell = read_cell(f"{ADDS}tell(total / n)")
    assert isinstance(cell, PythonCell)
    for known in ((), (ScalarFact("n", 6400),)):
        facts = Facts(
            datasets=(DatasetFacts("train", batch=64, cardinality=100),), earlier_cells=earlier, scalars=known
        )
        found = find_batch(cell, facts, frozenset({3}))
        assert isinstance(found, BatchFound), found
        after, notes = set_batch(found, 32)
        assert after.endswith("tell(total / n)")
        assert any(LOOK in note for note in notes)


@pytest.mark.parametrize("made", ["n = len(paths) // 128", "n = 50", "n = len(paths[:3200]) // 64", "n = int('50')"])
@pytest.mark.parametrize(
    "loop",
    [
        "for x, y in train.take(n):\n    total += step(x, y)",
        "for i, (x, y) in enumerate(train.take(n)):\n    total = total + step(x, y)",
        "for i, (x, y) in zip(range(n), train):\n    total += step(x, y)",
        "for i, (x, y) in enumerate(train):\n    if i >= n:\n        break\n    total += step(x, y)",
    ],
)
def test_as_many_batches_as_a_loop_takes_are_counted_by_the_same_name(made, loop):
    after, _ = same(f"total = 0.0\n{loop}\ntell(total / n)", made, scalars=(ScalarFact("n", 50),), batch=32)
    assert after.endswith("tell(total / (2 * n))")


@pytest.mark.parametrize(
    "loop",
    [
        "for x, y in train.take(50):\n    total += step(x, y)",
        "for i, (x, y) in enumerate(train):\n    if i == 50:\n        break\n    total += step(x, y)",
        "for i, (x, y) in zip(range(50), train):\n    total += step(x, y)",
    ],
)
def test_the_number_of_batches_that_a_loop_takes_is_known_where_it_is_written_out(loop):
    after, _ = same(f"total = 0.0\n{loop}\ntell(total / 50)")
    assert after.endswith("tell(total / 100)")


@pytest.mark.parametrize("told", ["total / bar.n", "total / bar.samples", "total / meter[0]"])
def test_an_attribute_of_something_else_counts_no_samples(told):
    source = (
        f"bar = make_bar()\ntotal = 0.0\nfor x, y in train:\n    total += mean_loss(x, y)\n    step(x, y)\ntell({told})"
    )
    after, notes = changed(source)
    assert after.endswith(f"tell({told})")
    assert f"Line 6 {LOOK}" in notes


@pytest.mark.parametrize(
    "turn",
    [
        "c += 0.1 * (y.mean() - c)",
        "c += y.mean()\n    c += c / 2",
        "c += d\n    d += c + 1",
        "c, d = d, c\n    c += d * c\n    d += c",
    ],
)
def test_a_number_that_is_made_of_itself_counts_nothing(turn):
    source = (
        f"c = d = 0\nfor x, y in train.batch(64):\n    model.train_on_batch(x, y)\n    {turn}\ntell(c / 100, d / c)"
    )
    cell = read_cell(source)
    assert isinstance(cell, PythonCell)
    found = find_batch(cell, Facts(), frozenset({3}))
    assert isinstance(found, BatchFound), found.reason
    assert set_batch(found, 32)[0] == source.replace("64", "32")
