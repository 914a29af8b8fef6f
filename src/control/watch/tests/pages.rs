//! Pages that arrive in pieces, short and long, whole and broken.

use axum::body::Body;
use futures::stream;
use http::{Request, Response};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::ListParams;
use serde_json::{Value, json};

use super::super::page::{Page, page};
use super::MAPS;

/// How an answer ends.
#[derive(Clone, Copy)]
enum Ending {
    Whole,
    Broken,
    Silent,
}

/// A client whose API server answers everything with this text, in pieces of 10,000 bytes.
fn answering(text: &str, ending: Ending) -> Client {
    let pieces: Vec<Vec<u8>> = text.as_bytes().chunks(10_000).map(<[u8]>::to_vec).collect();
    let service = tower::service_fn(move |_: Request<kube::client::Body>| {
        let begin = stream::iter(pieces.clone().into_iter().map(Ok));
        let end: stream::BoxStream<'static, std::io::Result<Vec<u8>>> = match ending {
            Ending::Whole => Box::pin(stream::empty()),
            Ending::Broken => Box::pin(stream::iter([Err(std::io::Error::other("cut"))])),
            Ending::Silent => Box::pin(stream::pending()),
        };
        let body = Body::from_stream(futures::StreamExt::chain(begin, end));
        async { Ok::<_, std::io::Error>(Response::new(body)) }
    });
    Client::new(service, "default")
}

fn map(name: usize, size: usize) -> Value {
    json!({"metadata": {"name": name.to_string(), "namespace": "n"}, "data": {"v": "x".repeat(size)}})
}

fn list(objects: &[Value]) -> Value {
    let metadata = json!({"resourceVersion": "7", "continue": "more"});
    json!({"kind": "ConfigMapList", "metadata": metadata, "items": objects})
}

async fn read(text: &str, ending: Ending) -> kube::Result<(Vec<String>, Page)> {
    let client = answering(text, ending);
    let request = kube::core::Request::new(MAPS);
    let name = |map: ConfigMap| map.metadata.name;
    page(&client, &request, &ListParams::default(), name).await
}

/// So many objects make a short page and a long one.
const LENGTHS: [usize; 2] = [3, 300];

#[tokio::test]
async fn each_object_is_passed_on_in_order() {
    for number in LENGTHS {
        let objects: Vec<Value> = (0..number).map(|n| map(n, 1000)).collect();
        let (names, page) = read(&list(&objects).to_string(), Ending::Whole).await.unwrap();
        assert_eq!(names, (0..number).map(|n| n.to_string()).collect::<Vec<_>>());
        assert_eq!((&*page.version, page.next.as_deref()), ("7", Some("more")));
        assert!(page.malformed.is_empty());
    }
}

#[tokio::test]
async fn one_object_that_cannot_be_read_hides_no_other() {
    for number in LENGTHS {
        let mut objects: Vec<Value> = (0..number).map(|n| map(n, 1000)).collect();
        objects[1]["data"] = json!("no map");
        let (names, page) = read(&list(&objects).to_string(), Ending::Whole).await.unwrap();
        assert_eq!(names.len(), number - 1);
        let malformed = page.malformed;
        assert_eq!(malformed.len(), 1, "{malformed:?}");
        assert!(malformed[0].starts_with("n/1: "), "{malformed:?}");
    }
}

#[tokio::test]
async fn a_broken_page_is_a_broken_connection_and_none_a_list() {
    for number in LENGTHS {
        let objects: Vec<Value> = (0..number).map(|n| map(n, 1000)).collect();
        let text = list(&objects).to_string();
        let page = read(&text[..text.len() - 500], Ending::Broken).await;
        assert!(matches!(page, Err(kube::Error::ReadEvents(_))), "{page:?}");
        // Cut off by a proxy that says nothing.
        let page = read(&text[..text.len() - 500], Ending::Whole).await;
        assert!(matches!(page, Err(kube::Error::SerdeError(_))), "{page:?}");
    }
}

#[tokio::test]
async fn what_is_no_list_is_an_unexpected_answer() {
    let status = json!({"kind": "Status", "metadata": {}, "status": "Success"});
    let no_metadata = json!({"items": []});
    let numbers = json!({"metadata": {}, "items": [3]});
    let html = format!("<html>{}", "x".repeat(1_000_000));
    for text in [&status.to_string(), &no_metadata.to_string(), &numbers.to_string(), &html, ""] {
        let page = read(text, Ending::Whole).await;
        assert!(matches!(page, Err(kube::Error::SerdeError(_))), "{page:?}");
    }
}

/// The runtime of a test waits for all its threads: one that went on would hold up the test.
#[tokio::test]
async fn a_page_that_is_given_up_leaves_no_thread_behind() {
    for number in LENGTHS {
        let objects: Vec<Value> = (0..number).map(|n| map(n, 1000)).collect();
        let text = list(&objects).to_string();
        let silent = read(&text[..text.len() - 500], Ending::Silent);
        let limit = std::time::Duration::from_millis(200);
        assert!(tokio::time::timeout(limit, silent).await.is_err());
    }
}
