"""The documentation builds without a warning, and what it links to inside is there."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    if importlib.util.find_spec("myst_nb") is None:
        assert os.environ.get("CI") != "true", "the documentation must be built here, but myst-nb is not installed"
        pytest.skip("the documentation's tools are not installed here: the newest set of packages builds it")
    folder = tmp_path_factory.mktemp("docs")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-d", str(folder / "trees"), "docs"]
    done = subprocess.run([*command, str(folder / "html")], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "html"


def test_every_link_to_a_page_or_heading_of_the_documentation_leads_there(pages):
    broken = []
    for page in pages.rglob("*.html"):
        for link in re.findall(r'href="([^"]+)"', page.read_text(encoding="utf-8")):
            path, _, anchor = link.partition("#")
            if re.match(r"[a-z]+:", link) or path.startswith(("_static", "../_static")):
                continue
            target = (page.parent / path).resolve() if path else page
            is_page = bool(anchor) and target.suffix == ".html" and target.exists()
            if not target.exists() or (is_page and f'id="{anchor}"' not in target.read_text(encoding="utf-8")):
                broken.append(f"{page.name}: {link}")
    assert broken == []


def test_every_option_and_command_of_the_parsers_has_its_place(pages):
    text = (pages / "_generated" / "options.html").read_text(encoding="utf-8")
    assert [name for name in ("--on-oom", "--keep-frames", "--save") if name not in text] == []
    assert "%tfmem doctor" in re.sub(r"<[^>]+>", "", (pages / "_generated" / "commands.html").read_text())


def test_the_badges_say_what_setup_cfg_says():
    pictures = pytest.importorskip("tests.browser.pictures")
    drawn = {name: (pictures.IMAGES / name).read_text(encoding="utf-8") for name in pictures.badges()}
    assert drawn == pictures.badges()


def test_the_pictures_are_small_and_the_animation_moves():
    pictures = pytest.importorskip("PIL.Image")
    folder = ROOT / "docs" / "images"
    assert (folder / "click.gif").stat().st_size < 2_000_000
    assert sum(path.stat().st_size for path in folder.iterdir()) < 3_000_000
    with pictures.open(folder / "click.gif") as moving:
        assert moving.n_frames > 10


def test_links_of_the_readme_lead_to_files():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text) if not link.startswith("http")]
    links += re.findall(r'src="([^"]+)"', text)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
