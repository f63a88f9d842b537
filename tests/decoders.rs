//! Every decoder of bytes from outside, on its seeds and on damaged copies of them, without a fuzzer: what everybody
//! can run. `.ci/fuzz` goes on where this ends (docs/fuzzing.md).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};

use driftless_proto::client;
use driftless_tests::decoders::mutate::Mutations;
use driftless_tests::decoders::variants::missing;
use driftless_tests::decoders::{DECODERS, Decoder, engine, members, samples, seeds};
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// What a decoder holds is measured for the whole process, so nothing else runs meanwhile.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Damaged copies that all seeds of one decoder are given together.
const MUTATIONS: usize = 4_000;

#[test]
fn no_decoder_panics_or_takes_more_memory_than_it_may() {
    let _alone = alone();
    let mut made = seeds::made();
    for decoder in DECODERS {
        let mut seeds = seeds::read(&seeds::folder(decoder.name)).expect("every decoder has seeds");
        seeds.append(&mut made.remove(decoder.name).unwrap_or_default());
        let seeds: Vec<Vec<u8>> = seeds.into_values().collect();
        assert!(!seeds.is_empty(), "no seeds for {}", decoder.name);
        // What is made once, such as a ring, is not counted.
        (decoder.run)(&seeds[0]);
        seeds.iter().for_each(|seed| check(decoder, seed));
        let each = (MUTATIONS / seeds.len()).max(10);
        for (number, seed) in (0..).zip(&seeds) {
            Mutations::of(seed, &seeds, number).take(each).for_each(|bytes| check(decoder, &bytes));
        }
    }
}

fn check(decoder: &Decoder, bytes: &[u8]) {
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    let outcome = catch_unwind(AssertUnwindSafe(|| (decoder.run)(bytes)));
    let held = MEMORY.peak_usage().saturating_sub(before);
    if outcome.is_err() || held > decoder.memory_for(bytes.len()) {
        let path = std::env::temp_dir().join(format!("driftless-{}-{}", decoder.name, std::process::id()));
        std::fs::write(&path, bytes).expect("a temporary file");
        panic!(
            "{} {} by {} bytes, kept in {}. Replay: .ci/fuzz replay {} {}",
            decoder.name,
            if outcome.is_err() { "panicked".to_owned() } else { format!("was made to hold {held} bytes") },
            bytes.len(),
            path.display(),
            decoder.name,
            path.display(),
        );
    }
}

/// A format that has changed shows here: if that was meant, `cargo run -p driftless-tests --bin seeds` writes them anew.
#[test]
fn the_committed_seeds_are_what_today_s_encoders_write() {
    let _alone = alone();
    for (decoder, made) in seeds::made() {
        let mut committed = seeds::read(&seeds::folder(decoder)).expect("every decoder has seeds");
        committed.retain(|name, _| !seeds::is_found(name));
        if decoder == "certificates" {
            assert!(committed.keys().eq(seeds::certificates().keys()));
        } else if !seeds::PERFORMED.contains(&decoder) {
            assert!(committed == made, "{decoder}: some bytes are other ones than committed");
        }
    }
}

/// A scene that is played again must come to the same: only then do the replies in it fit the requests.
#[test]
fn scenes_play_as_they_were_rehearsed_and_reach_what_they_are_for() {
    let _alone = alone();
    let scenes = seeds::scenes();
    for name in scenes[0].counted().into_keys() {
        assert!(scenes.iter().any(|scene| scene.counted()[name] > 0), "{name}: none");
    }
    for (number, scene) in scenes.into_iter().enumerate() {
        let rehearsed = scene.counted();
        assert_eq!(engine::play(&scene.written()), rehearsed, "scene {number}");
    }
}

#[test]
fn every_folder_of_seeds_has_a_decoder() {
    let _alone = alone();
    let folders = std::fs::read_dir(seeds::folder("")).expect("there are seeds");
    for folder in folders {
        let name = folder.expect("readable").file_name().to_string_lossy().into_owned();
        assert!(Decoder::of_name(&name).is_some(), "nothing is given the seeds of {name}");
    }
}

/// A variant that is new fails here until `samples.rs` has one of it: then it is sent, read, and damaged like the others.
#[test]
fn every_variant_of_every_message_is_among_the_samples() {
    let _alone = alone();
    const NONE: [&str; 0] = [];
    assert_eq!(missing(&samples::client_requests()), NONE);
    assert_eq!(missing(&samples::client_responses()), NONE);
    assert_eq!(missing(&samples::aae_commands()), NONE);
    assert_eq!(missing(&samples::drain_commands()), NONE);
    assert_eq!(missing(&samples::failures()), NONE);
    assert_eq!(missing(&samples::refusals()), NONE);
    assert_eq!(missing(&samples::unknowns()), NONE);
    assert_eq!(missing(&samples::context_errors()), NONE);
    assert_eq!(missing(&samples::quorum_errors()), NONE);
    assert_eq!(missing(&samples::livenesses()), NONE);
    assert_eq!(missing(&samples::peer_requests()), NONE);
    assert_eq!(missing(&samples::peer_replies()), NONE);
    assert_eq!(missing(&samples::purposes()), NONE);
    assert_eq!(missing(&samples::wants()), NONE);
    assert_eq!(missing(&samples::replica_states()), NONE);
    assert_eq!(missing(&samples::exchanges()), NONE);
    assert_eq!(missing(&samples::exchanged()), NONE);
    assert_eq!(missing(&samples::standings()), NONE);
    assert_eq!(missing(&samples::exchange_refusals()), NONE);
    assert_eq!(missing(&members::changes()), NONE);
    assert_eq!(missing(&members::commands()), NONE);
    assert_eq!(missing(&members::answers()), NONE);
    assert_eq!(missing(&members::letters()), NONE);
    let (asks, answers) = samples::asks_and_answers();
    assert_eq!(missing(&asks), NONE);
    assert_eq!(missing(&answers), NONE);
    let buckets = samples::topology().buckets().to_vec();
    assert_eq!(missing(&buckets.iter().map(|bucket| bucket.conflict).collect::<Vec<_>>()), NONE);
    assert_eq!(missing(&buckets.iter().map(|bucket| bucket.durability).collect::<Vec<_>>()), NONE);
}

#[test]
fn a_variant_without_a_sample_is_missed() {
    let _alone = alone();
    assert_eq!(missing::<client::AaeCommand>(&[client::AaeCommand::Pause]), ["Status", "Run", "Resume"]);
}
