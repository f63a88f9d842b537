//! How many replicas must take part in reads and writes, and which of them count, as arguments.
//!
//! ```text
//! -r                     scan
//! -r  --sloppy --strict  get
//! -w  --sloppy --strict  put  load
//! all of them            delete  bench
//! ```

use driftless_client::Profile;

/// How many replicas must answer a read.
#[derive(clap::Args, Clone, Copy, Debug, Default)]
pub(crate) struct ReadQuorum {
    /// Replicas that must answer a read [default: as the bucket says]
    #[arg(short, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    pub(crate) r: Option<u8>,
}

/// How many replicas must acknowledge a write.
#[derive(clap::Args, Clone, Copy, Debug, Default)]
pub(crate) struct WriteQuorum {
    /// Replicas that must acknowledge a write [default: as the bucket says]
    #[arg(short, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    pub(crate) w: Option<u8>,
}

/// Which replicas count.
#[derive(clap::Args, Clone, Copy, Debug, Default)]
pub(crate) struct Sloppiness {
    /// Whether fallbacks for primaries count [default: as the bucket says]
    #[arg(long, value_name = "BOOL", conflicts_with = "strict")]
    sloppy: Option<bool>,
    /// The same as --sloppy false: with r + w > n, reads then see every acknowledged write
    #[arg(long)]
    strict: bool,
}

/// What a command that only reads is asked for.
#[derive(clap::Args, Clone, Copy, Debug, Default)]
pub(crate) struct ReadArgs {
    #[command(flatten)]
    read: ReadQuorum,
    #[command(flatten)]
    sloppiness: Sloppiness,
}

/// What a command that only writes is asked for.
#[derive(clap::Args, Clone, Copy, Debug, Default)]
pub(crate) struct WriteArgs {
    #[command(flatten)]
    write: WriteQuorum,
    #[command(flatten)]
    sloppiness: Sloppiness,
}

/// What a command that reads and writes is asked for.
#[derive(clap::Args, Clone, Copy, Debug, Default)]
pub(crate) struct ReadWriteArgs {
    #[command(flatten)]
    pub(crate) read: ReadQuorum,
    #[command(flatten)]
    pub(crate) write: WriteQuorum,
    #[command(flatten)]
    pub(crate) sloppiness: Sloppiness,
}

impl ReadQuorum {
    /// As options of requests.
    pub(crate) fn profile(self) -> Profile {
        self.over(Profile::new())
    }

    fn over(self, profile: Profile) -> Profile {
        match self.r {
            Some(r) => profile.r(r),
            None => profile,
        }
    }
}

impl WriteQuorum {
    fn over(self, profile: Profile) -> Profile {
        match self.w {
            Some(w) => profile.w(w),
            None => profile,
        }
    }
}

impl Sloppiness {
    /// What was asked for, if anything.
    pub(crate) fn sloppy(self) -> Option<bool> {
        if self.strict { Some(false) } else { self.sloppy }
    }

    fn over(self, profile: Profile) -> Profile {
        match self.sloppy() {
            Some(sloppy) => profile.sloppy(sloppy),
            None => profile,
        }
    }
}

impl ReadArgs {
    /// As options of requests.
    pub(crate) fn profile(self) -> Profile {
        self.sloppiness.over(self.read.profile())
    }
}

impl WriteArgs {
    /// As options of requests.
    pub(crate) fn profile(self) -> Profile {
        write_profile(self.w(), self.sloppy())
    }

    /// How many replicas must acknowledge, if that was said.
    pub(crate) fn w(self) -> Option<u8> {
        self.write.w
    }

    /// Whether fallbacks count, if that was said.
    pub(crate) fn sloppy(self) -> Option<bool> {
        self.sloppiness.sloppy()
    }
}

/// Options of writes, as far as they are decided.
pub(crate) fn write_profile(w: Option<u8>, sloppy: Option<bool>) -> Profile {
    let sloppiness = Sloppiness { sloppy, strict: false };
    sloppiness.over(WriteQuorum { w }.over(Profile::new()))
}

impl ReadWriteArgs {
    /// As options of requests.
    pub(crate) fn profile(self) -> Profile {
        self.sloppiness.over(self.write.over(self.read.profile()))
    }
}
