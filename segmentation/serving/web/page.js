// The page of the scoring service. All that it shows it asks of the API; texts stay text nodes.
import { listTypical, startForm } from "./customer.js";
import {
  bar, button, count, dye, excuse, find, listAction, listFigures, make, mark, measure, name, rewrite,
  share, write,
} from "./elements.js";
import { startFile } from "./file.js";
import { startMap } from "./map.js";

const RETRY = 3_000, CHECK = 30_000; // milliseconds between looks, without and with a model
const EVIDENCE = ["no", "little", "good", "strong"];
const TELLING = 3; // figures on a card: those that set a segment most apart

let run = ""; // the one that the page shows
let said = ""; // the notice

async function ask(path) {
  const reply = await fetch(path);
  const content = await reply.json();
  if (!reply.ok) throw Object.assign(new Error(path), { content });
  return content;
}

// The service, and whether it has a model ---------------------------------------------------

async function watch() {
  try {
    const health = await ask("health");
    if (!run) await start();
    noticeRun(health);
  } catch (error) {
    if (!error.content && !(error instanceof TypeError)) throw error;
    notice("bad", `${excuse(error.content)} This page looks again every few seconds.`);
  }
  setTimeout(watch, run ? CHECK : RETRY);
}

function notice(kind, text, ...more) {
  if (said === text) return;
  said = text;
  const banner = make("p", { class: `banner ${kind}` }, text, ...more);
  find("notice").replaceChildren(...(text ? [banner] : []));
}

function noticeRun({ run_id: newest, newer_run_refused: refused }) {
  if (refused) {
    const text = `A newer run is not used: ${refused} Until then, run ${newest} answers.`;
    return notice("quiet", text);
  }
  if (newest === run) return notice("quiet", "");
  const text = `A newer model answers now, that of run ${newest}. `;
  return notice("quiet", text, button("Show it", () => location.reload()));
}

async function start() {
  const asked = [ask("model"), ask("clusters"), ask("map").catch(error => error)];
  const [model, listed, drawn] = await Promise.all(asked);
  const segments = listed.map((segment, i) =>
    ({ ...segment, told: segment.centre !== null, outline: drawn.outlines?.[i] ?? "" }));
  run = model.run_id;
  tellModel(model, drawn.verdict);
  ["ready", "contents"].forEach(id => { find(id).hidden = false; });
  const map = tellMap(drawn, model);
  const sorted = [...segments].sort((a, b) => b.size - a.size);
  find("cards").replaceChildren(...sorted.map(segment => makeCard(segment, model, segments, map)));
  startForm(model, segments, scored => map?.place(scored));
  startFile(model, segments);
  tellPrograms(listTypical(model), new URL("predict", location.href).href);
}

function tellMap(drawn, { features }) {
  const failed = drawn instanceof Error;
  find("unmapped").hidden = !failed;
  find("map").hidden = failed;
  if (!failed) return startMap(drawn, drawn.axes.map((axis, i) => features[i] ?? axis), markCards);
  const reason = drawn.content?.detail?.[0]?.message ?? excuse(drawn.content);
  rewrite(find("unmapped"), `The map cannot be drawn: ${reason}`);
  return null;
}

// The model ---------------------------------------------------------------------------------

function tellModel(model, verdict) {
  const { customers, k, run_id: id, trained_at: day, as_of: data } = model;
  document.title = `${model.title} – customer segments`;
  rewrite(find("title"), model.title);
  const ending = k > 1 ? `${verdict?.strength > 1 ? " fall into" : ", divided into"} ${k} segments`
    : model.verdict === "none" ? ", no separate groups" : ", one segment";
  rewrite(find("answer"), `${count(customers)}${ending}`);
  const until = data ? ` from data as of ${writeDay(data)}` : "";
  const origin = `Model of ${writeDay(day)}${until}, run `;
  find("origin").replaceChildren(origin, make("code", {}, id), ".");
  if (verdict) tellVerdict(verdict);
}

function tellVerdict({ strength, word, plain }) {
  const steps = [1, 2, 3].map(step => make("span", { class: step <= strength ? "on" : "" }));
  const label = `${EVIDENCE[strength]} evidence for groups`;
  const meter = make("span", { class: "meter", role: "img", "aria-label": label }, ...steps);
  find("verdict").replaceChildren(meter, ` ${word}`);
  find("verdict").hidden = false;
  rewrite(find("plain"), plain);
}

function writeDay(text) {
  const parts = { day: "numeric", month: "long", year: "numeric", timeZone: "UTC" };
  return new Date(text).toLocaleDateString("en-GB", parts);
}

// The segments ------------------------------------------------------------------------------

function makeCard(segment, model, segments, map) {
  const head = make("h3", {}, mark(segment), make("span", {}, name(segment.name)));
  const card = make("article", { class: "card", "data-id": segment.id }, head);
  dye(card, segment.colour);
  card.append(...(segment.told
    ? fillCard(segment, model, segments.length > 1, map)
    : [make("p", { class: "size" }, "Fewer than five customers: their figures are withheld, ",
      "so that nobody can be recognised.")]));
  return card;
}

function fillCard(segment, { features }, several, map) {
  const part = several ? `, ${share(segment.share)}` : "";
  const size = make("p", { class: "size" }, make("strong", {}, write(segment.size)),
    ` customers${part}`, bar(segment.share, segment.colour));
  const apart = ({ label }) => Math.abs(segment.profile?.[label]?.effect ?? 0);
  const figures = [...features].sort((a, b) => apart(b) - apart(a)).map(feature =>
    [feature.label, measure(segment.centre[feature.column], feature)]);
  const rest = make("details", {}, make("summary", {}, "The other figures"),
    listFigures(figures.slice(TELLING)));
  return [
    size,
    make("p", { class: "at" }, "At its centre"),
    listFigures(figures.slice(0, TELLING)),
    ...(figures.length > TELLING ? [rest] : []),
    ...(several ? tellStability(segment) : []),
    ...listAction(segment),
    ...(map ? [makeLight(segment, map)] : []),
  ];
}

function tellStability({ stability }) {
  if (!stability?.resamples) return [];
  const { found, resamples, band } = stability;
  return [make("p", { class: "firm" }, "When the customers are resampled, it is found again in ",
    `${write(found)} of ${write(resamples)} draws: ${band}.`)];
}

function makeLight(segment, map) {
  const label = `Show on the map: ${segment.name}`;
  const light = () => {
    map.light(segment.id);
    find("map").scrollIntoView({ block: "nearest" });
  };
  const press = { class: "light", "aria-pressed": "false", "aria-label": label };
  return button("Show on the map", light, press);
}

function markCards(lit) {
  find("cards").querySelectorAll(".light").forEach(press =>
    press.setAttribute("aria-pressed", String(press.closest(".card").dataset.id === String(lit))));
}

// For programs ------------------------------------------------------------------------------

function writeCurl(customer, place) {
  const body = JSON.stringify(customer, null, 2).replaceAll("'", "'\\''");
  return `curl '${place}' \\\n  -H 'Content-Type: application/json' \\\n  -d '${body}'`;
}

function writePython(customer, place) {
  const write = value => (value === null ? "None" : JSON.stringify(value));
  const pairs = Object.entries(customer);
  const lines = pairs.map(([key, value]) => `    ${write(key)}: ${write(value)},`);
  return `import json
from urllib.request import Request, urlopen

customer = {
${lines.join("\n")}
}
request = Request(
    ${write(place)},
    data=json.dumps(customer).encode(),
    headers={"Content-Type": "application/json"},
)
with urlopen(request) as reply:
    print(json.load(reply))`;
}

function writeJavaScript(customer, place) {
  return `const customer = ${JSON.stringify(customer, null, 2)};
const reply = await fetch(${JSON.stringify(place)}, {
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify(customer),
});
console.log(await reply.json());`;
}

function tellPrograms(customer, place) {
  const ways = { curl: writeCurl, Python: writePython, JavaScript: writeJavaScript };
  find("examples").replaceChildren(...Object.entries(ways).map(([language, write]) =>
    makeExample(language, write(customer, place))));
}

function makeExample(language, code) {
  const [text, told] = [make("code", {}, code), make("span", { role: "status" })];
  const label = { "aria-label": `Copy the ${language} example` };
  const press = button("Copy", () => copy(text, told), label);
  const box = { tabindex: "0", role: "region", "aria-label": `The ${language} example` };
  return make("div", { class: "example" },
    make("div", { class: "head" }, make("h3", {}, language), told, press),
    make("pre", box, text));
}

async function copy(text, told) {
  try {
    await navigator.clipboard.writeText(text.textContent);
    rewrite(told, "Copied.");
  } catch { // only a page by https or of this machine may write to the clipboard
    getSelection().selectAllChildren(text);
    rewrite(told, "Selected; copy it by Ctrl+C or ⌘C.");
  }
}

watch();
