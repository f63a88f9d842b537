//! Why union alone brings a removed item back, and how to do it right.
//!
//! Two devices share a cart. One removes an item while the other, which has not heard of it, adds another. Both
//! writes are kept as siblings, and somebody has to say what they mean together:
//!
//! ```text
//!                     {bread, milk}
//!          phone: − milk  │  laptop: + pears
//!               {bread}   │   {bread, milk, pears}
//!                     union = {bread, milk, pears}       the milk is back
//! ```
//! A set of items cannot tell "never had milk" from "removed the milk". So the cart remembers removals too: every
//! addition has an id of its own, and a removal names the additions that it has seen. An item is in the cart if one
//! of its additions has not been removed (an observed-remove set). Two such carts merge by the union of both parts,
//! which is now right.
#![allow(clippy::print_stdout, reason = "an example talks to whoever runs it")]

mod common;

use std::collections::BTreeSet;

use driftless_client::{Bucket, Bytes, Postcard, Union};
use serde::{Deserialize, Serialize};

/// A cart that can be merged.
#[derive(Default, Serialize, Deserialize)]
struct Cart {
    /// (item, id of this addition).
    added: BTreeSet<(String, u64)>,
    /// Ids of additions that were removed. They stay as long as the cart.
    removed: BTreeSet<u64>,
}

impl Cart {
    /// Order and repetition do not matter, as with every merge of siblings.
    fn merge(mut self, other: Cart) -> Cart {
        self.added.extend(other.added);
        self.removed.extend(other.removed);
        self
    }

    fn remove(&mut self, item: &str) {
        let seen = self.added.iter().filter(|(name, _)| name == item).map(|(_, id)| *id);
        self.removed.extend(seen);
    }

    fn items(&self) -> BTreeSet<&str> {
        let kept = self.added.iter().filter(|(_, id)| !self.removed.contains(id));
        kept.map(|(item, _)| item.as_str()).collect()
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = common::builder()?.connect().await?;
    let carts = client.bucket("default");
    wrong(&carts).await?;
    right(&carts).await?;
    client.close().await;
    Ok(())
}

async fn wrong(carts: &Bucket) -> Result<(), Box<dyn std::error::Error>> {
    carts.delete("cart/wrong").await?;
    carts.put("cart/wrong", "bread milk").await?;

    // Both read the same cart, then both write.
    let (phone, laptop) = (carts.get("cart/wrong").await?, carts.get("cart/wrong").await?);
    carts.put("cart/wrong", "bread").context(phone.context()).await?;
    carts.put("cart/wrong", "bread milk pears").context(laptop.context()).await?;

    let words =
        |value: &Bytes| std::str::from_utf8(value).map(|text| text.split(' ').map(str::to_owned).collect::<Vec<_>>());
    let cart = carts.get("cart/wrong").resolve(Union::new(words)).await?;
    println!("union of items:       {:?}   the milk is back", cart.value);
    Ok(())
}

async fn right(carts: &Bucket) -> Result<(), Box<dyn std::error::Error>> {
    // Values are carts here, and siblings are merged whenever they are read.
    let carts = carts.typed::<Cart>(Postcard).resolving(Cart::merge);
    carts.typed().delete("cart/right").await?;
    let mut cart = Cart::default();
    cart.added.extend([("bread".to_owned(), rand::random()), ("milk".to_owned(), rand::random())]);
    carts.typed().create("cart/right", &cart).await?;

    let (phone, laptop) = (carts.get("cart/right").await?, carts.get("cart/right").await?);
    let (phone_saw, laptop_saw) = (phone.context().cloned(), laptop.context().cloned());
    let mut without_milk = phone.value.unwrap_or_default();
    without_milk.remove("milk");
    carts.typed().put("cart/right", &without_milk).context(phone_saw).await?;
    let mut with_pears = laptop.value.unwrap_or_default();
    with_pears.added.insert(("pears".to_owned(), rand::random()));
    carts.typed().put("cart/right", &with_pears).context(laptop_saw).await?;

    let cart = carts.get("cart/right").await?.value.unwrap_or_default();
    println!("union of both parts:  {:?}", cart.items());

    // In one step. The id is drawn once, outside: called again, the closure adds the same addition again, which
    // changes nothing. Drawn inside, a second round would add the apples twice.
    let id = rand::random();
    let done = carts
        .update("cart/right", move |cart| {
            let mut cart = cart.unwrap_or_default();
            cart.added.insert(("apples".to_owned(), id));
            cart
        })
        .await?;
    println!("after the update:     {:?}", done.value().map(Cart::items));
    Ok(())
}
