//! A bucket whose values are of one type: encoded when they are written, decoded when they are read.
//!
//! ```text
//! TypedBucket       siblings are a Vec<T>       get, multi_get, put, create, put_replacing, delete, update, try_update
//! ResolvingBucket   siblings are merged to one  get, update, try_update
//! ```
//! The requests are those of [`Bucket`]; where only what goes in has a type, so are their builders.

mod get;
mod resolving;
mod update;

use std::marker::PhantomData;
use std::sync::Arc;

use driftless_proto::Key;

use crate::answer::Read;
use crate::bucket::Bucket;
use crate::codec::{Codec, DecodeError, encode};
use crate::create::Create;
use crate::delete::Delete;
use crate::into_bytes::IntoBytes;
use crate::multi::PutEntry;
use crate::options::Profile;
use crate::put::Put;
use crate::replace::PutReplacing;

pub use get::{TypedGet, TypedGetResolved, TypedMultiGet, TypedRead};
pub use resolving::ResolvingBucket;
pub use update::{TypedTryUpdate, TypedUpdate};

/// A bucket whose values are of type `T`. Made by [`Bucket::typed`]; cheap to clone.
///
/// ```no_run
/// use driftless_client::{Client, Json};
///
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Profile {
///     name: String,
///     visits: u32,
/// }
///
/// # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
/// let profiles = client.bucket("profiles").typed::<Profile>(Json);
/// profiles.create("alice", &Profile { name: "Alice".into(), visits: 0 }).await?;
///
/// let read = profiles.get("alice").await?;
/// if let Some(profile) = read.one()? {
///     println!("{} was here {} times", profile.name, profile.visits);
/// }
///
/// // Siblings are decoded too; what they mean together is the application's.
/// profiles
///     .update("alice", |siblings: Vec<Profile>| siblings.into_iter().max_by_key(|profile| profile.visits))
///     .await?;
/// # Ok(())
/// # }
/// ```
///
/// A sibling that cannot be decoded makes the whole read fail ([`GetError::Decode`](crate::GetError::Decode)), and so an update:
/// leaving it out would mean to overwrite it. [`bucket`](TypedBucket::bucket) still reads its bytes.
pub struct TypedBucket<T> {
    bucket: Bucket,
    codec: Arc<dyn Codec<T>>,
    /// Values are made here, and owned by nobody here.
    values: PhantomData<fn() -> T>,
}

impl Bucket {
    /// The same bucket for values of one type: [`Json`](crate::Json), [`Postcard`](crate::Postcard), or a [`Codec`] of your
    /// own says how they are written. Nothing in the cluster knows of it, or keeps others from writing something else.
    pub fn typed<T: 'static>(&self, codec: impl Codec<T> + 'static) -> TypedBucket<T> {
        TypedBucket { bucket: self.clone(), codec: Arc::new(codec), values: PhantomData }
    }
}

impl<T: 'static> TypedBucket<T> {
    /// The bucket itself, whose values are bytes.
    pub fn bucket(&self) -> &Bucket {
        &self.bucket
    }

    /// The bucket's name.
    pub fn name(&self) -> &str {
        self.bucket.name()
    }

    /// The same bucket with other defaults for its requests.
    #[must_use = "this gives another handle and leaves this one as it is"]
    pub fn with_profile(&self, profile: &Profile) -> TypedBucket<T> {
        TypedBucket { bucket: self.bucket.with_profile(profile), ..self.clone() }
    }

    /// Reads a key, as [`Bucket::get`] does.
    pub fn get(&self, key: impl IntoBytes) -> TypedGet<T> {
        TypedGet { get: self.bucket.get(key), codec: Arc::clone(&self.codec) }
    }

    /// Reads many keys, as [`Bucket::multi_get`] does.
    pub fn multi_get<K: IntoBytes>(&self, keys: impl IntoIterator<Item = K>) -> TypedMultiGet<T> {
        TypedMultiGet { get: self.bucket.multi_get(keys), codec: Arc::clone(&self.codec) }
    }

    /// One of many values to write: for [`multi_put`](Bucket::multi_put) of the [`bucket`](TypedBucket::bucket) itself, blind
    /// unless it is given a context. That it cannot be encoded is its result there.
    pub fn entry(&self, key: impl IntoBytes, value: &T) -> PutEntry {
        PutEntry::encoded(key, encode(&*self.codec, value))
    }

    /// What a read of bytes found, decoded: one that an error holds, for example.
    ///
    /// # Errors
    /// [`DecodeError`] if a sibling is no value of this type; nothing of the others is given then.
    pub fn decode(&self, key: &Key, read: Read) -> Result<TypedRead<T>, DecodeError> {
        TypedRead::new(&*self.codec, key, read)
    }

    /// Writes a value, as [`Bucket::put`] does: blind, unless it is given a context.
    pub fn put(&self, key: impl IntoBytes, value: &T) -> Put {
        self.bucket.put_encoded(key, encode(&*self.codec, value))
    }

    /// Writes a value if there is none as far as r replicas know. [`Bucket::create`] tells what that promises, and what not.
    pub fn create(&self, key: impl IntoBytes, value: &T) -> Create {
        self.bucket.create_encoded(key, encode(&*self.codec, value))
    }

    /// Writes a value over what is there without looking at it, as [`Bucket::put_replacing`] does, with its danger.
    pub fn put_replacing(&self, key: impl IntoBytes, value: &T) -> PutReplacing {
        self.bucket.put_replacing_encoded(key, encode(&*self.codec, value))
    }

    /// Removes a key, as [`Bucket::delete`] does.
    pub fn delete(&self, key: impl IntoBytes) -> Delete {
        self.bucket.delete(key)
    }

    /// The same bucket, of which siblings are made one value by `merge` whenever they are read.
    ///
    /// Clients merge at different times, and what they write back may be merged again, in another order. So `merge` must be
    /// commutative, associative and idempotent: a union, a maximum, or what is made of such parts. **What it leaves out is gone**
    /// with the next update. The example `shopping_cart` has such a type.
    pub fn resolving(&self, merge: impl Fn(T, T) -> T + Send + Sync + 'static) -> ResolvingBucket<T>
    where
        T: Send,
    {
        ResolvingBucket::new(self.clone(), Arc::new(merge))
    }
}

impl<T> Clone for TypedBucket<T> {
    fn clone(&self) -> TypedBucket<T> {
        TypedBucket { bucket: self.bucket.clone(), codec: Arc::clone(&self.codec), values: PhantomData }
    }
}

impl<T> std::fmt::Debug for TypedBucket<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let values = std::any::type_name::<T>();
        f.debug_struct("TypedBucket")
            .field("name", &self.bucket.name())
            .field("values", &values)
            .finish_non_exhaustive()
    }
}
