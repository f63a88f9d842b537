// What has changed from one sight of the cluster to the next. Counts that rise and fall are no news; what begins and ends is.

const NEWS_MAX = 100;

/** Under load some write is late now and then, and a hint of it is kept for a moment: news is what is there in so many sights in a row. */
const HELD_FOR = 8;

/** For whom hints are held, and in how many sights in a row. */
const held = new Map();

let seen = null;

function tell(now, text, tone) {
  const item = make("li", {}, make("time", {}, clock(now)), make("span", tone ? { class: tone } : {}, ...withCode(text)));
  byId("news").prepend(item);
  // What scrolls is to be reached without a mouse, and what is empty is not.
  byId("news").tabIndex = 0;
  while (byId("news").childElementCount > NEWS_MAX) byId("news").lastElementChild.remove();
  byId("no-news").hidden = true;
}

/** What is compared: of each node its state and when it started, and what is the matter. */
function essence(sight) {
  const nodes = new Map(sight.nodes.map((node) => [node.name, {
    state: node.state, stays: node.stays, uptime: node.figures?.status.uptime_ms, version: node.figures?.status.version,
    isHeard: node.figures !== null,
  }]));
  const each = sight.troubles.flatMap((one) => one.nodes.map((node) => ({ ...one, node })));
  const troubles = new Map(each.map((one) => [JSON.stringify([one.node, one.name, one.peer]), one]));
  return { nodes, troubles, isWhole: sight.left_out.all === 0, version: sight.ring_version, unfinished: sight.unfinished.length > 0 };
}

function takeNews(sight) {
  const next = essence(sight), last = seen, now = sight.at_ms;
  seen = next;
  if (last === null) return;
  if (next.version !== last.version) tell(now, `version ${next.version} of the members counts`);
  if (last.unfinished && !next.unfinished) tell(now, `version ${next.version} is settled: nothing changes hands any more`, "good");
  if (!last.unfinished && next.unfinished) tell(now, "partitions begin to change hands");
  for (const [name, node] of next.nodes) {
    const before = last.nodes.get(name);
    if (!before) tell(now, `${name} is among the members`);
    else newsOf(name, before, node, now);
  }
  for (const name of last.nodes.keys()) if (!next.nodes.has(name)) tell(now, `${name} is no member any more`);
  // What is left out may have been there before, and be there still.
  if (last.isWhole && next.isWhole) newsOfTroubles(last, next, now);
  newsOfHints(sight, now);
}

/** What begins and what is over. That a node is away has been told, and not once more by each of the others. */
function newsOfTroubles(last, next, now) {
  const isTold = ({ peer }) => peer && [last, next].some(({ nodes }) => (nodes.get(peer)?.state ?? "down") !== "up");
  const begun = new Map(), over = new Map();
  const note = (map, { node, what }) => map.set(what, [...(map.get(what) ?? []), node]);
  for (const [key, one] of next.troubles) if (!last.troubles.has(key) && !isTold(one)) note(begun, one);
  for (const [key, one] of last.troubles) {
    // Of a node that is silent it is not known.
    if (!next.troubles.has(key) && next.nodes.get(one.node)?.isHeard && !isTold(one)) note(over, one);
  }
  for (const [what, nodes] of begun) tell(now, `${nodes.sort(inOrder).join(", ")}: ${what}`, "bad");
  for (const [what, nodes] of over) tell(now, `${nodes.sort(inOrder).join(", ")}: over: ${what}`);
}

function newsOf(name, before, node, now) {
  if (node.state !== before.state && node.state !== "not asked") {
    tell(now, { up: `${name} answers`, down: `${name} is down`, suspect: `${name} does not answer` }[node.state], node.state === "up" ? "good" : "bad");
  }
  if (before.stays && !node.stays) tell(now, `${name} leaves`);
  if (node.uptime === undefined) {
    // Until it is heard again what was known last is what it is compared with.
    Object.assign(node, { uptime: before.uptime, version: before.version });
    return;
  }
  if (before.uptime !== undefined && node.uptime < before.uptime) tell(now, `${name} has started again`);
  if (before.version !== undefined && node.version !== before.version) tell(now, `${name} runs release ${node.version}, before: ${before.version}`);
}

function newsOfHints(sight, now) {
  const targets = new Map();
  for (const { name, figures } of sight.nodes) {
    for (const { target, keys } of figures?.hints ?? []) if (keys > 0) targets.set(target, [...(targets.get(target) ?? []), name]);
  }
  for (const [target, holders] of targets) {
    held.set(target, (held.get(target) ?? 0) + 1);
    if (held.get(target) === HELD_FOR) tell(now, `hints are held for ${target}, by ${holders.sort(inOrder).join(", ")}`);
  }
  const over = [...held].filter(([target]) => !targets.has(target));
  for (const [target] of over) held.delete(target);
  const told = over.filter(([, sights]) => sights >= HELD_FOR).map(([target]) => target);
  if (told.length > 0) tell(now, `no hints are held for ${told.sort(inOrder).join(", ")} any more`, "good");
}
