// The stream, and what is shown of each sight of the cluster that comes by it.

const stream = { source: null, at: 0, reconnect: 0, speaker: "this node", hiddenSince: 0 };
const SILENT_MS = 5000, DEAD_MS = 15000, AGAIN_MS = 5000, HIDDEN_MS = 30000;

const HEADER = ["node", "state", "zone", "owns", "keys", "bytes", "requests/s", "99 of 100", "hints held", "last compared", "round trip",
  "clock", "disk free", "release", "up for"];

function showVerdict({ verdict, cluster, speaker, troubles, at_ms }) {
  const { well, severity, sentence, remedy, more } = verdict;
  say(byId("verdict"), sentence);
  byId("verdict").dataset.tone = severity ?? "well";
  document.title = `${well ? "" : "! "}${cluster}: ${sentence}`;
  byId("remedy").hidden = !remedy;
  say(byId("remedy"), remedy ? `To do: ${remedy}.${more > 0 ? ` ${more} more below.` : ""}` : "");
  speak(`${sentence} ${remedy ? `To do: ${remedy}.` : ""}`);
  say(byId("title"), `Driftless: ${cluster}`);
  say(byId("source"), `as ${speaker} sees it, at ${new Date(at_ms).toLocaleTimeString("en-GB")}`);
  byId("troubles").hidden = troubles.length === 0;
  const items = troubles.map(({ node, what, remedy, severity, for_ms }) => make("li", { "data-severity": severity },
    make("p", {}, make("strong", {}, node), `  ${what} (for ${span(for_ms)})`), make("p", { class: "do" }, `To do: ${remedy}.`)));
  const list = byId("troubles-list"), text = items.map((item) => item.textContent).join("\n");
  if (list.dataset.text !== text) list.replaceChildren(...items);
  list.dataset.text = text;
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
  const { status, exchanges, disk } = figures;
  const requests = OPERATIONS.map((operation) => sums[operation]);
  const took = requests.reduce((all, one) => all.map((number, at) => number + one.took[at]), new Array(BUCKETS).fill(0));
  const trip = speaker?.round_trips.find((one) => one.peer === node.name)?.microseconds;
  const never = exchanges.some((one) => one.never > 0), oldest = Math.max(...exchanges.map((one) => one.oldest_ms ?? 0));
  const unequal = exchanges.reduce((sum, one) => sum + one.unequal, 0);
  const compared = figures.aae_paused ? "paused" : never ? "not since start" : unequal > 0 ? `${count(unequal)} differ` : `${span(oldest)} ago`;
  const offset = status.clock_offset_ms;
  return [node.zone, `${node.owned_percent.toFixed(1)} %`, status.keys === null ? "counting" : count(status.keys), size(status.bytes),
    rate(requests.reduce((sum, one) => sum + one.rate, 0)), short(within(took, 0.99)), status.hints === null ? "counting" : count(status.hints),
    exchanges.length > 0 ? compared : NOTHING, trip === undefined ? NOTHING : short(trip),
    offset === null ? NOTHING : `${offset > 0 ? "+" : ""}${offset} ms`,
    disk ? `${size(disk.free)} (${Math.floor(disk.free * 100 / disk.total)} %)` : NOTHING, status.version, span(status.uptime_ms)];
}

/** Rows stay where they are, so that what has the focus or is selected does. */
function showNodes(sight) {
  const head = byId("nodes").tHead.rows[0], body = byId("nodes").tBodies[0];
  if (head.cells.length === 0) head.append(...HEADER.map((name) => make("th", { scope: "col" }, name)));
  const speaker = sight.nodes.find((node) => node.name === sight.speaker)?.figures, points = load.points.length > 0 ? recent(NOW_S) : [];
  const nodes = [...sight.nodes].sort((one, other) => inOrder(one.name, other.name));
  nodes.forEach((node, at) => {
    let row = [...body.rows].find((row) => row.dataset.node === node.name);
    if (!row) {
      const swatch = make("span", { class: "swatch" });
      swatch.style.setProperty("--hue", hueOf(node.name));
      row = make("tr", { "data-node": node.name }, make("th", { scope: "row" }, swatch, node.name), make("td", {}, make("span")),
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
    row.cells[12].classList.toggle("short", Boolean(node.figures?.status.conditions.some((one) => one.name === "disk_low")));
  });
  while (body.rows.length > nodes.length) body.lastElementChild.remove();
}

/** Everything that is under way: what, where, why, how far, how fast, how long still. */
function tasks(sight) {
  const all = [], states = new Map(sight.nodes.map((node) => [node.name, node.state]));
  for (const { name, figures } of sight.nodes) {
    if (!figures) continue;
    const { moving, hints, exchanges, partitions_uncounted: uncounted, damaged } = figures;
    const version = `version ${sight.ring_version} of the members`;
    if (figures.unfinished.length > 0 && moving.taken < moving.taking) {
      const left = moving.keys > 0 ? moving.keys_left * moving.bytes / moving.keys : 0;
      all.push(["takes in partitions", name, version, `${moving.taken} of ${moving.taking}, ${size(moving.bytes)}${left > 0 ? ` of about ${size(moving.bytes + left)}` : ""}`,
        moving.rate > 0 ? `${size(moving.rate)}/s` : NOTHING, moving.rate > 0 && left > 0 ? span(left / moving.rate * 1000) : NOTHING]);
    }
    if (figures.unfinished.length > 0 && moving.given < moving.giving) {
      all.push(["hands over partitions", name, version, `${moving.given} of ${moving.giving}`, NOTHING, NOTHING]);
    }
    for (const one of hints.filter((one) => one.keys > 0)) {
      const why = states.get(one.target) === "up" ? `${one.target} was away` : `${one.target} is away: until it is back`;
      all.push(["holds hints", `${name} → ${one.target}`, why, `${count(one.keys)} keys left (${size(one.bytes)}), ${count(one.delivered)} delivered`,
        one.rate > 0 ? `${rate(one.rate)} keys/s` : NOTHING, span(one.eta_ms)]);
    }
    for (const one of exchanges) {
      if (one.unequal + one.in_progress + one.behind + one.never === 0 || states.get(one.peer) !== "up") continue;
      const differs = one.unequal + one.behind > 0;
      all.push([differs ? "repairs replicas" : "compares replicas", `${name} ⇄ ${one.peer}`,
        differs ? `${count(one.unequal)} partitions differ` : one.never > 0 ? "not compared since a start" : "its turn",
        `${count(one.shared - one.never)} of ${count(one.shared)} partitions compared${one.behind > 0 ? `, ${count(one.behind)} keys or more to repair` : ""}`,
        one.rate > 0 ? `${rate(one.rate)} keys/s` : NOTHING, one.rate > 0 && one.behind > 0 ? span(one.behind / one.rate * 1000) : NOTHING]);
    }
    if (uncounted > 0) all.push(["reads its records", name, "a start", `${count(uncounted)} partitions left`, NOTHING, NOTHING]);
    if (damaged > 0) all.push(["restores records", name, "they are damaged", `${count(damaged)} left`, NOTHING, NOTHING]);
  }
  return all;
}

function showTasks(sight) {
  const all = tasks(sight), shown = all.slice(0, 100), body = byId("tasks").tBodies[0];
  byId("tasks").hidden = shown.length === 0;
  const more = all.length - shown.length;
  say(byId("no-tasks"), more > 0 ? `And ${count(more)} more.` : shown.length === 0 ? "Nothing changes hands, no hints wait, and no replicas are known to differ." : "");
  shown.forEach((texts, at) => {
    const row = body.rows[at] ?? body.insertRow();
    while (row.cells.length < texts.length) row.insertCell();
    texts.forEach((text, cell) => say(row.cells[cell], text));
  });
  while (body.rows.length > shown.length) body.lastElementChild.remove();
  const heard = sight.nodes.filter((node) => node.figures), damaged = heard.reduce((sum, node) => sum + node.figures.damaged, 0);
  const leaves = heard.reduce((sum, node) => sum + node.figures.leaves_scrubbed, 0);
  say(byId("scrub"), `The scrub reads records again all the time: ${count(leaves)} pieces so far, ${damaged > 0 ? `${count(damaged)} records damaged now` : "nothing damaged"}.`);
}

function showValues(sight) {
  const sum = (of) => sight.nodes.reduce((sum, node) => sum + (node.figures ? of(node.figures) : 0), 0);
  const reads = sum((figures) => figures.reads_found), siblings = sum((figures) => figures.siblings_read);
  const facts = [
    ["keys, replicas counted", count(sum((figures) => figures.status.keys ?? 0))],
    ["bytes of values", size(sum((figures) => figures.status.bytes ?? 0))],
    ["siblings per read", reads > 0 ? (siblings / reads).toFixed(2) : NOTHING],
    ["writes discarded (last writer wins)", count(sum((figures) => figures.writes_discarded))],
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
