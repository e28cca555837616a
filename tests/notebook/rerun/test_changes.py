"""What a failed run already changed."""

import pytest

from tf_mem_magic.core.facts import DatasetFacts, Facts, ModelFacts
from tf_mem_magic.notebook.rerun.changes import find_changes


def changed(source, reached=None):
    return [(c.kind, c.name) for c in find_changes(source, Facts(), reached)]


def test_steps_on_a_model_that_existed_before_are_told_with_their_number():
    facts = Facts(models=(ModelFacts("model", steps=15, steps_before=3),), steps_done=12)
    texts = [c.text for c in find_changes("model.fit(x)", facts)]
    assert ["`model` existed before this cell and took 12 training steps in it: a rerun goes on from there."] == texts


def test_one_step_is_one_step():
    facts = Facts(models=(ModelFacts("model", steps=1, steps_before=0),), steps_done=1)
    assert "took 1 training step in it:" in find_changes("model.fit(x)", facts)[0].text


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        (1, "took 1 training step in it, which may not have ended: a rerun"),
        (7, "took 7 training steps in it, the last of which may not have ended: a rerun"),
    ],
)
def test_of_a_loop_of_ones_own_it_is_not_known_whether_the_last_step_ended(steps, told):
    facts = Facts(models=(ModelFacts("model", steps=steps, steps_before=0),))
    assert told in find_changes("for x in data:\n    step(x)", facts, reached=2)[0].text


def test_a_first_step_that_failed_is_not_told_as_taken():
    facts = Facts(models=(ModelFacts("model", steps=1, steps_before=0),), steps_done=0)
    expected = (
        "`model` existed before this cell and began a training step in it, which may have changed some weights: "
        "a rerun goes on from there."
    )
    assert [expected] == [change.text for change in find_changes("", facts)]


def test_steps_on_a_model_that_the_cell_made_are_not_told():
    assert () == find_changes("", Facts(models=(ModelFacts("model", steps=15),)))


def test_a_model_that_took_no_step_is_not_told():
    assert () == find_changes("", Facts(models=(ModelFacts("model", steps=3, steps_before=3),)))


@pytest.mark.parametrize(
    "source",
    [
        "x = x / 255",
        "x /= 255",
        "x = np.concatenate([x, y])",
        "%%tfmem\nx = x.astype('float32')",
        "x, y = f(x), 3",
        "for i in range(3):\n    x = x * 2",
        "with tf.device('GPU:0'):\n    x += 1",
        "x.append(1)",
        "x.update(a=1)",
        "x[:] /= 255",
        "x['a'] = x['a'] / 255",
        "x.drop(columns=['a'], inplace=True)",
        "np.random.shuffle(x)",
        "last = x.pop()",
        "del x['a']",
        "x.assign_add(1.0)",
        "!ls\nx = x / 255",
    ],
)
def test_a_name_changed_from_its_own_value_is_told(source):
    assert [("reassigned", "x")] == changed(source)


@pytest.mark.parametrize(
    "source",
    [
        "x = load()\nx = x / 255",
        "x = 3",
        "x = []\nx.append(1)",
        "def f():\n    x = x + 1",
        "for x in data:\n    x = x + 1",
        "cfg.batch = 3",
        "d['a'] = 1",
        "y = [x for x in x_all]",
        "total = 0\nfor i in range(3):\n    total += i",
        "import x\nx.add(3)",
        "x.fit(y)",
        "z = x.add(y)",
        "this is no python",
        "",
    ],
)
def test_what_a_rerun_does_alike_is_not_told(source):
    assert [] == changed(source)


@pytest.mark.parametrize(
    ("source", "file"),
    [
        ("with open('out.txt', 'w') as f:\n    f.write('a')", "out.txt"),
        ("open('log.txt', mode='a').write('a')", "log.txt"),
        ("Path('a.txt').write_text('b')", "a.txt"),
        ("Path('a.txt').open('w')", "a.txt"),
        ("np.save('x.npy', x)", "x.npy"),
        ("df.to_csv('t.csv', index=False)", "t.csv"),
        ("df.to_csv(path_or_buf=target)", "target"),
        ("model.save('m.keras')", "m.keras"),
        ("model.save_weights(folder / 'w.h5')", "folder / 'w.h5'"),
        ("keras.models.save_model(model, 'm.keras')", "m.keras"),
        ("model.fit(x, callbacks=[keras.callbacks.ModelCheckpoint('c.keras')])", "c.keras"),
        ("cb = TensorBoard(log_dir='runs')", "runs"),
        ("plt.savefig('a.png')", "a.png"),
        ("joblib.dump(x, 'x.joblib')", "x.joblib"),
        ("!python make.py > out.log", "out.log"),
        ("!wget https://example.org/a.zip", "the files of `wget`"),
        ("%%writefile train.py\nprint(1)", "train.py"),
        ("%%tfmem\n%%writefile -a train.py\nprint(1)", "train.py"),
        ("%%bash\necho a > b.txt", "b.txt"),
        ("os.remove('old.txt')", "old.txt"),
        ("!rm -rf cache", "cache"),
        ("def go():\n    np.save('x.npy', x)\ngo()", "x.npy"),
    ],
)
def test_a_file_that_may_be_written_or_deleted_is_told(source, file):
    assert [("file", file)] == changed(source)


@pytest.mark.parametrize(
    "source",
    [
        "open('a.txt').read()",
        "open('a.txt', 'rb')",
        "text = df.to_csv()",
        "form.save()",
        "def go():\n    np.save('x.npy', x)",
        "!nvidia-smi",
        "!ls 2>&1",
        "!python a.py > /dev/null",
        "fig.save",
    ],
)
def test_what_writes_nothing_is_not_told(source):
    assert [] == changed(source)


def test_a_deleted_file_is_called_deleted():
    assert "The cell may have deleted `a`; a rerun may do so again." == find_changes("os.remove('a')", Facts())[0].text


def test_what_stands_below_the_line_that_failed_did_not_happen():
    source = "x = x / 255\nmodel.fit(x)\ny = y / 255\nmodel.save('m.keras')"
    assert [("reassigned", "x")] == changed(source, reached=2)


def test_the_assignment_that_failed_did_not_happen():
    assert [] == changed("x = x @ x", reached=1)


LOOP = "for epoch in range(9):\n    total = 0\n    for x in data:\n        total += step(x)\n    losses.append(total)\n"


@pytest.mark.parametrize(
    ("source", "reached", "told"),
    [
        (LOOP, 4, "may have been"),
        (LOOP.replace("    total = 0", "    seen.clear()").replace("losses.append(total)", "pass"), 4, "was"),
        ("while True:\n    step(next(data))\n    table['loss'] += 1\n", 2, "may have been"),
        ("for x in data:\n    kept[0] += x\n    step(x)\n    kept[1] += x\n", 3, "was"),
        ("for x in data:\n    losses.append(step(x))\n", 2, "may have been"),
        ("losses.append(step(x))\n", 1, ""),
        ("for x in data:\n    step(x)\nlosses.append(1)\n", 2, ""),
        ("losses.append(1)\nstep(x)\n", 2, "was"),
    ],
)
def test_what_is_changed_after_the_failing_line_may_have_been_changed_in_an_earlier_round(source, reached, told):
    texts = [c.text for c in find_changes(source, Facts(), reached) if "changed in place" in c.text]
    assert [f" {told} changed in place" in text for text in texts] == [True] * bool(told)


def test_a_name_is_told_once():
    assert [("reassigned", "x")] == changed("x = x / 255\nx = x - 1\nx[0] += 1")


def test_a_function_of_an_imported_module_changes_no_value():
    assert () == find_changes("books.append(1)", Facts(earlier_cells=("import library.books as books",)))


@pytest.mark.parametrize(
    ("source", "data", "told"),
    [
        ("model.fit(data)", DatasetFacts("data", "generator"), True),
        ("for x, y in data:\n    step(x, y)", DatasetFacts("data", "generator"), True),
        ("data = batches()\nmodel.fit(data)", DatasetFacts("data", "generator", is_new=True), False),
        ("model.fit(x)\nmodel.fit(data)", DatasetFacts("data", "generator"), False),
        ("model.fit(data)", DatasetFacts("data", "tf.data"), False),
        ("def f():\n    return data", DatasetFacts("data", "generator"), False),
    ],
)
def test_a_generator_that_the_run_drew_from_is_told(source, data, told):
    found = find_changes(source, Facts(datasets=(data,)), reached=1)
    assert told == any("`data` is a generator, which can be read only once" in change.text for change in found)
