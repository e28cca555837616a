"""NVIDIA's figures, through the real nvidia-ml-py, from a library without a card that tells what a test wrote."""

from __future__ import annotations

import getpass
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.native.fake_nvml import build_fake_nvml
from tests.native.ramgpu import CannotBuildError
from tests.needs import lacking
from tf_mem_magic.core.facts import ProcessFacts
from tf_mem_magic.sources._cuda import Card, Unclear, visible_cards
from tf_mem_magic.sources._nvml import describe_processes

MIB = 2**20
ROOT = Path(__file__).resolve().parents[2]

A, B = "GPU-aaaaaaaa-0000-1111-2222-333333333333", "GPU-abbbbbbb-0000-1111-2222-333333333333"
M1, M2 = "MIG-11111111-0000-1111-2222-333333333333", "MIG-22222222-0000-1111-2222-333333333333"

PRELUDE = """
import json, os, pathlib, sys, time, types
from tf_mem_magic.sources import Unavailable, nvml
ME = os.getpid()
told = {}
work = pathlib.Path(os.environ["WORK"])
ours, foreign = work / "ours", work / "foreign"
for folder, number in ((ours, 4026531836), (foreign, 4026532999)):
    (folder / "self/ns").mkdir(parents=True, exist_ok=True)
    link = folder / "self/ns/pid"
    if not link.is_symlink():
        link.symlink_to(f"pid:[{number}]")
ONE = f"card {A} Tesla_T4 1000 50 300"
def card(*lines, **environment):
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "FAKE_CUDA"):
        os.environ.pop(name, None)
    os.environ.update(environment)
    write(*lines)
def write(*lines):
    fresh = work / "fresh"
    fresh.write_text("\\n".join(lines) + "\\n")
    fresh.replace(os.environ["FAKE_NVML"])
def tell(name, proc=ours):
    source = nvml.open(str(proc))
    told[name] = answer(source)
    if not isinstance(source, Unavailable):
        source.close()
def answer(source):
    if isinstance(source, Unavailable):
        return {"unavailable": source.reason, "later": source.later}
    return {"read": source.read(), "trouble": source.trouble, "limits": source.limits(), "windows": windows(source),
            "devices": [[d.name, d.kind, d.hardware, d.compute_capability, d.total, d.free,
                         None if d.others is None else [[o.pid, o.user, o.bytes] for o in d.others]]
                        for d in source.devices()]}
def windows(source):
    source.begin_window()
    return source.end_window()
def tensorflow(*physical, pluggable=()):
    # Stands in for the context of a TensorFlow whose GPU:n are these CUDA ordinals.
    cards = [types.SimpleNamespace(name=f"/physical_device:GPU:{n}") for n in physical]
    context = types.SimpleNamespace(
        _initialized=True, _pluggable_devices=cards if pluggable else (),
        list_logical_devices=lambda: [types.SimpleNamespace(name=f"/device:GPU:{i}", device_type="GPU")
                                      for i in range(len(cards))],
        get_visible_devices=lambda kind: cards, get_logical_device_configuration=lambda card: None)
    sys.modules["tensorflow"] = types.ModuleType("tensorflow")
    sys.modules["tensorflow.python.eager.context"] = types.SimpleNamespace(_context=context)
def no_tensorflow():
    sys.modules.pop("tensorflow", None)
def until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
"""

SCENARIOS = """
card(ONE, f"process {ME} 120", "process 1 100", "process 1 -1 graphics", "process 1999999999 30")
tell("one card")
tell("foreign namespace", foreign)
card(ONE, f"process {ME} -1", "process 1999999999 -1")
tell("bytes not available")
card(ONE, "process 1999999999 30")
tell("not on the card yet")
tensorflow(0)
tell("hidden although TensorFlow uses the card")
no_tensorflow()
tell("hidden by a namespace", foreign)
card(ONE, f"process {ME} 120", "fails nvmlDeviceGetGraphicsRunningProcesses_v3 3")
tell("no graphics")
card(ONE, f"process {ME} 120", *[f"process {1900000000 + i} 1" for i in range(40)])
tell("many processes")

for name, code in {"uninitialised": 1, "not supported": 3, "permission": 4, "not running": 9, "no library": 12,
                   "lost": 15, "updated": 18, "unknown": 999, "only the driver knows": 777}.items():
    card(ONE, f"fails nvmlInitWithFlags {code}")
    tell("init " + name)
    card(ONE, f"process {ME} 120", f"fails nvmlDeviceGetMemoryInfo_v2 {code}", f"fails nvmlDeviceGetMemoryInfo {code}")
    tell("memory " + name)
    card(ONE, f"process {ME} 120", f"fails nvmlDeviceGetComputeRunningProcesses_v3 {code}")
    tell("processes " + name)
    card(ONE, f"fails nvmlDeviceGetCount_v2 {code}")
    tell("count " + name)
    card(ONE, f"fails nvmlDeviceGetHandleByIndex_v2 {code}")
    tell("handle " + name)
    card(ONE, *[f"fails nvmlDeviceGet{what} {code}" for what in ("UUID", "Name", "MigMode", "CudaComputeCapability")])
    tell("description " + name)
card(ONE, "fails nvmlDeviceGetMemoryInfo_v2 13")
tell("memory of an older driver")
card("# no cards")
tell("no cards")

card(ONE, f"process {ME} 120")
source = nvml.open(str(ours))
before = source.read()
write(ONE, "fails nvmlDeviceGetMemoryInfo_v2 15", "fails nvmlDeviceGetMemoryInfo 15",
      "fails nvmlDeviceGetComputeRunningProcesses_v3 15")
until(lambda: not source.read())
lost = [source.read(), source.trouble, source.limits(), [d.total for d in source.devices()]]
write(ONE, f"process {ME} 140")
until(lambda: source.read().get("process:GPU:0") == 140 * 2**20)
told["lost and back"] = [before, lost, source.read(), source.trouble]
source.close(); source.close()
told["after closing"] = [source.read(), source.limits(), source.devices()]

log = work / "log"
log.write_text("")
os.environ["FAKE_NVML_LOG"] = str(log)
source = nvml.open(str(ours)); source.read(); source.read(); source.close(); source.close()
del os.environ["FAKE_NVML_LOG"]
calls = log.read_text().split()
told["calls"] = [calls.count("nvmlInitWithFlags"), calls.count("nvmlShutdown")]

TWO = [f"card {A} A100 1000 0 100", f"card {B} T4 500 0 200"]
card(*TWO)
tell("two cards in CUDA's own order")
card(*TWO, CUDA_DEVICE_ORDER="PCI_BUS_ID")
tell("two cards in bus order")
card(*TWO, CUDA_VISIBLE_DEVICES=f"{B},{A}")
tell("two cards by UUID")
card(*TWO, CUDA_VISIBLE_DEVICES="")
tell("no card visible")
card(*TWO)
source = nvml.open(str(ours))
unclear = [source.read(), source.trouble]
os.environ["FAKE_CUDA"] = ",".join(u.replace("GPU-", "").replace("-", "") for u in (B, A))
tensorflow(0, 1)
told["settled by CUDA"] = [unclear, source.read(), source.trouble]
source.close()
tensorflow(1)
tell("TensorFlow uses only CUDA's second card")
tensorflow()
tell("TensorFlow uses no card")
tensorflow(0, pluggable=True)
tell("TensorFlow's GPU is no NVIDIA card")
card(*TWO, CUDA_DEVICE_ORDER="PCI_BUS_ID", CUDA_VISIBLE_DEVICES="1")
tensorflow(0)
tell("CUDA does not answer")
card(*TWO)
tell("CUDA does not answer and the order is its own")
no_tensorflow()

card(f"card {A} A100 1000 0 900", f"mig {M1} 500 100", f"process {ME} 60", f"mig {M2} 400 50")
tell("two instances")
os.environ["CUDA_VISIBLE_DEVICES"] = M2
tell("an instance by UUID")
os.environ["CUDA_VISIBLE_DEVICES"] = M1
tell("an instance that we use")
os.environ["FAKE_CUDA"] = M2.replace("MIG-", "").replace("-", "")
tensorflow(0)
tell("an instance named by CUDA")
no_tensorflow()
card(f"card {A} A100 1000 0 900", f"mig {M1} 500 100")
tell("a single instance")
card(f"card {A} A100 1000 0 900", f"mig {M1} 500 100", "fails nvmlDeviceGetComputeRunningProcesses_v3 4")
tell("an instance without permission")
"""

OLD_DRIVER = """
card(ONE, f"process {ME} 120")
tell("old driver")
"""

ABSENT = """
told["absent"] = answer(nvml.open())
sys.modules["pynvml"] = None
told["no nvidia-ml-py"] = answer(nvml.open())
"""


def run(script: str, work: Path, library: Path) -> dict:
    code = f"A, B, M1, M2 = {A!r}, {B!r}, {M1!r}, {M2!r}\n" + PRELUDE + script + "\nprint('TOLD ' + json.dumps(told))"
    env = {k: v for k, v in os.environ.items() if not k.startswith(("CUDA_", "FAKE_"))}
    env |= {"PYTHONPATH": str(ROOT), "LD_LIBRARY_PATH": str(library), "WORK": str(work)}
    env |= {"FAKE_NVML": str(work / "cards")}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=240)
    lines = [line for line in done.stdout.splitlines() if line.startswith("TOLD ")]
    assert lines, done.stderr
    return json.loads(lines[0][5:])


def built(folder: Path, old: bool = False) -> Path:
    try:
        return build_fake_nvml(folder, old=old)
    except CannotBuildError as error:
        lacking(error)


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> dict:
    return run(SCENARIOS, tmp_path_factory.mktemp("work"), built(tmp_path_factory.mktemp("library")))


def used(gpu: int, **series: int) -> dict:
    return {f"{kind}:GPU:{gpu}": mib * MIB for kind, mib in series.items()}


def others(answer: dict) -> list:
    return [device[6] for device in answer["devices"]]


def test_a_card_and_this_process_are_read(told):
    assert used(0, device=300, process=120) == told["one card"]["read"]


def test_what_the_driver_reserves_is_not_part_of_the_limit(told):
    limit = [950 * MIB, "device-total"]
    assert {"device:GPU:0": limit, "process:GPU:0": limit} == told["one card"]["limits"]


def test_there_are_no_counters(told):
    assert {} == told["one card"]["windows"]


def test_a_card_is_described(told):
    expected = ["GPU:0", "GPU", "Tesla T4", [7, 5], 1000 * MIB, 650 * MIB]
    assert expected == told["one card"]["devices"][0][:6]


def test_other_processes_are_named_by_their_users_where_these_can_be_read(told):
    owner = describe_processes({1: None})[0].user
    assert [[[1, owner, 100 * MIB], [1999999999, None, 30 * MIB]]] == others(told["one card"])


def test_a_process_that_computes_and_draws_is_one_process(told):
    assert [1, 1999999999] == [pid for pid, *_ in others(told["one card"])[0]]


def test_our_own_pid_is_not_among_the_others_of_a_namespace_that_hides_them(told):
    answer = told["foreign namespace"]
    assert (used(0, device=300, process=120), [None]) == (answer["read"], others(answer))


def test_bytes_that_the_driver_does_not_tell_are_missing(told):
    answer = told["bytes not available"]
    assert (used(0, device=300), [[[1999999999, None, None]]]) == (answer["read"], others(answer))
    assert answer["trouble"].startswith("GPU:0: NVIDIA's driver does not tell what this process uses")


def test_a_process_that_is_not_on_the_card_yet_uses_nothing(told):
    assert used(0, device=300, process=0) == told["not on the card yet"]["read"]


@pytest.mark.parametrize("name", ["hidden although TensorFlow uses the card", "hidden by a namespace"])
def test_a_process_that_the_list_hides_has_no_figure(told, name):
    answer = told[name]
    assert (used(0, device=300), [None]) == (answer["read"], others(answer))


def test_a_card_that_cannot_draw_tells_who_computes(told):
    assert (used(0, device=300, process=120), None) == (told["no graphics"]["read"], told["no graphics"]["trouble"])


def test_many_processes_are_listed(told):
    assert [40] == [len(found) for found in others(told["many processes"])]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("uninitialised", "NVIDIA's driver library was shut down by other code in this process."),
        ("not supported", "The card or its driver does not support this."),
        ("permission", "This user may not read it."),
        ("not running", "NVIDIA's driver is not running."),
        (
            "no library",
            "NVIDIA's driver library was not found; this machine has no NVIDIA card, or no driver for it.",
        ),
        ("lost", "The driver has lost the card; only a reset or a restart of the machine brings it back."),
        ("updated", "The driver was updated while it was running; the machine needs a restart."),
        ("unknown", "NVIDIA's driver reports an error that it does not know itself."),
        ("only the driver knows", "NVIDIA's driver says: an error that only the driver knows (NVML error 777)."),
    ],
)
class TestEachErrorIsASentence:
    def test_when_the_library_starts(self, told, name, reason):
        assert {"unavailable": reason, "later": False} == told["init " + name]

    def test_when_cards_are_counted(self, told, name, reason):
        assert {"unavailable": reason, "later": False} == told["count " + name]

    def test_when_a_card_is_opened(self, told, name, reason):
        assert {"unavailable": reason, "later": False} == told["handle " + name]

    def test_when_memory_is_read_the_process_is_still_told(self, told, name, reason):
        answer = told["memory " + name]
        expected = (used(0, process=120), f"The memory of GPU:0 cannot be read. {reason}", {})
        assert expected == (answer["read"], answer["trouble"], answer["limits"])

    def test_when_processes_are_listed_the_card_is_still_told(self, told, name, reason):
        answer = told["processes " + name]
        expected = (used(0, device=300), f"What processes use of GPU:0 cannot be read. {reason}", [None])
        assert expected == (answer["read"], answer["trouble"], others(answer))

    def test_when_a_card_cannot_be_described_its_memory_is_still_told(self, told, name, reason):
        answer = told["description " + name]
        expected = (used(0, device=300, process=0), [None, None])
        assert expected == (answer["read"], answer["devices"][0][2:4])


def test_a_machine_without_cards_says_so(told):
    assert "NVIDIA's driver sees no card." == told["no cards"]["unavailable"]


def test_a_card_that_is_lost_while_a_cell_runs_gives_no_more_values(told):
    before, (read, trouble, limits, totals), *_ = told["lost and back"]
    lost = "The driver has lost the card; only a reset or a restart of the machine brings it back."
    assert (used(0, device=300, process=120), {}, {}, [None]) == (before, read, limits, totals)
    assert f"The memory of GPU:0 cannot be read. {lost} What processes use of GPU:0 cannot be read. {lost}" == trouble


def test_a_card_that_answers_again_has_no_trouble(told):
    assert [used(0, device=300, process=140), None] == told["lost and back"][2:]


def test_a_closed_source_gives_nothing(told):
    assert [{}, {}, []] == told["after closing"]


def test_the_library_is_started_and_shut_down_once(told):
    assert [1, 1] == told["calls"]


def test_an_older_driver_counts_what_is_reserved_as_used(told):
    answer = told["memory of an older driver"]
    assert ([350 * MIB, 1000 * MIB]) == [answer["read"]["device:GPU:0"], answer["limits"]["device:GPU:0"][0]]


def test_two_cards_in_cudas_own_order_are_not_guessed(told):
    answer = told["two cards in CUDA's own order"]
    expected = "CUDA may number the cards differently than the driver; CUDA_DEVICE_ORDER=PCI_BUS_ID settles it."
    assert ({}, expected) == (answer["read"], answer["trouble"])


def test_two_cards_in_bus_order_are_numbered_as_the_driver_does(told):
    read = told["two cards in bus order"]["read"]
    assert used(0, device=100, process=0) | used(1, device=200, process=0) == read


def test_two_cards_by_uuid_are_numbered_as_listed(told):
    assert used(0, device=200, process=0) | used(1, device=100, process=0) == told["two cards by UUID"]["read"]


def test_cards_that_cuda_hides_are_not_read(told):
    assert "CUDA_VISIBLE_DEVICES hides every card from this process." == told["no card visible"]["unavailable"]


def test_cuda_itself_settles_the_order_once_tensorflow_has_started_it(told):
    (read, trouble), settled, after = told["settled by CUDA"]
    assert ({}, False) == (read, trouble is None)
    assert used(0, device=200) | used(1, device=100) == settled
    assert "cannot be told" not in after


def test_tensorflows_first_gpu_may_be_cudas_second(told):
    assert used(0, device=100) == told["TensorFlow uses only CUDA's second card"]["read"]


@pytest.mark.parametrize("name", ["TensorFlow uses no card", "TensorFlow's GPU is no NVIDIA card"])
def test_without_a_card_in_tensorflow_there_is_nothing_to_tell(told, name):
    assert "TensorFlow uses no NVIDIA card in this process." == told[name]["unavailable"]


def test_where_cuda_does_not_answer_the_environment_tells(told):
    assert used(0, device=200) == told["CUDA does not answer"]["read"]


def test_where_nothing_tells_the_card_is_not_guessed(told):
    reason = told["CUDA does not answer and the order is its own"]["unavailable"]
    assert reason.startswith("Which card is TensorFlow's GPU:0 cannot be told. CUDA may number the cards differently")


def test_one_of_two_instances_is_not_guessed(told):
    answer = told["two instances"]
    expected = "The card is partitioned (MIG), and which of its instances CUDA uses cannot be told."
    assert ({}, expected) == (answer["read"], answer["trouble"])


def test_an_instance_named_by_its_uuid_is_read(told):
    assert used(0, device=50, process=0) == told["an instance by UUID"]["read"]


def test_what_we_use_of_an_instance_is_read(told):
    assert used(0, device=100, process=60) == told["an instance that we use"]["read"]


def test_an_instance_that_cuda_names_is_read(told):
    assert used(0, device=50) == told["an instance named by CUDA"]["read"]


def test_a_single_instance_is_certain(told):
    assert used(0, device=100, process=0) == told["a single instance"]["read"]


def test_an_instance_whose_processes_may_not_be_listed_has_unknown_others(told):
    answer = told["an instance without permission"]
    assert (used(0, device=100), [None]) == (answer["read"], others(answer))


def test_a_driver_without_the_newer_functions_is_read(tmp_path):
    answer = run(OLD_DRIVER, tmp_path, built(tmp_path / "library", old=True))["old driver"]
    assert (used(0, device=350, process=120), None) == (answer["read"], answer["trouble"])


def test_a_machine_without_the_driver_says_so(tmp_path):
    (tmp_path / "libnvidia-ml.so.1").write_bytes(b"no library")
    told = run(ABSENT, tmp_path, tmp_path)
    expected = [
        "NVIDIA's driver library was not found; this machine has no NVIDIA card, or no driver for it.",
        "The package nvidia-ml-py is not installed.",
    ]
    assert expected == [told["absent"]["unavailable"], told["no nvidia-ml-py"]["unavailable"]]


CARDS = (Card(A, "A100"), Card(B, "T4"), Card("GPU-cccccccc", "T4"))


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, [A, B, "GPU-cccccccc"]),
        ("1", [B]),
        ("2,0", ["GPU-cccccccc", A]),
        (" 2 , 1 ", ["GPU-cccccccc", B]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("1,-1,0", [B]),
        ("1,7,0", [B]),
        ("1,,0", [B]),
        ("0,nonsense,1", [A]),
        ("GPU-aa", [A]),
        ("gpu-ABB", [B]),
        ("GPU-a", []),
        ("GPU-aa,GPU-dd,GPU-c", [A]),
        (f"{B},{A}", [B, A]),
        ("1,GPU-aa", "mixes numbers and UUIDs"),
        ("GPU-aa,1", "mixes numbers and UUIDs"),
        ("1,1", "names a card twice"),
        ("GPU-aa,GPU-aaa", "names a card twice"),
    ],
)
def test_cuda_visible_devices_is_read_as_cuda_reads_it(visible, expected):
    environment = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"} | ({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible})
    answer = visible_cards(CARDS, environment)
    if isinstance(expected, str):
        assert isinstance(answer, Unclear)
        assert expected in answer.reason
    else:
        assert expected == [card.uuid for card in answer]


def test_a_number_among_several_cards_needs_the_bus_order():
    assert isinstance(visible_cards(CARDS, {"CUDA_VISIBLE_DEVICES": "0"}), Unclear)


def test_a_single_card_needs_no_order():
    assert CARDS[:1] == visible_cards(CARDS[:1], {"CUDA_VISIBLE_DEVICES": "0"})


def test_uuids_that_the_driver_does_not_tell_are_not_guessed():
    answer = visible_cards((Card(None, "T4"),), {"CUDA_VISIBLE_DEVICES": "GPU-aa"})
    assert Unclear("The driver does not tell the UUIDs that CUDA_VISIBLE_DEVICES names.") == answer


def test_the_user_of_a_running_process_is_named():
    expected = (ProcessFacts(os.getpid(), getpass.getuser(), 5),)
    assert expected == describe_processes({os.getpid(): 5})
