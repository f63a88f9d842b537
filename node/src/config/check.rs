//! All that is wrong with a file that somebody has written, of whatever kind, without starting anything.
//!
//! A start stops at the first mistake. Here each is told, and then read on as if it were mended: the key is left out, or something is put
//! in its place that is right.

use std::collections::BTreeMap;
use std::path::Path;

use driftless_proto::BucketName;
use toml::{Table, Value};

use super::access::Access;
use super::cluster::of_table;
use super::context_key::parse_context_keys;
use super::error::ConfigError;
use super::node::NodeConfig;
use super::profile::{Profile, parse_profile};
use super::table::parse;
use crate::node::NodeError;

/// What a file is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileKind {
    /// `node.toml`.
    Node,
    /// `cluster.toml`.
    Cluster,
    /// Who may do what.
    Access,
    /// One profile, as `dev` writes it.
    Profile,
    /// Profiles by name, as a person has them.
    Profiles,
    /// The keys that seal context tokens.
    ContextKeys,
}

impl FileKind {
    /// All of them.
    pub const ALL: [FileKind; 6] = [
        FileKind::Node,
        FileKind::Cluster,
        FileKind::Access,
        FileKind::Profile,
        FileKind::Profiles,
        FileKind::ContextKeys,
    ];

    /// As a person would call it.
    pub fn words(self) -> &'static str {
        match self {
            FileKind::Node => "a node's file",
            FileKind::Cluster => "a cluster file",
            FileKind::Access => "an access file",
            FileKind::Profile => "a profile",
            FileKind::Profiles => "a file of profiles",
            FileKind::ContextKeys => "a context key file",
        }
    }

    /// In a word.
    pub fn word(self) -> &'static str {
        match self {
            FileKind::Node => "node",
            FileKind::Cluster => "cluster",
            FileKind::Access => "access",
            FileKind::Profile => "profile",
            FileKind::Profiles => "profiles",
            FileKind::ContextKeys => "context-key",
        }
    }

    /// What a file looks like: by what stands in it, and else by its name.
    pub fn of(path: &Path, text: &str) -> FileKind {
        let first = text.lines().find(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'));
        if first.is_some_and(|line| line.trim_start().starts_with(|c: char| c.is_ascii_digit())) {
            return FileKind::ContextKeys;
        }
        let table: Table = text.parse().unwrap_or_default();
        let has = |keys: &[&str]| keys.iter().any(|key| table.contains_key(*key));
        if has(&["name"]) {
            return FileKind::Node;
        }
        let by_content = [
            (FileKind::Profiles, &["profile"][..]),
            (FileKind::Cluster, &["member", "bucket", "partitions", "hash_seed"]),
            (FileKind::Profile, &["seeds"]),
            (FileKind::Access, &["client", "deny", "default"]),
        ];
        if let Some((kind, _)) = by_content.into_iter().find(|(_, keys)| has(keys)) {
            return kind;
        }
        let name = path.file_name().map(|name| name.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
        let by_name = [
            ("cluster", FileKind::Cluster),
            ("access", FileKind::Access),
            ("profile", FileKind::Profile),
            ("config", FileKind::Profiles),
            ("context", FileKind::ContextKeys),
        ];
        by_name.into_iter().find(|(part, _)| name.contains(part)).map_or(FileKind::Node, |(_, kind)| kind)
    }
}

/// All that is wrong with the text of a file, in words that say what to write instead. What the environment or flags would change is not
/// looked at.
pub fn check(kind: FileKind, path: &Path, text: &str) -> Vec<String> {
    let words = |problems: Vec<ConfigError>| problems.iter().map(ToString::to_string).collect();
    match kind {
        FileKind::Node => of_node(path, text),
        FileKind::Cluster => words(of_cluster(path, text)),
        FileKind::Access => words(Access::gather(path, text).1),
        FileKind::ContextKeys => words(parse_context_keys(path, text).err().into_iter().collect()),
        FileKind::Profile => of_profile(path, "", parse_profile(text).map_err(|error| error.to_string())),
        FileKind::Profiles => of_profiles(path, text),
    }
}

fn of_node(path: &Path, text: &str) -> Vec<String> {
    let (config, problems) = NodeConfig::gather(path, text, [], &[]);
    let mut words: Vec<String> = problems.iter().map(ToString::to_string).collect();
    words.extend(config.as_ref().and_then(|config| config.trace.refused()).map(str::to_owned));
    // A start finds out when it opens the port.
    let admin = config.and_then(|config| config.admin).filter(|admin| !admin.ip().is_loopback());
    words.extend(admin.map(|admin| NodeError::AdminNotLoopback(admin).to_string()));
    words
}

fn of_cluster(path: &Path, text: &str) -> Vec<ConfigError> {
    let mut problems = Vec::new();
    let mut table = match parse(path, text) {
        Ok(table) => table,
        Err(problem) => return vec![problem],
    };
    while let Err(problem) = of_table(path, table.clone()) {
        let is_mended = mend(&mut table, &problem);
        problems.push(problem);
        if !is_mended || problems.len() > PROBLEMS_MAX {
            break;
        }
    }
    problems
}

/// Takes a mistake out of a cluster file. Whether it could.
fn mend(table: &mut Table, problem: &ConfigError) -> bool {
    match problem {
        ConfigError::UnknownKey { key, .. } | ConfigError::BadValue { key, .. } | ConfigError::Missing { key, .. } => {
            let (key, place) = key.split_once(" (of ").map_or((key.as_str(), ""), |(key, rest)| (key, rest));
            let numbered = place.trim_end_matches(')').rsplit_once(' ');
            let numbered = numbered.and_then(|(list, number)| Some((list, number.parse::<usize>().ok()?)));
            let (section, number) = match numbered {
                Some((list, number)) => match number.checked_sub(1).and_then(|at| entry(table, list, at)) {
                    Some(section) => (section, number),
                    None => return false,
                },
                None => (table, 0),
            };
            let stand_in = match (key, place.split(' ').next()) {
                ("cluster", _) => Some("cluster".to_owned()),
                ("name", Some("member")) => Some(format!("member-{number}")),
                ("name", _) => Some(format!("bucket-{number}")),
                ("address", _) => Some(format!("member-{number}:7400")),
                _ => None,
            };
            match stand_in {
                // What stands in is right: it can be in the way once.
                Some(text) => section.insert(key.to_owned(), Value::String(text.clone())) != Some(Value::String(text)),
                None => section.remove(key).is_some(),
            }
        }
        ConfigError::SharedPorts { second, .. } => {
            let members = table.get_mut("member").and_then(Value::as_array_mut).into_iter().flatten();
            let mut named = members.filter(|member| member.get("name").and_then(Value::as_str) == Some(second));
            let Some(Value::Table(member)) = named.next_back() else { return false };
            let address = Value::String(format!("apart-{second}:7400"));
            member.insert("address".to_owned(), address.clone()) != Some(address)
        }
        ConfigError::Quorum { bucket, .. } | ConfigError::TooFewMembers { bucket, .. } => {
            without(table, bucket, &["n", "r", "w"])
        }
        ConfigError::BucketId { first, second, .. } => {
            without(table, second, &["id"]) || without(table, first, &["id"])
        }
        ConfigError::BucketName { .. } => {
            let is_bad = |name: &Value| name.as_str().is_some_and(|name| BucketName::new(name).is_err());
            let names = buckets(table).filter_map(|bucket| bucket.get_mut("name"));
            let Some((number, name)) = (1..).zip(names).find(|(_, name)| is_bad(name)) else { return false };
            *name = Value::String(format!("bucket-{number}"));
            true
        }
        _ => false,
    }
}

fn buckets(table: &mut Table) -> impl Iterator<Item = &mut Table> {
    let buckets = table.get_mut("bucket").and_then(Value::as_array_mut).into_iter().flatten();
    buckets.filter_map(Value::as_table_mut)
}

/// Takes keys out of the last bucket of this name. Whether there was one.
fn without(table: &mut Table, bucket: &str, keys: &[&str]) -> bool {
    let named = |found: &&mut Table| found.get("name").and_then(Value::as_str) == Some(bucket);
    let Some(found) = buckets(table).filter(named).last() else { return false };
    keys.iter().filter_map(|key| found.remove(*key)).count() > 0
}

fn entry<'a>(table: &'a mut Table, list: &str, at: usize) -> Option<&'a mut Table> {
    table.get_mut(list)?.as_array_mut()?.get_mut(at)?.as_table_mut()
}

fn of_profiles(path: &Path, text: &str) -> Vec<String> {
    let table = match parse(path, text) {
        Ok(table) => table,
        Err(problem) => return vec![problem.to_string()],
    };
    let mut problems = Vec::new();
    for (key, value) in table {
        let profiles = match (key.as_str(), value) {
            ("profile", Value::Table(profiles)) => profiles,
            _ => {
                problems.push(format!("unknown key \"{key}\" in {}; profiles are [profile.NAME]", path.display()));
                continue;
            }
        };
        let profiles: BTreeMap<String, Value> = profiles.into_iter().collect();
        for (name, profile) in profiles {
            let read = profile.try_into::<Profile>().map_err(|error| error.to_string());
            problems.extend(of_profile(path, &format!("[profile.{name}] in "), read));
        }
    }
    problems
}

fn of_profile(path: &Path, which: &str, read: Result<Profile, String>) -> Vec<String> {
    let place = format!("{which}{}", path.display());
    match read {
        Err(error) => vec![format!("{place}: {}", error.trim_end())],
        Ok(profile) if profile.seeds.is_empty() => {
            vec![format!("{place}: seeds is empty; name at least one node, as in seeds = [\"127.0.0.1:7400\"]")]
        }
        Ok(profile) => {
            let is_fine = |seed: &&String| super::cluster::host_and_port(seed).is_none();
            let bad = profile.seeds.iter().filter(is_fine);
            bad.map(|seed| format!("{place}: the seed {seed:?} is not host:port, as in \"127.0.0.1:7400\"")).collect()
        }
    }
}

/// More than anybody mends before looking again.
const PROBLEMS_MAX: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse_cluster;

    fn checked(name: &str, text: &str) -> (FileKind, Vec<String>) {
        let path = Path::new(name);
        let kind = FileKind::of(path, text);
        (kind, check(kind, path, text))
    }

    #[track_caller]
    fn finds(name: &str, text: &str, kind: FileKind, parts: &[&str]) {
        let (found, problems) = checked(name, text);
        assert_eq!((found, problems.len()), (kind, parts.len()), "{problems:#?}");
        for (problem, part) in problems.iter().zip(parts) {
            assert!(problem.contains(part), "{problem:?} should say {part:?}");
        }
    }

    #[test]
    fn what_a_file_is_for_is_seen_by_what_stands_in_it_and_else_by_its_name() {
        let kinds = [
            ("x", "name = \"n1\"\ncluster = \"c.toml\"", FileKind::Node),
            ("x", "[limits]\nmemory = 1", FileKind::Node),
            ("x", "[[member]]", FileKind::Cluster),
            ("cluster.toml", "cluster = \"shop\"", FileKind::Cluster),
            ("x", "[deny]", FileKind::Access),
            ("access.toml", "# nobody", FileKind::Access),
            ("x", "seeds = []", FileKind::Profile),
            ("x", "[profile.a]", FileKind::Profiles),
            ("x", "# newest first\n1 00ff", FileKind::ContextKeys),
            ("x", "\n \t1 00ff", FileKind::ContextKeys),
            ("cluster.toml", "cluster = [", FileKind::Cluster),
        ];
        for (name, text, kind) in kinds {
            assert_eq!(FileKind::of(Path::new(name), text), kind, "{name}: {text}");
        }
    }

    #[test]
    fn all_mistakes_of_a_cluster_file_are_named_at_once() {
        let member = |name: &str, rest: &str| format!("[[member]]\nname = \"{name}\"\n{rest}\n");
        let good = [1, 2, 3].map(|i| member(&format!("n{i}"), &format!("address = \"h{i}:7400\"")));
        finds("cluster.toml", &format!("cluster = \"c\"\n{}", good.concat()), FileKind::Cluster, &[]);
        let text = format!(
            "partitons = 8\npartitions = 7.5\n{}{}{}{}{}",
            good.concat(),
            member("n 4", "address = \"nowhere\"\nweight = 0\nzonne = \"a\""),
            member("n5", "address = \"h1:7400\""),
            "[[bucket]]\nname = \"b\"\nn = 9\n[[bucket]]\nname = \"d\"\nr = 9\n",
            "[[bucket]]\nname = \"E\"\nconflict = \"merge\"\nread_all = 101\n",
        );
        let parts = [
            "cluster is missing",
            "partitions = 7.5",
            "\"n 4\"",
            "\"nowhere\"",
            "weight (of member 4) = 0",
            "\"zonne (of member 4)\"",
            "n1 and n5",
            "bucket \"b\"",
            "bucket \"d\"",
            "bad bucket",
            "conflict (of bucket 3)",
            "read_all (of bucket 3)",
            "\"partitons\"",
        ];
        finds("cluster.toml", &text, FileKind::Cluster, &parts);
        finds("cluster.toml", "cluster = \"c\"\n", FileKind::Cluster, &["no members"]);
        finds("cluster.toml", "member = 5\ncluster = \"c\"", FileKind::Cluster, &["[[member]]", "no members"]);
    }

    /// A key may be called like a place in a file, and anything may be wrong in any way.
    #[test]
    fn a_mistake_is_found_wherever_a_start_finds_one_and_nowhere_else() {
        let node = "name = \"n1\"\nadmin = \"127.0.0.1:1\"\n\"a (of member 0)\" = 1\n[limits]\nmemory = \"1GiB\"\n";
        let cluster = "cluster = \"c\"\n\"a (of member 0)\" = 1\n[[member]]\nname = \"n1\"\naddress = \"h:1\"\n\
                       \"b (of member 9)\" = 1\n[[bucket]]\nname = \"b\"\nn = 1\n\"c (of bucket x)\" = 1\n";
        let access =
            "default = \"reader\"\n[[client]]\nname = \"web\"\nrole = \"writer\"\n[deny]\nserials = [\"5A\"]\n";
        let path = Path::new("file");
        let is_fine = |kind, text: &str| match kind {
            FileKind::Node => NodeConfig::parse(path, text, [], &[]).is_ok(),
            FileKind::Cluster => parse_cluster(path, text).is_ok(),
            _ => Access::parse(path, text).is_ok(),
        };
        for (kind, text) in [(FileKind::Node, node), (FileKind::Cluster, cluster), (FileKind::Access, access)] {
            let lines: Vec<&str> = text.lines().collect();
            let without = |at: usize| [&lines[..at], &lines[at + 1..]].concat().join("\n");
            let with = |at: usize, c: char| format!("{}{c}{}", &text[..at], &text[at + 1..]);
            let cut = (0..lines.len()).map(without);
            let changed = (0..text.len()).flat_map(|at| ['\"', '9', ' ', '\n', '['].map(|c| with(at, c)));
            for text in cut.chain(changed) {
                let problems = check(kind, path, &text);
                // Of the admin address a start finds out when it opens the port.
                let late = kind == FileKind::Node && problems.iter().any(|problem| problem.contains("loopback"));
                assert!(late || problems.is_empty() == is_fine(kind, &text), "{text}\n{problems:#?}");
            }
        }
    }

    #[test]
    fn all_mistakes_of_an_access_file_are_named_at_once() {
        let text = "[[client]]\nname = \"a b\"\nrole = \"reader\"\nbuckets = [\"my cart\", \"carts\"]\n\
                    [[client]]\nname = \"web\"\nrole = \"reader\"\n[[client]]\nname = \"web\"\nrole = \"writer\"\n\
                    [deny]\nserials = [\"xyz\"]\nnodes = [\"n 1\"]\n";
        let parts = ["line 4 of", "line 2 of", "line 9 of", "line 12 of", "line 13 of"];
        finds("access.toml", text, FileKind::Access, &parts);
        finds("access.toml", "[[client]]\nname = \"web\"\nrole = \"king\"\n", FileKind::Access, &["line 3 of"]);
    }

    #[test]
    fn mistakes_of_profiles_name_the_profile() {
        let good = "ca = \"ca.pem\"\ncert = \"c.pem\"\nkey = \"c.key\"\n";
        finds("config.toml", &format!("[profile.a]\nseeds = [\"h:1\"]\n{good}"), FileKind::Profiles, &[]);
        let text = format!(
            "[profile.a]\nseeds = [\"h\"]\n{good}[profile.b]\nseeds = []\n{good}[profile.c]\ncolour = 1\n[x]\n"
        );
        finds("config.toml", &text, FileKind::Profiles, &["[profile.a]", "[profile.b]", "[profile.c]", "\"x\""]);
        finds("profile.toml", &format!("seeds = [\"h\"]\n{good}"), FileKind::Profile, &["\"h\" is not host:port"]);
        finds("context.key", "1 00ff\n", FileKind::ContextKeys, &["line 1 of"]);
    }
}
