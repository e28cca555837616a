"""``accumulate-gradients`` on real out-of-memory errors in a kernel: what ran, what fits, what undo takes back."""

from __future__ import annotations

import json

import pytest

from tests.kernel import Kernel, bfc

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.tf,
    pytest.mark.timeout(900),
    pytest.mark.xdist_group("accumulate-live"),
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


def test_the_cell_that_ran_out_fits_in_two_parts(found):
    assert ("oom", "ok", 2, True) == (found["before"], found["after"], found["steps"], found["peak"] <= found["limit"])


def test_the_source_that_ran_is_the_visible_edit(found):
    call = "from tf_mem_magic import apply\napply.accumulate_gradients(model, 2)\n"
    assert f"%%tfmem\n{call}model.fit(x, y, batch_size=4096, verbose=0)\n" == found["source"]


def test_the_rerun_was_seen_to_use_the_smaller_batch(found):
    assert [["batch", 4096, 4096]] == found["checks"]


def test_undo_makes_the_optimizer_update_at_every_batch_again(found):
    assert None is found["undone"]
