// Numbers and times for people, and how something comes into the page: as text, never as markup.

const byId = (id) => document.getElementById(id);

function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function draw(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes ?? {})) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Changes a text only where it is another one, so that nothing flickers and a selection stays. */
function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** A text in which `commands` stand in backticks, in parts. */
function withCode(text) {
  return text.split("`").map((part, at) => (at % 2 === 1 ? make("code", {}, part) : part));
}

/** The same as `say` for such a text. */
function sayWithCode(element, text) {
  if (element.dataset.text === text) return;
  element.dataset.text = text;
  element.replaceChildren(...withCode(text));
}

const NOTHING = "–";

function count(number) {
  return !Number.isFinite(number) ? NOTHING : number.toLocaleString("en-US", { maximumFractionDigits: 0 });
}

/** `1 key`, `1,200 keys`. */
function counted(number, what) {
  return `${count(number)} ${what}${number === 1 ? "" : "s"}`;
}

function rate(number) {
  if (!Number.isFinite(number)) return NOTHING;
  return number.toLocaleString("en-US", { maximumFractionDigits: number > 0 && number < 10 ? 1 : 0 });
}

function percent(number) {
  return Number.isFinite(number) ? `${number.toFixed(1)} %` : NOTHING;
}

function size(bytes) {
  if (!Number.isFinite(bytes)) return NOTHING;
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let unit = 0;
  while (bytes >= 1024 && unit < units.length - 1) [bytes, unit] = [bytes / 1024, unit + 1];
  return `${unit === 0 ? bytes : bytes.toFixed(1)} ${units[unit]}`;
}

/** A span of time: the two largest units of it. */
function span(milliseconds) {
  if (!Number.isFinite(milliseconds)) return NOTHING;
  const seconds = Math.ceil(milliseconds / 1000);
  const parts = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const at = Math.max(0, parts.findIndex(([, length]) => seconds >= length));
  if (seconds === 0) return "0 s";
  const [unit, length] = parts[at];
  const next = parts[at + 1];
  const rest = next ? Math.floor((seconds % length) / next[1]) : 0;
  return `${Math.floor(seconds / length)} ${unit}${rest > 0 ? ` ${rest} ${next[0]}` : ""}`;
}

/** How long ago, without more than matters. */
function ago(milliseconds) {
  return Number.isFinite(milliseconds) ? span(milliseconds).split(" ").slice(0, 2).join(" ") : NOTHING;
}

/** A short time, in microseconds. */
function short(microseconds) {
  if (!Number.isFinite(microseconds)) return NOTHING;
  if (microseconds < 1000) return `${Math.round(microseconds)} µs`;
  if (microseconds < 1e6) return `${(microseconds / 1000).toFixed(microseconds < 10000 ? 1 : 0)} ms`;
  return `${(microseconds / 1e6).toFixed(1)} s`;
}

/** By how much a clock is ahead, or behind. */
function offset(milliseconds) {
  if (!Number.isFinite(milliseconds)) return NOTHING;
  const size = Math.abs(milliseconds), sign = milliseconds > 0 ? "+" : milliseconds < 0 ? "−" : "";
  return `${sign}${size < 1000 ? `${size} ms` : ago(Math.round(size / 1000) * 1000)}`;
}

/** The time of day in UTC, as in the logs. */
function clock(milliseconds) {
  const time = new Date(milliseconds);
  return Number.isFinite(time.getTime()) ? time.toISOString().slice(11, 19) : NOTHING;
}

const inOrder = new Intl.Collator("en", { numeric: true }).compare;
