//! Writes the seeds of all decoders anew: to be run when a format changes on purpose, and committed with that change.
//!
//! ```sh
//! cargo run -p driftless-tests --bin seeds
//! ```
//! What was found by fuzzing stays. Certificates are made only where there are none, since their keys are random.

use std::fs;
use std::io;
use std::path::Path;

use driftless_tests::decoders::seeds;

fn main() -> io::Result<()> {
    for (decoder, made) in seeds::made() {
        let folder = seeds::folder(decoder);
        fs::create_dir_all(&folder)?;
        if decoder == "certificates" {
            if seeds::read(&folder)?.is_empty() {
                write(&folder, &seeds::certificates())?;
            }
            continue;
        }
        for old in seeds::read(&folder)?.keys().filter(|name| !seeds::is_found(name) && !made.contains_key(*name)) {
            fs::remove_file(folder.join(old))?;
        }
        write(&folder, &made)?;
    }
    Ok(())
}

fn write(folder: &Path, seeds: &seeds::Seeds) -> io::Result<()> {
    seeds.iter().try_for_each(|(name, bytes)| fs::write(folder.join(name), bytes))
}
