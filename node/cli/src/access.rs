//! `driftless access show | grant | revoke | default | deny | allow`: who may do what, said once for all nodes.

use std::collections::BTreeSet;
use std::path::Path;

use driftless_client::{
    AccessChange, AccessState, AgreedAccess, BucketName, Client, ClusterAnswer, ClusterChange, ClusterCommand, Denial,
    Grant, Role, Serial,
};
use driftless_node::net::subject::{Holder, Subject};
use driftless_node::net::verified::Description;
use serde_json::json;

use super::cluster::{Watch, ask, decide, misunderstood, print_decided};
use super::exit::{Failure, Result};
use super::global::GlobalArgs;
use super::output::{self, Format};
use super::session;

#[derive(clap::Subcommand, Debug)]
pub(crate) enum Command {
    /// What the cluster agrees on: the default role, who has been given another, and who is not let in
    ///
    /// A node's own access file may say more, of that node alone; `driftless help access` says which is stronger.
    Show,
    /// Give a client a role, whatever its certificate and the nodes' files say
    Grant(GrantArgs),
    /// Take a grant back: what the nodes' files and the client's certificate say counts again
    Revoke {
        /// The client's name, as in its certificate
        client: String,
        #[command(flatten)]
        sure: Sure,
    },
    /// The role of clients that nobody has given one: no grant, no file, and not their certificate
    #[command(group = clap::ArgGroup::new("what").required(true).args(["role", "unset"]))]
    Default {
        /// The role
        #[arg(value_enum)]
        role: Option<RoleArg>,
        /// Leave it to the nodes' files again, and to the built-in default, which is writer
        #[arg(long)]
        unset: bool,
        #[command(flatten)]
        sure: Sure,
    },
    /// Let somebody in no more, on any node: connections that are open are closed
    ///
    /// A node that is a member is replaced, or leaves, first. While members change this is decided all the same.
    Deny {
        #[command(flatten)]
        whom: Whom,
        #[command(flatten)]
        sure: Sure,
    },
    /// Let somebody in again, as far as no node's own file denies them
    Allow {
        #[command(flatten)]
        whom: Whom,
    },
}

#[derive(clap::Args, Debug)]
pub(crate) struct GrantArgs {
    /// The client's name, as in its certificate: the last part of driftless://CLUSTER/client/NAME
    client: String,
    /// What it may do
    #[arg(value_enum)]
    role: RoleArg,
    /// Only in this bucket; may be given several times [default: in all buckets]
    #[arg(short, long = "bucket", value_name = "NAME", value_parser = bucket_name)]
    buckets: Vec<BucketName>,
    #[command(flatten)]
    sure: Sure,
}

#[derive(clap::Args, Debug)]
pub(crate) struct Whom {
    /// What they are called by
    #[arg(value_enum)]
    kind: Kind,
    /// The name in the certificate, or its serial number as `driftless cert show` prints it
    #[arg(value_name = "NAME|NUMBER")]
    which: String,
}

#[derive(clap::Args, Clone, Copy, Debug)]
pub(crate) struct Sure {
    /// Also if this takes the role of an operator from the very certificate that says it
    #[arg(long)]
    yes: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum Kind {
    /// An application or a person, by name
    Client,
    /// A node that is no member, by name
    Node,
    /// One certificate, or an authority with all that it has signed
    Serial,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum RoleArg {
    /// Nothing but connect
    None,
    /// Read keys, list them, look at nodes
    Reader,
    /// Write and delete too
    Writer,
    /// Give orders too
    Operator,
}

/// Shows what is agreed on, or changes it.
pub(crate) fn run(global: &GlobalArgs, command: Command) -> Result {
    let Some((change, sure)) = command.change()? else {
        return session::run(global, async |client| show(global, &agreed(client).await?));
    };
    let own = Own::read(&global.cluster.access()?.cert);
    session::run(global, async |client| {
        if let Some(own) = own.as_ref().filter(|_| !sure)
            && let Some(loss) = own.loss(&change, &agreed(client).await?.access)
        {
            return Err(Failure::usage(format_args!("{loss}; nothing is done"))
                .hint("give another certificate the role of an operator first, or say it with --yes"));
        }
        let unknown = unknown_buckets(client, &change);
        let command = ClusterCommand::Apply(ClusterChange::SetAccess(change));
        print_decided(global, &decide(client, command).await?, Watch::Nothing)?;
        for name in unknown {
            output::warning(format_args!("the cluster has no bucket {name}: there nothing is allowed until it has"));
        }
        Ok(())
    })
}

impl Command {
    /// What is to be changed, if anything, and whether it is known that it may be the operator's own end.
    fn change(self) -> Result<Option<(AccessChange, bool)>> {
        Ok(Some(match self {
            Command::Show => return Ok(None),
            Command::Grant(GrantArgs { client, role, buckets, sure }) => {
                let buckets: BTreeSet<BucketName> = buckets.into_iter().collect();
                let buckets = Some(buckets).filter(|buckets| !buckets.is_empty());
                (AccessChange::Grant { name: client, grant: Grant { role: role.into(), buckets } }, sure.yes)
            }
            Command::Revoke { client, sure } => (AccessChange::Revoke { name: client }, sure.yes),
            Command::Default { role, unset: _, sure } => (AccessChange::Default(role.map(Role::from)), sure.yes),
            Command::Deny { whom, sure } => (AccessChange::Deny(whom.denial()?), sure.yes),
            Command::Allow { whom } => (AccessChange::Allow(whom.denial()?), true),
        }))
    }
}

impl Whom {
    fn denial(self) -> Result<Denial> {
        Ok(match self.kind {
            Kind::Client => Denial::Client(self.which),
            Kind::Node => Denial::Node(self.which),
            Kind::Serial => Denial::Serial(self.which.parse::<Serial>().map_err(Failure::usage)?),
        })
    }
}

impl From<RoleArg> for Role {
    fn from(role: RoleArg) -> Role {
        match role {
            RoleArg::None => Role::None,
            RoleArg::Reader => Role::Reader,
            RoleArg::Writer => Role::Writer,
            RoleArg::Operator => Role::Operator,
        }
    }
}

/// Who says it, as the certificate has it.
struct Own {
    subject: Subject,
    /// Of the certificate and of those between it and an authority.
    serials: Vec<Serial>,
}

impl Own {
    /// Nobody if that cannot be read: then there will be no connection either.
    fn read(cert: &Path) -> Option<Own> {
        let chain = Description::all_of_pem(&std::fs::read(cert).ok()?).ok()?;
        let subject = chain.first()?.subject.clone()?;
        Some(Own { subject, serials: chain.into_iter().map(|one| one.serial).collect() })
    }

    /// What the change would, or could, take from them, in words.
    fn loss(&self, change: &AccessChange, agreed: &AgreedAccess) -> Option<String> {
        let Own { subject, serials } = self;
        let is_own = |name: &str| matches!(subject.holder, Holder::Client(_)) && name == subject.name;
        let certified = match subject.holder {
            Holder::Client(role) => role,
            // Neither grants nor defaults are about nodes.
            Holder::Node | Holder::Authority => Some(Role::Operator),
        };
        let is_whole = |grant: &Grant| grant.role == Role::Operator && grant.buckets.is_none();
        let granted = agreed.grants().get(&subject.name).filter(|_| is_own(&subject.name));
        match change {
            AccessChange::Deny(denial) => {
                let is_meant = match denial {
                    Denial::Client(name) => is_own(name),
                    Denial::Node(name) => subject.holder == Holder::Node && *name == subject.name,
                    Denial::Serial(serial) => serials.contains(serial),
                };
                is_meant.then(|| format!("{denial} is the certificate that says this ({subject})"))
            }
            AccessChange::Grant { name, grant } => {
                let is_less = is_own(name) && !is_whole(grant);
                is_less.then(|| {
                    format!("this takes the role of an operator from the certificate that says it ({subject})")
                })
            }
            AccessChange::Revoke { name } => {
                let is_less = is_own(name) && granted.is_some_and(is_whole) && certified != Some(Role::Operator);
                is_less
                    .then(|| format!("the certificate that says this ({subject}) may be no operator without its grant"))
            }
            AccessChange::Default(role) => {
                let goes_by_default = granted.is_none() && certified.is_none();
                let is_less = goes_by_default && *role != Some(Role::Operator);
                is_less.then(|| {
                    format!("the certificate that says this ({subject}) has no role of its own, and may be no operator by this default")
                })
            }
            AccessChange::Allow(_) => None,
        }
    }
}

async fn agreed(client: &Client) -> Result<AccessState> {
    match ask(client, ClusterCommand::Access).await? {
        ClusterAnswer::Access(state) => Ok(*state),
        _ => Err(misunderstood()),
    }
}

fn unknown_buckets(client: &Client, change: &AccessChange) -> Vec<BucketName> {
    let AccessChange::Grant { grant: Grant { buckets: Some(buckets), .. }, .. } = change else { return Vec::new() };
    let topology = session::topology(client);
    buckets.iter().filter(|name| topology.bucket_named(name.as_str()).is_none()).cloned().collect()
}

fn bucket_name(text: &str) -> std::result::Result<BucketName, String> {
    BucketName::new(text).map_err(|error| error.to_string())
}

fn show(global: &GlobalArgs, state: &AccessState) -> Result {
    match global.format {
        Format::Json => output::json_line(&as_json(state)),
        _ => output::line(as_text(state)),
    }
}

fn as_json(AccessState { version, access }: &AccessState) -> serde_json::Value {
    let grants = access.grants().iter().map(|(client, Grant { role, buckets })| {
        let buckets = buckets.as_ref().map(|buckets| buckets.iter().map(BucketName::as_str).collect::<Vec<_>>());
        json!({ "client": client, "role": role.name(), "buckets": buckets })
    });
    let denied = access.denied();
    json!({
        "version": version,
        "default": access.default_role().map(Role::name),
        "grants": grants.collect::<Vec<_>>(),
        "denied": {
            "clients": denied.clients,
            "nodes": denied.nodes,
            "serials": denied.serials.iter().map(Serial::to_string).collect::<Vec<_>>(),
        },
    })
}

fn as_text(AccessState { version, access }: &AccessState) -> String {
    if access.is_empty() {
        return format!(
            "version {version}: nothing is agreed on; certificates and the nodes' access files say who may do what"
        );
    }
    let mut parts = vec![format!("version {version}")];
    if let Some(role) = access.default_role() {
        parts.push(format!("default role: {role}"));
    }
    if !access.grants().is_empty() {
        let rows = access.grants().iter().map(|(client, Grant { role, buckets })| {
            let named =
                |buckets: &BTreeSet<BucketName>| buckets.iter().map(BucketName::as_str).collect::<Vec<_>>().join(", ");
            vec![client.clone(), role.to_string(), buckets.as_ref().map_or_else(|| "all".to_owned(), named)]
        });
        parts.push(output::table(&["client", "role", "buckets"], rows.collect()));
    }
    let denied = access.denied();
    let rows = denied.clients.iter().map(|name| ("client", name.clone()));
    let rows = rows.chain(denied.nodes.iter().map(|name| ("node", name.clone())));
    let rows = rows.chain(denied.serials.iter().map(|serial| ("serial", serial.to_string())));
    let rows: Vec<Vec<String>> = rows.map(|(kind, which)| vec![kind.to_owned(), which]).collect();
    if !rows.is_empty() {
        parts.push(output::table(&["denied", "name or number"], rows));
    }
    parts.join("\n")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::exit::Exit;

    #[derive(Parser)]
    struct Typed {
        #[command(subcommand)]
        command: Command,
    }

    fn typed(words: &str) -> Result<AccessChange> {
        let typed = Typed::try_parse_from(std::iter::once("access").chain(words.split(' ')));
        typed.map_err(Failure::usage)?.command.change().map(|change| change.expect("changes something").0)
    }

    fn agreed_on(words: &[&str]) -> AgreedAccess {
        let change = |access: AgreedAccess, words: &&str| access.with(&typed(words).expect("is one"));
        words.iter().try_fold(AgreedAccess::default(), change).expect("fits")
    }

    #[test]
    fn what_is_typed_is_what_is_changed() {
        let carts = BTreeSet::from([BucketName::new("carts").expect("is one")]);
        let grant = Grant { role: Role::Writer, buckets: Some(carts) };
        assert_eq!(
            typed("grant web writer --bucket carts").ok(),
            Some(AccessChange::Grant { name: "web".to_owned(), grant })
        );
        assert_eq!(typed("default --unset").ok(), Some(AccessChange::Default(None)));
        assert_eq!(typed("default none").ok(), Some(AccessChange::Default(Some(Role::None))));
        let serial = Denial::Serial(Serial::of_bytes(&[0x0a, 0xc3]));
        assert_eq!(typed("deny serial 0a:c3").ok(), Some(AccessChange::Deny(serial)));
        assert_eq!(typed("allow node n9").ok(), Some(AccessChange::Allow(Denial::Node("n9".to_owned()))));
        for words in [
            "default",
            "default reader --unset",
            "deny serial xyz",
            "deny bucket a",
            "grant web king",
            "grant web reader -b A",
        ] {
            assert_eq!(typed(words).expect_err(words).exit(), Exit::Usage, "{words}");
        }
    }

    #[test]
    fn what_would_take_the_operator_s_own_rights_is_seen() {
        let own = |uri: &str| Own { subject: uri.parse().expect("is one"), serials: vec![Serial::of_bytes(&[7])] };
        let (plain, certified) = ("driftless://shop/client/ops", "driftless://shop/client/ops/operator");
        let node = "driftless://shop/node/ops";
        let granted: &[&str] = &["grant ops operator"];
        for (uri, agreed, words, is_loss) in [
            (certified, &[][..], "deny client ops", true),
            (certified, &[], "deny client web", false),
            (certified, &[], "deny node ops", false),
            (node, &[], "deny node ops", true),
            (node, &[], "deny client ops", false),
            (certified, &[], "deny serial 07", true),
            (certified, &[], "grant ops writer", true),
            (certified, &[], "grant ops operator --bucket carts", true),
            (certified, &[], "grant ops operator", false),
            (node, &[], "grant ops writer", false),
            (plain, granted, "revoke ops", true),
            (certified, granted, "revoke ops", false),
            (plain, &[], "default reader", true),
            (plain, &[], "default --unset", true),
            (plain, granted, "default reader", false),
            (certified, &[], "default reader", false),
            (node, &[], "default reader", false),
            (certified, &[], "allow client ops", false),
        ] {
            let loss = own(uri).loss(&typed(words).expect(words), &agreed_on(agreed));
            assert_eq!(loss.is_some(), is_loss, "{uri} {words}: {loss:?}");
        }
    }

    #[test]
    fn what_is_agreed_on_is_shown_in_tables() {
        let state = |access| AccessState { version: 7, access };
        assert!(as_text(&state(AgreedAccess::default())).starts_with("version 7: nothing is agreed on;"));
        let words = [
            "default reader",
            "grant web writer -b carts -b orders",
            "grant ops operator",
            "deny client mallory",
            "deny serial 5A00C3",
        ];
        assert_eq!(
            as_text(&state(agreed_on(&words))),
            "version 7\ndefault role: reader\n\
             CLIENT  ROLE      BUCKETS\n\
             ops     operator  all\n\
             web     writer    carts, orders\n\
             DENIED  NAME OR NUMBER\n\
             client  mallory\n\
             serial  5A00C3"
        );
    }
}
