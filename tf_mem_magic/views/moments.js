// The two moments that count, on the page: memory ran out (the panel comes into view, the traceback takes a few lines),
// and a click (the cell stays in place, its changed lines are marked, the height is held until the new report stands).
// Everything here is about what is seen; the notebook's model is left alone.

const MARKED = 2000; // ms for which changed lines are marked
const SETTLING = 2500; // ms after a report in which the front end may still scroll by itself
const HELD = 3000; // ms for which the height is held exactly, at most
const READY = 1500; // ms within which the panel's buttons must have been drawn
const SCROLLING = new Set(["PageUp", "PageDown", "Home", "End", "ArrowUp", "ArrowDown", " "]);
const ERROR = '[data-mime-type="application/vnd.jupyter.error"],[data-mime-type="application/vnd.jupyter.stderr"]';
const FULL = /ResourceExhausted|OOM when allocating|[Oo]ut of memory|RESOURCE_EXHAUSTED|MemoryError/;

// When the person last scrolled: what we bring into view is never taken from where they look.
if (page.scrolled === undefined) {
  page.scrolled = -Infinity;
  page.awaited = new WeakMap(); // cells in which a click's run is under way, by their node
  page.folded = new WeakMap(); // which panel has folded an error
  const note = () => (page.scrolled = performance.now());
  for (const kind of ["wheel", "touchmove"]) document.addEventListener(kind, note, { capture: true, passive: true });
  document.addEventListener("keydown", (event) => SCROLLING.has(event.key) && note(), true);
}

// The style of what lies around the panel stays when the panel, which carries its own, is cleared away.
if (!document.getElementById("tfmem-page")) {
  const style = element("style", "", PAGE_STYLE);
  style.id = "tfmem-page";
  document.head.appendChild(style);
}

const cellOf = (node) => node?.closest?.(".jp-Cell, .cell") ?? null;
const outputsOf = (cell) => cell?.querySelector(".jp-Cell-outputWrapper, .jp-OutputArea, .output_wrapper") ?? null;
const headlineOf = (cell) => cell?.querySelector(".tfmem-report") ?? null;

// Hold the height of a cell's outputs, exactly while a report completes (`whole`), at least while a rerun goes on.
function holdHeight(cell, whole) {
  const outputs = outputsOf(cell);
  if (!outputs) return;
  const height = `${outputs.getBoundingClientRect().height}px`;
  outputs.style.minHeight = height;
  if (!whole) return;
  Object.assign(outputs.style, { height, overflow: "hidden" });
  setTimeout(() => letWholeHeightGo(cell), HELD);
}

// The report is there, or will not come: what was held exactly is let go, what a rerun holds at least stays.
function letWholeHeightGo(cell) {
  const outputs = outputsOf(cell);
  if (outputs?.style.overflow !== "hidden") return;
  Object.assign(outputs.style, { height: "", overflow: "" });
  if (!page.awaited.has(cell)) outputs.style.minHeight = "";
}

function letHeightGo(cell) {
  const outputs = outputsOf(cell);
  if (outputs) Object.assign(outputs.style, { minHeight: "", height: "", overflow: "" });
}

// The numbers (from 0) of the lines of `after` that are not those of `before`; of a cut, the line that follows it.
function changedLines(before, after) {
  const [old, now] = [before.split("\n"), after.split("\n")];
  let first = 0;
  while (first < Math.min(old.length, now.length) && old[first] === now[first]) first++;
  let last = 0;
  while (last < Math.min(old.length, now.length) - first && old.at(-1 - last) === now.at(-1 - last)) last++;
  const gone = new Set(old.slice(first, old.length - last));
  const changed = [];
  for (let i = first; i < now.length - last; i++) if (now[i].trim() && !gone.has(now[i])) changed.push(i);
  return changed.length || before === after ? changed : [Math.min(first, now.length - 1)];
}

// Mark lines for a moment and see to it that the first of them is in view; the editor itself is not touched.
function markLines(cell, lines) {
  const editor = cell?.querySelector(".cm-editor")?.parentElement;
  const drawn = editor ? [...editor.querySelectorAll(".cm-line")] : [];
  const found = lines.map((i) => drawn[i]).filter(Boolean);
  if (!found.length) return;
  const frame = editor.getBoundingClientRect();
  if (getComputedStyle(editor).position === "static") editor.style.position = "relative";
  for (const line of found) {
    const box = line.getBoundingClientRect();
    const mark = element("div", "tfmem-mark");
    mark.setAttribute("aria-hidden", "true");
    Object.assign(mark.style, { top: `${box.top - frame.top}px`, height: `${box.height}px` });
    editor.appendChild(mark);
    setTimeout(() => mark.remove(), MARKED);
  }
  bringNear(found[0]);
}

// Scroll as little as needed for all of `node` to be seen, with a little air around it.
function bringNear(node, air = 16) {
  let scroller = node.parentElement;
  while (scroller && !(scroller.scrollHeight > scroller.clientHeight + 1 && /auto|scroll/.test(getComputedStyle(scroller).overflowY)))
    scroller = scroller.parentElement;
  if (!scroller) return node.scrollIntoView({ block: "nearest" });
  const [view, box] = [scroller.getBoundingClientRect(), node.getBoundingClientRect()];
  if (box.top - air < view.top) scroller.scrollTop += box.top - air - view.top;
  else if (box.bottom + air > view.bottom) scroller.scrollTop += Math.min(box.bottom + air - view.bottom, box.top - air - view.top);
}

// A notebook that draws only the cells in view has left this one out: scroll towards it; a few calls bring it there.
function fetchCell(cell) {
  const scroller = cell.closest(".jp-WindowedPanel-outer");
  const [place, all] = [(node) => Number(node.dataset.windowedListIndex), [...(cell.parentElement?.children ?? [])]];
  const drawn = all.filter((node) => !Number.isNaN(place(node)) && node.offsetHeight);
  if (!scroller || !drawn.length || Number.isNaN(place(cell))) return;
  const each = drawn.reduce((sum, node) => sum + node.offsetHeight, 0) / drawn.length;
  const near = place(cell) < place(drawn[0]) ? drawn[0] : drawn.at(-1);
  scroller.scrollTop += (place(cell) - place(near)) * each;
}

// Until the strip of the new run appears, a line says that something is under way; whoever clicked goes on there.
function sayRunning(cell) {
  const outputs = outputsOf(cell);
  if (!outputs) return;
  if (getComputedStyle(outputs).position === "static") outputs.style.position = "relative";
  const words = element("div", "tfmem-waiting", "● running the cell again …");
  words.tabIndex = -1;
  outputs.appendChild(words);
  words.focus({ preventScroll: true });
  bringNear(words);
}

const sayNothing = (cell) => cell?.querySelectorAll(".tfmem-waiting").forEach((words) => words.remove());

// A click's run begins in this cell: `before` and `after` are its code.
function beginRerun(cell, before, after) {
  if (!cell) return;
  holdHeight(cell, false);
  page.awaited.set(cell, { since: performance.now(), focused: false });
  // The editor draws the new code in the next frames.
  requestAnimationFrame(() =>
    requestAnimationFrame(() => {
      sayRunning(cell);
      markLines(cell, changedLines(before, after));
    }),
  );
}

function endRerun(cell) {
  if (!cell) return;
  setTimeout(() => {
    sayNothing(cell);
    if (page.awaited.delete(cell)) letHeightGo(cell);
  }, READY + 500);
}

// The strip of a click's run is there: whoever clicked goes on reading there.
function focusStrip(cell, strip) {
  const awaited = page.awaited.get(cell);
  sayNothing(cell);
  if (!awaited || awaited.focused) return;
  awaited.focused = true;
  strip.tabIndex = -1;
  strip.focus({ preventScroll: true });
}

// The report stands: it comes into view, once, unless the person has scrolled since the run began.
function showReport(cell, { failed, began, owner }) {
  const awaited = page.awaited.get(cell);
  page.awaited.delete(cell);
  sayNothing(cell);
  letHeightGo(cell);
  foldErrors(cell, failed, owner);
  if (!failed && !awaited) return;
  const since = Math.max(began, awaited?.since ?? 0);
  const until = performance.now() + SETTLING;
  let focused = false;
  const look = () => {
    const headline = headlineOf(cell);
    if (page.scrolled > since || !headline?.isConnected) return;
    if (awaited && !focused) {
      focused = true;
      headline.tabIndex = -1;
      headline.focus({ preventScroll: true });
    }
    const box = headline.getBoundingClientRect();
    if (!box.height) fetchCell(cell);
    const away = box.top < 0 || box.top > (failed ? 0.3 : 0.6) * innerHeight;
    if (away && failed) headline.scrollIntoView({ block: "start" });
    else if (away) bringNear(headline);
    if (performance.now() < until) setTimeout(look, 120);
  };
  look();
}

// A traceback takes a few lines until it is opened. Only here: the notebook holds it whole. One that may be about
// memory is folded as it arrives, so that the page does not jump; `isFull` says later what it was. A cell may hold
// several panels (a rerun inside it), each with its `owner`: one opens only what it has folded itself, or two of them
// would undo each other's work for good.
function foldErrors(cell, isFull, owner) {
  for (const output of outputsOf(cell)?.querySelectorAll(ERROR) ?? []) {
    const text = output.querySelector("pre");
    const lines = text ? text.textContent.split("\n").length : 0;
    const button = output.querySelector(".tfmem-open");
    if (isFull === false) {
      if (page.folded.get(output) !== owner) continue;
      output.classList.remove("tfmem-error");
      button?.remove();
    } else if (!button && lines > 8 && (isFull || FULL.test(text.textContent))) {
      output.classList.add("tfmem-error");
      page.folded.set(output, owner);
      const open = element("button", "tfmem-open", `▸ the original error, ${lines} lines`);
      open.type = "button";
      open.setAttribute("aria-expanded", "false");
      open.onclick = () => {
        const folded = output.classList.toggle("tfmem-error");
        open.setAttribute("aria-expanded", String(!folded));
        open.textContent = `${folded ? "▸" : "▾"} the original error, ${lines} lines`;
      };
      output.prepend(open);
    }
  }
}

// Follow the outputs of the panel's cell while it lives; gives the function that stops that.
function followErrors(cell, isFull, owner) {
  const outputs = outputsOf(cell);
  if (!outputs) return () => {};
  const observer = new MutationObserver(() => foldErrors(cell, isFull(), owner));
  observer.observe(outputs, { childList: true, subtree: true });
  foldErrors(cell, isFull(), owner);
  return () => observer.disconnect();
}

// Wait until the panel's buttons are drawn, so that the strip gives way to all of them at once.
async function buttonsDrawn(root, count) {
  const drawn = () => root.querySelectorAll(".tfmem-body button:not(.tfmem-toggle)").length;
  const until = performance.now() + READY;
  while (drawn() < count && performance.now() < until) await new Promise((resolve) => setTimeout(resolve, 30));
}

// What folds says so to those who hear it, each under a name of its own.
function nameToggles(root) {
  for (const toggle of root.querySelectorAll(".tfmem-toggle")) {
    toggle.setAttribute("aria-expanded", String(toggle.classList.contains("mod-active")));
    toggle.removeAttribute("aria-pressed");
    if (toggle.title) toggle.setAttribute("aria-label", toggle.title);
  }
}
