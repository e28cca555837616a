"""How many samples a call surely gets: columns are no samples, a list of a list is one for each entry."""

from __future__ import annotations

import pytest

from tf_mem_magic.core.facts import Facts, ModelFacts, NamedValue
from tf_mem_magic.notebook.batch.samples import count_samples
from tf_mem_magic.notebook.follow.reader import Reader
from tf_mem_magic.notebook.text.cell import PythonCell, read_cell

TABLE = NamedValue("table", 9, "pandas.DataFrame", shape=(200, 7))
FACTS = Facts(models=(ModelFacts("model"),), values=(TABLE,))


def counted(source):
    """Count the samples of the last call's first argument."""
    cell = read_cell(source)
    assert isinstance(cell, PythonCell)
    reader = Reader(cell, FACTS, frozenset({source.count("\n") + 1}))
    call = max(cell.calls, key=lambda c: (c.lineno, -c.col_offset))
    predict = next((c for c in cell.calls if getattr(c.func, "attr", "") == "predict"), call)
    return count_samples(reader, predict.args[0])


@pytest.mark.parametrize(
    ("source", "right"),
    [
        ("x = table[['a', 'b', 'c']].values\nmodel.predict(x)", 200),
        ("model.predict(table[['a']])", 200),
        ("model.predict(table['text'])", 200),
        ("x = df[['cylinders', 'year']].values\nmodel.predict(x)", None),
        ("x = df[[one, two]]\nmodel.predict(x)", None),
        ("x = images[[3, 5, 9]]\nmodel.predict(x)", 3),
        ("x = images[:]\nmodel.predict(x)", None),
        ("x = images[:, :, :, :3]\nmodel.predict(x)", None),
        ("x = np.expand_dims(image, axis=0)\nx = x[:, :, :, :3]\nmodel.predict(x)", 1),
        ("x = images[:5, ..., :3]\nmodel.predict(x)", 5),
        ("tokens = tokenizer([query])\nmodel.predict(tokens['input_ids'])", 1),
        ("t = tokenizer([a, b])\nmodel.predict([np.array(t['ids']), np.array(t['mask'])])", 2),
        ("x = image.reshape((1,) + image.shape)\nx = rescale_layer(x)\nmodel.predict(x)", 1),
        ("x = images[:4]\nx = normalize(x)\nmodel.predict(x)", 4),
        ("x = np.expand_dims(img, 0) / 255.0\nmodel.predict(x)", 1),
        ("x = (np.expand_dims(img, 0) - mean) / std\nmodel.predict(x)", 1),
        ("x = 2 * images[:4] + noise\nmodel.predict(x)", 4),
        ("x = np.expand_dims(a, 0) + steps[:, None] * b\nmodel.predict(x)", None),
        ("one = np.expand_dims(a, 0)\nmodel.predict(one + alphas * (one - one))", None),
        ("model.predict(np.expand_dims(a, 0) + images[:7])", 7),
        ("one = t.texts_to_sequences([seed])[0]\none = pad_sequences([one], maxlen=9)\nmodel.predict(one)", 1),
        ("model.predict(tf.keras.utils.pad_sequences([a, b], padding='pre'), verbose=0)", 2),
        ("model.predict(pad_sequences([*rows], maxlen=9))", None),
        ("model.predict(pad_sequences(rows, maxlen=9))", None),
        ("rows = [[0.0], [1.0], [2.0]]\nmodel.predict(np.array(rows))", 3),
        ("model.predict(np.array([[0.0, 1.0], [2.0, 3.0]]))", 2),
        ("zs = []\nfor a in grid:\n    zs.append(a)\nzs = np.stack(zs, axis=0)\nmodel.predict(zs)", None),
        ("imgs = []\nfor f in files:\n    imgs.append(load(f))\nmodel.predict(np.array(imgs) / 255.0)", None),
        ("rows = [first]\nrows.extend(more)\nmodel.predict(np.asarray(rows))", None),
        ("rows = [first]\nrows += more\nmodel.predict(np.asarray(rows))", None),
        ("texts = []\nfor t in table:\n    texts.insert(0, t)\nmodel.predict(vectorizer(texts))", None),
        ("rows = list()\nfor f in files:\n    rows.append(f)\nx = tf.stack(rows)\nmodel.predict(x)", None),
        ("model.predict(np.array([first, *others]))", None),
        ("rows = [a, b]\nprint(rows[0])\nmodel.predict(np.stack(rows))", 2),
    ],
)
def test_samples_are_counted_along_the_first_axis(source, right):
    assert counted(source) == right


@pytest.mark.parametrize(
    ("call", "right"),
    [
        ("act([[0.0], [1.0], [2.0]])", 3),
        ("act(inp=[[0.0, 1.0]])", 1),
        ("act(rows)", None),
        ("act([[1.0]]) + act([[1.0], [2.0]])", None),
    ],
)
def test_a_parameter_has_the_samples_that_it_is_given(call, right):
    source = f"def act(inp):\n    inp = np.array(inp, dtype='float32')\n    return model.predict(inp)\n{call}"
    assert counted(source) == right


@pytest.mark.parametrize("given", ["images[:5]", "np.zeros((5, 8))", "table.head()"])
def test_a_parameter_that_is_handed_on_has_them_too(given):
    assert counted(f"def show(net, rows):\n    return model.predict(rows)\nshow(model, {given})") == 5


@pytest.mark.parametrize(
    ("body", "right"),
    [
        ("    return np.expand_dims(load(path), axis=0)", 1),
        ("    img = np.expand_dims(load(path), 0)\n    img = preprocess_input(img)\n    return img", 1),
        ("    return images[:6]", 6),
        ("    if path:\n        return images[:6]\n    return images[:2]", None),
        ("    return images[:6], labels[:6]", None),
        ("    return load(path)", None),
        ("    return prepare(path)", None),
    ],
)
def test_what_a_function_of_the_cell_gives_back_is_counted(body, right):
    assert counted(f"def prepare(path):\n{body}\nmodel.predict(prepare('a.png'))") == right


@pytest.mark.parametrize(
    "made", ["parts = [age, sex, pain, sugar]", "parts = [table[c] for c in names]", "parts = (images, masks, edges)"]
)
@pytest.mark.parametrize(
    "call", ["model.predict(parts[:2])", "model.predict(parts[1:3])", "model.predict(parts[-3:2], verbose=0)"]
)
def test_a_slice_of_a_list_of_inputs_leaves_out_inputs(made, call):
    assert counted(f"{made}\n{call}") is None


@pytest.mark.parametrize("made", ["texts = ['a', 'b', 'c']", "texts = np.array([a, b, c])", "texts = load()"])
def test_a_slice_of_anything_else_leaves_out_samples(made):
    assert counted(f"{made}\nmodel.predict(texts[:2])") == 2
