"""``accumulate-gradients`` on real out-of-memory errors in a kernel: what ran, what fits, what undo takes back."""

from __future__ import annotations

import json

import pytest

from tests.kernel import Kernel, bfc
from tests.script import found_by

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.tf,
    pytest.mark.timeout(900),
]

SETUP = """%load_ext tf_mem_magic
import json, keras, numpy as np, tensorflow as tf, tf_mem_magic as t
x = np.zeros((8192, 256), "float32"); y = np.zeros((8192, 1), "float32")
stack = [keras.Input((256,))] + [keras.layers.Dense(512, "relu") for _ in range(8)] + [keras.layers.Dense(1)]
model = keras.Sequential(stack)
model.compile("adam", "mse", jit_compile=False)
model.fit(x[:64], y[:64], batch_size=32, verbose=0)
"""
CELL = "%%tfmem\nmodel.fit(x, y, batch_size=8192, verbose=0)\n"
RERUN = """report = t.last_report()
after = report.rerun("accumulate-gradients")
steps = model.optimizer.gradient_accumulation_steps
exec(after.comparison and next(p for p in report.proposals if p.key == "accumulate-gradients").undo)
print("FOUND" + json.dumps({
    "before": report.status, "after": after.status, "source": after.recording.cell.source, "steps": steps,
    "peak": after.comparison.after.peak, "limit": after.comparison.limit, "checks": after.comparison.checks,
    "undone": model.optimizer.gradient_accumulation_steps,
}))
"""


@pytest.fixture(scope="module")
def found():
    with Kernel(bfc(160)) as kernel:
        assert [] == kernel.run(SETUP).errors
        assert "ResourceExhaustedError" in "".join(kernel.run(CELL).errors)
        ran = kernel.run(RERUN)
        assert [] == ran.errors
        return json.loads(ran.out.partition("FOUND")[2])


def test_the_cell_that_ran_out_fits_in_a_few_parts(found):
    assert ("oom", "ok", True) == (found["before"], found["after"], found["peak"] <= found["limit"])
    assert found["steps"] in (2, 4)


def test_the_source_that_ran_is_the_visible_edit(found):
    steps = found["steps"]
    call = f"from tf_mem_magic import apply\napply.accumulate_gradients(model, {steps})\n"
    assert f"%%tfmem\n{call}model.fit(x, y, batch_size={8192 // steps}, verbose=0)\n" == found["source"]


def test_the_rerun_was_seen_to_use_the_smaller_batch(found):
    part = 8192 // found["steps"]
    assert [["batch", part, part]] == found["checks"]


def test_undo_makes_the_optimizer_update_at_every_batch_again(found):
    assert None is found["undone"]


MEASURE = """
import json, sys
import keras, numpy as np, tensorflow as tf
from tf_mem_magic.core.diagnosis import Diagnosis, Part
from tf_mem_magic.core.facts import Facts
from tf_mem_magic.core.proposals import Context
from tf_mem_magic.core.recording import Cell, Recording
from tf_mem_magic.remedies.accumulate_gradients.remedy import propose
from tf_mem_magic.facts.before import snapshot
from tf_mem_magic.facts.gather import gather_facts
batch, steps = json.load(sys.stdin)
x = np.zeros((2 * batch, 512), "float32"); y = np.zeros((2 * batch, 1), "float32")
keras.utils.set_random_seed(0)
model = keras.Sequential([keras.Input((512,))] + [keras.layers.Dense(512, "relu") for _ in range(6)] + [keras.layers.Dense(1)])
model.compile(keras.optimizers.Adam(gradient_accumulation_steps=steps), "mse", jit_compile=False)
model.fit(x, y, batch_size=batch // (steps or 1), verbose=0)
peak = tf.config.experimental.get_memory_info("CPU:0")["peak"]
names = {"x": x, "y": y, "model": model}
source = f"model.fit(x, y, batch_size={batch})"
facts = gather_facts(names, snapshot(names), source, earlier_cells=("import keras",))
(known,) = facts.models
other = peak - known.weight_bytes - known.optimizer_bytes
diagnosis = Diagnosis("CPU:0", line=1, breakdown=(Part("other", other, "what remains of the peak"),))
(answer,) = propose(Context(Cell(source), Recording(Cell(source), status="oom", facts=facts), diagnosis))
print("FOUND" + json.dumps([peak, getattr(answer, "reason", ""), getattr(answer, "title", "")]))
"""


# Operations that overlap by chance move a peak of 28 MiB by up to 3 MiB.
ONE_AFTER_ANOTHER = {"TF_NUM_INTEROP_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1"}


def measured(batch, steps):
    """Train in a process of its own; give its peak and what the remedy says of it: a reason, a title."""
    return found_by(MEASURE, [batch, steps], bfc(1024) | ONE_AFTER_ANOTHER)


def test_where_it_is_declined_for_the_sums_the_peak_really_rises():
    (whole, reason, _), (again, _, _), (parts, _, _) = measured(64, None), measured(64, None), measured(64, 2)
    assert "the peak would not fall" in reason
    assert parts > min(whole, again)


def test_where_it_is_offered_the_peak_really_falls():
    (whole, _, title), (parts, _, _) = measured(8192, None), measured(8192, 2)
    assert "Keep batch 8192, in 2 steps of 4096" == title
    assert parts < 0.9 * whole
