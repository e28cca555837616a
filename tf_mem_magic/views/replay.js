// A restart and its replay, as they are seen: the line at the top, and in each cell that waits what has become of it.
// What stands in cells is an output, so the saved notebook tells it too. Joined behind notebook.js and notice.js.

const ARRIVES = 30000; // ms within which the new kernel's model of the replay must reach the page

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const counted = (replay, n) => `cell ${n + 1} of ${replay.steps.length}`;

// Where the cell of a replay is now: the one with its id. An old notebook gives its cells new ids when it is opened, so
// there it is the one with its code; the last one may have been changed as proposed already.
function placeOfStep(context, replay, n) {
  const { id, source } = replay.steps[n];
  try {
    return locate(context, id, source);
  } catch (error) {
    const last = n === replay.steps.length - 1;
    if (last && replay.source !== source) return locate(context, "", replay.source);
    const isGone = !context.model.sharedModel.cells.some((cell) => trimmed(sourceOf(cell)) === trimmed(source));
    throw new Refusal(isGone ? `It is no longer in this notebook${last ? "" : "; %tfmem resume goes on without it"}.` : "Several cells hold its code.");
  }
}

// What is said in a cell that has not shown its own run.
function wordsInCell(replay, n) {
  const { state, done, failed, running, resumed } = replay;
  const last = replay.steps.length - 1;
  if (resumed.includes(n)) return "ran: %tfmem resume shows its output.";
  if (done.includes(n)) return "ran, but the page that ran it was closed or loaded anew: its output was not seen.";
  if (n === running) return "is running; the page that started it was closed or loaded anew, so its output is not seen.";
  if (state === "stopped" && n === failed && replay.tried.includes(n)) return "failed, but its error was not seen. Repair it, then go on.";
  if (state === "dropped") return "was not run: the plan was given up.";
  if (state === "stopped" && (failed < 0 || n === failed)) return `was not run: ${replay.reason || "something stopped before it."}`;
  if (state === "stopped") return `was not run, because ${counted(replay, failed)} ${replay.tried.includes(failed) ? "did not run through" : "could not be run"}.`;
  if (state === "done") return n === last ? "ran; its report was not seen." : "was not run.";
  return n === last ? "waits. If nothing runs any more: %load_ext tf_mem_magic, then %tfmem resume." : "waits.";
}

const isMark = (output, plan, n) => output.metadata?.tf_mem_magic?.plan === plan && (n === undefined || output.metadata.tf_mem_magic.step === n);

function mark(replay, n, hasOld, said = wordsInCell(replay, n)) {
  const words = `${replay.title}, restarted ${replay.began}: ${counted(replay, n)} ${said}`;
  const old = hasOld ? " What stands below is from before." : "";
  const box = element("div", "tfmem-waits");
  box.style.cssText = "padding:2px 8px;border-left:3px solid var(--jp-warn-color1,#b86e00);font:13px/1.45 var(--jp-ui-font-family,sans-serif)";
  const strong = element("b", "", counted(replay, n));
  const at = words.length - said.length - 1;
  box.append(`⟳ ${words.slice(0, at - strong.textContent.length)}`, strong, `${words.slice(at)}${old}`);
  return {
    output_type: "display_data",
    data: { "text/html": box.outerHTML, "text/plain": `⟳ ${words}${old}` },
    metadata: { tf_mem_magic: { plan: replay.plan, step: n } },
  };
}

// Say in every cell of the replay that it waits; what it showed before stays below.
function markCells(context, replay) {
  for (const n of replay.steps.keys()) {
    if (replay.done.includes(n)) continue;
    const { cell } = placeOfStep(context, replay, n);
    const old = cell.outputs.toJSON().filter((output) => output.metadata?.tf_mem_magic?.plan === undefined);
    cell.outputs.fromJSON([mark(replay, n, old.length > 0), ...old]);
    cell.executionCount = null;
  }
}

// Bring what was said up to date; give how many cells still say something. `report` takes the last one's place.
function refreshMarks(context, replay) {
  let found = 0;
  const cells = context.model.cells;
  for (let i = 0; i < cells.length; i++) {
    const outputs = cells.get(i).outputs;
    for (let j = 0; outputs && j < outputs.length; j++) {
      const output = outputs.get(j).toJSON();
      if (!isMark(output, replay.plan)) continue;
      found += 1;
      const n = output.metadata.tf_mem_magic.step;
      const isLast = n === replay.steps.length - 1 && !replay.resumed.includes(n);
      const isReport = isLast && replay.state === "done" && Object.keys(replay.report).length > 0;
      const now = isReport
        ? [{ output_type: "display_data", data: { ...replay.report }, metadata: {} }]
        : [mark(replay, n, outputs.length > 1), ...outputs.toJSON().filter((each) => !isMark(each, replay.plan))];
      if (JSON.stringify(now) !== JSON.stringify(outputs.toJSON())) outputs.fromJSON(now);
      break;
    }
  }
  return found;
}

// The line at the top of the notebook; without words it goes.
function showBanner(context, plan, words) {
  const id = `tfmem-replay-${plan}`;
  let box = document.getElementById(id);
  if (!words) return box?.remove();
  if (!box) {
    box = element("div", "tfmem-replay");
    box.id = id;
    box.setAttribute("role", "status");
  }
  const shown = [...document.querySelectorAll(".jp-NotebookPanel")].filter((each) => each.offsetParent !== null);
  const inside = shown.length === 1 ? shown[0] : document.body;
  const bar = inside.querySelector(":scope > .jp-Toolbar, :scope > .jp-NotebookPanel-toolbar");
  // Where there is room it lies in the free middle of the notebook's toolbar, and hides nothing.
  const isWide = bar && inside.offsetWidth > 700;
  const top = inside === document.body ? 4 : bar ? bar.offsetTop + (isWide ? 1 : bar.offsetHeight + 4) : 4;
  box.style.cssText =
    `position:${inside === document.body ? "fixed" : "absolute"};top:${top}px;left:${isWide ? 54 : 50}%;transform:translateX(-50%);z-index:1000;` +
    `max-width:${isWide ? "30%" : "calc(100% - 48px)"};box-sizing:border-box;padding:3px 12px;border-radius:4px;overflow:hidden;white-space:nowrap;text-overflow:ellipsis;` +
    "font:13px/1.45 var(--jp-ui-font-family,sans-serif);color:var(--jp-ui-font-color1,#222);background:var(--jp-layout-color1,#fff);" +
    "border:1px solid var(--jp-border-color1,#bbb);border-left:4px solid var(--jp-brand-color1,#1976d2);box-shadow:0 1px 6px rgba(0,0,0,.2)";
  const name = shown.length === 1 ? "" : `${context.path?.split("/").pop() ?? ""}: `;
  const text = `⟳ ${name}${words}`;
  if (box.textContent !== text) box.textContent = text;
  if (box.parentElement !== inside) inside.appendChild(box);
}

// Keep what stands in the notebook: whoever loads the page anew, or opens it elsewhere, sees that it was restarted.
// One save at a time: JupyterLab takes its own second one for somebody else's change.
async function saveNotebook(context) {
  if (context.isDisposed || context.model.readOnly || context.model.collaborative || context.contentsModel?.writable === false) return;
  const under = page.saving.get(context);
  if (under) {
    under.again = true;
    return;
  }
  const saving = { again: false };
  page.saving.set(context, saving);
  try {
    await Promise.race([context.save(), pause(5000)]);
  } catch (error) {
    console.warn("tf_mem_magic: the notebook was not saved", error);
  } finally {
    page.saving.delete(context);
  }
  if (saving.again) await saveNotebook(context);
}

// Run the prologue; say why that did not work, "" where it did.
async function prepare(kernel, prologue) {
  try {
    const { content } = await kernel.requestExecute({ code: prologue, silent: true, store_history: false }, true).done;
    return content.status === "ok" ? "" : content.ename ? `${content.ename}: ${content.evalue}` : "it was stopped";
  } catch (error) {
    console.warn("tf_mem_magic", error); // the kernel died, or was restarted once more
    return "it went away meanwhile";
  }
}

// Restart without a dialog and prepare the new kernel. Its model of the replay then reaches the page and goes on
// (replay_model.js): the page can be loaded anew at any time.
async function restartAndReplay(model, order, prologue) {
  const context = contextOf(model);
  const last = order.steps.length - 1;
  locateUnchanged(context, order.steps[last].id, order.original);
  const ids = context.model.sharedModel.cells.map((cell) => cell.id);
  if (order.steps.slice(0, -1).some((step) => !ids.includes(step.id)))
    throw new Refusal("A cell of the list is no longer in this notebook. Nothing was restarted.");
  const replay = { ...order, state: "replaying", running: -1, failed: -1, reason: "", done: [], tried: [], resumed: [], report: {} };
  const stop = (reason) => {
    showBanner(context, order.plan, "");
    refreshMarks(context, { ...replay, state: "stopped", reason });
    saveNotebook(context);
  };
  showBanner(context, order.plan, `${order.title}: the kernel is restarted, then ${counted(order, 0)} runs`);
  markCells(context, replay);
  await saveNotebook(context);
  try {
    const session = context.sessionContext;
    if (session.restartKernel) await session.restartKernel();
    else await session.session.kernel.restart();
  } catch (error) {
    stop("the restart did not work.");
    throw error;
  }
  const why = await prepare(context.sessionContext.session.kernel, prologue);
  if (why) {
    stop(`the kernel could not be prepared (${why}).`);
    return notice(`The kernel was restarted, but it could not be prepared (${why}). No cell was run.`);
  }
  for (const until = performance.now() + ARRIVES; !page.replays.has(order.plan); await pause(100)) {
    if (performance.now() < until) continue;
    stop("the page could not take it up.");
    return notice("The kernel was restarted, but the page could not go on. Run %load_ext tf_mem_magic, then %tfmem resume.");
  }
}
