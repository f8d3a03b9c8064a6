// Refreshes the page, and keeps open details, focus and typed text. The page also works without JavaScript.
"use strict";

(() => {
  const seconds = Number(document.body.dataset.refresh);
  if (!seconds) return;
  const lost = document.getElementById("lost");

  const openMarks = () => new Set([...document.querySelectorAll("details[open]")].map((details) => details.dataset.mark));

  // Returns a function that finds the focused element in the new document: a summary by its details, a link by its address.
  const focusOf = (element) => {
    const details = element.closest("details");
    if (details && element.tagName === "SUMMARY") return (root) => byMark(root, details.dataset.mark)?.querySelector("summary");
    const href = element.getAttribute("href");
    if (href !== null) return (root) => [...root.querySelectorAll("a")].find((link) => link.getAttribute("href") === href);
    return () => null;
  };
  const byMark = (root, mark) => [...root.querySelectorAll("details")].find((details) => details.dataset.mark === mark);

  const replace = (next) => {
    const opened = openMarks();
    for (const id of ["now", "overview", "tables"]) {
      const old = document.getElementById(id);
      const fresh = next.getElementById(id);
      const refocus = old.contains(document.activeElement) ? focusOf(document.activeElement) : null;
      for (const details of fresh.querySelectorAll("details")) details.open = opened.has(details.dataset.mark);
      old.replaceChildren(...fresh.childNodes);
      if (refocus) refocus(old)?.focus({ preventScroll: true });
    }
    // Replaced only if it differs, so that a screen reader announces changes only.
    const headline = document.getElementById("headline");
    const fresh = next.getElementById("headline");
    if (headline.textContent !== fresh.textContent) headline.replaceChildren(...fresh.childNodes);
    headline.className = fresh.className;
    document.title = next.title;
    document.querySelector("link[rel=icon]").href = next.querySelector("link[rel=icon]").getAttribute("href");
  };

  // A refresh would drop the selection of text.
  const inUse = () => document.hidden || String(document.getSelection() ?? "") !== "";

  const refresh = async () => {
    if (!inUse()) {
      try {
        const reply = await fetch(location.href, { signal: AbortSignal.timeout(seconds * 1000) });
        if (!reply.ok) throw new Error(String(reply.status));
        const next = new DOMParser().parseFromString(await reply.text(), "text/html");
        const [x, y] = [scrollX, scrollY];
        replace(next);
        scrollTo(x, y);
        lost.hidden = true;
      } catch {
        lost.hidden = false;
      }
    }
    setTimeout(refresh, seconds * 1000);
  };
  setTimeout(refresh, seconds * 1000);
})();
