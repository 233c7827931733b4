// The explorer: each customer a point over two features or three, drawn by Plotly.
// Texts of the data become text nodes; `spell` keeps Plotly from reading tags in axis titles.
"use strict";
{
  const find = id => document.getElementById(id);
  const { axes, segments, descriptors, colours } = JSON.parse(find("customers").textContent);
  const [explorer, picture, plot, label, told, levels] =
    ["explorer", "picture", "plot", "label", "told", "levels"].map(find);
  const views = [find("two"), find("three")];
  const [colour, only] = [find("colour"), find("only")]; // not there without descriptors
  const choices = [...explorer.querySelectorAll(".side")];
  const boxes = [...explorer.querySelectorAll("input")];
  const alone = [...explorer.querySelectorAll(".alone")];
  const marks = [...explorer.querySelectorAll("fieldset path")];
  const places = choices.map(choice => choice.value);
  const touch = matchMedia("(pointer: coarse)").matches;
  const many = segments.flatMap(({ rows }) => rows).length > 1000;
  const config = { displayModeBar: false, responsive: true, doubleClick: "reset", typesetMath: false };
  const digits = { maximumFractionDigits: 2, maximumSignificantDigits: 3 };
  const numbers = new Intl.NumberFormat("en", { ...digits, roundingPriority: "morePrecision" });
  const dark = matchMedia("screen and (prefers-color-scheme: dark)");
  const UNTOLD = "another, or not known";
  let space = false; // three dimensions rather than two
  let shown = []; // the rows drawn, by segment
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

  // A level of a row; those that few customers have are not told.
  function level(row, index) {
    return descriptors[index].levels[row[axes.length + index]] ?? UNTOLD;
  }

  function wrap(text) {
    const lines = [""];
    text.split(" ").forEach(word => {
      const longer = `${lines.at(-1)} ${word}`.trim();
      if (longer.length > 22 && lines.at(-1)) lines.push(word);
      else lines[lines.length - 1] = longer;
    });
    return [...lines.slice(0, 2), lines.slice(2).join(" ")].filter(Boolean);
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

  function token(name) {
    return getComputedStyle(plot).getPropertyValue(name).trim();
  }

  // A colour of the palette, lighter in the dark.
  function tint(hex) {
    const parts = [1, 3, 5].map(i => parseInt(hex.slice(i, i + 2), 16));
    return `rgb(${parts.map(part => Math.round(dark.matches ? 0.6 * part + 102 : part))})`;
  }

  // The place of a figure on its axis, which has decades where the distance has logarithms.
  function decades(index) {
    return axes[index].log && segments.every(({ rows }) => rows.every(row => !(row[index] <= 0)));
  }

  function locate(value, index) {
    return decades(index) ? Math.log10(value) : value;
  }

  // One range for all segments, so that nothing moves when one of them is hidden.
  function span(index) {
    const known = segments.flatMap(({ rows }) => rows.map(row => row[index]))
      .filter(Number.isFinite).map(value => locate(value, index));
    const low = known.reduce((a, b) => Math.min(a, b), Infinity);
    const high = known.reduce((a, b) => Math.max(a, b), -Infinity);
    const edge = (high - low || Math.abs(high) || 1) * 0.05;
    return [low - edge, high + edge];
  }

  function scale(index) {
    const look = space
      ? { showspikes: false, showbackground: true, backgroundcolor: token("--panel"), nticks: 6 }
      : { automargin: true, linecolor: token("--ink-soft"), fixedrange: touch };
    const range = span(index);
    const steps = range[1] - range[0] > 3 ? [1] : [1, 2, 5];
    const powers = Array.from({ length: 40 }, (_, i) => 10 ** (i - 20));
    const ticks = powers.flatMap(power => steps.map(step => step * power));
    const kind = decades(index)
      ? { type: "log", tickvals: ticks, ticktext: ticks.map(value => numbers.format(value)) } : {};
    return {
      title: { text: spell(axes[index].title, space ? 26 : 44), font: { size: 14 }, standoff: 14 },
      range,
      exponentformat: "none",
      separatethousands: true,
      zeroline: false,
      gridcolor: token("--rule"),
      ...kind,
      ...look,
    };
  }

  function paint(rows, { colour: own }) {
    const by = Number(colour?.value ?? -1);
    if (by < 0) return tint(own);
    const painted = descriptors[by].levels.map((_, i) => tint(colours[i]));
    return rows.map(row => painted[row[axes.length + by]] ?? token("--ink-soft"));
  }

  function trace(segment, rows, columns) {
    const [size, color] = [many ? 6 : 9, paint(rows, segment)];
    const { symbol, glyph } = segment;
    const look = space
      ? { type: "scatter3d", mode: "text", text: glyph, textfont: { color, size: size + 6 } }
      : { type: "scatter", mode: "markers", marker: { color, symbol, size, opacity: 0.8 } };
    return { ...columns, ...look, textposition: "middle center", hoverinfo: "none" };
  }

  // The name of each segment, with a line to its centre.
  function nameCentres(letters, chosen) {
    const seen = segments.filter(({ centre }, i) =>
      boxes[i].checked && chosen.every(index => centre[index] !== null));
    const size = space || seen.length > 6 || plot.clientWidth < 500 ? 11 : 12.5;
    const names = seen.map(({ name, colour: own, centre }) => {
      const lines = wrap(name).map(line => spell(line, 24));
      const place = letters.map((letter, i) => [letter, locate(centre[chosen[i]], chosen[i])]);
      return {
        ...Object.fromEntries(place),
        text: lines.join("<br>"),
        font: { size },
        ax: 0,
        ay: -22 - 8 * lines.length,
        arrowhead: 6,
        arrowwidth: 1.5,
        arrowcolor: token("--ink"),
        bgcolor: token("--paper"),
        bordercolor: tint(own),
        borderwidth: 1.5,
        borderpad: 3,
        opacity: 0.9,
        wide: 0.6 * size * Math.max(...lines.map(line => line.length)) + 14,
        high: 1.3 * size * lines.length + 10,
      };
    });
    if (!space) moveApart(names, chosen);
    return names.map(({ wide, high, ...name }) => name);
  }

  // Names that would lie beyond the edge or on another move aside, up or down.
  function moveApart(names, chosen) {
    const [width, height] = [plot.clientWidth - 76, plot.clientHeight - 72];
    const [[left, right], [bottom, top]] = chosen.map(span);
    const clamp = (value, half, place, length) =>
      Math.max(half - place, Math.min(value, length - half - place));
    const boxes = names.map(name => ({
      name,
      half: [name.wide / 2, name.high / 2],
      x: (name.x - left) / (right - left) * width,
      y: (top - name.y) / (top - bottom) * height,
    }));
    boxes.forEach(({ name, half, x }) => { name.ax = clamp(0, half[0], x, width); });
    for (let round = 0; round < 100; round += 1) {
      boxes.forEach((one, i) => boxes.slice(i + 1).forEach(two => {
        const aside = Math.abs(two.x + two.name.ax - one.x - one.name.ax);
        const down = two.y + two.name.ay - one.y - one.name.ay;
        const over = one.half[1] + two.half[1] - Math.abs(down);
        if (over <= 0 || aside > one.half[0] + two.half[0]) return;
        const push = (down < 0 ? -1 : 1) * (over / 2 + 1);
        one.name.ay -= push;
        two.name.ay += push;
      }));
      boxes.forEach(({ name, half, y }) => { name.ay = clamp(name.ay, half[1], y, height); });
    }
  }

  // Far enough for the whole cube, also where the window is narrow.
  function camera() {
    const far = Math.max(0.95, (1.25 * plot.clientHeight) / plot.clientWidth);
    return { eye: { x: 0.95 * far, y: -1.8 * far, z: 0.75 * far }, center: { x: 0, y: 0, z: -0.12 } };
  }

  function draw() {
    const letters = space ? ["x", "z", "y"] : ["x", "y"];
    const chosen = letters.map((_, i) => Number(choices[i].value));
    const [by, wanted] = JSON.parse(only?.value ?? "[]");
    const kept = row => by === undefined || row[axes.length + by] === wanted;
    shown = segments.map(({ rows }, i) => (boxes[i].checked ? rows.filter(kept) : []));
    const join = make => Object.fromEntries(letters.map((letter, i) => make(letter, chosen[i])));
    const traces = segments.map((segment, i) =>
      trace(segment, shown[i], join((letter, index) => [letter, shown[i].map(row => row[index])])));
    const scales = join((letter, index) => [`${letter}axis`, scale(index)]);
    const annotations = nameCentres(letters, chosen);
    const layout = {
      ...(space ? { scene: { ...scales, annotations, aspectmode: "cube", camera: camera() } }
        : { ...scales, annotations }),
      font: { family: getComputedStyle(plot).fontFamily, size: 13, color: token("--ink") },
      showlegend: false,
      hovermode: "closest",
      dragmode: space ? "turntable" : touch ? false : "zoom",
      paper_bgcolor: "transparent",
      plot_bgcolor: "transparent",
      margin: space ? { l: 0, r: 0, t: 0, b: 0 } : { l: 56, r: 20, t: 20, b: 52 },
      uirevision: [resets, ...chosen].join(),
    };
    tell(shown.flat(), chosen);
    mark();
    label.hidden = true;
    return Plotly.react(plot, traces, layout, config);
  }

  // What the colours mean, and which segment is alone.
  function mark() {
    const by = Number(colour?.value ?? -1);
    const checked = boxes.filter(box => box.checked);
    alone.forEach((button, i) =>
      button.setAttribute("aria-pressed", String(boxes[i].checked && checked.length === 1)));
    marks.forEach((path, i) => {
      path.style.fill = by < 0 ? tint(segments[i].colour) : token("--ink-soft");
    });
    levels.hidden = by < 0;
    const names = by < 0 ? [] : descriptors[by].levels;
    const rest = by >= 0 && segments.some(({ rows }) => rows.some(row => level(row, by) === UNTOLD));
    const items = names.map((name, i) => [tint(colours[i]), name]);
    if (rest) items.push([token("--ink-soft"), UNTOLD]);
    levels.replaceChildren(...items.map(([own, name]) => {
      const item = make("li", name);
      item.style.setProperty("--colour", own);
      return item;
    }));
  }

  // The figures of the customer pointed at --------------------------------------------------

  function make(tag, ...content) {
    const element = document.createElement(tag);
    element.dir = "auto";
    element.append(...content);
    return element;
  }

  function show({ points: [{ curveNumber, pointNumber }] }) {
    const { name, colour: own } = segments[curveNumber];
    const row = shown[curveNumber][pointNumber];
    const lines = [
      ...axes.map(({ label: term, unit }, i) => [term, measure(row[i], unit)]),
      ...descriptors.map(({ label: term }, i) => [term, level(row, i)]),
    ].flatMap(([term, value]) => [make("dt", term), make("dd", value)]);
    label.replaceChildren(make("p", name), make("dl", ...lines));
    label.style.setProperty("--colour", tint(own));
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

  // Only this segment; once more, and all are there again.
  function isolate(i) {
    const pressed = alone[i].getAttribute("aria-pressed") === "true";
    boxes.forEach((box, j) => { box.checked = pressed || j === i; });
    draw();
  }

  function listen() {
    views.forEach((button, i) => button.addEventListener("click", () => view(Boolean(i))));
    choices.forEach((choice, i) => choice.addEventListener("change", () => { swap(i); draw(); }));
    [...boxes, colour, only, dark].forEach(each => each?.addEventListener("change", draw));
    alone.forEach((button, i) => button.addEventListener("click", () => isolate(i)));
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
