// Puts the page together: the token, the stream of figures, and what is asked for now and then.

import * as actions from "./actions.js";
import {Refused, events, get, setToken} from "./api.js";
import * as configuration from "./configuration.js";
import * as entries from "./entries.js";
import * as explain from "./explain.js";
import {showFills} from "./fills.js";
import * as latency from "./latency.js";
import * as overview from "./overview.js";
import {byId, isSeen} from "./page.js";
import * as requests from "./requests.js";

const RECONNECT_MS = 2000;
const STATS_EVERY = 2, FILLS_EVERY = 1, JOBS_EVERY = 2, LATENCY_EVERY = 5; // figures, of which one comes a second
const DECISIONS = ["hit", "miss", "partial", "stale", "bypass", "observe", "shadow", "method", "request", "uri-miss", "vary-miss"];
const THEME = "bucketfront-theme";

let ticks = 0, mode = "serve";

function state(text, isBad = false) {
  byId("state").textContent = text;
  byId("state").className = isBad ? "bad" : "good";
}

function needToken(why) {
  byId("main").hidden = true;
  byId("login").hidden = false;
  if (why) byId("login-why").textContent = why;
  byId("token").focus();
  state("a token is needed", true);
}

// What fails once is asked for again with the next figures. Only a refused token ends the page.
async function quietly(work) {
  try {
    await work();
  } catch (error) {
    if (error instanceof Refused && error.status === 401) throw error;
  }
}

async function showStats() {
  const found = await get("/api/v1/stats");
  byId("version").textContent = found.version;
  mode = found.summary.mode;
  overview.showStats(found, performance.now() / 1000);
}

function onFigures(top) {
  ticks += 1;
  overview.showFigures(top);
  if (isSeen("hottest")) overview.showHottest(top);
  if (ticks % FILLS_EVERY === 0 && isSeen("fills")) quietly(async () => showFills(await get("/api/v1/fills", {limit: 20})));
  if (ticks % JOBS_EVERY === 0 && isSeen("warm")) quietly(actions.showJobs);
  if (ticks % STATS_EVERY === 0) quietly(showStats);
  if (ticks % LATENCY_EVERY === 0) quietly(async () => overview.showLatency(await latency.sinceLast()));
  const states = top.degraded.length ? [`degraded: ${top.degraded.join(", ")}`] : ["serving"];
  if (mode !== "serve") states.push(`cache.mode is ${mode}: S3 serves each read`);
  state(states.join("; "), top.degraded.length > 0 || mode !== "serve");
}

async function follow() {
  for (;;) {
    try {
      await showStats();
      if (byId("main").hidden) {
        byId("login").hidden = true;
        byId("main").hidden = false;
        if (document.activeElement !== document.body) byId("overview").focus();
      }
      await configuration.load();
      await events({kinds: "figures"}, (kind, data) => kind === "figures" && onFigures(data), undefined);
      state("the proxy ended the stream", true);
    } catch (error) {
      if (error instanceof Refused && error.status === 401) return needToken("That token is not the one.");
      state(error instanceof Refused ? error.message : "no connection", true);
    }
    await new Promise((resolve) => setTimeout(resolve, RECONNECT_MS));
  }
}

function setTheme(name) {
  document.documentElement.dataset.theme = name;
  byId("theme").textContent = name === "dark" ? "Light" : "Dark";
  localStorage.setItem(THEME, name);
}

function begin() {
  overview.begin(DECISIONS);
  for (const part of [requests, explain, entries, actions, configuration]) part.begin();
  const isDark = matchMedia("(prefers-color-scheme: dark)").matches;
  setTheme(localStorage.getItem(THEME) ?? (isDark ? "dark" : "light"));
  byId("theme").addEventListener("click", () => setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
  byId("login").addEventListener("submit", (submitted) => {
    submitted.preventDefault();
    setToken(byId("token").value);
    follow();
  });
}

async function start() {
  begin();
  try {
    await get("/api/v1/top");
  } catch (error) {
    if (error instanceof Refused && error.status === 401) return needToken("");
  }
  return follow();
}

start();
