//! `driftless doctor`: what could be the matter with a node, its machine and its cluster, and what to do about it.
//!
//! ```text
//! finding.rs   what was found, and how it is printed
//! files.rs     the node's file and the files that it names: there, well-formed, kept from others; certificates
//! data.rs      the data directory, and the disk below it
//! machine.rs   buffers, open files, clock
//! ports.rs     whether the node has, or could have, its ports
//! cluster.rs   what the nodes say that answer
//! record.rs    what the cluster has agreed on, beside what cluster.toml says
//! ```
//! It reads, and opens sockets and a nameless file for a moment; it changes nothing. What a start checks is checked by the same code.

mod cluster;
mod data;
mod files;
mod finding;
mod machine;
mod ports;
mod record;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use driftless_node::config::NodeConfig;
use driftless_node::configurations::Configurations;
use driftless_node::store::directory::{Glance, User};
use driftless_proto::Topology;

use super::exit::{Exit, Result};
use super::global::GlobalArgs;
use super::output::{self, Format};
use finding::{Area, Report};

/// Exit code 0 if there is no problem, 1 if there is one.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The node's file [default: node.toml, if it is here]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Exit code 1 for warnings as well
    #[arg(long)]
    strict: bool,
}

/// The node that is looked at, as far as its files can be used.
struct Patient {
    config: NodeConfig,
    /// What the cluster file says.
    founding: Option<Topology>,
    /// Its data directory, once it was looked at.
    data: Option<Glance>,
    /// Who uses that, also while there is none, or none that can be looked at.
    user: User,
    /// What it has written down of what was agreed on, as far as there is anything and it can be used.
    agreed: Option<Arc<Configurations>>,
    /// Whether its certificate would be let in.
    is_certified: bool,
}

impl Patient {
    /// Whether a process uses its data directory, as far as is known.
    fn runs(&self) -> bool {
        matches!(self.user, User::Process(_))
    }
}

/// Looks at everything that can be looked at, and says what else could be.
pub(crate) fn run(global: &GlobalArgs, args: &Args) -> Result<ExitCode> {
    let mut report = Report::default();
    let here = Path::new("node.toml");
    let path = args.config.as_deref().or_else(|| here.is_file().then_some(here));
    let mut patient = match path {
        Some(path) => files::look(path, &mut report),
        None => {
            let why = "no node's file was named with --config, and there is no node.toml here: its certificates, data and ports are \
                       not looked at";
            report.unchecked(Area::Files, "node", why);
            None
        }
    };
    if path.is_some() {
        data::look(patient.as_mut(), &mut report);
        ports::look(patient.as_ref(), &mut report);
    }
    machine::look(patient.as_ref(), &mut report);
    cluster::look(global, patient.as_ref(), &mut report);
    match global.format {
        Format::Json => output::json_line(&report.as_json())?,
        Format::Text | Format::Raw => output::line(report.as_text())?,
    }
    Ok(if report.is_bad(args.strict) { Exit::Failed.into() } else { ExitCode::SUCCESS })
}
