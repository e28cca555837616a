// The bridge: carries the panel's wishes to the notebook. It lives with the widget's model, not with its view: a
// rerun clears the view away, and a restart takes the kernel, while this goes on.

async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}

function initialize({ model }) {
  const viewId = model.get("view_id");
  const send = (content) => {
    try {
      model.send({ ...content, page: page.id });
    } catch {
      // The kernel is gone; what is left to say is said in the page.
    }
  };
  const remember = () => page.frozen.set(viewId, model.get("frozen"));
  remember();
  model.on("change:frozen", remember);

  const context = contextOf(model);
  let restarting = false;
  const onStatus = (_, status) => {
    if (["restarting", "autorestarting", "terminating", "dead"].includes(status)) freezeOutput(context, viewId);
  };
  const onKernel = () => freezeOutput(context, viewId);
  if (context) {
    saveStatically(context.model);
    reviveOutput(context, viewId);
    context.sessionContext?.statusChanged?.connect(onStatus);
    context.sessionContext?.kernelChanged?.connect(onKernel);
  }

  let running = false;
  const refuse = (order, error) => {
    const reason = error instanceof Refusal ? error.message : `The page could not do it (${error?.message ?? error}).`;
    if (!(error instanceof Refusal)) console.error("tf_mem_magic", error);
    send({ op: "refused", key: order.key, reason });
  };

  const orders = {
    async run(order) {
      if (running) return;
      running = true;
      try {
        const kernel = kernelOf(model);
        if (!kernel) throw new Refusal("The page has no kernel to run the cell.");
        const notebook = contextOf(model);
        const tag = { tfmem: { key: order.key, rerun: order.rerun } };
        const shown = page.places.get(viewId);
        let reply;
        if (notebook) {
          const place = order.new_cell ? addBelow(notebook, order) : locateUnchanged(notebook, order.cell_id, order.original);
          send({ op: "started", key: order.key });
          if (!order.new_cell) beginRerun(shown, order.original, order.source);
          if (!order.new_cell && order.source !== order.original) place.shared.setSource(order.source);
          reply = await runCell(place, kernel, order.source, tag);
          endRerun(shown);
        } else {
          reply = await runBelow(model, kernel, order, tag, send);
        }
        if (reply.status === "aborted") notice("The changed cell did not run, because a cell before it in the queue failed. Run it again.");
        send({ op: "ran", key: order.key, status: reply.status });
      } finally {
        running = false;
      }
    },
    async put(order) {
      const notebook = contextOf(model);
      if (!notebook) throw new Refusal("The page cannot change the cell. Copy the code instead.");
      locateUnchanged(notebook, order.cell_id, order.original).shared.setSource(order.source);
      const shown = page.places.get(viewId);
      requestAnimationFrame(() => requestAnimationFrame(() => markLines(shown, changedLines(order.original, order.source))));
      send({ op: "put", key: order.key });
    },
    async copy(order) {
      send({ op: "copied", key: order.key, ok: await copyText(order.text) });
    },
    async cells(order) {
      const notebook = contextOf(model);
      if (!notebook) throw new Refusal("The page cannot tell which cells the notebook has.");
      locateUnchanged(notebook, order.cell_id, order.original);
      const code = notebook.model.sharedModel.cells.filter((cell) => cell.cell_type === "code");
      const cells = code.map((cell) => ({ id: cell.id, source: sourceOf(cell), count: cell.execution_count ?? null }));
      send({ op: "cells", key: order.key, cells });
    },
    async restart(order) {
      if (restarting) return;
      restarting = true;
      try {
        await restartAndReplay(model, order.order, order.prologue);
      } catch (error) {
        notice(error instanceof Refusal ? error.message : `The restart did not work (${error?.message ?? error}).`);
        throw error;
      } finally {
        restarting = false;
      }
    },
    async freeze() {
      if (context) freezeOutput(context, viewId);
    },
  };

  const onMessage = (message) => {
    if (message.page && message.page !== page.id) return;
    const order = orders[message.op];
    if (order) order(message).catch((error) => refuse(message, error));
  };
  model.on("msg:custom", onMessage);

  // With the notebook open in two windows, the one that was touched last is the one that acts. A click says so once
  // more, right before its button does: the other window's greeting may come between it and the press.
  const onTouch = (event) => {
    if (event.target.closest?.(`.${model.get("root")}`)) send({ op: "here" });
  };
  const touches = ["pointerdown", "keydown", "click"];
  for (const touch of touches) document.addEventListener(touch, onTouch, true);

  send({ op: "hello", tier: tierOf(model), restart: canRestart(model) });
  return () => {
    context?.sessionContext?.statusChanged?.disconnect(onStatus);
    context?.sessionContext?.kernelChanged?.disconnect(onKernel);
    for (const touch of touches) document.removeEventListener(touch, onTouch, true);
  };
}

// For pages that lend their kernel but not their notebook: the outputs go to the panel's own output area, by the
// Output widget's own means (it takes the messages of the request that it names).
async function runBelow(model, kernel, order, tag, send) {
  const output = await model.widget_manager.get_model(order.output);
  send({ op: "started", key: order.key });
  const request = { code: order.source, store_history: true, stop_on_error: true, allow_stdin: true };
  output.clear_output?.(false);
  const future = kernel.requestExecute(request, false, tag);
  future.onStdin = (message) => answerInput(future, message);
  output.set("msg_id", future.msg.header.msg_id);
  followUpdates(future, output);
  try {
    return (await future.done).content;
  } catch {
    return { status: "gone" };
  } finally {
    output.set("msg_id", "");
  }
}

// An Output widget does not know updates of displays (update_display_data): they are done here. The hook runs before
// the widget's own, so a new display's place is the number of outputs so far.
function followUpdates(future, output) {
  const displays = new Map();
  future.registerMessageHook?.((message) => {
    const kind = message.header.msg_type;
    const id = message.content?.transient?.display_id;
    const outputs = output.get("outputs") ?? [];
    if (kind === "display_data" && id) displays.set(id, [...(displays.get(id) ?? []), outputs.length]);
    if (kind === "clear_output") displays.clear();
    if (kind !== "update_display_data" || !displays.has(id)) return true;
    const { data, metadata } = message.content;
    const places = displays.get(id);
    const changed = outputs.map((each, i) => (places.includes(i) ? { output_type: "display_data", data, metadata } : each));
    output.set("outputs", changed);
    return false;
  });
}

// Tell whether a report is new, once: a page that is loaded again shows it where it stands.
function takeFresh(model) {
  const fresh = model.get("fresh");
  if (!fresh) return false;
  model.set("fresh", false);
  try {
    model.save_changes();
  } catch {
    // The kernel is gone, and with it the report's buttons.
  }
  return true;
}

function render({ model, el }) {
  const strip = drawStrip(model, el);
  let stop = () => {};
  let toggles = null;
  const settle = async (root, cell) => {
    if (model.get("running")) return;
    const began = performance.now() - 1000 * model.get("elapsed");
    const fresh = takeFresh(model);
    await buttonsDrawn(root, model.get("buttons"));
    strip.end();
    root.classList.add("tfmem-ready");
    nameToggles(root);
    if (fresh || page.awaited.has(cell)) showReport(cell, { failed: model.get("failed"), began, owner: model });
    else foldErrors(cell, model.get("failed"), model);
  };
  let whenSettled = null;
  const arrival = setInterval(() => {
    const root = el.closest(`.${model.get("root")}`);
    if (!root) return;
    clearInterval(arrival);
    root.classList.add("tfmem-bridged");
    root.dataset.lmSuppressShortcuts = "true"; // else JupyterLab takes Enter and Escape for the notebook
    const cell = cellOf(root);
    page.places.set(model.get("view_id"), cell);
    stop = followErrors(cell, () => (model.get("running") ? null : model.get("failed")), model);
    toggles = new MutationObserver(() => nameToggles(root));
    toggles.observe(root, { childList: true, subtree: true, attributes: true, attributeFilter: ["class"] });
    if (model.get("running")) focusStrip(cell, strip.node);
    whenSettled = () => settle(root, cell);
    model.on("change:running", whenSettled);
    whenSettled();
  }, 30);
  const onHold = (message) => {
    if (message.op === "hold") holdHeight(page.places.get(model.get("view_id")), true);
  };
  model.on("msg:custom", onHold);
  const onKey = (event) => {
    const root = event.target.closest?.(`.${model.get("root")}`);
    if (event.key !== "Escape" || !root) return;
    const folds = event.target.closest(".tfmem-folded")?.previousElementSibling ?? root.querySelector(".tfmem-toggle.mod-active");
    const open = event.target.closest("details[open]");
    if (open) {
      open.open = false;
      open.querySelector("summary")?.focus();
    } else if (folds?.classList.contains("mod-active")) {
      folds.click();
      folds.focus();
    } else return;
    event.stopPropagation();
  };
  document.addEventListener("keydown", onKey, true);
  return () => {
    strip.erase();
    stop();
    letWholeHeightGo(page.places.get(model.get("view_id")));
    toggles?.disconnect();
    clearInterval(arrival);
    if (whenSettled) model.off("change:running", whenSettled);
    model.off("msg:custom", onHold);
    document.removeEventListener("keydown", onKey, true);
  };
}

export default { initialize, render };
