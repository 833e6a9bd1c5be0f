// An S3 server whose objects are the responses of the HTTP cache test suite's server.
//
// The suite configures each response, and S3 cannot send every one. The shim keeps to what S3 does:
// - The first request for BUCKET/KEY during one request of the suite's client goes to the suite's server as /KEY. Its
//   response is the object from then on, so a cache may send further ones: a HEAD, another range, a retry.
// - Every object has ETag and Last-Modified. A response without them is a version of its own, with an ETag made of its
//   body and fields. A request that names that ETag in If-None-Match goes to the suite's server with the version's
//   Last-Modified, if the suite gave one, in If-Modified-Since.
// - A 304 with other fields means that the object was copied onto itself: its Last-Modified changes, not its ETag.
// - Fields that an S3 object cannot have are its user metadata, x-amz-meta-NAME.
// - The shim cuts ranges itself. An error has a body of S3's. A write is answered with an ETag or a 204, without a body.
import { createHash } from "node:crypto";
import http from "node:http";

export const META = "x-amz-meta-";

// Fields that S3 sends with an object, those of the connection, and Age, which a cache in front of S3 adds.
const OF_S3 = new Set([
  "accept-ranges", "age", "cache-control", "connection", "content-disposition", "content-encoding", "content-language",
  "content-length", "content-range", "content-type", "date", "etag", "expires", "keep-alive", "last-modified",
  "transfer-encoding",
]);
// Fields that describe the connection or one response, so the object does not have them.
const OF_NODE = /^(connection: (keep-alive|close)|keep-alive: timeout=.*|transfer-encoding: chunked)$/i;
const OF_ONE_RESPONSE = new Set([
  "age", "capability-seen", "client-request-count", "connection", "date", "keep-alive", "request-numbers",
  "server-base-url", "server-now", "server-request-count",
]);
// A 304 never changes these (RFC 9111 section 3.2): they belong to the bytes.
const OF_THE_BYTES = new Set(["content-encoding", "content-length", "content-md5", "content-range", "etag"]);
const ERRORS = { 403: "AccessDenied", 404: "NoSuchKey", 412: "PreconditionFailed", 503: "SlowDown" };

/** Start the shim on loopback and return its port. `suiteFields(path)` returns the fields that number a request. */
export async function startShim({ bucket, suitePort, suiteFields }) {
  const objects = new Map(); // path -> the newest object there
  const made = new Map(); // a made ETag -> the Last-Modified that the suite gave that version, or undefined
  const server = http.createServer((request, response) => {
    const body = [];
    request.on("data", (piece) => body.push(piece));
    request.on("end", () => respond(request, Buffer.concat(body), response).catch(() => request.socket.destroy()));
  });

  async function respond(request, body, response) {
    const path = request.url.slice(bucket.length + 1).split("?")[0];
    if (!request.url.startsWith(`/${bucket}/test/`)) return send(request, response, error(404));
    const number = suiteFields(path)["req-num"];
    const known = objects.get(path);
    const isRead = ["GET", "HEAD"].includes(request.method);
    if (isRead && known?.number === number && (known.hasBody || request.method === "HEAD")) {
      return send(request, response, conditional(request, known));
    }
    const answer = await ask(suitePort, request.method, request.url.slice(bucket.length + 1), fieldsFor(request, path), body);
    if (isRead) {
      const object = read(request, answer, known);
      objects.set(path, { ...object, number, hasBody: request.method === "GET" });
      return send(request, response, answer?.status === 304 ? notModified(answer, object) : conditional(request, object));
    }
    if (answer === undefined || answer.status >= 400) return send(request, response, answer && error(answer.status));
    objects.set(path, { ...written(request, body), number, hasBody: true });
    return send(request, response, request.method === "DELETE"
      ? { status: 204, fields: [], body: "" }
      : { status: 200, fields: [["ETag", etagOf(body)]], body: "" });
  }

  function fieldsFor(request, path) {
    const fields = { ...request.headers, ...suiteFields(path) };
    for (const name of Object.keys(fields)) {
      if (name.startsWith("x-amz-") || ["authorization", "range", "if-match", "expect"].includes(name)) delete fields[name];
    }
    if (made.has(fields["if-none-match"])) {
      const lastModified = made.get(fields["if-none-match"]);
      delete fields["if-none-match"];
      if (lastModified !== undefined) fields["if-modified-since"] = lastModified;
    }
    return fields;
  }

  /** Return the object after the suite's response to a read. */
  function read(request, answer, known) {
    if (answer === undefined) return { status: undefined };
    if (answer.status === 304 && known !== undefined) return updated(known, answer.fields);
    if (answer.status >= 400) return error(answer.status, answer.fields);
    const { status, body } = answer;
    const fields = answer.fields.filter(([name, value]) => !OF_NODE.test(`${name}: ${value}`));
    const lastModified = find(fields, "last-modified");
    if (find(fields, "etag") === undefined) {
      // That of a multipart upload, which is no MD5 of the bytes.
      const etag = etagOf(body, JSON.stringify(fields)).replace(/"$/, '-1"');
      made.set(etag, lastModified);
      fields.push(["ETag", etag]);
    }
    if (lastModified === undefined) fields.push(["Last-Modified", new Date().toUTCString()]);
    return { status, fields, body };
  }

  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return server.address().port;
}

function written(request, body) {
  if (request.method === "DELETE") return error(404);
  const type = request.headers["content-type"] ?? "binary/octet-stream";
  const fields = [["Content-Type", type], ["ETag", etagOf(body)], ["Last-Modified", new Date().toUTCString()]];
  return { status: 200, fields, body };
}

function updated(object, changes) {
  const given = new Map();
  for (const [name, value] of changes) {
    const lower = name.toLowerCase();
    if (!OF_ONE_RESPONSE.has(lower) && !OF_THE_BYTES.has(lower)) given.set(lower, [...(given.get(lower) ?? []), value]);
  }
  const isChanged = [...given].some(([name, values]) => values.join() !== findAll(object.fields, name).join());
  if (isChanged && !given.has("last-modified")) given.set("last-modified", [new Date().toUTCString()]);
  const kept = object.fields.filter(([name]) => !given.has(name.toLowerCase()));
  return { ...object, fields: [...kept, ...[...given].flatMap(([name, values]) => values.map((value) => [name, value]))] };
}

function notModified(answer, object) {
  const fields = answer.fields.filter(([name, value]) => !OF_NODE.test(`${name}: ${value}`));
  for (const name of ["ETag", "Last-Modified"]) {
    if (find(fields, name.toLowerCase()) === undefined) fields.push([name, find(object.fields, name.toLowerCase())]);
  }
  return { status: 304, fields, body: "" };
}

/** Return the response of S3 to a GET or HEAD with these conditions and this range. */
function conditional(request, object) {
  const { status, fields, body } = object;
  if (status !== 200) return object;
  const etag = find(fields, "etag");
  const wanted = request.headers["if-match"];
  if (wanted !== undefined && wanted !== "*" && wanted !== etag) return error(412);
  if (request.headers["if-none-match"] === etag) return { status: 304, fields, body: "" };
  const range = /^bytes=(\d*)-(\d*)$/.exec(request.headers.range ?? "");
  if (range === null || request.method === "HEAD") return object;
  const size = body.length;
  const [start, stop] = range[1] === ""
    ? [Math.max(0, size - range[2]), size]
    : [+range[1], range[2] === "" ? size : Math.min(size, +range[2] + 1)];
  if (start >= stop) return error(416, [["Content-Range", `bytes */${size}`]]);
  const kept = fields.filter(([name]) => !["content-length", "content-range"].includes(name.toLowerCase()));
  const own = [["Content-Range", `bytes ${start}-${stop - 1}/${size}`], ["Content-Length", stop - start]];
  return { status: 206, fields: [...kept, ...own], body: body.subarray(start, stop) };
}

function error(status, fields = []) {
  const code = ERRORS[status] ?? (status >= 500 ? "InternalError" : "InvalidRequest");
  const body = `<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>${code}</Code><Message>-</Message></Error>`;
  const kept = fields.filter(([name]) => !["content-type", "content-length", "etag"].includes(name.toLowerCase()));
  return { status, fields: [...kept, ["Content-Type", "application/xml"], ["Content-Length", body.length]], body };
}

/** Send a response; without one, or without a status, cut the connection. */
function send(request, response, { status, fields, body } = {}) {
  if (status === undefined) return request.socket.destroy();
  const grouped = new Map();
  const nameOf = (name) => (OF_S3.has(name.toLowerCase()) ? name.toLowerCase() : META + name.toLowerCase());
  for (const [name, value] of fields) {
    if (OF_NODE.test(`${name}: ${value}`)) continue;
    const sent = name.toLowerCase() === "connection" ? value.split(/\s*,\s*/).map(nameOf).join(", ") : String(value);
    grouped.set(nameOf(name), [...(grouped.get(nameOf(name)) ?? []), sent]);
  }
  response.sendDate = !grouped.has("date");
  for (const [name, values] of grouped) response.setHeader(name, values.length > 1 ? values : values[0]);
  response.writeHead(status);
  response.end(request.method === "HEAD" || status === 304 ? "" : body);
}

/** Return status, fields and body of the suite's server, or undefined if it cut the connection. */
function ask(port, method, path, headers, body) {
  return new Promise((resolve) => {
    const pieces = [];
    let response;
    const finish = () => {
      const raw = response?.rawHeaders;
      if (!response?.complete) return resolve(undefined);
      const fields = raw.flatMap((name, at) => (at % 2 ? [] : [[name, raw[at + 1]]]));
      return resolve({ status: response.statusCode, fields, body: Buffer.concat(pieces) });
    };
    const request = http.request({ host: "127.0.0.1", port, method, path, headers, agent: false }, (started) => {
      response = started;
      response.on("data", (piece) => pieces.push(piece));
      response.on("end", finish);
      response.on("error", finish);
    });
    // One test sends more bytes than its Content-Length says, which is an error of the connection alone.
    request.on("error", () => response?.complete || finish());
    request.end(body);
  });
}

function find(fields, wanted) {
  return findAll(fields, wanted)[0];
}

function findAll(fields, wanted) {
  return fields.filter(([name]) => name.toLowerCase() === wanted).map(([, value]) => value);
}

function etagOf(...parts) {
  const hash = createHash("md5");
  for (const part of parts) hash.update(part);
  return `"${hash.digest("hex")}"`;
}
