//! Whether a file that holds a key is kept from others.

use std::fs::Metadata;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// What is wrong with a file that others can read, or could change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Exposure {
    /// Its permissions.
    pub(crate) mode: u32,
    /// Whether it belongs to root.
    pub(crate) is_roots: bool,
}

/// `None` if it is kept from them.
pub(crate) fn exposed(metadata: &Metadata) -> Option<Exposure> {
    let (mode, owner) = (metadata.permissions().mode() & 0o777, metadata.uid());
    (!is_private(mode, owner)).then_some(Exposure { mode, is_roots: owner == 0 })
}

/// What keeps it from others. A node that runs as a user of its own reads a file of root's by its group, and with 600 not at all.
pub(crate) fn closing(path: &Path, is_roots: bool) -> String {
    let path = path.display();
    if is_roots {
        format!("run `chmod 0440 {path}`, and give it the group that the node runs in (`chgrp`)")
    } else {
        format!("run `chmod 600 {path}`")
    }
}

/// For its owner alone; or root's, as secrets are that are mounted for a group: who is not of that group cannot read it.
fn is_private(mode: u32, owner: u32) -> bool {
    mode & 0o077 == 0 || owner == 0 && mode & 0o037 == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_roots_is_not_closed_to_the_nodes_group() {
        assert_eq!(closing(Path::new("k"), false), "run `chmod 600 k`");
        let roots = closing(Path::new("k"), true);
        assert!(roots.contains("`chmod 0440 k`") && roots.contains("group") && !roots.contains("600"), "{roots}");
    }

    #[test]
    fn a_secret_that_root_has_mounted_for_a_group_is_taken() {
        for (mode, owner, is_fine) in [(0o440, 0, true), (0o640, 0, true), (0o640, 1000, false), (0o444, 0, false)] {
            assert_eq!(is_private(mode, owner), is_fine, "{mode:o} of {owner}");
        }
        assert!(is_private(0o600, 1000) && is_private(0o400, 1000) && !is_private(0o660, 0));
    }
}
