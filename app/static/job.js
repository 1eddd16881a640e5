// The job's page keeps itself up to date; at the end it is loaded once more, with the result.
"use strict";

const job = document.querySelector("[data-job]");

for (const time of document.querySelectorAll("time[datetime]")) {
  const at = new Date(time.dateTime);
  time.textContent = at.toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
}

function elapsed(since) {
  const seconds = Math.max(0, Math.floor((Date.now() - since) / 1000));
  const minutes = Math.floor(seconds / 60);
  if (minutes >= 60) return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  return minutes ? `${minutes} min ${seconds % 60} s` : `${seconds} s`;
}

function show(view) {
  const stages = [...document.querySelectorAll("[data-stages] [data-stage]")];
  const now = stages.findIndex((stage) => stage.dataset.stage === view.stage);
  stages.forEach((stage, index) => {
    stage.className = index < now ? "done" : index === now ? "now" : "";
  });
  const badge = document.querySelector("[data-badge]");
  badge.textContent = view.status;
  badge.className = `badge ${view.status}`;
  document.querySelector("[data-bar]").value = view.progress;
  document.querySelector("[data-message]").textContent =
    view.message || (view.status === "queued" ? "waiting for a worker" : view.stage);
  job.dataset.started = view.started_at || "";
  document.title = `${Math.round(100 * view.progress)} % · ${view.name}`;
}

if (["queued", "running"].includes(job.dataset.status)) {
  const events = new EventSource(job.dataset.events);
  events.addEventListener("job", (event) => {
    const view = JSON.parse(event.data);
    show(view);
    if (!["queued", "running"].includes(view.status)) {
      events.close();
      window.location.reload();
    }
  });
  // After an error that EventSource does not mend (the job was deleted, say), ask the server.
  events.addEventListener("error", () => {
    if (events.readyState === EventSource.CLOSED) window.setTimeout(() => window.location.reload(), 3000);
  });
  window.setInterval(() => {
    const started = Date.parse(job.dataset.started);
    document.querySelector("[data-elapsed]").textContent = started ? elapsed(started) : "";
  }, 1000);
}
