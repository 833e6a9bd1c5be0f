// Curves over the last minutes, and maps of blocks.

import {drawn, element} from "./page.js";

const POINTS = 300; // seconds
const WIDTH = 600, HEIGHT = 120;

export class Chart {
  // `names` are those of one or two curves. `shown` formats a value. `most` is the top of the scale, null for the data's.
  constructor(title, names, shown, most = null) {
    this.title = title;
    this.names = names;
    this.shown = shown;
    this.most = most;
    this.points = names.map(() => []);
    this.keys = names.map((name) => element("span", {class: "key"}, name));
    this.curves = names.map(() => drawn("path", {class: "curve"}));
    this.top = element("span", {}, "");
    const grid = [0.5, HEIGHT / 2, HEIGHT - 0.5].map((y) => drawn("line", {class: "grid", x1: 0, x2: WIDTH, y1: y, y2: y}));
    this.picture = drawn("svg", {viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img"}, ...this.curves, ...grid);
    this.node = element("figure", {}, element("figcaption", {}, element("strong", {}, title), ...this.keys),
      element("div", {class: "scale"}, this.top, element("span", {}, "last 5 min")), this.picture);
  }

  add(values) {
    values.forEach((value, index) => {
      this.points[index].push(value);
      if (this.points[index].length > POINTS) this.points[index].shift();
    });
  }

  draw() {
    const known = this.points.flat().filter((value) => value !== null);
    const most = this.most ?? Math.max(1e-9, ...known) * 1.05;
    this.top.textContent = known.length ? this.shown(this.most ?? Math.max(...known)) : "";
    this.points.forEach((points, index) => {
      let path = "", isDown = false;
      points.forEach((value, at) => {
        if (value === null) {
          isDown = false;
          return;
        }
        const x = WIDTH * (1 - (points.length - 1 - at) / (POINTS - 1)), y = HEIGHT * (1 - Math.min(1, value / most));
        path += `${isDown ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`;
        isDown = true;
      });
      this.curves[index].setAttribute("d", path);
      const last = points.at(-1);
      this.keys[index].textContent = `${this.names[index]} ${last === null || last === undefined ? "–" : this.shown(last)}`;
    });
    this.picture.setAttribute("aria-label", `${this.title}, now: ${this.keys.map((key) => key.textContent).join(", ")}`);
  }
}

// `runs` are [first block, one past the last]. `parts` are {start, stop} and `readers` {offset}, in bytes.
export function blockMap({size, blockSize, runs, parts = [], readers = []}) {
  const all = Math.max(1, size);
  const at = (byte) => ((1000 * Math.min(byte, all)) / all).toFixed(2);
  const span = (kind, start, stop) => drawn("rect", {class: kind, x: at(start), y: 0, height: 10, width: Math.max(0.5, at(stop) - at(start))});
  const marks = [
    ...parts.map((part) => span("running", part.start, part.stop)),
    ...runs.map(([first, past]) => span("present", first * blockSize, Math.min(size, past * blockSize))),
    ...readers.map(({offset}) => drawn("line", {class: "reader", x1: at(offset), x2: at(offset), y1: 0, y2: 10})),
  ];
  const there = runs.reduce((sum, [first, past]) => sum + Math.min(size, past * blockSize) - first * blockSize, 0);
  const label = `${Math.floor((100 * there) / all)} % of the object is here, in ${runs.length} pieces`;
  return drawn("svg", {class: "map", viewBox: "0 0 1000 10", preserveAspectRatio: "none", role: "img", "aria-label": label}, ...marks);
}
