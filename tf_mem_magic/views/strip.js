// The live strip: one line of numbers and a small chart. All words come from the kernel; here they are only placed.

const QUIET = 3000; // ms without an update after which the strip no longer claims to be live

function element(name, className, text = "") {
  const node = document.createElement(name);
  node.className = className;
  node.textContent = text;
  return node;
}

function curve(times, values, span, top, closed) {
  if (!times.length) return "";
  const x = (t) => ((1000 * t) / span).toFixed(1);
  const y = (v) => (100 - (100 * v) / top).toFixed(2);
  const line = times.map((t, i) => `${x(t)},${y(values[i])}`).join("L");
  return closed ? `M${x(times[0])},100L${line}L${x(times[times.length - 1])},100Z` : `M${line}`;
}

function drawStrip(model, el) {
  const root = element("div", "tfmem-live");
  const strip = element("div", "tfmem-strip");
  strip.setAttribute("role", "group");
  strip.setAttribute("aria-label", "Memory while the cell runs");
  const line = element("div", "tfmem-line");
  const state = element("span", "tfmem-state", "● running");
  const numbers = element("span", "tfmem-numbers");
  const hide = element("button", "tfmem-hide", "hide");
  hide.type = "button";
  hide.title = "Hide the live view of this run";
  line.append(state, numbers, hide);
  const chart = element("div", "tfmem-chart");
  chart.innerHTML =
    '<svg viewBox="0 0 1000 100" preserveAspectRatio="none" role="img"><path class="tfmem-fill"/><path class="tfmem-edge"/>' +
    '<path class="tfmem-device"/><line class="tfmem-limit" x1="0" x2="1000"/></svg>';
  const svg = chart.firstChild;
  const [fill, edge, device, limit] = svg.children;
  const words = element("div", "tfmem-words");
  strip.append(line, chart, words);
  const spoken = element("div", "tfmem-spoken");
  spoken.setAttribute("role", "status");
  spoken.setAttribute("aria-live", "polite");
  root.append(strip, spoken);
  el.appendChild(root);

  let last = performance.now();
  let seen = false;
  const quiet = setInterval(() => {
    const silence = performance.now() - last;
    if (silence < QUIET || !model.get("running")) return;
    strip.classList.add("tfmem-stale");
    words.textContent = seen
      ? `live view unavailable: no update for ${Math.round(silence / 1000)} s (one long call, or no connection); report at the end`
      : "live view unavailable here; report at the end";
  }, 500);

  const show = (m) => {
    last = performance.now();
    seen = true;
    strip.classList.remove("tfmem-stale");
    strip.classList.toggle("tfmem-amber", m.amber);
    state.textContent = `● running ${m.elapsed}`;
    numbers.replaceChildren(...m.numbers.map((text, i) => element("span", i ? "tfmem-number" : "tfmem-number tfmem-main", text)));
    words.textContent = m.words;
    const main = m.main;
    const span = Math.max(m.seconds, 1);
    fill.setAttribute("d", main ? curve(main.times, main.values, span, m.top, true) : "");
    edge.setAttribute("d", main ? curve(main.times, main.values, span, m.top, false) : "");
    device.setAttribute("d", m.device ? curve(m.device.times, m.device.values, span, m.top, false) : "");
    const y = m.limit ? 100 - (100 * m.limit) / m.top : -10;
    limit.setAttribute("y1", y);
    limit.setAttribute("y2", y);
    svg.setAttribute("aria-label", m.label);
  };
  // What happened, at once: the report takes a moment more, and nothing more comes until then.
  const tell = (m) => {
    last = Infinity;
    strip.classList.remove("tfmem-stale", "tfmem-amber");
    strip.classList.add("tfmem-ended");
    state.textContent = m.state;
    words.textContent = m.words;
  };
  // The strip stays until the buttons that take its place are drawn: then `end` is called.
  let ended = !model.get("running");
  const settle = () => {
    strip.style.display = ended || hidden ? "none" : "";
  };
  let hidden = false;
  hide.onclick = () => {
    hidden = true;
    settle();
  };
  const onMessage = (m) => {
    if (m.op === "tick") show(m);
    if (m.op === "ended") tell(m);
  };
  // Spoken once on this page, however often the view is drawn; a region is only read out when it changes.
  const announce = () => {
    const words = model.get("announce");
    if (!words || page.spoken.has(model.get("view_id"))) return;
    page.spoken.add(model.get("view_id"));
    setTimeout(() => (spoken.textContent = words), 200);
  };
  model.on("msg:custom", onMessage);
  model.on("change:announce", announce);
  settle();
  announce();
  return {
    node: strip,
    end() {
      ended = true;
      settle();
    },
    erase() {
      clearInterval(quiet);
      model.off("msg:custom", onMessage);
      model.off("change:announce", announce);
    },
  };
}
