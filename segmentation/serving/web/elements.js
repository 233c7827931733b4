// What the page and its map share: elements whose texts stay texts, figures as people read them.

const SVG = "http://www.w3.org/2000/svg";
const DIGITS = { maximumFractionDigits: 2, maximumSignificantDigits: 3 };
const numbers = new Intl.NumberFormat("en", { ...DIGITS, roundingPriority: "morePrecision" });
const TENTHS = { minimumFractionDigits: 1, maximumFractionDigits: 1 };
const shares = new Intl.NumberFormat("en", { style: "percent", ...TENTHS });

export const find = id => document.getElementById(id);

function fill(element, attributes, content) {
  Object.entries(attributes).forEach(([key, value]) => element.setAttribute(key, value));
  element.append(...content);
  return element;
}

export function make(tag, attributes = {}, ...content) {
  return fill(document.createElement(tag), attributes, content);
}

export function draw(tag, attributes = {}, ...content) {
  return fill(document.createElementNS(SVG, tag), attributes, content);
}

// A text of the data: it neither turns the sentence around it nor is it turned.
export function name(text) {
  return make("bdi", {}, text);
}

export function quote(text) {
  return make("span", {}, "“", name(text), "”");
}

export function mark({ outline, colour }) {
  const frame = { class: "mark", viewBox: "-8 -8 16 16", "aria-hidden": "true" };
  return draw("svg", frame, draw("path", { d: outline, fill: colour }));
}

export function dye(element, colour) {
  element.style.setProperty("--segment", colour);
  return element;
}

export function bar(part, colour) {
  const inner = make("span");
  inner.style.width = `${(100 * part).toFixed(1)}%`;
  return dye(make("span", { class: "share", "aria-hidden": "true" }, inner), colour);
}

// Where between the border to the next segment (50 %) and its own centre (100 %) a customer lies.
export function track(confidence, colour) {
  const dot = make("span");
  const value = Math.max(confidence, 0.5);
  dot.style.left = `${(200 * value - 100).toFixed(1)}%`;
  const range = { "aria-valuemin": 0.5, "aria-valuemax": 1, "aria-valuenow": value.toFixed(2) };
  return dye(make("span",
    { class: "sureness", role: "meter", "aria-label": "Confidence", ...range }, dot), colour);
}

export function button(text, action, attributes = {}) {
  const made = make("button", { type: "button", ...attributes }, text);
  made.onclick = action;
  return made;
}

export function listFigures(pairs) {
  return make("dl", { class: "telling" }, ...pairs.map(([term, ...values]) =>
    make("div", {}, make("dt", {}, name(term)), make("dd", {}, ...values))));
}

export function listAction({ roles, actions }) {
  if (!actions?.length) return [];
  const role = roles?.length ? [make("span", { class: "role" }, roles.join(", ")), " "] : [];
  return [make("p", { class: "action", dir: "auto" }, ...role, actions[0])];
}

// A live region speaks when its text is set, so it is set only where it differs.
export function rewrite(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// Why the service has no answer, from what it says with a 503; nothing where it is not there.
export function excuse(content) {
  if (!content) return "The service does not answer.";
  const parts = [content.reason, content.mend].filter(Boolean);
  const sentences = parts.map(part => ` ${part[0].toUpperCase()}${part.slice(1)}.`);
  return `There is no model to answer with.${sentences.join("")}`;
}

export const write = value => numbers.format(value);

export const share = value => shares.format(value);

export function count(amount, noun = "customer") {
  return `${numbers.format(amount)} ${noun}${amount === 1 ? "" : "s"}`;
}

export function title({ label, unit }) {
  const held = label.toLowerCase().split(" ").includes((unit ?? "").toLowerCase());
  return unit && !held ? `${label} (${unit})` : label;
}

// Decimals that a computed figure has: two digits of its spread, of which a range has about four.
export function decimals({ range: [low, high] = [0, 1] }) {
  const digits = 2 - Math.floor(Math.log10((high - low) / 4 || 1));
  return Math.min(Math.max(digits, 0), 6);
}

export function measure(value, feature) {
  const places = decimals(feature);
  const options = { minimumFractionDigits: places, maximumFractionDigits: places };
  return unite(new Intl.NumberFormat("en", options).format(value), feature);
}

export function unite(text, { unit }) {
  return unit ? `${text}\u00a0${unit}` : text;
}

export function span([low, high], feature) {
  return unite(`${write(low)} to ${write(high)}`, feature);
}
