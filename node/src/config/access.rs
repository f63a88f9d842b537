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
//! What the file says of a name is stronger than what the certificate says.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use driftless_proto::{BucketName, Role, Topology};
use serde::Deserialize;
use toml::Spanned;

use super::error::{ConfigError, closest, read_file};
use crate::net::subject::Subject;

/// What an access file says. Without one, clients whose certificate says no role are writers, and nobody is denied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Access {
    default: Role,
    clients: BTreeMap<String, Grant>,
    denied: Denied,
    /// Where it names buckets.
    buckets: Vec<Named>,
}

/// A bucket as the file names it.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Named {
    line: usize,
    bucket: BucketName,
}

/// A role, and where it counts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Grant {
    /// What its holder may do.
    pub role: Role,
    /// In the buckets of these names; in all if absent. A name may be of a bucket that is still to come, or is dropped: buckets
    /// come and go while nodes run.
    pub buckets: Option<BTreeSet<BucketName>>,
}

/// Who is not let in.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Denied {
    clients: BTreeSet<String>,
    nodes: BTreeSet<String>,
    serials: BTreeSet<Serial>,
}

/// The serial number of a certificate, as `openssl x509 -serial` prints it: hexadecimal, upper case, no leading zeros.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Serial(String);

impl Default for Access {
    fn default() -> Access {
        Access { default: Role::Writer, clients: BTreeMap::new(), denied: Denied::default(), buckets: Vec::new() }
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
            match Serial::read(serial.get_ref()) {
                Some(read) => drop(access.denied.serials.insert(read)),
                None => {
                    let expected = "as `openssl x509 -noout -serial -in FILE` prints it: hexadecimal digits";
                    let problem = format!("{:?} is no serial number; write it {expected}", serial.get_ref());
                    problems.push(refuse(Some(serial.span()), problem));
                }
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

    /// What the client of this name may do; `certified` is the role in its certificate.
    pub fn grant(&self, name: &str, certified: Option<Role>) -> Grant {
        let unnamed = || Grant { role: certified.unwrap_or(self.default), buckets: None };
        self.clients.get(name).cloned().unwrap_or_else(unnamed)
    }

    /// Whether the client of this name is not let in.
    pub fn denies_client(&self, name: &str) -> bool {
        self.denied.clients.contains(name)
    }

    /// Whether the node of this name is not let in.
    pub fn denies_node(&self, name: &str) -> bool {
        self.denied.nodes.contains(name)
    }

    /// Whether a certificate with this number is not let in, nor what it has signed.
    pub fn denies_serial(&self, serial: &Serial) -> bool {
        self.denied.serials.contains(serial)
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

    /// How many names and numbers are not let in.
    pub fn denied(&self) -> usize {
        self.denied.clients.len() + self.denied.nodes.len() + self.denied.serials.len()
    }
}

impl Grant {
    /// Whether it counts in the bucket of this name.
    pub fn covers(&self, bucket: &BucketName) -> bool {
        self.buckets.as_ref().is_none_or(|buckets| buckets.contains(bucket))
    }
}

impl Serial {
    /// From the bytes of the number in a certificate.
    pub fn of_bytes(bytes: &[u8]) -> Serial {
        let digits: String = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
        Serial::of_digits(&digits)
    }

    /// Hexadecimal digits, with or without colons between them.
    fn read(text: &str) -> Option<Serial> {
        let digits: String = text.trim().chars().filter(|digit| *digit != ':').collect();
        let is_number = !digits.is_empty() && digits.chars().all(|digit| digit.is_ascii_hexdigit());
        is_number.then(|| Serial::of_digits(&digits.to_ascii_uppercase()))
    }

    fn of_digits(digits: &str) -> Serial {
        Serial(digits.trim_start_matches('0').to_owned())
    }
}

/// With a leading zero where the number of digits is odd, as OpenSSL has it.
impl std::fmt::Display for Serial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let zero = if self.0.len() % 2 == 1 || self.0.is_empty() { "0" } else { "" };
        write!(f, "{zero}{}", self.0)
    }
}

/// A name as certificates have it. Any other would be of nobody, and a line about nobody is a mistake that lets somebody in.
fn plain(name: Spanned<String>) -> Result<String, (Range<usize>, String)> {
    if Subject::is_plain(name.get_ref()) {
        return Ok(name.into_inner());
    }
    let problem = format!(
        "no certificate has the name {:?}; write the last part of what `cert show` prints, as in \"web\" of driftless://shop/client/web",
        name.get_ref()
    );
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
    use driftless_testkit::TopologyBuilder;

    fn parsed(text: &str) -> Result<Access, String> {
        Access::parse(Path::new("access.toml"), text).map_err(|error| error.to_string())
    }

    fn bucket(name: &str) -> BucketName {
        BucketName::new(name).expect("is valid")
    }

    #[test]
    fn what_the_file_says_is_stronger_than_the_certificate_and_that_stronger_than_the_default() {
        let text = "default = \"reader\"\n[[client]]\nname = \"web\"\nrole = \"writer\"\nbuckets = [\"default\"]\n";
        let access = parsed(text).expect("is fine");
        let web = access.grant("web", Some(Role::Operator));
        assert_eq!(web.role, Role::Writer);
        assert!(web.covers(&bucket("default")) && !web.covers(&bucket("carts")));
        assert_eq!(access.grant("other", Some(Role::Operator)), Grant { role: Role::Operator, buckets: None });
        assert_eq!(access.grant("other", None), Grant { role: Role::Reader, buckets: None });
        assert_eq!(parsed("# nobody in particular").expect("is fine"), Access::default());
        assert_eq!(Access::default().grant("x", None).role, Role::Writer);
        assert_eq!(parsed("default = \"none\"").expect("is fine").grant("x", None).role, Role::None);
    }

    #[test]
    fn serial_numbers_are_read_as_other_tools_print_them() {
        let access = parsed("[deny]\nserials = [\"0a:FF:01\", \"0B0C\"]\nclients = [\"m\"]\n").expect("is fine");
        assert!(access.denies_serial(&Serial::of_bytes(&[0, 0x0a, 0xff, 0x01])));
        assert!(access.denies_serial(&Serial::of_bytes(&[0x0b, 0x0c])));
        assert!(!access.denies_serial(&Serial::of_bytes(&[0x0b])));
        assert_eq!(Serial::of_bytes(&[0, 0x0a, 0xff]).to_string(), "0AFF");
        assert!(access.denies_client("m") && !access.denies_node("m"));
        assert_eq!(access.denied(), 3);
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
