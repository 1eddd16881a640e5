// The form's comforts: file names, drop, a progress bar, errors without losing the chosen files.
"use strict";

const form = document.querySelector("[data-upload]");
const maxBytes = Number(form.dataset.maxBytes);
const problem = document.querySelector("[data-problem]");
const sending = form.querySelector("[data-sending]");
const submit = form.querySelector("button[type=submit]");
const bar = form.querySelector("[data-bar]");
const sent = form.querySelector("[data-sent]");

function size(bytes) {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (bytes >= 1000 && unit < units.length - 1) {
    bytes /= 1000;
    unit += 1;
  }
  return `${unit === 0 || bytes >= 100 ? Math.round(bytes) : bytes.toFixed(1)} ${units[unit]}`;
}

for (const drop of form.querySelectorAll("[data-drop]")) {
  const input = drop.querySelector("input[type=file]");
  const chosen = drop.querySelector("[data-chosen]");
  const show = () => {
    const file = input.files[0];
    chosen.hidden = !file;
    chosen.textContent = file ? `${file.name} · ${size(file.size)}` : "";
    drop.classList.toggle("chosen", Boolean(file));
    input.setCustomValidity(
      file && file.size > maxBytes ? `The file is larger than ${size(maxBytes)}.` : "",
    );
  };
  input.addEventListener("change", show);
  drop.addEventListener("dragover", (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    if (event.dataTransfer.files.length) {
      input.files = event.dataTransfer.files;
      show();
    }
  });
  show();
}

// A file that misses its field must not replace the page.
for (const type of ["dragover", "drop"]) {
  window.addEventListener(type, (event) => event.preventDefault());
}

function element(tag, text, className) {
  const made = document.createElement(tag);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

function showProblem(body) {
  const panel = element("div", "", "problem");
  panel.setAttribute("role", "alert");
  panel.tabIndex = -1;
  panel.append(element("strong", body.title), element("p", body.detail));
  if (body.errors && body.errors.length > 1) {
    const list = document.createElement("ul");
    for (const entry of body.errors) {
      const item = document.createElement("li");
      item.append(element("code", entry.field), ` ${entry.message}`);
      list.append(item);
    }
    panel.append(list);
  }
  if (body.hint) {
    const hint = element("p", "", "hint");
    hint.append(element("b", "What to do:"), ` ${body.hint}`);
    panel.append(hint);
  }
  const meta = element("p", "Code: ", "meta");
  meta.append(element("code", body.code));
  panel.append(meta);
  problem.replaceChildren(panel);
  panel.focus();
}

function idle() {
  sending.hidden = true;
  submit.hidden = false;
}

function explain(request) {
  try {
    const body = JSON.parse(request.responseText);
    if (body.code) return body;
  } catch {
    // not ours: a proxy's page, say
  }
  return {
    title: "The upload failed",
    detail: `The server answered with status ${request.status}.`,
    code: "http_error",
  };
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  problem.replaceChildren();
  const request = new XMLHttpRequest();
  const started = performance.now();
  request.upload.addEventListener("progress", ({ loaded, total }) => {
    bar.value = total ? loaded / total : 0;
    const rate = loaded / Math.max(0.1, (performance.now() - started) / 1000);
    const done = loaded === total;
    sent.textContent = done
      ? "Checking the file"
      : `${size(loaded)} of ${size(total)} · ${size(rate)}/s`;
  });
  request.addEventListener("load", () => {
    if (request.status === 202) {
      window.location.assign(JSON.parse(request.responseText).location);
      return;
    }
    idle();
    showProblem(explain(request));
  });
  request.addEventListener("error", () => {
    idle();
    showProblem({
      title: "The connection broke",
      detail: "The server could not be reached, or it refused the upload while it was sent.",
      hint: "check that the server runs and that the file is not too large, then send it again",
      code: "connection_lost",
    });
  });
  request.addEventListener("abort", idle);
  form.querySelector("[data-abort]").onclick = () => request.abort();
  request.open("POST", form.action);
  request.setRequestHeader("Accept", "application/json");
  bar.value = 0;
  sent.textContent = "";
  sending.hidden = false;
  submit.hidden = true;
  request.send(new FormData(form));
});
