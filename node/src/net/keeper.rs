//! Where what the cluster has agreed on outlives the process.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

#[cfg(feature = "disk")]
use crate::store::directory::{DataDirectory, OpenError};
#[cfg(feature = "disk")]
use crate::store::log::shortage::Shortage;

/// Keeps the files of the machine that agrees on members and buckets ([`crate::membership`]).
pub trait AgreementKeeper: Send + Sync + fmt::Debug {
    /// What an earlier process has written, each file by its name.
    ///
    /// # Errors
    /// In words, if it cannot be read: the node must not start.
    fn files(&self) -> Result<Vec<(String, Vec<u8>)>, String>;

    /// Writes a file, or removes it. Durable when this returns.
    ///
    /// # Errors
    /// [`NotKept`], if it is not known to be durable.
    fn write(&self, name: &str, bytes: Option<&[u8]>) -> Result<(), NotKept>;
}

/// Why a file is not known to be durable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NotKept {
    /// Something has run out, as the room on a disk: written once more when there is some again, it may well be.
    Short(String),
    /// The disk has failed: the node must not go on.
    Failed(String),
}

#[cfg(feature = "disk")]
impl AgreementKeeper for DataDirectory {
    fn files(&self) -> Result<Vec<(String, Vec<u8>)>, String> {
        DataDirectory::agreement(self).map_err(|error| error.to_string())
    }

    fn write(&self, name: &str, bytes: Option<&[u8]>) -> Result<(), NotKept> {
        DataDirectory::write_agreement(self, name, bytes).map_err(|error| match &error {
            OpenError::Io { source, .. } if source.shortage().is_some() => NotKept::Short(error.to_string()),
            _ => NotKept::Failed(error.to_string()),
        })
    }
}

/// Keeps them in memory, for nodes of tests that are started again within one process.
#[derive(Debug, Default)]
pub struct MemoryKeeper(Mutex<BTreeMap<String, Vec<u8>>>);

impl AgreementKeeper for MemoryKeeper {
    fn files(&self) -> Result<Vec<(String, Vec<u8>)>, String> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone().into_iter().collect())
    }

    fn write(&self, name: &str, bytes: Option<&[u8]>) -> Result<(), NotKept> {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match bytes {
            Some(bytes) => files.insert(name.to_owned(), bytes.to_vec()),
            None => files.remove(name),
        };
        Ok(())
    }
}
