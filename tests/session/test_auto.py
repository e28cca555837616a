"""``--on-oom auto``: a night job that passes, or fails as it would have failed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from tests.kernel import ROOT, Kernel, bfc

SETUP = (
    "%load_ext tf_mem_magic\nimport keras, numpy as np, tensorflow as tf, tf_mem_magic as t\nfrom keras import layers"
)
DATA = "x = np.zeros((16384, 64), 'float32'); y = np.zeros((16384, 1), 'float32')"
BODY = """stack = [keras.Input((64,))] + [layers.Dense(512, activation="relu") for _ in range(4)] + [layers.Dense(1)]
model = keras.Sequential(stack)
model.compile("adam", "mse", jit_compile=False)
h = model.fit(x, y, batch_size=16384, epochs=1, verbose=0)
print("trained", len(h.history["loss"]))
6 * 7"""


@pytest.fixture(scope="module")
def kernel():
    with Kernel(bfc(150)) as running:
        for source in (SETUP, DATA):
            assert running.run(source).status == "ok"
        yield running


kernels = [pytest.mark.kernel, pytest.mark.tf]


class TestInAKernel:
    pytestmark = kernels

    def test_a_cell_that_drew_from_a_generator_is_not_run_again_with_what_is_left_of_it(self, kernel):
        body = BODY.replace("x, y, batch_size=16384", "data")
        assert kernel.run("data = ((x, y) for _ in range(3))").status == "ok"
        got = kernel.run("%%tfmem --on-oom auto --keep any -o rep\n" + body)
        assert (got.status, len(got.errors)) == ("error", 1)
        assert "`data` is a generator" in got.report_text
        assert kernel.value("(rep.status, rep.outcome.history)") == ("oom", ())

    def test_a_cell_that_changed_its_own_data_is_not_run_again_on_the_changed_data(self, kernel):
        assert kernel.run("scale = 255.0").status == "ok"
        got = kernel.run("%%tfmem --on-oom auto --keep any -o rep\nscale = scale / 2\n" + BODY)
        assert (got.status, len(got.errors)) == ("error", 1)
        assert "`scale` was set anew from its own value" in got.report_text
        assert kernel.value("(rep.status, scale, rep.outcome.history)") == ("oom", 127.5, ())

    @pytest.mark.oldest
    def test_a_cell_that_can_be_made_to_fit_succeeds_without_an_error(self, kernel):
        got = kernel.run("%%tfmem --on-oom auto --keep any -o rep\n" + BODY)
        assert (got.status, got.errors) == ("ok", [])
        assert got.out == "trained 1\n"
        assert kernel.value("[(one.status, one.key) for one in rep.outcome.tries]") == [("ok", "accumulate-gradients")]
        assert got.result == "42"
        part = re.compile(r"batch_size=(?:8192|4096|2048)")  # the largest part that is expected to fit
        assert part.search(got.report_text)
        record = next(d["application/json"] for d in got.reports.values() if "application/json" in d)
        assert record["status"] == "ok"
        assert [change["remedy"] for change in record["changes"]] == ["accumulate-gradients"]
        assert part.search(record["source"])
        assert kernel.value("(rep.status, rep.comparison.status_before)") == ("ok", "oom")
        assert kernel.value("get_ipython().custom_exceptions") == ()

    def test_a_remedy_whose_rerun_fails_otherwise_is_passed_over_for_the_next(self, kernel):
        picky = BODY + "\nassert len(model.optimizer.variables) < 30, 'no sums here'\n42"
        got = kernel.run("%%tfmem --on-oom auto --keep any -o rep\n" + picky)
        assert (got.status, got.errors, got.result) == ("ok", [], "42")
        record = next(d["application/json"] for d in got.reports.values() if "application/json" in d)
        assert [change["remedy"] for change in record["changes"]] == ["smaller-batch"]
        assert "gradient_accumulation_steps=2" not in record["source"]
        assert [a[1] for a in kernel.value("[(a.label, a.status) for a in rep.outcome.history]")] == [
            "oom",
            "error",
            "ok",
        ]

    @pytest.mark.oldest
    def test_where_every_rerun_fails_otherwise_the_first_error_appears_once(self, kernel):
        got = kernel.run("%%tfmem --on-oom auto --keep any --max-tries 2 -o rep\n" + BODY + "\n1 / 0")
        assert (got.status, len(got.errors)) == ("error", 1)
        assert "ResourceExhaustedError" in got.errors[0]
        assert kernel.value("[a.status for a in rep.outcome.history]") == ["oom", "error", "error"]
        # The report is about the cell that is saved; what was tried stands below.
        cell = "%%tfmem --on-oom auto --keep any --max-tries 2 -o rep\n" + BODY + "\n1 / 0"
        assert kernel.value("(rep.status, rep.recording.cell.source, rep is t.last_report())") == ("oom", cell, True)
        line = next(number for number, text in enumerate(cell.splitlines(), 1) if "fit" in text)
        assert f"Line {line}" in got.report_text
        record = next(d["application/json"] for d in got.reports.values() if "application/json" in d)
        assert (record["status"], record["changes"]) == ("oom", [])
        assert [(one["status"], one["error"]) for one in record["tries"]] == [("error", "ZeroDivisionError")] * 2
        assert all(one["source"] in kernel.value("str(rep)").replace("     | ", "") for one in record["tries"])

    def test_what_the_last_remedies_set_is_taken_back_where_nothing_fits(self, kernel):
        # Activations alone: a CPU's products would take copies in 32 bits.
        stack = "[layers.Dense(512)] + [layers.Activation('tanh') for _ in range(8)]"
        body = BODY.replace('[layers.Dense(512, activation="relu") for _ in range(4)]', stack)
        body = body.replace("batch_size=16384", "batch_size=len(x)")
        got = kernel.run("%%tfmem --on-oom auto --keep any -o rep\n" + body + "\n1 / 0")
        assert (got.status, len(got.errors)) == ("error", 1)
        assert "mixed-precision" in kernel.value("[a.key for a in rep.outcome.tries]")
        assert kernel.value("keras.config.dtype_policy().name") == "float32"

    def test_a_cell_that_is_tagged_as_parameters_is_never_edited(self, kernel):
        got = kernel.run("%%tfmem --on-oom auto --keep any -o rep\n" + BODY, tags=["parameters"])
        assert (got.status, len(got.errors)) == ("error", 1)
        assert kernel.value("(rep.status, rep.outcome.history)") == ("oom", ())

    def test_what_must_be_kept_bounds_what_is_tried_and_the_error_appears_once(self, kernel):
        got = kernel.run("%%tfmem --on-oom auto --keep same-results\n" + BODY)
        assert got.status == "error"
        assert len(got.errors) == 1
        assert "ResourceExhaustedError" in got.errors[0]
        assert "model.fit(x, y, batch_size=16384" in got.errors[0]
        assert "Out of memory on CPU:0" in got.report_text

    @pytest.mark.oldest
    def test_another_error_is_shown_at_once_as_always(self, kernel):
        got = kernel.run("%%tfmem --on-oom auto\n1 / 0")
        assert got.status == "error"
        assert len(got.errors) == 1
        assert "ZeroDivisionError" in got.errors[0]

    @pytest.mark.oldest
    def test_the_environment_sets_it_from_outside_and_the_line_has_the_last_word(self, kernel):
        kernel.run("%env TFMEM_ON_OOM=auto --keep any --max-tries 1")
        assert kernel.run("%%tfmem\n" + BODY).status == "ok"
        assert kernel.run("%%tfmem --on-oom raise\n" + BODY).status == "error"
        kernel.run("%env TFMEM_ON_OOM=never")
        got = kernel.run("%%tfmem\nprint('ran')")
        assert (got.out, "invalid choice: 'never'" in got.err) == ("ran\n", True)
        kernel.run("import os; del os.environ['TFMEM_ON_OOM']")


def execute(folder, cells, tool, tags=None):
    """Run a notebook with a real tool; ``tags``: the tags of one cell, by its index."""
    import nbformat

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    for index, given in (tags or {}).items():
        notebook.cells[index].metadata["tags"] = given
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, folder / "in.ipynb")
    commands = {
        "nbconvert": ["-m", "nbconvert", "--to", "notebook", "--execute", "--output", "out.ipynb", "in.ipynb"],
        "papermill": ["-m", "papermill", "-k", "python3", "in.ipynb", "out.ipynb"],
        "papermill, elsewhere": ["-m", "papermill", "-k", "python3", "--cwd", "elsewhere", "in.ipynb", "out.ipynb"],
        "papermill's function": ["-c", "import papermill; papermill.execute_notebook('in.ipynb', 'out.ipynb')"],
    }
    environment = dict(os.environ, PWD=str(folder), PYTHONPATH=str(ROOT), **bfc(150), TFMEM_ON_OOM="auto --keep any")
    command = [sys.executable, *commands[tool]]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("tool", ["nbconvert", "papermill"])
class TestWithRealTools:
    pytestmark = kernels

    @pytest.mark.oldest
    def test_a_night_job_passes_and_later_cells_run(self, tmp_path, tool):
        pytest.importorskip(tool, reason=f"{tool} is not installed here")
        named = "%%tfmem\nBATCH = 16384\n" + BODY.replace("batch_size=16384", "batch_size=BATCH")
        done = execute(tmp_path, [SETUP, DATA, named, "open('reached', 'w').write(str(BATCH))"], tool)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "reached").read_text() == "8192"
        outputs = json.loads((tmp_path / "out.ipynb").read_text())["cells"][2]["outputs"]
        assert [o for o in outputs if o["output_type"] == "error"] == []
        told = next(o["data"] for o in outputs if "application/json" in o.get("data", {}))
        text = "".join(told["text/plain"])
        remark = "`BATCH` was 16384 and is 8192 now, and cells after this one read it."
        assert remark in text.partition("Changed without a click: ")[2].partition("The cell as it ran:")[0]
        assert "BATCH = 8192" in text.partition("The cell as it ran:")[2]
        assert [remark] == told["application/json"]["remarks"]

    def test_a_night_job_that_cannot_be_saved_fails_with_its_own_error_once(self, tmp_path, tool):
        pytest.importorskip(tool, reason=f"{tool} is not installed here")
        hopeless = "%%tfmem\nheld = [tf.zeros((1024, 1024, 9)) for _ in range(9)]"
        done = execute(tmp_path, [SETUP, hopeless, "open('reached', 'w').close()"], tool)
        assert done.returncode != 0
        assert "ResourceExhaustedError" in done.stderr
        assert not (tmp_path / "reached").exists()


class TestFailuresWithRealTools:
    pytestmark = kernels

    def test_a_night_job_that_fails_tells_what_was_tried_in_its_text_and_json(self, tmp_path):
        pytest.importorskip("papermill", reason="papermill is not installed here")
        cell = "%%tfmem --max-tries 2\n" + BODY + "\n1 / 0"
        done = execute(tmp_path, [SETUP, DATA, cell], "papermill")
        assert done.returncode != 0
        assert "ResourceExhaustedError" in done.stderr
        saved = json.loads((tmp_path / "out.ipynb").read_text())["cells"]
        (outputs,) = [one["outputs"] for one in saved if "".join(one["source"]) == cell]
        told = next(o["data"] for o in outputs if "application/json" in o.get("data", {}))
        tries = told["application/json"]["tries"]
        assert [("error", "ZeroDivisionError")] * 2 == [(one["status"], one["error"]) for one in tries]
        text = "".join(told["text/plain"])
        line = next(number for number, code in enumerate(cell.splitlines(), 1) if "fit" in code)
        assert f"Line {line}" in text
        for one in tries:
            assert one["title"] in text
            assert one["source"] in text.replace("     | ", "")


class TestTagsWithRealTools:
    pytestmark = kernels

    @pytest.mark.parametrize("tool", ["nbconvert", "papermill", "papermill, elsewhere", "papermill's function"])
    def test_a_cell_tagged_as_parameters_fails_with_its_own_error(self, tmp_path, tool):
        pytest.importorskip("papermill", reason="papermill is not installed here")
        (tmp_path / "elsewhere").mkdir()
        cells = [SETUP, DATA, "%%tfmem\n" + BODY, "open('reached', 'w').close()"]
        done = execute(tmp_path, cells, tool, tags={2: ["parameters"]})
        assert done.returncode != 0
        assert "ResourceExhaustedError" in done.stderr
        assert list(tmp_path.rglob("reached")) == []
        if tool != "nbconvert":  # which saves nothing when it fails
            outputs = json.loads((tmp_path / "out.ipynb").read_text())["cells"][-2]["outputs"]
            records = [o["data"]["application/json"] for o in outputs if "application/json" in o.get("data", {})]
            assert [(record["status"], record["changes"]) for record in records] in ([], [("oom", [])])

    def test_the_tag_of_another_cell_does_not_count(self, tmp_path):
        pytest.importorskip("papermill", reason="papermill is not installed here")
        done = execute(tmp_path, [SETUP, DATA, "%%tfmem\n" + BODY], "papermill", tags={1: ["parameters"]})
        assert done.returncode == 0, done.stderr
