// The lineage page's picture: boxes with their texts, links, and handles for what is not drawn.

const measure = document.createElement("canvas").getContext("2d");
function textWidth(text, px) {
  measure.font = `${px}px system-ui, "Segoe UI", "Helvetica Neue", Arial, "DejaVu Sans", sans-serif`;
  return measure.measureText(text).width;
}

function ellipsised(text, width, px) {
  if (textWidth(text, px) <= width) return text;
  const symbols = Array.from(text);
  let [shortest, longest] = [1, symbols.length - 1];
  const cut = (length) => {
    const tail = Math.floor(length / 2);
    return symbols.slice(0, length - tail).join("").trimEnd() + "…" + (tail ? symbols.slice(-tail).join("").trimStart() : "");
  };
  while (shortest < longest) {
    const length = Math.ceil((shortest + longest) / 2);
    if (textWidth(cut(length), px) <= width) shortest = length;
    else longest = length - 1;
  }
  return cut(shortest);
}

function wrapped(text, width, px) {
  if (textWidth(text, px) <= width) return [text];
  const symbols = Array.from(text);
  let cut = 0;
  let hard = 1;
  for (let at = 1; at < symbols.length && textWidth(symbols.slice(0, at).join("").trimEnd(), px) <= width; at++) {
    hard = at;
    if (symbols[at] === " " || " -_/.".includes(symbols[at - 1])) cut = at;
  }
  if (!cut || textWidth(symbols.slice(0, cut).join(""), px) < width / 4) cut = hard;
  return [symbols.slice(0, cut).join("").trimEnd(), ellipsised(symbols.slice(cut).join("").trimStart(), width, px)];
}

const shortId = (id) => (id.length <= 12 ? id : `${id.slice(0, 5)}…${id.slice(-5)}`);
const kindOfData = (node) => (node.kind === "dataset" ? node.measurement || node.data_type : "");
function detailLine(node) {
  if (node.kind === "hidden") return "";
  const kind = node.kind === "sample" ? node.data_type || "sample" : node.measurement || node.data_type;
  return [kind, node.instance].filter(Boolean).join(" · ");
}
function detailLines(node) {
  const line = detailLine(node);
  if (textWidth(line, 10.5) <= 178 || !node.step) return [line];
  return [detailLine({ ...node, instance: "" }), node.instance];
}
function stateOf(members) {
  const states = new Set(members.map((n) => nodes[n].state));
  return graph.badStates.find((one) => states.has(one)) || nodes[members[0]].state;
}

function boxOf(members) {
  const node = nodes[members[0]];
  const group = members.length > 1;
  const what = `${members.length} × ${node.step || node.measurement || node.data_type || node.name}`;
  const name = group ? [ellipsised(what, 178, 13)] : wrapped(node.name, 178, 13);
  const small = (group ? [node.step ? kindOfData(node) : "", `${node.name} …`] : [...detailLines(node), node.kind === "hidden" ? "" : shortId(node.id)])
    .filter(Boolean).map((line) => ellipsised(line, 178, 10.5));
  const shownState = stateOf(members);
  const count = group ? `${members.filter((n) => nodes[n].state === shownState).length} ` : "";
  const warning = !["", "complete", "current", "raw"].includes(shownState) ? `${count}${shownState}`.toUpperCase() : "";
  const rows = [...name.map((line) => [line, 13]), ...[...small, warning].map((line) => [line, 10.5])];
  const width = Math.max(60, ...rows.map(([line, px]) => textWidth(line, px))) + (node.kind === "sample" ? 40 : 25);
  return { node, group, name, small, warning, size: [width, 12 + 16 * name.length + 13.5 * (small.length + (warning ? 1 : 0))] };
}

function make(name, attributes, parent, text) {
  const element = document.createElementNS(SVG, name);
  for (const [attribute, value] of Object.entries(attributes)) element.setAttribute(attribute, value);
  if (text !== undefined) element.textContent = text;
  if (parent) parent.append(element);
  return element;
}

const picture = byId("picture");
const defs = make("defs", {}, picture);
const marker = make("marker", { id: "arrow", viewBox: "0 0 8 8", refX: 8, refY: 4, markerWidth: 7, markerHeight: 7,
  orient: "auto-start-reverse", markerUnits: "userSpaceOnUse" }, defs);
make("path", { id: "tip", d: "M0,0.8 L8,4 L0,7.2 z" }, marker);
const stage = make("g", {}, picture);

// On a screen that is narrower than high the picture goes downwards: beside each other few boxes can be read there.
const isNarrow = () => {
  const { width, height } = picture.getBoundingClientRect();
  return width < 700 && width < height;
};

function draw() {
  const fold = folded(state.single);
  const visible = [];
  const placeOf = new Map();
  fold.items.forEach((item, number) => {
    if (item.members.some((n) => state.shown.has(n) && mayShow(n))) {
      placeOf.set(number, visible.length);
      visible.push(number);
    }
  });
  const boxes = visible.map((number) => boxOf(fold.items[number].members));
  const edges = fold.edges.filter(({ from, to }) => from !== to && placeOf.has(from) && placeOf.has(to));
  const links = edges.map(({ from, to }) => [placeOf.get(from), placeOf.get(to)]);
  const upright = isNarrow();
  const place = upright ? downwards(boxes.map((box) => box.size), links) : layout(boxes.map((box) => box.size), links);
  picture.setAttribute("aria-label", `Lineage, raw data at the ${upright ? "top" : "left"}`);
  drawn = { upright, fold, visible, placeOf, boxes, edges, place, elements: [] };
  stage.replaceChildren();
  edges.forEach((edge, at) => drawEdge(edge, place.courses[at]));
  visible.forEach((number, at) => drawItem(number, at));
  highlight();
  const count = visible.reduce((sum, number) => sum + fold.items[number].members.length, 0);
  byId("status").textContent = `${count} of ${nodes.length} shown in ${visible.length} ${visible.length === 1 ? "box" : "boxes"}`;
  byId("superseded").textContent = state.superseded ? "Hide superseded" : `Show ${leftOut.size} superseded`;
}

function drawEdge(edge, course) {
  let [x, y] = course[0];
  let path = `M${x},${y}`;
  course.slice(1).forEach(([toX, toY], at) => {
    const bend = drawn.upright ? `${x},${(y + toY) / 2} ${toX},${(y + toY) / 2}` : `${(x + toX) / 2},${y} ${(x + toX) / 2},${toY}`;
    path += at % 2 ? `L${toX},${toY}` : `C${bend} ${toX},${toY}`;
    [x, y] = [toX, toY];
  });
  edge.elements = [make("path", { d: path, class: edge.said ? "edge other" : "edge", "marker-end": "url(#arrow)" }, stage)];
  if (edge.said || edge.note) {
    const [from, to] = course.slice(-2);
    const label = ellipsised(edge.note || edge.said, 66, 8);
    edge.elements.push(make("text", { x: (from[0] + to[0]) / 2, y: (from[1] + to[1]) / 2 - 3, class: "edge-label" }, stage, label));
  }
}

function drawItem(number, at) {
  const box = drawn.boxes[at];
  const members = drawn.fold.items[number].members;
  const [width, height] = box.size;
  const [x, y] = [drawn.place.centres[at][0] - width / 2, drawn.place.centres[at][1] - height / 2];
  const classes = ["item", box.node.kind];
  if (badStates.has(stateOf(members))) classes.push("bad");
  if (stateOf(members) === "superseded") classes.push("superseded");
  if (members.includes(graph.focus)) classes.push("focus");
  const element = make("g", { class: classes.join(" "), tabindex: 0, role: "button", "data-id": box.node.id }, stage);
  const tip = [box.group ? `${members.length} siblings` : box.node.name, detailLine(box.node), box.warning.toLowerCase() || box.node.state];
  make("title", {}, element, tip.filter(Boolean).join("\n"));
  element.setAttribute("aria-label", tip.filter(Boolean).join(", "));
  const shape = { width, height, rx: box.node.kind === "sample" ? height / 2 : 5, class: "frame" };
  if (box.group) make("rect", { ...shape, x: x + 4, y: y + 4 }, element);
  make("rect", { ...shape, x, y }, element);
  const colour = graph.colours[kindOfData(box.node)];
  if (colour) make("rect", { x: x + 2, y: y + 4, width: 5, height: height - 8, rx: 2, fill: colour, class: "bar" }, element);
  const left = x + (box.node.kind === "sample" ? 20 : 15);
  let baseline = y + 19;
  for (const line of box.name) {
    make("text", { x: left, y: baseline, class: "name" }, element, line);
    baseline += 16;
  }
  baseline -= 2;
  for (const line of box.small) {
    make("text", { x: left, y: baseline, class: "small" }, element, line);
    baseline += 13.5;
  }
  if (box.warning) make("text", { x: left, y: baseline, class: "warning" }, element, box.warning);
  element.addEventListener("click", () => select(number));
  element.addEventListener("keydown", (event) => itemKey(event, number));
  drawn.elements[at] = element;
  drawMore(number, "before", x - 13, y + height);
  drawMore(number, "after", x + width - 9, y + height);
}

// A handle at a lower corner that brings neighbours which are not drawn.
function drawMore(number, side, x, y) {
  const missing = [...drawn.fold.items[number][side]]
    .filter((other) => !drawn.placeOf.has(other) && drawn.fold.items[other].members.some(mayShow));
  if (!missing.length) return;
  const handle = make("g", { class: "more", role: "button", tabindex: 0 }, stage);
  const what = side === "before" ? "parents" : "children";
  make("title", {}, handle, `Show ${Math.min(STEP, missing.length)} of ${missing.length} more ${what}`);
  make("rect", { x, y: y - 9, width: 22, height: 18, rx: 9 }, handle);
  make("text", { x: x + 11, y: y + 4 }, handle, missing.length > 99 ? "99+" : `+${missing.length}`);
  const bring = () => {
    const members = missing.slice(0, STEP).flatMap((other) => drawn.fold.items[other].members);
    redraw(() => members.forEach((n) => state.shown.add(n)), drawn.fold.items[number].members[0]);
  };
  handle.addEventListener("click", bring);
  handle.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") bring(); });
}

// Changes what is shown and keeps one node where it is on the screen.
function redraw(change, anchor) {
  const before = centreOf(anchor);
  change();
  draw();
  const after = centreOf(anchor);
  if (before && after) {
    state.x += (before[0] - after[0]) * state.scale;
    state.y += (before[1] - after[1]) * state.scale;
    move();
  } else {
    fit();
  }
}

function centreOf(n) {
  const at = drawn.placeOf.get(drawn.fold.itemOf[n]);
  return at === undefined ? null : drawn.place.centres[at];
}
