//! `driftless bucket create | set | drop`: what moves nothing is decided at once.

use driftless_client::{BucketDefinition, BucketId, BucketName, ClusterChange, ClusterCommand, Quorum};
use driftless_proto::bucket::READ_ALL_DEFAULT;
use driftless_proto::{Conflict, Durability, Topology};

use crate::exit::{Exit, Failure, Result};

/// What can be said of a bucket at any time.
#[derive(clap::Args, Clone, Copy, Debug, Default)]
struct Knobs {
    /// Replicas that answer a read
    #[arg(short, long = "r", value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    r: Option<u8>,
    /// Replicas that acknowledge a write: with r + w > n every strict read sees every acknowledged strict write
    #[arg(short, long = "w", value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    w: Option<u8>,
    /// Fallbacks for replicas that cannot be reached count
    #[arg(long, conflicts_with = "strict")]
    sloppy: bool,
    /// Only the key's own replicas count
    #[arg(long)]
    strict: bool,
    /// When a write is acknowledged: after fsync, or once handed to the operating system
    #[arg(long, value_enum)]
    durability: Option<DurabilityArg>,
    /// Percent of reads that ask all replicas, to repair what one of them lacks
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    read_all: Option<u8>,
}

#[derive(clap::Args, Debug)]
pub(crate) struct CreateArgs {
    /// Its name: 1 to 64 of a-z, 0-9, `.`, `_`, `-`
    bucket: String,
    /// Replicas of each key; it never changes [default: 3, or as many as there are members]
    #[arg(short, long = "n", value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    n: Option<u8>,
    /// What becomes of concurrent writes; it never changes [default: siblings]
    #[arg(long, value_enum)]
    conflict: Option<ConflictArg>,
    #[command(flatten)]
    knobs: Knobs,
}

#[derive(clap::Args, Debug)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true)
    .args(["r", "w", "sloppy", "strict", "durability", "read_all"]))]
pub(crate) struct SetArgs {
    /// Its name
    bucket: String,
    #[command(flatten)]
    knobs: Knobs,
}

#[derive(clap::Args, Debug)]
pub(crate) struct DropArgs {
    /// Its name
    bucket: String,
    /// That everything in it is lost, on all nodes and for ever, is known
    #[arg(long)]
    yes: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum ConflictArg {
    /// They are kept side by side until somebody merges them
    Siblings,
    /// The last writer wins by the clock, the others are discarded
    Lww,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum DurabilityArg {
    /// After fsync
    Sync,
    /// Once handed to the operating system, synced within a second
    Buffered,
}

impl CreateArgs {
    /// The bucket that is wanted, in a cluster like this.
    pub(super) fn command(self, topology: &Topology) -> Result<ClusterCommand> {
        let CreateArgs { bucket, n, conflict, knobs } = self;
        let name = BucketName::new(bucket).map_err(Failure::usage)?;
        let members = topology.ring().members().len();
        let n = n.unwrap_or_else(|| BucketDefinition::built_in(members).quorum.n());
        let definition = BucketDefinition {
            // It is drawn where it is decided.
            id: BucketId::DEFAULT,
            name,
            quorum: Quorum::majority(n).map_err(Failure::usage)?,
            sloppy: true,
            conflict: match conflict {
                Some(ConflictArg::Lww) => Conflict::Lww,
                Some(ConflictArg::Siblings) | None => Conflict::Siblings,
            },
            durability: Durability::default(),
            read_all: READ_ALL_DEFAULT,
        };
        Ok(ClusterCommand::Apply(ClusterChange::CreateBucket(knobs.over(definition)?)))
    }
}

impl SetArgs {
    /// The bucket as it shall be from now on.
    pub(super) fn command(self, topology: &Topology) -> Result<ClusterCommand> {
        let definition = existing(topology, &self.bucket)?.clone();
        Ok(ClusterCommand::Apply(ClusterChange::SetBucket(self.knobs.over(definition)?)))
    }
}

impl DropArgs {
    /// That it goes.
    pub(super) fn command(self, topology: &Topology) -> Result<ClusterCommand> {
        let name = existing(topology, &self.bucket)?.name.to_string();
        if !self.yes {
            return Err(Failure::usage(format_args!(
                "everything in bucket {name} would be lost, on all nodes and for ever; nothing is done"
            ))
            .hint(format_args!(
                "keep a copy with `driftless dump -b {name} -o {name}.jsonl`, then say it with --yes"
            )));
        }
        Ok(ClusterCommand::Apply(ClusterChange::DropBucket { name }))
    }
}

impl Knobs {
    fn over(self, definition: BucketDefinition) -> Result<BucketDefinition> {
        let quorum = definition.quorum.with(self.r, self.w).map_err(Failure::usage)?;
        let durability = match self.durability {
            Some(DurabilityArg::Sync) => Durability::Sync,
            Some(DurabilityArg::Buffered) => Durability::Buffered,
            None => definition.durability,
        };
        let sloppy = (definition.sloppy || self.sloppy) && !self.strict;
        let read_all = self.read_all.unwrap_or(definition.read_all);
        Ok(BucketDefinition { quorum, sloppy, durability, read_all, ..definition })
    }
}

pub(super) fn existing<'a>(topology: &'a Topology, name: &str) -> Result<&'a BucketDefinition> {
    topology.bucket_named(name).ok_or_else(|| {
        Failure::new(Exit::NotFound, format_args!("there is no bucket \"{name}\""))
            .hint("`driftless bucket list` shows those that exist, `driftless bucket create` makes one")
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use driftless_testkit::TopologyBuilder;

    use super::*;
    use crate::bucket::Command;

    #[derive(Parser)]
    struct Typed {
        #[command(subcommand)]
        command: Command,
    }

    fn typed(words: &str) -> Result<ClusterChange> {
        let topology = TopologyBuilder::of(["a", "b", "c"]).build();
        let typed = Typed::try_parse_from(std::iter::once("bucket").chain(words.split(' ')));
        let command = match typed.map_err(Failure::usage)?.command {
            Command::Create(args) => args.command(&topology)?,
            Command::Set(args) => args.command(&topology)?,
            Command::Drop(args) => args.command(&topology)?,
            Command::List | Command::Show(_) => panic!("changes nothing"),
        };
        match command {
            ClusterCommand::Apply(change) => Ok(change),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_new_bucket_is_as_a_bucket_of_the_file_unless_it_is_said_otherwise() {
        let Ok(ClusterChange::CreateBucket(bucket)) = typed("create carts") else { panic!("is one") };
        let plain = BucketDefinition::built_in(3);
        assert_eq!(bucket, BucketDefinition { name: BucketName::new("carts").expect("a name"), ..plain });
        let all = "create carts --n 5 --r 1 -w 5 --strict --conflict lww --durability buffered --read-all 0";
        let Ok(ClusterChange::CreateBucket(bucket)) = typed(all) else { panic!("is one") };
        assert_eq!(bucket.quorum, Quorum::new(5, 1, 5).expect("valid"));
        let (conflict, durability) = (Conflict::Lww, Durability::Buffered);
        assert_eq!(
            bucket,
            BucketDefinition {
                sloppy: false,
                conflict,
                durability,
                read_all: 0,
                name: bucket.name.clone(),
                quorum: bucket.quorum,
                ..plain
            }
        );
    }

    #[test]
    fn what_is_not_said_of_a_bucket_stays() {
        let Ok(ClusterChange::SetBucket(bucket)) = typed("set default -w 3 --strict") else { panic!("is one") };
        let before = TopologyBuilder::of(["a", "b", "c"]).build().bucket_named("default").expect("is there").clone();
        let quorum = before.quorum.with(None, Some(3)).expect("valid");
        assert_eq!(bucket, BucketDefinition { quorum, sloppy: false, ..before });
    }

    #[test]
    fn impossible_buckets_are_refused_before_anybody_is_asked() {
        let exit = |words: &str| typed(words).expect_err(words).exit();
        assert_eq!(exit("create Carts"), Exit::Usage);
        assert_eq!(exit("create carts --n 17"), Exit::Usage);
        assert_eq!(exit("create carts -w 4"), Exit::Usage);
        assert_eq!(exit("set default"), Exit::Usage);
        assert_eq!(exit("set default --n 5"), Exit::Usage, "it never changes");
        assert_eq!(exit("set default --sloppy --strict"), Exit::Usage);
        assert_eq!(exit("set nothing -w 2"), Exit::NotFound);
        assert_eq!(exit("drop default"), Exit::Usage, "not without --yes");
        assert!(matches!(typed("drop default --yes"), Ok(ClusterChange::DropBucket { name }) if name == "default"));
    }
}
