// Requests to the admin port, with the token of this tab.

const TOKEN = "bucketfront-token";

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export function setToken(token) {
  sessionStorage.setItem(TOKEN, token);
}

function fields(more) {
  const token = sessionStorage.getItem(TOKEN);
  return token === null ? more : {...more, Authorization: `Bearer ${token}`};
}

async function checked(response) {
  if (response.ok) return response;
  const text = await response.text();
  let message = text.slice(0, 500);
  try {
    message = JSON.parse(text).error ?? message;
  } catch {
    // A server in front may respond with a page of its own.
  }
  throw new Refused(response.status, message);
}

export async function get(path, query = {}) {
  const wanted = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== "" && value !== null));
  const url = wanted.size ? `${path}?${wanted}` : path;
  return (await checked(await fetch(url, {headers: fields({}), cache: "no-store"}))).json();
}

export async function getText(path) {
  return (await checked(await fetch(path, {headers: fields({}), cache: "no-store"}))).text();
}

export async function post(path, body) {
  const headers = fields({"Content-Type": "application/json"});
  return (await checked(await fetch(path, {method: "POST", headers, body: JSON.stringify(body)}))).json();
}

// Reads server-sent events until `signal` aborts or the stream ends. EventSource cannot send a token.
export async function events(query, onEvent, signal) {
  const wanted = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== ""));
  const response = await checked(await fetch(`/api/v1/events?${wanted}`, {headers: fields({}), signal, cache: "no-store"}));
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const {value, done} = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      let kind = "message", data = "";
      for (const line of block.split("\n")) {
        if (line.startsWith("event: ")) kind = line.slice(7);
        else if (line.startsWith("data: ")) data += line.slice(6);
      }
      if (data !== "") onEvent(kind, JSON.parse(data));
    }
  }
}
