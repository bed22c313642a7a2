// Where the items of the lineage page stand, and the courses of their links (as layout.py). Numbers in, numbers out.

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

// The same with the first data at the top: as if it were looked at from the side.
function downwards(sizes, links) {
  const side = ([a, b]) => [b, a];
  const { centres, courses, width, height } = layout(sizes.map(side), links, 46, 18);
  return { centres: centres.map(side), courses: courses.map((course) => course.map(side)), width: height, height: width };
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
