// The settings in force, and where each was written.

import {get} from "./api.js";
import {byId, element, table} from "./page.js";

let settings = [];

function show() {
  const text = byId("config-find").value.toLowerCase(), isOwn = byId("config-set").checked;
  const found = settings.filter(({key, source}) => key.toLowerCase().includes(text) && !(isOwn && source === "default"));
  byId("config-list").replaceChildren(table("", [
    ["Key", "path", ({key}) => key],
    ["Value", "path", ({value}) => (typeof value === "string" ? value : JSON.stringify(value))],
    ["From", "", ({source, place}) => place ?? source],
  ], found));
}

export async function load() {
  try {
    ({settings} = await get("/api/v1/config"));
    show();
  } catch (error) {
    byId("config-list").replaceChildren(element("p", {class: "bad"}, error.message));
  }
}

export function begin() {
  byId("config-find").addEventListener("input", show);
  byId("config-set").addEventListener("change", show);
}
