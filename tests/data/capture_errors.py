"""Raise, for real, each error of the table that a CPU can raise, and save what it says.

Run it once for each TensorFlow version, in that version's environment, from the repository's root::

    PYTHONPATH=. python tests/data/capture_errors.py [CASE ...]

Each case runs in a process of its own on the CPU's BFC allocator (about 10 s each: the allocator waits that long
for memory). The result is ``tests/data/errors/<version>/<case>.json``, an exception's chain as ``to_error_texts``
gives it, with this machine's folders replaced.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
CELL = "/tmp/ipykernel_7/1.py"
MB = 200

ALLOCATOR = {
    "TF_CPU_ALLOCATOR_USE_BFC": "1",
    "TF_CPU_BFC_MEM_LIMIT_IN_MB": str(MB),
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "TF_CPP_MIN_LOG_LEVEL": "2",
}

MODEL = """
import numpy as np, tensorflow as tf, keras
def build(**kw):
    model = keras.Sequential([keras.Input((64, 64, 3)), keras.layers.Conv2D(32, 3, padding="same", activation="relu"),
                              keras.layers.Conv2D(32, 3, padding="same", activation="relu"),
                              keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), **kw)
    return model
x, y = np.zeros((512, 64, 64, 3), "float32"), np.zeros((512,), "int32")
"""

CASES = {
    "eager": "import tensorflow as tf\na = tf.ones((4000, 4000))\nb = [a + float(i) for i in range(9)]\n",
    "build": "import keras\nlayer = keras.layers.Dense(60000)\nlayer.build((None, 1000))\n",
    "function": """
import tensorflow as tf
@tf.function
def step(a):
    b = a * 2.0
    c = tf.linalg.matmul(b, b) + tf.sin(b)
    return tf.reduce_sum(c)
def train():
    return step(tf.ones((4500, 4500)))
train()
""",
    "fit": MODEL + "model = build()\nmodel.fit(x, y, batch_size=256, verbose=0)\n",
    "fit_gradient": MODEL + "model = build()\nmodel.fit(x, y, batch_size=96, verbose=0)\n",
    "predict": MODEL + "model = build()\nmodel.predict(x, batch_size=512, verbose=0)\n",
    "evaluate": MODEL + "model = build()\nmodel.evaluate(x, y, batch_size=512, verbose=0)\n",
    "run_eagerly": MODEL + "model = build(run_eagerly=True)\nmodel.fit(x, y, batch_size=512, verbose=0)\n",
    "jit": MODEL + "model = build(jit_compile=True)\nmodel.fit(x, y, batch_size=512, verbose=0)\n",
    "train_step": """
import numpy as np, tensorflow as tf, keras
class Mine(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(64)
    def call(self, x):
        return self.dense(x)
    def train_step(self, data):
        x, y = data
        big = tf.random.normal((6000, 6000))
        big = big + tf.sin(big)
        return {"loss": tf.reduce_sum(big)}
model = Mine()
model.compile("adam", "mse")
model.fit(np.zeros((64, 8), "float32"), np.zeros((64, 1), "float32"), verbose=0)
""",
    "strategy": MODEL
    + "with tf.distribute.MirroredStrategy(['CPU:0']).scope():\n    model = build()\n"
    + "model.fit(x, y, batch_size=256, verbose=0)\n",
    "data_map": """
import tensorflow as tf
ds = tf.data.Dataset.range(3).map(lambda i: tf.ones((9000, 9000)) + tf.cast(i, tf.float32))
for item in ds:
    pass
""",
    "data_map_in_fit": """
import tensorflow as tf, keras
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
model.compile("sgd", "mse")
def load(i):
    big = tf.random.normal((9000, 9000))
    return tf.zeros((4,)) + tf.reduce_sum(big), tf.zeros((1,))
model.fit(tf.data.Dataset.range(8).map(load).batch(2), verbose=0)
""",
    "data_batch": """
import tensorflow as tf
ds = tf.data.Dataset.range(4000).map(lambda i: tf.zeros((256, 256))).batch(4000)
next(iter(ds))
""",
    "py_function": """
import tensorflow as tf
def big(x):
    return tf.ones((9000, 9000)) + x
tf.py_function(big, [tf.constant(1.0)], tf.float32)
""",
    "py_function_graph": """
import tensorflow as tf
def big(x):
    return tf.ones((9000, 9000)) + x
@tf.function
def step(x):
    return tf.py_function(big, [x], tf.float32)
step(tf.constant(1.0))
""",
    "numpy_function": """
import numpy as np, tensorflow as tf
def big(x):
    return np.ones((10**6, 10**6))
tf.numpy_function(big, [tf.constant(1.0)], tf.float64)
""",
    "generator": """
import numpy as np, tensorflow as tf
def items():
    yield np.ones((10**6, 10**6), "float32")
ds = tf.data.Dataset.from_generator(items, output_signature=tf.TensorSpec((None, None), tf.float32))
next(iter(ds))
""",
    "numpy": "import numpy as np\nx = np.zeros((1000, 1000, 10**6))\n",
    "numpy_in_layer": """
import numpy as np, tensorflow as tf, keras
class Wide(keras.layers.Layer):
    def call(self, x):
        return x + np.zeros((1000, 1000, 10**6))
Wide()(tf.ones((2, 2)))
""",
    "python": "x = bytearray(10**17)\n",
    "async_task": """
import asyncio, tensorflow as tf
async def load():
    try:
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            group.create_task(asyncio.to_thread(tf.ones, (9000, 9000)))
    except BaseExceptionGroup as error:
        error.add_note("while loading")
        raise
asyncio.run(load())
""",
    "absurd_shape": "import tensorflow as tf\ntf.zeros((10**7, 10**7, 10**7))\n",
    "wrapped": """
import tensorflow as tf
def load():
    try:
        return tf.ones((9000, 9000))
    except tf.errors.ResourceExhaustedError as error:
        raise RuntimeError("loading failed") from error
load()
""",
    "no_space": """
import tensorflow as tf
with tf.io.gfile.GFile("/dev/full", "w") as f:
    f.write("x" * 100000)
""",
    "user_says_so": "class Budget(Exception):\n    pass\nraise Budget('out of memory: OOM when allocating tensor')\n",
    "py_function_says_so": """
import tensorflow as tf
def check(x):
    raise ValueError("the cache is out of memory")
tf.py_function(check, [tf.constant(1.0)], tf.float32)
""",
}


GPU_CASES = {
    "gpu_variable": """
import tensorflow as tf
with tf.device("GPU:0"):
    kept = [tf.Variable(tf.zeros((2000, 2000))) for _ in range(40)]
""",
    "gpu_fit": """
import numpy as np, tensorflow as tf, keras
model = keras.Sequential([keras.Input((1024,)), *(keras.layers.Dense(1024) for _ in range(20)), keras.layers.Dense(1)])
model.compile("adam", "mse", jit_compile=False)
model.fit(np.zeros((64, 1024), "float32"), np.zeros((64, 1), "float32"), verbose=0)
""",
}
"""Run on the GPU made of RAM, one device of 100 MiB."""

CASES |= GPU_CASES


def run_case(source: str) -> None:
    """Run one case in this process and print its chain as JSON."""
    from tf_mem_magic.core.jsonio import encode
    from tf_mem_magic.record.traceback import to_error_texts

    code = compile(source, CELL, "exec")
    try:
        exec(code, {"__name__": "__main__"})
    except BaseException as error:
        texts = to_error_texts(error, {CELL})
        version = getattr(sys.modules.get("tensorflow"), "__version__", None)
        print("\n@@@" + json.dumps({"tensorflow": version, "errors": json.loads(encode(texts))}))


def without_folders(text: str) -> str:
    """Replace the folders of this machine."""
    text = re.sub(r'[^\s"]*/lib/python3\.\d+/site-packages', "/venv/lib/python3/site-packages", text)
    text = text.replace(str(HERE.parent.parent), "/project")
    return re.sub(r'[^\s"]*/lib/python3\.\d+/', "/usr/lib/python3/", text)


def tensorflow_version() -> str:
    """Give the installed version, whichever of its packages brings it."""
    from importlib.metadata import PackageNotFoundError, version

    for package in ("tensorflow", "tensorflow_cpu"):
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    raise SystemExit("no TensorFlow here")


def main(names: list[str]) -> None:
    """Run the cases called ``names`` (all, where empty) and save what they raise."""
    version = tensorflow_version()
    folder = HERE / "errors" / version
    folder.mkdir(parents=True, exist_ok=True)
    sys.path.insert(0, str(HERE.parent.parent))
    from tests.native.ramgpu import ramgpu_env

    gpu = ramgpu_env(Path(tempfile.mkdtemp()), mib=100) | {"TF_CPP_MIN_LOG_LEVEL": "2"}
    for name in names or CASES:
        command = [sys.executable, __file__, "--case", name]
        special = gpu if name in GPU_CASES else ALLOCATOR
        done = subprocess.run(command, env={**os.environ, **special}, capture_output=True, text=True, timeout=600)
        found = done.stdout.rpartition("\n@@@")[2] if "\n@@@" in done.stdout else ""
        if not found:
            print(f"{name}: raised nothing (exit {done.returncode}) {done.stderr[-300:]}")
            continue
        saved = json.loads(without_folders(found.strip()))
        (folder / f"{name}.json").write_text(json.dumps(saved, indent=1, ensure_ascii=False) + "\n")
        first = saved["errors"][0]
        print(f"{name}: {first['type']}: {first['message'][:160]!r}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--case"]:
        run_case(CASES[sys.argv[2]])
    else:
        main(sys.argv[1:])
