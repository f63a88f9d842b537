//! Sessions: values that do not build on what was there, under keys that one writer draws.
//!
//! - The id of a session is drawn, so nobody else has it. That it is new is checked all the same; it is no lock.
//! - Its state is written over, whatever it was: with a blind put each write would be one more sibling.
//! - A form that is filled in is kept apart from that: it builds on what was there, so it is updated.
#![allow(clippy::print_stdout, reason = "an example talks to whoever runs it")]

mod common;

use driftless_client::{CreateError, Json, PutEntry};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Session {
    user: String,
    page: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = common::builder()?.connect().await?;
    let bucket = client.bucket("default");
    let sessions = bucket.typed::<Session>(Json);
    let key = format!("session/{:016x}", rand::random::<u64>());

    let mut session = Session { user: "alice".into(), page: "/".into() };
    sessions.create(&key, &session).await?;
    match sessions.create(&key, &session).await {
        Err(CreateError::Exists { .. }) => println!("the session exists, as far as its replicas know"),
        Ok(_) => println!("the first one was not seen: this is no lock"),
        Err(error) => return Err(error.into()),
    }
    for page in ["/basket", "/checkout"] {
        session.page = page.into();
        let done = sessions.put_replacing(&key, &session).await?;
        println!("at {page}: the key has {} value", done.siblings());
    }
    if let Some(session) = sessions.get(&key).await?.one()? {
        println!("{} is at {}", session.user, session.page);
    }

    // Fields of a form, each under a key of its own, all at once and each with its own result.
    let fields =
        [("name", "Alice"), ("city", "Turin")].map(|(field, value)| PutEntry::new(format!("{key}/{field}"), value));
    for (key, stored) in bucket.multi_put(fields).await {
        println!("{key:?}: {}", stored.map_or_else(|error| error.to_string(), |_| "stored".into()));
    }
    let all = [key.clone(), format!("{key}/name"), format!("{key}/city")];
    let gone = bucket.multi_delete(&all).await.into_iter().filter(|(_, deleted)| deleted.is_ok()).count();
    println!("logged out: {gone} keys are removed");
    client.close().await;
    Ok(())
}
