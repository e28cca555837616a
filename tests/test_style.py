"""The rules of the house, checked: lint, format, types, who may import whom, and how full a folder may be."""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.data.capture_errors import without_folders

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
ROOMS = tuple(
    "core memory diagnose notebook sources remedies report explain facts trace release apply record api views session magic".split()
)
"""The rooms in the order in which they may import: each one only from those before it."""
PURE = ("core", "memory", "diagnose", "notebook", "remedies", "report", "explain")
SHELLS = ("tf_mem_magic.report.picture.figure", "tf_mem_magic.report.bundle")
"""What lies in a pure room and is a shell all the same."""

UPWARD = (
    ("diagnose.comparison", "report.comparison_words", "a comparison makes its own sentence"),
    ("remedies.deploy.quantize", "report.measures", "a remedy tells what was measured in the report's words"),
)
"""Imports against the order that are still there, with what brings them about. To be mended, not added to."""

CIRCLES = ()
"""Import circles that are still there. To be mended, not added to."""

FULLEST = 16
CROWDED = {"tests": 18, "tests/remedies": 18}
"""Folders with more files than that. To be emptied, not filled."""

LEFTOVERS = (".orig", ".rej", ".bak", ".swp")

NOT_ROOMS = ("benchmarks", "browser", "data", "forked", "golden", "native")
"""Folders of the tests that mirror no room."""


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


def test_the_whole_package_passes_the_strict_type_check():
    done = run_tool("mypy", "--config-file", "setup.cfg")
    assert done.returncode == 0, done.stdout


def in_fresh_python(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_importing_the_pure_rooms_brings_in_nothing_heavy():
    names = [name for name in modules() if is_pure(name)]
    assert len(names) > 80
    code = (
        f"import importlib, json, sys\nfor name in {names!r}: importlib.import_module(name)\n"
        f"print(json.dumps(sorted(set(sys.modules) & set({HEAVY!r}))))"
    )
    assert in_fresh_python(code) == []


def test_importing_the_package_brings_in_nothing_heavy():
    heavy = (*HEAVY, "libcst", "msgspec")
    code = f"import json, sys, tf_mem_magic\nprint(json.dumps(sorted(set(sys.modules) & set({heavy!r}))))"
    assert in_fresh_python(code) == []


@cache
def modules() -> dict[str, Path]:
    """Give the file of every module of the package."""
    files = sorted(PACKAGE.rglob("*.py"))
    return {".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): f for f in files}


def room_of(name: str) -> str:
    return name.split(".")[1]


def is_pure(name: str) -> bool:
    return "." in name and room_of(name) in PURE and not name.startswith(SHELLS)


def nodes_that_run(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what is below ``node``, functions too, but not what only a type checker reads."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            continue
        yield child
        yield from nodes_that_run(child)


@cache
def imports_of(name: str) -> frozenset[str]:
    """Name the modules that a module imports, at its top or in a function; of ours exactly, of others in full."""
    found = set()
    for node in nodes_that_run(ast.parse(modules()[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively, which these tests do not follow"
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {one if one in modules() else str(node.module) for one in whole}
    return frozenset(found - {name})


def test_the_names_of_the_rooms_are_those_of_the_package():
    assert {room_of(name) for name in modules() if "." in name} == set(ROOMS)


def upward_imports() -> set[tuple[str, str]]:
    """Give the imports of a room that comes later, or of the package, which imports the last one."""
    place = {room: i for i, room in enumerate(ROOMS)}
    return {
        (name.partition(".")[2], other.partition(".")[2])
        for name in modules()
        if "." in name
        for other in imports_of(name) & set(modules())
        if "." not in other or place[room_of(other)] > place[room_of(name)]
    }


def test_rooms_import_only_from_rooms_before_them():
    assert upward_imports() - {(name, other) for name, other, _ in UPWARD} == set()


def test_what_is_excused_from_the_order_is_still_there():
    assert {(name, other) for name, other, _ in UPWARD} - upward_imports() == set(), "mended: take it out of UPWARD"


def circles() -> set[frozenset[str]]:
    """Give the largest groups of modules that all import each other, directly or by others."""
    reached: dict[str, set[str]] = {}
    for start in modules():
        reached[start], ahead = set(), [start]
        while ahead:
            for other in (imports_of(ahead.pop()) & set(modules())) - reached[start]:
                reached[start].add(other)
                ahead.append(other)
    grouped = {frozenset(b for b in reached[a] if a in reached[b]) for a in modules() if a in reached[a]}
    return {frozenset(name.partition(".")[2] for name in group) for group in grouped}


def test_no_modules_import_each_other_in_a_circle():
    assert [sorted(group) for group in circles() if not any(group <= set(known) for known in CIRCLES)] == []


def test_the_excused_circles_are_still_there():
    mended = [known for known in CIRCLES if not any(group <= set(known) for group in circles())]
    assert mended == [], "take it out of CIRCLES"


@pytest.mark.parametrize("room", PURE)
def test_a_pure_room_imports_nothing_heavy_and_no_shell(room):
    bad = {
        f"{name}: {other}"
        for name in modules()
        if is_pure(name) and room_of(name) == room
        for other in imports_of(name)
        if other.split(".")[0] in HEAVY or (other.startswith("tf_mem_magic.") and not is_pure(other))
    }
    assert bad == set()


def test_nobody_imports_the_magic():
    assert {name for name in modules() if "tf_mem_magic.magic" in imports_of(name)} == {"tf_mem_magic"}


def test_no_folder_holds_more_files_than_one_can_look_over():
    files = [f for top in (PACKAGE, ROOT / "tests") for f in top.rglob("*.py") if f.name != "__init__.py"]
    full = Counter(f.parent.relative_to(ROOT).as_posix() for f in files)
    assert {folder: n for folder, n in full.items() if n > CROWDED.get(folder, FULLEST)} == {}
    assert {folder for folder in CROWDED if full[folder] <= FULLEST} == set(), "emptied: take it out of CROWDED"


def test_each_folder_of_tests_mirrors_one_of_the_package():
    folders = {f.parent.relative_to(ROOT / "tests") for f in (ROOT / "tests").rglob("test_*.py")}
    mirroring = [f for f in folders if f.parts and f.parts[0] not in NOT_ROOMS]
    assert [f for f in mirroring if not ((PACKAGE / f).is_dir() or (PACKAGE / f).with_suffix(".py").is_file())] == []
    assert len(mirroring) > 10


def test_no_recording_names_a_folder_of_the_machine_that_made_it():
    recordings = [*(ROOT / "tests" / "data").rglob("*.json")]
    assert len(recordings) > 50
    texts = {file: file.read_text(encoding="utf-8") for file in recordings}
    home = f"{Path.home()}/"
    assert [str(file) for file, text in texts.items() if without_folders(text) != text or home in text] == []


def test_no_leftover_of_a_merge_or_an_editor_is_kept():
    found = [f for folder in (PACKAGE, ROOT / "tests") for f in folder.rglob("*") if f.suffix in LEFTOVERS]
    assert [str(f.relative_to(ROOT)) for f in found] == []


def test_files_stay_small():
    long = {
        str(file.relative_to(PACKAGE)): lines
        for file in PACKAGE.rglob("*.[pj][ys]")
        if (lines := len(file.read_text(encoding="utf-8").splitlines())) > 350
    }
    assert long == {}


SENTENCES = frozenset("reason title why caveat caveats notice notices advice heading sentence label".split())
READERS = frozenset("startswith endswith replace partition rpartition split find index count removeprefix".split())
PATTERNS = frozenset("search match fullmatch findall finditer sub split".split())


def is_sentence(node: ast.AST) -> bool:
    return getattr(node, "attr", getattr(node, "id", "")) in SENTENCES


def reads_a_sentence(node: ast.AST) -> bool:
    """Tell whether a node asks what words a sentence for people has, by its name."""
    if isinstance(node, ast.Compare):
        contains = any(isinstance(one, (ast.In, ast.NotIn)) for one in node.ops)
        return (
            contains
            and isinstance(node.left, (ast.Constant, ast.JoinedStr))
            and any(map(is_sentence, node.comparators))
        )
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return False
    asked = node.func.attr in READERS and is_sentence(node.func.value)
    return asked or (node.func.attr in PATTERNS and any(map(is_sentence, node.args)))


@pytest.mark.parametrize(
    "code", ["'alone' in one.reason", "'a' not in sentence", "why.replace('a', 'b')", "p.sub(said, reason)"]
)
def test_what_reads_a_sentence_is_seen(code):
    assert any(map(reads_a_sentence, ast.walk(ast.parse(code))))


def test_no_sentence_for_people_is_read_as_data():
    found = Counter(
        name.partition(".")[2]
        for name, file in modules().items()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if reads_a_sentence(node)
    )
    assert found == {}
