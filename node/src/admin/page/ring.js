// The ring: a band for each replica of a partition, the first owner inside, each arc in its owner's colour. Around it, what changes hands.

const ring = { arcs: null, text: "", isDrawn: false, states: new Map(), alone: null, colours: new Map() };

const SHARES_MAX = 10;

const INNER = 104, OUTER = 182, GAP = 2, AROUND = [186, 194];

/** Hue, saturation and lightness: the first ones differ in lightness as well, for who tells some hues from others with difficulty. None is
 * the red of what is lost. */
const COLOURS = [[207, 58, 47], [34, 82, 58], [166, 48, 38], [275, 38, 66], [52, 70, 50], [318, 42, 56], [22, 42, 37], [90, 40, 52]];

/** Gives an element the colour of an owner, which stays the same while the page is open. */
function colour(element, name) {
  if (!ring.colours.has(name)) {
    const at = ring.colours.size;
    ring.colours.set(name, COLOURS[at] ?? [(20 + at * 137.508) % 330 + 15, 45, [30, 68, 55][at % 3]]);
  }
  const [hue, saturation, lightness] = ring.colours.get(name);
  element.style.setProperty("--hue", hue);
  element.style.setProperty("--saturation", `${saturation}%`);
  element.style.setProperty("--lightness", `${lightness}%`);
  return element;
}

function point(radius, turn) {
  const angle = (turn - 0.25) * 2 * Math.PI;
  return `${(200 + radius * Math.cos(angle)).toFixed(2)} ${(200 + radius * Math.sin(angle)).toFixed(2)}`;
}

/** A piece of a band; from and to are parts of a turn. */
function piece(from, to, inner, outer) {
  if (to - from > 0.5) return piece(from, (from + to) / 2, inner, outer) + piece((from + to) / 2, to, inner, outer);
  return `M${point(outer, from)}A${outer} ${outer} 0 0 1 ${point(outer, to)}`
    + `L${point(inner, to)}A${inner} ${inner} 0 0 0 ${point(inner, from)}Z`;
}

/** All pieces of a band that belong to the same owner, as one path for each: few elements, however many partitions. */
function band(ownerOf, inner, outer) {
  const total = ring.arcs.owners.length, paths = new Map();
  for (let from = 0; from < total;) {
    const owner = ownerOf(from);
    let to = from + 1;
    while (to < total && ownerOf(to) === owner) to += 1;
    if (owner !== undefined) paths.set(owner, (paths.get(owner) ?? "") + piece(from / total, to / total, inner, outer));
    from = to;
  }
  return paths;
}

/** Takes the ring in; one that is as before is not drawn again. */
function takeRing(arcs, text) {
  if (text === ring.text) return;
  [ring.arcs, ring.text, ring.isDrawn] = [arcs, text, false];
}

function drawRing() {
  const { members, owners, changing, n } = ring.arcs;
  byId("owners").replaceChildren(...[...members].sort(inOrder).map(ownerButton));
  const thickness = (OUTER - INNER) / n;
  const children = [draw("defs", {}, draw("pattern",
    { id: "lost", width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
    draw("rect", { id: "lost-ground", width: 6, height: 6 }), draw("line", { id: "lost-line", x1: 0, y1: 0, x2: 0, y2: 6 })))];
  for (let replica = 0; replica < n; replica += 1) {
    const inner = INNER + replica * thickness;
    for (const [owner, d] of band((arc) => owners[arc][replica], inner, inner + thickness - GAP)) {
      const path = draw("path", { d, class: "owned", "data-owner": members[owner] });
      colour(path, members[owner]).append(draw("title", {}, `${members[owner]}, as owner number ${replica + 1}`));
      children.push(path);
    }
  }
  const marked = new Set(changing), moving = band((arc) => (marked.has(arc) ? 0 : undefined), ...AROUND).get(0);
  if (moving) children.push(draw("path", { d: moving, class: "changing" }, draw("title", {}, "changes hands")));
  children.push(draw("line", { class: "origin", x1: 200, y1: 200 - INNER + 8, x2: 200, y2: 200 - OUTER - 2 }));
  children.push(draw("text", { class: "large", x: 200, y: 200, id: "ring-count" }), draw("text", { class: "small", x: 200, y: 224, id: "ring-below" }),
    draw("text", { class: "small", x: 200, y: 243, id: "ring-version" }));
  byId("ring-picture").replaceChildren(...children);
}

function ownerButton(name) {
  const swatch = colour(make("span", { class: "swatch" }), name);
  const button = make("button", { type: "button", "aria-pressed": ring.alone === name, "data-owner": name, title: name }, swatch, make("span", {}, name));
  button.addEventListener("click", () => {
    ring.alone = ring.alone === name ? null : name;
    shadeRing();
  });
  return make("li", {}, button);
}

/** Who is lost is hatched; if one owner is looked at, the others are faint. */
function shadeRing() {
  for (const path of document.querySelectorAll("#ring-picture .owned")) {
    const name = path.getAttribute("data-owner");
    path.classList.toggle("lost", (ring.states.get(name) ?? "up") !== "up");
    path.classList.toggle("other", ring.alone !== null && ring.alone !== name);
  }
  for (const button of document.querySelectorAll("#owners button")) {
    const name = button.getAttribute("data-owner");
    button.setAttribute("aria-pressed", String(ring.alone === name));
    button.firstChild.classList.toggle("lost", (ring.states.get(name) ?? "up") !== "up");
  }
}

/** Of many nodes the table has the shares one by one. */
function shares(nodes) {
  const owned = nodes.map((node) => node.owned_percent);
  if (nodes.length <= SHARES_MAX) return nodes.map((node) => `${node.name} ${percent(node.owned_percent)}`).sort(inOrder).join(", ");
  return `${nodes.length} nodes with ${percent(Math.min(...owned))} to ${percent(Math.max(...owned))}`;
}

function showRing(sight) {
  if (!ring.arcs) return;
  if (!ring.isDrawn) drawRing();
  ring.isDrawn = true;
  ring.states = new Map(sight.nodes.map((node) => [node.name, node.state]));
  if (ring.alone !== null && !ring.states.has(ring.alone)) ring.alone = null;
  shadeRing();
  const { owners, partitions, partitions_changing: moving, n, version } = ring.arcs;
  const up = sight.nodes.filter((node) => node.state === "up").length, each = partitions / owners.length;
  say(byId("ring-count"), `${up} of ${sight.nodes.length}`);
  say(byId("ring-below"), sight.nodes.length === 1 ? "node up" : "nodes up");
  say(byId("ring-version"), `version ${version}`);
  const lost = sight.nodes.filter((node) => node.state !== "up").map((node) => node.name);
  say(byId("ring-words"), `${counted(partitions, "partition")}, each with ${n === 1 ? "one owner" : `${n} owners`}: ${shares(sight.nodes.filter((node) => node.stays))}.`
    + (each > 1 ? ` One of each ${count(each)} is drawn.` : "")
    + (lost.length > 0 ? ` Hatched: ${named(lost.sort(inOrder))} (not up).` : "")
    + (moving > 0 ? ` ${counted(moving, "partition")} changing hands (outermost ring).` : ""));
}
