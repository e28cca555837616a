"""Where the batch size goes to a function that draws its batches, it takes as many steps, and the offer says that."""

import pytest

from tests.remedies.smaller_batch.test_remedy import ask
from tf_mem_magic.core.facts import Facts, ModelFacts
from tf_mem_magic.core.proposals import Proposal
from tf_mem_magic.notebook.batch.found import BatchFound
from tf_mem_magic.notebook.batch.search import find_batch
from tf_mem_magic.notebook.text.cell import PythonCell, read_cell

STEP = "        D.train_on_batch(x[np.random.randint(0, len(x), bs)], np.ones((bs, 1)))\n"
CLASS = "class Gan:\n    def train(self, epochs, batch_size=128, every=50):\n        real = np.ones((batch_size, 1))\n"
AS_MANY = [
    ("def train(turns, bs=64):\n    for turn in range(turns):\n" + STEP, "train(3000, bs=32)"),
    ("def learn(bs, turns=9):\n    for turn in tqdm(range(1, turns + 1)):\n" + STEP, "learn(bs=32)"),
    (
        "def train(bs):\n    half = bs // 2\n    for e in range(9):\n        for s in trange(100):\n"
        "            z = noise(half)\n            D.train_on_batch(z, z)\n",
        "train(bs=32)",
    ),
    (
        CLASS + "        for e in range(epochs):\n            self.d.train_on_batch(draw(batch_size), real)\n",
        "gan.train(4000, batch_size=32)",
    ),
    (
        CLASS + "        for e in range(epochs):\n            for k in range(self.turns):\n"
        "                self.train_critic(draw(batch_size))\n            self.d.train_on_batch(draw(batch_size), real)\n    def train_critic(self, x):\n        self.d.train_on_batch(x, x)\n",
        "gan.train(epochs=4000, batch_size=32, every=10)",
    ),
]
GROWS = [
    (
        "def train_epoch(e, bs):\n    for x, y in data.batch(bs):\n        D.train_on_batch(x, y)\n"
        "def train(bs, epochs=30):\n    for e in range(epochs):\n        train_epoch(e, bs)\n",
        "train(bs=32)",
    ),
    (
        CLASS + "        for e in range(epochs):\n            self.train_epoch(batch_size)\n"
        "    def train_epoch(self, n):\n        for x in self.batches(n):\n            self.d.train_on_batch(x, x)\n",
        "gan.train(3, batch_size=32)",
    ),
    (
        "def train(bs):\n    for e in range(9):\n        train_elsewhere(e, bs)\n        D.train_on_batch(x, y)\n",
        "train(bs=32)",
    ),
    (
        "def train(a, bs):\n    for i in range(len(a) // bs):\n        D.train_on_batch(a[i * bs :][:bs])\n",
        "train(x, bs=32)",
    ),
    (
        "def train(a, bs):\n    n = len(a) // bs\n    turns = n + 1\n    for i in range(turns):\n"
        "        D.train_on_batch(a[i * bs :][:bs])\n",
        "train(x, bs=32)",
    ),
    (
        CLASS + "        for xs in batches(batch_size):\n            self.d.train_on_batch(xs, real)\n",
        "gan.train(3, batch_size=32)",
    ),
    (
        CLASS + "        while self.seen < 900:\n            self.d.train_on_batch(draw(batch_size), real)\n",
        "gan.train(3, batch_size=32)",
    ),
    (
        "def train(bs, turns):\n    for turn in range(turns):\n" + STEP,
        "batch_size = 32\ntrain(bs=batch_size, turns=6400 // batch_size)",
    ),
]


def steps_told(earlier, call):
    """Ask about a call of what an earlier cell defines; give what the offer says of steps."""
    facts = Facts(
        models=(ModelFacts("D"),), earlier_cells=(earlier, "gan = Gan()" if "class" in earlier else "x = load()")
    )
    answer = ask(call, facts)
    assert isinstance(answer, Proposal), answer.reason
    return [c for c in answer.caveats if "steps" in c]


@pytest.mark.parametrize(("earlier", "call"), AS_MANY)
def test_a_loop_over_numbers_takes_as_many_steps(earlier, call):
    name = call.partition("(")[0].split(".")[-1]
    told = [f"The loop in `{name}` takes as many steps as before, each with fewer samples."]
    assert steps_told(earlier, call) == told


@pytest.mark.parametrize(("earlier", "call"), GROWS)
def test_a_loop_that_goes_by_the_batch_takes_more(earlier, call):
    assert steps_told(earlier, call) == ["Each epoch takes more steps."]


REPLAYS = [
    (
        "def replay(bs):\n    some = random.sample(memory, bs)\n    D.fit(np.array(some), make(some), batch_size=bs)\n",
        "replay(bs=32)",
    ),
    (
        "def replay(m, batch_size):\n    x = []\n    for s in sample(m, batch_size):\n        x.append(s)\n"
        "    D.fit(np.array(x), make(x), batch_size=batch_size, verbose=0)\n",
        "replay(memory, batch_size=32)",
    ),
    (
        "def replay(bs):\n    x = np.zeros((bs, 4))\n    for i in range(bs):\n        x[i] = draw()\n"
        "    D.fit(x=x, y=make(x), batch_size=bs)\n",
        "for turn in range(9):\n    replay(bs=32)",
    ),
]
WHOLE = [
    ("def replay(bs):\n    D.fit(x, y, batch_size=bs)\n", "replay(bs=32)"),
    ("def replay(bs):\n    n = len(x) // bs\n    print(n)\n    D.fit(x, y, batch_size=bs)\n", "replay(bs=32)"),
    ("def replay(bs):\n    p = D.predict(x, batch_size=bs)\n    D.fit(x, p, batch_size=bs)\n", "replay(bs=32)"),
]


@pytest.mark.parametrize(("earlier", "call"), REPLAYS)
def test_a_fit_of_samples_drawn_by_the_batch_size_takes_as_many_steps(earlier, call):
    told = steps_told(earlier, call)
    assert told == ["Each call of `replay` takes as many steps as before, each with fewer samples."]


@pytest.mark.parametrize(("earlier", "call"), WHOLE)
def test_a_fit_of_all_samples_takes_more_steps(earlier, call):
    assert steps_told(earlier, call) == ["Each epoch takes more steps."]


WORDS = [
    "    with tf.GradientTape() as tape:\n        loss = 0\n        for t in range(1, y.shape[1]):\n"
    "            loss += entropy(y[:, t], D(x))\n",
    "    with tf.GradientTape() as tape, tf.name_scope('words'):\n        loss, t = 0, 0\n        while t < 9:\n"
    "            loss += entropy(y[:, t], D(x))\n            t += 1\n",
    "    for name in range(3):\n        x = widen(x, name)\n    with tf.GradientTape() as tape:\n        loss = entropy(y, D(x))\n",
]


@pytest.mark.parametrize("words", WORDS)
def test_a_loop_within_a_step_takes_no_steps(words):
    step = (
        "def train_step(x, y):\n" + words + "    adam.apply_gradients(zip(tape.gradient(loss, D.weights), D.weights))\n"
    )
    cell = f"data = load().batch(32)\n{step}for x, y in data.take(n):\n    train_step(x, y)"
    answer = ask(cell, Facts(models=(ModelFacts("D"),)))
    assert isinstance(answer, Proposal), answer.reason
    assert [c for c in answer.caveats if "steps" in c] == ["Each epoch takes more steps."]
    tree = read_cell(cell)
    assert isinstance(tree, PythonCell)
    within = next(n for n, text in enumerate(cell.splitlines(), 1) if "D(x)" in text)
    found = find_batch(tree, Facts(models=(ModelFacts("D"),)), frozenset({within, cell.count("\n") + 1}))
    assert isinstance(found, BatchFound)
    assert not found.infers
