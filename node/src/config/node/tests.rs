use std::time::Duration;

use super::*;

struct File(tempfile::TempDir);

fn file(text: &str) -> File {
    let dir = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(dir.path().join("node.toml"), text).expect("writes");
    File(dir)
}

impl File {
    fn path(&self) -> PathBuf {
        self.0.path().join("node.toml")
    }

    fn read(&self, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<NodeConfig, String> {
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let flags: Vec<Override> = flags
            .iter()
            .map(|(key, value)| Override {
                key: (*key).to_owned(),
                value: (*value).to_owned(),
                flag: format!("--{key}"),
            })
            .collect();
        NodeConfig::read(&self.path(), environment, &flags).map_err(|error| error.to_string())
    }
}

/// What Kubernetes puts into every pod beside a service named `driftless`.
#[test]
fn variables_of_a_kubernetes_service_stop_no_node() {
    let service = [
        ("DRIFTLESS_SERVICE_HOST", "10.0.0.1"),
        ("DRIFTLESS_SERVICE_PORT", "7400"),
        ("DRIFTLESS_PORT", "udp://10.0.0.1:7400"),
        ("DRIFTLESS_PORT_7400_UDP_ADDR", "10.0.0.1"),
    ];
    assert!(file("name = \"n1\"").read(&service, &[]).is_ok());
}

#[test]
fn lengths_of_segments_that_the_log_cannot_use_are_refused() {
    let refused = |key: &str, value: &str| file("name = \"n1\"").read(&[], &[(key, value)]).expect_err("too small");
    assert!(refused("store.segment", "1KiB").contains("at least 1MiB"));
    assert!(refused("store.segment", "2GiB").contains("at most 1GiB"));
}

#[test]
fn a_name_is_all_that_a_file_must_say() {
    let file = file("name = \"n1\"");
    let config = file.read(&[], &[]).expect("is fine");
    assert_eq!(config.name, "n1");
    assert_eq!(config.data_dir, file.0.path().join("data"));
    assert_eq!(config.listen, None);
    assert_eq!(config.limits, Limits::default());
}

#[test]
fn later_places_override_earlier_ones() {
    let file = file("name = \"n1\"\nlisten = \"127.0.0.1:1\"\n[limits]\nrequests_max = 5\nretry_after = \"1s\"\n");
    let config = file
        .read(
            &[
                ("DRIFTLESS__LISTEN", "127.0.0.1:2"),
                ("DRIFTLESS__LIMITS__REQUESTS_MAX", "6"),
                ("DRIFTLESS_PROFILE", "x"),
                ("PATH", "y"),
            ],
            &[("listen", "127.0.0.1:3"), ("data_dir", "here")],
        )
        .expect("is fine");
    assert_eq!(config.listen, Some("127.0.0.1:3".parse().expect("an address")));
    assert_eq!(config.limits.requests_max, 6);
    assert_eq!(config.limits.retry_after, Duration::from_secs(1));
    assert_eq!(config.data_dir, Path::new("here"), "paths of flags start at the working directory");
    let source = |key| config.entries().find(|(k, ..)| *k == key).map(|(.., source)| source.clone());
    assert_eq!(source("listen"), Some(Source::Flag("--listen".to_owned())));
    assert_eq!(source("limits.requests_max"), Some(Source::Environment("DRIFTLESS__LIMITS__REQUESTS_MAX".to_owned())));
    assert_eq!(source("limits.retry_after"), Some(Source::File(file.path())));
    assert_eq!(source("log.level"), Some(Source::Default));
}

#[test]
fn what_is_printed_reads_as_the_same() {
    let first = file(
        "name = \"n1\"\n[limits]\nattempt_timeout = \"1s 5ms\"\nvalue_bytes_max = 1000\n[log]\nformat = \"json\"\n",
    );
    let config = first.read(&[], &[]).expect("is fine");
    assert!(config.print().contains("# default: "), "{}", config.print());
    let again = file(&config.print()).read(&[], &[]).expect("reads back");
    assert_eq!(again.limits, config.limits);
    assert_eq!(again.log, config.log);
}

#[test]
fn every_knob_is_read() {
    let file = file("name = \"n1\"");
    let read = |flags: &[(&str, &str)]| {
        file.read(&[], flags).map(|mut config| {
            config.settings = Settings::default();
            format!("{config:?}")
        })
    };
    let default = read(&[]).expect("is fine");
    for knob in KNOBS {
        let others = ["7", "77", "7s", "7MiB", "7GiB", "127.0.0.1:7", "json", "true", "false", "http://h:7"];
        let is_read = others.iter().any(|other| read(&[(knob.key, other)]).is_ok_and(|config| config != default));
        assert!(is_read, "{} changes nothing", knob.key);
    }
}

#[test]
fn all_mistakes_are_named_at_once() {
    let text = "lisen = \"x\"\nadmin = \"here\"\n[limits]\nretry_after = 50\nmemory = \"1MiB\"\n[log]\nformat = [1]\n";
    let environment = [("DRIFTLESS__AAE__INTERVALL".to_owned(), "1s".to_owned())];
    let (_, problems) = NodeConfig::gather(Path::new("node.toml"), text, environment, &[]);
    let said: Vec<String> = problems.iter().map(ToString::to_string).collect();
    let parts =
        ["\"lisen\"", "log.format", "INTERVALL", "limits.retry_after", "name is missing", "limits.memory", "admin"];
    for part in parts {
        assert_eq!(said.iter().filter(|problem| problem.contains(part)).count(), 1, "{part} in {said:#?}");
    }
    assert_eq!(said.len(), parts.len(), "{said:#?}");
    assert!(NodeConfig::gather(Path::new("node.toml"), "name = \"n1\"", [], &[]).1.is_empty());
    assert_eq!(NodeConfig::gather(Path::new("node.toml"), "name =", [], &[]).1.len(), 2, "no TOML, and so no name");
}

#[test]
fn a_running_node_takes_what_it_can_and_is_told_of_the_rest_again_and_again() {
    let before = file("name = \"n1\"\n[limits]\nretry_after = \"50ms\"").read(&[], &[]).expect("is fine");
    let text = "name = \"n1\"\nadmin = \"off\"\n[limits]\nretry_after = \"70ms\"\n[log]\nlevel = \"debug\"";
    let read = file(text).read(&[], &[("limits.requests_max", "7")]).expect("is fine");
    let (now, changes) = before.reloaded(&read).expect("fit each other");
    let taken: Vec<_> = changes.iter().map(|change| (change.key, change.is_taken)).collect();
    let expected = [("admin", false), ("limits.requests_max", true), ("limits.retry_after", true), ("log.level", true)];
    assert_eq!(taken, expected);
    assert_eq!((now.limits.retry_after, now.limits.requests_max), (Duration::from_millis(70), 7));
    assert_eq!((now.admin, now.log.level.as_str()), (before.admin, "debug"));
    let (_, changes) = now.reloaded(&read).expect("fit each other");
    assert_eq!(changes.iter().map(|change| change.key).collect::<Vec<_>>(), ["admin"], "what waits for a start");
}

/// Else `config explain` would promise what SIGHUP does not keep, or a shard go by what nobody said.
#[test]
fn shards_take_those_limits_that_are_said_to_be_taken() {
    let before = file("name = \"n1\"").read(&[], &[]).expect("is fine");
    let of_shards = ["limits.", "aae.", "top.", "log.slow"];
    for knob in KNOBS.iter().filter(|knob| of_shards.iter().any(|start| knob.key.starts_with(start))) {
        let others = ["7", "77", "7s", "7MiB", "7GiB", "true", "false"];
        let is_other = |read: &NodeConfig| before.reloaded(read).is_ok_and(|(_, changes)| !changes.is_empty());
        let read = |other: &&str| file("name = \"n1\"").read(&[], &[(knob.key, other)]).ok().filter(is_other);
        let read = others.iter().find_map(read);
        let read = read.unwrap_or_else(|| panic!("{} has another value", knob.key));
        let mut taken = before.limits.clone();
        taken.take_changeable(&read.limits);
        assert_eq!(taken != before.limits, knob.takes == Takes::Reload, "{}", knob.key);
    }
}

#[test]
fn texts_that_look_like_numbers_or_like_nothing_are_printed_as_they_are() {
    let config = file("name = \"007\"\n[log]\nlevel = \"\"\n").read(&[], &[]).expect("is fine");
    let again = file(&config.print()).read(&[], &[]).expect("reads back");
    assert_eq!((again.name.as_str(), again.log.level.as_str()), ("007", ""), "{}", config.print());
}

#[test]
fn mistakes_name_key_place_and_remedy() {
    let good = "name = \"n1\"\n";
    let cases: [(&str, &[&str]); 16] = [
        ("", &["name is missing", "node.toml"]),
        ("name = \"n1\"\nlisen = \"x\"", &["unknown key \"lisen\"", "node.toml", "did you mean \"listen\"?"]),
        ("name = \"n1\"\n[limits]\nrequest_max = 1", &["\"limits.request_max\"", "\"limits.requests_max\""]),
        ("name = \"n1\"\n[limit]\nrequests_max = 1", &["\"limit\"", "\"limits\""]),
        ("name = \"n1\"\nxyzzy = 1", &["unknown key \"xyzzy\"", "remove it"]),
        ("name = \"n1\"\nlisten = \"here\"", &["listen", "IP:port"]),
        ("name = \"n1\"\n[limits]\nretry_after = 50", &["limits.retry_after", "time with its unit"]),
        ("name = \"n1\"\n[limits]\nretry_after = \"0s\"", &["above zero"]),
        ("name = \"n1\"\n[limits]\nheader_cache_bytes = \"64 bananas\"", &["64 bananas", "64MiB"]),
        ("name = \"n1\"\n[limits]\nvalue_bytes_max = \"1GiB\"", &["at most 16MiB"]),
        ("name = \"n1\"\n[limits]\nrequests_max = 0", &["at least 1"]),
        ("name = \"n1\"\n[log]\nformat = \"xml\"", &["log.format", "\"text\" or \"json\""]),
        ("name = \"n1\"\nzone = \"a\\tb\"", &["zone", "1 to 64 bytes of text"]),
        ("name = \"n1\"\naddress = \"h:65535\"\nshards = 2", &["shards", "from 1 to 1"]),
        ("name = [1]", &["a text in quotes"]),
        ("name = ", &["not well-formed TOML"]),
    ];
    for (text, expected) in cases {
        let error = file(text).read(&[], &[]).expect_err(text);
        for part in expected {
            assert!(error.contains(part), "{error:?} should say {part:?}");
        }
    }
    let environment = file(good).read(&[("DRIFTLESS__LISTN", "x")], &[]).expect_err("unknown");
    assert!(environment.contains("did you mean \"DRIFTLESS__LISTEN\"?"), "{environment}");
    let single = file(good).read(&[("DRIFTLESS_LIMITS_RETRY_AFTER", "1s")], &[]).expect_err("would be overlooked");
    assert!(single.contains("did you mean \"DRIFTLESS__LIMITS__RETRY_AFTER\"?"), "{single}");
    let value = file(good).read(&[("DRIFTLESS__LIMITS__RETRY_AFTER", "soon")], &[]).expect_err("bad");
    assert!(value.contains("environment DRIFTLESS__LIMITS__RETRY_AFTER"), "{value}");
    let flag = file(good).read(&[], &[("limits.retry", "1s")]).expect_err("unknown");
    assert!(flag.contains("limits.retry_after"), "{flag}");
    let absent = NodeConfig::read(Path::new("/nonexistent/node.toml"), [], &[]).expect_err("absent").to_string();
    assert!(absent.contains("cannot read /nonexistent/node.toml"), "{absent}");
}
