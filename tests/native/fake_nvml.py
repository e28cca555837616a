"""Builds NVIDIA's management library without a card (``fake_nvml.c``), and the CUDA driver's part that we ask."""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
from pathlib import Path

from tests.native.ramgpu import CannotBuildError

HERE = Path(__file__).parent


def build_fake_nvml(folder: Path, *, old: bool = False) -> Path:
    """Compile both libraries into ``folder``; give it, to be put into ``LD_LIBRARY_PATH``.

    ``old`` leaves out the functions that newer drivers have.

    Raises
    ------
    CannotBuildError
        Without a C compiler, or without NVIDIA's ``nvml.h`` (package ``nvidia-nvml-dev-cu12``).
    """
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise CannotBuildError("no C compiler is installed")
    header = next(Path(sysconfig.get_path("purelib")).glob("nvidia/**/nvml.h"), None)
    if header is None:
        raise CannotBuildError("NVIDIA's nvml.h is not installed (package nvidia-nvml-dev-cu12)")
    folder.mkdir(parents=True, exist_ok=True)
    flags = ["-DOLD"] if old else []
    for source, library in (("fake_nvml.c", "libnvidia-ml.so.1"), ("fake_cuda.c", "libcuda.so.1")):
        command = [compiler, "-shared", "-fPIC", "-O1", "-std=gnu11", "-Wall", "-Wextra", "-Werror", *flags]
        command += [f"-I{header.parent}", str(HERE / source), "-o", str(folder / library)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise CannotBuildError(f"the compiler refused {source}:\n{done.stderr}")
    return folder
