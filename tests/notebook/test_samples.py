"""The data that a cell gave to a model, found in cells as people write them."""

from __future__ import annotations

import pytest

from tf_mem_magic.core.facts import DatasetFacts, Facts
from tf_mem_magic.notebook.samples import find_sample
from tf_mem_magic.notebook.text.cell import read_cell

GENERATOR = Facts(datasets=(DatasetFacts("batches", "generator"),))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("model.fit(x, y)", "x"),
        ("%%tfmem\n!pip list\n%matplotlib inline\nmodel.fit(x,\n          y)  # long", "x"),
        ("h = model.fit(\\\n  x_train[:100], y_train[:100], epochs=3)", "x_train[:100]"),
        ("model.fit(x=data['images'], y=data['labels'])", "data['images']"),
        ("model.fit([left, right], y)", "[left, right]"),
        ("model.fit({'a': a, 'b': b}, y)", "{'a': a, 'b': b}"),
        ("model.fit(self.train, epochs=2)", "self.train"),
        ("model.fit(x, y)\r\nmodel.evaluate(x_test, y_test)\r\n", "x_test"),
        ("with tf.device('GPU:0'):\n    for part in parts:\n        model.fit(part)", "part"),
        ("if True:\n    print(f'{model.predict(x):}')", "x"),
        ("model.fit(load(), y)", None),
        ("model.fit(x / 255, y)", None),
        ("model.fit(*data)", None),
        ("model.fit(y=y)", None),
        ("other.fit(x, y)", None),
        ("model.fit(batches)", None),
        ("model.fit(x, y)\ndel x", None),
        ("def train(x):\n    model.fit(x)\ntrain(images)", None),
        ("scores = [model.predict(one) for one in parts]", None),
        ("run = lambda x: model.predict(x)", None),
        ("model.fit(np.zeros(3))", None),
    ],
)
def test_the_inputs_are_given_as_an_expression_that_a_later_cell_can_use(source, expected):
    assert find_sample(read_cell(source), "model", GENERATOR) == expected
