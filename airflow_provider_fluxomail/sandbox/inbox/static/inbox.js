// The inbox without this script: pages that are loaded again by a link. With it: pages that follow what happens, and keys.
"use strict";
(() => {
  const root = document.documentElement;
  const wait = 5000; // ms
  let stream = null;
  let loading = false;
  let again = false;

  // What happens

  function refresh() {
    if (loading) {
      again = true;
      return;
    }
    loading = true;
    const request = new XMLHttpRequest();
    request.open("GET", location.href);
    // Parsed by the browser, which runs nothing in it.
    request.responseType = "document";
    request.timeout = 2 * wait;
    request.onloadend = () => {
      loading = false;
      if (request.response) update(request.response, request.status);
      if (again) {
        again = false;
        refresh();
      }
    };
    request.send();
  }

  function update(fresh, status) {
    if (status !== 200) {
      root.dataset.gone = "";
      return;
    }
    delete root.dataset.gone;
    const before = new Set(rows().map((row) => row.pathname));
    let replaced = false;
    for (const part of document.querySelectorAll("[data-live]")) {
      const next = fresh.getElementById(part.id);
      if (!next || next.innerHTML === part.innerHTML) continue;
      replace(part, next);
      replaced = true;
    }
    document.title = fresh.title;
    const list = document.getElementById("list");
    if (!replaced || !list || !before.size) return;
    const added = rows().filter((row) => !before.has(row.pathname));
    for (const row of added) row.closest("li").classList.add("new");
    if (added.length) say(added.length === 1 ? "1 new message" : `${added.length} new messages`);
  }

  function replace(part, next) {
    const focused = part.contains(document.activeElement) ? document.activeElement : null;
    const open = new Set([...part.querySelectorAll("details[open]")].map((details) => details.id));
    part.replaceChildren(...next.childNodes);
    for (const details of part.querySelectorAll("details")) details.open = open.has(details.id);
    if (!focused) return;
    const same = (element) => (focused.id ? element.id === focused.id : element.href && element.href === focused.href);
    [...part.querySelectorAll("a, button, input, summary")].find(same)?.focus({ preventScroll: true });
  }

  function say(text) {
    document.getElementById("said").textContent = text;
  }

  // A browser opens few connections to a server: a hidden page gives its own back.
  function listen() {
    if (stream || document.hidden || !document.body.dataset.stream) return;
    stream = new EventSource(document.body.dataset.stream);
    stream.onopen = () => (root.dataset.follows = "");
    stream.onmessage = refresh;
    stream.onerror = () => {
      delete root.dataset.follows;
      if (stream.readyState !== EventSource.CLOSED) return;
      stream = null;
      setTimeout(listen, wait);
    };
  }

  function leave() {
    stream?.close();
    stream = null;
    delete root.dataset.follows;
  }

  document.addEventListener("visibilitychange", () => (document.hidden ? leave() : listen()));
  addEventListener("pagehide", leave);
  addEventListener("pageshow", listen);

  // Keys

  function rows() {
    return [...document.querySelectorAll(".mails a.subject")];
  }

  function step(by) {
    const all = rows();
    if (!all.length) {
      document.querySelector(by > 0 ? "a[rel=next]" : "a[rel=prev]")?.click();
      return;
    }
    const at = all.findIndex((row) => row === document.activeElement);
    const to = at < 0 ? (by > 0 ? 0 : all.length - 1) : Math.min(all.length - 1, Math.max(0, at + by));
    all[to].focus();
  }

  function search() {
    const field = document.getElementById("q");
    field?.focus();
    field?.select();
  }

  const keys = {
    j: () => step(1),
    k: () => step(-1),
    "/": search,
    u: () => document.querySelector("a[data-up]")?.click(),
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (event.target.closest("input, textarea, select")) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    const act = keys[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });

  listen();
})();
