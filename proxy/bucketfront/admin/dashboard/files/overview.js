// The figures of now and of the last minutes.

import {Chart} from "./chart.js";
import {bytes, count, duration, money, percent} from "./format.js";
import {byId, element, table} from "./page.js";

const rate = (value) => `${bytes(value)}/s`;
const perSecond = (value) => `${count(value)}/s`;

const charts = {
  ratio: new Chart("Hit ratio", ["of requests", "of bytes"], percent, 1),
  bytes: new Chart("Bytes", ["to clients", "from the origin"], rate),
  requests: new Chart("Requests", ["all", "failed (5xx)"], perSecond),
  latency: new Chart("Time of a request", ["p99", "p50"], duration),
};
const CARDS = ["Requests", "Hit ratio", "To clients", "From the origin", "Fetches", "Failures", "Connections", "Disk", "Objects", "Saved at S3"];
const cards = new Map();
let originRate = null, before = null, stats = null, latency = {p50: null, p99: null};

export function begin(decisions) {
  byId("charts").replaceChildren(...Object.values(charts).map((chart) => chart.node));
  for (const title of CARDS) card(title, "–");
  byId("tail-cache").append(...decisions.map((name) => element("option", {value: name}, name)));
}

function card(title, value, note = "") {
  if (!cards.has(title)) {
    const shown = element("dd", {}), text = element("span", {}), small = element("small", {});
    shown.append(text, small);
    byId("cards").append(element("div", {}, element("dt", {}, title), shown));
    cards.set(title, [text, small]);
  }
  const [text, small] = cards.get(title);
  text.textContent = value;
  small.textContent = note;
}

export function showFigures(top) {
  const {figures, connections, cache} = top;
  card("Requests", perSecond(figures.requests.per_s), `${count(figures.requests.total)} since the start`);
  card("Hit ratio", percent(top.hit_ratio), `${percent(top.byte_hit_ratio)} of bytes`);
  card("To clients", rate(figures.sent_bytes.per_s), bytes(figures.sent_bytes.total));
  card("From the origin", originRate === null ? "–" : rate(originRate), stats === null ? "" : bytes(stats.summary.total.origin_bytes));
  card("Fetches", count(top.fetches_running), perSecond(figures.part_fetches.per_s));
  card("Failures", perSecond(figures.server_errors.per_s), `4xx ${perSecond(figures.client_errors.per_s)}`);
  card("Connections", count(connections.open), `of ${count(connections.limit)}`);
  card("Disk", bytes(cache.bytes_used), `${percent(cache.bytes_used / cache.bytes_limit)} of ${bytes(cache.bytes_limit)}`);
  card("Objects", count(cache.entries), `evicted ${perSecond(figures.evicted.per_s)}`);
  charts.ratio.add([top.hit_ratio, top.byte_hit_ratio]);
  charts.bytes.add([figures.sent_bytes.per_s, originRate]);
  charts.requests.add([figures.requests.per_s, figures.server_errors.per_s]);
  charts.latency.add([latency.p99, latency.p50]);
  if (!document.hidden) Object.values(charts).forEach((chart) => chart.draw());
}

export function showStats(found, now) {
  const total = found.summary.total;
  if (before !== null && now > before.at) {
    originRate = Math.max(0, total.origin_bytes - before.bytes) / (now - before.at);
  }
  before = {at: now, bytes: total.origin_bytes};
  stats = found;
  const {saved, money_spent: spent} = total;
  card("Saved at S3", `${count(saved.requests)} reads`, bytes(saved.bytes));
  if (saved.money !== null) {
    card("Money saved", money(saved.money, found.summary.currency), spent === null ? "" : `spent ${money(spent, found.summary.currency)}`);
  }
  showSizing(found.summary.sizing);
  showForecast(found.summary.forecast, found.summary.currency);
  showShadow(found.summary.shadow);
  const bus = found.summary.bus;
  if (bus !== null) {
    card("Bus", bus.failure === null ? "works" : "fails", `in step ${duration(bus.lag)} ago, ${count(bus.queued)} notices wait`);
  }
}

function showSizing(sizing) {
  if (sizing === null) return;
  byId("sizing").replaceChildren(table("What another cache.max_size would give", [
    ["Size", "", (one) => `${one.factor}× ${bytes(one.bytes)}`],
    ["Hit ratio", "number", (one) => percent(one.hit_ratio.requests)],
    ["of bytes", "number", (one) => percent(one.hit_ratio.bytes)],
  ], sizing.sizes));
}

function showForecast(forecast, currency) {
  if (forecast === null) return;
  byId("sizing").replaceChildren(table("What the cache would give with cache.mode: serve", [
    ["Size", "", (one) => `${one.factor}× ${bytes(one.bytes)}`],
    ["Hit ratio", "number", (one) => percent(one.hit_ratio.requests)],
    ["of bytes", "number", (one) => percent(one.hit_ratio.bytes)],
    ["Reads of S3", "number", (one) => count(one.origin_reads)],
    ["Bytes of S3", "number", (one) => bytes(one.origin_bytes)],
    ...(currency === null ? [] : [["Saves", "number", (one) => money(one.saved.money, currency)]]),
  ], forecast.sizes));
}

function showShadow(shadow) {
  if (shadow === null) return;
  byId("shadow").replaceChildren(
    table("The cache compared with S3", [
      ["Verdict", "", ([verdict]) => verdict],
      ["Responses", "number", ([, found]) => count(found)],
    ], Object.entries(shadow.verdicts)),
    table("What the cache would have served wrongly", [
      ["Object", "path", (one) => `${one.bucket}/${one.key}`],
      ["Verdict", "", (one) => one.verdict],
      ["What", "", (one) => one.text],
    ], shadow.differences),
  );
}

// `buckets` are the counts of requests up to each bound in seconds, since the last call.
export function showLatency(buckets) {
  latency = {p50: quantile(buckets, 0.5), p99: quantile(buckets, 0.99)};
}

function quantile(buckets, share) {
  const all = buckets.at(-1)?.[1] ?? 0;
  if (!all) return null;
  let [low, under] = [0, 0];
  for (const [bound, upTo] of buckets) {
    if (upTo >= share * all) {
      if (!Number.isFinite(bound)) return low;
      return low + ((bound - low) * (share * all - under)) / Math.max(1, upTo - under);
    }
    [low, under] = [bound, upTo];
  }
  return low;
}

export function showHottest(top) {
  const columns = [
    ["Path", "path", (one) => one.path],
    ["Requests", "number", (one) => perSecond(one.requests_per_s)],
    ["Bytes", "number", (one) => rate(one.bytes_per_s)],
  ];
  byId("hot-requests").replaceChildren(table("By requests", columns, top.hottest.by_requests));
  byId("hot-bytes").replaceChildren(table("By bytes", columns, top.hottest.by_bytes));
  byId("slowest").replaceChildren(table("Slowest", [
    ["Path", "path", (one) => `${one.method} ${one.path}`],
    ["Status", "number", (one) => String(one.status)],
    ["Time", "number", (one) => duration(one.ms / 1000)],
  ], top.slowest));
}
