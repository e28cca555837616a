"""Load the errors that tests/data/capture_errors.py captured."""

import json
from pathlib import Path

from tf_mem_magic.core.jsonio import decode
from tf_mem_magic.core.recording import ErrorText

FOLDER = Path(__file__).parent / "data" / "errors"


def names(version: str) -> list[str]:
    """List the cases captured from a TensorFlow version."""
    return sorted(path.stem for path in (FOLDER / version).glob("*.json"))


def load(version: str, case: str) -> tuple[ErrorText, ...]:
    """Load the chain of one case."""
    saved = json.loads((FOLDER / version / f"{case}.json").read_text())
    return decode(json.dumps(saved["errors"]).encode(), tuple[ErrorText, ...])
