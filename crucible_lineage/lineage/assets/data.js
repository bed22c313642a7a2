// What the lineage page holds: the graph and the records, unpacked from the page itself. The first of the page's files.
// Texts from records reach the page by textContent only. Folding and layout are those of view.py and layout.py.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const byId = (id) => document.getElementById(id);
if (!window.DecompressionStream) {
  byId("status").textContent = "This browser is too old to unpack the lineage: any of 2023 or later will do.";
  return;
}
const graph = JSON.parse(await inflated(byId("data").textContent));
const ids = graph.nodes.id;
const nodes = ids.map((_, n) => Object.fromEntries(Object.keys(graph.nodes).map((field) => [field, graph.nodes[field][n]])));
const edges = graph.edges.source.map((source, at) => [source, graph.edges.target[at], graph.edges.relationship[at],
  graph.edges.note[at]]);
const parents = nodes.map(() => []);
const children = nodes.map(() => []);
const relationship = new Map();
const key = (source, target) => source * nodes.length + target;
for (const [source, target, said] of edges) {
  parents[target].push(source);
  children[source].push(target);
  relationship.set(key(source, target), said);
}

function inflated(text) {
  const bytes = Uint8Array.from(atob(text), (symbol) => symbol.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).text();
}

function recordOf(n) {
  return graph.details[n];
}
