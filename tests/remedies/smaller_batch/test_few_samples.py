"""Calls of Keras that were seen to get fewer samples than their batch size, as of replays that learn one by one."""

from __future__ import annotations

import pytest

from tests.remedies.smaller_batch.test_remedy import ask
from tf_mem_magic.core.facts import BatchSeen, Facts, ModelFacts, ScalarFact
from tf_mem_magic.core.proposals import Declined, Proposal

AGENT = """class Agent:
    def __init__(self, net):
        self.net, self.kept = net, deque(maxlen=2000)

    def replay(self, batch_size):
        for state, act, reward, after in random.sample(self.kept, batch_size):
            goal = self.net.predict(state)
            goal[0][act] = reward + 0.9 * self.net.predict(after).max()
            self.net.fit(state, goal, epochs=1, verbose=0)
"""
HERE = AGENT + "\nbatch_size = 32\nagent = Agent(model)\nfor game in range(50):\n    agent.replay(batch_size)\n"
EARLIER = (
    "for game in range(50):\n    play(agent)\n    if len(agent.kept) > batch_size:\n        agent.replay(batch_size)\n"
)
FUNCTION = (
    "def learn(memory, batch):\n    picked = random.choices(memory, k=batch)\n    for one, goal in picked:\n"
    "        model.fit(one[None], goal[None], verbose=0)\n\nlearn(memory, 32)\n"
)
PLAIN = "batch_size = 32\nfor seen, goal in random.sample(memory, batch_size):\n    model.fit(seen, goal, verbose=0)\n"


def answer(source, line, samples, *earlier):
    seen = (BatchSeen("fit", 32, "arrays", samples),)
    known = Facts(
        "2.21.0",
        "3.15.1",
        True,
        models=(ModelFacts("model"),),
        batches=seen,
        scalars=(ScalarFact("batch_size", 32),),
        earlier_cells=("memory, agent = load()", *earlier),
    )
    return ask(source, known, line=line)


@pytest.mark.parametrize(
    ("source", "line", "earlier"),
    [(HERE, 9, ()), (EARLIER, 4, (AGENT,)), (FUNCTION, 4, ()), (PLAIN, 3, ())],
)
def test_a_call_that_gets_one_sample_has_no_smaller_batch(source, line, earlier):
    found = answer(source, line, 1, *earlier)
    assert isinstance(found, Declined), found.diff
    assert "computes one sample, and no batch is smaller" in found.reason


@pytest.mark.parametrize("source", ["model.fit(few, goal)", "model.fit(few, goal, batch_size=32)"])
def test_fewer_samples_than_the_batch_are_the_batch(source):
    found = answer(source, 1, 20)
    assert isinstance(found, Proposal), found.reason
    assert found.source == "model.fit(few, goal, batch_size=10)"
    assert "The call gets 20 samples, fewer than its batch size of 32." in found.caveats
    usual = answer(source, 1, None)
    assert isinstance(usual, Proposal), usual.reason
    assert usual.source == "model.fit(few, goal, batch_size=16)"
