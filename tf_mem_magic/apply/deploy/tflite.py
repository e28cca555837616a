"""A Keras model as a TensorFlow Lite model with int8 weights."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tf_mem_magic.apply.deploy._inference import describe_error, first_samples, flat_outputs, predict, weight_bytes
from tf_mem_magic.core.units import brief_unit, size

_CONVERT = """
import sys
import numpy as np
import tensorflow as tf

folder = sys.argv[1]
converter = tf.lite.TFLiteConverter.from_saved_model(f"{folder}/model")
converter.optimizations = [tf.lite.Optimize.DEFAULT]
data = converter.convert()
open(f"{folder}/model.tflite", "wb").write(data)
inputs = np.load(f"{folder}/inputs.npz")
if inputs.files:
    runner = tf.lite.Interpreter(model_content=data).get_signature_runner("serving_default")
    names = sorted(runner.get_input_details()) if len(inputs.files) == 1 else inputs.files
    given = {n: inputs[k] for n, k in zip(names, inputs.files)}
    kinds = runner.get_input_details()
    outputs = runner(**{n: a.astype(kinds[n]["dtype"]) for n, a in given.items()})
    np.savez(f"{folder}/outputs.npz", *(outputs[n] for n in sorted(outputs)))
"""


def tflite(model: Any, sample: Any = None) -> bytes:
    """Convert a Keras model to TensorFlow Lite with int8 weights, and print what that saves and costs.

    The same as ``model.export`` and ``tf.lite.TFLiteConverter`` with ``Optimize.DEFAULT``: weights become int8,
    inputs and outputs stay as they are. The converter runs in a process of its own, on the CPU: on some models that it
    does not know it ends the process that it runs in, and this one goes on.

    Parameters
    ----------
    model : keras.Model
        A built model of Keras 3 with one input.
    sample : arrays, tf.data.Dataset or keras.utils.PyDataset, optional
        Inputs to compare on, at most 32; of a dataset, its first batch. Without it only the size is measured.

    Returns
    -------
    bytes
        The TensorFlow Lite model: what a ``.tflite`` file holds.

    Raises
    ------
    TypeError
        If ``sample`` is a generator.
    ValueError
        If the model takes several inputs and a sample is given.
    RuntimeError
        If the converter fails; the text is what it said last.
    """
    import keras
    import numpy as np

    inputs = None if sample is None else first_samples(sample)
    arrays = [] if inputs is None else [np.asarray(one) for one in keras.tree.flatten(inputs)]
    if len(arrays) > 1:
        raise ValueError("outputs can be compared for one input only: leave the sample out for this model")
    with tempfile.TemporaryDirectory(prefix="tfmem-") as name:
        folder = Path(name)
        model.export(folder / "model", verbose=False)
        np.savez(folder / "inputs.npz", *arrays)
        _convert(folder)
        data = (folder / "model.tflite").read_bytes()
        seen = _load(folder / "outputs.npz") if arrays else ()
    before, after = weight_bytes(model), len(data)
    unit = brief_unit([before, after])
    print(f"weights {unit.text(before)} → TensorFlow Lite model {size(after, unit)}")
    if inputs is None:
        print("output error: not measured, because no sample was given")
        return data
    print(describe_error(predict(model, inputs).outputs, seen))
    return data


def _convert(folder: Path) -> None:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "2"}
    for limit in ("TF_CPU_ALLOCATOR_USE_BFC", "TF_BFC_MEMORY_DUMP"):
        environment.pop(limit, None)
    command = [sys.executable, "-c", _CONVERT, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"TensorFlow Lite could not convert this model: {_why(done.stderr, done.returncode)}")


_MISSING = re.compile(r"failed to legalize operation '(?:tfl?\.)?(\w+)'|error: '(?:tfl?\.)(\w+)' op")
_LISTED = re.compile(r"(?:Flex|Custom|TF Select) ops: ([\w, ]+)")


def _why(said: str, code: int) -> str:
    """Put what the converter said last in a sentence: the operations without a kernel, where it names them."""
    ops = [name for one in _LISTED.findall(said) for name in re.findall(r"\w+", one)]
    ops += [one or other for one, other in _MISSING.findall(said)]
    if ops:
        return f"it has no kernel for {', '.join(sorted(set(ops)))}."
    if code < 0:
        return f"the converter's process was ended by signal {-code}."
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    last = next((line for line in reversed(lines) if not line.startswith("^")), f"it ended with {code}")
    return re.sub(r"^[\w.]+(?:Error|Exception): ", "", last)[:400]


def _load(path: Path) -> tuple[Any, ...]:
    import numpy as np

    with np.load(path) as held:
        return flat_outputs([held[name] for name in held.files])
