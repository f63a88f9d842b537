//! Who may do what on this node: what the cluster agrees on, and beside it the node's own access file.
//!
//! | of a client | the first of these that says something |
//! |---|---|
//! | its role, and where | the grant agreed on, the file's grant, the role in its certificate, the default agreed on, the file's default |
//! | whether it is let in | neither denies it |

use std::sync::Arc;

use driftless_proto::access::DenyList;
use driftless_proto::{AgreedAccess, Grant, Role, Serial};

use super::subject::{Holder, Subject};
use crate::config::Access;

/// One value, taken as a whole: files and agreement change while it is looked at.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Allowed {
    pub(super) file: Access,
    pub(super) agreed: Arc<AgreedAccess>,
    /// The numbers of the node's own certificate and of those between it and an authority.
    pub(super) own: Vec<Serial>,
}

impl Allowed {
    /// What the holder of a certificate may do. A node is an operator: it coordinates what its own clients may.
    pub(crate) fn grant(&self, subject: &Subject) -> Grant {
        match subject.holder {
            Holder::Node => Grant { role: Role::Operator, buckets: None },
            Holder::Client(certified) => self.grant_of_client(&subject.name, certified),
            Holder::Authority => Grant { role: Role::None, buckets: None },
        }
    }

    fn grant_of_client(&self, name: &str, certified: Option<Role>) -> Grant {
        let Allowed { file, agreed, .. } = self;
        let named = agreed.grants().get(name).or_else(|| file.grant(name));
        let unnamed = || {
            let role = certified.or(agreed.default_role()).unwrap_or_else(|| file.default_role());
            Grant { role, buckets: None }
        };
        named.cloned().unwrap_or_else(unnamed)
    }

    /// Why the holder of a certificate is not let in, if that is so; these are the numbers of the chain that was shown.
    pub(crate) fn denial(&self, subject: &Subject, serials: &[Serial]) -> Option<String> {
        let lists = [(self.agreed.denied(), BY_CLUSTER), (self.file.denied(), BY_FILE)];
        let is_named = |list: &DenyList| match subject.holder {
            Holder::Node => list.nodes.contains(&subject.name),
            Holder::Client(_) => list.clients.contains(&subject.name),
            Holder::Authority => false,
        };
        if let Some((_, by)) = lists.iter().find(|(list, _)| is_named(list)) {
            return Some(format!("{subject} is {by}"));
        }
        lists.iter().find_map(|(list, by)| {
            // An authority that this node's own certificate rests on was denied everywhere: no node would let any other in, and none could
            // take that back.
            let counts = |serial: &&Serial| *by == BY_FILE || !self.is_own(serial);
            let serial = serials.iter().filter(counts).find(|serial| list.serials.contains(serial))?;
            Some(format!("serial number {serial} is {by}"))
        })
    }

    /// Whether the node's own certificate has this number, or rests on one that does.
    pub(crate) fn is_own(&self, serial: &Serial) -> bool {
        self.own.contains(serial)
    }

    /// How many names and numbers are not let in.
    pub(crate) fn denied(&self) -> usize {
        self.agreed.denied().len() + self.file.denied().len()
    }
}

/// Who denies, as it is said to whoever is denied and to whoever reads the log.
const BY_CLUSTER: &str = "denied by the cluster";
const BY_FILE: &str = "on this node's deny list";

#[cfg(test)]
mod tests {
    use std::path::Path;

    use driftless_proto::access::{AccessChange, Denial};

    use super::*;

    fn allowed(file: &str, changes: &[AccessChange]) -> Allowed {
        let file = Access::parse(Path::new("access.toml"), file).expect("is fine");
        let agreed = changes.iter().try_fold(AgreedAccess::default(), |access, change| access.with(change));
        Allowed { file, agreed: Arc::new(agreed.expect("fits")), own: vec![Serial::of_bytes(&[7])] }
    }

    fn all(role: Role) -> Grant {
        Grant { role, buckets: None }
    }

    fn subject(uri: &str) -> Subject {
        uri.parse().expect("is one")
    }

    #[test]
    fn of_a_role_the_first_counts_that_says_something() {
        let grant = || AccessChange::Grant { name: "web".to_owned(), grant: all(Role::None) };
        let default = || AccessChange::Default(Some(Role::Reader));
        let file = "default = \"operator\"\n[[client]]\nname = \"web\"\nrole = \"reader\"\n";
        let other = "default = \"operator\"\n[[client]]\nname = \"other\"\nrole = \"reader\"\n";
        let (plain, certified) = ("driftless://shop/client/web", "driftless://shop/client/web/writer");
        for (file, changes, uri, expected) in [
            (file, vec![grant(), default()], certified, Role::None),
            (file, vec![default()], certified, Role::Reader),
            (other, vec![default()], certified, Role::Writer),
            (other, vec![default()], plain, Role::Reader),
            (other, vec![], plain, Role::Operator),
            ("# nothing", vec![], plain, Role::Writer),
        ] {
            assert_eq!(allowed(file, &changes).grant(&subject(uri)), all(expected), "{file} {changes:?} {uri}");
        }
        let node = subject("driftless://shop/node/web");
        assert_eq!(allowed(file, &[grant()]).grant(&node), all(Role::Operator), "a node is no client of that name");
    }

    #[test]
    fn whom_either_denies_is_not_let_in_and_is_told_who_does() {
        let (client, node) = (subject("driftless://shop/client/x"), subject("driftless://shop/node/x"));
        let (other, serial) = (subject("driftless://shop/client/y"), Serial::of_bytes(&[9]));
        let by_file = allowed("[deny]\nclients = [\"x\"]\nserials = [\"09\"]\n", &[]);
        let name = Denial::Client("x".to_owned());
        let by_cluster = [AccessChange::Deny(name), AccessChange::Deny(Denial::Serial(serial.clone()))];
        let by_cluster = allowed("# nothing", &by_cluster);
        for (allowed, by) in [(by_file, BY_FILE), (by_cluster, BY_CLUSTER)] {
            assert_eq!(allowed.denial(&client, &[]), Some(format!("driftless://shop/client/x is {by}")));
            assert_eq!(allowed.denial(&node, &[]), None);
            let chain = [Serial::of_bytes(&[1]), serial.clone()];
            assert_eq!(
                allowed.denial(&other, &chain),
                Some(format!("serial number 09 is {by}")),
                "also of an authority"
            );
            assert_eq!(allowed.denied(), 2);
        }
    }

    #[test]
    fn the_authority_of_the_own_certificate_is_not_denied_by_agreement() {
        let own = Serial::of_bytes(&[7]);
        let (node, deny) = (subject("driftless://shop/node/x"), AccessChange::Deny(Denial::Serial(own.clone())));
        assert_eq!(allowed("# nothing", &[deny]).denial(&node, &[Serial::of_bytes(&[1]), own]), None);
    }
}
