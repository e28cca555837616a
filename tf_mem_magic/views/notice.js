// Words from the page itself, for when no panel is left to say them.

function notice(text, ...extra) {
  const box = document.createElement("div");
  box.className = "tfmem-notice";
  box.setAttribute("role", "alert");
  box.style.cssText =
    "position:fixed;right:16px;bottom:40px;z-index:10000;max-width:min(420px,calc(100vw - 64px));padding:12px 14px;border-radius:4px;" +
    "font:13px/1.45 var(--jp-ui-font-family,sans-serif);color:var(--jp-ui-font-color1,#222);background:var(--jp-layout-color1,#fff);" +
    "border:1px solid var(--jp-border-color1,#bbb);border-left:4px solid var(--jp-warn-color1,#b86e00);box-shadow:0 2px 10px rgba(0,0,0,.25)";
  const words = document.createElement("div");
  words.textContent = text;
  const close = document.createElement("button");
  close.textContent = "Close";
  close.style.cssText = "margin-top:8px;margin-right:8px;font:inherit;cursor:pointer";
  close.onclick = () => box.remove();
  box.onkeydown = (event) => event.key === "Escape" && box.remove();
  box.append(words, ...extra, ...(extra.length ? [] : [close]));
  document.body.appendChild(box);
  return box;
}

// A cell that asks with input(): the question is put in the page, because the cell's own field is out of reach.
function askInput(prompt, password) {
  return new Promise((resolve) => {
    const field = document.createElement("input");
    field.type = password ? "password" : "text";
    field.setAttribute("aria-label", prompt || "input");
    field.style.cssText = "margin-top:8px;width:100%;box-sizing:border-box;font:inherit";
    const box = notice(prompt || "The cell waits for input:", field);
    box.onkeydown = null;
    field.onkeydown = (event) => {
      event.stopPropagation();
      if (event.key !== "Enter") return;
      box.remove();
      resolve(field.value);
    };
    field.focus();
  });
}

async function answerInput(future, message) {
  if (message.header.msg_type !== "input_request") return;
  const value = await askInput(message.content.prompt, message.content.password);
  future.sendInputReply({ status: "ok", value }, message.header);
}
