// What is shown of each sight of the cluster, part by part: one that cannot be shown says so, and the others are shown.

const HEADER = ["node", "state", "zone", "owns", "keys", "bytes", "requests/s", "99 of 100", "hints held", "last compared", "round trip",
  "clock", "disk free", "release", "up for"];

function cells(node, speaker, sums) {
  const figures = node.figures;
  if (!figures) return [node.zone, percent(node.owned_percent)];
  const { status, exchanges, compared_ms: oldest, disk } = figures;
  const requests = OPERATIONS.map((operation) => sums[operation]);
  const took = requests.reduce((all, one) => all.map((number, at) => number + one.took[at]), new Array(BUCKETS).fill(0));
  const trip = speaker?.round_trips.find((one) => one.peer === node.name)?.microseconds;
  const never = exchanges.some((one) => one.never > 0);
  const unequal = exchanges.reduce((sum, one) => sum + one.unequal, 0);
  const compared = figures.aae_paused ? "paused" : never ? "not all yet" : unequal > 0 ? `${count(unequal)} differ` : `${ago(oldest)} ago`;
  return [node.zone, percent(node.owned_percent), status.keys === null ? "counting" : count(status.keys), size(status.bytes),
    rate(requests.reduce((sum, one) => sum + one.rate, 0)), short(within(took, 0.99)), status.hints === null ? "counting" : count(status.hints),
    exchanges.length > 0 || oldest !== null ? compared : NOTHING, trip === undefined ? NOTHING : short(trip),
    offset(status.clock_offset_ms),
    disk ? `${size(disk.free)}${disk.total > 0 ? ` (${Math.floor(disk.free * 100 / disk.total)} %)` : ""}` : NOTHING, status.version, ago(status.uptime_ms)];
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
      row = make("tr", { "data-node": node.name }, make("th", { scope: "row", title: node.name }, swatch, node.name), make("td", { class: "left" }, make("span")),
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

/** What is called how, where it stands, and who shows it. */
const PARTS = [
  ["whether all is well", "verdict", showVerdict],
  ["the ring", "ring", showRing],
  ["requests", "load", (sight) => {
    takeRequests(sight, Date.now());
    showRequests();
    showValues(sight);
  }],
  ["nodes", "nodes-part", showNodes],
  ["what is under way", "tasks-part", showTasks],
  ["events", "news-part", takeNews],
];

function show(sight) {
  const failed = [];
  for (const [what, id, showPart] of PARTS) {
    let error = null;
    try {
      showPart(sight);
    } catch (thrown) {
      error = thrown;
      reportError(error);
      failed.push(`${what} (${error.message})`);
    }
    byId(id).classList.toggle("stale", error !== null);
    if (error !== null && id === "verdict") {
      say(byId(id), "Whether all is well cannot be shown.");
      byId(id).dataset.tone = "none";
    }
  }
  byId("faulty").hidden = failed.length === 0;
  sayWithCode(byId("faulty"), failed.length > 0 ? `This page cannot show ${failed.join("; ")}. What stands there is old: ask with \`driftless status\`.` : "");
}
