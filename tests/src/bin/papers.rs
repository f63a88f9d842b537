//! Writes what the binary is made of: a CycloneDX bill of materials, and the notices that licences ask for.
//!
//! ```sh
//! cargo run -p driftless-tests --bin papers                  # into target/papers
//! cargo run -p driftless-tests --bin papers -- DIRECTORY
//! ```

#![allow(clippy::print_stdout, reason = "says where it has written what")]

use std::path::{Path, PathBuf};
use std::{env, fs, io};

use driftless_tests::papers::Papers;

fn main() -> io::Result<()> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folder = env::args_os().nth(1).map_or_else(|| workspace.join("target/papers"), PathBuf::from);
    let papers = Papers::of(&workspace, "driftless")?;
    fs::create_dir_all(&folder)?;
    let mut sbom = serde_json::to_string_pretty(&papers.sbom())?;
    sbom.push('\n');
    for (name, text) in [("sbom.json", sbom), ("NOTICES.txt", papers.notices()?)] {
        fs::write(folder.join(name), text)?;
        println!("{}", folder.join(name).display());
    }
    Ok(())
}
