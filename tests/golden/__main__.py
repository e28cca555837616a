"""Write the golden file anew, and print what changed: ``python -m tests.golden``."""

from __future__ import annotations

from tests.golden.answers import FILES, difference, written

if __name__ == "__main__":
    for part, path in FILES.items():
        print(difference(part) or f"{part}: nothing changed")
        path.write_text(written(part), encoding="utf-8")
