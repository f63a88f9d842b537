//! The scenarios, in the order in which the page tells them.

mod clock_skew;
mod concurrent_writes;
mod delete_against_write;
mod deleted_comes_back;
mod last_writer_wins;
mod late_retry;
mod overwritten_in_between;
mod partly_failed_write;
mod put_answer_context;
mod read_repair_race;
mod restored_replica;
mod reused_dot;
mod sibling_explosion;
mod sloppy_quorum;
mod slot_counted_twice;
mod stand_in_forgets;
mod two_coordinators;
mod write_racing_a_read;

use super::Scenario;

/// All of them.
pub const ALL: &[&Scenario] = &[
    &sloppy_quorum::SCENARIO,
    &write_racing_a_read::SCENARIO,
    &partly_failed_write::SCENARIO,
    &slot_counted_twice::SCENARIO,
    &concurrent_writes::SCENARIO,
    &put_answer_context::SCENARIO,
    &sibling_explosion::SCENARIO,
    &clock_skew::SCENARIO,
    &last_writer_wins::SCENARIO,
    &delete_against_write::SCENARIO,
    &deleted_comes_back::SCENARIO,
    &read_repair_race::SCENARIO,
    &two_coordinators::SCENARIO,
    &overwritten_in_between::SCENARIO,
    &late_retry::SCENARIO,
    &restored_replica::SCENARIO,
    &reused_dot::SCENARIO,
    &stand_in_forgets::SCENARIO,
];
