//! What people write, and what certificates say.

use std::path::Path;

use driftless_node::config::{
    Access, NodeConfig, Profile, Source, parse_cluster, parse_context_keys, parse_profile, parse_profiles,
};
use driftless_node::jsonl::parse_line;
use driftless_node::net::subject::{Holder, Subject};

use super::laws;

/// An access file. Read again, as it is when it changes, it says the same.
pub fn access_file(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let parse = || Access::parse(Path::new("access.toml"), text);
    match parse() {
        Ok(access) => assert_eq!(parse().expect("was fine a moment ago"), access),
        Err(error) => drop(error.to_string()),
    }
}

/// `cluster.toml`.
pub fn cluster_file(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match parse_cluster(Path::new("cluster.toml"), text) {
        Ok(topology) => {
            laws::of_topology(&topology);
            let again = parse_cluster(Path::new("elsewhere.toml"), text).expect("was fine a moment ago");
            assert_eq!(again.digest(), topology.digest(), "every node computes the same from the same file");
        }
        Err(error) => drop(error.to_string()),
    }
}

/// `node.toml`. What `serve --print-config` prints is a file that says the same.
pub fn node_file(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let parse = |text: &str| NodeConfig::parse(Path::new("node.toml"), text, [], &[]);
    let config = match parse(text) {
        Ok(config) => config,
        Err(error) => return drop(error.to_string()),
    };
    let printed = config.print();
    let again = parse(&printed).unwrap_or_else(|error| panic!("{error}\n{printed}"));
    // Only where it comes from differs: everything stands in the file now.
    let said = |config: &NodeConfig| -> Vec<(&str, String)> {
        config.entries().map(|(key, value, _): (_, _, &Source)| (key, value.to_owned())).collect()
    };
    assert_eq!(said(&again), said(&config), "{printed}");
    assert_eq!(again.limits, config.limits);
}

/// A profile of the command line, or a file of them.
pub fn profiles(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let survives = |profile: &Profile| {
        let written = toml::to_string(profile).expect("a profile is texts and a list of texts");
        assert_eq!(parse_profile(&written).as_ref(), Ok(profile), "{written}");
    };
    match parse_profile(text) {
        Ok(profile) => survives(&profile),
        Err(error) => drop(error.to_string()),
    }
    parse_profiles(text).iter().flatten().for_each(|(_, profile)| survives(profile));
}

/// The file of the keys that seal context tokens.
pub fn context_keys(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match parse_context_keys(Path::new("context.key"), text) {
        Ok(keys) => {
            let shown = format!("{keys:?}");
            assert!(shown.len() <= 2 + 5 * 256, "ids, and no secrets: {shown}");
        }
        Err(error) => drop(error.to_string()),
    }
}

/// One line of what `load` reads. As `dump` writes it, it reads as the same.
pub fn record_lines(bytes: &[u8]) {
    let Ok(Some(line)) = parse_line(bytes) else { return };
    let written = line.to_json().to_string();
    assert_eq!(parse_line(written.as_bytes()), Ok(Some(line)), "{written}");
}

/// A certificate.
pub fn certificates(bytes: &[u8]) {
    match Subject::of_certificate(bytes) {
        Ok(subject) => of_subject(&subject),
        Err(error) => drop(error.to_string()),
    }
}

/// The name in a certificate.
pub fn subjects(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match text.parse::<Subject>() {
        Ok(subject) => {
            of_subject(&subject);
            assert_eq!(subject.to_string(), text);
        }
        Err(error) => drop(error.to_string()),
    }
}

fn of_subject(subject: &Subject) {
    assert_eq!(subject.to_string().parse().as_ref(), Ok(subject));
    assert!(driftless_proto::access::is_name(&subject.cluster));
    assert!(if subject.holder == Holder::Authority {
        subject.name.is_empty()
    } else {
        driftless_proto::access::is_name(&subject.name)
    });
}
