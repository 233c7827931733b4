// The explorer: each customer a point over two features or three, drawn by Plotly.
// Texts of the data become text nodes; `spell` keeps Plotly from reading tags in axis titles.
"use strict";
{
  const find = id => document.getElementById(id);
  const { axes, segments } = JSON.parse(find("customers").textContent);
  const [explorer, picture, plot, label, told] =
    ["explorer", "picture", "plot", "label", "told"].map(find);
  const views = [find("two"), find("three")];
  const choices = [...explorer.querySelectorAll("select")];
  const boxes = [...explorer.querySelectorAll("input")];
  const places = choices.map(choice => choice.value);
  const touch = matchMedia("(pointer: coarse)").matches;
  const many = segments.flatMap(({ rows }) => rows).length > 1000;
  const font = { family: getComputedStyle(plot).fontFamily, size: 13, color: "#3a3e45" };
  const config = { displayModeBar: false, responsive: true, doubleClick: "reset", typesetMath: false };
  const digits = { maximumFractionDigits: 2, maximumSignificantDigits: 3 };
  const numbers = new Intl.NumberFormat("en", { ...digits, roundingPriority: "morePrecision" });
  let space = false; // three dimensions rather than two
  let resets = 0;
  let pointer = { clientX: 0, clientY: 0 };

  // Words -----------------------------------------------------------------------------------

  function spell(text, width) {
    const letters = [...text];
    const short = letters.length > width ? [...letters.slice(0, width - 1), "…"].join("") : text;
    if (space) return short.replaceAll("<", "<\u200c");
    return short.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  }

  function measure(value, unit) {
    return value === null ? "not known" : `${numbers.format(value)} ${unit}`.trim();
  }

  function count(customers) {
    return `${numbers.format(customers)} ${customers === 1 ? "customer" : "customers"}`;
  }

  function tell(rows, chosen) {
    const known = rows.filter(row => chosen.every(index => row[index] !== null)).length;
    const missing = rows.length - known;
    const rest = missing ? `; ${count(missing)} without a value on an axis left out` : "";
    const drag = space ? "; drag to turn" : touch ? "" : "; drag to zoom in";
    const by = chosen.map(index => axes[index].title).join(", ");
    told.textContent = `Showing ${count(known)}${rest}.`;
    find("hint").textContent = `${touch ? "Tap" : "Point at"} one for its figures${drag}.`;
    plot.setAttribute("aria-label", `The customers, each a point, by ${by}`);
  }

  // The drawing -----------------------------------------------------------------------------

  // One range for all segments, so that nothing moves when one of them is hidden.
  function span(index) {
    const known = segments.flatMap(({ rows }) => rows.map(row => row[index])).filter(Number.isFinite);
    const [low, high] = [Math.min(...known), Math.max(...known)];
    const edge = (high - low || Math.abs(high) || 1) * 0.05;
    return [low - edge, high + edge];
  }

  function scale(index) {
    const look = space
      ? { showspikes: false, showbackground: true, backgroundcolor: "#f7f7f5", nticks: 6 }
      : { automargin: true, linecolor: "#8b9098", fixedrange: touch };
    return {
      title: { text: spell(axes[index].title, space ? 26 : 44), font: { size: 14 }, standoff: 14 },
      range: span(index),
      exponentformat: "none",
      separatethousands: true,
      zeroline: false,
      gridcolor: "#e4e5e1",
      ...look,
    };
  }

  function trace({ colour, symbol, glyph }, columns) {
    const size = many ? 6 : 9;
    const look = space
      ? { type: "scatter3d", mode: "text", text: glyph, textfont: { color: colour, size: size + 6 } }
      : { type: "scatter", mode: "markers", marker: { color: colour, symbol, size, opacity: 0.8 } };
    return { ...columns, ...look, textposition: "middle center", hoverinfo: "none" };
  }

  // Far enough for the whole cube, also where the window is narrow.
  function camera() {
    const far = Math.max(0.95, (1.25 * plot.clientHeight) / plot.clientWidth);
    return { eye: { x: 0.95 * far, y: -1.8 * far, z: 0.75 * far }, center: { x: 0, y: 0, z: -0.12 } };
  }

  function draw() {
    const letters = space ? ["x", "z", "y"] : ["x", "y"];
    const chosen = letters.map((_, i) => Number(choices[i].value));
    const ticked = segments.map(({ rows }, i) => (boxes[i].checked ? rows : []));
    const join = make => Object.fromEntries(letters.map((letter, i) => make(letter, chosen[i])));
    const traces = segments.map((segment, i) =>
      trace(segment, join((letter, index) => [letter, ticked[i].map(row => row[index])])));
    const scales = join((letter, index) => [`${letter}axis`, scale(index)]);
    const layout = {
      ...(space ? { scene: { ...scales, aspectmode: "cube", camera: camera() } } : scales),
      font,
      showlegend: false,
      hovermode: "closest",
      dragmode: space ? "turntable" : touch ? false : "zoom",
      paper_bgcolor: "transparent",
      plot_bgcolor: "transparent",
      margin: space ? { l: 0, r: 0, t: 0, b: 0 } : { l: 56, r: 20, t: 20, b: 52 },
      uirevision: [resets, ...chosen].join(),
    };
    tell(ticked.flat(), chosen);
    label.hidden = true;
    return Plotly.react(plot, traces, layout, config);
  }

  // The figures of the customer pointed at --------------------------------------------------

  function make(tag, ...content) {
    const element = document.createElement(tag);
    element.dir = "auto";
    element.append(...content);
    return element;
  }

  function show({ points: [{ curveNumber, pointNumber }] }) {
    const { name, colour, rows } = segments[curveNumber];
    const lines = axes.flatMap(({ label, unit }, i) =>
      [make("dt", label), make("dd", measure(rows[pointNumber][i], unit))]);
    label.replaceChildren(make("p", name), make("dl", ...lines));
    label.style.setProperty("--colour", colour);
    label.hidden = false;
    place();
  }

  function follow(event) {
    pointer = event;
    place();
  }

  function place() {
    const stage = label.parentElement.getBoundingClientRect();
    const [x, y] = [pointer.clientX - stage.left, pointer.clientY - stage.top];
    const left = Math.min(x + 16, stage.width - label.offsetWidth - 8);
    const top = y - label.offsetHeight - 16;
    label.style.left = `${Math.max(8, left)}px`;
    label.style.top = `${top < 8 ? y + 16 : top}px`;
  }

  // The controls ----------------------------------------------------------------------------

  function view(three) {
    if (three && !document.createElement("canvas").getContext("webgl")) {
      views[1].disabled = true;
      told.textContent = "This browser cannot draw in three dimensions: it has no WebGL.";
      return undefined;
    }
    space = three;
    views.forEach((button, i) => button.setAttribute("aria-pressed", String(space === Boolean(i))));
    if (choices[2]) choices[2].closest("label").hidden = !space;
    return draw();
  }

  // Three different features at any time: one that is taken changes places.
  function swap(i) {
    const twin = choices.find((other, j) => j !== i && other.value === choices[i].value);
    if (twin) twin.value = places[i];
    choices.forEach((choice, j) => { places[j] = choice.value; });
  }

  function listen() {
    views.forEach((button, i) => button.addEventListener("click", () => view(Boolean(i))));
    choices.forEach((choice, i) => choice.addEventListener("change", () => { swap(i); draw(); }));
    boxes.forEach(box => box.addEventListener("change", draw));
    find("reset").addEventListener("click", () => { resets += 1; draw(); });
    plot.addEventListener("pointermove", follow);
    plot.addEventListener("pointerdown", follow);
    plot.on("plotly_hover", show);
    plot.on("plotly_click", show);
    plot.on("plotly_unhover", () => { label.hidden = true; });
  }

  async function start() {
    if (!segments.length) return;
    explorer.hidden = false;
    views[1].hidden = axes.length < 3;
    try {
      await view(false);
      listen();
      picture.hidden = true;
    } catch (error) {
      explorer.hidden = true;
      throw error;
    }
  }

  // Plotly reads its letters back from a canvas; said beforehand, browsers do it fast and quietly.
  const { getContext } = HTMLCanvasElement.prototype;
  HTMLCanvasElement.prototype.getContext = function (kind, options) {
    const more = kind === "2d" ? { willReadFrequently: true } : {};
    return getContext.call(this, kind, { ...options, ...more });
  };

  addEventListener("DOMContentLoaded", start);
}
