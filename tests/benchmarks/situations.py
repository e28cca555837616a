"""What the remedies for one situation each save, for real: ``python -m tests.benchmarks.situations [KEY ...]``.

Each cell runs out of memory in a fresh kernel, on the CPU with the GPU's allocator or on a GPU made of RAM, and is then
run again with the change that the report proposes for it. A row tells the limit, what was needed beside what was in
use when it ran out, and the peak of the allocator's own counter with the change.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.benchmarks.table import machine
from tests.kernel import Kernel, bfc
from tests.native.ramgpu import build_kernels, ramgpu_env

SETUP = """%load_ext tf_mem_magic
import os, keras, numpy as np, tensorflow as tf, tf_mem_magic as t
from keras import layers
if "RAMGPU_KERNELS" in os.environ: tf.load_op_library(os.environ["RAMGPU_KERNELS"])
rng = np.random.default_rng(0)
"""

RAN_OUT = "(lambda r: (r.status, r.diagnosis and (r.diagnosis.requested, r.diagnosis.in_use)))(t.last_report())"
AGAIN = "(lambda r: (r.status, r.recording.main.peak))(again)"


@dataclass(frozen=True, slots=True)
class Case:
    """A cell that runs out of ``mib``, after ``setup`` and, where memory must lie in pieces, after ``before``."""

    mib: int
    setup: str
    cell: str
    before: str = ""
    on_gpu: bool = False


CASES = {
    "rows-in-chunks": Case(
        200,
        "images = rng.random((600, 32, 32, 3), dtype='float32')",
        "big = tf.image.resize(images, (224, 224))",
    ),
    "outputs-to-host": Case(
        200,
        "i = keras.Input((32, 32, 3))\n"
        "up = keras.Model(i, layers.Conv2D(8, 3, padding='same')(layers.UpSampling2D(4)(i)))\n"
        "x = rng.random((560, 32, 32, 3), dtype='float32')",
        "pred = up.predict(x, batch_size=4, verbose=0)",
    ),
    "jacobian-row-by-row": Case(
        200,
        "net = keras.Sequential([keras.Input((32, 32, 3)), layers.Conv2D(16, 3, activation='relu', padding='same'),\n"
        "    layers.Conv2D(16, 3, activation='relu', padding='same'), layers.GlobalAveragePooling2D(), layers.Dense(64)])\n"
        "z = tf.random.normal((4, 32, 32, 3))",
        "with tf.GradientTape() as g:\n    out = net(z)\njac = g.jacobian(out, net.weights)",
    ),
    "callback-in-batches": Case(
        80,
        "class Score(keras.callbacks.Callback):\n    def on_epoch_end(self, epoch, logs=None):\n"
        "        out = self.model(x_val, training=False)\n        print(float(tf.reduce_mean(out)))\n"
        "x = rng.random((32, 64, 64, 3), dtype='float32'); y = rng.random((32, 1), dtype='float32')\n"
        "x_val = rng.random((400, 64, 64, 3), dtype='float32')\n"
        "model = keras.Sequential([keras.Input((64, 64, 3)), layers.Conv2D(16, 3, activation='relu'),\n"
        "    layers.GlobalAveragePooling2D(), layers.Dense(1)])\nmodel.compile('adam', 'mse', jit_compile=False)",
        "model.fit(x, y, batch_size=8, epochs=1, verbose=0, callbacks=[Score()]);",
    ),
    "list-to-host": Case(
        120,
        "",
        "kept = []\nfor i in range(60):\n    kept.append(tf.random.normal((1024, 1024)) * 2.0)",
    ),
    "in-tiles": Case(
        150,
        "i = keras.Input((None, None, 3))\nh = layers.Conv2D(16, 3, padding='same', activation='relu')(i)\n"
        "h = layers.Conv2D(16, 3, padding='same', activation='relu')(h)\n"
        "model = keras.Model(i, layers.Conv2D(1, 1)(h))\nphoto = rng.random((1, 1536, 1536, 3), dtype='float32')",
        "out = model.predict(photo, verbose=0)",
    ),
    "freeze-base-layers": Case(
        110,
        "keras.applications.MobileNetV2((96, 96, 3), include_top=False, weights=None).save_weights('w.weights.h5')\n"
        "keras.backend.clear_session()\n"
        "x = rng.random((32, 96, 96, 3), dtype='float32'); y = rng.random((32, 3), dtype='float32')",
        "base = keras.applications.MobileNetV2((96, 96, 3), include_top=False, weights='w.weights.h5')\n"
        "model = keras.Sequential([base, layers.GlobalAveragePooling2D(), layers.Dense(3)])\n"
        "model.compile('adam', 'mse', jit_compile=False)\nmodel.fit(x, y, batch_size=16, epochs=1, verbose=0);",
    ),
    "cpu-offload": Case(
        64,
        "x = rng.standard_normal((8192, 64)).astype('float32'); y = x[:, :8].copy()\n"
        "model = keras.Sequential([keras.Input((64,)), layers.Dense(1024, 'relu'), layers.Dense(1024, 'relu'), "
        "layers.Dense(8)])\nmodel.compile('adam', 'mse', jit_compile=False)\nh = model.fit(x[:64], y[:64], verbose=0)",
        "scores = model.evaluate(x, y, batch_size=8192, verbose=0)",
        on_gpu=True,
    ),
    "fresh-kernel": Case(
        200,
        "",
        "whole = tf.zeros((130, 1024, 256))",
        before="small = []\nwhile True:\n    small.append(tf.zeros((3, 1024, 256)))",
    ),
}


def measure(key: str, case: Case, folder: Path) -> str:
    """Give a row of the table, or what went otherwise than the case needs."""
    env = {**bfc(case.mib), "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    if case.on_gpu:
        env |= {**ramgpu_env(folder, mib=case.mib), "RAMGPU_KERNELS": str(build_kernels())}
        for name in bfc():
            env.pop(name, None)
    with Kernel(env, cwd=str(folder)) as kernel:
        for code in (SETUP, case.setup):
            if (ran := kernel.run(code)).status != "ok":
                return f"{key}: {ran.errors}"
        if case.before:
            kernel.run(f"%%tfmem\n{case.before}")
            kernel.run("small = None")
        ran = kernel.run(f"%%tfmem\n{case.cell}", timeout=300)
        status, numbers = kernel.value(RAN_OUT)
        offered = kernel.value("[p.key for p in t.last_report().proposals if hasattr(p, 'diff')]")
        declined = kernel.value("{p.key: p.reason for p in t.last_report().proposals if hasattr(p, 'reason')}")
        if status != "oom" or key not in offered:
            return f"{key}: {status}, offered {offered}; {declined.get(key)}; {ran.errors[-1:]}"
        if not case.before:
            kernel.run(f"again = t.last_report().rerun({key!r})", timeout=300)
            after = kernel.value(AGAIN)
    if case.before:
        with Kernel(env, cwd=str(folder)) as fresh:
            fresh.run(SETUP)
            fresh.run(f"%%tfmem\n{case.cell}")
            after = fresh.value("(lambda r: (r.status, r.recording.main.peak))(t.last_report())")
    needed, in_use = ("?" if n is None else f"{n / 2**20:.3g}" for n in numbers)
    peak = "?" if after[1] is None else f"{after[1] / 2**20:.3g} MiB"
    return f"| {key} | {case.mib} MiB | {needed} MiB beside {in_use} | {after[0]}, {peak} |"


def main() -> None:
    """Measure the cases that are named, or all, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("keys", nargs="*", metavar="KEY")
    chosen = parser.parse_args().keys or list(CASES)
    print("| remedy | limit | ran out when it needed | with the change |\n|---|---|---|---|")
    for key in chosen:
        with TemporaryDirectory() as folder:
            print(measure(key, CASES[key], Path(folder)), flush=True)
    print(machine(), file=sys.stderr)


if __name__ == "__main__":
    main()
