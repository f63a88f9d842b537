//! Where a cluster is and who we are to it: flags, a profile, or the directory of a `dev` cluster.
//!
//! ```toml
//! # DIR/profile.toml, written by `driftless dev`; relative paths start at the file
//! seeds = ["127.0.0.1:7400"]
//! ca = "ca.pem"
//! cert = "client.pem"
//! key = "client.key"
//! ```
//! The same keys stand in `[profile.NAME]` of `~/.config/driftless/config.toml`. Without `--profile`, the variable
//! `DRIFTLESS_PROFILE` and then `[profile.default]` count.

use std::path::{Path, PathBuf};

use driftless_node::config::{Profile, SyntaxError, closest, parse_profile, parse_profiles};

use super::exit::{Failure, Result};

/// Flags that say which cluster is meant. They stand before or after the subcommand.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct ClusterArgs {
    /// Name of a profile in ~/.config/driftless/config.toml, or the directory of a `dev` cluster (or the profile.toml in it)
    /// [env: DRIFTLESS_PROFILE]
    #[arg(long, global = true, value_name = "NAME|DIR", help_heading = "Cluster")]
    pub(crate) profile: Option<String>,
    /// Send every request to this node and to no other
    #[arg(long, global = true, value_name = "HOST:PORT", help_heading = "Cluster")]
    pub(crate) endpoint: Option<String>,
    /// Certificate of the cluster's authority
    #[arg(long, global = true, value_name = "FILE", help_heading = "Cluster")]
    pub(crate) ca: Option<PathBuf>,
    /// Client certificate
    #[arg(long, global = true, value_name = "FILE", help_heading = "Cluster")]
    pub(crate) cert: Option<PathBuf>,
    /// Its private key (also --key, except for `ring`)
    #[arg(long, global = true, value_name = "FILE", help_heading = "Cluster")]
    pub(crate) client_key: Option<PathBuf>,
    /// Longest that one request may take with all its attempts, as in 5s [default: 10s]
    #[arg(long, global = true, value_name = "TIME", value_parser = parse_duration, help_heading = "Cluster")]
    pub(crate) timeout: Option<std::time::Duration>,
}

/// A cluster and our identity there, from wherever.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Access {
    /// Nodes to ask first.
    pub(crate) seeds: Vec<String>,
    /// Authority, certificate, private key.
    pub(crate) ca: PathBuf,
    /// Client certificate.
    pub(crate) cert: PathBuf,
    /// Its private key.
    pub(crate) key: PathBuf,
    /// The node that every request goes to, if one was named.
    pub(crate) endpoint: Option<String>,
    /// The directory of the `dev` cluster, if it is one.
    pub(crate) dev_dir: Option<PathBuf>,
}

/// Name of the profile in a `dev` cluster's directory.
pub(crate) const DEV_PROFILE: &str = "profile.toml";

impl ClusterArgs {
    /// These, and where they say nothing the others.
    pub(crate) fn over(self, wider: ClusterArgs) -> ClusterArgs {
        ClusterArgs {
            profile: self.profile.or(wider.profile),
            endpoint: self.endpoint.or(wider.endpoint),
            ca: self.ca.or(wider.ca),
            cert: self.cert.or(wider.cert),
            client_key: self.client_key.or(wider.client_key),
            timeout: self.timeout.or(wider.timeout),
        }
    }

    /// One of those that were given, if any was.
    pub(crate) fn given(&self) -> Option<&'static str> {
        let ClusterArgs { profile, endpoint, ca, cert, client_key, timeout } = self;
        let flags = [
            ("--profile", profile.is_some()),
            ("--endpoint", endpoint.is_some()),
            ("--ca", ca.is_some()),
            ("--cert", cert.is_some()),
            ("--key", client_key.is_some()),
            ("--timeout", timeout.is_some()),
        ];
        flags.into_iter().find_map(|(flag, is_given)| is_given.then_some(flag))
    }

    /// Whether a flag or a variable says which cluster is meant.
    pub(crate) fn names_one(&self) -> bool {
        let variable = std::env::var_os("DRIFTLESS_PROFILE").is_some_and(|name| !name.is_empty());
        variable || self.flags_name_one()
    }

    /// Whether a flag does.
    pub(crate) fn flags_name_one(&self) -> bool {
        let ClusterArgs { profile, endpoint, ca, cert, client_key, timeout: _ } = self;
        profile.is_some() || endpoint.is_some() || ca.is_some() || cert.is_some() || client_key.is_some()
    }

    /// Which cluster is meant.
    pub(crate) fn access(&self) -> Result<Access> {
        let found = self.find()?;
        let (base, profile, dev_dir) = match found {
            Some(found) => found,
            None => (PathBuf::new(), None, None),
        };
        let absent = |what: &str| {
            Failure::usage(format_args!("which cluster? {what} is not given"))
                .hint("use --profile NAME or --profile DIR (`driftless dev` prints one), or --endpoint, --ca, --cert and --key together")
        };
        let pick = |flag: &Option<PathBuf>, of: fn(&Profile) -> &PathBuf, what| match (flag, &profile) {
            (Some(path), _) => Ok(path.clone()),
            (None, Some(profile)) => Ok(base.join(of(profile))),
            (None, None) => Err(absent(what)),
        };
        let seeds = match (&self.endpoint, &profile) {
            (Some(endpoint), _) => vec![endpoint.clone()],
            (None, Some(profile)) => profile.seeds.clone(),
            (None, None) => return Err(absent("--endpoint or --profile")),
        };
        Ok(Access {
            seeds,
            ca: pick(&self.ca, |profile| &profile.ca, "--ca")?,
            cert: pick(&self.cert, |profile| &profile.cert, "--cert")?,
            key: pick(&self.client_key, |profile| &profile.key, "--key")?,
            endpoint: self.endpoint.clone(),
            dev_dir,
        })
    }

    #[allow(clippy::type_complexity, reason = "three parts of one answer, taken apart by the only caller")]
    fn find(&self) -> Result<Option<(PathBuf, Option<Profile>, Option<PathBuf>)>> {
        let variable = std::env::var("DRIFTLESS_PROFILE").ok().filter(|name| !name.is_empty());
        let wanted = self.profile.as_ref().or(variable.as_ref());
        if let Some(name) = wanted {
            // The file in the directory means the directory.
            let given = Path::new(name);
            let dir = if given.is_file() && given.file_name().is_some_and(|file| file == DEV_PROFILE) {
                given.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
            } else {
                given
            };
            if dir.join(DEV_PROFILE).is_file() {
                let profile = read(&dir.join(DEV_PROFILE), parse_profile)?;
                return Ok(Some((dir.to_owned(), Some(profile), Some(dir.to_owned()))));
            }
            if name.contains('/') {
                return Err(no_cluster_in(name));
            }
        }
        let Some(file) = profiles_file() else { return Ok(None) };
        let wanted = wanted.map(String::as_str);
        if !file.is_file() {
            return match wanted {
                None => Ok(None),
                Some(name) if Path::new(name).is_dir() => Err(no_cluster_in(name)),
                Some(name) => Err(Failure::usage(format_args!(
                    "there is no profile \"{name}\": {} does not exist",
                    file.display()
                ))
                .hint(format_args!(
                    "write [profile.{name}] with seeds, ca, cert and key there, or give the directory of a dev cluster"
                ))),
            };
        }
        let mut profiles = read(&file, parse_profiles)?;
        let base = file.parent().unwrap_or(Path::new("")).to_owned();
        match (profiles.remove(wanted.unwrap_or("default")), wanted) {
            (Some(profile), _) => Ok(Some((base, Some(profile), None))),
            (None, None) => Ok(None),
            // A directory that happens to be called like a profile hides none.
            (None, Some(name)) if Path::new(name).is_dir() => Err(no_cluster_in(name).hint(format_args!(
                "start one there with `driftless dev --dir {name}`, or write [profile.{name}] in {}",
                file.display()
            ))),
            (None, Some(name)) => {
                let known: Vec<&str> = profiles.keys().map(String::as_str).collect();
                let failure = Failure::usage(format_args!("there is no profile \"{name}\" in {}", file.display()));
                Err(match closest(name, known.iter().copied()) {
                    Some(likely) => failure.hint(format_args!("did you mean \"{likely}\"?")),
                    None => failure.hint(format_args!(
                        "it has {}",
                        if known.is_empty() { "none".to_owned() } else { known.join(", ") }
                    )),
                })
            }
        }
    }
}

fn no_cluster_in(directory: &str) -> Failure {
    Failure::usage(format_args!("{directory} has no {DEV_PROFILE}; it is not the directory of a dev cluster"))
        .hint(format_args!("start one there with `driftless dev --dir {directory}`"))
}

/// For clap: a span of time with its unit.
pub(crate) fn parse_duration(text: &str) -> std::result::Result<std::time::Duration, String> {
    match driftless_node::config::units::duration(text) {
        Ok(time) if time.is_zero() => Err("expected a time above zero".to_owned()),
        Ok(time) => Ok(time),
        Err(expected) => Err(format!("expected {expected}")),
    }
}

fn profiles_file() -> Option<PathBuf> {
    if let Some(file) = std::env::var_os("DRIFTLESS_CONFIG") {
        return Some(file.into());
    }
    let base = match std::env::var_os("XDG_CONFIG_HOME").filter(|dir| !dir.is_empty()) {
        Some(dir) => PathBuf::from(dir),
        None => Path::new(&std::env::var_os("HOME")?).join(".config"),
    };
    Some(base.join("driftless/config.toml"))
}

fn read<T>(path: &Path, parse: fn(&str) -> std::result::Result<T, SyntaxError>) -> Result<T> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::usage(format_args!("cannot read {}: {error}", path.display())))?;
    parse(&text).map_err(|error| Failure::usage(format_args!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dev_directory_is_a_profile() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let text = "seeds = [\"127.0.0.1:7400\"]\nca = \"ca.pem\"\ncert = \"/abs/c.pem\"\nkey = \"c.key\"\n";
        std::fs::write(dir.path().join(DEV_PROFILE), text).expect("writes");
        let name = dir.path().display().to_string();
        let mut args = ClusterArgs { profile: Some(name), ..ClusterArgs::default() };
        let access = args.access().expect("is complete");
        assert_eq!(access.seeds, ["127.0.0.1:7400"]);
        assert_eq!(access.ca, dir.path().join("ca.pem"));
        assert_eq!(access.cert, Path::new("/abs/c.pem"));
        assert_eq!(access.dev_dir.as_deref(), Some(dir.path()));
        args.endpoint = Some("127.0.0.1:7410".to_owned());
        args.client_key = Some("other.key".into());
        let access = args.access().expect("is complete");
        assert_eq!(access.seeds, ["127.0.0.1:7410"]);
        assert_eq!(access.endpoint.as_deref(), Some("127.0.0.1:7410"));
        assert_eq!(access.key, Path::new("other.key"));
    }

    #[test]
    fn the_profile_file_of_a_directory_means_the_directory() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let text = "seeds = [\"127.0.0.1:7400\"]\nca = \"ca.pem\"\ncert = \"c.pem\"\nkey = \"c.key\"\n";
        std::fs::write(dir.path().join(DEV_PROFILE), text).expect("writes");
        let name = dir.path().join(DEV_PROFILE).display().to_string();
        let access = ClusterArgs { profile: Some(name), ..ClusterArgs::default() }.access().expect("is complete");
        assert_eq!(access.ca, dir.path().join("ca.pem"));
        assert_eq!(access.dev_dir.as_deref(), Some(dir.path()));
    }

    #[test]
    fn a_directory_without_a_profile_says_so() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let args = ClusterArgs { profile: Some(dir.path().display().to_string()), ..ClusterArgs::default() };
        let failure = args.access().expect_err("has no profile").to_string();
        assert!(failure.contains("not the directory of a dev cluster"), "{failure}");
        std::fs::write(dir.path().join(DEV_PROFILE), "seeds = []\ncolour = 1\n").expect("writes");
        assert!(args.access().expect_err("is malformed").to_string().contains("colour"));
    }
}
