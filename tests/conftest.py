"""What every test is checked for; which files run first, and how long each took."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import settings

from tests import needs

# How long an example takes is the machine's, and no test is about that. With CI set Hypothesis has a profile that says so.
settings.register_profile("untimed", deadline=None)
if not os.environ.get("CI"):
    settings.load_profile("untimed")

DURATIONS = Path(__file__).resolve().parent.parent / ".ci" / "durations.json"
"""Seconds of each file with heavy tests, in CI; ``--write-durations`` measures them anew."""


def pytest_addoption(parser):
    parser.addoption(
        "--write-durations", action="store_true", help=f"write the seconds of each file to {DURATIONS.name} in .ci"
    )


def pytest_configure(config):
    if config.getoption("--write-durations") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Durations(), "durations")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """Among several processes the longest files run first, so that none of them is left over at the end."""
    if hasattr(config, "workerinput"):
        known = json.loads(DURATIONS.read_text(encoding="utf-8"))
        seconds = {file_of(item): known.get(file_of(item), NEW if is_heavy(item) else 0) for item in reversed(items)}
        items.sort(key=lambda item: -seconds[file_of(item)])


NEW = 60
"""Seconds that a file takes which was not measured yet."""


def file_of(test):
    """Give the file of a test or of its report, named from the project's folder."""
    return test.nodeid.partition("::")[0]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    needs.light_test = "" if is_heavy(item) else item.nodeid


def is_heavy(item):
    return any(item.get_closest_marker(name) for name in ("browser", "kernel", "tf"))


class Durations:
    """Adds up how long the tests of each file took, what they share included."""

    def __init__(self):
        self.seconds = Counter()

    def pytest_runtest_logreport(self, report):
        self.seconds[file_of(report)] += report.duration

    def pytest_sessionfinish(self):
        before = json.loads(DURATIONS.read_text(encoding="utf-8")) if DURATIONS.exists() else {}
        root = DURATIONS.parent.parent
        found = {file: seconds for file, seconds in before.items() if (root / file).exists()}
        found |= {file: round(seconds) for file, seconds in self.seconds.items() if seconds >= 5}
        text = json.dumps(dict(sorted(found.items(), key=lambda one: -one[1])), indent=1)
        DURATIONS.write_text(f"{text}\n", encoding="utf-8")


@pytest.fixture(autouse=True)
def leaves_the_environment_alone():
    """No test leaves the variable set that a watch sets: the processes of later tests would inherit it."""
    before = os.environ.get("TF_BFC_MEMORY_DUMP")
    yield
    after = os.environ.get("TF_BFC_MEMORY_DUMP")
    if after != before:
        del os.environ["TF_BFC_MEMORY_DUMP"]
    assert after == before


@pytest.fixture(autouse=True)
def leaves_tensorflow_asleep():
    """No test imports TensorFlow into this process: others ask what we do where it is not there."""
    before = "tensorflow" in sys.modules
    yield
    assert before or "tensorflow" not in sys.modules, "run TensorFlow in a process of its own: tests/script.py"
