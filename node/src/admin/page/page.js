// The stream, and what is shown of each sight of the cluster that comes by it.

const stream = { source: null, at: 0, reconnect: 0, speaker: "this node", hiddenSince: 0 };
const SILENT_MS = 5000, DEAD_MS = 15000, AGAIN_MS = 5000, HIDDEN_MS = 30000;

const HEADER = ["node", "state", "zone", "owns", "keys", "bytes", "requests/s", "99 of 100", "hints held", "last compared", "round trip",
  "clock", "disk free", "release", "up for"];

function showVerdict({ verdict, cluster, speaker, troubles, at_ms }) {
  const { well, severity, remedy } = verdict;
  const sentence = severity === null ? `All is well: ${verdict.sentence[0].toLowerCase()}${verdict.sentence.slice(1)}` : verdict.sentence;
  say(byId("verdict"), sentence);
  byId("verdict").dataset.tone = severity ?? "well";
  document.title = `${well ? "" : "! "}${cluster}: ${sentence}`;
  byId("remedy").hidden = !remedy;
  sayWithCode(byId("remedy"), remedy ? `To do: ${remedy}.` : "");
  speak(`${sentence} ${remedy ? `To do: ${remedy}.` : ""}`);
  say(byId("title"), `Driftless: ${cluster}`);
  say(byId("source"), `as ${speaker} sees it, at ${new Date(at_ms).toLocaleTimeString("en-GB")}`);
  showTroubles(troubles, sentence);
}

/** What several nodes say of the same stands there once; what is all that the first line says, not again. */
function showTroubles(troubles, sentence) {
  const groups = new Map();
  for (const one of troubles) {
    const key = [one.severity, one.what, one.remedy].join("\n"), group = groups.get(key);
    if (group) [group.names, group.for_ms] = [[...group.names, one.node], Math.max(group.for_ms, one.for_ms)];
    else groups.set(key, { ...one, names: [one.node] });
  }
  const all = [...groups.values()], list = byId("troubles-list");
  byId("troubles").hidden = all.length === 0 || (all.length === 1 && sentence.includes(all[0].what));
  all.forEach(({ names, what, remedy, severity, for_ms }, at) => {
    const item = list.children[at] ?? list.appendChild(make("li", {}, make("p", {}, make("strong"), make("span")), make("p", { class: "do" })));
    item.dataset.severity = severity;
    say(item.firstChild.firstChild, names.sort(inOrder).join(", "));
    sayWithCode(item.firstChild.lastChild, ` ${what} (for ${ago(for_ms)})`);
    sayWithCode(item.lastChild, `To do: ${remedy}.`);
  });
  while (list.children.length > all.length) list.lastElementChild.remove();
}

/** For who listens: again only if it says something else than other numbers. */
let spoken = "";
function speak(text) {
  const gist = text.replace(/\d+/g, "");
  if (gist !== spoken) say(byId("spoken"), text);
  spoken = gist;
}

function cells(node, speaker, sums) {
  const figures = node.figures;
  if (!figures) return [node.zone, `${node.owned_percent.toFixed(1)} %`];
  const { status, exchanges, compared_ms: oldest, disk } = figures;
  const requests = OPERATIONS.map((operation) => sums[operation]);
  const took = requests.reduce((all, one) => all.map((number, at) => number + one.took[at]), new Array(BUCKETS).fill(0));
  const trip = speaker?.round_trips.find((one) => one.peer === node.name)?.microseconds;
  const never = exchanges.some((one) => one.never > 0);
  const unequal = exchanges.reduce((sum, one) => sum + one.unequal, 0);
  const compared = figures.aae_paused ? "paused" : never ? "not all yet" : unequal > 0 ? `${count(unequal)} differ` : `${ago(oldest)} ago`;
  return [node.zone, `${node.owned_percent.toFixed(1)} %`, status.keys === null ? "counting" : count(status.keys), size(status.bytes),
    rate(requests.reduce((sum, one) => sum + one.rate, 0)), short(within(took, 0.99)), status.hints === null ? "counting" : count(status.hints),
    exchanges.length > 0 || oldest !== null ? compared : NOTHING, trip === undefined ? NOTHING : short(trip),
    offset(status.clock_offset_ms),
    disk ? `${size(disk.free)} (${Math.floor(disk.free * 100 / disk.total)} %)` : NOTHING, status.version, ago(status.uptime_ms)];
}

/** Rows stay where they are, so that what has the focus or is selected does. */
function showNodes(sight) {
  const head = byId("nodes").tHead.rows[0], body = byId("nodes").tBodies[0];
  if (head.cells.length === 0) head.append(...HEADER.map((name) => make("th", { scope: "col", class: name === "state" ? "left" : "" }, name)));
  const speaker = sight.nodes.find((node) => node.name === sight.speaker)?.figures, points = load.points.length > 0 ? recent(NOW_S) : [];
  const nodes = [...sight.nodes].sort((one, other) => inOrder(one.name, other.name));
  nodes.forEach((node, at) => {
    let row = [...body.rows].find((row) => row.dataset.node === node.name);
    if (!row) {
      const swatch = colour(make("span", { class: "swatch" }), node.name);
      row = make("tr", { "data-node": node.name }, make("th", { scope: "row" }, swatch, node.name), make("td", { class: "left" }, make("span")),
        ...HEADER.slice(2).map(() => make("td")));
    }
    if (body.rows[at] !== row) body.insertBefore(row, body.rows[at] ?? null);
    row.classList.toggle("gone", node.figures === null);
    row.title = node.address;
    row.cells[0].firstChild.classList.toggle("lost", node.state !== "up");
    const state = row.cells[1].firstChild;
    const drains = node.figures?.status.conditions.find((one) => ["draining", "stopping", "store_replaced", "refilling", "clock_off", "store_short"].includes(one.name));
    state.className = `state ${node.state === "up" && drains ? "suspect" : node.state}`;
    say(state, (node.state === "up" && drains ? drains.name.replace("_", " ") : node.state) + (node.stays ? "" : ", leaves"));
    const texts = cells(node, speaker, together(points, node.name));
    HEADER.slice(2).forEach((_, at) => say(row.cells[at + 2], texts[at] ?? NOTHING));
    const suffers = (...names) => Boolean(node.figures?.status.conditions.some((one) => names.includes(one.name)));
    row.cells[11].classList.toggle("short", suffers("clock_off", "clock_disputed"));
    row.cells[12].classList.toggle("short", suffers("disk_low", "store_short"));
  });
  while (body.rows.length > nodes.length) body.lastElementChild.remove();
}

function showValues(sight) {
  const sum = (of) => sight.nodes.reduce((sum, node) => sum + (node.figures ? of(node.figures) : 0), 0);
  const reads = sum((figures) => figures.reads_found), siblings = sum((figures) => figures.siblings_read);
  const facts = [
    ["keys, replicas counted", count(sum((figures) => figures.status.keys ?? 0))],
    ["bytes of values", size(sum((figures) => figures.status.bytes ?? 0))],
    ["siblings per read", reads > 0 ? (siblings / reads).toFixed(2) : NOTHING],
    ["writes discarded (lww)", count(sum((figures) => figures.writes_discarded))],
    ["writes taken by stand-ins", count(sum((figures) => figures.fallback_coordinated))],
    ["hints delivered", count(sum((figures) => figures.hints_delivered))],
    ["keys repaired", count(sum((figures) => figures.keys_repaired))],
    ["client connections", count(sum((figures) => figures.client_connections))],
  ];
  const list = byId("values");
  facts.forEach(([name, text], at) => {
    if (!list.children[at]) list.append(make("div", {}, make("dt", {}, name), make("dd")));
    say(list.children[at].lastChild, text);
  });
}

function show(sight) {
  const now = Date.now();
  [stream.at, stream.speaker] = [now, sight.speaker];
  document.body.classList.remove("stale");
  byId("broken").hidden = true;
  takeRequests(sight, now);
  takeNews(sight, now);
  showVerdict(sight);
  showRing(sight);
  showRequests();
  showValues(sight);
  showNodes(sight);
  showTasks(sight);
}

function connect() {
  clearTimeout(stream.reconnect);
  stream.source?.close();
  stream.source = new EventSource("events");
  stream.source.addEventListener("ring", (event) => {
    ring.arcs = JSON.parse(event.data);
    drawRing();
  });
  stream.source.addEventListener("cluster", (event) => show(JSON.parse(event.data)));
  stream.source.addEventListener("error", () => {
    complain();
    // A refusal, such as that too many watch, is final for the browser, and not for this page.
    if (stream.source.readyState === EventSource.CLOSED) stream.reconnect = setTimeout(connect, AGAIN_MS);
  });
}

function complain() {
  document.body.classList.add("stale");
  byId("broken").hidden = false;
  const old = stream.at > 0 ? `; what is shown is ${span(Date.now() - stream.at)} old` : "";
  say(byId("broken"), `${stream.speaker} sends nothing: it has stopped, cannot be reached, or has as many watchers as it may${old}. Trying again …`);
}

setInterval(() => {
  if (stream.source === null) return;
  const silent = Date.now() - stream.at;
  if (stream.at > 0 && silent > SILENT_MS) complain();
  if (stream.at > 0 && silent > DEAD_MS && stream.source.readyState === EventSource.OPEN) connect();
}, 1000);

// A page that nobody sees costs the nodes nothing.
document.addEventListener("visibilitychange", () => {
  clearTimeout(stream.hidden);
  if (document.hidden) {
    stream.hidden = setTimeout(() => {
      stream.source?.close();
      stream.source = null;
    }, HIDDEN_MS);
  } else if (stream.source === null) {
    connect();
  }
});

connect();
