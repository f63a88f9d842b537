// How the sights come: by one stream for all pages of this node that are in sight in this browser, which opens six connections to one address and
// lets a seventh wait. Who holds the lock has the stream, and passes on what comes; once that page is closed or hidden another one has it.
//
//     hidden ──▶ in sight: waits for the lock, and hears what is passed on ──▶ has the lock: opens the stream, and passes on
//       ▲                                                                          │
//       └──────────────── nobody has seen it for a while ◀─────────────────────────┘
//
// A page says that it is not live whenever it is not, and why as far as it knows.

const PAGE = document.documentElement.dataset.page;
const SILENT_MS = 5000, DEAD_MS = 15000, AGAIN_MS = 5000, HIDDEN_MS = 30000;

/** `at` is when the last sight came from the node, `since` since when one is waited for, `heard` when any page passed on anything, `why` what is
 * known of why none comes, `latest` what has come and when. */
const stream = { source: null, leave: null, at: 0, since: 0, heard: 0, why: "", speaker: "this node", latest: {}, reconnect: 0, hidden: 0 };

// Pages of another release may pass on other things, and those of another path, behind a proxy, are of another node.
const NAME = `driftless ${PAGE} ${location.pathname}`;

let channel = openChannel();

/** Without locks, as on a page that came over HTTP from another machine, or where the browser keeps nothing for a page, each has a stream. */
function openChannel() {
  try {
    return navigator.locks ? new BroadcastChannel(NAME) : null;
  } catch {
    return null;
  }
}

function pass(kind, text, at) {
  channel?.postMessage({ kind, text, at });
}

function watch(steal) {
  if (document.hidden || stream.leave !== null) return;
  [stream.since, stream.heard] = [Date.now(), Date.now()];
  if (channel === null) {
    stream.leave = disconnect;
    connect();
    return;
  }
  const over = new AbortController();
  const leave = () => over.abort();
  let mine = leave;
  const held = () => new Promise((resolve) => {
    if (stream.leave !== leave) {
      resolve();
      return;
    }
    mine = stream.leave = () => {
      disconnect();
      resolve();
    };
    connect();
  });
  stream.leave = leave;
  const asked = navigator.locks.request(NAME, steal ? { steal } : { signal: over.signal }, held);
  // Given up by this page, which may have asked again since; or taken by one that heard nothing from it; or this browser gives no locks.
  asked.catch(({ name }) => {
    if (stream.leave !== mine) return;
    disconnect();
    stream.leave = null;
    if (name !== "AbortError") {
      channel?.close();
      channel = null;
    }
    watch(false);
  });
  pass("ask", "");
}

function unwatch() {
  const leave = stream.leave;
  stream.leave = null;
  leave?.();
}

function connect() {
  clearTimeout(stream.reconnect);
  stream.source?.close();
  const source = stream.source = new EventSource("events");
  for (const kind of ["ring", "cluster"]) {
    source.addEventListener(kind, ({ data }) => {
      const at = Date.now();
      stream.latest[kind] = { text: data, at };
      pass(kind, data, at);
      take(kind, data, at);
    });
  }
  source.addEventListener("error", async () => {
    // A refusal, such as that too many watch, is final for the browser, and not for this page.
    const isRefused = source.readyState === EventSource.CLOSED;
    if (isRefused) stream.reconnect = setTimeout(connect, AGAIN_MS);
    const said = isRefused ? await refusal() : "";
    if (stream.source !== source) return;
    lose(said ? `${stream.speaker} refuses: ${said}.` : "");
    pass("lost", stream.why);
  });
}

function disconnect() {
  clearTimeout(stream.reconnect);
  stream.source?.close();
  stream.source = null;
  stream.latest = {};
}

/** What the node says to who may not watch; the stream itself keeps that from the page. */
async function refusal() {
  try {
    const answer = await fetch("events");
    if (!answer.ok) return (await answer.text()).trim().slice(0, 300);
    await answer.body.cancel();
  } catch { /* It cannot be asked: that is what is said then. */ }
  return "";
}

channel?.addEventListener("message", ({ data: { kind, text, at } }) => {
  stream.heard = Date.now();
  if (kind === "ask") {
    if (stream.source === null) return;
    for (const [kind, { text, at }] of Object.entries(stream.latest)) pass(kind, text, at);
    if (document.body.classList.contains("stale")) pass("lost", stream.why);
  } else if (stream.leave === null || stream.source !== null) {
    return;
  } else if (kind === "lost") {
    lose(text);
  } else if (isNew(kind, at)) {
    stream.latest[kind] = { text, at };
    take(kind, text, at);
  }
});

/** Whether what was passed on is newer than what is here; what seems to be from the future is from before a clock was set back. */
function isNew(kind, at) {
  const before = stream.latest[kind]?.at ?? 0;
  return at > before || before > Date.now();
}

/** What has come from the node at that time, through whichever page. */
function take(kind, text, at) {
  try {
    const content = JSON.parse(text);
    if (kind === "ring") {
      takeRing(content, text);
    } else if (content.page !== PAGE) {
      becomeAnother(content.page);
    } else {
      show(content);
      [stream.at, stream.why, stream.speaker] = [at, "", content.speaker];
      if (Date.now() - at <= SILENT_MS) live();
    }
  } catch (error) {
    reportError(error);
    lose(`${stream.speaker} sends what this page cannot read (${error.message}).`);
  }
}

/** The node has become another release since this page was loaded. If the page is the same after it was loaded again, that is said. */
function becomeAnother(page) {
  const key = "driftless: loaded again for";
  try {
    const isTried = sessionStorage.getItem(key) === String(page);
    sessionStorage.setItem(key, String(page));
    if (!isTried) location.reload();
  } catch { /* Without a memory it would be loaded again for ever. */ }
  lose(`${stream.speaker} runs another release than this page is of: load the page again.`);
}

function lose(why) {
  stream.why = why;
  complain(why || `${stream.speaker} sends nothing: it has stopped, or cannot be reached. Asking again …`);
}

function live() {
  document.body.classList.remove("stale");
  byId("broken").hidden = true;
  byId("age").hidden = true;
}

/** Who listens hears the sentence once; how old it all is stands beside it. */
function complain(text) {
  document.body.classList.add("stale");
  document.title = `? ${byId("title").textContent}: not live`;
  byId("broken").hidden = false;
  say(byId("broken"), `Not live: ${text}`);
  byId("age").hidden = stream.at === 0;
  say(byId("age"), `What is shown is ${span(Date.now() - stream.at)} old.`);
  if (stream.at === 0) say(byId("verdict"), "Nothing is known of this cluster yet.");
}

/** Looks whether the page is still what it seems to be. */
function look() {
  if (document.hidden) return;
  const now = Date.now(), waits = now - Math.max(stream.at, stream.since);
  const isLive = stream.at > 0 && now - stream.at <= SILENT_MS;
  const isYoung = stream.at === 0 && waits <= SILENT_MS;
  if (stream.why) complain(stream.why);
  else if (!isLive && !isYoung && waits <= SILENT_MS) complain(`this page was out of sight, and asks ${stream.speaker} again …`);
  else if (!isLive && !isYoung) lose("");
  if (stream.source !== null) {
    // Those that wait for what this page passes on hear that it is there.
    if (!isLive && !isYoung) pass("lost", stream.why);
    if (waits > DEAD_MS && stream.source.readyState === EventSource.OPEN) connect();
  } else if (channel !== null && now - stream.heard > DEAD_MS) {
    unwatch();
    watch(true);
  }
}

document.addEventListener("visibilitychange", () => {
  clearTimeout(stream.hidden);
  if (document.hidden) {
    // A page that nobody sees costs the nodes nothing.
    stream.hidden = setTimeout(unwatch, HIDDEN_MS);
  } else {
    watch(false);
    look();
  }
});

say(byId("verdict"), "Connecting to this node …");
setInterval(look, 1000);
watch(false);
