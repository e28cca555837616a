"""A step whose tensors have another shape at each call would be traced anew for each of them."""

from __future__ import annotations

import pytest

from tests.remedies.graph_mode.test_remedy import BUILD, IMPORTS, STEP, ask
from tf_mem_magic.core.proposals import Declined, Proposal

HEAD = BUILD + STEP.format("").partition("losses = []")[0]
CHANGES = [
    "for a, b in data:\n    t = np.random.randint(1, 64)\n    step(a[:, :t], b[:, :t])",
    "for a, b in data:\n    side = random.choice([96, 128])\n    step(tf.image.resize(a, (side, side)), b)",
    "for a, b in data:\n    side = random.choice([96, 128])\n    a = tf.image.resize(a, [side, side])\n    step(a, b)",
    "for n in range(8, 65):\n    step(x[:n], y[:n])",
    "for i, (a, b) in enumerate(data):\n    step(a[:, i:], b)",
    "said = x[:1]\nfor a, b in data:\n    step(said, b)\n    said = tf.concat([said, a], axis=0)",
    "ds = raw.padded_batch(32)\nfor a, b in ds:\n    step(a, b)",
    "ds = raw.shuffle(99).padded_batch(32, padded_shapes=([None], [])).prefetch(1)\nfor a, b in tqdm(ds):\n    step(a, b)",
    "ds = raw.bucket_by_sequence_length(len, [8, 16], [4, 4, 4])\nds = ds.map(f)\nfor i, (a, b) in enumerate(ds):\n    step(a, b)",
]
STAYS = [
    "for i in range(0, 160, 64):\n    step(x[i : i + 64], y[i : i + 64])",
    "for i in range(9):\n    step(x[i * 64 : (i + 1) * 64], y[i * 64 : (i + 1) * 64])",
    "for a, b in data:\n    step(a[:, :48], b[:, 1:])",
    "for a, b in data:\n    step(tf.image.resize(a, (96, 96)), b)",
    "for a, b in data:\n    noise = tf.random.normal([64, 100])\n    step(a + noise, b)",
    "ds = raw.padded_batch(32, padded_shapes=([40], [40]))\nfor a, b in ds:\n    step(a, b)",
    "ds = raw.batch(32)\nother = raw.padded_batch(32)\nfor a, b in ds:\n    step(a, b)",
]


@pytest.mark.parametrize("loop", CHANGES)
def test_a_step_whose_shapes_change_stays_eager(loop):
    answer = ask(HEAD + loop + "\n")
    assert isinstance(answer, Declined), answer.diff
    assert "whose shape may be another at each call: each would be traced anew" in answer.reason
    if loop.startswith("ds ="):
        made, _, rest = loop.partition("\nfor")
        answer = ask(f"{HEAD}for{rest}\n", earlier=(IMPORTS, made))
        assert "whose shape may be another at each call" in answer.reason


@pytest.mark.parametrize("loop", STAYS)
def test_a_step_whose_shapes_stay_becomes_a_graph(loop):
    answer = ask(HEAD + loop + "\n")
    assert isinstance(answer, Proposal), answer.reason
