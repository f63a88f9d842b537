// What has changed from one sight of the cluster to the next. Counts that rise and fall are no news; what begins and ends is.

const NEWS_MAX = 100;

let seen = null;

function tell(now, text, tone) {
  const time = new Date(now);
  const item = make("li", {}, make("time", { datetime: time.toISOString() }, time.toLocaleTimeString("en-GB")),
    make("span", tone ? { class: tone } : {}, text));
  byId("news").prepend(item);
  while (byId("news").childElementCount > NEWS_MAX) byId("news").lastElementChild.remove();
  byId("no-news").hidden = true;
}

/** What is compared: of each node its state, when it started, what is the matter with it, and for whom it holds something. */
function essence(sight) {
  const nodes = new Map(sight.nodes.map((node) => [node.name, {
    state: node.state, stays: node.stays, uptime: node.figures?.status.uptime_ms, version: node.figures?.status.version,
    hints: new Set((node.figures?.hints ?? []).filter((hints) => hints.keys > 0).map((hints) => hints.target)),
    isHeard: node.figures !== null,
  }]));
  const troubles = new Map(sight.troubles.map((one) => [`${one.node} ${one.name} ${one.peer ?? ""}`, one]));
  return { nodes, troubles, version: sight.ring_version, unfinished: sight.unfinished.length > 0 };
}

function takeNews(sight, now) {
  const next = essence(sight), last = seen;
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
  for (const [key, one] of next.troubles) {
    if (!last.troubles.has(key)) tell(now, `${one.node}: ${one.what}`, "bad");
  }
  for (const [key, one] of last.troubles) {
    // Of a node that is silent it is not known.
    if (!next.troubles.has(key) && next.nodes.get(one.node)?.isHeard) tell(now, `${one.node}: over: ${one.what}`, "good");
  }
}

function newsOf(name, before, node, now) {
  if (node.state !== before.state) {
    tell(now, { up: `${name} answers`, down: `${name} is down`, suspect: `${name} does not answer` }[node.state], node.state === "up" ? "good" : "bad");
  }
  if (before.stays && !node.stays) tell(now, `${name} leaves`);
  if (node.uptime === undefined) {
    // Until it is heard again what was known last is what it is compared with.
    Object.assign(node, { uptime: before.uptime, version: before.version, hints: before.hints });
    return;
  }
  if (before.uptime !== undefined && node.uptime < before.uptime) tell(now, `${name} has started again`);
  if (before.version !== undefined && node.version !== before.version) tell(now, `${name} runs release ${node.version}, before: ${before.version}`);
  for (const target of node.hints) if (!before.hints.has(target)) tell(now, `${name} holds something for ${target}`);
  for (const target of before.hints) if (!node.hints.has(target)) tell(now, `${name} has handed over all that it held for ${target}`, "good");
}
