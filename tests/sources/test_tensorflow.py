"""TensorFlow's allocators: real TensorFlow in subprocesses, and a stand-in for the cards that no test machine has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.native.ramgpu import CannotBuildError, ramgpu_env
from tests.needs import lacking
from tf_mem_magic.core.facts import DeviceFacts
from tf_mem_magic.sources import Unavailable, tensorflow

MIB = 2**20
ROOT = Path(__file__).resolve().parents[2]

PRELUDE = """
import json, sys, threading
from tf_mem_magic.sources import Unavailable, tensorflow as source
told = {}
def say(name, value):
    told[name] = value
def reason(answer):
    return [answer.reason, answer.later] if isinstance(answer, Unavailable) else "it opened"
def awake():
    module = sys.modules.get("tensorflow.python.eager.context")
    return module is not None and module._context is not None and module._context._initialized
def use(mib, device="CPU:0"):
    with tf.device(device):
        zeros = tf.zeros((mib, 2**18))
        if "GPU" in device:
            tf.Variable(zeros)  # most kernels run on the CPU even so; a variable lives on the device
"""

CPU = """
say("before import", reason(source.open()))
import tensorflow as tf
say("before initialising", reason(source.open()))
say("woken by opening", awake())
use(64)
s = source.open()
say("peak of a window that was open before", s.end_window())
say("series", sorted(s.read()))
say("limits", s.limits())
say("device", [s.devices()[0].name, s.devices()[0].kind, s.devices()[0].growth])
s.begin_window()
use(128)
s.begin_window()
use(16)
say("inner", s.end_window())
use(8)
say("outer", s.end_window())
s.begin_window()
say("empty", s.end_window())
held = tf.zeros((4, 2**18))
say("in use", s.read()["allocator:CPU:0"])
del held

stop = threading.Event()
def reader():
    while not stop.is_set():
        s.read()
threads = [threading.Thread(target=reader) for _ in range(2)]
for t in threads: t.start()
peaks = []
for _ in range(200):
    s.begin_window(); use(32)
    s.begin_window(); use(4)
    peaks.append([s.end_window()["allocator:CPU:0"], s.end_window()["allocator:CPU:0"]])
stop.set()
for t in threads: t.join()
say("peaks beside readers", sorted({(i[0] // 2**20, i[1], o[0] // 2**20, o[1]) for i, o in peaks}))

s.begin_window()
use(64)
s.read()
tf.config.experimental.reset_memory_stats("CPU:0")
use(1)
say("after a foreign reset", s.end_window())
os_limit = s.limits()
import os
os.environ["TF_CPU_BFC_MEM_LIMIT_IN_MB"] = "1"
s.begin_window(); use(16)
say("limit set too late", s.limits())
s.end_window()
say("trouble", s.trouble)
s.close(); s.close()
"""

PLAIN = """
import tensorflow as tf
tf.zeros(3)
say("plain", reason(source.open()))
"""

GPUS = """
import tensorflow as tf
cards = tf.config.list_physical_devices("GPU")
for card in cards:
    tf.config.experimental.set_memory_growth(card, True)  # TensorFlow wants the same of all
say("woken by opening", (source.open(), awake())[1])
use(32, "GPU:0")
s = source.open()
s.begin_window()
use(64, "GPU:0")
use(16, "GPU:1")
s.begin_window()
use(8, "GPU:1")
say("inner", s.end_window())
say("outer", s.end_window())
say("limits", s.limits())
say("devices", [[d.name, d.kind, d.growth, d.logical] for d in s.devices() if d.kind == "GPU"])
say("trouble", s.trouble)
"""


def run(script: str, **environment: str) -> dict:
    code = PRELUDE + script + "\nprint('TOLD ' + json.dumps(told))"
    env = {k: v for k, v in os.environ.items() if not k.startswith("TF_")}
    env |= {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "2", "TF_ENABLE_ONEDNN_OPTS": "0"} | environment
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=240)
    lines = [line for line in done.stdout.splitlines() if line.startswith("TOLD ")]
    assert lines, done.stderr
    return json.loads(lines[0][5:])


def in_mib(peaks: dict) -> dict:
    return {name: (peak // MIB, basis) for name, (peak, basis) in peaks.items()}


@pytest.fixture(scope="module")
def cpu() -> dict:
    return run(CPU, TF_CPU_ALLOCATOR_USE_BFC="1", TF_CPU_BFC_MEM_LIMIT_IN_MB="512")


@pytest.fixture(scope="module")
def gpus(tmp_path_factory) -> dict:
    try:
        environment = ramgpu_env(tmp_path_factory.mktemp("gpus"), count=2)
    except CannotBuildError as error:
        lacking(error)
    return run(GPUS, **environment)


@pytest.mark.tf
class TestOnTheCpu:
    def test_without_tensorflow_it_may_open_later(self, cpu):
        assert ["TensorFlow has not been imported.", True] == cpu["before import"]

    def test_before_tensorflow_is_initialised_it_may_open_later(self, cpu):
        assert ["TensorFlow has not initialised its devices yet.", True] == cpu["before initialising"]

    def test_opening_does_not_wake_tensorflow(self, cpu):
        assert cpu["woken by opening"] is False

    def test_a_cell_that_wakes_tensorflow_itself_has_its_true_peak(self, cpu):
        assert {"allocator:CPU:0": (64, "counter")} == in_mib(cpu["peak of a window that was open before"])

    def test_the_bytes_in_use_are_read(self, cpu):
        assert (["allocator:CPU:0"], 4) == (cpu["series"], cpu["in use"] // MIB)

    def test_an_inner_window_has_its_own_peak(self, cpu):
        assert {"allocator:CPU:0": (16, "counter")} == in_mib(cpu["inner"])

    def test_an_inner_window_does_not_spoil_the_outer_one(self, cpu):
        assert {"allocator:CPU:0": (128, "counter")} == in_mib(cpu["outer"])

    def test_a_window_forgets_what_was_before_it(self, cpu):
        assert {"allocator:CPU:0": (0, "counter")} == in_mib(cpu["empty"])

    def test_windows_are_right_while_other_threads_read(self, cpu):
        assert [[4, "counter", 32, "counter"]] == cpu["peaks beside readers"]

    def test_a_reset_by_the_users_code_leaves_a_lower_bound(self, cpu):
        assert {"allocator:CPU:0": (64, "sampled")} == in_mib(cpu["after a foreign reset"])

    def test_the_configured_limit_is_given(self, cpu):
        assert {"allocator:CPU:0": [512 * MIB, "configured"]} == cpu["limits"]

    def test_a_limit_that_the_peak_exceeds_is_left_out(self, cpu):
        assert {} == cpu["limit set too late"]

    def test_the_cpu_has_no_growth(self, cpu):
        assert ["CPU:0", "CPU", None] == cpu["device"]

    def test_nothing_was_in_trouble(self, cpu):
        assert cpu["trouble"] is None

    def test_a_cpu_allocator_without_statistics_says_how_to_have_them(self):
        text, later = run(PLAIN)["plain"]
        assert ("TF_CPU_ALLOCATOR_USE_BFC=1" in text, later) == (True, False)


@pytest.mark.tf
class TestOnTwoGpusMadeOfRam:
    def test_opening_does_not_wake_tensorflow(self, gpus):
        assert gpus["woken by opening"] is False

    def test_each_gpu_has_its_own_peak_in_the_inner_window(self, gpus):
        assert {"allocator:GPU:0": (0, "counter"), "allocator:GPU:1": (8, "counter")} == in_mib(gpus["inner"])

    def test_each_gpu_has_its_own_peak_in_the_outer_window(self, gpus):
        assert {"allocator:GPU:0": (64, "counter"), "allocator:GPU:1": (16, "counter")} == in_mib(gpus["outer"])

    def test_a_limit_that_nobody_configured_is_left_out(self, gpus):
        assert {} == gpus["limits"]

    def test_growth_is_read_after_the_devices_were_initialised(self, gpus):
        assert [["GPU:0", "GPU", True, False], ["GPU:1", "GPU", True, False]] == gpus["devices"]

    def test_a_cpu_without_statistics_beside_gpus_is_no_trouble(self, gpus):
        assert gpus["trouble"] is None


class Cards:
    """Stands in for TensorFlow's context where a test needs CUDA cards; ``silent`` ones keep no statistics."""

    _initialized = True
    _server_def = _collective_ops_server_def = None
    _pluggable_devices = ()

    def __init__(self, *logical: str, silent: tuple[str, ...] = (), limits: tuple[int, ...] | None = None) -> None:
        self.logical = [SimpleNamespace(name=name, device_type=name.split(":")[-2]) for name in logical]
        self.silent, self.limits, self.broken = silent, limits, ""

    def list_logical_devices(self):
        return self.logical

    def get_visible_devices(self, kind):
        return [f"/physical_device:{kind}:0"]

    def get_logical_device_configuration(self, card):
        return [SimpleNamespace(memory_limit=limit) for limit in self.limits] if "GPU" in card and self.limits else None

    def get_device_details(self, card):
        return {"device_name": "Tesla T4", "compute_capability": (7, 5)} if "GPU" in card else {}

    def get_memory_growth(self, card):
        return False

    def get_memory_info(self, device):
        if self.broken:
            raise RuntimeError(self.broken)
        if device in self.silent:
            raise ValueError("Allocator stats not available for device")
        return {"current": 5, "peak": 7}

    def reset_memory_stats(self, device):
        if self.broken:
            raise RuntimeError(self.broken)


@pytest.fixture
def wear(monkeypatch):
    def _wear(context: Cards):
        monkeypatch.setitem(sys.modules, "tensorflow", SimpleNamespace())
        monkeypatch.setitem(sys.modules, "tensorflow.python.eager.context", SimpleNamespace(_context=context))
        monkeypatch.delenv("TF_FORCE_GPU_ALLOW_GROWTH", raising=False)
        return tensorflow.open()

    return _wear


GPU, CPU_0 = "/device:GPU:0", "/device:CPU:0"


def test_an_asynchronous_allocator_without_statistics_is_named(wear, monkeypatch):
    monkeypatch.setenv("TF_GPU_ALLOCATOR", "cuda_malloc_async")
    expected = Unavailable("tensorflow", "The allocator of GPU:0, cuda_malloc_async, keeps no statistics.")
    assert expected == wear(Cards(CPU_0, GPU, silent=(CPU_0, GPU)))


def test_a_gpu_without_statistics_beside_one_with_them_is_trouble(wear):
    source = wear(Cards(GPU, "/device:GPU:1", silent=(GPU,)))
    expected = ({"allocator:GPU:1": 5}, "The allocator of GPU:0 keeps no statistics.")
    assert expected == (source.read(), source.trouble)


def test_the_limits_of_two_logical_devices_of_one_card_are_those_configured(wear):
    limits = wear(Cards(GPU, "/device:GPU:1", limits=(1000, 2000))).limits()
    expected = {"allocator:GPU:0": (1000 * MIB, "configured"), "allocator:GPU:1": (2000 * MIB, "configured")}
    assert expected == limits


def test_a_card_that_a_plug_in_makes_ignores_its_configured_limit(wear):
    context = Cards(GPU, limits=(1000,))
    context._pluggable_devices = ("/physical_device:GPU:0",)
    assert {} == wear(context).limits()


def test_cards_whose_number_does_not_agree_stay_undescribed(wear):
    assert (DeviceFacts("GPU:0"), DeviceFacts("GPU:1")) == wear(Cards(GPU, "/device:GPU:1")).devices()


def test_a_card_is_described_by_its_details(wear):
    expected = DeviceFacts("GPU:0", "GPU", "Tesla T4", (7, 5), growth=False)
    assert (expected,) == wear(Cards(GPU)).devices()


def test_growth_forced_by_the_environment_overrules_the_configuration(wear, monkeypatch):
    source = wear(Cards(GPU))
    monkeypatch.setenv("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    assert [True] == [device.growth for device in source.devices()]


def test_devices_of_other_machines_are_left_out(wear):
    context = Cards(*[f"/job:worker/replica:0/task:{task}/device:GPU:0" for task in (0, 1, 2)])
    context._server_def = SimpleNamespace(job_name="worker", task_index=1)
    assert ["/job:worker/replica:0/task:1/device:GPU:0"] == list(wear(context)._names.values())


def test_a_counter_that_breaks_says_so_and_raises_nothing(wear):
    context = Cards(GPU)
    source = wear(context)
    context.broken = "the card is gone"
    source.begin_window()
    answers = (source.read(), source.end_window(), source.trouble)
    assert ({}, {}, "TensorFlow no longer tells the memory of GPU:0 (the card is gone).") == answers


def test_a_counter_that_answers_again_has_no_trouble(wear):
    context = Cards(GPU)
    source = wear(context)
    context.broken = "busy"
    source.read()
    context.broken = ""
    assert ({"allocator:GPU:0": 5}, None) == (source.read(), source.trouble)


def test_devices_that_tensorflow_let_go_of_are_not_woken_again(wear):
    context = Cards(GPU)
    source = wear(context)
    context._initialized = False
    expected = ({}, (), "TensorFlow let go of its devices; its memory is no longer counted.")
    assert expected == (source.read(), source.devices(), source.trouble)
