"""The documentation builds without a warning, and what it links to inside is there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks import situations
from tests.needs import need
from tf_mem_magic import apply
from tf_mem_magic.core.proposals import Declined, Proposal
from tf_mem_magic.remedies._engine.registry import all_remedies

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "tf_mem_magic"


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    need("myst_nb")
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


def rows_of_remedies() -> dict[str, str]:
    """Give what the page on the remedies says each of them keeps, by key."""
    table = (ROOT / "docs" / "remedies.md").read_text(encoding="utf-8").partition("| remedy |")[2].partition("\n\n")[0]
    cells = [line.strip("|").split("|") for line in table.splitlines()[2:]]
    return {key: keeps for first, *_, keeps in cells for key in re.findall(r"\*\*([a-z-]+)\*\*", first)}


def test_the_page_on_the_remedies_has_each_of_them_and_no_other():
    assert set(rows_of_remedies()) == {remedy.KEY for remedy in all_remedies()}


def test_each_remedy_for_one_situation_has_been_measured_and_is_in_the_table_of_those():
    page = (ROOT / "docs" / "remedies.md").read_text(encoding="utf-8")
    measured = re.findall(
        r"^\| ([a-z-]+) \|", page.partition("### Those for one situation each")[2].split("\n## ")[0], re.M
    )
    assert sorted(key for key in measured if key != "remedy") == sorted(situations.CASES)


@pytest.mark.parametrize("remedy", all_remedies(), ids=lambda remedy: remedy.KEY)
def test_the_page_on_the_remedies_says_of_each_what_its_proposals_keep(remedy):
    answers = [answer for example in remedy.EXAMPLES for answer in remedy.propose(example.context)]
    settings = [answer.settings for answer in answers if isinstance(answer, Declined) and answer.settings]
    kept = {answer.preserves for answer in [*answers, *settings] if isinstance(answer, Proposal)}
    said = rows_of_remedies()[remedy.KEY]
    assert [words for words in kept if words not in said] == [], said


def test_every_function_that_an_edited_cell_may_call_is_in_the_documentation():
    told = set(re.findall(r"tf_mem_magic\.apply\.(\w+)", (ROOT / "docs" / "python.md").read_text(encoding="utf-8")))
    files = [file for folder in (PACKAGE / "apply", PACKAGE / "apply" / "deploy") for file in folder.glob("[a-z]*.py")]
    assert told >= {file.stem for file in files}
    assert [name for name in told if not hasattr(apply, name)] == []


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
