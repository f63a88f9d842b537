//! What a client may do. A role includes those before it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What the holder of a client certificate may do, in all buckets or in those that the node's access file names.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Nothing but connect.
    None,
    /// Read keys, list them, and look at how nodes stand.
    Reader,
    /// Write and delete too.
    Writer,
    /// Give orders to nodes too: to anti-entropy, and about damaged records.
    Operator,
}

/// The text names no role.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} is no role; the roles are reader, writer and operator")]
pub struct NoRole(String);

impl Role {
    /// Its name in certificates and files.
    pub fn name(self) -> &'static str {
        match self {
            Role::None => "none",
            Role::Reader => "reader",
            Role::Writer => "writer",
            Role::Operator => "operator",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Of a role that can be given. That somebody has none is said by [`Role::None`], and by no certificate.
impl FromStr for Role {
    type Err = NoRole;

    fn from_str(text: &str) -> Result<Role, NoRole> {
        let roles = [Role::Reader, Role::Writer, Role::Operator];
        roles.into_iter().find(|role| role.name() == text).ok_or_else(|| NoRole(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_includes_those_before_it_and_reads_as_it_prints() {
        assert!(Role::None < Role::Reader && Role::Reader < Role::Writer && Role::Writer < Role::Operator);
        for role in [Role::Reader, Role::Writer, Role::Operator] {
            assert_eq!(role.to_string().parse(), Ok(role));
        }
        assert!("none".parse::<Role>().is_err());
        assert!("Reader".parse::<Role>().is_err_and(|error| error.to_string().contains("reader, writer and operator")));
    }
}
