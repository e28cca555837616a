"""The notebooks do what they say, where there is no card: on the CPU, and on the GPU made of RAM."""

import importlib
import json
import re

import pytest

from tests.native.ramgpu import CannotBuildError, ramgpu_env
from tests.needs import lacking
from tests.run_notebook import NOTEBOOKS, errors_of, failures, names, read_notebook, run_acceptance, run_notebook
from tf_mem_magic.core.facts import DeviceFacts, Facts
from tf_mem_magic.core.proposals import Context
from tf_mem_magic.core.recording import Cell, Recording
from tf_mem_magic.remedies.memory_growth import propose
from tf_mem_magic.session.restarts.restart import prologue_for

pytestmark = [pytest.mark.timeout(900)]

NO_CARD = {"CUDA_VISIBLE_DEVICES": ""}

CARD = {
    "NVIDIA's figures",
    "The same card",
    "The card's name and size",
    "Device used",
    "A part of a card (MIG)",
}
COPIES = {"A disguised error"}
SEVERAL = {"Several cards"}
LIMIT = {
    "TensorFlow's counters",
    "The peak",
    "Memory left behind",
    "The optimizer does not fit",
    "Letting go of a trained model",
}
KERNELS = {
    "Out of memory in fit",
    "What was requested",
    "In use and limit",
    "The cause",
    "Mixed precision",
    "A smaller batch",
    "Release",
    "Mixed precision, rerun",
    "Out of memory under XLA",
}
IF_OFFERED = {"Mixed precision, rerun"}
TIMES = {"The live view", "Sampling", "From the exception to the report"}
BY_HAND = {"Memory growth after the restart", "cuda_malloc_async"}
EVERYTHING = CARD | COPIES | SEVERAL | LIMIT | KERNELS | TIMES | BY_HAND


@pytest.mark.parametrize("name", ["quickstart.ipynb", "gpu_acceptance.ipynb"])
def test_a_notebook_is_stored_without_outputs(name):
    cells = [cell for cell in read_notebook(name).cells if cell.cell_type == "code"]
    assert [([], None)] * len(cells) == [(cell.outputs, cell.execution_count) for cell in cells]


def test_every_notebook_of_the_folder_is_tested():
    assert ["gpu_acceptance.ipynb", "quickstart.ipynb"] == sorted(path.name for path in NOTEBOOKS.glob("*.ipynb"))


def test_what_a_notebook_imports_of_us_is_there():
    sources = [cell.source for path in NOTEBOOKS.glob("*.ipynb") for cell in read_notebook(path.name).cells]
    found = re.findall(r"^from (tf_mem_magic[\w.]*) import (.+)$", "\n".join(sources), re.MULTILINE)
    assert len(found) > 1
    named = [(module, name.strip()) for module, names in found for name in names.split(",")]
    assert [] == [one for one in named if not hasattr(importlib.import_module(one[0]), one[1])]


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    return run_notebook(read_notebook("quickstart.ipynb"), tmp_path_factory.mktemp("quickstart"), NO_CARD)


def tagged(notebook):
    """Give the places of the cells that are watched."""
    return [place for place, cell in enumerate(notebook.cells) if cell.source.startswith("%%tfmem")]


@pytest.mark.tf
@pytest.mark.kernel
@pytest.mark.oldest
def test_the_quickstart_fails_at_its_watched_cell_and_nowhere_else(quickstart):
    errors = errors_of(quickstart)
    assert tagged(quickstart) == list(errors)
    assert "OOM when allocating tensor" in next(iter(errors.values()))


@pytest.mark.tf
@pytest.mark.kernel
@pytest.mark.oldest
def test_the_quickstarts_report_stands_above_the_error(quickstart):
    (place,) = tagged(quickstart)
    outputs = quickstart.cells[place].outputs
    texts = [output.get("data", {}).get("text/plain", "") for output in outputs]
    report = next(i for i, text in enumerate(texts) if "Out of memory on CPU:0" in text)
    error = next(i for i, output in enumerate(outputs) if output.output_type == "error")
    assert report < error
    assert (True, True) == ("Line 14" in texts[report], "Batch 128" in texts[report])


@pytest.mark.tf
@pytest.mark.kernel
@pytest.mark.oldest
def test_the_quickstart_ends_with_what_holds_memory(quickstart):
    assert "CPU:0 in use" in quickstart.cells[-1].outputs[0].text


@pytest.fixture(scope="module")
def on_cpu(tmp_path_factory):
    return run_acceptance(tmp_path_factory.mktemp("cpu"), NO_CARD)


@pytest.mark.tf
@pytest.mark.kernel
@pytest.mark.oldest
def test_without_a_card_no_check_fails(on_cpu):
    assert {} == failures(on_cpu["rows"])


@pytest.mark.tf
@pytest.mark.kernel
@pytest.mark.oldest
def test_without_a_card_what_needs_none_passes_and_the_rest_is_not_run(on_cpu):
    passed, not_run = names(on_cpu["rows"], "pass"), names(on_cpu["rows"], "not run")
    assert (LIMIT | KERNELS) - IF_OFFERED == passed - IF_OFFERED
    assert CARD | COPIES | SEVERAL | TIMES | BY_HAND == not_run - IF_OFFERED


@pytest.mark.tf
@pytest.mark.kernel
@pytest.mark.oldest
def test_16_bits_are_tried_or_were_declined_because_the_peak_would_not_fall(on_cpu):
    declined = "would not fall" in on_cpu["rows"]["Mixed precision"]["seen"]
    assert IF_OFFERED <= names(on_cpu["rows"], "not run" if declined else "pass")


@pytest.mark.tf
@pytest.mark.kernel
def test_a_check_of_the_card_says_that_there_is_none(on_cpu):
    assert {"TensorFlow sees no GPU here"} == {on_cpu["rows"][name]["seen"] for name in CARD | COPIES | SEVERAL}


@pytest.mark.tf
@pytest.mark.kernel
def test_times_are_shown_though_nobody_judges_them(on_cpu):
    assert {True} == {on_cpu["rows"][name]["seen"].endswith("; judged on a card only") for name in TIMES}


@pytest.mark.tf
@pytest.mark.kernel
@pytest.mark.oldest
def test_only_the_cells_that_run_out_on_purpose_show_errors(on_cpu):
    errors = errors_of(on_cpu["notebook"])
    assert {"ResourceExhaustedError"} == {text.partition(":")[0] for text in errors.values()}


@pytest.mark.tf
@pytest.mark.kernel
@pytest.mark.oldest
def test_the_table_is_shown_as_a_page_and_as_text(on_cpu):
    data = on_cpu["notebook"].cells[-1].outputs[-1].data
    assert (True, True) == (data["text/html"].count("<tr>") == len(EVERYTHING) + 1, "expected: " in data["text/plain"])


@pytest.fixture(scope="module")
def on_ram(tmp_path_factory):
    """The notebook on two GPUs made of RAM; then once more in a kernel that was restarted with memory growth."""
    folder = tmp_path_factory.mktemp("ram")
    try:
        env = {**NO_CARD, **ramgpu_env(folder, count=2, mib=256)}
    except CannotBuildError as reason:
        lacking(reason)
    first = run_acceptance(folder, env)
    startup = folder / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True, exist_ok=True)
    cell = Cell("%%tfmem\nmodel.fit(x, y)\n")
    facts = Facts(tensorflow="2", initialised=True, devices=(DeviceFacts("GPU:0", growth=False),))
    (proposal,) = propose(Context(cell, Recording(cell, facts=facts)))
    (startup / "restart.py").write_text(prologue_for(proposal, "a-rerun"), encoding="utf-8")
    return {"first": first["rows"], "growth": run_acceptance(folder, env)["rows"]}


@pytest.mark.tf
@pytest.mark.kernel
def test_on_the_gpu_made_of_ram_no_check_fails(on_ram):
    assert ({}, {}) == (failures(on_ram["first"]), failures(on_ram["growth"]))


@pytest.mark.tf
@pytest.mark.kernel
def test_on_the_gpu_made_of_ram_all_passes_that_needs_no_kernels_of_a_card(on_ram):
    assert LIMIT | COPIES | SEVERAL == names(on_ram["first"], "pass")
    assert CARD | KERNELS | TIMES | BY_HAND == names(on_ram["first"], "not run")


@pytest.mark.tf
@pytest.mark.kernel
def test_after_the_restart_growth_passes_and_the_table_keeps_what_the_first_kernel_found(on_ram):
    expected = LIMIT | COPIES | SEVERAL | {"Memory growth after the restart"}
    assert expected == names(on_ram["growth"], "pass")


WRONG = """
MACHINE = "a machine"
@check("one and one", "2", "TensorFlow")
def _():
    return 1 + 1 + 1, False
@check("a <b>slip</b>", "a number", "TensorFlow")
def _():
    return 1 / 0, True
MISSING["wings"] = "it has none"
@check("flying", "up", "wings")
def _():
    return "up", True
"""


@pytest.mark.kernel
def test_a_wrong_result_and_an_error_fail_the_notebook(tmp_path):
    notebook = read_notebook("gpu_acceptance.ipynb")
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    cells[1].source = WRONG
    notebook.cells = [cells[0], cells[1], cells[-1]]
    run_notebook(notebook, tmp_path, NO_CARD)
    rows = json.loads((tmp_path / "gpu_acceptance.json").read_text(encoding="utf-8"))["rows"]
    assert ["fail", "fail", "not run"] == [row["verdict"] for row in rows]
    assert ["3", "ZeroDivisionError: division by zero", "it has none"] == [row["seen"] for row in rows]
    assert {2: "AssertionError: ['one and one', 'a <b>slip</b>']"} == errors_of(notebook)
    assert "a &lt;b&gt;slip&lt;/b&gt;" in notebook.cells[2].outputs[0].data["text/html"]
