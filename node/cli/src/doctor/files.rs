//! The node's file and the files that it names: whether they are there, can be used, and are kept from others.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use driftless_node::conditions::ends_soon;
use driftless_node::config::{
    FileKind, KNOBS, NodeConfig, Source, check, check_private, parse_cluster, read_context_keys, read_file,
};
use driftless_node::net::tls::{TlsError, TlsFiles, TlsIdentity};
use driftless_node::net::verified::Description;
use driftless_node::node::NodeError;
use driftless_node::remedy::Remedy;
use driftless_node::store::directory::User;
use driftless_proto::Topology;

use super::Patient;
use super::finding::{Area, Report};
use crate::serve::{check_named, environment, log};

/// What they come to, if the node's own file can be used.
pub(super) fn look(path: &Path, report: &mut Report) -> Option<Patient> {
    let config = node(path, report)?;
    writable(path, report);
    let founding = cluster(&config, report);
    others(&config, report);
    let is_certified = certificates(&config, founding.as_ref(), report);
    Some(Patient { config, founding, data: None, user: User::Unknown, agreed: None, is_certified })
}

fn node(path: &Path, report: &mut Report) -> Option<NodeConfig> {
    let text = match read_file(path) {
        Ok(text) => text,
        Err(error) => {
            report.problem(Area::Files, "node.toml", error, "name the node's file with --config, and run as its user");
            return None;
        }
    };
    let (config, problems) = NodeConfig::gather(path, &text, environment(), &[]);
    for problem in &problems {
        report.error(Area::Files, "node.toml", problem, "correct it; `driftless config explain` tells of each key");
    }
    let config = config?;
    if let Err(failure) = log::filter(&config.log.level) {
        report.problem(Area::Files, "node.toml", failure.message(), failure.hint_text().unwrap_or_default());
    }
    if !problems.is_empty() {
        return None;
    }
    let set = KNOBS.iter().filter(|knob| *config.setting(knob).1 != Source::Default).count();
    let variables = KNOBS.iter().filter(|knob| matches!(config.setting(knob).1, Source::Environment(_))).count();
    let from = if variables > 0 { format!(", {variables} of them by the environment") } else { String::new() };
    report.ok(Area::Files, "node.toml", format!("{}: node {}, {set} keys are set{from}", path.display(), config.name));
    if let Some(admin) = config.admin.filter(|admin| !admin.ip().is_loopback()) {
        report.error(Area::Files, "admin", &NodeError::AdminNotLoopback(admin), "");
    }
    Some(config)
}

fn cluster(config: &NodeConfig, report: &mut Report) -> Option<Topology> {
    let path = &config.cluster;
    let text = read(path, "cluster.toml", report)?;
    writable(path, report);
    for problem in check(FileKind::Cluster, path, &text) {
        report.problem(Area::Files, "cluster.toml", problem, "correct it as docs/configuration.md has it");
    }
    let founding = parse_cluster(path, &text).ok()?;
    let members = founding.ring().members().len();
    match check_named(config, &founding) {
        Ok(()) => {
            let what = format!("{}: cluster {}, {members} members", path.display(), founding.cluster());
            report.ok(Area::Files, "cluster.toml", what);
        }
        Err(error) => report.problem(
            Area::Files,
            "cluster.toml",
            error.what(),
            "correct `name` in node.toml; or, if it is to join a cluster that runs, write `address` there",
        ),
    }
    Some(founding)
}

/// Context key, access file, audit log.
fn others(config: &NodeConfig, report: &mut Report) {
    match read_context_keys(&config.context_key) {
        Ok(_) => report.ok(Area::Files, "context key", config.context_key.display()),
        Err(error) => {
            let otherwise = "copy it from another node, or make one with `driftless cert ca` for a new cluster";
            report.error(Area::Files, "context key", &error, otherwise);
        }
    }
    if let Some(path) = &config.access
        && let Some(text) = read(path, "access file", report)
    {
        writable(path, report);
        let problems = check(FileKind::Access, path, &text);
        if problems.is_empty() {
            report.ok(Area::Files, "access file", path.display());
        }
        for problem in problems {
            report.problem(
                Area::Files,
                "access file",
                problem,
                "correct it; meanwhile the node goes on with what it had",
            );
        }
    }
    if let Some(path) = &config.audit.file {
        let directory = path.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if directory.is_dir() {
            report.ok(Area::Files, "audit log", path.display());
        } else {
            let what = format!("{} cannot be written: {} is no directory", path.display(), directory.display());
            report.problem(Area::Files, "audit log", what, "make it, or correct `audit.file`");
        }
    }
}

/// Whether they would be let in.
fn certificates(config: &NodeConfig, founding: Option<&Topology>, report: &mut Report) -> bool {
    let files = TlsFiles { ca: config.tls_ca.clone(), cert: config.tls_cert.clone(), key: config.tls_key.clone() };
    if !authorities(&files.ca, report) {
        report.unchecked(Area::Files, "certificate", "without its authority nothing can be said of it");
        if let Err(error) = check_private(&files.key) {
            report.error(Area::Files, "private key", &error, "put it there, or correct `tls.key`");
        }
        return false;
    }
    let now = SystemTime::now();
    let otherwise = "issue it with `driftless cert node`, or correct `[tls]` in node.toml";
    let identity = match TlsIdentity::load(&files, now) {
        Ok(identity) => identity,
        Err(error @ TlsError::Unreadable { .. }) => {
            let remedy = "put it there, or correct `[tls]` in node.toml; run as the user that owns it";
            report.problem(Area::Files, "certificate", error, remedy);
            return false;
        }
        Err(error) => {
            report.error(Area::Files, "certificate", &error, otherwise);
            return false;
        }
    };
    if let Some(Err(error)) = founding.map(|founding| identity.expect_node(founding.cluster(), &config.name)) {
        report.error(Area::Files, "certificate", &error, otherwise);
        return false;
    }
    let left = identity.until().duration_since(now).unwrap_or_default();
    let what = format!("{}, from its authority, {} to go; its key is kept from others", identity.subject(), days(left));
    if ends_soon(left, identity.since(), identity.until()) {
        let remedy =
            "issue a new one (`driftless cert node`) and put it in the place of the old one; no restart is needed";
        report.warning(Area::Files, "certificate", what, remedy);
    } else {
        report.ok(Area::Files, "certificate", what);
    }
    true
}

/// Those that have not expired count; one that is about to end takes all certificates with it. Whether there are any.
fn authorities(path: &Path, report: &mut Report) -> bool {
    let check = "authority";
    let described = read_file(path).map_err(|error| error.to_string());
    let described =
        described.and_then(|pem| Description::all_of_pem(pem.as_bytes()).map_err(|error| error.to_string()));
    let all =
        described.and_then(|all| if all.is_empty() { Err("it holds no certificate".to_owned()) } else { Ok(all) });
    let all = match all {
        Ok(all) => all,
        Err(error) => {
            let remedy = "copy ca.pem of the cluster's authority there, or correct `tls.ca`";
            report.problem(Area::Files, check, format!("cannot use {}: {error}", path.display()), remedy);
            return false;
        }
    };
    for Description { subject, since, until, .. } in all {
        let nameless = || "an authority without a cluster's name".to_owned();
        let who = subject.map_or_else(nameless, |subject| subject.to_string());
        match until.duration_since(SystemTime::now()) {
            Err(_) => {
                let what = format!("{who} in {} has expired", path.display());
                report.warning(
                    Area::Files,
                    check,
                    what,
                    "take it out of the file, once nobody has a certificate of it",
                );
            }
            Ok(left) if ends_soon(left, since, until) => {
                let remedy = "change the authority: docs/operations.md, Changing certificates and keys";
                report.warning(Area::Files, check, format!("{who}, {} to go", days(left)), remedy);
            }
            Ok(left) => report.ok(Area::Files, check, format!("{who}, {} to go", days(left))),
        }
    }
    true
}

fn days(left: Duration) -> String {
    match left.as_secs() / 86_400 {
        0 => "less than a day".to_owned(),
        1 => "1 day".to_owned(),
        days => format!("{days} days"),
    }
}

fn read(path: &Path, check: &'static str, report: &mut Report) -> Option<String> {
    read_file(path)
        .map_err(|error| {
            report.problem(
                Area::Files,
                check,
                error,
                "put it there, or correct its path in node.toml; run as the node's user",
            );
        })
        .ok()
}

/// What anybody may change, anybody may break.
fn writable(path: &Path, report: &mut Report) {
    let mode = fs::metadata(path).map_or(0, |found| found.permissions().mode() & 0o777);
    if mode & 0o002 != 0 {
        let path = path.display();
        let what = format!("anybody can change {path} (mode {mode:o})");
        report.warning(Area::Files, "modes", what, format!("run `chmod o-w {path}`"));
    }
}
