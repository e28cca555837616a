"""Raise, for real, what a full GPU says, on the GPU made of RAM, and save it with the allocator's dump.

Run it once for each TensorFlow version, in that version's environment, from the repository's root::

    PYTHONPATH=. python tests/data/capture_gpu_errors.py [CASE ...]

Each case runs in a process of its own (about 10 s each: the allocator waits that long for memory). The result is
``tests/data/errors_gpu/<version>/<case>.json``, as ``capture_errors.py`` writes it, and ``<case>.pb``, the first
structured dump of that failure.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from capture_errors import run_case, tensorflow_version, without_folders

from tests.native.ramgpu import ramgpu_env

HERE = Path(__file__).parent

CASES = {
    "eager": """
import tensorflow as tf
def pile_up():
    with tf.device("GPU:1"):
        return [tf.identity(tf.zeros((1024, 1024, 4))) for _ in range(20)]
pile_up()
""",
    "build": """
import keras
model = keras.Sequential([keras.Input((1024,)), keras.layers.Dense(40000)])
""",
    "fit": """
import keras, numpy as np
model = keras.Sequential([keras.Input((1024,)), keras.layers.Dense(8000), keras.layers.Dense(1)])
model.compile("adam", "mse", jit_compile=False)
model.fit(np.zeros((8, 1024), "float32"), np.zeros((8, 1), "float32"), verbose=0)
""",
}


def main(names: list[str]) -> None:
    """Run the cases called ``names`` (all, where empty) and save what they raise."""
    folder = HERE / "errors_gpu" / tensorflow_version()
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or CASES:
        with tempfile.TemporaryDirectory() as scratch:
            gpu = ramgpu_env(Path(scratch), count=2, mib=64)
            env = {**os.environ, **gpu, "TF_BFC_MEMORY_DUMP": f"{scratch}/dump", "TF_CPP_MIN_LOG_LEVEL": "2"}
            command = [sys.executable, __file__, "--case", name]
            done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)
            dumps = sorted(Path(scratch).glob("dump*"))
            found = done.stdout.rpartition("\n@@@")[2] if "\n@@@" in done.stdout else ""
            if not found or not dumps:
                print(f"{name}: raised nothing (exit {done.returncode}) {done.stderr[-300:]}")
                continue
            saved = json.loads(without_folders(found.strip()))
            (folder / f"{name}.json").write_text(json.dumps(saved, indent=1, ensure_ascii=False) + "\n")
            (folder / f"{name}.pb").write_bytes(dumps[0].read_bytes())
            print(f"{name}: {saved['errors'][0]['type']}: {saved['errors'][0]['message'][:260]!r} {dumps[0].name}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--case"]:
        run_case(CASES[sys.argv[2]])
    else:
        main(sys.argv[1:])
