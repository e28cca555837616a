// The replay's own model, which the new kernel opens and every page of the notebook finds, also one that is loaded anew
// meanwhile. The kernel says which page runs the cells, so that none is run twice.

const ASKS = 1500; // ms between the questions of a page that would take over
const SETTLES = 1000; // ms after which the report of the last cell stands
const COUNTS = 5000; // ms within which the kernel's word that a cell has run follows its reply
const GATHERS = 150; // ms for which edits are gathered before they are told
const FIELDS = ["plan", "title", "key", "began", "steps", "original", "source", "driver", "state", "running", "failed", "reason", "done", "tried", "resumed", "report"];

const stateOf = (model) => Object.fromEntries(FIELDS.map((name) => [name, model.get(name)]));

function element(kind, name, text = "") {
  const node = document.createElement(kind);
  node.className = name;
  node.textContent = text;
  return node;
}

function bannerWords(replay) {
  if (!["replaying", "resuming"].includes(replay.state)) return "";
  const next = replay.running >= 0 ? replay.running : [...replay.steps.keys()].find((n) => !replay.done.includes(n));
  if (next === undefined) return "";
  const isLast = next === replay.steps.length - 1;
  return `${counted(replay, next)}${isLast ? ", the one that ran out of memory" : ""} · ${replay.title} · ${replay.steps[next].words}`;
}

// Run what has not run well yet, each cell as it is in the page now, as long as this page is the one that does.
async function drive(model, context, send) {
  const { plan, steps } = stateOf(model);
  if (page.driving.has(plan)) return;
  page.driving.add(plan);
  let now = 0;
  try {
    for (const n of steps.keys()) {
      now = n;
      const replay = stateOf(model);
      if (replay.state !== "replaying" || replay.driver !== page.id) return;
      if (replay.done.includes(n)) continue;
      let place, source;
      try {
        place = placeOfStep(context, replay, n);
        source = n < steps.length - 1 ? sourceOf(place.shared) : lastSource(place, replay);
      } catch (error) {
        return send({ op: "stuck", step: n, reason: error.message });
      }
      const tag = { replay: plan, step: n, page: page.id, ...(n === steps.length - 1 ? { key: replay.key, rerun: plan } : {}) };
      const words = mark({ ...replay, running: n }, n, false, "was running when this was saved.");
      page.replayed.set(context.model, { id: place.shared.id, mark: words });
      const reply = await runCell(place, context.sessionContext.session.kernel, source, { tfmem: tag });
      page.replayed.delete(context.model);
      saveNotebook(context);
      if (reply.status === "aborted") send({ op: "stuck", step: n, reason: "A cell before it in the queue failed." });
      if (reply.status !== "ok") return;
      for (const until = performance.now() + COUNTS; !model.get("done").includes(n); await pause(20)) {
        if (model.get("state") !== "replaying" || performance.now() > until) return;
      }
    }
  } catch (error) {
    console.error("tf_mem_magic", error);
    send({ op: "stuck", step: now, reason: `The page could not run it (${error?.message ?? error}).` });
  } finally {
    page.replayed.delete(context.model);
    page.driving.delete(plan);
  }
}

// The cell of the remedy: changed as proposed where it is still the one that it was proposed for; as it is where only a
// setting changes, and once it has been tried: then it was repaired.
function lastSource(place, replay) {
  const now = sourceOf(place.shared);
  if (replay.source.trimEnd() === replay.original.trimEnd() || trimmed(now) === trimmed(replay.source)) return now;
  if (trimmed(now) === trimmed(replay.original)) {
    place.shared.setSource(replay.source);
    return replay.source;
  }
  if (replay.tried.includes(replay.steps.length - 1)) return now;
  throw new Refusal("It was edited since its run, so the change does not fit it any more.");
}

function initialize({ model }) {
  const context = contextOf(model);
  const plan = model.get("plan");
  if (!context || !plan) return;
  page.replays.add(plan);
  saveStatically(context.model);
  const send = (content) => {
    try {
      model.send({ ...content, page: page.id });
    } catch {
      // The kernel is gone, and the replay with it.
    }
  };
  const leads = () => model.get("driver") === page.id;
  let box = null;
  let said = "";
  let saved = "";
  let telling = null;
  const isOver = () => ["done", "dropped"].includes(model.get("state"));

  const tellStop = () => {
    const replay = stateOf(model);
    const n = replay.failed;
    const go = element("button", "tfmem-go-on", `Go on with ${counted(replay, n)}`);
    const leave = element("button", "", "Close");
    for (const button of [go, leave]) button.style.cssText = "margin:8px 8px 0 0;font:inherit;cursor:pointer";
    go.onclick = () => send({ op: "take", again: true });
    leave.onclick = () => box.remove();
    const why = replay.reason || (replay.tried.includes(n) ? "It failed." : "It did not run.");
    const rest = n < replay.steps.length - 1 ? " The cells after it were not run." : "";
    const words = `${replay.title}: the kernel was restarted, and its replay stopped at ${counted(replay, n)} (${replay.steps[n].words}). ${why}${rest}`;
    box = notice(`${words} Repair it, then go on here or with %tfmem resume.`, go, leave);
  };
  const show = (isNew) => {
    if (context.isDisposed) return;
    const replay = stateOf(model);
    showBanner(context, plan, bannerWords(replay));
    const marks = refreshMarks(context, replay);
    const stand = `${replay.state} ${replay.failed}`;
    if (stand !== said) {
      clearTimeout(telling);
      telling = null;
      box?.remove();
      box = null;
    }
    said = stand;
    if (replay.state === "stopped" && replay.failed >= 0 && !box && (isNew || leads() || marks)) {
      // The last cell's own report may say that it still runs out of memory: then there is nothing to go on with.
      const isLast = replay.failed === replay.steps.length - 1;
      if (!isLast) tellStop();
      else telling ??= setTimeout(() => model.get("state") === "stopped" && !box && tellStop(), SETTLES);
    }
    // The last word is kept: what a page that is gone has shown is not in the file.
    if (["stopped", "done", "dropped"].includes(replay.state) && (leads() || marks) && saved !== stand) saveNotebook(context);
    saved = stand;
  };
  const onChange = () => {
    show(false);
    if (model.get("state") === "replaying" && leads()) drive(model, context, send);
  };
  model.on(FIELDS.map((name) => `change:${name}`).join(" "), onChange);

  // The notebook's cells as they are now, for %tfmem resume: all of them once, then those that changed.
  let waiting = null;
  let told = null;
  const tellCells = () => {
    waiting = null;
    if (context.isDisposed || isOver()) return;
    const code = context.model.sharedModel.cells.filter((cell) => cell.cell_type === "code");
    const now = new Map(code.map((cell) => [cell.id, sourceOf(cell)]));
    const cells = Object.fromEntries([...now].filter(([id, source]) => told?.get(id) !== source));
    const gone = [...(told?.keys() ?? [])].filter((id) => !now.has(id));
    if (!told || gone.length || Object.keys(cells).length) send({ op: "cells", cells, gone, whole: !told });
    told = now;
  };
  const onEdit = () => {
    if (waiting !== null || isOver()) return; // the first edit is told at once, those that follow it together
    tellCells();
    waiting = setTimeout(tellCells, GATHERS);
  };
  // The signal for what stands in cells, and one for cells that come and go; where a page has neither, it is looked at.
  const edits = [context.model.contentChanged, context.model.sharedModel.changed].filter(Boolean);
  for (const signal of edits) signal.connect(onEdit);

  const asking = setInterval(() => {
    if (context.isDisposed) return;
    if (told) tellCells();
    if (model.get("state") !== "replaying") return;
    if (!leads()) send({ op: "take" });
    else if (model.get("running") < 0) drive(model, context, send); // where a person ran its cell anew meanwhile
  }, ASKS);
  const onLeave = () => leads() && send({ op: "left" });
  addEventListener("pagehide", onLeave);

  // A kernel that is restarted again knows nothing of the replay.
  const onStatus = (_, status) => {
    if (!["restarting", "autorestarting", "terminating", "dead"].includes(status)) return;
    clearInterval(asking);
    box?.remove();
    showBanner(context, plan, "");
    const replay = stateOf(model);
    if (!isOver()) refreshMarks(context, { ...replay, state: "stopped", failed: -1, running: -1, reason: "the kernel was restarted again." });
  };
  context.sessionContext?.statusChanged?.connect(onStatus);

  if (!model.get("driver") || leads()) tellCells();
  show(true);
  onChange();
  return () => {
    clearInterval(asking);
    context.sessionContext?.statusChanged?.disconnect(onStatus);
    showBanner(context, plan, "");
    removeEventListener("pagehide", onLeave);
    for (const signal of edits) signal.disconnect(onEdit);
  };
}

const render = () => {};

export default { initialize, render };
