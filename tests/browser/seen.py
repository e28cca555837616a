"""What is seen of a report in a page: its words, contrasts, names and places, asked of the page itself."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from tests.lab import Lab

SEEN = r"""
(() => {
const parts = (more = '') => [...document.querySelectorAll('.tfmem-report, .tfmem, .tfmem-rest' + more)];
const OURS = ', .tfmem-open, .tfmem-replay, .tfmem-waits';
const texts = function* (more = '') {
  for (const part of parts(more)) {
    const walker = document.createTreeWalker(part, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const node = walker.currentNode, owner = node.parentElement;
      if (!/[\p{L}\p{N}]/u.test(node.textContent) || owner.closest('.tfmem-unseen, .tfmem-spoken, [aria-hidden=true], style')) continue;
      if (owner.checkVisibility({ visibilityProperty: true })) yield [node.textContent, owner];
    }
  }
};
const rgba = (text) => { const m = text.match(/[\d.]+/g).map(Number); return m.length < 4 ? [...m, 1] : m; };
const over = (top, under) => [0, 1, 2].map((i) => top[i] * top[3] + under[i] * (1 - top[3]));
const behind = (node) => {
  const layers = [];
  for (let at = node; at; at = at.parentElement) {
    const colour = rgba(getComputedStyle(at).backgroundColor);
    if (colour[3] > 0) layers.push(colour);
    if (colour[3] === 1) break;
  }
  return layers.reverse().reduce((under, top) => over(top, under), [255, 255, 255]);
};
const light = (c) => { const [r, g, b] = c.map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05); };
const cell = () => document.querySelector('.tfmem-report, .tfmem, .tfmem-rest')?.closest('.jp-Cell');
window.face = {
  words: () => [...texts()].flatMap(([text]) => text.split(/\s+/).filter((word) => /[\p{L}\p{N}]/u.test(word))),
  lines: () => [...texts(OURS)].map(([text]) => text.trim()),
  faint: () => [...texts(OURS)].map(([text, owner]) => { const bg = behind(owner); return [ratio(over(rgba(getComputedStyle(owner).color), bg), bg), text.trim().slice(0, 40)]; }).filter(([r]) => r < 4.5),
  inView: (selector) => [...document.querySelectorAll(selector)].map((node) => { const b = node.getBoundingClientRect(); return b.height > 0 && b.top >= 0 && b.bottom <= innerHeight && document.elementFromPoint(b.left + 5, b.top + b.height / 2) !== null && [b.left + 5, b.top + b.height / 2].reduce((x, y) => node.contains(document.elementFromPoint(x, y)) || document.elementFromPoint(x, y)?.contains(node)); }),
  names: () => parts().flatMap((part) => [...part.querySelectorAll('button, summary')]).filter((n) => n.checkVisibility()).map((n) => n.getAttribute('aria-label') || n.textContent.trim()),
  folds: () => [...document.querySelectorAll('.tfmem-toggle')].map((n) => n.getAttribute('aria-expanded')),
  lefts: () => [...document.querySelectorAll('.tfmem-choice-row .tfmem-facts')].filter((n) => n.checkVisibility()).map((n) => Math.round(n.getBoundingClientRect().left)),
  right: () => Math.max(...[...document.querySelectorAll('.tfmem-choice-row')].filter((n) => n.checkVisibility()).map((n) => n.getBoundingClientRect().width)),
  boxed: () => { const area = cell().querySelector('.jp-OutputArea'); return area.scrollHeight > area.clientHeight + 2; },
  errorHeight: () => Math.max(...[...cell().querySelectorAll('.tfmem-error')].map((n) => n.getBoundingClientRect().height)),
  line: (text) => [...document.querySelectorAll('.cm-line')].filter((n) => n.textContent.includes(text)).some((n) => { const b = n.getBoundingClientRect(); return b.top >= 0 && b.bottom <= innerHeight; }),
};
const log = (window.heights = []);
window.said = [];
const look = () => {
  const said = [...document.querySelectorAll('[aria-live]:not([aria-live=off]), [role=status], [role=alert]')].filter((n) => n.closest('[class*=tfmem]')).map((n) => n.textContent.trim()).filter(Boolean).join(' | ');
  if (said !== (window.said.at(-1) ?? '')) window.said.push(said);
  const outputs = cell()?.querySelector('.jp-Cell-outputWrapper');
  const now = outputs ? [Math.round(outputs.getBoundingClientRect().height), !!cell().querySelector('.tfmem-headline'), document.querySelector('.tfmem-words')?.textContent ?? ''] : null;
  if (now && JSON.stringify(now) !== JSON.stringify(log.at(-1)?.[1])) log.push([performance.now(), now]);
  requestAnimationFrame(look);
};
look();
})()
"""


def told(lab: Lab, name: str, argument: object = None):
    """Ask the page, once it has the script ``SEEN``: ``name`` is one of `window.face`."""
    return lab.page.evaluate(f"(a) => window.face.{name}(a)", argument)


def violations(lab: Lab) -> list[str] | None:
    """Ask axe-core what of ours is a serious barrier; None where the package that brings its script is missing."""
    if (package := importlib.util.find_spec("axe_playwright_python")) is None or package.origin is None:
        return None
    lab.page.add_script_tag(path=Path(package.origin).with_name("axe.min.js"))
    run = "() => axe.run({include: [['.tfmem-report'], ['.tfmem'], ['.tfmem-rest']]}).then((r) => r.violations)"
    found = lab.page.evaluate(run)
    return [f"{v['id']}: {v['nodes'][0]['html'][:200]}" for v in found if v["impact"] in ("serious", "critical")]
