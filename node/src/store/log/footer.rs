//! The footer of a full segment: what the index needs to know of it, so that a start reads no values.
//!
//! ```text
//! head    magic 8 | salt 8 | end of the frames 8 | secret of the index 8 | entries 8 | bytes of them 8 | their hash 8 | hash of the head 8
//! entry   flags 1 | table 1 | token 8 | check 4 | offset 4 | length 4        of a key with a token
//!         flags 1 | bytes of the key 2 | key | offset 4 | length 4           of any other key
//! ```
//! The last change of each key in the segment is the last of its entries. It is written when all frames are synced, and a start does
//! without it if it is not there.

use std::io;

use xxhash_rust::xxh3::xxh3_64;

use super::folder::Blocks;
use super::frame;
use super::index::{Index, Place};
use super::segment::PAGE;

/// Entries of a segment, as they will stand in its footer.
#[derive(Clone, Debug, Default)]
pub(super) struct Footer {
    entries: Vec<u8>,
    count: u64,
}

/// One change of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Change<'a> {
    pub(super) place: Place<'a>,
    pub(super) removes: bool,
    pub(super) offset: u32,
    pub(super) length: u32,
}

impl Footer {
    /// Bytes that a change will take.
    pub(super) fn bytes_of(place: &Place<'_>) -> u64 {
        match place {
            Place::Token { .. } => TOKEN_BYTES as u64,
            Place::Ordered(key) => (ORDERED_BYTES + key.len()) as u64,
        }
    }

    /// Bytes that it will take, with so many more of entries.
    pub(super) fn bytes_with(&self, more: u64) -> u64 {
        (HEAD_BYTES + self.entries.len()) as u64 + more
    }

    pub(super) fn push(&mut self, change: &Change<'_>) {
        let removes = if change.removes { REMOVES } else { 0 };
        match change.place {
            Place::Token { table, token, check } => {
                self.entries.extend([removes, table]);
                self.entries.extend(token.to_le_bytes());
                self.entries.extend(check.to_le_bytes());
            }
            Place::Ordered(key) => {
                self.entries.push(removes | ORDERED);
                self.entries.extend((key.len() as u16).to_le_bytes());
                self.entries.extend(key);
            }
        }
        self.entries.extend(change.offset.to_le_bytes());
        self.entries.extend(change.length.to_le_bytes());
        self.count += 1;
    }

    /// All changes, in the order in which they were made.
    pub(super) fn changes(&self) -> impl Iterator<Item = Change<'_>> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let change;
            (change, at) = self.change_at(at)?;
            Some(change)
        })
    }

    /// The change at an offset among the entries, and the offset of the next.
    pub(super) fn change_at(&self, at: usize) -> Option<(Change<'_>, usize)> {
        let (change, rest) = split_change(self.entries.get(at..)?)?;
        Some((change, self.entries.len() - rest.len()))
    }

    /// Writes it behind the frames, which end there. Not durable yet.
    pub(super) fn write(&self, file: &dyn Blocks, salt: u64, end: u64, index: &Index) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + self.entries.len());
        bytes.extend(MAGIC);
        let hash = xxh3_64(&self.entries);
        for number in [salt, end, index.secret(), self.count, self.entries.len() as u64, hash] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(xxh3_64(&bytes).to_le_bytes());
        bytes.extend(&self.entries);
        file.write_at(&bytes, end.next_multiple_of(PAGE))
    }

    /// The footer of frames that end there, if a whole one is there; and the secret that it was made with.
    pub(super) fn read(file: &dyn Blocks, salt: u64, end: u64) -> io::Result<Option<(Footer, u64)>> {
        let length = file.bytes()?;
        let at = end.checked_next_multiple_of(PAGE).filter(|at| at.saturating_add(HEAD_BYTES as u64) <= length);
        let Some(at) = at else { return Ok(None) };
        let mut head = [0; HEAD_BYTES];
        file.read_at(&mut head, at)?;
        let number = |at| frame::number(&head, at);
        let fits = number(40) <= length - at - HEAD_BYTES as u64;
        if head[..8] != *MAGIC || number(56) != xxh3_64(&head[..56]) || (number(8), number(16)) != (salt, end) || !fits
        {
            return Ok(None);
        }
        let mut entries = vec![0; number(40) as usize];
        file.read_at(&mut entries, at + HEAD_BYTES as u64)?;
        if xxh3_64(&entries) != number(48) {
            return Ok(None);
        }
        Ok(Some((Footer { entries, count: number(32) }, number(24))))
    }
}

fn split_change(bytes: &[u8]) -> Option<(Change<'_>, &[u8])> {
    let flags = *bytes.first()?;
    let short = |bytes: &[u8], at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    let long = |bytes: &[u8], at: usize| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    let (place, rest) = if flags & ORDERED == 0 {
        let place = Place::Token { table: *bytes.get(1)?, token: long(bytes, 2)?, check: short(bytes, 10)? };
        (place, bytes.get(14..)?)
    } else {
        let key = usize::from(u16::from_le_bytes(*bytes.get(1..)?.first_chunk()?));
        let (key, rest) = bytes.get(3..)?.split_at_checked(key)?;
        (Place::Ordered(key), rest)
    };
    let (offset, length) = (short(rest, 0)?, short(rest, 4)?);
    Some((Change { place, removes: flags & REMOVES != 0, offset, length }, rest.get(8..)?))
}

const MAGIC: &[u8; 8] = b"DLFOOT01";
const HEAD_BYTES: usize = 64;
const TOKEN_BYTES: usize = 22;
const ORDERED_BYTES: usize = 11;
const REMOVES: u8 = 1;
const ORDERED: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_footer_is_as_the_page_of_the_disk_shows_it() {
        use super::super::folder::Folder as _;
        use super::super::index::Layout;
        use super::super::platter::Platter;

        let page = include_str!("../../../../docs/disk-format.md");
        let code = [
            ("HEAD_BYTES", HEAD_BYTES as u64),
            ("TOKEN_BYTES", TOKEN_BYTES as u64),
            ("ORDERED_BYTES", ORDERED_BYTES as u64),
        ];
        driftless_testkit::pages::assert_constants(page, "node/src/store/log/footer.rs", &code);
        let index = Index::new(Layout::of_records(1), 0x1122_3344_5566_7788);
        let mut footer = Footer::default();
        let key = [&[1, 3][..], &0x0102_0304_0506_0708_u64.to_be_bytes(), &[0; 4], b"bat"].concat();
        footer.push(&Change { place: index.place(&key), removes: false, offset: 4152, length: 100 });
        footer.push(&Change { place: Place::Ordered(b"\0a"), removes: true, offset: 4252, length: 18 });
        let (salt, end) = (0x0807_0605_0403_0201, 4272);
        let file = Platter::default().create("a", 3 * PAGE).expect("can be made");
        footer.write(&*file, salt, end, &index).expect("can be written");
        let mut bytes = vec![0; HEAD_BYTES + footer.entries.len()];
        file.read_at(&mut bytes, 2 * PAGE).expect("can be read");
        driftless_testkit::pages::assert_bytes(page, "footer", &bytes);
    }
}
