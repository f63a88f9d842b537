//! A node's own disk: an ext4 file system in a sparse file, mounted through a loop device.
//!
//! What the file holds is what the disk holds; what the mounted file system still has in memory is not in it. So a copy
//! of the file is the disk after a power cut. The file system is told to leave its own commits for five minutes, and
//! the kernel writes back pages by itself after thirty seconds: until then only what a program has synced is there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system in a file, mounted until dropped.
#[derive(Debug)]
pub(crate) struct Disk {
    image: PathBuf,
    mount: PathBuf,
}

/// What a power cut leaves of a disk.
#[derive(Debug)]
pub(crate) struct Remains(PathBuf);

impl Disk {
    /// Makes and mounts an empty one.
    pub(crate) fn create(image: &Path, mount: &Path, bytes: u64) -> io::Result<Disk> {
        File::create(image)?.set_len(bytes)?;
        // Nothing is left for the kernel to initialise later, so that an idle disk does not change.
        let lazy = "lazy_itable_init=0,lazy_journal_init=0";
        tool(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0", "-E", lazy]).arg(image))?;
        fs::create_dir_all(mount)?;
        let disk = Disk { image: image.into(), mount: mount.into() };
        disk.mount()?;
        Ok(disk)
    }

    /// What the machine lacks for it, if it lacks something.
    pub(crate) fn missing() -> Option<String> {
        let tried = tempfile::tempdir()
            .and_then(|dir| Disk::create(&dir.path().join("image"), &dir.path().join("mount"), 16 << 20).map(drop));
        tried.err().map(|error| format!("no file system can be mounted from a file: {error}"))
    }

    /// What would be found on it if the power went now. Whoever writes to it must have been stopped.
    pub(crate) fn copy(&self) -> io::Result<Remains> {
        let to = self.image.with_extension("cut");
        for _ in 0..COPIES_MAX {
            copy_sparse(&self.image, &to)?;
            // The kernel may have written meanwhile. If both are equal, there was a moment between the two readings at
            // which the disk was this.
            if is_equal(&self.image, &to)? {
                return Ok(Remains(to));
            }
        }
        Err(io::Error::other("the disk does not stand still"))
    }

    /// The power comes back: what remained is mounted, and the file system's journal replayed.
    pub(crate) fn restore(&self, remains: &Remains) -> io::Result<()> {
        self.unmount()?;
        fs::rename(&remains.0, &self.image)?;
        self.mount()
    }

    /// Bytes that can still be written, and all bytes.
    pub(crate) fn space(&self) -> io::Result<(u64, u64)> {
        let found = rustix::fs::statvfs(&self.mount)?;
        Ok((found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize))
    }

    /// Takes all room but so many bytes.
    pub(crate) fn fill(&self, leave: u64) -> io::Result<()> {
        let file = File::create(self.mount.join(BALLAST))?;
        let mut chunk = self.space()?.0.saturating_sub(leave);
        let mut taken = 0;
        // The file system needs a little for its own books, so the last bytes are come near to in smaller steps.
        while chunk >= 4096 && self.space()?.0 > leave {
            match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), taken, chunk) {
                Ok(()) => taken += chunk,
                Err(rustix::io::Errno::NOSPC) => {}
                Err(error) => return Err(error.into()),
            }
            chunk /= 2;
        }
        Ok(())
    }

    /// Gives it back.
    pub(crate) fn relieve(&self) -> io::Result<()> {
        match fs::remove_file(self.mount.join(BALLAST)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    fn mount(&self) -> io::Result<()> {
        // The device goes with the mount.
        tool(Command::new("mount").args(["-o", "loop,commit=300"]).arg(&self.image).arg(&self.mount))
    }

    fn unmount(&self) -> io::Result<()> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            match tool(Command::new("umount").arg(&self.mount)) {
                // A process that has just been killed may hold it a moment longer.
                Err(_) if attempts < 50 => std::thread::sleep(std::time::Duration::from_millis(100)),
                done => return done,
            }
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.unmount();
    }
}

/// Runs a tool that says nothing unless it fails.
fn tool(command: &mut Command) -> io::Result<()> {
    let done = command.output()?;
    if done.status.success() {
        return Ok(());
    }
    let name = command.get_program().to_string_lossy().into_owned();
    Err(io::Error::other(format!("{name}: {}", String::from_utf8_lossy(&done.stderr).trim())))
}

/// Copies what is there, and leaves holes where there is nothing.
fn copy_sparse(from: &Path, to: &Path) -> io::Result<()> {
    let from = File::open(from)?;
    let mut to = OpenOptions::new().write(true).create(true).truncate(true).open(to)?;
    to.set_len(from.metadata()?.len())?;
    for extent in extents(&from)? {
        to.seek(SeekFrom::Start(extent.start))?;
        let mut part = &from;
        part.seek(SeekFrom::Start(extent.start))?;
        io::copy(&mut part.take(extent.end - extent.start), &mut to)?;
    }
    Ok(())
}

/// Whether a file is its copy still: where one has nothing, the other has zeros.
fn is_equal(one: &Path, copy: &Path) -> io::Result<bool> {
    let (mut one, mut copy) = (File::open(one)?, File::open(copy)?);
    if one.metadata()?.len() != copy.metadata()?.len() {
        return Ok(false);
    }
    let (mut a, mut b) = (vec![0; BLOCK], vec![0; BLOCK]);
    // What the copy has and the other has no more would be a hole punched meanwhile.
    for extent in extents(&one)?.into_iter().chain(extents(&copy)?) {
        one.seek(SeekFrom::Start(extent.start))?;
        copy.seek(SeekFrom::Start(extent.start))?;
        let mut left = (extent.end - extent.start) as usize;
        while left > 0 {
            let length = left.min(BLOCK);
            one.read_exact(&mut a[..length])?;
            copy.read_exact(&mut b[..length])?;
            if a[..length] != b[..length] {
                return Ok(false);
            }
            left -= length;
        }
    }
    Ok(true)
}

/// Where a file has data.
fn extents(file: &File) -> io::Result<Vec<Range<u64>>> {
    let (mut found, mut at, length) = (Vec::new(), 0, file.metadata()?.len());
    while at < length {
        let start = match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(at)) {
            Err(rustix::io::Errno::NXIO) => break,
            start => start?,
        };
        let end = rustix::fs::seek(file, rustix::fs::SeekFrom::Hole(start))?;
        found.push(start..end);
        at = end;
    }
    Ok(found)
}
const BALLAST: &str = "ballast";
const BLOCK: usize = 1 << 20;

/// Half a second each; the kernel's own writing comes in bursts some seconds apart.
const COPIES_MAX: usize = 40;

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_copy_is_equal_holes_included() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (one, other) = (dir.path().join("one"), dir.path().join("other"));
        let mut file = File::create(&one).expect("made");
        file.seek(SeekFrom::Start(3 << 20)).expect("moves");
        file.write_all(b"data").expect("written");
        file.set_len((7 << 20) + 5).expect("grows");
        copy_sparse(&one, &other).expect("copies");
        assert!(is_equal(&one, &other).expect("compares"));
        file.write_all(b"more").expect("written");
        assert!(!is_equal(&one, &other).expect("compares"));
    }
}
