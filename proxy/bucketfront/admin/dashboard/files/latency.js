// The durations of requests since the last call, from the histogram of the metrics.

import {getText} from "./api.js";

const SERIES = /^bucketfront_request_seconds_bucket\{cache="[^"]*",le="([^"]*)"\} (\S+)/;

let before = new Map();

export async function sinceLast() {
  const now = new Map();
  for (const line of (await getText("/metrics")).split("\n")) {
    const found = SERIES.exec(line);
    if (found === null) continue;
    const bound = found[1] === "+Inf" ? Infinity : Number(found[1]);
    now.set(bound, (now.get(bound) ?? 0) + Number(found[2]));
  }
  const grown = [...now].map(([bound, upTo]) => [bound, upTo - (before.get(bound) ?? 0)]);
  before = now;
  return grown.sort(([one], [other]) => one - other);
}
