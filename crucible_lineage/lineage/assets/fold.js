// Which nodes of the lineage page stand together in one item, and which of them are drawn (as view.py).

const FEW = 40; // boxes that a screen shows at a readable size; beyond, fewer siblings are folded, as in pictures
const FIRST_VIEW = 100; // boxes that are drawn at first: all of them as in pictures, unless there are many more
const STEP = 10; // how many siblings or neighbours one click brings
const badStates = new Set(graph.badStates);
const state = { single: new Set(), most: graph.foldBeyond, shown: null, superseded: graph.superseded, selected: null,
  scale: 1, x: 0, y: 0 };
const leftOut = new Set(graph.leftOut); // superseded results that nothing drawn needs
const mayShow = (n) => state.superseded || !leftOut.has(n);
let drawn = null;

// ---- which items there are (as view.py) ----

// Edges but for those from a sample to a dataset whose parent was measured from the same sample.
const telling = edges.filter(([source, target, said]) =>
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

// Siblings parted by their roles in what was made of them; those that nothing was made of stay with the only role there is.
function byRoles(members) {
  const parted = new Map();
  for (const n of members) {
    if (parted.has(nodes[n].roles)) parted.get(nodes[n].roles).push(n);
    else parted.set(nodes[n].roles, [n]);
  }
  return [...parted.keys()].filter((roles) => roles).length <= 1 ? [members] : [...parted.values()];
}

function folded(single) {
  const groupOf = new Int32Array(nodes.length).fill(-1);
  for (const generation of generations) {
    const siblings = new Map();
    for (const n of generation) {
      const node = nodes[n];
      const above = [...new Set(tellingParents[n].filter(mayShow).map((p) => (groupOf[p] < 0 ? p : groupOf[p])))].sort((a, b) => a - b);
      const alone = single.has(n) || !placed[n] ? n : "";
      const place = JSON.stringify([above, node.kind, node.step || [node.measurement, node.data_type], node.declared,
        node.state === "superseded", alone]);
      if (siblings.has(place)) siblings.get(place).push(n);
      else siblings.set(place, [n]);
    }
    for (const members of [...siblings.values()].flatMap(byRoles)) {
      for (const n of members) groupOf[n] = members.length > state.most ? members[0] : n;
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
  for (const [source, target, said, note] of telling) {
    const [from, to] = [itemOf[source], itemOf[target]];
    const name = `${from},${to}`;
    const before = edges.get(name) ?? { said, note };
    edges.set(name, { from, to, said: before.said === said ? said : "untyped link", note: before.note === note ? note : "" });
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
    if (parents[at].length <= state.most) waiting.push(...parents[at]);
  }
}

// The nodes of the items nearest to one, as many as fit the first view.
function nearest(fold, start) {
  const met = new Set([start]);
  for (const number of met) {
    for (const other of [...fold.items[number].before, ...fold.items[number].after]) {
      if (met.size < FEW && fold.items[other].members.some(mayShow)) met.add(other);
    }
  }
  return new Set([...met].flatMap((number) => fold.items[number].members));
}

const fitting = (fold) => fold.items.filter((item) => item.members.some(mayShow)).length;

function firstView(focus) {
  let fold = null;
  for (state.most = graph.foldBeyond; state.most > 0; state.most--) {
    state.single = new Set();
    if (focus !== null) keepSingle(focus);
    fold = folded(state.single);
    if (fitting(fold) <= FEW) break;
  }
  state.most = Math.max(state.most, 1);
  const start = focus === null ? widest(fold) : fold.itemOf[focus];
  state.shown = fitting(fold) <= FIRST_VIEW ? new Set(nodes.keys()) : nearest(fold, start);
}

// Without a focus: the item with the most neighbours, which is where most can be seen from.
function widest(fold) {
  let best = 0;
  fold.items.forEach((item, number) => {
    const size = (i) => (i.members.some(mayShow) ? i.before.size + i.after.size : -1);
    if (size(item) > size(fold.items[best])) best = number;
  });
  return best;
}
