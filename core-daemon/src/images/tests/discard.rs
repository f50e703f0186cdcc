//! What a pull that failed for good throws away, and what it must leave to others.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::node::Node;
use crate::domain::Digest;
use crate::images::fetch::Fetcher;
use crate::images::flights::Flights;
use crate::images::manifest::Descriptor;
use crate::images::progress::{Reporter, key};

fn layer() -> Descriptor {
    Descriptor {
        media_type: "application/vnd.oci.image.layer.v1.tar".into(),
        digest: Digest::of(b"never all of it"),
        size: 100,
        annotations: Default::default(),
        platform: None,
    }
}

/// An ingest with a few bytes, whose writer is held for `held` and then let go.
async fn begun(node: &Node, held: Duration) -> tokio::task::JoinHandle<()> {
    let layer = layer();
    let mut writer = node.content.writer(&node.scope, &key(&layer), Some(&layer.digest), layer.size).await.unwrap();
    writer.write(Bytes::from_static(b"some")).await.unwrap();
    tokio::spawn(async move {
        tokio::time::sleep(held).await;
        drop(writer);
    })
}

async fn discard(node: &Node, flights: &Flights<(crate::domain::Namespace, Digest)>) -> Vec<String> {
    let reporter = Reporter::new(Arc::new(|_| {}), "test");
    let fetcher = Fetcher { content: &node.content, scope: &node.scope, registry: None, flights, reporter: &reporter };
    fetcher.discard([layer()].iter()).await;
    node.query("SELECT ref FROM ingests").await
}

#[tokio::test]
async fn a_writer_that_is_just_letting_go_is_waited_for() {
    let node = Node::new().await;
    let writer = begun(&node, Duration::from_millis(200)).await;
    assert!(discard(&node, &Flights::default()).await.is_empty());
    writer.await.unwrap();
}

#[tokio::test]
async fn what_another_client_writes_is_left_to_it() {
    let node = Node::new().await;
    let writer = begun(&node, Duration::from_secs(3600)).await;
    assert_eq!(discard(&node, &Flights::default()).await, [key(&layer())]);
    writer.abort();
}

#[tokio::test]
async fn what_another_pull_has_taken_up_is_left_to_it() {
    let node = Node::new().await;
    begun(&node, Duration::ZERO).await.await.unwrap();
    let flights = Flights::default();
    let _theirs = flights.board((node.scope.ns.clone(), layer().digest)).await;
    assert_eq!(discard(&node, &flights).await, [key(&layer())]);
}
