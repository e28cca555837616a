"""A generator of an earlier cell is made anew where it is used, by the call that made it, for smaller batches."""

from __future__ import annotations

import pytest

from tf_mem_magic.core.facts import BatchSeen, DatasetFacts, Facts, ModelFacts, ScalarFact
from tf_mem_magic.notebook.batch.found import BatchFound, set_batch
from tf_mem_magic.notebook.batch.search import find_batch
from tf_mem_magic.notebook.text.cell import PythonCell, read_cell

MAKER = """
def rows(files, batch_size=64, shuffle=True):
    while True:
        for low in range(0, len(files), batch_size):
            yield load(files[low:low + batch_size])
"""
OTHER = MAKER.replace("range(0", "range(BATCH_SIZE")


def found_in(source, *earlier, seen=64, line=1, scalars=(), names=("train", "val")):
    """Find the batch of a cell behind earlier ones, where Keras saw a generator's batches of ``seen``."""
    cell = read_cell(source)
    assert isinstance(cell, PythonCell)
    facts = Facts(
        models=(ModelFacts("model"),),
        datasets=tuple(DatasetFacts(name, "generator", None) for name in names),
        batches=() if seen is None else (BatchSeen("fit", seen, "generator"),),
        scalars=tuple(ScalarFact(name, value) for name, value in scalars),
        earlier_cells=earlier,
    )
    return find_batch(cell, facts, frozenset({line}))


@pytest.mark.parametrize(
    ("making", "called"),
    [
        ("train = rows(files)", "rows(files, batch_size=32)"),
        ("train = rows(files, 64)", "rows(files, 32)"),
        ("train = rows(files, batch_size=64, shuffle=False)", "rows(files, batch_size=32, shuffle=False)"),
        (
            "bs = 64\ntrain = rows(\n    files[:90],  # the first\n    bs,\n)\nx, y = next(train)",
            "rows(files[:90], 32)",
        ),
        ("train = rows(data.files, shuffle=False)", "rows(data.files, shuffle=False, batch_size=32)"),
        ("BATCH = 64\ntrain, BATCH = None, 8\nBATCH = 64\ntrain = rows(['{}'], BATCH)", None),
    ],
)
def test_the_call_that_made_it_is_written_with_a_smaller_batch(making, called):
    found = found_in("model.fit(train, steps_per_epoch=10)", MAKER, making)
    if called is None:  # the name is set more than once in that cell
        assert not isinstance(found, BatchFound)
        return
    assert isinstance(found, BatchFound), found
    assert set_batch(found, 32)[0] == f"model.fit({called}, steps_per_epoch=20)"


def test_a_name_that_was_set_since_counts_as_it_was():
    cells = (MAKER, "size = 64\ntrain = rows(files, size)", "size = 8\nval = rows(others, size)")
    found = found_in("model.fit(train, steps_per_epoch=n // 64)", *cells, scalars=(("size", 8),))
    assert isinstance(found, BatchFound), found
    assert set_batch(found, 32)[0] == "model.fit(rows(files, 32), steps_per_epoch=n // 32)"


def test_a_size_that_a_cell_before_it_set_is_read_there_and_the_last_one_counts():
    for cells, value in (
        (("size = 8", "size = 64", MAKER, "train = rows(files, size)"), 64),
        (("size = 8", "size = 64\nsize = 32", MAKER, "train = rows(files, size)"), 32),
        (("size = 64", "if big:\n    size = 32", MAKER, "train = rows(files, size)"), None),
        (("size = 64", "size = size // 2", MAKER, "train = rows(files, size)"), None),
        ((MAKER, "train = rows(files, size)\nsize = 64"), None),
        (("size = 64", MAKER, "for size in sizes:\n    pass\ntrain = rows(files, size)"), None),
    ):
        found = found_in("model.fit(train, steps_per_epoch=10)", *cells, seen=value)
        assert getattr(found, "value", None) == value, cells


def test_a_pair_of_training_and_validation_becomes_smaller_together():
    cells = (MAKER, "train = rows(files, batch_size=SIZE)\nval = rows(others, batch_size=SIZE)")
    source = "model.fit(\n    train, steps_per_epoch=10,\n    validation_data=val, validation_steps=4)"
    found = found_in(source, *cells, scalars=(("SIZE", 64),))
    assert isinstance(found, BatchFound), found
    changed = set_batch(found, 32)[0]
    assert "rows(files, batch_size=32), steps_per_epoch=20" in changed
    assert "validation_data=rows(others, batch_size=32), validation_steps=8" in changed


SINCE = (MAKER, "files = list(names)", "train = rows(files)")
AGAIN = "`train` was made in an earlier cell: change its batch size there and run that cell again"


@pytest.mark.parametrize(
    "earlier",
    [
        (*SINCE, "files = files[:10]"),
        (MAKER, "train = rows(files)\nfiles = other"),
        (MAKER, "train = rows(files)", "def rows(files, batch_size=64):\n    yield 1"),
        (MAKER, "train = rows(iter(files))"),
        (MAKER, "train = rows(val)"),
        (MAKER, "train = rows(*files)"),
        (MAKER, "if files:\n    train = rows(files)"),
        (MAKER, "train = islice(rows(files), 3)"),
        (f"@cached{MAKER}", "train = rows(files)"),
        (OTHER, "train = rows(files)"),
        (MAKER.replace("yield load(files[low:low + batch_size])", "return 1"), "train = rows(files)"),
        (MAKER, "train = rows(files, size())"),
    ],
)
def test_where_the_call_may_not_give_the_same_it_is_declined(earlier):
    found = found_in("model.fit(train, steps_per_epoch=10)", *earlier)
    assert not isinstance(found, BatchFound), set_batch(found, 32)[0]
    assert found.reason == AGAIN


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("x = next(train)\nmodel.fit(train, steps_per_epoch=10)", 2),
        ("for fold in range(3):\n    model.fit(train, steps_per_epoch=10)", 2),
        ("def run():\n    model.fit(train, steps_per_epoch=10)\nrun()", 2),
        ("files = files[:9]\nmodel.fit(train, steps_per_epoch=10)", 2),
    ],
)
def test_where_the_cell_takes_from_it_more_than_once_it_is_declined(source, line):
    found = found_in(source, MAKER, "train = rows(files)", line=line)
    assert not isinstance(found, BatchFound), set_batch(found, 32)[0]
    assert found.reason == AGAIN


@pytest.mark.parametrize(
    ("making", "once"),
    [
        ("lines = open(path)\ntrain = rows(lines)", "lines"),
        ("pairs = zip(images, labels)\ntrain = rows(pairs, 64)", "pairs"),
        ("samples = map(read, names)\ntrain = rows(samples, batch_size=64)", "samples"),
        ("it = iter(files)\ntrain = rows(it)", "it"),
        ("read = (load(f) for f in files)\ntrain = rows(read, shuffle=False)", "read"),
        ("import itertools\npairs = itertools.product(a, b)\ntrain = rows(pairs)", "pairs"),
        ("from itertools import chain as all_of\npairs = all_of(a, b)\ntrain = rows(pairs)", "pairs"),
        ("a, b = itertools.tee(names)\ntrain = rows(a)", "a"),
        ("import csv\nf = open(path)\ntable = csv.reader(f)\ntrain = rows(table)", "table"),
        ("files = Path(folder).glob('*.png')\ntrain = rows(files)", "files"),
        ("table = pd.read_csv(path, chunksize=64)\ntrain = rows(table)", "table"),
        ("sources = [open(a), open(b)]\ntrain = rows(sources)", "sources"),
        ("lines = open(path)\nrecords = lines\ntrain = rows(records)", "records"),
        ("with open(path) as f:\n    pass\ntrain = rows(f)", "f"),
        ("def names():\n    yield 1\nfound = names()\ntrain = rows(found)", "found"),
        ("seen = tqdm(zip(images, labels))\ntrain = rows(seen)", "seen"),
        ("lines = open(path) if path else iter([])\ntrain = rows(lines)", "lines"),
    ],
)
def test_what_is_made_of_values_that_come_once_is_declined_and_says_so(making, once):
    told = f"`train` was made of `{once}`, which gives its values once: make both anew in their cells, with a smaller batch"
    apart = making.rpartition("\n")
    for cells in ((MAKER, making), (MAKER, apart[0], apart[2])):
        found = found_in("model.fit(train, steps_per_epoch=10)", *cells)
        assert not isinstance(found, BatchFound), set_batch(found, 32)[0]
        assert found.reason == told


@pytest.mark.parametrize("line", ["lines = open(path)", "lines = map(str.strip, names)", "lines = (n for n in names)"])
def test_what_its_code_reads_of_the_notebook_may_be_at_its_end_too(line):
    reading = MAKER.replace("files[low:low + batch_size]", "next(lines), batch_size")
    found = found_in("model.fit(train, steps_per_epoch=10)", line, reading, "train = rows(files)")
    assert not isinstance(found, BatchFound), set_batch(found, 32)[0]
    assert found.reason.startswith("`train` was made of `lines`, which gives its values once")


@pytest.mark.parametrize(
    "making",
    [
        "files = list(zip(images, labels))",
        "files = sorted(map(str, names))",
        "files = open(path).read().split()",
        "with open(path) as f:\n    files = f.readlines()",
        "files, labels = zip(*pairs)",
        "files = [load(name) for name in iter(names)]",
        "files = [*zip(images, labels)]",
        "import glob\nfiles = glob.glob('*.png')",
        "from glob import glob\nfiles = glob('*.png')",
        "files = tf.io.gfile.glob('*.png')",
        "files = dict(enumerate(names))",
        "files = np.load(open(path, 'rb'))",
    ],
)
def test_what_is_gone_through_once_more_is_made_anew(making):
    found = found_in("model.fit(train, steps_per_epoch=10)", MAKER, making, "train = rows(files)")
    assert isinstance(found, BatchFound), found
    assert set_batch(found, 32)[0] == "model.fit(rows(files, batch_size=32), steps_per_epoch=20)"


@pytest.mark.parametrize(
    ("signature", "making", "called"),
    [
        ("files, batch_size=64, /", "rows(files)", "rows(files, 32)"),
        ("files, batch_size=64, /, shuffle=True", "rows(files, shuffle=False)", "rows(files, 32, shuffle=False)"),
        ("files, batch_size, /, shuffle=True", "rows(files, 64, False)", "rows(files, 32, False)"),
        ("files, /, batch_size=64", "rows(files)", "rows(files, batch_size=32)"),
        ("files, *, batch_size=64", "rows(files)", "rows(files, batch_size=32)"),
        ("files, pattern='', batch_size=64", "rows(files, '{}')", "rows(files, '{}', batch_size=32)"),
        ("files, batch_size=64, pattern=''", "rows(files, 64, '{}')", "rows(files, 32, '{}')"),
        ("files, batch_size=64, pattern=''", "rows(pattern='{}', files=files)", None),
        ("files, size=3, batch_size=64, /", "rows(files)", ""),
    ],
)
def test_the_size_is_written_where_the_function_takes_it(signature, making, called):
    maker = MAKER.replace("files, batch_size=64, shuffle=True", signature)
    found = found_in("model.fit(train, steps_per_epoch=10)", maker, f"train = {making}")
    if called == "":  # the sizes before it would have to be written too
        assert not isinstance(found, BatchFound), set_batch(found, 32)[0]
        assert found.reason == AGAIN
        return
    assert isinstance(found, BatchFound), found
    expected = called or "rows(pattern='{}', files=files, batch_size=32)"
    assert set_batch(found, 32)[0] == f"model.fit({expected}, steps_per_epoch=20)"


def test_batches_of_another_size_than_the_call_says_are_left_alone():
    # It may give pairs, or triples, of what it is asked for.
    found = found_in("model.fit(train, steps_per_epoch=10)", MAKER, "train = rows(files, 32)")
    assert not isinstance(found, BatchFound)
    assert found.reason == "the cell seems to say 32, but Keras used batches of 64"


ITERATORS = "train = gen.flow_from_directory(a, batch_size=64)\nval = gen.flow_from_directory(b, batch_size=64)"


@pytest.mark.parametrize(
    ("source", "changed"),
    [
        ("model.fit(train, steps_per_epoch=N, validation_data=val, validation_steps=V)", ("2 * N", "2 * V")),
        ("model.fit(x, y, validation_data=val, validation_steps=V)", ("validation_steps=2 * V",)),
        ("model.fit(train, steps_per_epoch=7, validation_data=other, validation_steps=V)", ("=14", "_steps=V")),
        ("model.evaluate(val, steps=M)", ("steps=2 * M",)),
        ("model.fit(other, steps_per_epoch=7, validation_data=other, validation_steps=V)", ("=7", "_steps=V")),
    ],
)
def test_iterators_that_stay_smaller_are_counted_anew_in_the_whole_cell_and_said(source, changed):
    cell = read_cell(f"model.fit(train, steps_per_epoch=9, validation_data=val, validation_steps=4)\n{source}")
    assert isinstance(cell, PythonCell)
    data = tuple(DatasetFacts(name, "PyDataset", 64) for name in ("train", "val"))
    seen = (BatchSeen("fit", 64, "PyDataset"),)
    facts = Facts(models=(ModelFacts("model"),), datasets=data, batches=seen, earlier_cells=(ITERATORS,))
    found = find_batch(cell, facts, frozenset({1}))
    assert isinstance(found, BatchFound), found
    source, notes = set_batch(found, 32)
    lines = source.splitlines()
    assert lines[:2] == ["train.batch_size = 32", "val.batch_size = 32"]
    assert "steps_per_epoch=18, validation_data=val, validation_steps=8" in lines[2]
    assert all(part in lines[3] for part in changed)
    assert notes[0].startswith("`train` and `val` keep their smaller batches")


@pytest.mark.parametrize(("smallest", "told"), [(1, False), (8, False), (16, False), (256, True)])
@pytest.mark.parametrize("steps", ["steps_per_epoch=10", "steps_per_epoch=N // 64, validation_steps=V"])
def test_an_iterator_whose_batches_are_small_already_is_not_said_to_stay_smaller(smallest, told, steps):
    cell = read_cell(f"model.fit(train, validation_data=val, {steps})")
    assert isinstance(cell, PythonCell)
    data = (DatasetFacts("train", "PyDataset", 64), DatasetFacts("val", "PyDataset", smallest))
    made = ITERATORS.replace("b, batch_size=64", f"b, batch_size={smallest}")
    seen = (BatchSeen("fit", 64, "PyDataset"),)
    facts = Facts(models=(ModelFacts("model"),), datasets=data, batches=seen, earlier_cells=(made,))
    found = find_batch(cell, facts, frozenset({1}))
    assert isinstance(found, BatchFound), found
    source, notes = set_batch(found, 32)
    assert ("val.batch_size = 32" in source, any("`val`" in note for note in notes)) == (told, told)
    assert any(note.startswith("`train`") for note in notes)


def test_without_a_number_of_steps_nothing_is_said_of_what_stays():
    cell = read_cell("model.fit(train)")
    assert isinstance(cell, PythonCell)
    facts = Facts(
        models=(ModelFacts("model"),),
        datasets=(DatasetFacts("train", "PyDataset", 64),),
        batches=(BatchSeen("fit", 64, "PyDataset"),),
        earlier_cells=(ITERATORS,),
    )
    found = find_batch(cell, facts, frozenset({1}))
    assert isinstance(found, BatchFound), found
    assert set_batch(found, 32) == ("train.batch_size = 32\nmodel.fit(train)", ())


HELPER = """def files(gen, folder{parameters}):
    {body}
"""
FLOW = "gen.flow_from_directory(folder, batch_size=64)"


@pytest.mark.parametrize(
    ("body", "parameters", "called", "offered"),
    [
        (f"return {FLOW}", "", "files(gen, 'a')", True),
        (f"flow = {FLOW}\n    return flow", "", "files(gen, 'a')", True),
        ("return gen.flow_from_dataframe(folder, batch_size=size)", ", size=64", "files(gen, table, size=64)", True),
        (f"a = {FLOW}\n    b = {FLOW}\n    return zip(a, b)", "", "files(gen, 'a')", False),
        (f"flow = {FLOW}\n    flow = thrice(flow)\n    return flow", "", "files(gen, 'a')", False),
        (f"if folder:\n        return {FLOW}\n    return other(folder)", "", "files(gen, 'a')", False),
        (f"for x in {FLOW}:\n        yield x", "", "files(gen, 'a')", False),
        ("return gen.flow(folder)", "", "files(gen, pairs)", False),
    ],
)
def test_an_iterator_of_keras_may_come_from_a_function_of_the_notebook(body, parameters, called, offered):
    made = HELPER.format(parameters=parameters, body=body)
    cell = read_cell("model.fit(train, steps_per_epoch=5)")
    assert isinstance(cell, PythonCell)
    facts = Facts(
        models=(ModelFacts("model"),),
        datasets=(DatasetFacts("train", "PyDataset", 64),),
        batches=(BatchSeen("fit", 64, "PyDataset"),),
        earlier_cells=(made, f"train = {called}"),
    )
    found = find_batch(cell, facts, frozenset({1}))
    assert isinstance(found, BatchFound) == offered, found
    if isinstance(found, BatchFound):
        assert set_batch(found, 32)[0] == "train.batch_size = 32\nmodel.fit(train, steps_per_epoch=10)"
