// Whether all is well, what else is the matter, and what of it is read out to who listens.

function showVerdict(sight) {
  const { verdict: { well, severity, sentence: said, remedy }, cluster, speaker, at_ms } = sight;
  const sentence = severity === null ? `All is well: ${said[0].toLowerCase()}${said.slice(1)}` : said;
  say(byId("verdict"), sentence);
  byId("verdict").dataset.tone = severity ?? "well";
  document.title = `${well ? "" : "! "}${cluster}: ${sentence}`;
  byId("remedy").hidden = !remedy;
  sayWithCode(byId("remedy"), remedy ? `To do: ${remedy}.` : "");
  say(byId("title"), `Driftless: ${cluster}`);
  say(byId("source"), `as ${speaker} sees it, at ${clock(at_ms)} UTC`);
  showTroubles(sight);
  speak(sight, `${sentence} ${remedy ? `To do: ${remedy}.` : ""}`);
}

/** Each thing with all nodes that say so. What the first line says already, with the node that it names, is not said again. */
function showTroubles({ troubles, left_out, verdict: { sentence } }) {
  const list = byId("troubles-list"), isSaid = ({ nodes, what }) => nodes.length === 1 && sentence.includes(what);
  byId("troubles").hidden = troubles.length === 0 || (troubles.length === 1 && isSaid(troubles[0]));
  troubles.forEach(({ nodes, what, remedy, severity, for_ms }, at) => {
    const item = list.children[at] ?? list.appendChild(make("li", {}, make("p", {}, make("em"), make("strong"), make("span")), make("p", { class: "do" })));
    item.dataset.severity = severity;
    say(item.firstChild.firstChild, severity === "critical" ? "critical" : "");
    say(item.querySelector("strong"), [...nodes].sort(inOrder).join(", "));
    sayWithCode(item.firstChild.lastChild, ` ${what} (for ${ago(for_ms)})`);
    sayWithCode(item.lastChild, `To do: ${remedy}.`);
  });
  while (list.children.length > troubles.length) list.lastElementChild.remove();
  // What scrolls is to be reached without a mouse.
  list.tabIndex = list.scrollHeight > list.clientHeight ? 0 : -1;
  const { all, critical } = left_out;
  byId("troubles-more").hidden = all === 0;
  sayWithCode(byId("troubles-more"), `And ${count(all)} more${critical > 0 ? `, ${count(critical)} of them critical` : ", none of them critical"}: \`driftless status\` lists all.`);
}

/** What a sight means, without how much and how long: who is not up, what is the matter with whom, what is under way. Which of the others say
 * that a node is away is no other matter. */
function meaning({ verdict: { well, severity }, troubles, unfinished, nodes }) {
  const away = nodes.filter(({ state }) => state !== "up").map(({ name, state }) => [name, state]);
  const matters = troubles.map(({ name, peer, nodes }) => JSON.stringify([name, peer ?? nodes])).sort();
  const counts = nodes.some(({ figures }) => figures?.status.keys === null);
  return JSON.stringify([well || severity, away, matters, unfinished.length > 0, counts]);
}

/** Said again only when it means something else. */
let spoken = "";
function speak(sight, text) {
  const now = meaning(sight);
  if (now !== spoken) say(byId("spoken"), text);
  spoken = now;
}
