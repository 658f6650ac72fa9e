// Refreshes the dashboard without a page load; rests while the tab is in the background, and when told to.
(() => {
  "use strict";
  const ID = "queued-storage-dashboard";
  const dashboard = document.getElementById(ID);
  if (!dashboard) return;
  let paused = false;
  let running = false;

  const button = () => document.getElementById("qs-pause");

  function show() {
    button().hidden = false;
    button().setAttribute("aria-pressed", String(paused));
  }

  // What is being counted is there in a moment.
  function hurry() {
    if (dashboard.querySelector(".qs-counting") && !paused) setTimeout(refresh, 2000);
  }

  function replace(text) {
    const fresh = new DOMParser().parseFromString(text, "text/html").getElementById(ID);
    // A login page, or an error, has no dashboard.
    if (!fresh) throw new Error("no dashboard in the answer");
    const focused = document.activeElement && document.activeElement.id;
    const open = [...dashboard.querySelectorAll("details[open]")].map((details) => details.id);
    dashboard.replaceChildren(...fresh.childNodes);
    for (const id of open) document.getElementById(id)?.setAttribute("open", "");
    show();
    hurry();
    if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  }

  async function refresh() {
    if (running) return;
    running = true;
    try {
      const answer = await fetch(location.href, { credentials: "same-origin", cache: "no-store" });
      if (!answer.ok) throw new Error(String(answer.status));
      replace(await answer.text());
    } catch {
      let note = document.getElementById("qs-stale");
      if (!note) {
        note = document.createElement("strong");
        note.id = "qs-stale";
        note.setAttribute("role", "status");
        document.querySelector(".qs-refresh").prepend(note);
      }
      note.textContent = dashboard.dataset.stale;
    } finally {
      running = false;
    }
  }

  dashboard.addEventListener("click", (event) => {
    if (event.target.id === "qs-pause") {
      paused = !paused;
      show();
    } else if (event.target.id === "qs-reload") {
      event.preventDefault();
      refresh();
    }
  });
  document.addEventListener("visibilitychange", () => { if (!document.hidden && !paused) refresh(); });
  setInterval(() => { if (!document.hidden && !paused) refresh(); }, Number(dashboard.dataset.seconds) * 1000);
  show();
  hurry();
})();
