//! What puts and deletes have in common.

use driftless_proto::WriteId;

use crate::answer::Context;

/// What names a write and what it replaces.
pub(crate) struct Write {
    pub(crate) context: Option<Context>,
    pub(crate) write_id: WriteId,
    /// Have the coordinator tell what each replica did.
    pub(crate) explain: bool,
}

impl Write {
    /// Under the id that was given, or a drawn one.
    pub(crate) fn new(context: Option<Context>, write_id: Option<WriteId>) -> Write {
        Write { context, write_id: write_id.unwrap_or_else(WriteId::random), explain: false }
    }
}
