"""The remedy ``close-sessions``: open sessions are found by name, and closing them really frees their memory."""

from pathlib import Path

import pytest

from tests.kernel import bfc
from tests.script import found_by
from tf_mem_magic.core.facts import Facts
from tf_mem_magic.core.proposals import Context
from tf_mem_magic.core.recording import Cell, Recording
from tf_mem_magic.remedies.close_sessions import propose

ROOT = Path(__file__).resolve().parents[2]
MIB = 2**20

SCRIPT = """
import json
import tensorflow as tf
from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.proposals import Context
from tf_mem_magic.core.recording import Cell, Recording
from tf_mem_magic.remedies.close_sessions import propose
from tf_mem_magic.facts.before import snapshot
from tf_mem_magic.facts.gather import gather_facts
v1, found = tf.compat.v1, {}

def opened():
    with tf.Graph().as_default():
        v1.get_variable("w", (10, 1024, 1024), initializer=v1.zeros_initializer())
        session = v1.Session()
        session.run(v1.global_variables_initializer())
    return session

tf.constant(1.0) + 1
used = lambda: tf.config.experimental.get_memory_info("CPU:0")["current"]
names = {"sess": opened(), "nets": {"b": opened()}, "done": opened(), "model": 3}
names["same"] = names["sess"]
names["done"].close()
before = snapshot(names)
names["new"] = opened()
cell = Cell("%%tfmem\\nresult = model + 1\\n")
facts = gather_facts(names, before, cell.source)
found["sessions"] = facts.sessions
(proposal,) = propose(Context(cell, Recording(cell, status="oom", facts=facts), Diagnosis("CPU:0")))
found["source"] = proposal.source
found["full"] = used()
exec(proposal.source.partition("\\n")[2], names)
found["after"], found["result"] = used(), names["result"]
found["left"] = gather_facts(names, before, cell.source).sessions
print("FOUND" + json.dumps(found))
"""


@pytest.fixture(scope="module")
def found():
    return found_by(SCRIPT, env=bfc(512))


@pytest.mark.tf
def test_open_sessions_from_before_the_cell_are_found_once_each(found):
    assert ["sess", "nets['b']"] == found["sessions"]


@pytest.mark.tf
def test_the_edited_cell_closes_them_and_does_what_it_did(found):
    assert ("%%tfmem\nsess.close()\nnets['b'].close()\nresult = model + 1\n", 4) == (found["source"], found["result"])


@pytest.mark.tf
def test_closing_gives_back_what_their_variables_held(found):
    assert found["full"] - found["after"] >= 2 * 40 * MIB


@pytest.mark.tf
def test_afterwards_none_is_open(found):
    assert [] == found["left"]


def test_the_lines_stand_outside_a_text_that_ends_on_the_first_line():
    source = '"""Train.\n"""; model.fit(x, y)\n'
    recording = Recording(Cell(source), facts=Facts(sessions=("sess",)))
    assert f"sess.close()\n{source}" == propose(Context(Cell(source), recording))[0].source
