//! The access file: what the holders of certificates may do on one node, and who is not let in at all.
//!
//! ```text
//! default = "reader"                  # of clients that are not named and whose certificate says no role
//!
//! [[client]]
//! name = "web"                        # as in the certificate
//! role = "writer"
//! buckets = ["carts"]                 # all, if left out
//!
//! [deny]
//! clients = ["mallory"]
//! nodes = ["n3"]
//! serials = ["5A:00:C3"]
//! ```
//! What the file says of a name is stronger than what the certificate says; what the cluster agrees on is stronger than the file
//! ([`AgreedAccess`](driftless_proto::AgreedAccess), `net::allowed`).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use driftless_proto::access::{self, AccessError, DenyList};
use driftless_proto::{BucketName, Grant, Role, Topology};
use serde::Deserialize;
use toml::Spanned;

use super::error::{ConfigError, closest, read_file};

/// What an access file says. Without one, clients whose certificate says no role are writers, and nobody is denied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Access {
    default: Role,
    clients: BTreeMap<String, Grant>,
    denied: DenyList,
    /// Where it names buckets.
    buckets: Vec<Named>,
}

/// A bucket as the file names it.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Named {
    line: usize,
    bucket: BucketName,
}

impl Default for Access {
    fn default() -> Access {
        Access { default: Role::Writer, clients: BTreeMap::new(), denied: DenyList::default(), buckets: Vec::new() }
    }
}

impl Access {
    /// Reads the file.
    ///
    /// # Errors
    /// [`ConfigError`] names the line and what to write instead.
    pub fn read(path: &Path) -> Result<Access, ConfigError> {
        Access::parse(path, &read_file(path)?)
    }

    /// Reads the text of the file; the path is for messages.
    ///
    /// # Errors
    /// As [`Access::read`].
    pub fn parse(path: &Path, text: &str) -> Result<Access, ConfigError> {
        let (access, problems) = Access::gather(path, text);
        problems.into_iter().next().map_or(Ok(access), Err)
    }

    /// What the text says, and all that is wrong with it, which is left out.
    pub(super) fn gather(path: &Path, text: &str) -> (Access, Vec<ConfigError>) {
        let refuse = |span: Option<Range<usize>>, problem: String| ConfigError::Access {
            path: PathBuf::from(path),
            line: line_of(text, span.map_or(0, |span| span.start)),
            problem,
        };
        let (mut access, mut problems) = (Access::default(), Vec::new());
        if text.trim().is_empty() {
            // As an editor leaves it that found the disk full: it would let in whoever was denied.
            return (access, vec![refuse(None, "it is empty; to say nothing, write a comment".to_owned())]);
        }
        let written: Written = match toml::from_str(text) {
            Ok(written) => written,
            Err(error) => return (access, vec![refuse(error.span(), error.message().trim().to_owned())]),
        };
        access.default = written.default.unwrap_or(Role::Writer);
        for client in written.client {
            let mut named = client.buckets.as_ref().map(|_| BTreeSet::new());
            for name in client.buckets.into_iter().flatten() {
                match (BucketName::new(name.get_ref()), &mut named) {
                    (Ok(bucket), Some(named)) => {
                        access.buckets.push(Named { line: line_of(text, name.span().start), bucket: bucket.clone() });
                        named.insert(bucket);
                    }
                    (Ok(_), None) => {}
                    (Err(error), _) => problems.push(refuse(Some(name.span()), error.to_string())),
                }
            }
            let (span, grant) = (client.name.span(), Grant { role: client.role, buckets: named });
            match plain(client.name) {
                Err((span, problem)) => problems.push(refuse(Some(span), problem)),
                Ok(name) if access.clients.contains_key(&name) => {
                    let problem = format!("the client {name:?} stands here for a second time; leave one of the two");
                    problems.push(refuse(Some(span), problem));
                }
                Ok(name) => drop(access.clients.insert(name, grant)),
            }
        }
        let deny = written.deny.unwrap_or_default();
        for serial in deny.serials {
            match serial.get_ref().parse() {
                Ok(read) => drop(access.denied.serials.insert(read)),
                Err(error) => problems.push(refuse(Some(serial.span()), error.to_string())),
            }
        }
        for (names, denied) in [(deny.clients, &mut access.denied.clients), (deny.nodes, &mut access.denied.nodes)] {
            for name in names {
                match plain(name) {
                    Ok(name) => drop(denied.insert(name)),
                    Err((span, problem)) => problems.push(refuse(Some(span), problem)),
                }
            }
        }
        (access, problems)
    }

    /// Of clients that are not named and whose certificate says no role.
    pub fn default_role(&self) -> Role {
        self.default
    }

    /// What it says of the client of this name, if anything.
    pub fn grant(&self, name: &str) -> Option<&Grant> {
        self.clients.get(name)
    }

    /// Who is not let in.
    pub fn denied(&self) -> &DenyList {
        &self.denied
    }

    /// The buckets that it names and the cluster does not have: in them it allows nothing, until there is one. Each with its line
    /// and, where another name resembles it, that.
    pub fn unknown_buckets(&self, topology: &Topology) -> Vec<String> {
        let known = || topology.buckets().iter().map(|bucket| bucket.name.as_str());
        let unknown = self.buckets.iter().filter(|named| known().all(|name| name != named.bucket.as_str()));
        let tell = |named: &Named| {
            let advice = closest(named.bucket.as_str(), known()).map_or_else(
                || "`driftless bucket list` shows those that exist".to_owned(),
                |known| format!("did you mean {known:?}?"),
            );
            let (line, name) = (named.line, named.bucket.as_str());
            format!("line {line}: the cluster has no bucket {name:?}; {advice}")
        };
        unknown.map(tell).collect()
    }
}

/// A name as certificates have it. Any other would be of nobody, and a line about nobody is a mistake that lets somebody in.
fn plain(name: Spanned<String>) -> Result<String, (Range<usize>, String)> {
    if access::is_name(name.get_ref()) {
        return Ok(name.into_inner());
    }
    let problem = AccessError::Name(name.get_ref().clone()).to_string();
    Err((name.span(), problem))
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    default: Option<Role>,
    #[serde(default)]
    client: Vec<WrittenClient>,
    deny: Option<WrittenDeny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenClient {
    name: Spanned<String>,
    role: Role,
    buckets: Option<Vec<Spanned<String>>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct WrittenDeny {
    clients: Vec<Spanned<String>>,
    nodes: Vec<Spanned<String>>,
    serials: Vec<Spanned<String>>,
}

fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use driftless_proto::Serial;
    use driftless_testkit::TopologyBuilder;

    fn parsed(text: &str) -> Result<Access, String> {
        Access::parse(Path::new("access.toml"), text).map_err(|error| error.to_string())
    }

    fn bucket(name: &str) -> BucketName {
        BucketName::new(name).expect("is valid")
    }

    #[test]
    fn it_says_something_of_those_that_it_names_and_a_default_of_all_others() {
        let text = "default = \"reader\"\n[[client]]\nname = \"web\"\nrole = \"writer\"\nbuckets = [\"default\"]\n";
        let access = parsed(text).expect("is fine");
        let web = access.grant("web").expect("is named");
        assert_eq!(web.role, Role::Writer);
        assert!(web.covers(&bucket("default")) && !web.covers(&bucket("carts")));
        assert_eq!((access.grant("other"), access.default_role()), (None, Role::Reader));
        assert_eq!(parsed("# nobody in particular").expect("is fine"), Access::default());
        assert_eq!(Access::default().default_role(), Role::Writer);
        assert_eq!(parsed("default = \"none\"").expect("is fine").default_role(), Role::None);
    }

    #[test]
    fn serial_numbers_are_read_as_other_tools_print_them() {
        let access = parsed("[deny]\nserials = [\"0a:FF:01\", \"0B0C\"]\nclients = [\"m\"]\n").expect("is fine");
        let denied = access.denied();
        assert!(denied.serials.contains(&Serial::of_bytes(&[0, 0x0a, 0xff, 0x01])));
        assert!(denied.serials.contains(&Serial::of_bytes(&[0x0b, 0x0c])));
        assert!(!denied.serials.contains(&Serial::of_bytes(&[0x0b])));
        assert_eq!(Serial::of_bytes(&[0, 0x0a, 0xff]).to_string(), "0AFF");
        assert!(denied.clients.contains("m") && denied.nodes.is_empty());
        assert_eq!(denied.len(), 3);
    }

    #[test]
    fn a_bucket_that_the_cluster_does_not_have_is_told_and_allows_nothing_until_it_has() {
        let topology = TopologyBuilder::of_members(vec![driftless_ring::Member::new("a", "127.0.0.1:1")]).shared();
        let client = "[[client]]\nname = \"a\"\nrole = \"reader\"\n";
        let access = parsed(&format!("{client}buckets = [\n\"default\",\n\"defualt\", \"later\"]\n")).expect("is fine");
        let told = access.unknown_buckets(&topology);
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].contains("line 6") && told[0].contains("did you mean \"default\"?"), "{told:?}");
        assert!(told[1].contains("\"later\"") && told[1].contains("bucket list"), "{told:?}");
    }

    #[test]
    fn mistakes_name_the_line_and_the_remedy() {
        let client = "[[client]]\nname = \"a\"\nrole = \"reader\"\n";
        let cases: [(&str, usize, &[&str]); 10] = [
            ("default = \"root\"", 1, &["root", "reader", "operator"]),
            (" \n", 1, &["empty"]),
            ("[deny]\nclients = [\"driftless://shop/client/web\"]", 2, &["no certificate", "cert show"]),
            ("default = \"reader\"\nrights = 1\n", 2, &["rights", "default"]),
            (&format!("{client}bucket = []\n"), 4, &["bucket", "buckets"]),
            (
                &format!("{client}buckets = [\n\"default\",\n\"De fault\"]\n"),
                6,
                &["De fault", "is not a bucket name", "starting with"],
            ),
            (&format!("{client}{client}"), 5, &["\"a\"", "second time", "leave one"]),
            ("[[client]]\nrole = \"reader\"\n", 1, &["name"]),
            ("\n[deny]\nserials = [\"xyz\"]\n", 3, &["xyz", "openssl x509"]),
            ("[deny\n", 1, &[]),
        ];
        for (text, line, expected) in cases {
            let error = parsed(text).expect_err(text);
            assert!(error.starts_with(&format!("line {line} of access.toml: ")), "{text:?}: {error}");
            assert!(expected.iter().all(|part| error.contains(part)), "{text:?}: {error}");
        }
    }
}
