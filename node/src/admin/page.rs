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
    let Page { text, policy } = &*PAGE;
    let headers =
        [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CONTENT_SECURITY_POLICY, policy.as_str())];
    (headers, not_to_be_kept(), text.as_str()).into_response()
}

struct Page {
    text: String,
    policy: String,
}

/// Put together once.
static PAGE: LazyLock<Page> = LazyLock::new(|| {
    let script = SCRIPTS.concat();
    let text = FRAME.replace("{style}", STYLE).replace("{script}", &script);
    let (style, script) = (hash(STYLE), hash(&script));
    let policy = format!(
        "default-src 'none'; style-src '{style}'; script-src '{script}'; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    );
    Page { text, policy }
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
const SCRIPTS: [&str; 6] = [
    include_str!("page/words.js"),
    include_str!("page/ring.js"),
    include_str!("page/requests.js"),
    include_str!("page/news.js"),
    include_str!("page/tasks.js"),
    include_str!("page/page.js"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_names_what_is_in_the_page_and_nothing_else() {
        let Page { text, policy } = &*PAGE;
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
}
