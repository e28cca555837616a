"""Builds the GPU made of RAM (``ramgpu.c``) and says with which environment a process sees it."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name("ramgpu.c")
KERNELS = Path(__file__).with_name("ramgpu_kernels.c")

LEFT_TO_SYSTEM_MIB = 255
"""What TensorFlow leaves unused of a device that is smaller than 2 GiB (2.16 to 2.21, as measured)."""

LARGEST_MIB = 1792


class CannotBuildError(RuntimeError):
    """The library cannot be built here; the text says why."""


def ramgpu_env(folder: Path, count: int = 1, mib: int = 512) -> dict[str, str]:
    """Give the environment in which any process or kernel that imports TensorFlow sees ``count`` GPUs made of RAM.

    Parameters
    ----------
    folder : Path
        A folder of the test; TensorFlow loads the library from a copy in it.
    count : int
        Devices, 1 to 8.
    mib : int
        What TensorFlow's allocator may hand out of each device, in MiB, at most 1792; the device itself is larger.

    Raises
    ------
    CannotBuildError
        Without a C compiler or without TensorFlow.
    ValueError
        For sizes or counts that TensorFlow would treat differently.
    """
    if not (1 <= count <= 8 and 1 <= mib <= LARGEST_MIB):
        raise ValueError(f"1 to 8 devices of at most {LARGEST_MIB} MiB each")
    plugins = Path(folder) / "tensorflow-plugins"
    plugins.mkdir(parents=True, exist_ok=True)
    library = plugins / "libramgpu.so"
    shutil.copyfile(build_ramgpu(), library)
    return {
        "TF_PLUGGABLE_DEVICE_LIBRARY_PATH": str(library),
        "RAMGPU_COUNT": str(count),
        "RAMGPU_MIB": str(mib + LEFT_TO_SYSTEM_MIB),
        "TF_ENABLE_ONEDNN_OPTS": "0",
    }


def build_kernels() -> Path:
    """Compile arithmetic for it, which a process gets by ``tf.load_op_library``; give the library's path."""
    return _build(KERNELS)


def build_ramgpu() -> Path:
    """Compile ``ramgpu.c`` against the installed TensorFlow, once per version and source; give the library's path."""
    return _build(SOURCE)


def _build(source: Path) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise CannotBuildError("no C compiler is installed")
    spec = importlib.util.find_spec("tensorflow")
    if spec is None or not spec.submodule_search_locations:
        raise CannotBuildError("TensorFlow is not installed")
    tensorflow = Path(spec.submodule_search_locations[0])
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:12]
    cache = Path(tempfile.gettempdir()) / f"tf_mem_magic-tests-{os.getuid()}"
    cache.mkdir(mode=0o700, exist_ok=True)
    library = cache / f"{source.stem}-{_tensorflow_version()}-{digest}.so"
    if not library.exists():
        fresh = library.with_suffix(f".{os.getpid()}.tmp")
        libraries = [f"-L{tensorflow}", "-l:libtensorflow_framework.so.2", "-l:libtensorflow_cc.so.2"]
        command = [compiler, "-shared", "-fPIC", "-O1", "-std=c11", "-D_POSIX_C_SOURCE=200809L"]
        command += [f"-I{tensorflow / 'include'}", str(source), "-o", str(fresh), *libraries, "-lpthread"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise CannotBuildError(f"the compiler refused {source.name}:\n{done.stderr}")
        os.replace(fresh, library)  # another test process may be building it too
    return library


def _tensorflow_version() -> str:
    for name in ("tensorflow-cpu", "tensorflow", "tensorflow-intel"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "unknown"
