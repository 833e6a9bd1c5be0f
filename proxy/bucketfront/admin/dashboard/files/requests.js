// The live list of requests.

import {Refused, events} from "./api.js";
import {bytes, duration} from "./format.js";
import {byId, element, isSeen} from "./page.js";

const MOST_ROWS = 200;
const DRAW_MS = 500; // between two changes of the list: a thousand requests a second replace all its rows

let running = null, waiting = [], isDue = false, dropped = 0;

function row(line) {
  const failed = line.status >= 500 ? "bad" : "";
  const cells = [
    ["faint", line.time.slice(11, 23)], ["", line.client], ["", line.method], ["path", line.path],
    [`number ${failed}`, String(line.status)], ["number", bytes(line.sent)], ["number", duration(line.ms / 1000)], ["", line.cache],
  ];
  return element("tr", {title: line.cause ?? null}, ...cells.map(([kind, text]) => element("td", {class: kind}, text)));
}

function later() {
  isDue = true;
  setTimeout(showWaiting, DRAW_MS);
}

// A list that is out of sight keeps its last rows, and draws none.
function showWaiting() {
  isDue = false;
  const body = byId("tail").querySelector("tbody");
  if (body === null) return;
  if (!isSeen("requests")) return later();
  body.prepend(...waiting.slice(-MOST_ROWS).reverse().map(row));
  waiting = [];
  while (body.rows.length > MOST_ROWS) body.lastChild.remove();
}

function onEvent(kind, data) {
  if (kind === "dropped") {
    dropped += data.events;
    byId("tail-state").textContent = `watching; ${dropped.toLocaleString("en")} requests were too many to show`;
  } else if (kind === "request") {
    waiting.push(data);
    if (waiting.length > 2 * MOST_ROWS) waiting = waiting.slice(-MOST_ROWS);
    if (!isDue) later();
  }
}

async function watch() {
  const titles = ["Time", "Client", "Method", "Path", "Status", "Bytes", "Took", "Cache"];
  const head = element("tr", {}, ...titles.map((title) => element("th", {scope: "col"}, title)));
  byId("tail").replaceChildren(element("table", {}, element("thead", {}, head), element("tbody", {})));
  byId("tail-toggle").textContent = "Stop";
  byId("tail-state").textContent = "watching";
  dropped = 0;
  running = new AbortController();
  const wanted = {
    kinds: "request", path: byId("tail-path").value, status: byId("tail-status").value,
    cache: byId("tail-cache").value, slow: byId("tail-slow").value,
  };
  let ending = "stopped";
  try {
    await events(wanted, onEvent, running.signal);
    ending = "the proxy ended the stream";
  } catch (error) {
    if (error instanceof Refused) ending = error.message;
    else if (error.name !== "AbortError") ending = "the connection was lost";
  }
  running = null;
  byId("tail-toggle").textContent = "Watch";
  byId("tail-state").textContent = ending;
}

export function begin() {
  byId("tail-form").addEventListener("submit", (submitted) => {
    submitted.preventDefault();
    if (running === null) watch();
    else running.abort();
  });
}
