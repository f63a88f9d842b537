//! Profiles: where a cluster is and who we are to it, as the command line finds them in `profile.toml` of a `dev`
//! cluster's directory and in `[profile.NAME]` of a person's own file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use toml::de::Error as SyntaxError;

/// A profile as it stands in a file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Nodes to ask first.
    pub seeds: Vec<String>,
    /// Certificate of the cluster's authority.
    pub ca: PathBuf,
    /// Client certificate.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Reads the text of a file that is one profile.
///
/// # Errors
/// What is wrong, and in which line.
pub fn parse_profile(text: &str) -> Result<Profile, SyntaxError> {
    toml::from_str(text)
}

/// Reads the text of a file of profiles by name.
///
/// # Errors
/// What is wrong, and in which line.
pub fn parse_profiles(text: &str) -> Result<BTreeMap<String, Profile>, SyntaxError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        #[serde(default)]
        profile: BTreeMap<String, Profile>,
    }
    toml::from_str::<File>(text).map(|file| file.profile)
}
