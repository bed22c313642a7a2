// Moving about in the lineage page, its search, buttons and keys; begins it all. The last of the page's files.

// ---- moving about ----

const move = () => stage.setAttribute("transform", `translate(${state.x},${state.y}) scale(${state.scale})`);

const READABLE = 0.7; // on a narrow screen, what does not fit so is moved to, and not made smaller

function fit() {
  const { width, height } = drawn.place;
  const room = picture.getBoundingClientRect();
  const edge = drawn.upright ? 24 : 80;
  state.scale = Math.min(1.25, (room.width - edge) / Math.max(width, 1), (room.height - 48) / Math.max(height, 1));
  state.scale = Math.max(state.scale, drawn.upright ? READABLE : 0.05);
  const [x, y] = [room.width - width * state.scale, room.height - height * state.scale];
  const centre = centreOf(state.selected ?? graph.focus) ?? [width / 2, height / 2];
  state.x = x > 0 ? x / 2 : Math.max(x - 12, Math.min(12, room.width / 2 - centre[0] * state.scale));
  state.y = y > 0 ? y / 2 : Math.max(y - 24, Math.min(24, room.height / 2 - centre[1] * state.scale));
  state.fitted = true;
  move();
}

function zoom(factor, x, y) {
  const room = picture.getBoundingClientRect();
  const [atX, atY] = [x ?? room.width / 2, y ?? room.height / 2];
  const scale = Math.min(4, Math.max(0.02, state.scale * factor));
  state.x = atX - ((atX - state.x) * scale) / state.scale;
  state.y = atY - ((atY - state.y) * scale) / state.scale;
  state.scale = scale;
  state.fitted = false;
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
  state.fitted = false;
  move();
});
for (const over of ["pointerup", "pointercancel"]) picture.addEventListener(over, () => { drag = null; });

// ---- search, buttons, keys ----

const search = byId("search");
const matches = byId("matches");
const haystack = nodes.map((node) =>
  (node.kind === "hidden" ? "" : [node.name, node.id, node.instance, node.measurement].join("\n").toLowerCase()));

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
byId("superseded").hidden = !leftOut.size;
byId("superseded").addEventListener("click", () => {
  state.superseded = !state.superseded;
  reset();
});
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
window.addEventListener("resize", () => {
  if (drawn.upright !== isNarrow()) draw();
  fit();
});

for (const [kind, colour] of Object.entries(graph.colours)) {
  const entry = element("span", "", "", byId("legend"));
  const patch = make("svg", { viewBox: "0 0 10 10" }, entry);
  make("rect", { width: 10, height: 10, rx: 2, fill: colour, class: "bar" }, patch);
  entry.append(kind);
}
reset();
