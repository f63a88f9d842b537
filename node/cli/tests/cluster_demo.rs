//! The tour holds what it claims.

mod cluster_support;

use cluster_support::{driftless, finish};

#[test]
fn every_check_of_the_demo_holds() {
    let mut command = driftless();
    command.arg("demo");
    let done = finish(command, b"");
    let said = String::from_utf8(done.stdout).expect("is text");
    assert_eq!(done.code, Some(0), "{said}\n{}", done.stderr);
    assert!(said.contains("✓ all 5,287 records are acknowledged"), "{said}");
    assert!(said.contains("✓ both values are there"), "{said}");
    assert!(said.contains(" puts meanwhile were acknowledged, none failed"), "{said}");
    assert!(!said.contains('✗') && !said.contains('\x1b'), "{said}");
}
