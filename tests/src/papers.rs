//! What the binary is made of: a list for programs (CycloneDX 1.5, JSON) and the notices that licences ask for.
//!
//! ```text
//! cargo metadata ─▶ crates that `driftless` is linked from ─┬─▶ sbom.json       name, version, licence, checksum, who needs whom
//! Cargo.lock ─────▶ their checksums                         └─▶ NOTICES.txt     the same for people, with the licences' texts
//! ```
//! Neither depends on the time or the machine: the same lock file gives the same papers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use serde::Deserialize;
use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_128;

/// Everything that one package is linked from.
pub struct Papers {
    root: Package,
    /// By id, without the root.
    packages: BTreeMap<String, Package>,
    /// Who needs whom, the root included.
    needs: BTreeMap<String, Vec<String>>,
    /// By name and version.
    checksums: BTreeMap<(String, String), String>,
}

/// What cargo says of a package.
#[derive(Clone, Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    repository: Option<String>,
    source: Option<String>,
    manifest_path: PathBuf,
    #[serde(default)]
    authors: Vec<String>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

/// `None` for what is linked; otherwise it is only for building or testing.
#[derive(Deserialize)]
struct Kind {
    kind: Option<String>,
}

#[derive(Deserialize)]
struct LockFile {
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: String,
    checksum: Option<String>,
}

impl Papers {
    /// Asks cargo, in a workspace, what a package is linked from on this kind of machine.
    ///
    /// # Errors
    /// What cargo, or the lock file, said instead.
    pub fn of(workspace: &Path, package: &str) -> io::Result<Papers> {
        let target = run(Command::new("rustc").args(["-vV"]))?;
        let target = String::from_utf8_lossy(&target);
        let target = target.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default().to_owned();
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["metadata", "--format-version", "1", "--locked", "--filter-platform", &target]);
        let metadata: Metadata = serde_json::from_slice(&run(cargo.current_dir(workspace))?)?;
        let lock: LockFile =
            toml::from_str(&fs::read_to_string(workspace.join("Cargo.lock"))?).map_err(io::Error::other)?;
        Papers::from_parts(metadata, lock, package)
    }

    fn from_parts(metadata: Metadata, lock: LockFile, package: &str) -> io::Result<Papers> {
        let mut known: BTreeMap<String, Package> =
            metadata.packages.into_iter().map(|package| (package.id.clone(), package)).collect();
        let ours = known.values().find(|found| found.name == package && found.source.is_none());
        let root = ours.cloned().ok_or_else(|| io::Error::other(format!("there is no package {package:?} here")))?;
        let linked: BTreeMap<String, Vec<String>> = metadata
            .resolve
            .nodes
            .into_iter()
            .map(|node| {
                let linked = node.deps.into_iter().filter(|dep| dep.dep_kinds.iter().any(|kind| kind.kind.is_none()));
                let mut ids: Vec<String> = linked.map(|dep| dep.pkg).collect();
                ids.sort();
                (node.id, ids)
            })
            .collect();
        let (mut needs, mut packages) = (BTreeMap::new(), BTreeMap::new());
        let mut next = vec![root.id.clone()];
        while let Some(id) = next.pop() {
            if needs.contains_key(&id) {
                continue;
            }
            let ids = linked.get(&id).cloned().unwrap_or_default();
            next.extend(ids.iter().cloned());
            needs.insert(id.clone(), ids);
            if let Some(package) = known.remove(&id).filter(|package| package.id != root.id) {
                packages.insert(id, package);
            }
        }
        let checksums =
            lock.package.into_iter().filter_map(|locked| Some(((locked.name, locked.version), locked.checksum?)));
        Ok(Papers { root, packages, needs, checksums: checksums.collect() })
    }

    /// The bill of materials.
    pub fn sbom(&self) -> Value {
        let components: Vec<Value> = self.packages.values().map(|package| self.component(package, "library")).collect();
        let package_of = |id: &String| if *id == self.root.id { Some(&self.root) } else { self.packages.get(id) };
        let dependencies: Vec<Value> = self
            .needs
            .iter()
            .filter_map(|(id, needs)| {
                let needs: BTreeSet<String> = needs.iter().filter_map(package_of).map(Package::purl).collect();
                Some(json!({ "ref": package_of(id)?.purl(), "dependsOn": needs }))
            })
            .collect();
        let content = json!([components, dependencies]).to_string();
        json!({
            "bomFormat": "CycloneDX",
            "specVersion": "1.5",
            "serialNumber": format!("urn:uuid:{}", uuid(xxh3_128(content.as_bytes()))),
            "version": 1,
            "metadata": { "component": self.component(&self.root, "application") },
            "components": components,
            "dependencies": dependencies,
        })
    }

    /// The notices, each text once, under the names of all that came with it.
    ///
    /// # Errors
    /// A package's files cannot be read.
    pub fn notices(&self) -> io::Result<String> {
        let mut text = format!("{} {} is linked from the following packages.\n\n", self.root.name, self.root.version);
        let mut texts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for package in self.packages.values().filter(|package| package.source.is_some()) {
            let name = format!("{} {}", package.name, package.version);
            let (license, repository) = (package.expression(), package.repository.as_deref().unwrap_or("no address"));
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{name}: {license}, {repository}");
            let found = package.texts()?;
            if found.is_empty() {
                let _ = writeln!(text, "    comes without a text of its licence; by {}", package.authors.join(", "));
            }
            for found in found {
                texts.entry(found).or_default().insert(name.clone());
            }
        }
        for (found, names) in texts {
            let names: Vec<String> = names.into_iter().collect();
            let _ = write!(text, "\n{}\n{}\n\n{found}\n", "=".repeat(100), names.join(", "));
        }
        Ok(text)
    }

    fn component(&self, package: &Package, kind: &str) -> Value {
        let mut component = json!({
            "type": kind,
            "bom-ref": package.purl(),
            "name": package.name,
            "version": package.version,
            "purl": package.purl(),
            "licenses": [{ "expression": package.expression() }],
        });
        if let Some(checksum) = self.checksums.get(&(package.name.clone(), package.version.clone())) {
            component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
        }
        if let Some(repository) = &package.repository {
            component["externalReferences"] = json!([{ "type": "vcs", "url": repository }]);
        }
        component
    }
}

impl Package {
    /// The name that all tools know it by.
    fn purl(&self) -> String {
        // A version may have a part for its build.
        format!("pkg:cargo/{}@{}", self.name, self.version.replace('+', "%2B"))
    }

    /// An expression of today's SPDX: a slash was once the word for "or".
    fn expression(&self) -> String {
        let license = self.license.as_deref().unwrap_or("NOASSERTION");
        license.split('/').map(str::trim).collect::<Vec<_>>().join(" OR ")
    }

    /// The texts of licences and notices that come with it.
    fn texts(&self) -> io::Result<Vec<String>> {
        let mut found = BTreeSet::new();
        for entry in fs::read_dir(self.manifest_path.parent().unwrap_or(Path::new(".")))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().to_uppercase();
            let is_text =
                ["LICENSE", "LICENCE", "COPYING", "NOTICE", "UNLICENSE"].iter().any(|begin| name.starts_with(begin));
            if is_text && entry.file_type()?.is_file() {
                let bytes = fs::read(entry.path())?;
                found.insert(String::from_utf8_lossy(&bytes).replace("\r\n", "\n").trim().to_owned());
            }
        }
        Ok(found.into_iter().collect())
    }
}

fn run(command: &mut Command) -> io::Result<Vec<u8>> {
    let done = command.output()?;
    if done.status.success() {
        return Ok(done.stdout);
    }
    let name = command.get_program().to_string_lossy().into_owned();
    Err(io::Error::other(format!("{name}: {}", String::from_utf8_lossy(&done.stderr).trim())))
}

/// One of the kind that is made from content (RFC 9562, version 8).
fn uuid(content: u128) -> String {
    let bits = content & !(0xf << 76) & !(0x3 << 62) | (0x8 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_papers_name_what_is_linked_with_licence_and_checksum_and_nothing_that_only_tests_use() {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let papers = Papers::of(&workspace, "driftless").expect("cargo answers");
        let sbom = papers.sbom();
        assert_eq!(sbom, Papers::of(&workspace, "driftless").expect("cargo answers").sbom(), "reproducible");
        let components = sbom["components"].as_array().expect("a list");
        let names: BTreeSet<&str> = components.iter().filter_map(|component| component["name"].as_str()).collect();
        for linked in ["quinn", "rustls", "foca", "driftless-node", "driftless-ring"] {
            assert!(names.contains(linked), "{linked}");
        }
        for other in ["turmoil", "proptest", "criterion", "tempfile-tests", "driftless-tests", "driftless-testkit"] {
            assert!(!names.contains(other), "{other}");
        }
        let name_of = |component: &Value| component["bom-ref"].as_str().expect("has a name").to_owned();
        let refs: BTreeSet<String> = components.iter().map(name_of).collect();
        assert_eq!(refs.len(), components.len(), "each has a name of its own");
        for component in components {
            let name = component["name"].as_str().expect("has a name");
            let license = component["licenses"][0]["expression"].as_str().expect("has a licence");
            assert!(license != "NOASSERTION" && !license.contains('/'), "{name}: {license}");
            assert!(component["hashes"].is_array() || name.starts_with("driftless"), "{name} has no checksum");
        }
        for dependency in sbom["dependencies"].as_array().expect("a list") {
            for needed in dependency["dependsOn"].as_array().expect("a list") {
                assert!(
                    needed.as_str().is_some_and(|needed| refs.contains(needed)),
                    "{needed} is needed and not listed"
                );
            }
        }
        let notices = papers.notices().expect("sources are there");
        assert!(notices.contains("Mozilla Public License") && notices.contains("Permission is hereby granted"));
    }

    #[test]
    fn a_serial_number_is_a_uuid() {
        assert_eq!(uuid(0), "00000000-0000-8000-8000-000000000000");
        assert_eq!(uuid(u128::MAX), "ffffffff-ffff-8fff-bfff-ffffffffffff");
    }
}
