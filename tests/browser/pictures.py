"""Take the documentation's pictures anew: ``python -m tests.browser.pictures`` writes them to ``docs/images``.

The quickstart runs in a real JupyterLab, driven in a real Chromium, and runs out of memory for real:

- ``failure.png``: what stands there after Run All;
- ``fits.png``: what stands there after the click;
- ``click.gif``: from the one to the other;
- ``licence.svg``, ``python.svg``, ``tensorflow.svg``: what ``setup.cfg`` says.

``python -m tests.browser.pictures --every FOLDER`` takes every moment in light, dark and high contrast and at three widths, to
be looked at; ``--app notebook`` does so in Notebook 7. The packages are those of the tests; Pillow, which writes the
pictures, comes with matplotlib.
"""

from __future__ import annotations

import argparse
import configparser
import io
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageDraw

from tests.lab import PROJECT, Lab, wait_until

IMAGES = PROJECT / "docs" / "images"
SIZE = (860, 560)
FIT = 4
BUTTON = "Batch 128"
PATIENCE = 300
COLOURS = 96

THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark", "contrast": "JupyterLab Dark High Contrast"}
WIDTHS = {420: 900, 1280: 800, 1920: 1080}

_POINTER = ((0, 0), (0, 17), (4, 13), (7, 20), (10, 19), (7, 12), (12, 12))
_MOST_WHILE_RUNNING = 14


def main() -> None:
    """Take what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.browser.pictures", description=__doc__)
    parser.add_argument("--every", type=Path, metavar="FOLDER", help="take every moment in every theme and width")
    parser.add_argument("--app", choices=["jupyterlab", "notebook"], default="jupyterlab", help="with --every: where")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(PROJECT / "notebooks" / "quickstart.ipynb", folder)
        size = SIZE if asked.every is None else (1280, 800)
        with Lab(Path(folder), size=size, app=asked.app) as lab:
            lab.open("quickstart.ipynb")
            if asked.app == "jupyterlab":
                for side in ("left", "right"):
                    lab.command("application:toggle-side-tabbar", {"side": side})
                lab.command("application:toggle-left-area")
            if asked.every is None:
                take(lab, IMAGES)
            else:
                take_every(lab, asked.every)
            lab.shut_down()


def take(lab: Lab, folder: Path) -> None:
    """Take the pictures of the documentation."""
    folder.mkdir(parents=True, exist_ok=True)
    run_to_failure(lab)
    failure = seen(lab)
    frames = [(failure, 2600), *pointed(lab, failure)]
    frames += [(frame, 300) for frame in running(lab)]
    fits = seen(lab)
    frames.append((fits, 4200))
    save_still(failure, folder / "failure.png")
    save_still(report_on(lab), folder / "fits.png")
    save_moving(frames, folder / "click.gif")
    for name, svg in badges().items():
        (folder / name).write_text(svg, encoding="utf-8")
    for path in sorted(folder.iterdir()):
        print(f"{path.relative_to(PROJECT)}: {path.stat().st_size / 1000:.0f} kB")


def take_every(lab: Lab, folder: Path) -> None:
    """Take every moment in every theme and width."""
    folder.mkdir(parents=True, exist_ok=True)
    run_to_failure(lab)
    in_every_look(lab, folder, "1-failure")
    lab.click(BUTTON)
    time.sleep(0.7)
    lab.shot(folder / "2-clicked.png")
    time.sleep(2)
    lab.shot(folder / "3-running.png")
    wait_for_result(lab)
    in_every_look(lab, folder, "4-fits")
    lab.click("Undo")
    lab.wait_for_text(FIT, "Undone")
    in_every_look(lab, folder, "5-undone")
    lab.set_source(FIT, "%%tfmem\nmodel.fit(images[:64], labels[:64], batch_size=32, epochs=3, verbose=0);")
    lab.run(FIT)
    in_every_look(lab, folder, "6-went-well")


def in_every_look(lab: Lab, folder: Path, name: str) -> None:
    """Take one moment in every theme and width."""
    for look, theme in THEMES.items():
        lab.command("apputils:change-theme", {"theme": theme})
        for width, height in WIDTHS.items():
            lab.page.set_viewport_size({"width": width, "height": height})
            time.sleep(1)
            lab.cell(FIT, "(c.node.querySelector('.tfmem-report') ?? c.node).scrollIntoView({block: 'start'})")
            time.sleep(0.5)
            lab.shot(folder / f"{name}-{look}-{width}.png")
    lab.command("apputils:change-theme", {"theme": THEMES["light"]})
    lab.page.set_viewport_size({"width": 1280, "height": 800})
    time.sleep(1)


def run_to_failure(lab: Lab) -> None:
    """Run all cells, as a person would, until the panel stands."""
    lab.page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
    wait_until(lambda: BUTTON in lab.output_text(FIT) and not lab.is_running(FIT), "the panel is there", PATIENCE)
    time.sleep(3)


def wait_for_result(lab: Lab) -> None:
    """Wait until the report on the changed cell stands."""
    wait_until(lambda: "Runs of this cell" in lab.output_text(FIT) and not lab.is_running(FIT), "it ran", PATIENCE)
    time.sleep(2)


def pointed(lab: Lab, failure: Image.Image) -> Iterator[tuple[Image.Image, int]]:
    """Move a pointer to the button, and click; screenshots have none of their own."""
    box = lab.page.locator("button.jupyter-button", has_text=BUTTON).first.bounding_box()
    end = (box["x"] + 60, box["y"] + box["height"] / 2)
    corner = lab.page.locator(".jp-NotebookPanel").first.bounding_box()
    end = (end[0] - corner["x"], end[1] - corner["y"])
    start = (end[0] + 300, end[1] + 220)
    for step in range(1, 7):
        at = tuple(a + (b - a) * step / 6 for a, b in zip(start, end))
        yield with_pointer(failure, at), 80 if step < 6 else 900
    lab.click(BUTTON)
    lab.page.mouse.move(2, 2)


def with_pointer(picture: Image.Image, at: tuple[float, ...]) -> Image.Image:
    """Draw a pointer's arrow on a copy of the picture."""
    copy = picture.copy()
    arrow = [(at[0] + x, at[1] + y) for x, y in _POINTER]
    ImageDraw.Draw(copy).polygon(arrow, fill="white", outline="black")
    return copy


def running(lab: Lab) -> list[Image.Image]:
    """Give what is seen between the click and the result: the changed line, then the strip."""
    frames = []
    while "Runs of this cell" not in lab.output_text(FIT) or lab.is_running(FIT):
        frames.append(seen(lab))
        time.sleep(0.3)
    time.sleep(2)
    step = max(1, len(frames) // _MOST_WHILE_RUNNING)
    return [*frames[:3], *frames[3::step]]


def badges() -> dict[str, str]:
    """Give the README's badges, by their file names: what ``setup.cfg`` says."""
    setup = configparser.ConfigParser()
    setup.read(PROJECT / "setup.cfg", encoding="utf-8")
    floor = setup["options.extras_require"]["tensorflow"].partition(">=")[2].strip()
    told = {
        "licence": setup["metadata"]["license"],
        "python": setup["options"]["python_requires"].replace(">=", "≥ "),
        "tensorflow": f"≥ {floor}",
    }
    names = {"licence": "licence", "python": "Python", "tensorflow": "TensorFlow"}
    return {f"{name}.svg": badge(names[name], value) for name, value in told.items()}


def badge(label: str, value: str) -> str:
    """Draw a label and its value side by side."""
    left, right = 7 * len(label) + 12, 7 * len(value) + 12
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="20" role="img">'
        f"<title>{label}: {value}</title>"
        f'<rect width="{left}" height="20" fill="#444"/><rect x="{left}" width="{right}" height="20" fill="#1258a8"/>'
        f'<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" text-anchor="middle">'
        f'<text x="{left / 2}" y="14">{label}</text><text x="{left + right / 2}" y="14">{value}</text></g></svg>\n'
    )


def seen(lab: Lab) -> Image.Image:
    """Give what the notebook shows now, without JupyterLab's menus around it."""
    return Image.open(io.BytesIO(lab.page.locator(".jp-NotebookPanel").first.screenshot())).convert("RGB")


def report_on(lab: Lab) -> Image.Image:
    """Give the report as it stands in the cell's output, from its headline to its chart."""
    lab.cell(FIT, "c.node.querySelector('.tfmem-report').scrollIntoView({block: 'start'})")
    time.sleep(0.5)
    top, bottom = (lab.page.locator(part).first.bounding_box() for part in (".tfmem-report", ".tfmem-rest [role=img]"))
    clip = {"x": top["x"] - 8, "y": top["y"], "width": 740, "height": bottom["y"] + bottom["height"] + 20 - top["y"]}
    return Image.open(io.BytesIO(lab.page.screenshot(clip=clip))).convert("RGB")


def save_still(picture: Image.Image, path: Path) -> None:
    """Save a picture in few colours: pages have no more."""
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)


def save_moving(frames: list[tuple[Image.Image, int]], path: Path) -> None:
    """Save frames with their milliseconds as one animation that repeats, in the colours of them all."""
    width, height = frames[0][0].size
    all_colours = Image.new("RGB", (width, height * len(frames)))
    for number, (frame, _) in enumerate(frames):
        all_colours.paste(frame, (0, height * number))
    palette = all_colours.quantize(COLOURS, dither=Image.Dither.NONE)
    first, *rest = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame, _ in frames]
    durations = [milliseconds for _, milliseconds in frames]
    first.save(path, save_all=True, append_images=rest, duration=durations, loop=0, optimize=True)


if __name__ == "__main__":
    main()
