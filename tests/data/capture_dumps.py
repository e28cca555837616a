"""Captures what the BFC allocator writes when it is full: the dump on stderr, and the structured file.

Run it with each version of TensorFlow, in a folder of your choice: python capture_dumps.py
"""

import glob
import os
import shutil
import subprocess
import sys
import tempfile

CODE = """
import tensorflow as tf
blocks = [tf.random.normal((256, 1024)) for _ in range(6)]
del blocks[2]
small = [tf.random.normal((n,)) for n in (100, 3000, 3000, 70000)]
try:
    tf.zeros((64, 1024, 256))
except tf.errors.ResourceExhaustedError:
    print(tf.__version__)
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        environment = dict(os.environ, TF_CPU_ALLOCATOR_USE_BFC="1", TF_CPU_BFC_MEM_LIMIT_IN_MB="16")
        environment.update(TF_ENABLE_ONEDNN_OPTS="0", TF_BFC_MEMORY_DUMP=f"{folder}/dump")
        run = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=True)
        version = run.stdout.strip()
        with open(f"dump-tf{version}.txt", "w", encoding="utf-8") as file:
            file.write(run.stderr)
        shutil.copy(max(glob.glob(f"{folder}/dump_*")), f"dump-tf{version}.pb")


if __name__ == "__main__":
    main()
