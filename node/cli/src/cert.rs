//! `driftless cert ca | node NAME | client NAME | show FILE`: who belongs to a cluster.
//!
//! The authority's private key stays with the person who issues certificates; nodes and clients get `ca.pem` and a pair of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use driftless_node::config::{check_private, context_key_file};
use driftless_node::net::certificates::{CertificateAuthority, Issued, Validity};
use driftless_node::net::verified::Description;
use driftless_proto::Role;
use serde_json::json;

use super::exit::{Failure, Result};
use super::new_file::{self, PUBLIC, SECRET};
use super::output::{self, Format};

#[derive(clap::Subcommand, Debug)]
pub(crate) enum Command {
    /// Make the authority of a new cluster: ca.pem, ca.key, and context.key for all nodes
    Ca(CaArgs),
    /// Issue a certificate for a member: NAME.pem and NAME.key
    Node(IssueArgs),
    /// Issue a certificate for an application or a person: NAME.pem and NAME.key
    Client(ClientArgs),
    /// Show whom a certificate names, its serial number, and until when it counts
    Show(ShowArgs),
}

#[derive(clap::Args, Debug)]
pub(crate) struct CaArgs {
    /// Name of the cluster, as `cluster` in cluster.toml
    #[arg(long, value_name = "NAME")]
    cluster: String,
    /// Directory for the files
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
}

#[derive(clap::Args, Debug)]
pub(crate) struct IssueArgs {
    /// Name of the member (as in cluster.toml) or client
    name: String,
    /// Directory that holds ca.pem and ca.key
    #[arg(long, value_name = "DIR", default_value = ".")]
    authority: PathBuf,
    /// Directory for the files
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    /// Days until it expires
    #[arg(long, value_name = "N", default_value_t = 398, value_parser = clap::value_parser!(u64).range(1..=36_500))]
    days: u64,
}

#[derive(clap::Args, Debug)]
pub(crate) struct ClientArgs {
    #[command(flatten)]
    issue: IssueArgs,
    /// What its holder may do where neither `access grant` nor a node's access file names it: reader, writer or operator
    #[arg(long, value_name = "ROLE")]
    role: Option<Role>,
}

#[derive(clap::Args, Debug)]
pub(crate) struct ShowArgs {
    /// The certificate
    file: PathBuf,
}

/// Issues, and says what was written.
pub(crate) fn run(command: &Command, format: Format) -> Result {
    let (files, next) = match command {
        Command::Ca(args) => ca(args)?,
        Command::Node(args) => {
            let issued = authority(args)?.issue_node(&args.name, validity(args)).map_err(Failure::usage)?;
            (
                write_pair(args, &issued)?,
                "copy both, ca.pem and context.key to the node, and name them in its node.toml",
            )
        }
        Command::Client(args) => {
            let ClientArgs { issue, role } = args;
            let issued = authority(issue)?.issue_client(&issue.name, *role, validity(issue)).map_err(Failure::usage)?;
            (write_pair(issue, &issued)?, "use them with --ca, --cert and --key, or in a profile")
        }
        Command::Show(args) => return show(&args.file, format),
    };
    if format == Format::Json {
        let files: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
        return output::json_line(&json!({ "files": files }));
    }
    for file in &files {
        output::line(file.display())?;
    }
    output::note(format_args!("next: {next}"));
    Ok(())
}

/// The first certificate of a file: a node's or a client's own, also where the chain follows it.
fn show(file: &Path, format: Format) -> Result {
    let pem =
        fs::read(file).map_err(|error| Failure::failed(format_args!("cannot read {}: {error}", file.display())))?;
    let shown = Description::of_pem(&pem)
        .map_err(|error| Failure::failed(format_args!("{} cannot be shown: {error}", file.display())))?;
    let Description { subject, serial, until, .. } = &shown;
    let name = subject.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
    let until = humantime::format_rfc3339_seconds(*until).to_string();
    if format == Format::Json {
        let json = json!({ "name": subject.as_ref().map(ToString::to_string), "serial": serial.to_string(), "valid_until": until });
        return output::json_line(&json);
    }
    output::line(format_args!("name         {name}\nserial       {serial}\nvalid until  {until}"))
}

fn ca(args: &CaArgs) -> Result<(Vec<PathBuf>, &'static str)> {
    let authority = CertificateAuthority::create(&args.cluster).map_err(Failure::usage)?;
    let files = ["ca.pem", "ca.key", "context.key"].map(|name| args.out.join(name));
    refuse_existing(&files)?;
    make_dir(&args.out)?;
    new_file::create(&files[0], authority.certificate_pem(), PUBLIC)?;
    new_file::create(&files[1], authority.key_pem(), SECRET)?;
    new_file::create(&files[2], &context_key_file(rand::random()), SECRET)?;
    Ok((files.to_vec(), "keep ca.key off the nodes: whoever has it can admit anybody; then `driftless cert node NAME`"))
}

fn authority(args: &IssueArgs) -> Result<CertificateAuthority> {
    let (certificate, key) = (args.authority.join("ca.pem"), args.authority.join("ca.key"));
    let read = |path: &Path| {
        fs::read_to_string(path).map_err(|error| {
            Failure::failed(format_args!("cannot read {}: {error}", path.display()))
                .hint("name the directory of the authority with --authority, or make one with `driftless cert ca`")
        })
    };
    let certificate = read(&certificate)?;
    let secret = read(&key)?;
    check_private(&key)?;
    CertificateAuthority::load(&certificate, &secret).map_err(|error| {
        Failure::failed(format_args!("{} and ca.key cannot be used: {error}", args.authority.join("ca.pem").display()))
    })
}

fn write_pair(args: &IssueArgs, issued: &Issued) -> Result<Vec<PathBuf>> {
    let files = ["pem", "key"].map(|kind| args.out.join(format!("{}.{kind}", args.name)));
    refuse_existing(&files)?;
    make_dir(&args.out)?;
    new_file::create(&files[0], &issued.certificate, PUBLIC)?;
    new_file::create(&files[1], &issued.key, SECRET)?;
    Ok(files.to_vec())
}

fn validity(args: &IssueArgs) -> Validity {
    Validity::days(SystemTime::now(), args.days)
}

/// Before anything is written: a key that was overwritten cannot be brought back.
fn refuse_existing(files: &[PathBuf]) -> Result {
    match files.iter().find(|file| file.exists()) {
        None => Ok(()),
        Some(file) => Err(Failure::failed(format_args!("{} exists already", file.display()))
            .hint("move it away if it is no longer needed, or write elsewhere with --out")),
    }
}

fn make_dir(dir: &Path) -> Result {
    fs::create_dir_all(dir).map_err(|error| Failure::failed(format_args!("cannot make {}: {error}", dir.display())))
}
