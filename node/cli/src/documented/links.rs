//! Whether the links of the pages lead somewhere: to a file of the repository, and to a heading that it has.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

use super::markdown::{page, repository};
use super::pages;

/// What of a page leads somewhere, and where others can lead to in it.
#[derive(Default, Debug, PartialEq, Eq)]
struct Read {
    links: Vec<String>,
    places: BTreeSet<String>,
}

fn read(text: &str) -> Read {
    let (mut read, mut heading, mut taken) = (Read::default(), None::<String>, BTreeMap::<String, u32>::new());
    for event in Parser::new_ext(text, Options::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                read.links.push(dest_url.into_string());
            }
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::End(TagEnd::Heading(_)) => {
                let place = place_of(&heading.take().unwrap_or_default());
                let before = taken.entry(place.clone()).or_default();
                read.places.insert(if *before == 0 { place } else { format!("{place}-{before}") });
                *before += 1;
            }
            Event::Text(text) | Event::Code(text) => {
                if let Some(heading) = &mut heading {
                    heading.push_str(&text);
                }
            }
            _ => {}
        }
    }
    read
}

/// As mdBook and those who show repositories make it of a heading.
fn place_of(heading: &str) -> String {
    let kept = heading.trim().chars().filter_map(|c| match c {
        c if c.is_alphanumeric() || matches!(c, '_' | '-') => Some(c.to_lowercase().next().unwrap_or(c)),
        c if c.is_whitespace() => Some('-'),
        _ => None,
    });
    kept.collect()
}

/// A path in the repository, without going up and down in it; `None` if it leads out of it.
fn straight(path: &Path) -> Option<PathBuf> {
    let mut straight = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => straight.pop().then_some(())?,
            Component::Normal(part) => straight.push(part),
            _ => {}
        }
    }
    Some(straight)
}

/// What is wrong with a link of a page, if anything is.
fn wrong(of: &str, link: &str, all: &BTreeMap<String, Read>) -> Option<String> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let (path, place) = link.split_once('#').map_or((link, None), |(path, place)| (path, Some(place)));
    let folder = Path::new(of).parent().unwrap_or(Path::new(""));
    let target = if path.is_empty() { Some(PathBuf::from(of)) } else { straight(&folder.join(path)) };
    let Some(target) = target.filter(|target| repository().join(target).exists()) else {
        return Some(format!("{of}: there is no {link}"));
    };
    match (place, all.get(target.to_str()?)) {
        (Some(place), Some(read)) if !read.places.contains(place) => Some(format!("{of}: {link} is no heading there")),
        (Some(_), None) => Some(format!("{of}: {link} is no page, and has no headings")),
        _ => None,
    }
}

#[test]
fn every_link_leads_to_a_file_and_a_heading_that_is_there() {
    let all: BTreeMap<String, Read> =
        pages().into_iter().chain(["CHANGELOG.md".to_owned()]).map(|name| (name.clone(), read(&page(&name)))).collect();
    let links = || all.iter().flat_map(|(of, read)| read.links.iter().map(move |link| (of, link)));
    let wrong: Vec<String> = links().filter_map(|(of, link)| wrong(of, link, &all)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(links().count() > 500, "only {} were found", links().count());
}

/// Where a file of the repository is put by the Debian package, beside the pages.
fn packaged() -> BTreeSet<PathBuf> {
    let manifest: toml::Table = toml::from_str(&page("node/cli/Cargo.toml")).expect("is TOML");
    let assets = manifest["package"]["metadata"]["deb"]["assets"].as_array().expect("a list");
    let text = |value: &toml::Value| value.as_str().expect("is text").to_owned();
    let mut all = BTreeSet::new();
    for (source, target) in assets.iter().map(|asset| (text(&asset[0]), text(&asset[1]))) {
        let Some(target) = target.strip_prefix("usr/share/doc/driftless/") else { continue };
        let Some(source) = straight(&Path::new("node/cli").join(&source)).filter(|_| !source.starts_with("target/"))
        else {
            continue;
        };
        let (folder, name) = (source.parent().expect("has one"), source.file_name().expect("has one"));
        let pattern = name.to_str().expect("is text");
        let fits = |name: &str| pattern.strip_prefix('*').map_or(name == pattern, |ending| name.ends_with(ending));
        for entry in std::fs::read_dir(repository().join(folder)).expect("is there") {
            let name = entry.expect("an entry").file_name().into_string().expect("is text");
            if fits(&name) {
                all.insert(Path::new(target).join(name));
            }
        }
    }
    all
}

#[test]
fn the_package_has_what_its_pages_lead_to() {
    let packaged = packaged();
    assert!(pages().iter().all(|name| packaged.contains(Path::new(name))), "{packaged:?}");
    // But for the order of the pages, which is for mdBook alone.
    let is_read = |file: &&PathBuf| !file.ends_with("SUMMARY.md");
    for file in packaged.iter().filter(is_read).filter(|file| file.extension().is_some_and(|ending| ending == "md")) {
        let name = file.to_str().expect("is text");
        for link in read(&page(name)).links.iter().filter(|link| !link.contains("://") && !link.starts_with('#')) {
            let path = link.split('#').next().unwrap_or_default();
            let target = straight(&file.parent().expect("has one").join(path)).expect("stays in the repository");
            let is_there = packaged.iter().any(|file| file.starts_with(&target));
            assert!(is_there, "{name} leads to {link}, which is not in the package");
        }
    }
}

#[test]
fn links_and_headings_are_found_where_they_are_and_what_is_wrong_is_said() {
    let text = "# One `two` — three?\n\n[a](b.md#c), `[no](x.md)` ![i](i.png)\n\n## Same\n## Same\n\n| [t](t.md) |\n|---|\n\n```\n# no\n```\n";
    let found = read(text);
    assert_eq!(found.links, ["b.md#c", "i.png", "t.md"]);
    assert_eq!(found.places.iter().collect::<Vec<_>>(), ["one-two--three", "same", "same-1"]);
    let all = BTreeMap::from([("docs/index.md".to_owned(), found)]);
    let said = |link| wrong("docs/index.md", link, &all);
    assert_eq!(said("#same-1"), None);
    assert_eq!(said("../LICENSE"), None);
    assert_eq!(said("https://example.org/x#y"), None);
    assert_eq!(said("#other").as_deref(), Some("docs/index.md: #other is no heading there"));
    assert_eq!(said("nowhere.md").as_deref(), Some("docs/index.md: there is no nowhere.md"));
    assert_eq!(said("../../out").as_deref(), Some("docs/index.md: there is no ../../out"));
    assert_eq!(said("../LICENSE#x").as_deref(), Some("docs/index.md: ../LICENSE#x is no page, and has no headings"));
}
