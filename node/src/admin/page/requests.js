// Requests of the last minutes: from counters, which every node keeps, to rates and times. A node that has started again begins at nothing.

const OPERATIONS = ["get", "put", "delete", "scan"];
const BUCKETS = 21, SHORTEST_US = 50, KEPT_S = 300, NOW_S = 10;

const load = { before: new Map(), points: [], shown_s: 60 };

const NOBODY = new Map();

const none = () => ({ ok: 0, refused: 0, unknown: 0, took: new Array(BUCKETS).fill(0) });

/** What each node has answered since it was last heard: of each operation the counts, and over how many seconds. */
function answeredSince(node) {
  const figures = node.figures;
  if (!figures) return null;
  const uptime = figures.status.uptime_ms, before = load.before.get(node.name);
  if (before && before.uptime === uptime) return null;
  load.before.set(node.name, { uptime, requests: figures.requests });
  if (!before) return null;
  const restarted = uptime < before.uptime;
  const seconds = (restarted ? uptime : uptime - before.uptime) / 1000;
  const counts = {};
  for (const now of figures.requests) {
    const then = restarted ? undefined : before.requests.find((one) => one.operation === now.operation);
    counts[now.operation] = {
      ok: now.ok - (then?.ok ?? 0), refused: now.refused - (then?.refused ?? 0), unknown: now.unknown - (then?.unknown ?? 0),
      took: Array.from({ length: BUCKETS }, (_, at) => (now.took[at] ?? 0) - (then?.took[at] ?? 0)),
    };
  }
  return { seconds, counts };
}

/** Adds up some points; rates are sums of what nodes did in their own seconds. */
function together(points, name) {
  const sums = Object.fromEntries(OPERATIONS.map((operation) => [operation, { ...none(), rate: 0 }]));
  const seconds = new Map();
  for (const { nodes } of points) for (const [node, one] of nodes) seconds.set(node, (seconds.get(node) ?? 0) + one.seconds);
  for (const { nodes } of points) {
    for (const [node, one] of nodes) {
      if (name !== undefined && node !== name) continue;
      for (const operation of OPERATIONS) {
        const from = one.counts[operation], to = sums[operation];
        if (!from) continue;
        for (const outcome of ["ok", "refused", "unknown"]) {
          to[outcome] += from[outcome] / seconds.get(node);
          to.rate += from[outcome] / seconds.get(node);
        }
        from.took.forEach((number, at) => { to.took[at] += number; });
      }
    }
  }
  return sums;
}

/** The time within which this part of all was answered, in microseconds, as well as the buckets tell. */
function within(took, part) {
  const all = took.reduce((sum, number) => sum + number, 0);
  let left = all * part;
  for (let at = 0; at < took.length; at += 1) {
    if (took[at] > 0 && left <= took[at]) {
      const upper = SHORTEST_US * 2 ** at, lower = at === 0 ? 0 : upper / 2;
      return lower + (upper - lower) * (left / took[at]);
    }
    left -= took[at];
  }
  return NaN;
}

function takeRequests(sight, now) {
  const nodes = new Map();
  for (const node of sight.nodes) {
    const one = answeredSince(node);
    if (one) nodes.set(node.name, one);
  }
  for (const name of load.before.keys()) if (!sight.nodes.some((node) => node.name === name)) load.before.delete(name);
  if (nodes.size === 0) return;
  const point = { at: now, nodes };
  const sums = together([point]);
  point.rates = Object.fromEntries(OPERATIONS.map((operation) => [operation, sums[operation].rate]));
  point.rates.failed = OPERATIONS.reduce((sum, operation) => sum + sums[operation].refused + sums[operation].unknown, 0);
  point.times = Object.fromEntries(OPERATIONS.map((operation) => [operation, within(sums[operation].took, 0.99)]));
  load.points.push(point);
  load.points = load.points.filter((one) => now - one.at <= KEPT_S * 1000);
  // Of what is older lines are drawn, and nothing is added up any more.
  for (const one of load.points) if (now - one.at > NOW_S * 1000) one.nodes = NOBODY;
}

const recent = (seconds) => load.points.filter((point) => load.points.at(-1).at - point.at < seconds * 1000);

/** The next number that is 1, 2 or 5 with noughts. */
function roundUp(number) {
  const power = 10 ** Math.floor(Math.log10(Math.max(number, 1e-9)));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= number);
}

/** Lines over time; where nothing was measured they have a gap. */
function drawChart(svg, lines, valueOf, top, words) {
  const now = load.points.at(-1)?.at ?? 0;
  const paths = lines.map((line) => {
    let d = "", pen = false;
    for (const point of load.points) {
      const value = valueOf(point, line);
      if (!Number.isFinite(value)) { pen = false; continue; }
      const x = 300 - (now - point.at) / load.shown_s * 0.3, y = 88 - Math.min(value / top, 1) * 84;
      d += `${pen ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}${pen ? "" : "h.01"}`;
      pen = true;
    }
    return draw("path", { d, class: `line ${line}` });
  });
  svg.setAttribute("aria-label", words);
  svg.replaceChildren(...paths);
}

function showRequests() {
  if (load.points.length === 0) return;
  const age = (load.points.at(-1).at - load.points[0].at) / 1000;
  load.shown_s = [60, 120, KEPT_S].find((seconds) => age <= seconds) ?? KEPT_S;
  for (const label of document.querySelectorAll(".axis :first-child")) say(label, `${load.shown_s / 60} min ago`);
  const sums = together(recent(NOW_S));
  const used = OPERATIONS.filter((operation) => load.points.some((point) => point.rates[operation] > 0));
  const shown = OPERATIONS.filter((operation) => used.includes(operation) || operation === "get" || operation === "put");
  const highest = Math.max(1, ...load.points.flatMap((point) => [...OPERATIONS, "failed"].map((line) => point.rates[line])));
  const longest = Math.max(100, ...load.points.flatMap((point) => OPERATIONS.map((line) => point.times[line])).filter(Number.isFinite));
  const words = shown.map((operation) => `${operation} ${rate(sums[operation].rate)} a second, 99 of 100 within ${short(within(sums[operation].took, 0.99))}`).join("; ");
  const topRate = roundUp(highest), topTime = roundUp(longest);
  say(byId("rate-top"), `up to ${count(topRate)}`);
  say(byId("latency-top"), used.length > 0 ? `up to ${short(topTime)}` : "");
  const isFailing = load.points.some((point) => point.rates.failed > 0);
  drawChart(byId("rate-chart"), isFailing ? [...used, "failed"] : used, (point, line) => point.rates[line], topRate, `Requests: ${words}`);
  drawChart(byId("latency-chart"), used, (point, line) => point.times[line], topTime, `Latency: ${words}`);
  const rows = shown.map((operation) => {
    const sum = sums[operation], row = document.createElement("tr");
    row.append(make("th", { scope: "row" }, make("span", { class: `key ${operation}` }), operation));
    const failed = (number) => make("td", number > 0 ? { class: "short" } : {}, rate(number));
    row.append(...[rate(sum.rate), short(within(sum.took, 0.5)), short(within(sum.took, 0.99))].map((text) => make("td", {}, text)),
      failed(sum.refused), failed(sum.unknown));
    return row;
  });
  byId("operations").tBodies[0].replaceChildren(...rows);
}
