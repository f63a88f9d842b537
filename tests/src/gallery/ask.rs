//! What clients ask, in the words of a script: `put("red").having(read).strict()`.

use super::world::RequestNo;

/// What a client asks; [`put`], [`get`], [`delete`] and [`retry`] begin it.
#[derive(Clone, Debug)]
pub struct Ask {
    pub(super) verb: Verb,
    pub(super) seen: Option<RequestNo>,
    pub(super) w: Option<u8>,
    pub(super) strict: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Verb {
    Put(&'static str),
    Get,
    Delete,
    Retry(RequestNo),
}

/// Writes a value. Without [`Ask::having`] it replaces nothing.
pub fn put(value: &'static str) -> Ask {
    Ask::of(Verb::Put(value))
}

/// Reads.
pub fn get() -> Ask {
    Ask::of(Verb::Get)
}

/// Writes a tombstone.
pub fn delete() -> Ask {
    Ask::of(Verb::Delete)
}

/// Asks the same once more, with the same write id.
pub fn retry(request: RequestNo) -> Ask {
    Ask::of(Verb::Retry(request))
}

impl Ask {
    fn of(verb: Verb) -> Ask {
        Ask { verb, seen: None, w: None, strict: false }
    }

    /// With the context of this request's answer.
    pub fn having(self, request: RequestNo) -> Ask {
        Ask { seen: Some(request), ..self }
    }

    /// With its own w.
    pub fn w(self, w: u8) -> Ask {
        Ask { w: Some(w), ..self }
    }

    /// With a strict quorum.
    pub fn strict(self) -> Ask {
        Ask { strict: true, ..self }
    }

    pub(super) fn sloppy(&self) -> Option<bool> {
        self.strict.then_some(false)
    }
}
