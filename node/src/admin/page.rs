//! The status page: one document, with its style and its script in it, that asks for nothing from anywhere but this node's stream of events.
//!
//! What a browser may do with it is said in the headers: run this script and no other, connect here and nowhere else, be shown in no frame.

use std::sync::LazyLock;

use axum::http::header::{self, HeaderName};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Serves it.
pub(super) async fn page() -> Response {
    let Page { text, policy, .. } = &*PAGE;
    let headers =
        [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CONTENT_SECURITY_POLICY, policy.as_str())];
    (headers, not_to_be_kept(), text.as_str()).into_response()
}

/// Which page this is, for one that was loaded from another release.
pub(super) fn id() -> &'static str {
    &PAGE.id
}

struct Page {
    text: String,
    policy: String,
    id: String,
}

/// Put together once.
static PAGE: LazyLock<Page> = LazyLock::new(|| {
    let script = SCRIPTS.concat();
    let id = hash(&[FRAME, STYLE, &script].concat());
    let text = FRAME.replace("{page}", &id).replace("{style}", STYLE).replace("{script}", &script);
    let (style, script) = (hash(STYLE), hash(&script));
    let policy = format!(
        "default-src 'none'; style-src '{style}'; script-src '{script}'; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    );
    Page { text, policy, id }
});

/// As a Content-Security-Policy names what may run. The provider of TLS has the function; no other crate is needed for it.
fn hash(text: &str) -> String {
    let provider = rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
    let suite = provider.tls13().expect("is a suite of TLS 1.3, as its name says");
    format!("sha256-{}", STANDARD.encode(suite.common.hash_provider.hash(text.as_bytes()).as_ref()))
}

/// Of the page and of what feeds it.
pub(super) fn not_to_be_kept() -> [(HeaderName, &'static str); 5] {
    [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ]
}

const FRAME: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPTS: [&str; 8] = [
    include_str!("page/words.js"),
    include_str!("page/ring.js"),
    include_str!("page/requests.js"),
    include_str!("page/news.js"),
    include_str!("page/tasks.js"),
    include_str!("page/verdict.js"),
    include_str!("page/page.js"),
    include_str!("page/stream.js"),
];

#[cfg(test)]
mod in_browser;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_names_what_is_in_the_page_and_nothing_else() {
        let Page { text, policy, .. } = &*PAGE;
        let between = |begin: &str, end: &str| {
            let (_, rest) = text.split_once(begin).expect("begins");
            rest.split_once(end).expect("ends").0.to_owned()
        };
        for inline in [between("<style>", "</style>"), between("<script type=\"module\">", "</script>")] {
            assert!(inline.len() > 1000 && policy.contains(&hash(&inline)), "{inline}");
        }
        // What the browser takes for the end of either would not be what the policy names.
        assert_eq!((text.matches("</style").count(), text.matches("</script").count()), (1, 1));
        for open in ["unsafe", "*", "http", "strict-dynamic"] {
            assert!(!policy.contains(open), "{policy}");
        }
    }

    /// What is known of a hash: that of nothing.
    #[test]
    fn what_may_run_is_named_by_its_sha_256() {
        assert_eq!(hash(""), "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
    }

    #[test]
    fn the_page_asks_nobody_else_and_writes_no_markup_from_data() {
        let text = &PAGE.text;
        // The name of a namespace is no address, and a pattern is in the page.
        let text = text.replace("http://www.w3.org/2000/svg", "").replace("url(#lost)", "");
        for foreign in ["http:", "https:", "//cdn", "@import", "url("] {
            assert!(!text.contains(foreign), "{foreign}");
        }
        for markup in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", " style=\""] {
            assert!(!text.contains(markup), "{markup}");
        }
    }

    /// "Connecting …" stood there for ever where no script ran.
    #[test]
    fn a_page_whose_script_does_not_run_claims_nothing_and_says_where_to_look() {
        for said in [
            "<noscript><p>This page needs JavaScript.",
            ">Nothing is known yet: the script of this page has not run.</h1>",
        ] {
            assert!(PAGE.text.contains(said), "{said}");
        }
        let (markup, _) = PAGE.text.split_once("<script").expect("has one");
        assert!(!markup.contains("Connecting") && !markup.contains("well</h1>"));
    }

    /// By the formula of WCAG 2: text against what is behind it 4.5 to 1, lines 3 to 1.
    #[test]
    fn colours_can_be_told_from_their_ground_in_light_and_in_the_dark() {
        let (light, dark) = STYLE.split_once("prefers-color-scheme: dark").expect("has both");
        for (scheme, style) in [("light", light), ("dark", dark)] {
            let contrast = |one: &str, other: &str| {
                let (one, other) = (luminance(style, one), luminance(style, other));
                (one.max(other) + 0.05) / (one.min(other) + 0.05)
            };
            let mut pairs = vec![("accent", "ground", 4.5), ("accent", "card", 4.5)];
            for ground in ["ground", "card", "good-ground", "note-ground", "warning-ground", "critical-ground"] {
                pairs.push(("text", ground, 4.5));
            }
            for tone in ["faint", "good", "warning", "critical"] {
                pairs.push((tone, "card", 4.5));
            }
            pairs.extend([
                ("faint", "ground", 4.5),
                ("critical", "critical-ground", 4.5),
                ("warning", "warning-ground", 4.5),
            ]);
            pairs.extend(["get", "put", "delete", "scan"].map(|line| (line, "card", 3.0)));
            for (one, other, least) in pairs {
                let contrast = contrast(one, other);
                assert!(contrast >= least, "{scheme}: {one} on {other} is {contrast:.2} to 1");
            }
        }
    }

    /// Of a colour that is written as `--name: #rrggbb`, or with three digits.
    fn luminance(style: &str, name: &str) -> f64 {
        let (_, rest) = style.split_once(&format!("--{name}: #")).expect("is a colour of both schemes");
        let digits: String = rest.chars().take_while(char::is_ascii_hexdigit).collect();
        let digits = if digits.len() == 3 { digits.chars().flat_map(|digit| [digit; 2]).collect() } else { digits };
        let linear = |at: usize| {
            let part = f64::from(u8::from_str_radix(&digits[at..at + 2], 16).expect("are two digits")) / 255.0;
            if part <= 0.03928 { part / 12.92 } else { ((part + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * linear(0) + 0.7152 * linear(2) + 0.0722 * linear(4)
    }
}
