// Objects that are being fetched, with maps of their blocks.

import {blockMap} from "./chart.js";
import {bytes, duration} from "./format.js";
import {byId, element} from "./page.js";

export function nameOf({paths, bucket, key}) {
  return paths[0] ?? `${bucket}/${key}`;
}

export function mapOf({size, block_size: blockSize, runs, parts = [], readers = []}) {
  return blockMap({size, blockSize, runs, parts, readers});
}

export function fillText(fill) {
  const left = fill.seconds_left === null ? "" : `, ${duration(fill.seconds_left)} left`;
  return `${fill.percent} % of ${bytes(fill.size)} at ${bytes(fill.rate)}/s${left}; ${fill.part_count} part fetches, ${fill.reader_count} readers`;
}

export function showFills({fills}) {
  const shown = fills.map((fill) => element("div", {}, element("h3", {class: "mono"}, nameOf(fill)), mapOf(fill), element("p", {class: "faint"}, fillText(fill))));
  byId("fill-list").replaceChildren(...(shown.length ? shown : [element("p", {class: "faint"}, "None.")]));
}
