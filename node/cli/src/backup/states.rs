//! A file of states: all that was known of the keys of one bucket.
//!
//! ```text
//! line      driftless states 1
//! entry     length of the body 4 | xxh3-64 of the body 8 | body: key and state, in postcard
//! …
//! end       0 in 4 bytes | number of entries 8
//! ```
//! Numbers are little endian. Entries come in any order, and a key may come more than once: whoever takes them in merges them. The whole
//! file has a digest in the manifest; the sums here say which entry is damaged, and let the others be read.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;

use driftless_client::{Key, State};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::exit::{Failure, Result};

/// What was known of a key.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) key: Key,
    pub(super) state: State,
}

/// What is in a file.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Contents {
    pub(super) keys: u64,
    pub(super) values: u64,
    /// Of the file.
    pub(super) bytes: u64,
    /// Of the file: xxh3-128, as hexadecimal digits.
    pub(super) digest: String,
}

/// Writes a file of states.
pub(super) struct Writer<W> {
    out: W,
    hash: Box<Xxh3>,
    contents: Contents,
}

/// Reads one, and knows at its end whether it was whole.
pub(super) struct Reader<R> {
    input: R,
    hash: Box<Xxh3>,
    contents: Contents,
}

impl<W: Write> Writer<W> {
    pub(super) fn begin(out: W) -> io::Result<Writer<W>> {
        let mut writer = Writer { out, hash: Box::default(), contents: Contents::default() };
        writer.write(MAGIC)?;
        Ok(writer)
    }

    pub(super) fn push(&mut self, entry: &Entry) -> io::Result<()> {
        let body = postcard::to_stdvec(entry).map_err(io::Error::other)?;
        let length = u32::try_from(body.len()).map_err(io::Error::other)?;
        self.write(&length.to_le_bytes())?;
        self.write(&xxh3_64(&body).to_le_bytes())?;
        self.write(&body)?;
        self.contents.keys += 1;
        self.contents.values += entry.state.values() as u64;
        Ok(())
    }

    /// So many keys so far.
    pub(super) fn keys(&self) -> u64 {
        self.contents.keys
    }

    pub(super) fn end(mut self) -> io::Result<Contents> {
        self.write(&0_u32.to_le_bytes())?;
        self.write(&self.contents.keys.to_le_bytes())?;
        self.out.flush()?;
        self.contents.digest = digest(&self.hash);
        Ok(self.contents)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.contents.bytes += bytes.len() as u64;
        self.out.write_all(bytes)
    }
}

impl Reader<BufReader<File>> {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let open = || {
            // Who opens a pipe waits for somebody who writes into it.
            if !std::fs::metadata(path)?.is_file() {
                return Err(damaged("it is no file"));
            }
            File::open(path)
        };
        let file = open().map_err(|error| unreadable(path, &error))?;
        Reader::begin(BufReader::with_capacity(BUFFER, file)).map_err(|error| unreadable(path, &error))
    }
}

impl<R: BufRead> Reader<R> {
    fn begin(input: R) -> io::Result<Reader<R>> {
        let mut reader = Reader { input, hash: Box::default(), contents: Contents::default() };
        let mut magic = [0; MAGIC.len()];
        reader.read(&mut magic)?;
        if magic != *MAGIC {
            return Err(damaged("it is no file of states that this release reads"));
        }
        Ok(reader)
    }

    /// The next entry; `None` behind the last one, when all of it was as it was written.
    pub(super) fn next(&mut self) -> io::Result<Option<Entry>> {
        let (mut length, at) = ([0; 4], self.contents.bytes);
        self.read(&mut length)?;
        let mut number = [0; 8];
        self.read(&mut number)?;
        let (length, number) = (u32::from_le_bytes(length), u64::from_le_bytes(number));
        if length == 0 {
            if number != self.contents.keys {
                return Err(damaged(format!("it says that it has {number} entries, and has {}", self.contents.keys)));
            }
            if !self.input.fill_buf()?.is_empty() {
                return Err(damaged("something comes behind its end"));
            }
            self.contents.digest = digest(&self.hash);
            return Ok(None);
        }
        // Not set aside before it is there: a damaged length must not take gigabytes.
        let mut body = Vec::new();
        self.input.by_ref().take(length.into()).read_to_end(&mut body)?;
        self.hash.update(&body);
        self.contents.bytes += body.len() as u64;
        if body.len() < length as usize {
            return Err(cut_off());
        }
        let entry: Option<Entry> = (xxh3_64(&body) == number).then(|| postcard::from_bytes(&body).ok()).flatten();
        let entry = entry.ok_or_else(|| damaged(format!("the entry at byte {at} is damaged")))?;
        self.contents.keys += 1;
        self.contents.values += entry.state.values() as u64;
        Ok(Some(entry))
    }

    /// What was read so far; of a file that was read to its end, what it holds.
    pub(super) fn contents(&self) -> &Contents {
        &self.contents
    }

    fn read(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.input.read_exact(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => cut_off(),
            _ => error,
        })?;
        self.hash.update(bytes);
        self.contents.bytes += bytes.len() as u64;
        Ok(())
    }
}

pub(super) fn unreadable(path: &Path, error: &io::Error) -> Failure {
    Failure::failed(format_args!("cannot read {}: {error}", path.display()))
}

fn cut_off() -> io::Error {
    damaged("it ends before its end: a part of it is missing")
}

fn damaged(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

fn digest(hash: &Xxh3) -> String {
    format!("{:032x}", hash.digest128())
}

const MAGIC: &[u8; 19] = b"driftless states 1\n";

const BUFFER: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, value: &[u8]) -> Entry {
        let (vv, live) = (vec![(7_u64, 1_u64)], vec![((7_u64, 1_u64), (Some(value), 9_u128, 5_u64))]);
        // As another program would write it: the form is for keeping.
        let state = postcard::from_bytes(&postcard::to_stdvec(&(vv, live)).expect("encodes")).expect("is a state");
        Entry { key: Key::new(key.to_owned()).expect("a key"), state }
    }

    fn file(entries: &[Entry]) -> (Vec<u8>, Contents) {
        let mut bytes = Vec::new();
        let mut writer = Writer::begin(&mut bytes).expect("writes");
        entries.iter().for_each(|entry| writer.push(entry).expect("writes"));
        let contents = writer.end().expect("writes");
        (bytes, contents)
    }

    fn read(bytes: &[u8]) -> io::Result<(Vec<Entry>, Contents)> {
        let (mut reader, mut entries) = (Reader::begin(bytes)?, Vec::new());
        while let Some(entry) = reader.next()? {
            entries.push(entry);
        }
        Ok((entries, reader.contents().clone()))
    }

    #[test]
    fn what_was_written_is_read() {
        for entries in [vec![], vec![entry("a", b"1"), entry("b", &[7; 100_000]), entry("a", b"")]] {
            let (bytes, contents) = file(&entries);
            assert_eq!(contents.bytes, bytes.len() as u64);
            assert_eq!((contents.keys, contents.values), (entries.len() as u64, entries.len() as u64));
            assert_eq!(read(&bytes).expect("is whole"), (entries, contents));
        }
    }

    #[test]
    fn the_form_of_a_file_is_for_ever() {
        let (bytes, _) = file(&[entry("k", b"v")]);
        let body = [1, b'k', 1, 7, 1, 1, 7, 1, 1, 1, b'v', 9, 5];
        let mut expected = b"driftless states 1\n".to_vec();
        expected.extend(13_u32.to_le_bytes());
        expected.extend(xxh3_64(&body).to_le_bytes());
        expected.extend(body);
        expected.extend([0; 4]);
        expected.extend(1_u64.to_le_bytes());
        assert_eq!(bytes, expected);
    }

    /// With the manifest, which is compared with the page in its own file.
    #[test]
    fn a_file_is_as_the_page_of_backups_shows_it() {
        let (vv, live) =
            (vec![(10_u64, 1_u64)], vec![((10_u64, 1_u64), (Some("one"), 300_u128, 1_700_000_000_000_u64 << 16))]);
        let state = postcard::from_bytes(&postcard::to_stdvec(&(vv, live)).expect("encodes")).expect("is a state");
        let (bytes, contents) = file(&[Entry { key: Key::new("bat").expect("a key"), state }]);
        let page = include_str!("../../../../docs/backup-format.md");
        driftless_testkit::pages::assert_bytes(page, "states", &bytes);
        let Contents { keys, values, bytes, digest } = contents;
        assert_eq!((keys, values), (1, 1));
        for said in [format!("\"bytes\": {bytes},"), format!("\"digest\": \"{digest}\"")] {
            assert!(page.contains(&said), "the page does not say {said}");
        }
        let code = [("MAGIC_BYTES", MAGIC.len() as u64)];
        driftless_testkit::pages::assert_constants(page, "node/cli/src/backup/states.rs", &code);
    }

    #[test]
    fn no_damage_is_taken_for_something_else_and_none_takes_memory() {
        let (bytes, contents) = file(&[entry("a", b"one"), entry("b", b"two")]);
        for at in 0..bytes.len() {
            let error = read(&bytes[..at]).expect_err("it is cut off");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{at}: {error}");
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                match read(&changed) {
                    Err(error) => assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{at}: {error}"),
                    Ok((_, found)) => assert_ne!(found.digest, contents.digest, "{at}"),
                }
            }
        }
        let more = [bytes.as_slice(), b"x"].concat();
        assert!(read(&more).expect_err("there is more").to_string().contains("behind its end"));
        let text = read(b"{\"key\": \"a\", \"value\": 1}\n").expect_err("is another file").to_string();
        assert!(text.contains("no file of states"), "{text}");
    }
}
