//! Opening a log: what a start has found is taken over, and what is not known to be synced is made so before anything is served.

use std::sync::{Arc, Mutex, OnceLock, RwLock};

use rand::RngCore as _;
use rand::rngs::StdRng;

use super::admission::Admission;
use super::append::{AppendError, Asker, Head, Log, Sealed, Spare, Use, lock};
use super::descriptors::Descriptors;
use super::folder::Folder;
use super::footer::Footer;
use super::index::{Index, Layout};
use super::keeper::Freed;
use super::recover::{self, Found};
use super::space::Space;
use super::watermark::{Mark, Watermark};
use super::{LogOptions, SEGMENT_BYTES_MIN, io_error, segment};
use crate::replica::store::StoreError;

/// A log, and what is to be kept in order first.
pub(super) struct Opened {
    pub(super) log: Arc<Log>,
    pub(super) freed: Vec<Freed>,
}

/// Opens the log in a folder, or begins one.
pub(super) fn open_log(
    folder: Box<dyn Folder>,
    place: String,
    mut space: Space,
    mut random: StdRng,
    options: &LogOptions,
) -> Result<Opened, StoreError> {
    space.make_room().map_err(|e| io_error("ask for free space", &e))?;
    let admission = Admission::new(space, Descriptors::new(options.descriptor_probe.clone()));
    let secret = random.next_u64();
    let segment_bytes = options.segment_bytes.next_multiple_of(segment::PAGE).max(SEGMENT_BYTES_MIN);
    let found = recover::find(&*folder, options.layout, secret, &options.planted)?;
    let mark = found.as_ref().map_or(Mark { batch: 0, secret }, |found| Mark { batch: found.synced, ..found.mark });
    let watermark = Watermark::open(&*folder, mark).map_err(|e| io_error("write the record of syncs", &e))?;
    let found = found.unwrap_or_else(|| Found::nothing(options.layout, secret));
    let head = Head {
        current: u32::MAX,
        end: 0,
        batch: found.batch,
        ordinal: found.ordinal,
        uses: Vec::new(),
        spares: Default::default(),
        dirty: Default::default(),
        names_dirty: true,
        footer: Footer::default(),
        sealed: Default::default(),
        admission,
        random,
    };
    let log = Arc::new(Log {
        folder,
        place,
        index: found.index,
        files: RwLock::default(),
        head: Mutex::new(head),
        synced: found.synced.into(),
        watermark: Mutex::new(watermark),
        failure: OnceLock::new(),
        segment_bytes,
        planted: options.planted.clone(),
        keeper: Default::default(),
        filler: Default::default(),
    });
    for (segment, file) in found.files {
        log.open_file(segment, Some(file));
    }
    let mut head = log.head();
    head.spares.extend(found.spares.into_iter().map(|(segment, bytes)| Spare { segment, bytes }));
    for loaded in &found.segments {
        head.begin_use(
            loaded.segment,
            Use {
                ordinal: loaded.used.ordinal,
                salt: loaded.used.salt,
                bytes: loaded.used.bytes,
                end: loaded.end,
                last_batch: loaded.last_batch,
                live: loaded.live,
                removals: loaded.removals,
                footed: loaded.footer.is_none(),
            },
        );
    }
    let mut free = found.doubtful;
    // The new segment may be one of them: a node that is started again and again must not take a new file each time, and on a full disk
    // there is no other.
    head.spares.extend(found.free.into_iter().map(|(segment, bytes)| Spare { segment, bytes }));
    let said = |error| match error {
        AppendError::Short(short) => StoreError::Io(format!("cannot begin a segment: {short}")),
        AppendError::Failed(error) => error,
    };
    log.roll(&mut head, 0, Asker::Merging).map_err(said)?;
    if !found.unsynced.is_empty() {
        let records = found.unsynced.len();
        tracing::info!(records, "what the last process had written and is not known to be synced is synced now");
    }
    log.secure(&mut head, &found.unsynced)?;
    let mut changed = false;
    for loaded in &found.segments {
        match loaded.kept {
            Some((end, last_batch)) => {
                if let Some(used) = head.use_mut(loaded.segment) {
                    changed |= (used.end, used.last_batch) != (end, last_batch);
                    (used.end, used.last_batch) = (end, last_batch);
                }
            }
            // Whatever it held is in the new segment now.
            None => {
                head.uses[loaded.segment as usize] = None;
                free.push(loaded.segment);
                changed = true;
            }
        }
    }
    if changed {
        log.restate(&mut head).map_err(said)?;
    }
    let batch = head.batch;
    for loaded in found.segments {
        if let (Some((_, last_batch)), Some(footer)) = (loaded.kept, loaded.footer) {
            head.sealed.push_front(Sealed { segment: loaded.segment, last_batch, footer });
        }
    }
    drop(head);
    log.sync()?;
    // From now on a mark of 0 says that nothing was ever served.
    let watermark = lock(&log.watermark).file();
    watermark.sync().map_err(|e| io_error("sync the record of syncs", &e))?;
    Ok(Opened { log, freed: free.into_iter().map(|segment| Freed { segment, batch }).collect() })
}

impl Found {
    fn nothing(layout: Layout, secret: u64) -> Found {
        Found {
            index: Index::new(layout, secret),
            files: Default::default(),
            segments: Vec::new(),
            batch: 0,
            ordinal: 0,
            synced: 0,
            spares: Vec::new(),
            free: Vec::new(),
            doubtful: Vec::new(),
            unsynced: Vec::new(),
            mark: Mark { batch: 0, secret },
        }
    }
}
