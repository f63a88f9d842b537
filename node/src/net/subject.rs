//! Who a certificate says its holder is.
//!
//! One URI in the subject alternative names carries cluster, kind of holder and name; a node or client that checks a
//! certificate reads this and nothing else of it:
//!
//! ```text
//! driftless://CLUSTER/node/NAME       a node, whether or not it is a member
//! driftless://CLUSTER/client/NAME     an application or a person; what it may do is said by the cluster, or by nodes' access files
//! driftless://CLUSTER/client/NAME/ROLE  the same, with the role that it has where they do not say
//! driftless://CLUSTER/ca              the authority itself
//! ```

use std::fmt;
use std::str::FromStr;

use driftless_proto::Role;
use driftless_proto::access::is_name;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Cluster, kind and name of a certificate's holder.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Subject {
    /// Cluster whose authority issued it.
    pub cluster: String,
    /// What the holder is.
    pub holder: Holder,
    /// Its name; empty for the authority.
    pub name: String,
}

/// What the holder of a certificate is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Holder {
    /// A node of the cluster; may also ask as a client.
    Node,
    /// An application or a person, and what it may do if the certificate says.
    Client(Option<Role>),
    /// The authority that issues certificates.
    Authority,
}

/// Why a certificate names nobody.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SubjectError {
    /// Not X.509.
    #[error("it is not a readable X.509 certificate: {0}")]
    Unreadable(String),
    /// No URI of ours among its names.
    #[error("it carries no driftless:// name; issue it with `driftless cert`")]
    Missing,
    /// More than one: which one counts would be a guess.
    #[error("it carries several driftless:// names")]
    Several,
    /// A URI of ours that makes no sense.
    #[error(
        "{0:?} is not a driftless name; expected driftless://CLUSTER/node/NAME, or driftless://CLUSTER/client/NAME with or without a role"
    )]
    Malformed(String),
}

impl Subject {
    /// Reads it from a certificate.
    ///
    /// # Errors
    /// [`SubjectError`] if there is not exactly one.
    pub fn of_certificate(der: &[u8]) -> Result<Subject, SubjectError> {
        let (_, certificate) =
            X509Certificate::from_der(der).map_err(|error| SubjectError::Unreadable(error.to_string()))?;
        let names =
            certificate.subject_alternative_name().map_err(|error| SubjectError::Unreadable(error.to_string()))?;
        let names = names.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
        let mut uris = names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) if uri.starts_with(SCHEME) => Some(*uri),
            _ => None,
        });
        let uri = uris.next().ok_or(SubjectError::Missing)?;
        if uris.next().is_some() {
            return Err(SubjectError::Several);
        }
        uri.parse()
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Subject { cluster, holder, name } = self;
        match holder {
            Holder::Node => write!(f, "{SCHEME}{cluster}/node/{name}"),
            Holder::Client(None) => write!(f, "{SCHEME}{cluster}/client/{name}"),
            Holder::Client(Some(role)) => write!(f, "{SCHEME}{cluster}/client/{name}/{role}"),
            Holder::Authority => write!(f, "{SCHEME}{cluster}/ca"),
        }
    }
}

impl FromStr for Subject {
    type Err = SubjectError;

    fn from_str(uri: &str) -> Result<Subject, SubjectError> {
        let malformed = || SubjectError::Malformed(uri.chars().take(200).collect());
        let path = uri.strip_prefix(SCHEME).ok_or_else(malformed)?;
        let mut parts = path.split('/');
        let (cluster, kind, name, role) = (parts.next(), parts.next(), parts.next(), parts.next());
        let (holder, name) = match (kind, name, role) {
            (Some("node"), Some(name), None) => (Holder::Node, name),
            (Some("client"), Some(name), None) => (Holder::Client(None), name),
            (Some("client"), Some(name), Some(role)) => {
                (Holder::Client(Some(role.parse().map_err(|_| malformed())?)), name)
            }
            (Some("ca"), None, None) => (Holder::Authority, ""),
            _ => return Err(malformed()),
        };
        let cluster = cluster.unwrap_or_default();
        if parts.next().is_some() || !is_name(cluster) || (holder != Holder::Authority && !is_name(name)) {
            return Err(malformed());
        }
        Ok(Subject { cluster: cluster.to_owned(), holder, name: name.to_owned() })
    }
}

const SCHEME: &str = "driftless://";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_prints_as_it_reads() {
        for uri in [
            "driftless://shop/node/a",
            "driftless://shop/client/web.1",
            "driftless://shop/client/web.1/reader",
            "driftless://shop/ca",
        ] {
            let subject: Subject = uri.parse().expect("is well-formed");
            assert_eq!(subject.to_string(), uri);
        }
    }

    #[test]
    fn other_names_are_refused() {
        for uri in [
            "https://shop/node/a",
            "driftless://shop/node",
            "driftless://shop/node/",
            "driftless:///node/a",
            "driftless://shop/node/a/b",
            "driftless://shop/node/a/reader",
            "driftless://shop/client/a/none",
            "driftless://shop/client/a/root",
            "driftless://shop/client/a/reader/x",
            "driftless://shop/root/a",
            "driftless://sh op/node/a",
            "driftless://shop/ca/x",
        ] {
            assert!(uri.parse::<Subject>().is_err(), "{uri}");
        }
    }
}
