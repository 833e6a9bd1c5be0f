// The objects in the cache, page by page.

import {get} from "./api.js";
import {explain} from "./explain.js";
import {nameOf} from "./fills.js";
import {bytes, duration, time} from "./format.js";
import {byId, element, table} from "./page.js";

const MOST_ROWS = 1000;

let shown = [], prefix = "/", cursor = null;

function link(entry) {
  const path = nameOf(entry);
  if (!entry.paths.length) return path;
  return element("a", {href: "#explain", onclick: () => explain(path)}, path);
}

async function more() {
  const box = byId("entry-list");
  try {
    const page = await get("/api/v1/entries", {prefix, cursor, limit: 100});
    shown = [...shown, ...page.entries].slice(-MOST_ROWS);
    cursor = page.cursor;
    box.replaceChildren(table("", [
      ["Path", "path", link],
      ["Size", "number", (entry) => bytes(entry.size)],
      ["On disk", "number", (entry) => bytes(entry.stored)],
      ["Last used (UTC)", "number", (entry) => time(entry.accessed_at)],
      ["Fresh for", "number", (entry) => duration(entry.ttl)],
      ["ETag", "path", (entry) => entry.etag],
    ], shown, "Nothing below this path."));
    byId("entries-more").hidden = cursor === null;
  } catch (error) {
    box.replaceChildren(element("p", {class: "bad"}, error.message));
  }
}

export function begin() {
  byId("entries-form").addEventListener("submit", (submitted) => {
    submitted.preventDefault();
    [shown, prefix, cursor] = [[], byId("entries-prefix").value, null];
    more();
  });
  byId("entries-more").addEventListener("click", more);
}
