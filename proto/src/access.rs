//! What a cluster agrees on of who may do what: a default role, grants by name, and who is not let in.
//!
//! ```text
//! operator ─AccessChange─▶ AgreedAccess of the newest record ──▶ every node, beside its own access file
//! ```
//! Certificates say who somebody is, and may say a role; a node's access file says more, of that node alone. A grant that is agreed on is
//! stronger than either, a default is weaker than what they say of the name. It is part of a [`Record`](crate::membership::Record), and bounded: every node keeps it for many versions.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::key::BucketName;
use crate::role::Role;

/// What the members have agreed on. Without anything in it, access files and certificates alone count.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(try_from = "RawAccess")]
pub struct AgreedAccess {
    default: Option<Role>,
    grants: BTreeMap<String, Grant>,
    denied: DenyList,
}

/// A role, and where it counts.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Grant {
    /// What its holder may do.
    pub role: Role,
    /// In the buckets of these names; in all if absent. A name may be of a bucket that is still to come, or is dropped: buckets
    /// come and go while nodes run.
    pub buckets: Option<BTreeSet<BucketName>>,
}

/// Who is not let in.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct DenyList {
    /// Names of clients.
    pub clients: BTreeSet<String>,
    /// Names of nodes.
    pub nodes: BTreeSet<String>,
    /// Of certificates, and of authorities with all that they have signed.
    pub serials: BTreeSet<Serial>,
}

/// One entry of a deny list.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Denial {
    /// A client, by its name.
    Client(String),
    /// A node, by its name.
    Node(String),
    /// A certificate, by its number.
    Serial(Serial),
}

/// What an operator may change of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum AccessChange {
    /// Of clients that nobody names and whose certificate says no role; `None` leaves that to access files again.
    Default(Option<Role>),
    /// A client has this role, whatever its certificate and access files say.
    Grant {
        /// Its name.
        name: String,
        /// What it may do, and where.
        grant: Grant,
    },
    /// A client has what access files and its certificate say again.
    Revoke {
        /// Its name.
        name: String,
    },
    /// Somebody is not let in.
    Deny(Denial),
    /// Somebody is let in again, as far as this goes.
    Allow(Denial),
}

/// Why access cannot be agreed on like this.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AccessError {
    /// Nobody can have the name.
    #[error(
        "no certificate has the name {0:?}; write the last part of what `cert show` prints, as in \"web\" of driftless://shop/client/web"
    )]
    Name(String),
    /// Longer than any that certificates have.
    #[error("serial number {0} has more digits than any certificate's")]
    Serial(Serial),
    /// There are [`GRANTS_MAX`] already.
    #[error("the cluster agrees on {GRANTS_MAX} grants at most: take one back first, or let certificates say roles")]
    Grants,
    /// There are [`BUCKETS_MAX`] already.
    #[error("all grants together name {BUCKETS_MAX} buckets at most")]
    Buckets,
    /// There are [`DENIED_MAX`] already.
    #[error(
        "the cluster agrees on {DENIED_MAX} denials at most: allow what has expired, or let another authority issue certificates"
    )]
    Denied,
    /// It is so already.
    #[error("{0}")]
    Unchanged(String),
}

impl AgreedAccess {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == AgreedAccess::default()
    }

    /// The role of clients that are not named and whose certificate says none, if one is agreed on.
    pub fn default_role(&self) -> Option<Role> {
        self.default
    }

    /// Grants by the names of clients.
    pub fn grants(&self) -> &BTreeMap<String, Grant> {
        &self.grants
    }

    /// Who is not let in.
    pub fn denied(&self) -> &DenyList {
        &self.denied
    }

    /// The same with a change.
    ///
    /// # Errors
    /// [`AccessError`] if it cannot be made, or changes nothing.
    pub fn with(&self, change: &AccessChange) -> Result<AgreedAccess, AccessError> {
        let mut next = self.clone();
        match change {
            AccessChange::Default(role) => next.default = *role,
            AccessChange::Grant { name, grant } => drop(next.grants.insert(name.clone(), grant.clone())),
            AccessChange::Revoke { name } => drop(next.grants.remove(name)),
            AccessChange::Deny(denial) => next.denied.set(denial, true),
            AccessChange::Allow(denial) => next.denied.set(denial, false),
        }
        if next == *self {
            return Err(AccessError::Unchanged(unchanged(change)));
        }
        next.checked()
    }

    /// Bytes that it takes, about.
    pub fn bytes(&self) -> usize {
        let DenyList { clients, nodes, serials } = &self.denied;
        let names = self.grants.keys().chain(clients).chain(nodes).map(String::len).sum::<usize>();
        names + 4 * self.grants.len() + serials.len() * SERIAL_DIGITS_MAX + buckets(&self.grants) * NAME_MAX
    }

    fn checked(self) -> Result<AgreedAccess, AccessError> {
        let DenyList { clients, nodes, serials } = &self.denied;
        let mut names = self.grants.keys().chain(clients).chain(nodes);
        if let Some(name) = names.find(|name| !is_name(name)) {
            return Err(AccessError::Name(name.chars().take(NAME_MAX).collect()));
        }
        if let Some(serial) = serials.iter().find(|serial| serial.0.len() > SERIAL_DIGITS_MAX) {
            return Err(AccessError::Serial(Serial(serial.0.chars().take(SERIAL_DIGITS_MAX).collect())));
        }
        if self.grants.len() > GRANTS_MAX {
            return Err(AccessError::Grants);
        }
        if buckets(&self.grants) > BUCKETS_MAX {
            return Err(AccessError::Buckets);
        }
        if self.denied.len() > DENIED_MAX {
            return Err(AccessError::Denied);
        }
        Ok(self)
    }
}

impl Grant {
    /// Whether it counts in the bucket of this name.
    pub fn covers(&self, bucket: &BucketName) -> bool {
        self.buckets.as_ref().is_none_or(|buckets| buckets.contains(bucket))
    }
}

/// `writer in carts, orders`.
impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.role.fmt(f)?;
        let Some(buckets) = &self.buckets else { return Ok(()) };
        let named: Vec<&str> = buckets.iter().take(BUCKETS_SAID_MAX).map(BucketName::as_str).collect();
        match named.is_empty() {
            true => f.write_str(" in no bucket")?,
            false => write!(f, " in {}", named.join(", "))?,
        }
        match buckets.len().saturating_sub(BUCKETS_SAID_MAX) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

impl DenyList {
    /// How many names and numbers are on it.
    pub fn len(&self) -> usize {
        self.clients.len() + self.nodes.len() + self.serials.len()
    }

    /// Whether it denies nobody.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn set(&mut self, denial: &Denial, is_denied: bool) {
        fn put<T: Ord + Clone>(set: &mut BTreeSet<T>, of: &T, is_in: bool) {
            match is_in {
                true => drop(set.insert(of.clone())),
                false => drop(set.remove(of)),
            }
        }
        match denial {
            Denial::Client(name) => put(&mut self.clients, name, is_denied),
            Denial::Node(name) => put(&mut self.nodes, name, is_denied),
            Denial::Serial(serial) => put(&mut self.serials, serial, is_denied),
        }
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Denial::Client(name) => write!(f, "client {name}"),
            Denial::Node(name) => write!(f, "node {name}"),
            Denial::Serial(serial) => write!(f, "serial number {serial}"),
        }
    }
}

/// As the history says it.
impl fmt::Display for AccessChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AccessChange::Default(Some(role)) => write!(f, "the default role is {role}"),
            AccessChange::Default(None) => f.write_str("no default role is agreed on"),
            AccessChange::Grant { name, grant } => write!(f, "client {name} is {grant}"),
            AccessChange::Revoke { name } => write!(f, "the grant of client {name} is taken back"),
            AccessChange::Deny(denial) => write!(f, "{denial} is denied"),
            AccessChange::Allow(denial) => write!(f, "{denial} is denied no more"),
        }
    }
}

/// The serial number of a certificate, as `openssl x509 -serial` prints it: hexadecimal, upper case, no leading zeros.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Serial(String);

/// The text is no serial number.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} is no serial number; write it as `openssl x509 -noout -serial -in FILE` prints it: hexadecimal digits")]
pub struct NoSerial(String);

impl Serial {
    /// From the bytes of the number in a certificate.
    pub fn of_bytes(bytes: &[u8]) -> Serial {
        let digits: String = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
        Serial::of_digits(&digits)
    }

    /// Its digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn of_digits(digits: &str) -> Serial {
        Serial(digits.trim_start_matches('0').to_owned())
    }
}

/// Hexadecimal digits, with or without colons between them.
impl std::str::FromStr for Serial {
    type Err = NoSerial;

    fn from_str(text: &str) -> Result<Serial, NoSerial> {
        let digits: String = text.trim().chars().filter(|digit| *digit != ':').collect();
        let is_number = !digits.is_empty() && digits.chars().all(|digit| digit.is_ascii_hexdigit());
        match is_number {
            true => Ok(Serial::of_digits(&digits.to_ascii_uppercase())),
            false => Err(NoSerial(text.to_owned())),
        }
    }
}

/// Only as it is written: what is agreed on has one form.
impl TryFrom<String> for Serial {
    type Error = NoSerial;

    fn try_from(text: String) -> Result<Serial, NoSerial> {
        let is_digit = |digit: u8| digit.is_ascii_digit() || (b'A'..=b'F').contains(&digit);
        let is_plain = text.bytes().all(is_digit) && !text.starts_with('0');
        if is_plain { Ok(Serial(text)) } else { Err(NoSerial(text)) }
    }
}

/// With a leading zero where the number of digits is odd, as OpenSSL has it.
impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let zero = if self.0.len() % 2 == 1 || self.0.is_empty() { "0" } else { "" };
        write!(f, "{zero}{}", self.0)
    }
}

/// Whether a name of a cluster, a member or a client can stand in a certificate: 1 to 64 of letters, digits, `.`, `_` and `-`.
pub fn is_name(name: &str) -> bool {
    (1..=NAME_MAX).contains(&name.len())
        && name.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-'))
}

fn unchanged(change: &AccessChange) -> String {
    match change {
        AccessChange::Default(None) => "no default role is agreed on: there is nothing to take back".to_owned(),
        AccessChange::Revoke { name } => format!(
            "client {name} has no grant that the cluster agrees on: access files of nodes may name it, and its certificate may say a role"
        ),
        AccessChange::Allow(denial) => {
            format!("{denial} is not denied by what the cluster agrees on: access files of nodes may deny it")
        }
        AccessChange::Default(_) | AccessChange::Grant { .. } | AccessChange::Deny(_) => {
            format!("{change}: that is agreed on already")
        }
    }
}

fn buckets(grants: &BTreeMap<String, Grant>) -> usize {
    grants.values().flat_map(|grant| &grant.buckets).map(BTreeSet::len).sum()
}

#[derive(Deserialize)]
struct RawAccess {
    default: Option<Role>,
    grants: BTreeMap<String, Grant>,
    denied: DenyList,
}

impl TryFrom<RawAccess> for AgreedAccess {
    type Error = AccessError;

    fn try_from(RawAccess { default, grants, denied }: RawAccess) -> Result<AgreedAccess, AccessError> {
        AgreedAccess { default, grants, denied }.checked()
    }
}

/// Most grants: who has more clients lets their certificates say what they may.
pub const GRANTS_MAX: usize = 1_000;

/// Most buckets that all grants name together: with them a record stays under a megabyte.
pub const BUCKETS_MAX: usize = 10_000;

/// Most denials: who has more has lost an authority, not certificates.
pub const DENIED_MAX: usize = 1_000;

/// Bytes of a name, also of a bucket's.
const NAME_MAX: usize = 64;

/// Twice what RFC 5280 (section 4.1.2.2) allows.
const SERIAL_DIGITS_MAX: usize = 80;

/// So many buckets of a grant are named in a sentence.
const BUCKETS_SAID_MAX: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(name: &str) -> BucketName {
        BucketName::new(name).expect("is valid")
    }

    fn grant(name: &str, buckets: Option<&[&str]>) -> AccessChange {
        let buckets = buckets.map(|names| names.iter().map(|name| bucket(name)).collect());
        AccessChange::Grant { name: name.to_owned(), grant: Grant { role: Role::Writer, buckets } }
    }

    fn deny(name: &str) -> AccessChange {
        AccessChange::Deny(Denial::Client(name.to_owned()))
    }

    fn after(changes: &[AccessChange]) -> Result<AgreedAccess, AccessError> {
        changes.iter().try_fold(AgreedAccess::default(), |access, change| access.with(change))
    }

    #[test]
    fn what_is_taken_back_leaves_nothing() {
        let serial = Denial::Serial("0a:00:C3".parse().expect("is one"));
        let changes = [
            AccessChange::Default(Some(Role::Reader)),
            grant("web", Some(&["carts"])),
            deny("mallory"),
            AccessChange::Deny(serial.clone()),
            AccessChange::Deny(Denial::Node("n9".to_owned())),
        ];
        let access = after(&changes).expect("fits");
        assert!(!access.is_empty() && access.denied().len() == 3 && access.default_role() == Some(Role::Reader));
        let bytes = postcard::to_stdvec(&access).expect("can be written");
        assert_eq!(postcard::from_bytes::<AgreedAccess>(&bytes), Ok(access.clone()));
        let back = [
            AccessChange::Default(None),
            AccessChange::Revoke { name: "web".to_owned() },
            AccessChange::Allow(Denial::Client("mallory".to_owned())),
            AccessChange::Allow(serial),
            AccessChange::Allow(Denial::Node("n9".to_owned())),
        ];
        let back = back.iter().try_fold(access, |access, change| access.with(change)).expect("all were there");
        assert!(back.is_empty());
    }

    #[test]
    fn what_changes_nothing_is_refused_in_words() {
        let access = after(&[deny("mallory"), grant("web", None)]).expect("fits");
        let why = |change: &AccessChange| access.with(change).expect_err("changes nothing").to_string();
        assert_eq!(why(&deny("mallory")), "client mallory is denied: that is agreed on already");
        assert_eq!(why(&grant("web", None)), "client web is writer: that is agreed on already");
        assert!(why(&AccessChange::Revoke { name: "x".to_owned() }).starts_with("client x has no grant that"));
        assert!(why(&AccessChange::Allow(Denial::Node("x".to_owned()))).starts_with("node x is not denied by what"));
        assert!(why(&AccessChange::Default(None)).starts_with("no default role is agreed on"));
    }

    #[test]
    fn names_and_numbers_are_such_as_certificates_have() {
        assert_eq!(after(&[deny("driftless://shop/client/web")]).map_err(|_| ()), Err(()));
        let why = after(&[grant("", None)]).expect_err("no name");
        assert!(why.to_string().contains("no certificate has the name"), "{why}");
        let long = Serial::try_from("A".repeat(SERIAL_DIGITS_MAX + 1)).expect("are digits");
        assert!(matches!(after(&[AccessChange::Deny(Denial::Serial(long))]), Err(AccessError::Serial(_))));
        for text in ["0A", "ab", "5A:00", "x"] {
            assert!(Serial::try_from(text.to_owned()).is_err(), "{text}");
        }
        let foreign = AgreedAccess {
            grants: [("a b".to_owned(), Grant { role: Role::Reader, buckets: None })].into(),
            ..Default::default()
        };
        let bytes = postcard::to_stdvec(&foreign).expect("can be written");
        assert!(postcard::from_bytes::<AgreedAccess>(&bytes).is_err(), "nor is it read");
    }

    #[test]
    fn there_are_so_many_at_most() {
        let mut access = AgreedAccess::default();
        access.denied.clients = (0..DENIED_MAX).map(|n| format!("c{n}")).collect();
        let access = access.checked().expect("as many as there may be");
        assert_eq!(access.with(&deny("one-more")), Err(AccessError::Denied));
        assert!(access.with(&AccessChange::Allow(Denial::Client("c7".to_owned()))).is_ok(), "there is a way down");
        let all = Grant { role: Role::Reader, buckets: None };
        let mut access =
            AgreedAccess { grants: (0..GRANTS_MAX).map(|n| (format!("c{n}"), all.clone())).collect(), ..access };
        assert_eq!(access.with(&grant("one-more", None)), Err(AccessError::Grants));
        assert!(access.with(&grant("c7", None)).is_ok(), "one in the place of another");
        let many = (0..=BUCKETS_MAX).map(|n| bucket(&format!("b{n}"))).collect();
        access.grants = [("web".to_owned(), Grant { role: Role::Reader, buckets: Some(many) })].into();
        assert_eq!(access.checked(), Err(AccessError::Buckets));
    }

    #[test]
    fn a_grant_is_said_in_words_and_not_all_of_a_hundred_buckets() {
        let said = |buckets: &[&str]| grant("web", Some(buckets)).to_string();
        assert_eq!(said(&["carts", "b"]), "client web is writer in b, carts");
        assert_eq!(said(&[]), "client web is writer in no bucket");
        assert_eq!(said(&["a", "b", "c", "d", "e", "f", "g"]), "client web is writer in a, b, c, d, e and 2 more");
    }
}
