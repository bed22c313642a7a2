// The lineage page's panel: choosing an item, the way to its roots, and all that is known of it.

// ---- choosing a node ----

function select(number) {
  const members = drawn.fold.items[number].members;
  state.selected = members[0];
  highlight();
  const opens = panel.hidden;
  showPanel(members);
  if (opens && state.fitted) fit(); // it was all to be seen, and stays so beside the panel
  else keepInSight(centreOf(members[0]));
}

function reveal(n) {
  if (!mayShow(n)) state.superseded = true;
  keepSingle(n);
  const fold = folded(state.single);
  state.shown = fitting(fold) <= FIRST_VIEW ? new Set(nodes.keys()) : nearest(fold, fold.itemOf[n]);
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
  const closes = !panel.hidden;
  panel.hidden = true;
  state.selected = null;
  highlight();
  if (closes && state.fitted) fit();
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
    element("p", node.id, "id");
    element("p", detailLine(node));
  }
  if (node.state) element("p", node.state, badStates.has(node.state) ? "bad" : "");
  if (graph.pages && node.kind === "dataset") {
    const link = element("a", "All about this dataset");
    [link.href, link.target] = [graph.pages + node.id, "_top"];
  }
  if (state.single.has(n) && n !== graph.focus) {
    button("Fold back among its siblings", () => {
      closePanel();
      redraw(() => state.single.delete(n), n);
    });
  }
  others("Superseded by", node.superseded_by.map((id) => ids.indexOf(id)).filter((other) => other >= 0));
  for (const id of node.superseded_by.filter((other) => graph.pages && !ids.includes(other))) {
    const link = element("a", `Superseded by ${shortId(id)}`);
    [link.href, link.target] = [graph.pages + id, "_top"];
  }
  const known = recordOf(n);
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
