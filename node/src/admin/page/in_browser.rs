//! The page in a real browser, fed with sights that no healthy cluster gives: what it says, and what it must not claim.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Extension;
use axum::http::StatusCode;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use driftless_testkit::browser::Browser;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::admin::serve::{Bounds, Pulse, serve};

/// Far more than anything takes that is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// A node, as far as its page can tell.
struct Stage {
    address: SocketAddr,
    /// What is sent to all that watch, and to whoever comes next.
    shown: watch::Sender<Vec<(&'static str, String)>>,
    /// What those are told that may not watch, and those that do see no more.
    refusal: Arc<Mutex<Option<&'static str>>>,
    streams: Arc<AtomicUsize>,
    _runtime: tokio::runtime::Runtime,
}

impl Stage {
    fn open() -> Stage {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (shown, refusal, streams) = (watch::Sender::new(Vec::new()), Arc::default(), Arc::default());
        let (sender, refused, count): (_, Arc<Mutex<Option<&'static str>>>, Arc<AtomicUsize>) =
            (shown.clone(), Arc::clone(&refusal), Arc::clone(&streams));
        let events = move |Extension(pulse): Extension<Arc<Pulse>>| {
            let (receiver, again, count) = (sender.subscribe(), refused.clone(), count.clone());
            async move {
                let refused = *again.lock().unwrap();
                match refused {
                    Some(text) => (StatusCode::SERVICE_UNAVAILABLE, text).into_response(),
                    None => stream(receiver, again, count, pulse),
                }
            }
        };
        let router = Router::new();
        // As itself, and as behind a proxy that has several nodes.
        let router = ["", "/n2"].into_iter().fold(router, |router, path| {
            let events = get(events.clone());
            router.route(&format!("{path}/"), get(super::page)).route(&format!("{path}/events"), events)
        });
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move { serve("n1", &listener, router, Bounds::USUAL).await });
        Stage { address, shown, refusal, streams, _runtime: runtime }
    }

    #[allow(clippy::disallowed_methods, reason = "a browser takes real time")]
    fn until_nobody_streams(&self) {
        let deadline = Instant::now() + PATIENCE;
        while self.streams.load(Ordering::SeqCst) > 0 {
            assert!(Instant::now() < deadline, "{} streams are still open", self.streams.load(Ordering::SeqCst));
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// A browser with the page, which has been shown this.
    fn shows(&self, sight: &Value) -> Option<Shown> {
        self.send(sight);
        let mut shown = Shown(Browser::open(&self.url())?);
        shown.eventually("document.body.classList.contains('stale') || document.getElementById('ring-count') !== null");
        Some(shown)
    }

    fn send(&self, sight: &Value) {
        let ring = json!({
            "version": 1, "n": 1, "partitions": 4, "members": ["n1", "n2"], "owners": [[0], [1], [0], [1]], "changing": [],
            "partitions_changing": 0,
        });
        self.send_with(&ring, sight);
    }

    fn send_with(&self, ring: &Value, sight: &Value) {
        self.shown.send_replace(vec![("ring", ring.to_string()), ("cluster", sight.to_string())]);
    }
}

/// Sends what is shown, again and again as a node does.
fn stream(
    receiver: watch::Receiver<Vec<(&'static str, String)>>,
    refusal: Arc<Mutex<Option<&'static str>>>,
    count: Arc<AtomicUsize>,
    pulse: Arc<Pulse>,
) -> Response {
    struct Open(Arc<AtomicUsize>);
    impl Drop for Open {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
    count.fetch_add(1, Ordering::SeqCst);
    let begin = (receiver, Vec::new(), Open(count), pulse, refusal);
    let events = futures::stream::unfold(begin, |(mut receiver, mut left, open, pulse, refusal)| async move {
        pulse.beat();
        if refusal.lock().unwrap().is_some() {
            return None;
        }
        if left.is_empty() {
            let _ = tokio::time::timeout(Duration::from_millis(200), receiver.changed()).await;
            left = receiver.borrow_and_update().clone();
            left.reverse();
        }
        let event = match left.pop() {
            Some((kind, text)) => Event::default().event(kind).data(text),
            None => Event::default().comment("nothing"),
        };
        Some((Ok::<_, Infallible>(event), (receiver, left, open, pulse, refusal)))
    });
    Sse::new(events).into_response()
}

struct Shown(Browser);

impl Shown {
    fn text(&mut self, selector: &str) -> String {
        let shown = format!(
            "(() => {{ const one = document.querySelector({selector:?}); return one.checkVisibility() ? one.textContent : ''; }})()"
        );
        self.0.evaluate(&shown).as_str().unwrap_or_default().to_owned()
    }

    #[track_caller]
    #[allow(clippy::disallowed_methods, reason = "a browser takes real time")]
    fn eventually(&mut self, expression: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.0.evaluate(expression) != json!(true) {
            let all = "document.querySelector('main').innerText";
            assert!(Instant::now() < deadline, "never {expression}: {}", self.0.evaluate(all));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    #[track_caller]
    fn eventually_says(&mut self, selector: &str, text: &str) {
        self.eventually(&format!("document.querySelector({selector:?}).textContent.includes({})", json!(text)));
    }

    /// As when a tab goes behind another one, and comes back.
    fn hide(&mut self, hidden: bool) {
        self.0.evaluate(&format!(
            "Object.defineProperty(document, 'hidden', {{ value: {hidden}, configurable: true }}); \
             document.dispatchEvent(new Event('visibilitychange'))"
        ));
    }

    /// Every text that is read out by itself, since this was begun.
    fn listen(&mut self) {
        self.0.evaluate(
            "window.heard = []; if (!window.listens) { window.listens = true; \
             for (const region of document.querySelectorAll('[role=alert], [role=status]')) \
             new MutationObserver(() => { if (!region.hidden) window.heard.push(region.textContent); }) \
             .observe(region, { childList: true, characterData: true, subtree: true, attributes: true, attributeFilter: ['hidden'] }); }",
        );
    }

    fn heard(&mut self) -> Vec<String> {
        let heard = self.0.evaluate("JSON.stringify(window.heard)");
        serde_json::from_str(heard.as_str().unwrap_or("[]")).unwrap()
    }
}

fn node(name: &str) -> Value {
    json!({
        "name": name, "address": "127.0.0.1:1", "zone": "", "weight": 1, "stays": true, "owned_percent": 50.0, "state": "up",
        "figures": {
            "status": {
                "name": name, "version": "1", "ring_version": 1, "uptime_ms": 5000, "keys": 7, "bytes": 70, "hints": 0,
                "clock_offset_ms": null, "takes_writes": true, "conditions": [], "peers": [],
            },
            "unfinished": [], "hints": [], "exchanges": [], "compared_ms": null, "round_trips": [], "requests": [],
            "moving": { "taking": 0, "taken": 0, "giving": 0, "given": 0, "keys": 0, "bytes": 0, "rate": 0, "keys_left": 0 },
            "under_way": 0, "client_connections": 0, "reads_found": 0, "siblings_read": 0, "writes_discarded": 0,
            "fallback_coordinated": 0, "hints_delivered": 0, "keys_repaired": 0, "disk": null, "partitions_uncounted": 0,
            "leaves_scrubbed": 0, "damaged": 0, "aae_paused": false,
        },
    })
}

fn sight() -> Value {
    json!({
        "cluster": "t", "speaker": "n1", "at_ms": 1_700_000_000_000_u64, "page": super::id(), "ring_version": 1, "unfinished": [],
        "verdict": { "well": true, "severity": null, "sentence": "All 2 nodes are up and connected.", "remedy": null, "more": 0 },
        "troubles": [], "left_out": { "all": 0, "critical": 0 }, "nodes": [node("n1"), node("n2")],
    })
}

/// The worst is said by the first line.
fn troubled(what: &str, nodes: &[&str], for_ms: u64) -> Value {
    let mut sight = sight();
    sight["verdict"] = json!({
        "well": false, "severity": "warning", "sentence": format!("{}: {what}.", nodes[0]), "remedy": "make room", "more": 0,
    });
    sight["troubles"] = json!([{
        "nodes": nodes, "name": "disk_low", "peer": null, "severity": "warning", "for_ms": for_ms, "what": what, "remedy": "make room",
    }]);
    sight
}

#[test]
fn what_several_nodes_say_alike_is_said_with_all_of_them() {
    let stage = Stage::open();
    let Some(mut shown) = stage.shows(&troubled("the disk fills up", &["n1"], 1000)) else { return };
    shown.eventually_says("h1", "n1: the disk fills up.");
    assert_eq!(shown.text("#troubles"), "", "the first line has said it");
    stage.send(&troubled("the disk fills up", &["n10", "n1", "n2"], 90_000));
    shown.eventually_says("#troubles-list", "n1, n2, n10 the disk fills up (for 1 min)");
    assert!(shown.text("#troubles").contains("n1, n2, n10"), "it can be seen");
    assert_eq!(shown.0.complaints(), &[] as &[String]);
}

#[test]
fn what_is_left_out_is_counted_and_makes_no_news() {
    let stage = Stage::open();
    let mut many = troubled("the disk fills up", &["n1"], 1000);
    let Some(mut shown) = stage.shows(&many) else { return };
    many["left_out"] = json!({ "all": 1200, "critical": 3 });
    many["troubles"][0]["what"] = json!("another one");
    many["troubles"][0]["name"] = json!("another");
    stage.send(&many);
    shown.eventually_says("#troubles-more", "And 1,200 more, 3 of them critical: driftless status lists all.");
    assert!(!shown.text("#troubles-more").is_empty(), "it can be seen");
    assert_eq!(shown.text("#no-news"), "None.");
    many["left_out"] = json!({ "all": 0, "critical": 0 });
    stage.send(&many);
    shown.eventually("document.getElementById('troubles-more').hidden");
}

/// Numbers in what was read out changed each second, and so did how old all was: a screen reader spoke without an end.
#[test]
fn what_is_read_out_is_read_out_once() {
    let stage = Stage::open();
    let Some(mut shown) = stage.shows(&sight()) else { return };
    shown.listen();
    for second in 1..5 {
        stage.send(&troubled(&format!("the disk fills up: {} GiB", 9 - second), &["n1"], second * 1000));
        shown.eventually_says("h1", &format!("{} GiB", 9 - second));
    }
    stage.send(&troubled("the disk fills up: 4 GiB", &["n2"], 9000));
    shown.eventually_says("h1", "n2");
    let heard = shown.heard();
    let expected =
        ["n1: the disk fills up: 8 GiB. To do: make room.", "n2: the disk fills up: 4 GiB. To do: make room."];
    assert_eq!(heard, expected);
    // The node falls silent.
    shown.listen();
    *stage.refusal.lock().unwrap() = Some("8 watch already\n");
    stage.shown.send_replace(vec![("cluster", "}".to_owned())]);
    shown.eventually(
        "!document.getElementById('age').hidden && document.getElementById('age').textContent.includes('4 s old')",
    );
    let heard = shown.heard();
    assert_eq!(heard.len(), heard.iter().collect::<std::collections::BTreeSet<_>>().len(), "{heard:?}");
}

/// It said that it was live, before it drew anything.
#[test]
fn a_page_that_cannot_draw_says_what_and_does_not_claim_to_be_live() {
    let stage = Stage::open();
    let Some(mut shown) = stage.shows(&sight()) else { return };
    assert_eq!(shown.text("#faulty"), "");
    let ring = json!({ "version": 2, "n": 1, "members": ["n1"] });
    stage.send_with(&ring, &sight());
    shown.eventually_says("#faulty", "This page cannot show the ring (");
    assert_eq!(shown.0.evaluate("document.getElementById('ring').classList.contains('stale')"), json!(true));
    assert_eq!(shown.0.evaluate("document.body.classList.contains('stale')"), json!(false), "the others are live");
    stage.send(&sight());
    shown.eventually("document.getElementById('faulty').hidden");

    let mut odd = sight();
    odd["verdict"] = Value::Null;
    stage.send(&odd);
    shown.eventually_says("h1", "Whether all is well cannot be shown.");
    stage.send(&sight());
    shown.eventually_says("h1", "All is well");

    stage.shown.send_replace(vec![("cluster", "{\"cut".to_owned())]);
    shown.eventually_says("#broken", "Not live: n1 sends what this page cannot read (");
    assert!(shown.0.evaluate("document.title").as_str().unwrap().contains("not live"));
    assert_eq!(shown.0.evaluate("document.body.classList.contains('stale')"), json!(true));
    stage.send(&sight());
    shown.eventually("!document.body.classList.contains('stale')");
    assert!(!shown.0.complaints().is_empty(), "what failed stands in the browser's console as well");
}

#[test]
fn what_the_node_refuses_is_said_in_its_words() {
    let stage = Stage::open();
    *stage.refusal.lock().unwrap() = Some("8 watch already, and more may not\n");
    let Some(mut shown) = stage.shows(&sight()) else { return };
    shown.eventually_says("#broken", "Not live: this node refuses: 8 watch already, and more may not.");
    assert_eq!(shown.text("h1"), "Nothing is known of this cluster yet.");
    *stage.refusal.lock().unwrap() = None;
    shown.eventually_says("h1", "All is well");
}

#[test]
fn a_page_that_comes_back_into_sight_says_that_it_is_not_live_until_it_is() {
    let stage = Stage::open();
    let Some(mut shown) = stage.shows(&sight()) else { return };
    shown.eventually_says("h1", "All is well");
    // Time is taken to have passed.
    shown.0.evaluate("window.later = 0; const now = Date.now; Date.now = () => now() + window.later");
    shown.0.evaluate("const after = setTimeout; window.setTimeout = (what, ms) => after(what, ms / 1000)");
    shown.hide(true);
    stage.until_nobody_streams();
    shown.0.evaluate("window.later = 600000");
    shown.listen();
    shown.hide(false);
    shown.eventually("!document.body.classList.contains('stale')");
    let heard = shown.heard();
    assert_eq!(heard[0], "Not live: this page was out of sight, and asks n1 again …");
    assert!(stage.streams.load(Ordering::SeqCst) == 1);
}

/// The seventh waited for ever, as a browser opens six connections to one address.
#[test]
fn ten_pages_of_one_browser_are_fed_by_one_stream_and_another_takes_over() {
    let stage = Stage::open();
    let Some(mut shown) = stage.shows(&sight()) else { return };
    shown.eventually_says("h1", "All is well");
    let mut pages = vec![shown.0.page()];
    for _ in 0..9 {
        pages.push(shown.0.open_another(&stage.url()));
        shown.eventually_says("h1", "All is well");
        shown.eventually("document.getElementById('ring-count') !== null");
    }
    assert_eq!(stage.streams.load(Ordering::SeqCst), 1);
    // Behind another one for a moment, a page is fed all the same.
    shown.hide(true);
    stage.send(&troubled("the clock is off", &["n1"], 1000));
    shown.eventually_says("h1", "the clock is off");
    shown.hide(false);
    assert_eq!(shown.text("#broken"), "");
    // Closed in turn, the first of them first: the last one is fed all the same.
    let last = pages.pop().unwrap();
    stage.send(&troubled("the disk fills up", &["n1"], 1000));
    for page in &pages {
        shown.0.turn_to(page);
        shown.eventually_says("h1", "the disk fills up");
        shown.0.evaluate("window.setTimeout = (what) => what()");
        shown.hide(true);
    }
    shown.0.turn_to(&last);
    stage.send(&sight());
    shown.eventually_says("h1", "All is well");
    shown.eventually("!document.body.classList.contains('stale')");
    assert_eq!(stage.streams.load(Ordering::SeqCst), 1);
    assert_eq!(shown.0.complaints(), &[] as &[String]);
}

/// What pages of the browser pass on to each other, with a channel of the test's own.
const OVERHEAR: &str = "window.passed = []; \
    window.other = new BroadcastChannel(`driftless ${document.documentElement.dataset.page} ${location.pathname}`); \
    window.other.onmessage = ({ data }) => window.passed.push(data);";

/// It was shown as live for as long as nobody had told it otherwise.
#[test]
fn a_page_that_is_opened_while_the_stream_is_lost_hears_how_old_all_is_and_that_it_is_lost() {
    let stage = Stage::open();
    let Some(mut shown) = stage.shows(&sight()) else { return };
    shown.eventually_says("h1", "All is well");
    shown.0.evaluate("window.setTimeout = () => 0");
    *stage.refusal.lock().unwrap() = Some("8 watch already, and more may not\n");
    shown.eventually_says("#broken", "n1 refuses");
    // It neither asks again nor says each second how things are: only what it is asked is heard.
    shown.0.evaluate("Object.defineProperty(document, 'hidden', { value: true })");
    let before = shown.0.evaluate("Date.now()").as_f64().unwrap();
    shown.0.evaluate(OVERHEAR);
    shown.0.evaluate("window.other.postMessage({ kind: 'ask', text: '' })");
    shown.eventually("window.passed.some(({ kind }) => kind === 'lost')");
    let passed = shown.0.evaluate("window.passed");
    let kinds: Vec<_> = passed.as_array().unwrap().iter().filter_map(|one| one["kind"].as_str()).collect();
    assert_eq!(kinds, ["ring", "cluster", "lost"], "{passed}");
    assert!(passed[1]["at"].as_f64().unwrap() < before && passed[2]["text"].as_str().unwrap().contains("refuses"));
}

#[test]
fn what_is_passed_on_late_is_not_shown() {
    let stage = Stage::open();
    let Some(mut shown) = stage.shows(&sight()) else { return };
    shown.eventually_says("h1", "All is well");
    shown.0.open_another(&stage.url());
    shown.eventually_says("h1", "All is well");
    shown.listen();
    shown.0.evaluate(OVERHEAR);
    let old = troubled("the clock is off", &["n1"], 1000).to_string();
    let old = json!({ "kind": "cluster", "text": old, "at": 1000 });
    shown.0.evaluate(&format!("window.other.postMessage({old})"));
    stage.send(&troubled("the disk fills up", &["n1"], 1000));
    shown.eventually_says("h1", "the disk fills up");
    let heard = shown.heard();
    assert!(!heard.iter().any(|text| text.contains("the clock is off")), "{heard:?}");
}

/// Asking again without end kept a core of the browser.
#[test]
fn where_the_browser_keeps_nothing_for_the_page_it_has_a_stream_of_its_own() {
    let stage = Stage::open();
    let Some(mut shown) = stage.shows(&sight()) else { return };
    let denies = "Promise.reject(new DOMException('denied', 'SecurityError'))";
    let no_locks =
        format!("window.asked = 0; navigator.locks.request = () => {{ window.asked += 1; return {denies}; }};");
    let nothing = "const deny = () => { throw new DOMException('denied', 'SecurityError'); }; \
        window.BroadcastChannel = deny; Object.defineProperty(window, 'sessionStorage', { get: deny });";
    let mut newer = sight();
    newer["page"] = json!("another");
    for (number, source) in [no_locks.as_str(), nothing].into_iter().enumerate() {
        stage.send(&sight());
        shown.0.ask("Page.addScriptToEvaluateOnNewDocument", json!({ "source": source }));
        shown.0.evaluate("window.isBefore = true");
        shown.0.ask("Page.reload", json!({}));
        shown.eventually("window.isBefore !== true && document.getElementById('ring-count') !== null");
        shown.eventually_says("h1", "All is well");
        let asked = if number == 0 { 1 } else { 0 };
        assert_eq!(shown.0.evaluate("window.asked"), json!(asked));
        stage.send(&newer);
        shown.eventually_says("#broken", "runs another release than this page is of: load the page again.");
    }
}

/// On one origin, behind a proxy, are several nodes.
#[test]
fn pages_of_another_path_are_of_another_node() {
    let stage = Stage::open();
    let Some(mut shown) = stage.shows(&sight()) else { return };
    shown.eventually_says("h1", "All is well");
    shown.0.open_another(&format!("{}n2/", stage.url()));
    shown.eventually_says("h1", "All is well");
    assert_eq!(stage.streams.load(Ordering::SeqCst), 2);
}

#[test]
fn a_page_of_another_release_than_its_node_is_loaded_again_and_if_that_does_not_help_says_so() {
    let stage = Stage::open();
    let mut newer = sight();
    newer["page"] = json!("another");
    let Some(mut shown) = stage.shows(&newer) else { return };
    shown.eventually_says("#broken", "runs another release than this page is of: load the page again.");
    assert_eq!(shown.0.evaluate("sessionStorage.length"), json!(1));
    stage.send(&sight());
    shown.eventually_says("h1", "All is well");
}

/// Names are what operators made them, and figures of a release that is not here yet may lack some.
#[test]
fn names_are_no_markup_and_what_is_missing_is_no_number() {
    let stage = Stage::open();
    let evil = "<img src=x onerror=alert(1)>".repeat(7);
    let mut sight = sight();
    sight["at_ms"] = Value::Null;
    sight["nodes"][1]["name"] = json!(evil);
    sight["nodes"][1]["owned_percent"] = Value::Null;
    sight["nodes"][1]["figures"]["status"] = json!({ "conditions": [] });
    sight["nodes"][1]["figures"]["disk"] = json!({ "free": 0, "total": 0, "store": 0 });
    sight["nodes"][1]["figures"]["compared_ms"] = Value::Null;
    sight["nodes"].as_array_mut().unwrap().push(json!({
        "name": "old", "address": "", "zone": "", "weight": 1, "stays": true, "owned_percent": 1.0, "state": "down", "figures": null,
    }));
    let ring = json!({
        "version": 1, "n": 1, "partitions": 2, "members": ["n1", evil], "owners": [[0], [1]], "changing": [], "partitions_changing": 0,
    });
    stage.send_with(&ring, &sight);
    let Some(mut shown) = stage.shows(&sight) else { return };
    stage.send_with(&ring, &sight);
    shown.eventually("document.querySelectorAll('#nodes tbody tr').length === 3 && document.querySelectorAll('#owners li').length === 2");
    assert_eq!(shown.text("#faulty"), "");
    assert_eq!(shown.0.evaluate("document.querySelectorAll('img').length"), json!(0));
    let all = shown.0.evaluate("document.body.innerText + document.title").as_str().unwrap().to_owned();
    for word in ["NaN", "undefined", "null", "Invalid", "Infinity"] {
        assert!(!all.contains(word), "{word}: {all}");
    }
    for width in [360, 1280] {
        shown.0.ask(
            "Emulation.setDeviceMetricsOverride",
            json!({ "width": width, "height": 800, "deviceScaleFactor": 1, "mobile": false }),
        );
        let wider = "document.documentElement.scrollWidth - document.documentElement.clientWidth";
        assert_eq!(shown.0.evaluate(wider), json!(0), "{width} px are enough");
    }
    assert_eq!(shown.0.complaints(), &[] as &[String]);
}

/// How long a ring takes to be drawn is printed, and not judged: the machine may be busy. Judged is of how many pieces it is.
#[test]
#[allow(clippy::print_stdout, reason = "how long it takes is told")]
fn a_ring_of_any_number_of_partitions_is_drawn_in_a_few_paths() {
    let stage = Stage::open();
    let Some(mut shown) = stage.shows(&sight()) else { return };
    let names: Vec<String> = (0..50).map(|i| format!("n{i}")).collect();
    let (mut pseudo, mut sizes) = (1_u64, Vec::new());
    for partitions in [1024_usize, 4096, 65_536] {
        let drawn = partitions.min(2048);
        let owners: Vec<[u64; 3]> = (0..drawn)
            .map(|_| {
                [0, 1, 2].map(|_| {
                    pseudo = pseudo.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (pseudo >> 33) % 50
                })
            })
            .collect();
        let ring = json!({
            "version": partitions, "n": 3, "partitions": partitions, "members": names, "owners": owners, "changing": [3, 5],
            "partitions_changing": 2,
        });
        let frames = "window.longest = 0; { let last = performance.now(); const look = (now) => { window.longest = Math.max(window.longest, now - \
                      last); last = now; requestAnimationFrame(look); }; requestAnimationFrame(look); }";
        shown.0.evaluate(frames);
        stage.send_with(&ring, &sight());
        shown.eventually_says(
            "#ring-words",
            &format!("{partitions} partitions")
                .replace("1024", "1,024")
                .replace("4096", "4,096")
                .replace("65536", "65,536"),
        );
        let paths = shown.0.evaluate("document.querySelectorAll('#ring-picture *').length").as_u64().unwrap();
        let longest = shown.0.evaluate("Math.round(window.longest)");
        println!(
            "{partitions} partitions: {} bytes, {paths} elements, longest frame {longest} ms",
            ring.to_string().len()
        );
        sizes.push(paths);
    }
    assert!(sizes.iter().all(|paths| *paths < 400), "{sizes:?}");
}
