// The lineage page: folds the graph, lays it out, draws it, and tells what is known of each dataset.
// Texts from records reach the page by textContent only. Folding and layout are those of view.py and layout.py.
"use strict";
(() => {
  const FIRST_VIEW = 40; // boxes: what a screen shows at a readable size
  const STEP = 10; // how many siblings or neighbours one click brings
  const SVG = "http://www.w3.org/2000/svg";
  const byId = (id) => document.getElementById(id);
  const graph = JSON.parse(byId("graph").textContent);
  const nodes = graph.nodes.map((row) => Object.fromEntries(graph.fields.map((field, at) => [field, row[at]])));
  const parents = nodes.map(() => []);
  const children = nodes.map(() => []);
  const relationship = new Map();
  const key = (source, target) => source * nodes.length + target;
  for (const [source, target, said] of graph.edges) {
    parents[target].push(source);
    children[source].push(target);
    relationship.set(key(source, target), said);
  }
  const badStates = new Set(graph.badStates);
  let details = null; // parsed when first needed: it can be large
  const state = { single: new Set(), shown: null, selected: null, scale: 1, x: 0, y: 0 };
  let drawn = null;

  // ---- which items there are (as view.py) ----

  // Edges but for those from a sample to a dataset whose parent was measured from the same sample.
  const telling = graph.edges.filter(([source, target, said]) =>
    said !== "measured-from" || !parents[target].some((p) => p !== target && relationship.has(key(source, p))));
  const tellingParents = nodes.map(() => []);
  for (const [source, target] of telling) tellingParents[target].push(source);
  const { generations, placed } = inGenerations();

  function inGenerations() {
    const waiting = parents.map((above) => above.length);
    const met = nodes.map(() => false);
    const found = [];
    let generation = nodes.map((_, n) => n).filter((n) => !waiting[n]);
    while (generation.length) {
      found.push(generation);
      const following = [];
      for (const n of generation) {
        met[n] = true;
        for (const child of children[n]) if (--waiting[child] === 0) following.push(child);
      }
      generation = following;
    }
    found.push(nodes.map((_, n) => n).filter((n) => !met[n]));
    return { generations: found, placed: met };
  }

  function folded(single) {
    const groupOf = new Int32Array(nodes.length).fill(-1);
    for (const generation of generations) {
      const siblings = new Map();
      for (const n of generation) {
        const node = nodes[n];
        const above = [...new Set(tellingParents[n].map((p) => (groupOf[p] < 0 ? p : groupOf[p])))].sort((a, b) => a - b);
        const alone = single.has(n) || !placed[n] ? n : "";
        const place = JSON.stringify([above, node.kind, node.step || [node.measurement, node.data_type], alone]);
        if (siblings.has(place)) siblings.get(place).push(n);
        else siblings.set(place, [n]);
      }
      for (const members of siblings.values()) {
        for (const n of members) groupOf[n] = members.length > graph.foldBeyond ? members[0] : n;
      }
    }
    const items = [];
    const numberOfGroup = new Map();
    const itemOf = nodes.map((_, n) => {
      if (!numberOfGroup.has(groupOf[n])) {
        numberOfGroup.set(groupOf[n], items.length);
        items.push({ members: [], before: new Set(), after: new Set() });
      }
      const number = numberOfGroup.get(groupOf[n]);
      items[number].members.push(n);
      return number;
    });
    const edges = new Map();
    for (const [source, target, said] of telling) {
      const [from, to] = [itemOf[source], itemOf[target]];
      const name = `${from},${to}`;
      edges.set(name, { from, to, said: !edges.has(name) || edges.get(name).said === said ? said : "" });
      if (from !== to) {
        items[from].after.add(to);
        items[to].before.add(from);
      }
    }
    return { items, itemOf, edges: [...edges.values()] };
  }

  function keepSingle(n) {
    const waiting = [n];
    while (waiting.length) {
      const at = waiting.pop();
      if (state.single.has(at)) continue;
      state.single.add(at);
      if (parents[at].length <= graph.foldBeyond) waiting.push(...parents[at]);
    }
  }

  // The nodes of the items nearest to one, as many as fit the first view.
  function nearest(fold, start) {
    const met = new Set([start]);
    for (const number of met) {
      for (const other of [...fold.items[number].before, ...fold.items[number].after]) {
        if (met.size < FIRST_VIEW) met.add(other);
      }
    }
    return new Set([...met].flatMap((number) => fold.items[number].members));
  }

  function firstView(focus) {
    state.single = new Set();
    if (focus !== null) keepSingle(focus);
    const fold = folded(state.single);
    const start = focus === null ? widest(fold) : fold.itemOf[focus];
    state.shown = fold.items.length <= FIRST_VIEW ? new Set(nodes.keys()) : nearest(fold, start);
  }

  // Without a focus: the item with the most neighbours, which is where most can be seen from.
  function widest(fold) {
    let best = 0;
    fold.items.forEach((item, number) => {
      const size = (i) => i.before.size + i.after.size;
      if (size(item) > size(fold.items[best])) best = number;
    });
    return best;
  }

  // ---- where they stand (as layout.py) ----

  function layout(sizes, links, columnGap = 70, rowGap = 14) {
    const count = sizes.length;
    const forward = acyclic(count, links);
    const layer = layers(count, forward);
    const layerOf = [...layer];
    const heights = sizes.map((size) => size[1]);
    const shared = new Map();
    const chains = links.map(([source, target]) => {
      const [left, right] = layer[source] < layer[target] ? [source, target] : [target, source];
      const chain = [left];
      for (let column = layer[left] + 1; column < layer[right]; column++) {
        const name = `${left},${column}`;
        if (!shared.has(name)) {
          shared.set(name, layerOf.length);
          layerOf.push(column);
          heights.push(10);
        }
        chain.push(shared.get(name));
      }
      return [...chain, right];
    });
    const before = layerOf.map(() => []);
    const after = layerOf.map(() => []);
    const steps = new Set();
    for (const chain of chains) {
      for (let at = 1; at < chain.length; at++) {
        const name = `${chain[at - 1]},${chain[at]}`;
        if (steps.has(name)) continue;
        steps.add(name);
        after[chain[at - 1]].push(chain[at]);
        before[chain[at]].push(chain[at - 1]);
      }
    }
    const columns = ordered(layerOf, before, after);
    const ys = heightsOf(columns, before, after, heights, rowGap, count);
    const widths = columns.map((column) => Math.max(0, ...column.filter((n) => n < count).map((n) => sizes[n][0])));
    const xs = [];
    let left = 0;
    for (const width of widths) {
      xs.push(left + width / 2);
      left += width + columnGap;
    }
    const centres = sizes.map((_, n) => [xs[layerOf[n]], ys[n]]);
    const courses = chains.map((chain) => {
      const [first, last] = [chain[0], chain[chain.length - 1]];
      const points = [[xs[layerOf[first]] + sizes[first][0] / 2, ys[first]]];
      for (const n of chain.slice(1, -1)) {
        const [x, half] = [xs[layerOf[n]], widths[layerOf[n]] / 2];
        points.push([x - half, ys[n]], [x + half, ys[n]]);
      }
      points.push([xs[layerOf[last]] - sizes[last][0] / 2, ys[last]]);
      return points;
    });
    const height = Math.max(0, ...ys.map((y, n) => y + heights[n] / 2));
    return { centres, courses, width: Math.max(0, left - columnGap), height };
  }

  function acyclic(count, links) {
    const below = Array.from({ length: count }, () => []);
    const hasParent = new Array(count).fill(false);
    for (const [source, target] of links) {
      below[source].push(target);
      hasParent[target] = true;
    }
    const met = new Uint8Array(count); // 0 not met, 1 on the way, 2 done
    const backward = new Set();
    const starts = [...below.keys()].sort((a, b) => hasParent[a] - hasParent[b] || a - b);
    for (const start of starts) {
      if (met[start]) continue;
      met[start] = 1;
      const stack = [[start, 0]];
      while (stack.length) {
        const top = stack[stack.length - 1];
        const child = below[top[0]][top[1]++];
        if (child === undefined) {
          met[top[0]] = 2;
          stack.pop();
        } else if (met[child] === 1) {
          backward.add(`${top[0]},${child}`);
        } else if (!met[child]) {
          met[child] = 1;
          stack.push([child, 0]);
        }
      }
    }
    return links.map(([s, t]) => (backward.has(`${s},${t}`) ? [t, s] : [s, t]));
  }

  function layers(count, links) {
    const above = Array.from({ length: count }, () => []);
    const below = Array.from({ length: count }, () => []);
    for (const [source, target] of links) {
      below[source].push(target);
      above[target].push(source);
    }
    const waiting = above.map((list) => list.length);
    const order = [...above.keys()].filter((n) => !waiting[n]);
    const layer = new Array(count).fill(0);
    for (const n of order) {
      for (const child of below[n]) {
        layer[child] = Math.max(layer[child], layer[n] + 1);
        if (--waiting[child] === 0) order.push(child);
      }
    }
    for (const n of order) {
      if (!above[n].length && below[n].length) layer[n] = Math.min(...below[n].map((child) => layer[child])) - 1;
    }
    return layer;
  }

  function ordered(layerOf, before, after) {
    const columns = Array.from({ length: Math.max(-1, ...layerOf) + 1 }, () => []);
    const met = new Set();
    const starts = [...layerOf.keys()].sort((a, b) => (before[a].length > 0) - (before[b].length > 0) || a - b);
    for (const start of starts) {
      const waiting = [start];
      while (waiting.length) {
        const n = waiting.pop();
        if (met.has(n)) continue;
        met.add(n);
        columns[layerOf[n]].push(n);
        waiting.push(...[...after[n]].reverse());
      }
    }
    let best = columns.map((column) => [...column]);
    let fewest = crossings(columns, after);
    for (let sweep = 0; sweep < 12; sweep++) {
      const rightwards = sweep % 2 === 0;
      for (let step = 1; step < columns.length; step++) {
        const at = rightwards ? step : columns.length - 1 - step;
        const place = new Map(columns[rightwards ? at - 1 : at + 1].map((n, position) => [n, position]));
        const beside = rightwards ? before : after;
        const wished = new Map(columns[at].map((n, position) => [n, beside[n].length
          ? beside[n].reduce((sum, other) => sum + place.get(other), 0) / beside[n].length : position]));
        columns[at].sort((a, b) => wished.get(a) - wished.get(b));
      }
      const now = crossings(columns, after);
      if (now < fewest) [best, fewest] = [columns.map((column) => [...column]), now];
    }
    return best;
  }

  function crossings(columns, after) {
    let count = 0;
    for (let at = 1; at < columns.length; at++) {
      const place = new Map(columns[at].map((n, position) => [n, position]));
      const passed = [];
      for (const n of columns[at - 1]) {
        const ends = after[n].map((other) => place.get(other));
        for (const end of ends) count += passed.filter((other) => other > end).length;
        passed.push(...ends);
      }
    }
    return count;
  }

  function heightsOf(columns, before, after, heights, rowGap, boxes) {
    const ys = heights.map(() => 0);
    for (const column of columns) spread(column, column.map(() => 0), column.map(() => 1), heights, rowGap, ys);
    for (let sweep = 0; sweep < 24; sweep++) {
      const rightwards = sweep % 2 === 0;
      for (const column of rightwards ? columns : [...columns].reverse()) {
        const wishes = [];
        const weights = [];
        for (const n of column) {
          const beside = sweep >= 22 ? [...before[n], ...after[n]] : rightwards ? before[n] : after[n];
          const strength = beside.map((other) => (n >= boxes && other >= boxes ? 8 : 1));
          const total = strength.reduce((sum, one) => sum + one, 0);
          wishes.push(total ? beside.reduce((sum, other, at) => sum + ys[other] * strength[at], 0) / total : ys[n]);
          weights.push(total || 0.1);
        }
        spread(column, wishes, weights, heights, rowGap, ys);
      }
    }
    const top = Math.min(...ys.map((y, n) => y - heights[n] / 2));
    return ys.map((y) => y - top);
  }

  // Nearest to the wishes by weighted squares without overlap (pool adjacent violators).
  function spread(column, wishes, weights, heights, rowGap, ys) {
    const offsets = [];
    column.forEach((n, at) => {
      offsets.push(at ? offsets[at - 1] + (heights[column[at - 1]] + heights[n]) / 2 + rowGap : 0);
    });
    const blocks = [];
    column.forEach((_, at) => {
      let block = { mean: wishes[at] - offsets[at], weight: weights[at], count: 1 };
      while (blocks.length && blocks[blocks.length - 1].mean > block.mean) {
        const other = blocks.pop();
        const weight = block.weight + other.weight;
        const mean = (block.mean * block.weight + other.mean * other.weight) / weight;
        block = { mean, weight, count: block.count + other.count };
      }
      blocks.push(block);
    });
    const means = blocks.flatMap((block) => new Array(block.count).fill(block.mean));
    column.forEach((n, at) => { ys[n] = means[at] + offsets[at]; });
  }

  // ---- drawing ----

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
  const namesNothing = (node) => node.kind === "hidden" || node.kind === "step";
  function detailLine(node) {
    if (namesNothing(node)) return "";
    const kind = node.kind === "sample" ? node.data_type || "sample" : node.measurement || node.data_type;
    return [kind, node.step].filter(Boolean).join(" · ");
  }
  function stateOf(members) {
    const states = new Set(members.map((n) => nodes[n].state));
    return ["failed", "missing", "incomplete", "stale"].find((one) => states.has(one)) || nodes[members[0]].state;
  }

  function boxOf(members) {
    const node = nodes[members[0]];
    const group = members.length > 1;
    const what = `${members.length} × ${node.step || node.measurement || node.data_type || node.name}`;
    const name = group ? [ellipsised(what, 178, 13)] : wrapped(node.name, 178, 13);
    const small = (group ? [kindOfData(node), `${node.name} …`] : [detailLine(node), namesNothing(node) ? "" : shortId(node.id)])
      .filter(Boolean).map((line) => ellipsised(line, 178, 10.5));
    const shownState = stateOf(members);
    const warning = shownState && shownState !== "complete" ? shownState.toUpperCase() : "";
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

  function draw() {
    const fold = folded(state.single);
    const visible = [];
    const placeOf = new Map();
    fold.items.forEach((item, number) => {
      if (item.members.some((n) => state.shown.has(n))) {
        placeOf.set(number, visible.length);
        visible.push(number);
      }
    });
    const boxes = visible.map((number) => boxOf(fold.items[number].members));
    const edges = fold.edges.filter(({ from, to }) => from !== to && placeOf.has(from) && placeOf.has(to));
    const place = layout(boxes.map((box) => box.size), edges.map(({ from, to }) => [placeOf.get(from), placeOf.get(to)]));
    drawn = { fold, visible, placeOf, boxes, edges, place, elements: [] };
    stage.replaceChildren();
    edges.forEach((edge, at) => drawEdge(edge, place.courses[at]));
    visible.forEach((number, at) => drawItem(number, at));
    highlight();
    const count = visible.reduce((sum, number) => sum + fold.items[number].members.length, 0);
    byId("status").textContent = `${count} of ${nodes.length} shown in ${visible.length} boxes`;
  }

  function drawEdge(edge, course) {
    let [x, y] = course[0];
    let path = `M${x},${y}`;
    course.slice(1).forEach(([toX, toY], at) => {
      const middle = (x + toX) / 2;
      path += at % 2 ? `L${toX},${toY}` : `C${middle},${y} ${middle},${toY} ${toX},${toY}`;
      [x, y] = [toX, toY];
    });
    const { centres } = drawn.place;
    const backward = centres[drawn.placeOf.get(edge.from)][0] > centres[drawn.placeOf.get(edge.to)][0];
    const other = edge.said !== "is_derived_from";
    edge.elements = [make("path", { d: path, class: other ? "edge other" : "edge",
      [backward ? "marker-start" : "marker-end"]: "url(#arrow)" }, stage)];
    if (other) {
      const [from, to] = course.slice(-2);
      const label = ellipsised(edge.said || "untyped", 66, 8);
      edge.elements.push(make("text", { x: (from[0] + to[0]) / 2, y: to[1] - 4, class: "edge-label" }, stage, label));
    }
  }

  function drawItem(number, at) {
    const box = drawn.boxes[at];
    const members = drawn.fold.items[number].members;
    const [width, height] = box.size;
    const [x, y] = [drawn.place.centres[at][0] - width / 2, drawn.place.centres[at][1] - height / 2];
    const classes = ["item", box.node.kind];
    if (badStates.has(stateOf(members))) classes.push("bad");
    if (members.includes(graph.focus)) classes.push("focus");
    const element = make("g", { class: classes.join(" "), tabindex: 0, role: "button", "data-id": box.node.id }, stage);
    const tip = [box.group ? `${members.length} siblings` : box.node.name, detailLine(box.node), box.warning.toLowerCase() || box.node.state];
    make("title", {}, element, tip.filter(Boolean).join("\n"));
    element.setAttribute("aria-label", tip.filter(Boolean).join(", "));
    const shape = { width, height, rx: box.node.kind === "sample" ? height / 2 : 5, class: "frame" };
    if (box.group) make("rect", { ...shape, x: x + 4, y: y + 4 }, element);
    make("rect", { ...shape, x, y }, element);
    const colour = graph.colours[kindOfData(box.node)];
    if (colour) make("rect", { x: x + 2, y: y + 4, width: 5, height: height - 8, rx: 2, fill: colour }, element);
    const left = x + (box.node.kind === "sample" ? 20 : 15);
    let baseline = y + 19;
    for (const line of box.name) {
      make("text", { x: left, y: baseline }, element, line);
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
    const missing = [...drawn.fold.items[number][side]].filter((other) => !drawn.placeOf.has(other));
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

  // ---- choosing a node ----

  function select(number) {
    const members = drawn.fold.items[number].members;
    state.selected = members[0];
    highlight();
    showPanel(members);
    keepInSight(centreOf(members[0]));
  }

  function reveal(n) {
    keepSingle(n);
    const fold = folded(state.single);
    state.shown = fold.items.length <= FIRST_VIEW ? new Set(nodes.keys()) : nearest(fold, fold.itemOf[n]);
    draw();
    select(drawn.fold.itemOf[n]);
    fit();
    const element = drawn.elements[drawn.placeOf.get(drawn.fold.itemOf[n])];
    element.focus({ preventScroll: true });
  }

  // The way from the chosen item to its roots stands out, all else steps back.
  function highlight() {
    const at = state.selected === null ? undefined : drawn.placeOf.get(drawn.fold.itemOf[state.selected]);
    stage.classList.toggle("path", at !== undefined);
    const way = new Set(at === undefined ? [] : [drawn.visible[at]]);
    for (const number of way) for (const above of drawn.fold.items[number].before) way.add(above);
    drawn.visible.forEach((number, place) => {
      drawn.elements[place].classList.toggle("on", way.has(number));
      drawn.elements[place].classList.toggle("selected", place === at);
    });
    for (const { from, to, elements } of drawn.edges) {
      elements.forEach((element) => element.classList.toggle("on", way.has(from) && way.has(to)));
    }
  }

  function itemKey(event, number) {
    const go = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (event.key === "Enter" || event.key === " ") select(number);
    else if (go) neighbour(number, go);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  // Left and right follow links, up and down stay in the column.
  function neighbour(number, [dx, dy]) {
    const { centres } = drawn.place;
    const here = centres[drawn.placeOf.get(number)];
    const { before, after } = drawn.fold.items[number];
    const candidates = dx ? [...(dx < 0 ? before : after)] : drawn.visible.filter((other) => {
      const there = centres[drawn.placeOf.get(other)];
      return there[0] === here[0] && (there[1] - here[1]) * dy > 0;
    });
    const near = candidates.filter((other) => drawn.placeOf.has(other)).map((other) => drawn.placeOf.get(other))
      .sort((a, b) => Math.abs(centres[a][1] - here[1]) - Math.abs(centres[b][1] - here[1]))[0];
    if (near !== undefined) {
      drawn.elements[near].focus({ preventScroll: true });
      keepInSight(centres[near]);
    }
  }

  // ---- the panel ----

  const panel = byId("panel");

  function element(name, text, className, parent = panel) {
    const made = document.createElement(name);
    if (text !== undefined && text !== null) made.textContent = text;
    if (className) made.className = className;
    parent.append(made);
    return made;
  }

  function button(text, action, parent = panel) {
    const made = element("button", text, "", parent);
    made.type = "button";
    made.addEventListener("click", action);
    return made;
  }

  function showPanel(members) {
    panel.replaceChildren();
    panel.hidden = false;
    const close = button("×", closePanel);
    close.className = "close";
    close.setAttribute("aria-label", "Close");
    if (members.length > 1) showGroup(members);
    else showNode(members[0]);
    panel.scrollTop = 0;
  }

  function closePanel() {
    panel.hidden = true;
    state.selected = null;
    highlight();
  }

  function showGroup(members) {
    const node = nodes[members[0]];
    element("h2", `${members.length} × ${node.step || node.measurement || node.data_type || node.name}`);
    element("p", detailLine(node));
    button(`Draw ${Math.min(STEP, members.length)} of them one by one`, () => {
      members.slice(0, STEP).forEach((n) => state.single.add(n));
      draw();
      fit();
      select(drawn.fold.itemOf[members[0]]);
    });
    others("Datasets", members);
  }

  function showNode(n) {
    const node = nodes[n];
    element("h2", node.name);
    if (node.kind === "hidden") {
      element("p", "You may not see this one, or it no longer exists.");
    } else {
      if (node.kind !== "step") element("p", node.id, "id");
      element("p", detailLine(node));
    }
    if (node.state) element("p", node.state, badStates.has(node.state) ? "bad" : "");
    if (state.single.has(n) && n !== graph.focus) {
      button("Fold back among its siblings", () => {
        closePanel();
        redraw(() => state.single.delete(n), n);
      });
    }
    details = details || JSON.parse(byId("details").textContent);
    const known = details[n];
    if (known) showRecord(known, node.name);
    others("Parents", parents[n]);
    others("Children", children[n]);
    if (known && Object.keys(known.provenance).length) {
      element("h3", "Provenance");
      element("pre", JSON.stringify(known.provenance, null, 1));
    }
  }

  function showRecord(known, name) {
    if (known.thumbnail) {
      const image = element("img");
      image.src = known.thumbnail;
      image.alt = `Preview of ${name}`;
    }
    table("Record", known.record);
    table("Parameters", known.params);
    if (known.files.length) {
      element("h3", "Files");
      const rows = element("table");
      for (const file of known.files) {
        row(rows, file.name, [size(file.size), file.sha256 && `sha256 ${file.sha256}`].filter(Boolean).join("\n"));
      }
    }
    table("Scientific metadata", known.metadata);
  }

  function table(heading, values) {
    const entries = Object.entries(values || {});
    if (!entries.length) return;
    element("h3", heading);
    const rows = element("table");
    for (const [name, value] of entries) row(rows, name, typeof value === "string" ? value : JSON.stringify(value, null, 1));
  }

  function row(rows, name, value) {
    const line = element("tr", "", "", rows);
    element("td", name, "", line);
    element("pre", value, "", element("td", "", "", line));
  }

  function size(bytes) {
    if (typeof bytes !== "number") return "";
    const units = ["B", "kB", "MB", "GB", "TB"];
    const power = bytes < 1000 ? 0 : Math.min(units.length - 1, Math.floor(Math.log10(bytes) / 3));
    return `${power ? (bytes / 1000 ** power).toPrecision(3) : bytes} ${units[power]}`;
  }

  function others(heading, list) {
    if (!list.length) return;
    element("h3", `${heading} (${list.length})`);
    const box = element("div", "", "others");
    for (const n of list.slice(0, 50)) {
      button([nodes[n].name, detailLine(nodes[n])].filter(Boolean).join(" · "), () => reveal(n), box);
    }
    if (list.length > 50) element("p", `and ${list.length - 50} more; search finds them`, "", box);
  }

  // ---- moving about ----

  const move = () => stage.setAttribute("transform", `translate(${state.x},${state.y}) scale(${state.scale})`);

  function fit() {
    const { width, height } = drawn.place;
    const room = picture.getBoundingClientRect();
    state.scale = Math.min(1.25, (room.width - 80) / Math.max(width, 1), (room.height - 48) / Math.max(height, 1));
    state.scale = Math.max(state.scale, 0.05);
    state.x = (room.width - width * state.scale) / 2;
    state.y = (room.height - height * state.scale) / 2;
    move();
  }

  function zoom(factor, x, y) {
    const room = picture.getBoundingClientRect();
    const [atX, atY] = [x ?? room.width / 2, y ?? room.height / 2];
    const scale = Math.min(4, Math.max(0.02, state.scale * factor));
    state.x = atX - ((atX - state.x) * scale) / state.scale;
    state.y = atY - ((atY - state.y) * scale) / state.scale;
    state.scale = scale;
    move();
  }

  function keepInSight([x, y]) {
    const room = picture.getBoundingClientRect();
    const [atX, atY] = [x * state.scale + state.x, y * state.scale + state.y];
    state.x += Math.max(120 - atX, 0) + Math.min(room.width - 120 - atX, 0);
    state.y += Math.max(60 - atY, 0) + Math.min(room.height - 60 - atY, 0);
    move();
  }

  picture.addEventListener("wheel", (event) => {
    event.preventDefault();
    const room = picture.getBoundingClientRect();
    zoom(Math.exp(-event.deltaY * 0.0015), event.clientX - room.left, event.clientY - room.top);
  }, { passive: false });
  let drag = null;
  picture.addEventListener("pointerdown", (event) => {
    if (!event.target.closest(".item, .more")) {
      drag = [event.clientX - state.x, event.clientY - state.y];
      picture.setPointerCapture(event.pointerId);
    }
  });
  picture.addEventListener("pointermove", (event) => {
    if (!drag) return;
    [state.x, state.y] = [event.clientX - drag[0], event.clientY - drag[1]];
    move();
  });
  for (const over of ["pointerup", "pointercancel"]) picture.addEventListener(over, () => { drag = null; });

  // ---- search, buttons, keys ----

  const search = byId("search");
  const matches = byId("matches");
  const haystack = nodes.map((node) =>
    (node.kind === "hidden" ? "" : [node.name, node.id, node.step, node.measurement].join("\n").toLowerCase()));

  function find() {
    const wanted = search.value.trim().toLowerCase();
    matches.replaceChildren();
    const found = [];
    for (let n = 0; wanted && n < nodes.length && found.length < 20; n++) if (haystack[n].includes(wanted)) found.push(n);
    for (const n of found) {
      const entry = element("li", "", "", matches);
      button([nodes[n].name, detailLine(nodes[n]), shortId(nodes[n].id)].filter(Boolean).join(" · "), () => choose(n), entry);
    }
    if (wanted && !found.length) element("li", "nothing found", "", matches);
    matches.hidden = !wanted;
    return found;
  }

  function choose(n) {
    matches.hidden = true;
    search.value = "";
    reveal(n);
  }

  search.addEventListener("input", find);
  search.addEventListener("keydown", (event) => {
    if (event.key === "Enter") {
      const [first] = find();
      if (first !== undefined) choose(first);
    } else if (event.key === "ArrowDown") {
      matches.querySelector("button")?.focus();
      event.preventDefault();
    }
  });

  function reset() {
    firstView(graph.focus);
    state.selected = null;
    panel.hidden = true;
    draw();
    fit();
  }

  byId("zoom-in").addEventListener("click", () => zoom(1.25));
  byId("zoom-out").addEventListener("click", () => zoom(0.8));
  byId("fit").addEventListener("click", fit);
  byId("reset").addEventListener("click", reset);
  byId("theme").addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      matches.hidden = true;
      closePanel();
    }
    if (event.target === search || event.ctrlKey || event.metaKey || event.altKey) return;
    const action = { "/": () => search.focus(), "+": () => zoom(1.25), "-": () => zoom(0.8), 0: fit }[event.key];
    if (action) {
      event.preventDefault();
      action();
    }
  });
  window.addEventListener("resize", fit);

  for (const [kind, colour] of Object.entries(graph.colours)) {
    const entry = element("span", "", "", byId("legend"));
    const patch = make("svg", { viewBox: "0 0 10 10" }, entry);
    make("rect", { width: 10, height: 10, rx: 2, fill: colour }, patch);
    entry.append(kind);
  }
  reset();
})();
