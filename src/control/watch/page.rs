//! A page of a list, object by object as it arrives, and what is wrong with those of its objects that
//! cannot be read.
//!
//! Neither the text of a page nor its objects are held as a whole: a tenant decides how large they are. One
//! object with a field out of range must not hide all others. How pages make a list, and what is retried, is
//! the business of `watch` and `reader`.

use std::io::{self, Read};
use std::pin::pin;

use futures::{AsyncBufRead, AsyncBufReadExt};
use kube::Client;
use kube::api::ListParams;
use kube::core::{DeserializeGuard, ListMeta, Request};
use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use crate::control::watch::Watched;
use zen_lead_core::keys::kubernetes;

/// What is read as a whole, in bytes: most pages. To read on another thread takes longer.
const SHORT: usize = 128 * 1024;
/// Pieces of text and objects that wait for each other between the connection and the parser.
const WAITING: usize = 4;

/// What a page says of its list.
#[derive(Debug, Default)]
pub struct Page {
    /// Version of the list.
    pub version: String,
    /// Asks for the next page, where there is one.
    pub next: Option<String>,
    /// What is wrong with each object that cannot be read, whether it was passed on all the same (`decode`)
    /// or skipped.
    pub malformed: Vec<String>,
}

/// Selects the slices that the built-in controller did not write: all that are read to route and to judge.
pub fn not_built_in() -> String {
    format!("{}!={}", kubernetes::SLICE_MANAGED_BY, kubernetes::SLICE_CONTROLLER)
}

/// Asks for one page: what `trim` takes of its objects, and what it says of its list.
///
/// # Errors
/// What the client or the API server says, or that the answer is no list.
pub async fn page<K: Watched, T>(
    client: &Client,
    request: &Request,
    params: &ListParams,
    trim: impl Fn(K) -> Option<T>,
) -> kube::Result<(Vec<T>, Page)> {
    let mut objects = Vec::new();
    let page = read(client, request, params, |object| objects.extend(trim(object))).await?;
    Ok((objects, page))
}

/// Asks for one page, and passes its objects on.
async fn read<K: Watched>(
    client: &Client,
    request: &Request,
    params: &ListParams,
    mut keep: impl FnMut(K),
) -> kube::Result<Page> {
    let request = request.list(params).map_err(kube::Error::BuildRequest)?;
    let mut body = pin!(client.request_stream(request).await?);
    let mut begin = Vec::new();
    while begin.len() <= SHORT {
        let piece = body.fill_buf().await.map_err(kube::Error::ReadEvents)?;
        if piece.is_empty() {
            let text = serde_json::Deserializer::from_slice(&begin);
            let pass_on = &mut |object| {
                keep(object);
                true
            };
            return parse(text, pass_on).map_err(kube::Error::SerdeError);
        }
        let length = piece.len();
        begin.extend_from_slice(piece);
        body.consume_unpin(length);
    }
    long_page(begin, body, keep).await
}

/// A page of which more than the beginning has come. serde_json reads it on a thread that waits for each
/// piece, and that ends as soon as the other end of a channel is dropped.
async fn long_page<K: Watched>(
    begin: Vec<u8>,
    mut body: impl AsyncBufRead + Unpin,
    mut keep: impl FnMut(K),
) -> kube::Result<Page> {
    let (to_parser, pieces) = mpsc::channel(WAITING);
    let (to_us, mut objects) = mpsc::channel::<K>(WAITING);
    let parser = tokio::task::spawn_blocking(move || {
        let text = serde_json::Deserializer::from_reader(Text::new(begin, pieces));
        parse(text, &mut |object| to_us.blocking_send(object).is_ok())
    });
    let fetch = async move {
        loop {
            let piece = body.fill_buf().await?.to_vec();
            let length = piece.len();
            if length == 0 || to_parser.send(piece).await.is_err() {
                return Ok(());
            }
            body.consume_unpin(length);
        }
    };
    let pass_on = async {
        while let Some(object) = objects.recv().await {
            keep(object);
        }
    };
    let (fetched, (), parsed) = tokio::join!(fetch, pass_on, parser);
    fetched.map_err(kube::Error::ReadEvents)?;
    match parsed {
        Ok(page) => page.map_err(kube::Error::SerdeError),
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

/// Takes an object; false where no more are wanted.
type Keep<'a, K> = &'a mut dyn FnMut(K) -> bool;

/// Reads a whole list.
///
/// # Errors
/// Something that is no list at all.
fn parse<'de, K: Watched, R: serde_json::de::Read<'de>>(
    mut text: serde_json::Deserializer<R>,
    keep: Keep<'_, K>,
) -> serde_json::Result<Page> {
    let page = ListReader(keep).deserialize(&mut text)?;
    text.end()?;
    Ok(page)
}

/// The text as it arrives.
struct Text {
    pieces: mpsc::Receiver<Vec<u8>>,
    piece: io::Cursor<Vec<u8>>,
}

impl Text {
    fn new(begin: Vec<u8>, pieces: mpsc::Receiver<Vec<u8>>) -> Self {
        Self { pieces, piece: io::Cursor::new(begin) }
    }
}

impl Read for Text {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.piece.read(into)?;
            if read > 0 || into.is_empty() {
                return Ok(read);
            }
            match self.pieces.blocking_recv() {
                Some(piece) => self.piece = io::Cursor::new(piece),
                None => return Ok(0),
            }
        }
    }
}

/// Reads a list, and passes its objects on.
struct ListReader<'a, K>(Keep<'a, K>);

impl<'de, K: Watched> DeserializeSeed<'de> for ListReader<'_, K> {
    type Value = Page;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Page, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, K: Watched> Visitor<'de> for ListReader<'_, K> {
    type Value = Page;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a list")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Page, A::Error> {
        let mut page = Page::default();
        let (mut metadata, mut items) = (None, None);
        while let Some(key) = map.next_key::<String>()? {
            match &*key {
                "metadata" => metadata = Some(map.next_value::<ListMeta>()?),
                "items" => {
                    let malformed = &mut page.malformed;
                    items = Some(map.next_value_seed(Items { keep: &mut *self.0, malformed })?);
                }
                _ => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        let metadata = metadata.ok_or_else(|| A::Error::missing_field("metadata"))?;
        items.ok_or_else(|| A::Error::missing_field("items"))?;
        page.version = metadata.resource_version.unwrap_or_default();
        page.next = metadata.continue_.filter(|token| !token.is_empty());
        Ok(page)
    }
}

/// Reads the objects of a list.
struct Items<'a, K> {
    keep: Keep<'a, K>,
    malformed: &'a mut Vec<String>,
}

impl<'de, K: Watched> DeserializeSeed<'de> for Items<'_, K> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, K: Watched> Visitor<'de> for Items<'_, K> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the objects of a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(text) = seq.next_element::<Box<RawValue>>()? {
            let object = match object::<K>(text.get()).map_err(A::Error::custom)? {
                Ok(object) => object.trimmed(),
                Err(wrong) => {
                    self.malformed.push(wrong);
                    continue;
                }
            };
            self.malformed.extend(object.unreadable());
            if !(self.keep)(object) {
                return Err(A::Error::custom("nothing asks for it any longer"));
            }
        }
        Ok(())
    }
}

/// Reads an object, or what is wrong with it.
///
/// # Errors
/// Something that is no object at all.
fn object<K: Watched>(text: &str) -> serde_json::Result<Result<K, String>> {
    if let Ok(object) = serde_json::from_str(text) {
        return Ok(Ok(object));
    }
    Ok(serde_json::from_str::<DeserializeGuard<K>>(text)?.0.map_err(|invalid| {
        let name = |part: Option<String>| part.unwrap_or_default();
        let (namespace, object) = (name(invalid.metadata.namespace), name(invalid.metadata.name));
        format!("{namespace}/{object}: {}", invalid.error)
    }))
}
