"""The number of samples behind batches, on real datasets."""

import pytest

from tests.script import found_by

SCRIPT = """
import json
import tensorflow as tf
from tf_mem_magic.facts.data import dataset_samples
ten = tf.data.Dataset.range(10)
datasets = {
    "batch": ten.batch(4),
    "parallel": ten.batch(4, num_parallel_calls=2),
    "drop_remainder": ten.batch(4, drop_remainder=True),
    "padded": ten.padded_batch(4),
    "pipeline": ten.shuffle(3).batch(4).map(lambda x: x, num_parallel_calls=2).cache().prefetch(1),
    "take": ten.batch(4).take(2),
    "repeat": ten.batch(4).repeat(2),
    "filter": ten.filter(lambda x: x > 3).batch(4),
    "rebatch": ten.batch(4).rebatch(2),
    "twice": ten.batch(2).batch(4),
    "plain": ten,
    "endless": ten.repeat().batch(4),
    "claimed": ten.apply(tf.data.experimental.assert_cardinality(10)).batch(4),
}
print("FOUND" + json.dumps({name: dataset_samples(one) for name, one in datasets.items()}))
"""

EXPECTED = {
    "batch": 10,
    "parallel": 10,
    "drop_remainder": 8,
    "padded": 10,
    "pipeline": 10,
    "take": None,
    "repeat": None,
    "filter": None,
    "rebatch": None,
    "twice": 5,
    "plain": None,
    "endless": None,
    "claimed": 10,
}


@pytest.fixture(scope="module")
def counted():
    return found_by(SCRIPT)


@pytest.mark.tf
@pytest.mark.parametrize("name", EXPECTED)
def test_samples_are_counted_only_where_that_is_exact(counted, name):
    assert EXPECTED[name] == counted[name]
