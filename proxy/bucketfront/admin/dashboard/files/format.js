// Numbers as people read them.

const SIZES = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

export function bytes(count) {
  let unit = 0, value = Math.abs(count);
  while (value >= 1024 && unit < SIZES.length - 1) {
    value /= 1024;
    unit += 1;
  }
  const text = unit === 0 || value >= 100 ? Math.round(value).toString() : value.toPrecision(3);
  return `${count < 0 ? "−" : ""}${text} ${SIZES[unit]}`;
}

export function count(value) {
  if (value !== 0 && Math.abs(value) < 10) return (Math.round(value * 10) / 10).toLocaleString("en");
  return Math.round(value).toLocaleString("en");
}

export function percent(share) {
  return share === null || share === undefined ? "–" : `${(100 * share).toFixed(share > 0.9 && share < 1 ? 1 : 0)} %`;
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const value = Math.abs(seconds), sign = seconds < 0 ? "−" : "";
  if (value < 0.001) return `${sign}${(value * 1e6).toFixed(0)} µs`;
  if (value < 1) return `${sign}${(value * 1000).toFixed(value < 0.1 ? 1 : 0)} ms`;
  if (value < 100) return `${sign}${value.toFixed(value < 10 ? 1 : 0)} s`;
  if (value < 6000) return `${sign}${Math.round(value / 60)} min`;
  if (value < 172800) return `${sign}${Math.round(value / 3600)} h`;
  return `${sign}${Math.round(value / 86400)} d`;
}

export function time(epoch) {
  return new Date(epoch * 1000).toISOString().replace("T", " ").slice(0, 19);
}

export function money(amount, currency) {
  if (amount === null || amount === undefined) return "–";
  const digits = Math.abs(amount) < 1 ? 4 : 2;
  return `${amount.toFixed(digits)} ${currency}`;
}
