// Where the items of the lineage page stand, and the courses of their links (as layout.py). Numbers in, numbers out.

const SCREEN = [1400, 900]; // pixels; a picture that does not fit is shown smaller, and its text too
const GAIN = 0.8; // it is wrapped only if it then shrinks so much less, since its lines are longer
const CLEAR = 5; // lines from one band to the next that are easy to follow
const [BEND, TRACK] = [16, 6]; // from a band to the first line that leads to the next one, and from that to another

function layout(sizes, links, columnGap = 70, rowGap = 14, screen = SCREEN) {
  const count = sizes.length;
  const layer = layers(sizes, acyclic(count, links), columnGap, rowGap, screen);
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
  const { xs, turns } = bands(columns, after, widths, ys, heights, columnGap, screen);
  const centres = sizes.map((_, n) => [xs[layerOf[n]], ys[n]]);
  const courses = chains.map((chain, at) => {
    const [first, last] = [chain[0], chain[chain.length - 1]];
    const points = [[xs[layerOf[first]] + sizes[first][0] / 2, ys[first]]];
    chain.slice(1).forEach((n, before) => {
      const [x, half] = [xs[layerOf[n]], widths[layerOf[n]] / 2];
      if (turns.has(chain[before])) {
        const [right, below, left] = turns.get(chain[before]);
        points.push([right, ys[chain[before]]], [right, below], [left, below], [left, ys[n]]);
      }
      points.push([x - half, ys[n]], [x + half, ys[n]]);
    });
    points.splice(-2, 2, [xs[layerOf[last]] - sizes[last][0] / 2, ys[last]]);
    return first === links[at][0] ? points : points.reverse();
  });
  const width = Math.max(0, ...xs.map((x, at) => x + widths[at] / 2), ...[...turns.values()].map(([right]) => right));
  const height = Math.max(0, ...ys.map((y, n) => y + heights[n] / 2));
  return { centres, courses, width, height };
}

// The same with the first data at the top: as if it were looked at from the side.
function downwards(sizes, links) {
  const side = ([a, b]) => [b, a];
  const { centres, courses, width, height } = layout(sizes.map(side), links, 46, 18, [Infinity, Infinity]);
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

// The choice whose picture is shown largest on a screen, or the first one unless that is much better.
function bestOf(choices, sizeOf, screen) {
  const shrunk = choices.map((choice) => Math.max(1, ...sizeOf(choice).map((side, at) => side / screen[at])));
  const best = shrunk.indexOf(Math.min(...shrunk));
  return choices[shrunk[best] < GAIN * shrunk[0] ? best : 0];
}

// A column has as many boxes as a screen bears, the outermost of a layer first, so that lines pass in the middle.
function layers(sizes, links, columnGap, rowGap, screen) {
  const above = sizes.map(() => []);
  const below = sizes.map(() => []);
  for (const [source, target] of links) {
    below[source].push(target);
    above[target].push(source);
  }
  const waiting = above.map((list) => list.length);
  const generations = [];
  let generation = [...above.keys()].filter((n) => !waiting[n]);
  while (generation.length) {
    generations.push(generation);
    generation = generation.flatMap((n) => below[n]).filter((child) => --waiting[child] === 0);
  }
  const outwards = generations.flatMap((all) => all
    .map((n, at) => [n, -Math.abs(2 * at + 1 - all.length)]).sort((a, b) => a[1] - b[1]).map(([n]) => n));
  const most = Math.max(1, ...generations.map((all) => all.length));
  const layered = (rows) => {
    const layer = sizes.map(() => 0);
    const filled = [];
    for (const n of outwards) {
      layer[n] = Math.max(-1, ...above[n].map((parent) => layer[parent])) + 1;
      while (filled[layer[n]] >= rows) layer[n]++;
      filled[layer[n]] = (filled[layer[n]] ?? 0) + 1;
    }
    return layer;
  };
  const mean = (side) => sizes.reduce((sum, size) => sum + size[side], 0) / sizes.length;
  const sizeOf = (rows) => [(Math.max(...layered(rows)) + 1) * (mean(0) + columnGap), Math.min(rows, most) * (mean(1) + rowGap)];
  const fewer = Array.from({ length: Math.min(most, FEW) }, (_, at) => Math.min(most, FEW) - at);
  const layer = layered(bestOf([most, ...fewer], sizeOf, screen));
  for (const n of sizes.keys()) {
    if (!above[n].length && below[n].length) layer[n] = Math.min(...below[n].map((child) => layer[child])) - 1;
  }
  return layer;
}

// The columns in bands, one below the other, divided where few lines cross; moves `ys` there. Gives the middle of each
// column; and for what has lines to the next band, where they run: right of the band, below it, left of the next one.
function bands(columns, after, widths, ys, heights, gap, screen) {
  const ends = [0];
  for (const width of widths) ends.push(ends[ends.length - 1] + width + gap);
  const tops = columns.map((column) => Math.min(...column.map((n) => ys[n] - heights[n] / 2)));
  const bottoms = columns.map((column) => Math.max(...column.map((n) => ys[n] + heights[n] / 2)));
  const crossing = columns.map((column) => column.filter((n) => after[n].length));
  const clear = [...columns.keys()].filter((at) => at && crossing[at - 1].length <= CLEAR);
  const breaksOf = (most) => {
    const found = new Set([0, columns.length]);
    for (let number = 1; number < most && clear.length; number++) {
      const far = (at) => Math.abs(ends[at] - (ends[columns.length] / most) * number);
      found.add(clear.reduce((nearest, at) => (far(at) < far(nearest) ? at : nearest)));
    }
    return [...found].sort((a, b) => a - b);
  };
  const pairs = (breaks) => breaks.slice(1).map((end, at) => [breaks[at], end]);
  const extent = (first, end) => [Math.min(...tops.slice(first, end)), Math.max(...bottoms.slice(first, end))];
  const sizeOf = (most) => {
    const found = pairs(breaksOf(most));
    const height = found.map((band) => extent(...band)).reduce((sum, [top, bottom]) => sum + bottom - top, 0);
    return [Math.max(...found.map(([first, end]) => ends[end] - ends[first])), height + 2 * BEND * (found.length - 1)];
  };
  const choices = Array.from({ length: Math.max(1, Math.min(columns.length, FEW) - 1) }, (_, at) => at + 1);
  const breaks = breaksOf(bestOf(choices, sizeOf, screen));
  const left = Math.max(0, ...breaks.slice(1, -1).map((at) => BEND + TRACK * crossing[at - 1].length));
  const [xs, turns] = [[], new Map()];
  let top = 0;
  for (const [first, end] of pairs(breaks)) {
    const [above, bottom] = extent(first, end);
    const below = bottom - above + top;
    let right = left;
    for (let at = first; at < end; at++) {
      for (const n of columns[at]) ys[n] += top - above;
      xs.push(right + widths[at] / 2);
      right += widths[at] + gap;
    }
    const leaving = end < columns.length ? crossing[end - 1] : [];
    [...leaving].reverse().forEach((n, at) => { // as nested lines, which do not cross
      const out = BEND + TRACK * at;
      turns.set(n, [right - gap + out, below + out, left - BEND - TRACK * (leaving.length - 1 - at)]);
    });
    top = below + 2 * BEND + TRACK * leaving.length;
  }
  return { xs, turns };
}

function ordered(layerOf, before, after) {
  const columns = Array.from({ length: Math.max(-1, ...layerOf) + 1 }, () => []);
  const depth = [];
  for (const n of [...layerOf.keys()].sort((a, b) => layerOf[b] - layerOf[a])) {
    depth[n] = 1 + Math.max(0, ...after[n].map((other) => depth[other]));
  }
  const met = new Set();
  const starts = [...layerOf.keys()].sort((a, b) => (before[a].length > 0) - (before[b].length > 0) || a - b);
  for (const start of starts) {
    const waiting = [start];
    while (waiting.length) {
      const n = waiting.pop();
      if (met.has(n)) continue;
      met.add(n);
      columns[layerOf[n]].push(n);
      waiting.push(...deepestAmid(after[n], depth).reverse());
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

// Those from which the longest lines go on, between the others: a picture then goes straight on, and not downwards.
function deepestAmid(numbers, depth) {
  const most = Math.max(...numbers.map((n) => depth[n]));
  const others = numbers.filter((n) => depth[n] < most);
  const half = Math.floor(others.length / 2);
  return [...others.slice(0, half), ...numbers.filter((n) => depth[n] === most), ...others.slice(half)];
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
