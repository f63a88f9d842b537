// What is under way: what, where, why, how far, how fast, and for how long still.

const SHOWN_MAX = 100;

function moves({ name, figures }, version) {
  const { moving, unfinished } = figures, rows = [];
  if (unfinished.length > 0 && moving.taken < moving.taking) {
    const left = moving.keys > 0 ? moving.keys_left * moving.bytes / moving.keys : 0, isFast = moving.rate > 0;
    rows.push(["takes in partitions", name, version,
      `${moving.taken} of ${moving.taking}, ${size(moving.bytes)}${left > 0 ? ` of about ${size(moving.bytes + left)}` : ""}`,
      isFast ? `${size(moving.rate)}/s` : NOTHING, isFast && left > 0 ? span(left / moving.rate * 1000) : NOTHING]);
  }
  if (unfinished.length > 0 && moving.given < moving.giving) {
    rows.push(["hands over partitions", name, version, `${moving.given} of ${moving.giving}`, NOTHING, NOTHING]);
  }
  return rows;
}

function deliveries({ name, figures }, isUp) {
  return figures.hints.filter((one) => one.keys > 0).map((one) => [
    isUp(one.target) ? "hands over hints" : "holds hints", `${name} → ${one.target}`,
    isUp(one.target) ? `${one.target} was away` : `${one.target} is away: until it is back`,
    `${count(one.keys)} ${one.keys === 1 ? "key" : "keys"} left${one.bytes > 0 ? ` (${size(one.bytes)})` : ""}, ${count(one.delivered)} delivered`,
    one.rate > 0 ? `${rate(one.rate)} keys/s` : NOTHING, span(one.eta_ms)]);
}

/** Both sides of a pair say how they compare themselves; what either knows counts. */
function comparisons(nodes, isUp) {
  const pairs = new Map();
  for (const { name, figures } of nodes) {
    for (const one of figures.exchanges.filter((one) => isUp(one.peer))) {
      const pair = [name, one.peer].sort(inOrder).join(" ⇄ "), other = pairs.get(pair);
      const most = (field) => Math.max(one[field], other?.[field] ?? 0);
      pairs.set(pair, { shared: most("shared"), never: most("never"), unequal: most("unequal"), in_progress: most("in_progress"),
        behind: most("behind"), rate: one.rate + (other?.rate ?? 0) });
    }
  }
  const busy = [...pairs].filter(([, one]) => one.unequal + one.in_progress + one.behind + one.never > 0);
  return busy.map(([pair, one]) => [one.unequal + one.behind > 0 ? "repairs replicas" : "compares replicas", pair,
    one.unequal > 0 ? `${count(one.unequal)} partitions differ` : one.never > 0 ? "not compared since a start" : "its turn",
    one.behind > 0 ? `${count(one.behind)} keys or more to repair` : `${count(one.shared - one.never)} of ${count(one.shared)} partitions compared`,
    one.rate > 0 ? `${rate(one.rate)} keys/s` : NOTHING, one.rate > 0 && one.behind > 0 ? span(one.behind / one.rate * 1000) : NOTHING]);
}

function repairs({ name, figures }) {
  const { partitions_uncounted: uncounted, damaged } = figures, rows = [];
  if (uncounted > 0) rows.push(["reads its records", name, "a start", `${count(uncounted)} partitions left`, NOTHING, NOTHING]);
  if (damaged > 0) rows.push(["restores records", name, "they are damaged", `${count(damaged)} left`, NOTHING, NOTHING]);
  return rows;
}

function tasks(sight) {
  const states = new Map(sight.nodes.map((node) => [node.name, node.state])), isUp = (name) => states.get(name) === "up";
  const nodes = sight.nodes.filter((node) => node.figures).sort((one, other) => inOrder(one.name, other.name));
  const version = `version ${sight.ring_version} of the members`;
  return [...nodes.flatMap((node) => moves(node, version)), ...nodes.flatMap((node) => deliveries(node, isUp)),
    ...comparisons(nodes, isUp), ...nodes.flatMap(repairs)];
}

function showTasks(sight) {
  const all = tasks(sight), shown = all.slice(0, SHOWN_MAX), body = byId("tasks").tBodies[0];
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
