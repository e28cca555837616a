"""A real out-of-memory in a program that XLA compiled: a restart comes first, and after it the smaller batch fits."""

from __future__ import annotations

import pytest

from tests.kernel import Kernel, bfc

pytestmark = [pytest.mark.kernel, pytest.mark.oldest, pytest.mark.tf, pytest.mark.timeout(900)]

SETUP = """%load_ext tf_mem_magic
import keras, numpy as np, tensorflow as tf, tf_mem_magic as t
from keras import layers
x = np.random.default_rng(1).random((8192, 256), "float32"); y = x[:, :1].copy()
def stack():
    return [keras.Input((256,))] + [layers.Dense(256, activation="relu") for _ in range(20)] + [layers.Dense(1)]
"""

CELL = """%%tfmem
model = keras.Sequential(stack())
model.compile("adam", "mse", jit_compile=True)
history = model.fit(x, y, batch_size=8192, epochs=2, verbose=0)
"""

OFFERED = """{p.key: (p.takes_effect, [(c.label, c.takes_effect) for c in p.choices], p.source)
    for p in t.last_report().proposals if isinstance(p, t.Proposal)}"""


AFTER = "(t.last_report().status, sorted({b.batch for b in t.last_report().recording.facts.batches}))"


@pytest.fixture(scope="module")
def live():
    """What the panel would offer, and where its offers of a smaller batch lead, each after a restart."""
    found = {}
    with Kernel(bfc(160)) as kernel:
        kernel.run(SETUP)
        ran = kernel.run(CELL)
        found["ran"], found["text"] = ran.status, ran.report_text
        found["status"], found["jit"] = kernel.value("(t.last_report().status, t.last_report().diagnosis.jit)")
        found["needed"] = kernel.value("t.last_report().diagnosis.text")
        found["offered"] = kernel.value(OFFERED)
        found["caveats"] = kernel.value("[c for p in t.last_report().proposals for c in getattr(p, 'caveats', ())]")
    source = found["offered"]["smaller-batch"][2]
    for _ in range(3):
        with Kernel(bfc(160)) as kernel:
            kernel.run(SETUP)
            kernel.run(source)
            found["after"] = kernel.value(AFTER)
            found["tried"] = source
            if found["after"][0] != "oom":
                break
            source = kernel.value(OFFERED)["smaller-batch"][2]
    return found


def test_it_is_known_to_be_a_program_of_xla(live):
    assert ("error", "oom", True) == (live["ran"], live["status"], live["jit"])
    assert "program that XLA compiled" in live["needed"]


def test_a_restart_comes_first_for_every_change(live):
    assert {"restart"} == {effect for effect, _, _ in live["offered"].values()}
    assert {"smaller-batch", "xla"} <= set(live["offered"])


def test_who_wants_to_can_do_without_a_restart(live):
    assert {("Without a restart", "rerun")} == {choices[-1] for _, choices, _ in live["offered"].values()}


def test_the_reason_is_said(live):
    assert "training again in the same kernel can end it" in " ".join(live["caveats"])


def test_a_restart_for_each_offer_ends_with_a_batch_that_fits(live):
    status, batches = live["after"]
    assert "ok" == status
    assert f"batch_size={batches[0]}," in live["tried"]
