// The map: each customer a marker over two figures, in SVG; pointed at or stepped through by keys.
import {
  count, draw, dye, find, make, mark, name, span, title, unite, write,
} from "./elements.js";

const TOP = 30, RIGHT = 14, BOTTOM = 50, LETTER = 7.2;
const MANY = 1000; // customers from which on markers are smaller
const REACH = 14; // how near the pointer must be, in pixels
const KEYS = {
  ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -Infinity, End: Infinity,
};

// Round figures between the ends of an axis, about one every `room` pixels.
function ticks([low, high], length, room) {
  const rough = (high - low) / Math.max(2, Math.floor(length / room));
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find(each => each * power >= rough * 0.999);
  const first = Math.ceil(low / step - 1e-9);
  const steps = Math.floor(high / step + 1e-9) - first + 1;
  return Array.from({ length: steps }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}

function shorten(text, width) {
  const letters = [...text];
  const most = Math.max(8, Math.floor(width / LETTER));
  return letters.length > most ? [...letters.slice(0, most - 1), "…"].join("") : text;
}

// The middle of sorted figures.
function middle(values) {
  return (values[(values.length - 1) >> 1] + values[values.length >> 1]) / 2;
}

export function startMap({ segments, amount, untold, fewest, start }, axes, onLight) {
  const [plot, label, told] = ["plot", "label", "told"].map(find);
  const choices = [find("across"), find("up")];
  const points = segments.flatMap((segment, order) => segment.rows.map(row => ({ order, row })));
  const size = points.length > MANY ? 0.45 : 0.65;
  let chosen = [start.Horizontal, start.Vertical];
  let customer = null; // the scored one: its figures, its segment
  let lit = null; // the id of the highlighted segment
  let shown = []; // the points with both figures, and their places, from left to right
  let current = null; // the one that is pointed at
  let room = null; // the scales, once there is a place to draw in

  // Scales --------------------------------------------------------------------------------

  function range(axis) {
    const values = points.map(({ row }) => row[axis]).filter(value => value !== null);
    const low = values.reduce((a, b) => Math.min(a, b), Infinity);
    const high = values.reduce((a, b) => Math.max(a, b), -Infinity);
    const edge = (high - low || Math.abs(high) || 1) * 0.04;
    return [low - edge, high + edge];
  }

  function measureRoom() {
    const [width, height] = [plot.clientWidth, plot.clientHeight];
    const spans = chosen.map(range);
    const rows = ticks(spans[1], height - TOP - BOTTOM, 50);
    const left = 14 + LETTER * Math.max(...rows.map(value => write(value).length));
    const columns = ticks(spans[0], width - left - RIGHT, 80);
    const stretch = ([low, high], from, to) => value =>
      from + ((value - low) / (high - low)) * (to - from);
    const x = stretch(spans[0], left, width - RIGHT);
    const y = stretch(spans[1], height - BOTTOM, TOP);
    return { width, height, left, columns, rows, x, y, spans };
  }

  // Drawing -------------------------------------------------------------------------------

  function drawAxes({ width, height, left, columns, rows, x, y }) {
    const bottom = height - BOTTOM;
    const lines = [
      ...columns.map(value => draw("path", { d: `M${x(value)} ${TOP}V${bottom}` })),
      ...rows.map(value => draw("path", { d: `M${left} ${y(value)}H${width - RIGHT}` })),
    ];
    const [middled, ended] = [{ "text-anchor": "middle" }, { "text-anchor": "end" }];
    const tick = (place, value) => draw("text", place, write(value));
    const texts = [
      ...columns.map(value => tick({ x: x(value), y: bottom + 18, ...middled }, value)),
      ...rows.map(value => tick({ x: left - 6, y: y(value) + 4, ...ended }, value)),
    ];
    const [across, up] = chosen.map(axis => shorten(title(axes[axis]), width - 30));
    const titles = [
      draw("text", { x: width - RIGHT, y: height - 8, ...ended, class: "axis" }, `${across} →`),
      draw("text", { x: 2, y: 16, class: "axis" }, `↑ ${up}`),
    ];
    return [draw("g", { class: "grid" }, ...lines), ...texts, ...titles];
  }

  function drawPoints({ x, y }) {
    shown = points
      .filter(({ row }) => chosen.every(axis => row[axis] !== null))
      .map(point => ({ ...point, x: x(point.row[chosen[0]]), y: y(point.row[chosen[1]]) }))
      .sort((a, b) => a.x - b.x || a.y - b.y);
    const groups = segments.map(({ id, colour }) =>
      dye(draw("g", { class: "points", fill: colour, "data-id": id }), colour));
    shown.forEach(({ order, x: left, y: top }) => {
      const place = `translate(${left.toFixed(1)} ${top.toFixed(1)}) scale(${size})`;
      groups[order].append(draw("path", { d: segments[order].outline, transform: place }));
    });
    return groups;
  }

  // The scored customer: at the edge where the figures lie beyond it.
  function drawCustomer({ x, y, width, spans }) {
    const inside = (value, [low, high]) => Math.min(Math.max(value, low), high);
    const figures = chosen.map((axis, i) => inside(customer.row[axis], spans[i]));
    const [left, top] = [x(figures[0]), y(figures[1])];
    const side = left > width / 2 ? { x: -18, "text-anchor": "end" } : { x: 18 };
    const inner = draw("path", { d: customer.outline, fill: customer.colour });
    const text = draw("text", { ...side, y: 5 }, "This customer");
    const ring = draw("circle", { r: 13 });
    const frame = { class: "scored", transform: `translate(${left} ${top})` };
    return dye(draw("g", frame, ring, inner, text), customer.colour);
  }

  function place(scored) {
    customer = scored;
    plot.querySelector(".scored")?.remove();
    if (customer && room) plot.querySelector("svg").append(drawCustomer(room));
    tell();
  }

  function redraw() {
    if (!plot.clientWidth) return;
    room = measureRoom();
    const pointer = draw("circle", { class: "pointer", r: 11 });
    const parts = [...drawAxes(room), ...drawPoints(room), pointer];
    const frame = { width: room.width, height: room.height, "aria-hidden": "true" };
    plot.replaceChildren(draw("svg", frame, ...parts));
    const [across, up] = chosen.map(axis => title(axes[axis]));
    const keys = "arrow keys step through them";
    plot.setAttribute("aria-label", `Customers by ${across} and ${up}; ${keys}`);
    emphasize(lit);
    point(null);
    place(customer);
  }

  // Telling -------------------------------------------------------------------------------

  function tell() {
    const missing = points.length - shown.length;
    const small = untold === 1 ? "segment" : "segments";
    const beyond = customer && room && chosen.some((axis, i) => {
      const [low, high] = room.spans[i];
      return customer.row[axis] < low || customer.row[axis] > high;
    });
    told.textContent = [
      `${amount}, each a marker.`,
      missing ? `${count(missing)} without one of the two figures left out.` : "",
      untold ? `${untold} ${small} with fewer than ${fewest} customers not shown.` : "",
      beyond ? "The customer lies beyond the edge of the map, where the ring stands." : "",
    ].filter(Boolean).join(" ");
  }

  function list(values, axis) {
    const known = values.filter(value => value !== null).sort((a, b) => a - b);
    if (!known.length) return `${axes[axis].label} not known`;
    const ends = span([known[0], known.at(-1)], axes[axis]);
    return `${axes[axis].label} from ${ends}, with ${write(middle(known))} in the middle`;
  }

  function describe() {
    find("words").replaceChildren(...segments.map(({ name: own, size: all, rows }) => {
      const texts = chosen.map(axis => list(rows.map(row => row[axis]), axis));
      return make("li", {}, name(own), `: ${count(all)}; ${texts.join("; ")}.`);
    }));
  }

  function point(target, aloud = false) {
    current = target;
    const pointer = plot.querySelector(".pointer");
    label.hidden = !target;
    pointer?.classList.toggle("on", Boolean(target));
    if (!target) return;
    const { order, row, x, y } = target;
    const figures = chosen.map(axis => [axes[axis].label, unite(write(row[axis]), axes[axis])]);
    const lines = figures.flatMap(([term, value]) =>
      [make("dt", {}, name(term)), make("dd", {}, value)]);
    label.replaceChildren(make("p", {}, name(segments[order].name)), make("dl", {}, ...lines));
    label.style.setProperty("--colour", segments[order].colour);
    pointer.setAttribute("transform", `translate(${x} ${y})`);
    label.style.left = `${Math.max(4, Math.min(x + 16, plot.clientWidth - label.offsetWidth))}px`;
    label.style.top = `${y > label.offsetHeight + 24 ? y - label.offsetHeight - 4 : y + 28}px`;
    const said = `${segments[order].name}: ${figures.map(pair => pair.join(" ")).join(", ")}.`;
    if (aloud) told.textContent = said;
  }

  function emphasize(id) {
    plot.querySelectorAll(".points").forEach(group =>
      group.classList.toggle("faint", id !== null && group.dataset.id !== String(id)));
  }

  function light(id) {
    lit = id;
    emphasize(id);
    find("legend").querySelectorAll("button").forEach(button =>
      button.setAttribute("aria-pressed", String(button.dataset.id === String(id))));
    onLight(id);
  }

  // Controls ------------------------------------------------------------------------------

  function offer(choice, place) {
    choice.replaceChildren(...axes.map((axis, i) => make("option", { value: i }, title(axis))));
    choice.value = chosen[place];
    choice.onchange = () => {
      const before = [...chosen];
      chosen[place] = Number(choice.value);
      if (chosen[0] === chosen[1]) chosen[1 - place] = before[place];
      choices.forEach((each, i) => { each.value = chosen[i]; });
      describe();
      redraw();
    };
  }

  function listSegment(segment) {
    const size = make("span", { class: "size" }, ` ${count(segment.size)}`);
    const content = [mark(segment), make("span", {}, name(segment.name), size)];
    const press = make("button", { type: "button", "data-id": segment.id }, ...content);
    press.setAttribute("aria-pressed", "false");
    press.onclick = () => light(lit === segment.id ? null : segment.id);
    press.onmouseenter = press.onfocus = () => emphasize(segment.id);
    press.onmouseleave = press.onblur = () => emphasize(lit);
    return make("li", {}, press);
  }

  function listSeen() {
    return shown.filter(({ order }) => lit === null || segments[order].id === lit);
  }

  function findNearest({ clientX, clientY }) {
    const box = plot.getBoundingClientRect();
    const far = ({ x, y }) => Math.hypot(x - clientX + box.left, y - clientY + box.top);
    const seen = listSeen();
    const best = seen.reduce((a, b) => (far(b) < far(a) ? b : a), seen[0]);
    return best && far(best) < REACH ? best : null;
  }

  function step(event) {
    if (event.key === "Escape") leave();
    const [way, seen] = [KEYS[event.key], listSeen()];
    if (!way || !seen.length) return;
    event.preventDefault();
    const next = Math.min(Math.max(seen.indexOf(current) + way, 0), seen.length - 1);
    point(seen[next], true);
  }

  function leave() {
    point(null);
    tell();
  }

  choices.forEach(offer);
  plot.onpointermove = plot.onpointerdown = event => point(findNearest(event));
  plot.onpointerleave = plot.onblur = leave;
  plot.onkeydown = step;
  find("legend").replaceChildren(...segments.map(listSegment));
  describe();
  new ResizeObserver(redraw).observe(plot);
  return {
    light: id => light(lit === id ? null : id),
    place,
  };
}
