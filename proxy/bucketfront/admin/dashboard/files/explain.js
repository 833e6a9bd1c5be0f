// What the cache knows of a path.

import {get} from "./api.js";
import {fillText, mapOf} from "./fills.js";
import {bytes, duration, time} from "./format.js";
import {byId, element, facts} from "./page.js";

function lifetime(found) {
  const from = found.rule === null ? found.basis : `${found.basis} ${found.rule}${found.builtin ? " (built in)" : ""}`;
  return `${duration(found.ttl)}, by ${from}${found.header === null ? "" : `: ${found.header}`}`;
}

function candidate(one, isOnly) {
  const {entry, blocks, removal} = one;
  const shown = [
    ["object", `${one.bucket}/${one.key}${one.version === null ? "" : ` version ${one.version}`}`],
    ["next GET", `${one.next}: ${one.why}`],
    ["state", one.state],
    ["ETag", entry?.etag],
    ["size", entry && `${bytes(entry.size)}, ${entry.type ?? "no type"}`],
    ["stored", entry && `${time(entry.stored_at)}, last used ${time(entry.accessed_at)}`],
    ["age", one.age === null ? null : duration(one.age)],
    ["fresh for", entry && duration(entry.ttl)],
    ["lifetime", lifetime(one.lifetime)],
    ["blocks", blocks && `${blocks.percent} % of ${blocks.count} blocks here`],
    ["fetched by", one.fill && fillText(one.fill)],
    ["remembered 404", one.absent_for === null ? null : `for ${duration(one.absent_for)} more`],
    ["removed", removal && `${duration(removal.ago)} ago: ${removal.text}`],
  ];
  const map = blocks && entry ? mapOf({...blocks, size: entry.size, ...(one.fill ? {parts: one.fill.parts, readers: one.fill.readers} : {})}) : null;
  const title = element("h3", {}, one.decides ? "It serves the next GET" : isOnly ? "It may serve the path" : "It is tried before or after");
  return element("div", {}, title, map, facts(shown));
}

export async function explain(path) {
  const box = byId("explanation");
  byId("explain-path").value = path;
  try {
    const found = await get("/api/v1/explain", {path});
    const mounts = found.mounts.map((mount) => `${mount.path} is ${mount.bucket}/${mount.prefix}; read by ${mount.read.join(", ")}`);
    box.replaceChildren(
      element("p", {}, element("strong", {}, found.next.decision), `: ${found.next.why}`),
      facts([["mount", mounts.join("; inner: ")]]),
      ...found.candidates.map((one) => candidate(one, found.candidates.length === 1)),
      element("details", {}, element("summary", {}, "As JSON"), element("pre", {class: "scroll mono"}, JSON.stringify(found, null, 1))),
    );
  } catch (error) {
    box.replaceChildren(element("p", {class: "bad"}, error.message));
  }
}

export function begin() {
  byId("explain-form").addEventListener("submit", (submitted) => {
    submitted.preventDefault();
    explain(byId("explain-path").value);
  });
}
