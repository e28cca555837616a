from __future__ import annotations

from dataclasses import replace

import pytest

from tests.kernel import bfc
from tests.script import found_by
from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.facts import ModelFacts
from tf_mem_magic.core.proposals import Declined, Proposal
from tf_mem_magic.core.recording import ErrorText, Frame
from tf_mem_magic.remedies import freeze_base_layers
from tf_mem_magic.remedies._engine.examples import example
from tf_mem_magic.remedies._engine.ranking import propose_all

IMPORTS = "import keras\nfrom keras import layers\nfrom keras.applications import ResNet50, MobileNetV3Large\n"
MODEL = "model = keras.Sequential([base, layers.GlobalAveragePooling2D(), layers.Dense(3)])\n"
FIT = 'model.compile("adam", "mse")\nmodel.fit(x, y)\n'


def context(source, *earlier, **more):
    line = next(n for n, text in enumerate(source.splitlines(), 1) if "fit(" in text or "predict(" in text)
    models = (ModelFacts("model", ("Functional", "Dense"), "Adam", **more),)
    diagnosis = Diagnosis("GPU:0", line=line)
    return example("", source, "", diagnosis=diagnosis, models=models, earlier_cells=(IMPORTS, *earlier)).context


def answer(source, *earlier, **more):
    (found,) = freeze_base_layers.propose(context(source, *earlier, **more))
    return found


@pytest.mark.parametrize(
    "base",
    [
        "ResNet50(include_top=False)",
        'ResNet50(False, "imagenet")',
        'MobileNetV3Large(None, 1.0, False, False, "imagenet")',
        "keras.applications.vgg16.VGG16(include_top=False, weights='/data/vgg.weights.h5')",
    ],
)
def test_a_pretrained_base_is_frozen_before_the_model_is_built(base):
    found = answer(f"base = {base}\n{MODEL}{FIT}")
    assert isinstance(found, Proposal), found
    assert f"base = {base}\nbase.trainable = False\nmodel = " in found.source
    assert found.preserves == "nothing"


@pytest.mark.parametrize(
    ("reason", "source"),
    [
        ("no pretrained weights", "base = MobileNetV3Large(None, 1.0, False, False, None)\n" + MODEL + FIT),
        (
            "chooses itself",
            "base = ResNet50(False)\nfor l in base.layers[:9]:\n    l.trainable = False\n" + MODEL + FIT,
        ),
        ("chooses itself", "base = ResNet50(False)\nsetattr(base, 'trainable', False)\n" + MODEL + FIT),
        ("chooses itself", "base = ResNet50(False)\n" + MODEL.replace("Dense(3)", "Dense(3, trainable=True)") + FIT),
        ("function of an earlier cell", "base = ResNet50(False)\nhalf(base)\n" + MODEL + FIT),
        ("chooses itself", "base = ResNet50(False)\nsetattr(base, chosen, False)\n" + MODEL + FIT),
        ("chooses itself", "base = ResNet50(False)\nbase.trainable &= False\n" + MODEL + FIT),
        ("function of an earlier cell", "base = ResNet50(False)\nprepare(base)\n" + MODEL + FIT),
        ("function of an earlier cell", "base = ResNet50(False)\nthaw(base)\n" + MODEL + FIT),
        ("which no cell defines", "from mylib import freeze\nbase = ResNet50(False)\nfreeze(base)\n" + MODEL + FIT),
        ("which no cell defines", "base = ResNet50(False)\nmylib.freeze(base, until=9)\n" + MODEL + FIT),
        ("which no cell defines", "base = ResNet50(False)\nfor l in base.layers: freeze(l)\n" + MODEL + FIT),
        ("which no cell defines", "base = ResNet50(False)\n" + MODEL + "freeze(model)\n" + FIT),
        ("loads weights", "base = ResNet50(False)\nbase.load_weights('w.h5')\n" + MODEL + FIT),
        ("more than one base", "base = ResNet50(False)\nother = ResNet50(False)\n" + MODEL + FIT),
        ("a statement of its own", "model = build(base := ResNet50(False))\n" + FIT),
        ("set more than once", "base = ResNet50(False)\n" + MODEL + "base = None\n" + FIT),
        ("nothing would be left", "model = ResNet50()\n" + FIT),
        ("does not plainly build", "base = ResNet50(False)\nmodel = keras.Sequential([layers.Dense(3)])\n" + FIT),
        ("a line of its own", "base = ResNet50(False); " + MODEL + FIT),
        ("outside training", "base = ResNet50(False)\n" + MODEL + "model.predict(x)\n"),
    ],
)
def test_it_declines_with_the_reason(reason, source):
    half = "def half(net):\n    net.layers[0].trainable = False"
    found = answer(
        source, half, "def prepare(net):\n    half(net)", "thaw = lambda net: setattr(net, 'trainable', True)"
    )
    assert isinstance(found, Declined), found.diff
    assert reason in found.reason


@pytest.mark.parametrize("call", ["train(model, x)", "for a in x: step(a)", "run()"])
def test_a_function_of_the_notebook_that_trains_is_training(call):
    defined = (
        "def train(m, x):\n    m.fit(x)\n",
        "def step(a):\n    with tf.GradientTape() as t: pass\n",
        "def run():\n    train(model, x)\n",
    )
    source = f"base = ResNet50(False)\n{MODEL}" + f'model.compile("adam", "mse")\n{call}\n'
    models = (ModelFacts("model", ("Functional", "Dense"), "Adam"),)
    diagnosis = Diagnosis("GPU:0", line=len(source.splitlines()))
    asked = example("", source, "", diagnosis=diagnosis, models=models, earlier_cells=(IMPORTS, *defined)).context
    (found,) = freeze_base_layers.propose(asked)
    assert isinstance(found, Proposal), found.reason
    assert "base.trainable = False\n" in found.source


@pytest.mark.parametrize("last", ["out = model(x)\n", "preds = score(model, x)\n", "model.save('m.keras')\n"])
def test_what_ran_out_beside_the_training_is_no_reason_to_freeze(last):
    source = f"base = ResNet50(False)\n{MODEL}{FIT}{last}"
    asked = example(
        "", source, "", diagnosis=Diagnosis("GPU:0", line=len(source.splitlines())),
        models=(ModelFacts("model", ("Functional", "Dense"), "Adam"),), earlier_cells=(IMPORTS,),
    ).context  # fmt: skip
    (found,) = freeze_base_layers.propose(asked)
    assert isinstance(found, Declined), found.diff
    assert "which does not train `model`" in found.reason


def test_the_frames_tell_what_ran_where_a_line_both_trains_and_predicts():
    source = f"base = ResNet50(False)\n{MODEL}" + 'model.compile("adam", "mse")\nmodel.fit(x, y); model.predict(x)\n'
    known = context(source)
    frames = (Frame("cell.py", 4, "<module>", True, True), Frame("trainer.py", 9, "predict"))
    recording = replace(known.recording, errors=(ErrorText("ResourceExhaustedError", "", frames),))
    (found,) = freeze_base_layers.propose(replace(known, recording=recording))
    assert "outside training, in `predict`" in found.reason


def test_a_head_on_the_output_of_the_base_and_what_prints_it_are_no_reason():
    head = "out = layers.Dense(3)(layers.GlobalAveragePooling2D()(base.output))\nmodel = keras.Model(base.input, out)\n"
    found = answer(f"base = ResNet50(False)\nprint(len(base.layers))\n{head}{FIT}")
    assert isinstance(found, Proposal), found


def test_what_another_cell_chooses_for_another_model_is_no_reason():
    found = answer(f"base = ResNet50(False)\n{MODEL}{FIT}", "old.trainable = False")
    assert isinstance(found, Proposal), found


def test_a_model_of_an_earlier_cell_is_left_alone():
    found = answer(f"base = ResNet50(False)\n{MODEL}{FIT}", steps_before=0)
    assert "made before this cell" in found.reason


def test_it_comes_after_all_that_keeps_the_training():
    answers = [a for a in propose_all(context(f"base = ResNet50(False)\n{MODEL}{FIT}")) if isinstance(a, Proposal)]
    keys = [a.key for a in answers]
    assert "freeze-base-layers" in keys
    assert all(a.preserves == "nothing" for a in answers[keys.index("freeze-base-layers") :])


POSITIONS = """
import inspect, json, keras
made = {n: getattr(keras.applications, n) for n in dir(keras.applications) if n[0].isupper()}
print("FOUND", json.dumps({n: list(inspect.signature(f).parameters).index("weights") for n, f in made.items()}))
"""

PEAKS = """
import json, os, sys
import numpy as np, tensorflow as tf, keras
given = json.load(sys.stdin)
os.chdir(given["folder"])
x, y = np.zeros((16, 96, 96, 3), "float32"), np.zeros((16, 3), "float32")
keras.applications.MobileNet((96, 96, 3), 0.25, include_top=False, weights=None).save_weights("w.weights.h5")
peaks = []
for source in given["sources"]:
    keras.backend.clear_session()
    tf.config.experimental.reset_memory_stats("CPU:0")
    before = tf.config.experimental.get_memory_info("CPU:0")["current"]
    names = {"x": x, "y": y, "keras": keras}
    exec(source, names)
    peaks.append(tf.config.experimental.get_memory_info("CPU:0")["peak"] - before)
    del names
print('FOUND', json.dumps(peaks))
"""


@pytest.mark.tf
def test_the_position_of_the_weights_is_known_for_every_base_of_keras():
    positions = found_by(POSITIONS, None)
    table = freeze_base_layers.WEIGHTS
    known = {n: table.get(max((b for b in table if n.startswith(b)), key=len, default=""), 1) for n in positions}
    assert positions == known


@pytest.mark.tf
def test_the_peak_of_a_training_step_falls(tmp_path):
    base = 'keras.applications.MobileNet((96, 96, 3), 0.25, include_top=False, weights="w.weights.h5")'
    head = "model = keras.Sequential([base, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)])\n"
    source = f'import keras\nbase = {base}\n{head}model.compile("adam", "mse", jit_compile=False)\nmodel.fit(x, y, batch_size=16, verbose=0)\n'
    changed = answer(source)
    peaks = found_by(PEAKS, {"folder": str(tmp_path), "sources": [source, changed.source]}, bfc(2000))
    assert peaks[1] < 0.7 * peaks[0], peaks
