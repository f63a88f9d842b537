//! The anomaly gallery: what may surprise a reader though w + r > n, as scenarios that run on the real engines.
//!
//! Each file in `scenarios` is a script that reads like the story it tells, on a [`World`] that does what it is told: hold
//! this message, lose that one, set a disk back. What happens is recorded, drawn ([`text`], [`mermaid`]), and stands with
//! its explanation in `docs/anomalies.md` ([`page`]); what a scenario claims is checked whenever it runs.

pub mod ask;
pub mod mermaid;
pub mod page;
mod scenarios;
pub mod story;
pub mod text;
pub mod words;
pub mod world;

use driftless_node::planted::Bug;
use serde_json::{Value, json};

use story::Story;
use world::{Setting, World};

pub use scenarios::ALL;

/// One anomaly.
#[derive(Debug)]
pub struct Scenario {
    /// Its name on command lines.
    pub name: &'static str,
    /// Its name for people.
    pub title: &'static str,
    /// What happens, in a few sentences.
    pub story: &'static str,
    /// What the cluster is like.
    pub setting: Setting,
    /// What happens, step by step.
    pub play: fn(&mut World),
    /// What sloppy requests get, in a few words.
    pub sloppy: &'static str,
    /// What strict requests get, in a few words.
    pub strict: &'static str,
    /// What to do about it, in a few words.
    pub remedy: &'static str,
    /// What Driftless answers, and why.
    pub answer: &'static str,
    /// What other systems do.
    pub others: &'static str,
    /// Where that can be read: title and address.
    pub sources: &'static [(&'static str, &'static str)],
    /// What the reader should do about it.
    pub advice: &'static str,
    /// Mistakes in the engines that break the scenario's claims.
    pub broken_by: &'static [Bug],
}

impl Scenario {
    /// The scenario with this name.
    pub fn of_name(name: &str) -> Option<&'static Scenario> {
        ALL.iter().copied().find(|scenario| scenario.name == name)
    }

    /// Lets it happen.
    pub fn run(&self) -> Story {
        self.run_with(None)
    }

    /// Lets it happen to engines that make a mistake.
    pub fn run_with(&self, bug: Option<Bug>) -> Story {
        let mut world = World::new(self.setting, bug);
        (self.play)(&mut world);
        world.finish()
    }

    /// For programs: what is known of it, and what happened.
    pub fn to_json(&self, story: &Story) -> Value {
        let sources: Vec<Value> =
            self.sources.iter().map(|(title, url)| json!({ "title": title, "url": url })).collect();
        let mut json = story.to_json();
        let about = json!({
            "name": self.name, "title": self.title, "story": self.story, "answer": self.answer, "others": self.others,
            "sources": sources, "advice": self.advice, "sloppy": self.sloppy, "strict": self.strict, "remedy": self.remedy,
            "holds": story.holds(),
        });
        if let (Value::Object(json), Value::Object(about)) = (&mut json, about) {
            json.extend(about);
        }
        json
    }
}
