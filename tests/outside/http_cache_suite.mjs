// Runs the HTTP cache test suite (npm's http-cache-tests) against a cache of S3.
//
// argv: the folder of the installed package, and the bucket. It prints {"origin": PORT} once its S3 server listens.
// A line on stdin is {"cache": URL, "leave": [PATTERN, …], "only": [ID, …] or null}. It then runs the named tests, or
// all that have a verdict and whose id no pattern matches, prints {"tests": […]}, and ends. With TRACE=1 in the
// environment it shows their messages on stderr. It ends with its stdin, too.
import http from "node:http";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { META, startShim } from "./s3_shim.mjs";

const [folder, bucket] = process.argv.slice(2);
const load = (name) => import(pathToFileURL(path.join(folder, name)));
const fetch = createRequire(path.join(folder, "package.json"))("node-fetch");
const out = console.log;
console.log = () => {}; // the suite's server warns on stdout

const suitePort = await startSuite();
const numbers = new Map(); // the path of a test's object -> the fields by which the suite's server knows the request
const origin = await startShim({ bucket, suitePort, suiteFields: (path) => numbers.get(path) ?? {} });
out(JSON.stringify({ origin }));
const lines = createInterface({ input: process.stdin });
const { value: order, done } = await lines[Symbol.asyncIterator]().next();
if (done) process.exit(1);
process.stdin.on("end", () => process.exit(1));
await run(JSON.parse(order));
process.exit(0);

/** Start the suite's own server, which would listen on every address. */
async function startSuite() {
  const listen = http.Server.prototype.listen;
  let server;
  http.Server.prototype.listen = function listenOnLoopback() {
    server = this;
    return listen.call(this, 0, "127.0.0.1");
  };
  Object.assign(process.env, { npm_config_protocol: "http", npm_config_port: "80", npm_config_pidfile: "/dev/null" });
  await load("server/server.mjs");
  http.Server.prototype.listen = listen;
  if (!server.listening) await new Promise((resolve) => server.once("listening", resolve));
  return server.address().port;
}

async function run({ cache, leave, only }) {
  const { makeCacheTest, testResults } = await load("client/test.mjs");
  (await load("client/config.mjs")).setFetch((url, init) => request(cache, url, init));
  const suites = (await load("tests/index.mjs")).default;
  const all = suites
    .flatMap((suite) => suite.tests.map((test) => ({ kind: "required", ...test, suite: suite.id, dump: Boolean(process.env.TRACE) })))
    .filter((test) => !test.browser_only);
  const isRun = ({ id, kind }) =>
    only ? only.includes(id) : kind !== "check" && !leave.some((pattern) => new RegExp(`^(?:${pattern})$`).test(id));
  if (process.env.TRACE) console.log = console.error;
  const chosen = all.filter(isRun);
  // A cache may spare an origin that fails, so the tests in which it does follow the others, one by one.
  await Promise.all(chosen.filter((test) => !originFails(test)).map(makeCacheTest));
  for (const test of chosen.filter(originFails)) await makeCacheTest(test);
  const tests = all.map(({ id, name, kind, suite }) => ({
    id, name, kind, suite,
    is_run: id in testResults,
    failure: (testResults[id] ?? true) === true ? null : testResults[id].join(": "),
  }));
  await new Promise((resolve) => process.stdout.write(`${JSON.stringify({ tests })}\n`, resolve));
}

function originFails(test) {
  return test.requests.some(({ disconnect, response_status: status = [200] }) => disconnect || status[0] >= 500);
}

/** Send a test's request to the cache, and the suite's own messages straight to its server. */
async function request(base, url, init) {
  if (!url.startsWith("/test/")) return fetch(`http://127.0.0.1:${suitePort}${url}`, init);
  const field = (name) => init.headers.find((header) => header[0] === name)[1];
  numbers.set(url.split("?")[0], { "req-num": field("Req-Num"), "test-id": field("Test-ID") });
  const response = await fetch(base + url, { redirect: "manual", ...init });
  if (["PUT", "DELETE"].includes(init.method) && response.ok) return new fetch.Response(url.split("/")[2]);
  for (const [name, value] of [...response.headers]) {
    const own = name.startsWith(META) ? name.slice(META.length) : undefined;
    if (own !== undefined && !response.headers.has(own)) response.headers.set(own, value);
  }
  return response;
}
