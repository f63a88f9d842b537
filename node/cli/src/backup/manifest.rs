//! `backup.json`: what a backup holds, of which cluster, and whether it is all of it. It is written last: a directory without one is no
//! backup.

use std::path::{Path, PathBuf};

use driftless_node::config::read_file;
use driftless_proto::BucketDefinition;
use serde::{Deserialize, Serialize};

use super::states::{Contents, Reader};
use crate::exit::{Failure, Result};

/// What a backup is.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct Manifest {
    format: u32,
    /// Release that has written it.
    pub(super) release: String,
    pub(super) cluster: String,
    pub(super) ring_version: u64,
    /// What was acknowledged before is in it.
    pub(super) begun: String,
    /// What was acknowledged after is not.
    pub(super) ended: String,
    /// Whether nothing can be missing.
    pub(super) complete: bool,
    /// Why something may be.
    pub(super) doubts: Vec<String>,
    pub(super) buckets: Vec<Saved>,
}

/// What it holds of a bucket.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct Saved {
    pub(super) definition: BucketDefinition,
    /// Beside the manifest.
    pub(super) file: String,
    pub(super) keys: u64,
    pub(super) values: u64,
    /// Keys that were listed and could not be read.
    pub(super) unread: u64,
    pub(super) bytes: u64,
    pub(super) digest: String,
}

/// A directory with a backup in it.
pub(super) struct Backup {
    pub(super) dir: PathBuf,
    pub(super) manifest: Manifest,
}

impl Manifest {
    pub(super) fn new(cluster: String, ring_version: u64, begun: String) -> Manifest {
        Manifest {
            format: FORMAT,
            release: env!("CARGO_PKG_VERSION").to_owned(),
            cluster,
            ring_version,
            begun,
            ended: String::new(),
            complete: false,
            doubts: Vec::new(),
            buckets: Vec::new(),
        }
    }

    pub(super) fn keys(&self) -> u64 {
        sum(self.buckets.iter().map(|saved| saved.keys))
    }

    pub(super) fn unread(&self) -> u64 {
        sum(self.buckets.iter().map(|saved| saved.unread))
    }

    pub(super) fn bytes(&self) -> u64 {
        sum(self.buckets.iter().map(|saved| saved.bytes))
    }
}

impl Saved {
    pub(super) fn name(&self) -> &str {
        self.definition.name.as_str()
    }

    /// Whether this is what the file held when it was written.
    pub(super) fn is_what(&self, found: &Contents) -> bool {
        (found.keys, found.bytes, &found.digest) == (self.keys, self.bytes, &self.digest)
    }

    pub(super) fn of(definition: BucketDefinition, unread: u64, contents: Contents) -> Saved {
        let file = file_of(&definition);
        let Contents { keys, values, bytes, digest } = contents;
        Saved { definition, file, keys, values, unread, bytes, digest }
    }
}

/// A file may say anything.
pub(super) fn sum(counts: impl Iterator<Item = u64>) -> u64 {
    counts.fold(0, u64::saturating_add)
}

/// Names of buckets are names of files.
pub(super) fn file_of(definition: &BucketDefinition) -> String {
    format!("{}.states", definition.name)
}

impl Backup {
    pub(super) fn open(dir: &Path) -> Result<Backup> {
        let path = dir.join(MANIFEST);
        let text = read_file(&path).map_err(|error| {
            let failure = Failure::failed(error);
            if dir.is_dir() {
                failure.hint("a directory without it is no backup, or one that was interrupted")
            } else {
                failure.hint("name the directory that `driftless backup create` has written")
            }
        })?;
        let wrong = |what: String| Failure::failed(format_args!("{}: {what}", path.display())).hint(ANOTHER_COPY);
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let Format { format } = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        if format != FORMAT {
            return Err(wrong(format!("format {format} of backups is not known to this release"))
                .hint("use the release that has written it, or a newer one"));
        }
        let manifest: Manifest = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        if let Some(saved) = manifest.buckets.iter().find(|saved| saved.file != file_of(&saved.definition)) {
            return Err(wrong(format!("the file of bucket {} cannot be called {:?}", saved.name(), saved.file)));
        }
        Ok(Backup { dir: dir.to_owned(), manifest })
    }

    /// The buckets of these names, or all.
    pub(super) fn chosen(&self, names: &[String]) -> Result<Vec<&Saved>> {
        let all = &self.manifest.buckets;
        if names.is_empty() {
            return Ok(all.iter().collect());
        }
        let of = |name: &String| {
            all.iter().find(|saved| saved.name() == name).ok_or_else(|| {
                let there: Vec<&str> = all.iter().map(Saved::name).collect();
                Failure::failed(format_args!("there is no bucket \"{name}\" in {}", self.dir.display()))
                    .hint(format_args!("it has {}", there.join(", ")))
            })
        };
        let mut chosen: Vec<&Saved> = Vec::new();
        for name in names {
            let saved = of(name)?;
            if !chosen.iter().any(|other| other.name() == saved.name()) {
                chosen.push(saved);
            }
        }
        Ok(chosen)
    }

    pub(super) fn path_of(&self, saved: &Saved) -> PathBuf {
        self.dir.join(&saved.file)
    }

    /// Reads the file of a bucket from its beginning to its end.
    ///
    /// # Errors
    /// What is wrong with it: nothing of it was given to anybody then.
    pub(super) fn verify(&self, saved: &Saved) -> Result {
        let path = self.path_of(saved);
        let wrong = |what: &dyn std::fmt::Display| {
            Failure::failed(format_args!("{}: {what}", path.display())).hint(ANOTHER_COPY)
        };
        let mut reader = Reader::open(&path).map_err(|failure| failure.hint(ANOTHER_COPY))?;
        while reader.next().map_err(|error| wrong(&error))?.is_some() {}
        if saved.is_what(reader.contents()) {
            Ok(())
        } else {
            Err(wrong(&format_args!("it is another file than {MANIFEST} speaks of")))
        }
    }
}

const ANOTHER_COPY: &str = "it is not what was written: take it from another copy of this backup";

pub(super) const MANIFEST: &str = "backup.json";

const FORMAT: u32 = 1;

#[cfg(test)]
mod tests {
    use driftless_testkit::pages;

    use super::*;

    #[test]
    fn a_manifest_is_as_the_page_of_backups_shows_it() {
        let page = include_str!("../../../../docs/backup-format.md");
        pages::assert_constants(page, "node/cli/src/backup/manifest.rs", &[("FORMAT", FORMAT.into())]);
        let shown = &page[pages::block(page, "json").expect("the page shows one")];
        let manifest: Manifest = serde_json::from_str(shown).expect("is a manifest");
        assert_eq!(serde_json::to_string_pretty(&manifest).expect("can be written"), shown.trim_end());
        assert!(manifest.buckets.iter().all(|saved| saved.file == file_of(&saved.definition)));
    }
}
