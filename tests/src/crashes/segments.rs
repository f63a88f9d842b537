//! How often segments of the log were begun and used again, told by their heads.
//!
//! A head names the ordinal of its use, and ordinals only grow. A segment is used again only after it was merged.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

/// All looks at the segments of one store.
#[derive(Default, Debug)]
pub(super) struct Segments {
    uses: BTreeMap<PathBuf, u64>,
    newest: u64,
    /// Uses that have begun.
    pub(super) begun: u64,
    /// Files that had a later use than when they were last looked at, and that may have had several since.
    pub(super) used_again: u64,
    /// Most files at once.
    pub(super) most: usize,
}

impl Segments {
    /// Looks at files, of which some are segments. Nobody writes to them.
    pub(super) fn look(&mut self, files: &[PathBuf]) {
        let found: BTreeMap<PathBuf, u64> =
            files.iter().filter_map(|file| Some((file.clone(), ordinal(file)?))).collect();
        let newest = found.values().copied().max().unwrap_or(0);
        self.begun += newest.saturating_sub(self.newest);
        // A power cut may take back uses of which nothing was synced.
        self.newest = newest;
        let again = found.iter().filter(|(file, now)| self.uses.get(*file).is_some_and(|before| before < *now));
        self.used_again += again.count() as u64;
        self.most = self.most.max(found.len());
        self.uses = found;
    }
}

/// Of the present use, or the last one; `None` if it is no segment, or was never used. The format is that of
/// `node/src/store/log/segment.rs`; were it another, no segment would be used again, and the run fail for that.
fn ordinal(file: &PathBuf) -> Option<u64> {
    let mut head = [0; 48];
    file.extension().filter(|extension| *extension == "segment")?;
    File::open(file).and_then(|file| file.read_exact_at(&mut head, 0)).ok()?;
    head.starts_with(b"DLSEGM").then(|| u64::from_le_bytes(head[24..32].try_into().expect("eight bytes")))
}

/// Length of a segment: the least that there is.
pub(super) const BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_are_counted() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let files = ["1.segment", "2.segment", "watermark"].map(|name| dir.path().join(name));
        let use_as = |file: &PathBuf, ordinal: u64| {
            let mut head = [0; 48];
            head[..8].copy_from_slice(b"DLSEGM01");
            head[24..32].copy_from_slice(&ordinal.to_le_bytes());
            std::fs::write(file, head).expect("written");
        };
        let mut segments = Segments::default();
        files.iter().zip([3, 4, 9]).for_each(|(file, ordinal)| use_as(file, ordinal));
        segments.look(&files);
        assert_eq!((segments.begun, segments.used_again, segments.most), (4, 0, 2));
        use_as(&files[0], 7);
        segments.look(&files);
        assert_eq!((segments.begun, segments.used_again), (7, 1));
    }
}
