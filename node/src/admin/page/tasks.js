// What is under way: what, where, why, how far, how fast, and for how long still. Rows are as many as nodes, and not as pairs of them.

const SHOWN_MAX = 100, PAIRS_MAX = 6, NAMES_MAX = 4;

const total = (all, of) => all.reduce((sum, one) => sum + of(one), 0);
const atRate = (number) => (number > 0 ? `${rate(number)} keys/s` : NOTHING);

function named(names) {
  const more = names.length - NAMES_MAX;
  return more > 1 ? `${names.slice(0, NAMES_MAX).join(", ")} and ${more} more` : names.join(", ");
}

function moves(nodes, version) {
  const moving = nodes.filter(({ figures }) => figures.unfinished.length > 0);
  const rows = moving.filter(({ figures: { moving } }) => moving.taken < moving.taking).map(({ name, figures: { moving } }) => {
    const left = moving.keys > 0 ? moving.keys_left * moving.bytes / moving.keys : 0, isFast = moving.rate > 0;
    return ["takes in partitions", name, version,
      `${moving.taken} of ${moving.taking}, ${size(moving.bytes)}${left > 0 ? ` of about ${size(moving.bytes + left)}` : ""}`,
      isFast ? `${size(moving.rate)}/s` : NOTHING, isFast && left > 0 ? span(left / moving.rate * 1000) : NOTHING];
  });
  const giving = moving.filter(({ figures: { moving } }) => moving.given < moving.giving);
  if (giving.length > 0) {
    rows.push(["hands over partitions", named(giving.map((node) => node.name)), version,
      `${total(giving, (node) => node.figures.moving.given)} of ${total(giving, (node) => node.figures.moving.giving)}`, NOTHING, NOTHING]);
  }
  return rows;
}

const isShort = ({ figures }) => figures.status.conditions.some((one) => one.name === "store_short");

/** All that is held for the same node together; it is there when the last of them has handed over all. */
function deliveries(nodes, isUp) {
  const targets = new Map(), short = new Set(nodes.filter(isShort).map((node) => node.name));
  for (const { name, figures } of nodes) {
    for (const one of figures.hints.filter((one) => one.keys > 0)) targets.set(one.target, [...(targets.get(one.target) ?? []), { name, ...one }]);
  }
  return [...targets].sort(([one], [other]) => inOrder(one, other)).map(([target, all]) => {
    const keys = total(all, (one) => one.keys), bytes = total(all, (one) => one.bytes);
    const why = !isUp(target) ? `${target} is away: until it is back`
      : short.has(target) ? `${target} takes no writes: until it has room` : `${target} was away, or late`;
    return [isUp(target) && !short.has(target) ? "hands over hints" : "holds hints", `${named(all.map((one) => one.name))} → ${target}`,
      why,
      `${counted(keys, "key")} left${bytes > 0 ? ` (${size(bytes)})` : ""}, ${count(total(all, (one) => one.delivered))} delivered`,
      atRate(total(all, (one) => one.rate)), span(all.every((one) => one.eta_ms !== null) ? Math.max(...all.map((one) => one.eta_ms)) : null)];
  });
}

/** Both sides of a pair say how they compare themselves; what either knows counts. */
function pairs(nodes, isUp) {
  const known = new Map();
  for (const { name, figures } of nodes) {
    for (const one of figures.exchanges.filter((one) => isUp(one.peer))) {
      const pair = [name, one.peer].sort(inOrder).join(" ⇄ "), other = known.get(pair);
      const most = (field) => Math.max(one[field], other?.[field] ?? 0);
      known.set(pair, { pair, shared: most("shared"), never: most("never"), unequal: most("unequal"), in_progress: most("in_progress"),
        behind: most("behind"), rate: one.rate + (other?.rate ?? 0) });
    }
  }
  return [...known.values()].filter((one) => one.unequal + one.in_progress + one.behind + one.never > 0)
    .sort((one, other) => other.behind - one.behind || inOrder(one.pair, other.pair));
}

function comparisons(nodes, isUp) {
  const all = pairs(nodes, isUp), more = all.slice(PAIRS_MAX);
  const row = (one) => [one.unequal + one.behind > 0 ? "repairs replicas" : "compares replicas", one.pair,
    one.unequal > 0 ? `${counted(one.unequal, "partition")} ${one.unequal === 1 ? "differs" : "differ"}` : one.never > 0 ? "not compared since a start" : "its turn",
    one.behind > 0 ? `${counted(one.behind, "key")} or more to repair` : `${count(one.shared - one.never)} of ${count(one.shared)} partitions compared`,
    atRate(one.rate), one.rate > 0 && one.behind > 0 ? span(one.behind / one.rate * 1000) : NOTHING];
  if (more.length < 2) return all.map(row);
  const sum = Object.fromEntries(["shared", "never", "unequal", "in_progress", "behind", "rate"].map((field) => [field, total(more, (one) => one[field])]));
  return [...all.slice(0, PAIRS_MAX), { pair: `${more.length} more pairs`, ...sum }].map(row);
}

function repairs({ name, figures }) {
  const { partitions_uncounted: uncounted, damaged } = figures, rows = [];
  if (uncounted > 0) rows.push(["reads its records", name, "a start", `${counted(uncounted, "partition")} left`, NOTHING, NOTHING]);
  if (damaged > 0) rows.push(["restores records", name, "they are damaged", `${count(damaged)} left`, NOTHING, NOTHING]);
  return rows;
}

function tasks(sight) {
  const states = new Map(sight.nodes.map((node) => [node.name, node.state])), isUp = (name) => states.get(name) === "up";
  const nodes = sight.nodes.filter((node) => node.figures);
  return [...moves(nodes, `version ${sight.ring_version} of the members`), ...deliveries(nodes, isUp), ...comparisons(nodes, isUp),
    ...nodes.flatMap(repairs)];
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
  say(byId("scrub"), `The scrub reads records again all the time: ${counted(leaves, "piece")} so far, ${damaged > 0 ? `${counted(damaged, "record")} damaged now` : "nothing damaged"}.`);
}
