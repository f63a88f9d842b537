//! The lines of a file, one after the other, in bounded memory: a line that no record can need is skipped to its end.
//!
//! Reading and parsing are the business of a thread of their own. Standard input may keep it waiting for as long as it likes;
//! the connections are served meanwhile.

use std::io::{self, BufRead, BufReader, Read};

use driftless_node::jsonl::{Line, may_hold_a_record, parse_line};
use tokio::sync::mpsc;
use xxhash_rust::xxh3::Xxh3;

/// Reads lines, as far as they may hold records.
pub(crate) struct Lines<R> {
    input: BufReader<R>,
    /// Whether a line may have so many bytes, with so many backslashes among them.
    may_be: fn(u64, u64) -> bool,
    number: u64,
    position: u64,
    digest: u64,
}

/// A line, and what has been read with it.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Numbered<T> {
    /// Counted from 1.
    pub(crate) number: u64,
    /// Bytes of the file up to its end.
    pub(crate) position: u64,
    /// Hash of the file up to its end.
    pub(crate) digest: u64,
    /// What it holds.
    pub(crate) content: T,
}

/// A line as it stands in the file.
type RawLine = Numbered<Result<Vec<u8>, TooLong>>;

/// A line that was parsed: something, nothing if it is blank, or what is wrong with it.
pub(crate) type ParsedLine = Numbered<Result<Option<Line>, String>>;

/// More bytes than any record can need.
#[derive(PartialEq, Eq, Debug)]
struct TooLong {
    bytes: u64,
}

impl<R: Read> Lines<R> {
    /// Of this input.
    pub(crate) fn new(input: BufReader<R>) -> Lines<R> {
        Lines::bounded(input, may_hold_a_record)
    }

    fn bounded(input: BufReader<R>, may_be: fn(u64, u64) -> bool) -> Lines<R> {
        Lines { input, may_be, number: 0, position: 0, digest: 0 }
    }

    /// Hash of the file up to the end of this line, from its beginning; none if it has fewer.
    pub(crate) fn digest_up_to(&mut self, line: u64) -> io::Result<Option<u64>> {
        while self.number < line {
            if self.read()?.is_none() {
                return Ok(None);
            }
        }
        Ok(Some(self.digest))
    }

    /// The next one, without a byte order mark before the first.
    fn read(&mut self) -> io::Result<Option<RawLine>> {
        let mut line = Vec::new();
        let (mut bytes, mut backslashes) = (0, 0);
        let mut fits = true;
        let mut hasher = Xxh3::with_seed(self.digest);
        loop {
            let chunk = match self.input.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                chunk => chunk?,
            };
            let end = chunk.iter().position(|&byte| byte == b'\n');
            let chunk = &chunk[..end.map_or(chunk.len(), |end| end + 1)];
            if chunk.is_empty() && bytes == 0 {
                return Ok(None);
            }
            let read = chunk.len();
            bytes += read as u64;
            hasher.update(chunk);
            // Each is the first byte of an escape, or stands for itself: they are all that makes a line longer than its record.
            backslashes += chunk.iter().filter(|&&byte| byte == b'\\').count() as u64;
            fits &= (self.may_be)(bytes, backslashes);
            if fits {
                line.extend_from_slice(chunk);
            } else {
                line = Vec::new();
            }
            self.input.consume(read);
            if end.is_some() || read == 0 {
                break;
            }
        }
        self.number += 1;
        self.position += bytes;
        self.digest = hasher.digest();
        if self.number == 1 && line.starts_with(BYTE_ORDER_MARK) {
            line.drain(..BYTE_ORDER_MARK.len());
        }
        let content = if fits { Ok(line) } else { Err(TooLong { bytes }) };
        Ok(Some(Numbered { number: self.number, position: self.position, digest: self.digest, content }))
    }

    /// The next one, parsed.
    pub(crate) fn parse(&mut self) -> io::Result<Option<ParsedLine>> {
        Ok(self.read()?.map(|Numbered { number, position, digest, content }| {
            let content = match content {
                Ok(line) => parse_line(&line),
                Err(TooLong { bytes }) => Err(format!("{bytes} bytes, more than a record can need; it was skipped")),
            };
            Numbered { number, position, digest, content }
        }))
    }
}

/// The lines of an input, as a thread of their own reads them.
pub(crate) struct Reader {
    batches: mpsc::Receiver<io::Result<Vec<ParsedLine>>>,
    batch: std::vec::IntoIter<ParsedLine>,
}

impl Reader {
    /// Begins to read.
    pub(crate) fn start(mut lines: Lines<impl Read + Send + 'static>) -> io::Result<Reader> {
        // One waits here, one is being read, one is being stored.
        let (sender, batches) = mpsc::channel(1);
        std::thread::Builder::new().name("lines".to_owned()).spawn(move || {
            while let Some(batch) = next_batch(&mut lines).transpose() {
                let is_last = batch.is_err();
                // Nobody takes it if the load has ended early.
                if sender.blocking_send(batch).is_err() || is_last {
                    break;
                }
            }
        })?;
        Ok(Reader { batches, batch: Vec::new().into_iter() })
    }

    /// The next line. Losing the future loses no line.
    pub(crate) async fn next(&mut self) -> io::Result<Option<ParsedLine>> {
        loop {
            if let Some(line) = self.batch.next() {
                return Ok(Some(line));
            }
            match self.batches.recv().await {
                None => return Ok(None),
                Some(batch) => self.batch = batch?.into_iter(),
            }
        }
    }
}

/// As many lines as are there without waiting, within bounds.
fn next_batch(lines: &mut Lines<impl Read>) -> io::Result<Option<Vec<ParsedLine>>> {
    let mut batch = Vec::new();
    let start = lines.position;
    while let Some(line) = lines.parse()? {
        batch.push(line);
        let is_full = batch.len() >= BATCH_LINES || lines.position - start >= BATCH_BYTES;
        if is_full || lines.input.buffer().is_empty() {
            break;
        }
    }
    Ok((!batch.is_empty()).then_some(batch))
}

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Enough that handing them over costs nothing.
const BATCH_LINES: usize = 256;

/// A batch ends with the line that passes this.
const BATCH_BYTES: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn up_to_5(bytes: u64, backslashes: u64) -> bool {
        bytes <= 5 + 5 * backslashes
    }

    fn lines(text: &[u8], buffer: usize, may_be: fn(u64, u64) -> bool) -> Vec<Result<String, TooLong>> {
        let mut lines = Lines::bounded(BufReader::with_capacity(buffer, text), may_be);
        let mut all = Vec::new();
        while let Some(line) = lines.read().expect("a slice can be read") {
            assert_eq!(line.number, all.len() as u64 + 1);
            all.push(line.content.map(|line| String::from_utf8(line).expect("is text")));
        }
        assert_eq!(lines.position, text.len() as u64);
        all
    }

    #[test]
    fn a_line_beyond_the_bound_is_skipped_to_its_end_and_the_next_ones_are_read() {
        let text = b"one\nmuch too long\ntwo\r\n\nlast";
        let too_long = || Err(TooLong { bytes: 14 });
        for buffer in [1, 3, 100] {
            let read = lines(text, buffer, up_to_5);
            let text = |line: &str| Ok(line.to_owned());
            assert_eq!(read, [text("one\n"), too_long(), text("two\r\n"), text("\n"), text("last")], "{buffer}");
        }
        let mut lines = Lines::bounded(BufReader::new(&text[..]), up_to_5);
        lines.parse().expect("can be read");
        let said = lines.parse().expect("can be read").expect("is there");
        assert_eq!(said.number, 2);
        assert_eq!(said.content, Err("14 bytes, more than a record can need; it was skipped".to_owned()));
    }

    #[test]
    fn a_line_with_escapes_may_be_longer() {
        let text = |line: &str| Ok(line.to_owned());
        assert_eq!(lines(b"\\u0001234\n12345678\n", 100, up_to_5), [text("\\u0001234\n"), Err(TooLong { bytes: 9 })]);
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_first_line() {
        let text = include_bytes!("cases/bom.jsonl");
        let read = lines(text, 7, may_hold_a_record);
        assert!(read.len() == 3 && read.iter().all(|line| line.as_ref().is_ok_and(|line| line.starts_with('{'))));
    }

    #[test]
    fn the_digest_depends_on_every_byte_and_not_on_how_they_are_read() {
        let digest = |text: &[u8], buffer| {
            let mut lines = Lines::bounded(BufReader::with_capacity(buffer, text), up_to_5);
            while lines.read().expect("can be read").is_some() {}
            lines.digest
        };
        let of = digest(b"a line\nb\n", 100);
        assert_eq!(of, digest(b"a line\nb\n", 2));
        assert_ne!(of, digest(b"a lane\nb\n", 100), "of skipped lines too");
        assert_ne!(of, digest(b"b\na line\n", 100));
    }

    #[test]
    fn a_file_is_known_by_its_first_lines() {
        let digest =
            |text: &[u8], line| Lines::bounded(BufReader::new(text), up_to_5).digest_up_to(line).expect("can be read");
        assert_eq!(digest(b"a\nb\n", 2), digest(b"a\nb\nc\n", 2));
        assert_ne!(digest(b"a\nb\n", 2), digest(b"c\nb\n", 2));
        assert_eq!((digest(b"a\nb\n", 3), digest(b"", 0)), (None, Some(0)));
    }

    #[test]
    fn a_reader_gives_all_lines_in_their_order() {
        let text: String = (0..1000).map(|i| format!("{{\"key\": \"k{i}\", \"value\": \"v\"}}\r\n")).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let input = BufReader::with_capacity(333, io::Cursor::new(text));
            let mut reader = Reader::start(Lines::new(input)).expect("starts");
            let mut count = 0;
            while let Some(line) = reader.next().await.expect("can be read") {
                count += 1;
                let Ok(Some(Line::Record(record))) = line.content else { panic!("{line:?}") };
                assert_eq!((line.number, record.key.as_bytes()), (count, format!("k{}", count - 1).as_bytes()));
            }
            assert_eq!(count, 1000);
        });
    }
}
