"""What a loop goes through, behind progress bars, names and ``with``: its batches, and how many of them it takes."""

from __future__ import annotations

import pytest

from tests.remedies.smaller_batch.test_remedy import ask
from tf_mem_magic.core.facts import Facts
from tf_mem_magic.core.proposals import Declined, Proposal

EARLIER = (
    "import itertools\nimport keras\nimport tensorflow as tf\nimport tensorflow_datasets as tfds\n"
    "from tqdm import tqdm\nfrom tqdm.auto import trange\nfrom rich.progress import track\n"
    "from alive_progress import alive_it\nadam = keras.optimizers.Adam()\n"
)
DATA = "rows = tf.data.Dataset.from_tensor_slices((x, y)).batch(64)\n"
STEP = """with tf.GradientTape() as tape:
    loss = tf.reduce_mean((model(a) - b) ** 2)
gradients = tape.gradient(loss, model.trainable_variables)
adam.apply_gradients(zip(gradients, model.trainable_variables))
"""


def answer(head, earlier=EARLIER):
    last = head.splitlines()[-1]
    depth = len(last) - len(last.lstrip()) + 4 * last.endswith(":")
    source = DATA + head + "".join(f"{' ' * depth}{line}\n" for line in STEP.splitlines())
    line = next(n for n, text in enumerate(source.splitlines(), 1) if "model(a)" in text)
    facts = Facts("2.21.0", "3.15.1", True, earlier_cells=(earlier,))
    return source, ask(source, facts, line=line)


ALL_OF_IT = [
    "with tqdm(rows) as bar:\n    for a, b in bar:\n",
    "with tqdm(rows, unit='batch', desc='training') as bar:\n    for a, b in bar:\n",
    "with tqdm(enumerate(rows), total=10) as bar:\n    for step, (a, b) in bar:\n",
    "for epoch in range(3):\n    with tqdm(rows) as bar:\n        for step, (a, b) in enumerate(bar):\n",
    "for a, b in track(rows, description='training'):\n",
    "for step, (a, b) in enumerate(alive_it(rows)):\n",
    "for a, b in tfds.as_numpy(rows):\n",
    "bar = tqdm(rows)\nfor a, b in bar:\n",
    "steps = enumerate(tqdm(rows))\nfor step, (a, b) in steps:\n",
]
COUNTED = [
    "bar = tqdm(itertools.islice(rows, 100))\nfor a, b in bar:\n",
    "some = itertools.islice(rows, 100)\nfor step, (a, b) in enumerate(some):\n",
    "with tqdm(itertools.islice(rows, 100)) as bar:\n    for a, b in bar:\n",
    "with tqdm(zip(range(100), rows)) as bar:\n    for step, (a, b) in bar:\n",
    "pairs = zip(rows, range(100))\nfor (a, b), step in tqdm(pairs):\n",
    "numbered = enumerate(rows)\nfor step, (a, b) in numbered:\n    if step >= 100: break\n    here = step\n",
]


@pytest.mark.parametrize("head", ALL_OF_IT)
def test_data_are_found_behind_what_shows_the_way_through_them(head):
    source, found = answer(head)
    assert isinstance(found, Proposal), found.reason
    assert found.source == source.replace(".batch(64)", ".batch(32)")


@pytest.mark.parametrize("head", COUNTED)
def test_a_number_of_batches_grows_wherever_it_stands(head):
    source, found = answer(head)
    assert isinstance(found, Proposal), found.reason
    assert found.source == source.replace(".batch(64)", ".batch(32)").replace("100", "200")


@pytest.mark.parametrize(
    "head",
    [
        "with tqdm(rows) as bar:\n    bar = other(bar)\n    for a, b in bar:\n",
        "with opened(rows) as bar:\n    for a, b in bar:\n",
        "bar = tqdm(rows)\nif quick:\n    bar = tqdm(few)\nfor a, b in bar:\n",
    ],
)
def test_what_may_be_something_else_is_not_taken_for_it(head):
    assert isinstance(answer(head)[1], Declined)


def test_a_function_of_the_notebook_that_is_called_like_a_bar_is_none():
    own = EARLIER.replace("from rich.progress import track\n", "def track(rows):\n    return rows.batch(8).unbatch()\n")
    assert isinstance(answer("for a, b in track(rows):\n", own)[1], Declined)
