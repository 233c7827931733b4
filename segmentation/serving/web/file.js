// A file: sent with its progress, then a summary and the scored file, or what is wrong by line.
import {
  bar, count, excuse, find, make, mark, name, quote, rewrite, share, write,
} from "./elements.js";

const ODD = {
  borderline: "borderline",
  outside: "outside what the model knows",
  dropped: "left out, because a figure that the model needs is missing or extreme",
};
const NUMBERS = ["Line", "Customers", "Share"]; // columns of figures

export function startFile({ features, descriptors }, segments) {
  const [drop, input, only] = ["drop", "upload", "only"].map(find);
  const [sent, progress] = ["sent", "progress"].map(find);
  let request = null;
  let address = "";

  function send(file) {
    const kept = only.value;
    request?.abort();
    request = new XMLHttpRequest();
    request.open("POST", `predict_file?${new URLSearchParams(kept ? { segment: kept } : {})}`);
    request.responseType = "blob";
    request.upload.onprogress = ({ loaded, total }) => { progress.value = loaded / total; };
    request.upload.onload = () => {
      progress.removeAttribute("value");
      rewrite(sent, `Scoring ${file.name} …`);
    };
    request.onerror = () => finish("The connection broke. A file may have up to 100 MB.");
    request.onload = event => take(event.target, file, segments.find(({ id }) => `${id}` === kept));
    finish(`Sending ${file.name} …`);
    progress.hidden = false;
    progress.value = 0;
    request.send(file);
  }

  function finish(text, ...content) {
    progress.hidden = true;
    rewrite(sent, text);
    find("outcome").replaceChildren(...content);
  }

  async function take(done, file, kept) {
    if (done.status === 200) return finish(...summarize(done, file, kept));
    const content = await new Response(done.response).json().catch(() => null);
    if (done.status === 422) return finish(...listProblems(content, file));
    const reason = done.status === 413 ? `${content.detail}.` : excuse(content);
    return finish(`Nothing was scored: ${reason}`);
  }

  // What came back --------------------------------------------------------------------------

  function summarize(done, file, kept) {
    const tally = JSON.parse(done.getResponseHeader("X-Segmentation-Tally"));
    const rows = Number(done.getResponseHeader("X-Segmentation-Rows"));
    const odd = Object.entries(ODD).filter(([status]) => tally.statuses[status]);
    const rest = odd.map(([status, text]) => `${write(tally.statuses[status])} ${text}`);
    const text = `${count(rows)} of ${file.name} ${rows === 1 ? "is" : "are"} scored`;
    const limit = kept ? [make("p", {}, "The file keeps only ", quote(kept.name), ".")] : [];
    const lines = segments.map((segment, i) => listShare(segment, tally.segments[i], rows));
    const table = makeTable("Customers by segment", ["Segment", "Customers", "Share", ""], lines);
    const sentence = rest.length ? `${text}: ${rest.join(", ")}.` : `${text}.`;
    return [sentence, make("p", {}, offer(done.response)), ...limit, table];
  }

  function offer(scored) {
    URL.revokeObjectURL(address);
    address = URL.createObjectURL(scored);
    const link = { class: "download", href: address, download: "scored.csv" };
    return make("a", link, "Download scored.csv");
  }

  function listShare(segment, customers, rows) {
    return [
      make("th", { scope: "row" }, mark(segment), name(segment.name)),
      make("td", { class: "num" }, write(customers)),
      make("td", { class: "num" }, share(customers / rows)),
      make("td", { class: "wide" }, bar(customers / rows, segment.colour)),
    ];
  }

  function listProblems({ detail, count: all }, file) {
    const more = all > detail.length ? `, of which these are the first ${detail.length}` : "";
    const text = `Nothing was scored: ${file.name} has ${count(all, "problem")}${more}.`;
    if (detail.every(({ line }) => line)) {
      const heads = ["Line", "Figure", "What is wrong", "Allowed"];
      return [text, makeTable("Problems of the file", heads, detail.map(listProblem))];
    }
    const told = detail.map(({ message }) => message.replace("customers.csv", file.name));
    return [text, make("ul", {}, ...told.map(each => make("li", { dir: "auto" }, each)))];
  }

  function listProblem({ line, field, message, allowed }) {
    const known = [...features, ...descriptors].find(({ column }) => column === field);
    return [
      make("td", { class: "num" }, write(line)),
      make("td", {}, name(known?.label ?? field ?? "")),
      make("td", {}, message),
      make("td", {}, allowed),
    ];
  }

  function makeTable(label, heads, lines) {
    const look = text => ({ scope: "col", class: NUMBERS.includes(text) ? "num" : "" });
    const cells = heads.map(text => (text ? make("th", look(text), text) : make("td")));
    const body = lines.map(line => make("tr", {}, ...line));
    const table = make("table", {},
      make("thead", {}, make("tr", {}, ...cells)), make("tbody", {}, ...body));
    const scroll = { class: "scroll", role: "region", "aria-label": label, tabindex: "0" };
    return make("div", scroll, table);
  }

  // Choosing and dropping -------------------------------------------------------------------

  function hover(on) {
    return event => {
      event.preventDefault();
      drop.classList.toggle("over", on);
    };
  }

  only.append(...segments.map(({ id, name: text }) =>
    make("option", { value: id }, `Only ${text}`)));
  [drop.ondragenter, drop.ondragover, drop.ondragleave] = [true, true, false].map(hover);
  drop.ondrop = event => {
    hover(false)(event);
    if (event.dataTransfer.files.length) send(event.dataTransfer.files[0]);
  };
  input.onchange = () => {
    if (input.files.length) send(input.files[0]);
    input.value = ""; // the same file may be chosen again
  };
}
