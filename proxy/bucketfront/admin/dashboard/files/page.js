// Elements of the page. Text is never parsed as HTML, because keys of objects are anybody's.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== null) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

export function drawn(name, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// `columns` are [title, kind, value of a row]; the kind is a class of its cells.
export function table(caption, columns, rows, empty = "None.") {
  if (!rows.length) return element("p", {class: "faint"}, caption ? `${caption}: ${empty.toLowerCase()}` : empty);
  const head = columns.map(([title, kind]) => element("th", {scope: "col", class: kind}, title));
  const body = rows.map((row) => element("tr", {}, ...columns.map(([, kind, value]) => element("td", {class: kind}, value(row)))));
  return element("table", {}, caption ? element("caption", {}, caption) : null,
    element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...body));
}

export function facts(pairs) {
  const shown = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return element("dl", {class: "facts"}, ...shown.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
}

export function lines(text) {
  return text.split("\n").map((line) => line.trim()).filter((line) => line !== "");
}

export function isSeen(id) {
  const box = byId(id).getBoundingClientRect();
  return !document.hidden && box.bottom > 0 && box.top < innerHeight;
}
