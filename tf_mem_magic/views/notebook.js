// What the page can do with the open notebook. Everything here works on the notebook's model, never on its look.
// Joined in front of bridge.js by bridge.py.

const VIEW = "application/vnd.jupyter.widget-view+json";
const SHOWN = new Set(["stream", "display_data", "execute_result", "error"]);

// Shared by every panel of this page: the runs by cell, and the static text that stands in for a panel when saved.
const page = (globalThis[Symbol.for("tf_mem_magic")] ??= {
  id: Math.random().toString(36).slice(2),
  runs: new Map(),
  frozen: new Map(),
  spoken: new Set(),
  wrapped: new WeakSet(),
  places: new Map(),
  replays: new Set(),
  driving: new Set(),
  saving: new WeakMap(),
  replayed: new WeakMap(),
});

class Refusal extends Error {}

function contextOf(model) {
  const context = model.widget_manager?.context;
  return context?.model?.sharedModel?.cells && context.model.cells?.get ? context : null;
}

function kernelOf(model) {
  const kernel = contextOf(model)?.sessionContext?.session?.kernel ?? model.widget_manager?.kernel;
  return typeof kernel?.requestExecute === "function" ? kernel : null;
}

function canRestart(model) {
  const session = contextOf(model)?.sessionContext;
  return typeof session?.restartKernel === "function" || typeof session?.session?.kernel?.restart === "function";
}

function tierOf(model) {
  if (!kernelOf(model)) return "panel";
  return contextOf(model) ? "edit" : "execute";
}

const trimmed = (text) => text.replace(/\r\n/g, "\n").replace(/\s+$/, "");
const sourceOf = (cell) => (cell.getSource ? cell.getSource() : cell.source);

// The cell's place in the notebook. Old notebooks give cells new ids each time they are opened: then the one cell
// with this very source is meant.
function locate(context, id, source) {
  const cells = context.model.sharedModel.cells;
  let index = id ? cells.findIndex((cell) => cell.id === id) : -1;
  if (index < 0) {
    const same = [...cells.keys()].filter((i) => cells[i].cell_type === "code" && trimmed(sourceOf(cells[i])) === trimmed(source));
    if (same.length > 1) throw new Refusal("Several cells hold this code, so it is not clear which one to change. Copy the changed cell instead.");
    if (!same.length) throw new Refusal("The cell is no longer in this notebook. Copy the changed cell instead.");
    index = same[0];
  }
  return { index, shared: cells[index], cell: context.model.cells.get(index) };
}

function locateUnchanged(context, id, original) {
  const place = locate(context, id, original);
  if (trimmed(sourceOf(place.shared)) !== trimmed(original))
    throw new Refusal("The cell was edited since this run, so nothing was changed. Run it again first.");
  if (place.shared.getMetadata?.("editable") === false) throw new Refusal("The cell is marked read-only, so it was not changed.");
  return place;
}

// Add a cell below the one that ran, whose own code does not matter for that; one that is there already is meant.
function addBelow(context, order) {
  const { index } = locate(context, order.cell_id, order.original);
  const { sharedModel, cells } = context.model;
  if (context.model.readOnly) throw new Refusal("The notebook is read-only, so no cell was added. Copy the cell instead.");
  const next = sharedModel.cells[index + 1];
  const isThere = next?.cell_type === "code" && trimmed(sourceOf(next)) === trimmed(order.source);
  if (!isThere) sharedModel.insertCell(index + 1, { cell_type: "code", source: trimmed(order.source), metadata: {} });
  return { index: index + 1, shared: sharedModel.cells[index + 1], cell: cells.get(index + 1) };
}

// Run `code` as the cell at `place`, as JupyterLab would: the messages become the cell's own outputs.
async function runCell(place, kernel, code, tag) {
  const { shared, cell } = place;
  if (cell.clearExecution) cell.clearExecution();
  else {
    cell.outputs.clear();
    cell.executionCount = null;
  }
  cell.trusted = true;
  if ("executionState" in cell) cell.executionState = "running";
  const metadata = { ...(shared.getMetadata?.() ?? {}), cellId: shared.id, ...tag };
  const request = { code, store_history: true, stop_on_error: true, allow_stdin: true };
  const future = kernel.requestExecute(request, false, metadata);
  const isReplaced = followOutputs(future, kernel, shared.id, cell);
  let reply;
  try {
    reply = (await future.done).content;
  } catch (error) {
    reply = { status: isReplaced() ? "replaced" : "gone" };
  }
  if (cell.isDisposed || isReplaced()) return reply;
  cell.executionCount = reply.execution_count ?? null;
  if ("executionState" in cell) cell.executionState = "idle";
  for (const payload of reply.payload ?? []) {
    if (payload.source === "page") cell.outputs.add({ output_type: "display_data", data: payload.data, metadata: {} });
    if (payload.source === "set_next_input" && payload.replace) shared.setSource(payload.text);
  }
  return reply;
}

// Route a future's messages into a cell until the cell is run anew. The future outlives the run, because updates of
// its displays (update_display_data) may come from later code.
function followOutputs(future, kernel, id, cell) {
  const displays = new Map();
  let replaced = false;
  let ours = false;
  const onChange = (_, change) => {
    if (change.type === "remove" && !ours) displays.clear();
  };
  const onAny = (_, { msg, direction }) => {
    const anew = direction === "send" && msg.header.msg_type === "execute_request" && msg.metadata?.cellId === id;
    if (!anew || msg.header.msg_id === future.msg.header.msg_id) return;
    replaced = true;
    kernel.anyMessage.disconnect(onAny);
    cell.outputs.changed.disconnect(onChange);
    future.dispose();
  };
  cell.outputs.changed.connect(onChange);
  kernel.anyMessage?.connect(onAny);
  future.onIOPub = (message) => {
    if (cell.isDisposed) return;
    ours = true;
    addMessage(message, cell.outputs, displays);
    ours = false;
  };
  future.onStdin = (message) => answerInput(future, message);
  return () => replaced;
}

function addMessage(message, outputs, displays) {
  const kind = message.header.msg_type;
  const id = message.content.transient?.display_id;
  if (SHOWN.has(kind)) {
    outputs.add({ ...message.content, output_type: kind });
    if (id) displays.set(id, [...(displays.get(id) ?? []), outputs.length - 1]);
  } else if (kind === "update_display_data") {
    for (const index of displays.get(id) ?? []) outputs.set(index, { ...message.content, output_type: "display_data" });
  } else if (kind === "clear_output") {
    outputs.clear(message.content.wait);
    displays.clear();
  }
}

function eachOutput(context, visit) {
  const cells = context.model.cells;
  for (let i = 0; i < cells.length; i++) {
    const outputs = cells.get(i).outputs;
    for (let j = 0; outputs && j < outputs.length; j++) visit(outputs, j, outputs.get(j));
  }
}

const staticOutput = (viewId, html) => ({
  output_type: "display_data",
  data: { "text/html": html, "text/plain": "tf_mem_magic: choices of this run" },
  metadata: { tf_mem_magic: { view_id: viewId } },
});

// Put the static text in the panel's place, for good.
function freezeOutput(context, viewId) {
  const html = page.frozen.get(viewId);
  if (html === undefined) return;
  eachOutput(context, (outputs, j, output) => {
    if (output.data?.[VIEW]?.model_id === viewId) outputs.set(j, staticOutput(viewId, html));
  });
}

// After the page was loaded again: the saved notebook held the static text, but this panel is still alive.
function reviveOutput(context, viewId) {
  eachOutput(context, (outputs, j, output) => {
    if (output.metadata?.tf_mem_magic?.view_id === viewId)
      outputs.set(j, { output_type: "display_data", data: { [VIEW]: { version_major: 2, version_minor: 0, model_id: viewId } }, metadata: {} });
  });
}

// What is saved never holds a panel: a widget without its kernel would be shown as an error.
function saveStatically(notebook) {
  if (page.wrapped.has(notebook)) return;
  page.wrapped.add(notebook);
  const toJSON = notebook.toJSON;
  const standIn = (output) => {
    const id = output.data?.[VIEW]?.model_id;
    return page.frozen.has(id) ? staticOutput(id, page.frozen.get(id)) : output;
  };
  notebook.toJSON = function () {
    const saved = toJSON.call(notebook);
    const running = page.replayed.get(notebook); // the cell of a replay that runs while this is saved, and what to say
    const outputsOf = (cell) => [...(running && cell.id === running.id ? [running.mark] : []), ...cell.outputs.map(standIn)];
    const cells = saved.cells.map((cell) => (cell.outputs ? { ...cell, outputs: outputsOf(cell) } : cell));
    return { ...saved, cells };
  };
}
