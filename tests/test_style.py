"""The rules of the house, checked: lint, format, types, and who may import whom."""

from __future__ import annotations

import ast
import importlib.util
import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "tf_mem_magic"
HEAVY = (
    "tensorflow",
    "keras",
    "IPython",
    "ipykernel",
    "ipywidgets",
    "anywidget",
    "matplotlib",
    "pynvml",
    "psutil",
    "numpy",
)
PURE = ("core", "cells", "remedies")


def run_tool(*words: str) -> subprocess.CompletedProcess[str]:
    if importlib.util.find_spec(words[0]) is None:
        pytest.skip(f"{words[0]} is not installed here: the newest set of packages checks it")
    return subprocess.run([sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True, check=False)


def test_ruff_finds_nothing():
    done = run_tool("ruff", "check", "--config", ".ci/ruff.toml", "--no-cache", "tf_mem_magic", "tests")
    assert done.returncode == 0, done.stdout


def test_every_file_is_formatted():
    done = run_tool("ruff", "format", "--check", "--config", ".ci/ruff.toml", "--no-cache", "tf_mem_magic", "tests")
    assert done.returncode == 0, done.stdout


def test_the_pure_rooms_pass_the_strict_type_check():
    done = run_tool("mypy", "--config-file", "setup.cfg")
    assert done.returncode == 0, done.stdout


def in_fresh_python(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_importing_the_pure_rooms_brings_in_nothing_heavy():
    names = [
        f"tf_mem_magic.{room}.{module.name}" for room in PURE for module in pkgutil.iter_modules([str(PACKAGE / room)])
    ]
    assert len(names) > 20
    code = (
        f"import importlib, json, sys\nfor name in {[*names, 'tf_mem_magic.explain']!r}: importlib.import_module(name)\n"
        f"print(json.dumps(sorted(set(sys.modules) & set({HEAVY!r}))))"
    )
    assert in_fresh_python(code) == []


def test_importing_the_package_brings_in_nothing_heavy():
    heavy = (*HEAVY, "libcst", "msgspec")
    code = f"import json, sys, tf_mem_magic\nprint(json.dumps(sorted(set(sys.modules) & set({heavy!r}))))"
    assert in_fresh_python(code) == []


def imports_of(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@pytest.mark.parametrize("room", PURE)
def test_a_pure_room_imports_no_shell(room):
    shells = tuple(f"tf_mem_magic.{name}" for name in ("run", "views", "sources", "apply", "magic", "api"))
    bad = {
        f"{file.name}: {name}"
        for file in (PACKAGE / room).glob("*.py")
        for name in imports_of(file)
        if name.startswith(shells) or name.split(".")[0] in HEAVY
    }
    assert bad == set()


def test_nobody_imports_the_magic():
    importers = {
        str(file.relative_to(PACKAGE)) for file in PACKAGE.rglob("*.py") if "tf_mem_magic.magic" in imports_of(file)
    }
    assert importers == {"__init__.py"}


def test_files_stay_small():
    long = {
        str(file.relative_to(PACKAGE)): lines
        for file in PACKAGE.rglob("*.[pj][ys]")
        if (lines := len(file.read_text(encoding="utf-8").splitlines())) > 350
    }
    assert long == {}
