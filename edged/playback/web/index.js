// The landing page: who is live, from /streams.json.

const REFRESH_MS = 5_000;
const $ = (id) => document.getElementById(id);

function howLong(since) {
  const minutes = Math.max(0, Math.floor((Date.now() / 1000 - since) / 60));
  if (minutes < 1) return "just started";
  return minutes < 60 ? `for ${minutes} min` : `for ${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

function card(stream) {
  const link = element("a", "card");
  link.href = `/watch/${encodeURIComponent(stream.channel)}`;
  const head = element("div");
  head.append(element("h2", "", stream.title || stream.channel), element("p", "", `${stream.channel} · ${howLong(stream.since)}`));
  const row = element("div", "row");
  const badge = element("span", "badge");
  badge.dataset.state = "live";
  badge.append(element("i"), element("span", "", "Live"));
  const viewers = stream.viewers ? `${stream.viewers.toLocaleString("en")} watching` : "";
  row.append(badge, element("p", "", viewers));
  link.append(head, row);
  const item = element("li");
  item.append(link);
  return item;
}

let shown = null;

function show(streams) {
  const key = JSON.stringify([streams, Math.floor(Date.now() / 60_000)]);
  if (key === shown) return; // Don't take the focus away from a card for nothing.
  shown = key;
  const focused = document.activeElement?.getAttribute("href");
  $("cards").replaceChildren(...streams.map(card));
  if (focused) $("cards").querySelector(`[href="${CSS.escape(focused)}"]`)?.focus();
  $("count").textContent = streams.length ? `${streams.length} channel${streams.length === 1 ? "" : "s"}` : "";
  $("empty").hidden = streams.length > 0;
  $("empty-head").textContent = "Nobody is live";
  $("empty-text").textContent = "A channel appears here as soon as someone publishes to it.";
}

function showLost() {
  if ($("cards").childElementCount) return; // The last list is better than none.
  shown = null;
  $("empty").hidden = false;
  $("empty-head").textContent = "No answer from the server";
  $("empty-text").textContent = "This page tries again by itself.";
}

async function run() {
  for (;;) {
    try {
      const response = await fetch("/streams.json", { cache: "no-store", signal: AbortSignal.timeout(REFRESH_MS) });
      if (!response.ok) throw new Error(`status ${response.status}`);
      show(await response.json());
    } catch {
      showLost();
    }
    await new Promise((resolve) => setTimeout(resolve, REFRESH_MS));
  }
}

run();
