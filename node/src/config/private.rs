//! Whether a file that holds a key is kept from others.

use std::fs::Metadata;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

/// The permissions of a file that others can read, or could change; `None` if it is kept from them.
pub(crate) fn exposed(metadata: &Metadata) -> Option<u32> {
    let mode = metadata.permissions().mode() & 0o777;
    (!is_private(mode, metadata.uid())).then_some(mode)
}

/// For its owner alone; or root's, as secrets are that are mounted for a group: who is not of that group cannot read it.
fn is_private(mode: u32, owner: u32) -> bool {
    mode & 0o077 == 0 || owner == 0 && mode & 0o037 == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_root_has_mounted_for_a_group_is_taken() {
        for (mode, owner, is_fine) in [(0o440, 0, true), (0o640, 0, true), (0o640, 1000, false), (0o444, 0, false)] {
            assert_eq!(is_private(mode, owner), is_fine, "{mode:o} of {owner}");
        }
        assert!(is_private(0o600, 1000) && is_private(0o400, 1000) && !is_private(0o660, 0));
    }
}
