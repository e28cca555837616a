"""The remedy ``other-gpu``: which card it chooses, and that the driver's figures name that very card."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.native.fake_nvml import build_fake_nvml
from tests.native.ramgpu import CannotBuildError
from tests.needs import lacking
from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.facts import DeviceFacts, Facts, ProcessFacts
from tf_mem_magic.core.jsonio import decode
from tf_mem_magic.core.proposals import Context, Declined
from tf_mem_magic.core.recording import Cell, Recording
from tf_mem_magic.core.units import GIB, MIB
from tf_mem_magic.remedies.other_gpu import propose
from tf_mem_magic.session.restarts.restart import prologue_for

ROOT = Path(__file__).resolve().parents[2]
SOURCE = "%%tfmem\nmodel.fit(x, y)\n"


def card(index, *held, total=24 * GIB, hardware="L4", capability=(8, 9)):
    others = tuple(ProcessFacts(4121 + i, None, used) for i, used in enumerate(held))
    return DeviceFacts(
        f"GPU:{index}",
        hardware=hardware,
        compute_capability=capability,
        total=total,
        others=others,
        uuid=f"GPU-{index}",
    )


def answer(*cards, source=SOURCE, device="GPU:0", requested=None, in_use=None):
    cell = Cell(source)
    facts = Facts("2.21.0", initialised=True, devices=cards)
    diagnosis = Diagnosis(device, requested=requested, in_use=in_use)
    (only,) = propose(Context(cell, Recording(cell, status="oom", facts=facts), diagnosis))
    return only


def test_the_card_with_the_most_room_is_chosen_by_its_uuid():
    proposal = answer(card(0, 20 * GIB), card(1), card(2, total=48 * GIB), card(3, 2 * GIB, total=80 * GIB))
    assert ((("CUDA_VISIBLE_DEVICES", "GPU-2"),), "restart", "") == (
        proposal.environment,
        proposal.takes_effect,
        proposal.diff,
    )


def test_the_title_says_what_is_gained():
    assert "Restart on GPU:1 (24.0 GiB instead of 4.0 GiB)" == answer(card(0, 20 * GIB), card(1)).title


def test_it_can_lead_from_the_second_card_to_the_first():
    assert (("CUDA_VISIBLE_DEVICES", "GPU-0"),) == answer(card(0), card(1, 20 * GIB), device="GPU:1").environment


def test_a_different_card_is_named_in_a_caveat():
    other = card(1, hardware="T4", capability=(7, 5))
    assert any("T4" in caveat for caveat in answer(card(0, 20 * GIB), other).caveats)


def test_a_like_card_needs_no_such_caveat():
    assert not any("different card" in caveat for caveat in answer(card(0, 20 * GIB), card(1)).caveats)


@pytest.mark.parametrize("name", ["strategy = tf.distribute.MirroredStrategy()", "with tf.device('gpu:1'): pass"])
def test_a_cell_that_counts_on_its_cards_is_left_alone(name):
    assert isinstance(answer(card(0, 20 * GIB), card(1), source=f"{name}\nmodel.fit(x)"), Declined)


@pytest.mark.parametrize("name", ["# s = tf.distribute.MirroredStrategy()", "n = 1  # 'gpu:1'", "    #GPU:2"])
def test_a_comment_counts_on_no_cards(name):
    assert not isinstance(answer(card(0, 20 * GIB), card(1), source=f"{name}\nmodel.fit(x)"), Declined)


A, B = "GPU-aaaaaaaa-0000-1111-2222-333333333333", "GPU-abbbbbbb-0000-1111-2222-333333333333"
TWO = f"card {A} NVIDIA_L4 24000 0 20500\nprocess 1999999999 20000\ncard {B} NVIDIA_L4 24000 0 500\n"

DRIVER = """
import os, pathlib
from tf_mem_magic.core.jsonio import encode
from tf_mem_magic.sources import nvml
work = pathlib.Path(os.environ["WORK"])
(work / "self/ns").mkdir(parents=True, exist_ok=True)
link = work / "self/ns/pid"
link.is_symlink() or link.symlink_to("pid:[4026531836]")
exec(os.environ.get("FIRST", ""))
source = nvml.open(str(work))
print("@@@" + encode(source.devices()).decode())
"""


def ask_the_driver(folder, **environment):
    env = {k: v for k, v in os.environ.items() if not k.startswith("CUDA_")}
    env |= {"WORK": str(folder), "LD_LIBRARY_PATH": str(folder / "library"), "FAKE_NVML": str(folder / "cards")}
    env |= {"PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run([sys.executable, "-c", DRIVER], env=env, capture_output=True, text=True, timeout=120)
    assert "@@@" in done.stdout, done.stderr
    return decode(done.stdout.partition("@@@")[2].encode(), tuple[DeviceFacts, ...])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("driver")
    try:
        build_fake_nvml(made / "library")
    except CannotBuildError as reason:
        lacking(reason)
    (made / "cards").write_text(TWO)
    return made


def test_after_the_restart_the_driver_shows_this_process_the_free_card_alone(folder):
    before = ask_the_driver(folder, CUDA_DEVICE_ORDER="PCI_BUS_ID")
    proposal = answer(*before)
    after = ask_the_driver(folder, FIRST=prologue_for(proposal, "a-rerun"))
    assert ([A, B], [B], [()]) == (
        [one.uuid for one in before],
        [one.uuid for one in after],
        [one.others for one in after],
    )


def test_the_driver_tells_what_the_title_says(folder):
    before = ask_the_driver(folder, CUDA_DEVICE_ORDER="PCI_BUS_ID")
    assert [24000 * MIB - 20000 * MIB, 24000 * MIB] == [one.total - sum(o.bytes for o in one.others) for one in before]
    assert "Restart on GPU:1 (23.4 GiB instead of 3.9 GiB)" == answer(*before).title
