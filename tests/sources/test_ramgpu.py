"""The GPU made of RAM behaves as TensorFlow's GPUs do, where the product relies on it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.native.ramgpu import CannotBuildError, ramgpu_env
from tests.needs import lacking
from tf_mem_magic.core.jsonio import decode
from tf_mem_magic.core.recording import ErrorText

CAPTURED = Path(__file__).resolve().parents[1] / "data" / "errors_gpu"

SCRIPT = """
import glob, json, os, sys
import tensorflow as tf
from tf_mem_magic.sources import tensorflow as allocators

found = {}
cards = tf.config.list_physical_devices("GPU")
found["cards"] = [c.name for c in cards]
found["asleep"] = type(allocators.open()).__name__
for card in cards:
    tf.config.experimental.set_memory_growth(card, True)
found["growth"] = [tf.config.experimental.get_memory_growth(c) for c in cards]
with tf.device("GPU:1"):
    held = tf.Variable(tf.zeros((1024, 1024, 2)))
source = allocators.open()
found["read"] = dict(source.read())
found["info"] = [tf.config.experimental.get_memory_info(n)["current"] for n in ("GPU:0", "GPU:1")]
found["devices"] = [(d.name, d.kind, d.growth) for d in source.devices() if d.kind == "GPU"]
try:
    tf.config.experimental.set_memory_growth(cards[0], False)
except RuntimeError as error:
    found["late"] = str(error)
try:
    with tf.device("GPU:1"):
        more = [tf.identity(tf.zeros((1024, 1024, 4))) for _ in range(20)]
except Exception as error:
    found["full"] = [type(error).__name__, str(error)]
found["dumps"] = sorted({os.path.basename(p).rpartition(".")[0] for p in glob.glob(os.environ["TF_BFC_MEMORY_DUMP"] + "*")})
print("@@@" + json.dumps(found))
"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What one process saw of two such GPUs."""
    folder = tmp_path_factory.mktemp("gpu")
    try:
        env = ramgpu_env(folder, count=2, mib=64)
    except CannotBuildError as reason:
        lacking(reason)
    env = {**os.environ, **env, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    env |= {"TF_BFC_MEMORY_DUMP": str(folder / "dump"), "TF_CPP_MIN_LOG_LEVEL": "3"}
    env.pop("TF_FORCE_GPU_ALLOW_GROWTH", None)
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=env, capture_output=True, text=True, timeout=240)
    assert "@@@" in done.stdout, done.stderr[-3000:]
    return json.loads(done.stdout.rpartition("@@@")[2])


@pytest.mark.tf
def test_tensorflow_sees_both_cards(seen):
    assert ["/physical_device:GPU:0", "/physical_device:GPU:1"] == seen["cards"]


@pytest.mark.tf
def test_the_allocators_stay_closed_until_the_users_code_uses_a_card(seen):
    assert "Unavailable" == seen["asleep"]


@pytest.mark.tf
def test_growth_can_be_set_before_the_cards_are_set_up(seen):
    assert [True, True] == seen["growth"]


@pytest.mark.tf
def test_growth_cannot_be_set_afterwards(seen):
    assert "Physical devices cannot be modified after being initialized" == seen["late"]


@pytest.mark.tf
def test_each_card_has_its_own_series_with_the_allocators_number(seen):
    read = {name: value for name, value in seen["read"].items() if name.startswith("allocator:GPU")}
    assert {"allocator:GPU:0": seen["info"][0], "allocator:GPU:1": seen["info"][1]} == read


@pytest.mark.tf
def test_a_variable_lies_on_its_card(seen):
    assert seen["info"][1] - seen["info"][0] >= 8 * 2**20


@pytest.mark.tf
def test_the_source_describes_both_cards(seen):
    assert [["GPU:0", "GPU", True], ["GPU:1", "GPU", True]] == seen["devices"]


@pytest.mark.tf
def test_a_full_card_says_that_the_destination_is_not_initialized(seen):
    kind, message = seen["full"]
    assert "InternalError" == kind
    assert "GPU:1 in order to run Identity: Dst tensor is not initialized." in message


@pytest.mark.tf
def test_a_full_card_leaves_a_dump_of_its_allocator(seen):
    assert ["dump_PluggableDevice_1_bfc"] == seen["dumps"]


@pytest.mark.parametrize("version", sorted(p.name for p in CAPTURED.iterdir()))
@pytest.mark.parametrize("case", ["eager", "build"])
def test_the_captured_error_is_the_one_that_is_raised(version, case):
    saved = json.loads((CAPTURED / version / f"{case}.json").read_text())
    chain = decode(json.dumps(saved["errors"]).encode(), tuple[ErrorText, ...])
    assert ("InternalError", True) == (chain[0].type, "Dst tensor is not initialized." in chain[0].message)


def test_too_large_a_card_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at most 1792 MiB"):
        ramgpu_env(tmp_path, mib=4096)
