// One customer: a form that is scored as one types, and the answer in words.
import {
  decimals, excuse, find, listAction, listFigures, make, mark, measure, name, quote, rewrite,
  span, title, track, unite, write,
} from "./elements.js";

const PAUSE = 200; // milliseconds without a keystroke before a customer is scored
const EMPTY = { refuse: "; never empty", drop: "; if empty, there is no answer" };

// The medians and the first levels, as `describe_typical` of the service has them, but rounded.
export function listTypical({ features, descriptors }) {
  const figures = features.map(({ column, typical, ...feature }) =>
    [column, Number(typical.toFixed(decimals(feature)))]);
  const levels = listLevels(descriptors).map(({ column, levels: [first] }) => [column, first]);
  return Object.fromEntries([...figures, ...levels]);
}

function listLevels(descriptors) {
  return descriptors.filter(({ levels }) => levels.length);
}

export function startForm(model, segments, place) {
  const { features, descriptors } = model;
  const [fields, lead, reasons] = ["fields", "lead", "reasons"].map(find);
  let asked = null;
  let pause = 0;

  // The form --------------------------------------------------------------------------------

  function makeInput({ limits: [low] }) {
    const keys = low < 0 ? "text" : "decimal"; // a phone's decimal keys may have no minus
    return make("input", { inputmode: keys, autocomplete: "off", spellcheck: "false" });
  }

  function makeChoice({ levels }) {
    return make("select", {}, ...levels.map(level =>
      make("option", { value: JSON.stringify(level) }, level ?? "not known")));
  }

  function hint({ range: [low, high], missing }) {
    return `${write(low)} to ${write(high)} in the data${EMPTY[missing] ?? ""}`;
  }

  function makeField(column, text, input, help) {
    const id = `field-${fields.childElementCount}`;
    const known = { id, name: column, "aria-describedby": `${id}-hint ${id}-fault` };
    Object.entries(known).forEach(([key, value]) => input.setAttribute(key, value));
    return make("div", { class: "field" },
      make("label", { for: id, dir: "auto" }, text),
      input,
      make("p", { class: "hint", id: `${id}-hint` }, help),
      make("p", { class: "fault", id: `${id}-fault`, role: "alert" }));
  }

  function listInputs() {
    return [...fields.querySelectorAll("input, select")];
  }

  function fillTypical() {
    const typical = listTypical(model);
    listInputs().forEach(input => {
      const value = typical[input.name];
      input.value = input.tagName === "SELECT" ? JSON.stringify(value) : String(value);
    });
    score();
  }

  // What is no number goes as it is: the service says what is wrong with it.
  function readInput(input) {
    if (input.tagName === "SELECT") return JSON.parse(input.value);
    const text = input.value.trim();
    return text === "" ? null : Number.isFinite(Number(text)) ? Number(text) : text;
  }

  // The answer ------------------------------------------------------------------------------

  async function score() {
    clearTimeout(pause);
    asked?.abort();
    asked = new AbortController();
    const customer = Object.fromEntries(listInputs().map(input => [input.name, readInput(input)]));
    const [headers, body] = [{ "Content-Type": "application/json" }, JSON.stringify(customer)];
    try {
      const reply = await fetch("predict", { method: "POST", headers, body, signal: asked.signal });
      const content = await reply.json();
      tellFaults(reply.status === 422 ? content.detail : []);
      if (reply.ok) tellAnswer(content, customer);
      else if (reply.status === 422) tellNothing("No answer yet: see what is marked.");
      else tellNothing(excuse(content));
    } catch (error) {
      if (error.name !== "AbortError") tellNothing(excuse());
    }
  }

  function describeFault({ field, message, allowed }) {
    const { label } = [...features, ...descriptors].find(({ column }) => column === field);
    return `${label} ${message}. Allowed: ${allowed}.`;
  }

  function tellFaults(details) {
    listInputs().forEach(input => {
      const own = details.find(({ field }) => field === input.name);
      input.setAttribute("aria-invalid", String(Boolean(own)));
      rewrite(find(`${input.id}-fault`), own ? describeFault(own) : "");
    });
    const other = details.some(({ field }) => !field);
    rewrite(find("fault"), other ? "Give at least one figure." : "");
  }

  function tellNothing(text) {
    lead.className = "lead none";
    rewrite(lead, text);
    reasons.replaceChildren();
    place(null);
  }

  function tellAnswer(answer, customer) {
    const own = segments.find(({ id }) => id === answer.cluster);
    const next = segments.find(segment => segment.name === answer.second);
    if (!own) return tellNothing("No answer: a figure that the model needs is missing or extreme.");
    const outside = answer.status === "outside";
    tellSegment(own, answer, outside);
    reasons.replaceChildren(
      ...(outside ? tellOutside(customer, own) : tellInside(answer, own, next)),
      ...tellEmpty(customer),
      ...(outside ? [] : [...tellReasons(answer, own, next), ...listAction(own)]),
    );
    const row = features.map(({ column, typical }) => customer[column] ?? typical);
    return place({ ...own, row: [...row, answer.confidence ?? 1] });
  }

  function tellSegment(own, { confidence }, outside) {
    const sure = confidence === null ? "" : `, ${rate(confidence)}`;
    const text = outside ? make("span", {}, "Unlike all segments")
      : make("span", {}, name(own.name), make("span", { class: "sure" }, sure));
    if (lead.textContent === text.textContent) return;
    lead.className = "lead";
    lead.replaceChildren(...(outside ? [] : [mark(own)]), text);
  }

  function rate(confidence) {
    return confidence < 0.6 ? "a close call" : confidence < 0.8 ? "fairly clear" : "clear";
  }

  // Confidence is how often such customers kept their segment in the resamples.
  function tellInside({ confidence, status }, own, next) {
    if (!next) return [make("p", {}, "There is one segment, to which every customer belongs.")];
    const text = `Of 100 customers as near to a border, ${Math.round(100 * confidence)} kept their `
      + "segment when the table was resampled. Next comes ";
    const state = status === "borderline"
      ? make("p", { class: "state" }, make("strong", {}, "Borderline: "), "so near to ",
        quote(next.name), " that a small change may move the customer.")
      : make("p", { class: "state ok" }, "The customer is like those that the model was made from.");
    return [
      track(confidence, own.colour),
      make("p", { class: "scale" }, make("span", {}, "at the border, 50 %"),
        make("span", {}, "at the centre, 100 %")),
      make("p", {}, text, quote(next.name), "."),
      state,
    ];
  }

  function tellOutside(customer, own) {
    const beyond = features.filter(({ column, range: [low, high] }) =>
      customer[column] !== null && (customer[column] < low || customer[column] > high));
    const why = beyond.map(feature => {
      const value = unite(write(customer[feature.column]), feature);
      return ` ${feature.label}, ${value}, lies beyond the data, ${span(feature.range, feature)}.`;
    });
    return [
      make("p", { class: "state" }, make("strong", {}, "Outside: "),
        "farther from every segment than 99 in 100 customers, so no action is suggested.", ...why),
      make("p", {}, "The nearest segment is ", quote(own.name), "."),
    ];
  }

  function tellEmpty(customer) {
    const empty = features.filter(({ column }) => customer[column] === null);
    if (!empty.length) return [];
    const fill = empty.map(feature => `${feature.label} ${measure(feature.typical, feature)}`);
    const text = `What is empty is taken as typical: ${fill.join(", ")}.`;
    return [make("p", { dir: "auto" }, text)];
  }

  function tellReasons({ why }, own, next) {
    if (!why?.length) return [];
    const rows = why.map(({ feature: column, value }) => {
      const feature = features.find(each => each.column === column);
      if (feature) return [feature.label, ...tellFigure(feature, value, own, next)];
      const { label } = descriptors.find(each => each.column === column);
      return [label, name(value ?? "not known")];
    });
    const head = make("p", { class: "at" }, "What speaks most against ", quote(next.name));
    return [head, listFigures(rows)];
  }

  function tellFigure(feature, value, own, next) {
    const given = value === null ? "empty" : unite(write(value), feature);
    if (!own.told || !next.told) return [given];
    const [here, there] = [own, next].map(({ centre }) => measure(centre[feature.column], feature));
    const beside = `this segment’s centre ${here}, the next one’s ${there}`;
    return [make("span", {}, given), make("span", { class: "everyone" }, beside)];
  }

  features.forEach(feature =>
    fields.append(makeField(feature.column, title(feature), makeInput(feature), hint(feature))));
  listLevels(descriptors).forEach(each =>
    fields.append(makeField(each.column, each.label, makeChoice(each), "")));
  find("form").oninput = () => { clearTimeout(pause); pause = setTimeout(score, PAUSE); };
  find("form").onsubmit = event => { event.preventDefault(); score(); };
  find("typical").onclick = fillTypical;
  fillTypical();
}
