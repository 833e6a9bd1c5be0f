// Purges and warm jobs.

import {get, post} from "./api.js";
import {bytes, count, duration} from "./format.js";
import {byId, element, lines} from "./page.js";

const MOST_LISTED = 50;
const RUNNING = ["queued", "listing", "running", "cancelling"];

function wanted() {
  const kind = byId("purge-kind").value, text = byId("purge-text").value.trim();
  if (kind === "all") return {all: true};
  if (text === "") throw new Error("Say which objects.");
  if (kind === "paths" || kind === "tags") return {[kind]: lines(text)};
  return {[kind]: text};
}

function listed(objects) {
  const names = objects.slice(0, MOST_LISTED).map((one) => element("li", {class: "mono"}, one.path ?? `${one.bucket}/${one.key}`));
  const rest = objects.length - names.length;
  return element("ul", {}, ...names, rest > 0 ? element("li", {}, `and ${count(rest)} more`) : null);
}

async function purge(isPreview) {
  const box = byId("purged");
  try {
    const body = {...wanted(), soft: byId("purge-soft").checked};
    if (isPreview) {
      const found = await post("/api/v1/purge", {...body, dry_run: true});
      box.replaceChildren(element("p", {}, `${count(found.purged)} objects would go.`), listed(found.objects ?? []));
      return;
    }
    if (body.all && !confirm("Purge everything?")) return;
    box.replaceChildren(element("p", {}, "purging…"));
    const found = await post("/api/v1/purge", body);
    box.replaceChildren(element("p", {class: "good"}, `${count(found.purged)} objects ${body.soft ? "are stale now" : "purged"}.`));
  } catch (error) {
    box.replaceChildren(element("p", {class: "bad"}, error.message));
  }
}

async function warm() {
  const wants = lines(byId("warm-text").value), said = byId("warmed");
  const folders = wants.filter((path) => path.endsWith("/")), rate = byId("warm-rate").value.trim();
  if (folders.length > 1 || (folders.length && wants.length > 1)) {
    said.textContent = "Name either paths of objects, or one folder.";
    return;
  }
  const what = folders.length ? {prefix: folders[0]} : {paths: wants};
  try {
    await post("/api/v1/warm", {...what, follow: byId("warm-follow").checked, ...(rate === "" ? {} : {rate})});
    said.textContent = "The job has begun.";
    await showJobs();
  } catch (error) {
    said.textContent = error.message;
  }
}

function job(one) {
  const isRunning = RUNNING.includes(one.state);
  const bar = element("progress", {max: Math.max(1, one.bytes_known), value: isRunning ? one.bytes_done : Math.max(1, one.bytes_known), "aria-label": `job ${one.id}`});
  const left = one.seconds_left === null ? "" : `, ${duration(one.seconds_left)} left`;
  const text = `${one.state}: ${count(one.objects_done)} of ${count(one.objects_known)} objects, ${bytes(one.bytes_done)} of ${bytes(one.bytes_known)}, ${bytes(one.rate)}/s${left}. ${one.message}`;
  const failures = one.failures.map((each) => element("li", {class: "bad"}, `${each.path}: ${each.reason}`));
  const cancel = isRunning ? element("button", {type: "button", onclick: () => post(`/api/v1/jobs/${one.id}/cancel`, {}).then(showJobs)}, "Cancel") : null;
  return element("div", {}, element("h3", {class: "mono"}, one.id), bar, element("p", {}, text), failures.length ? element("ul", {}, ...failures) : null, cancel);
}

export async function showJobs() {
  const {jobs} = await get("/api/v1/jobs");
  byId("jobs").replaceChildren(...jobs.toReversed().slice(0, 10).map(job));
}

export function begin() {
  byId("purge-form").addEventListener("submit", (submitted) => {
    submitted.preventDefault();
    purge(submitted.submitter?.value === "preview");
  });
  byId("purge-kind").addEventListener("change", () => {
    byId("purge-text-label").hidden = byId("purge-kind").value === "all";
  });
  byId("warm-form").addEventListener("submit", (submitted) => {
    submitted.preventDefault();
    warm();
  });
}
