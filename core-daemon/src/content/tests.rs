//! The store on a real disk and a real database.

use bytes::Bytes;
use shared_proto::Code;

use super::*;
use crate::testing::{Node, map, scope};

const HELLO: &[u8] = b"hello world";

async fn start(node: &Node, name: &str, total: u64) -> Writer {
    node.content.writer(&node.scope, name, Some(&Digest::of(HELLO)), total).await.unwrap()
}

fn code(e: ContentError) -> Code {
    shared_proto::Error::from(e).code
}

async fn read(node: &Node, of: &Scope, digest: &Digest) -> Vec<u8> {
    use std::io::Read as _;
    let mut blob = node.content.open_blob(of, digest).await.unwrap();
    let mut bytes = Vec::new();
    blob.file.read_to_end(&mut bytes).unwrap();
    assert_eq!(blob.size, bytes.len() as u64);
    bytes
}

#[tokio::test]
async fn a_cut_ingest_goes_on_behind_its_last_byte() {
    let node = Node::new().await;
    let mut writer = start(&node, "r", 11).await;
    let begun = writer.started_at();
    assert_eq!(writer.digest(), Digest::of(b""));
    writer.write(Bytes::from_static(b"hello ")).await.unwrap();
    drop(writer);

    // Also in a process that knows nothing but disk and database.
    let store = Store::open(&node.dir.path().join("content"), node.db.clone()).unwrap();
    let sweep = store.recover().await.unwrap();
    assert_eq!((sweep.blobs, sweep.ingests), (0, 0));
    let mut writer = store.writer(&node.scope, "r", None, 0).await.unwrap();
    assert_eq!((writer.offset(), writer.digest(), writer.total()), (6, Digest::of(b"hello "), 11));
    assert_eq!(writer.started_at(), begun);
    writer.write(Bytes::from_static(b"world")).await.unwrap();
    let labels = map(&[("k", "v"), ("empty", "")]);
    let digest = writer.commit(Some(11), Some(&Digest::of(HELLO)), labels).await.unwrap();
    assert_eq!(read(&node, &node.scope, &digest).await, HELLO);
    assert_eq!(node.content.info(&node.scope, &digest).await.unwrap().labels, map(&[("k", "v")]));
    assert_eq!((node.ingest_dirs(), node.content.statuses(&node.scope).await.unwrap().len()), (0, 0));
}

#[tokio::test]
async fn one_writer_a_ref_and_namespace() {
    let node = Node::new().await;
    let writer = start(&node, "r", 11).await;
    let second = node.content.writer(&node.scope, "r", None, 0).await.map(drop).unwrap_err();
    assert_eq!(second.to_string(), "ref r locked");
    assert_eq!(code(second), Code::Unavailable);
    drop(node.content.writer(&scope("other"), "r", None, 0).await.unwrap());
    drop(writer);
    drop(start(&node, "r", 11).await);
}

#[tokio::test]
async fn a_wrong_commit_keeps_the_bytes() {
    let node = Node::new().await;
    let mut writer = start(&node, "r", 0).await;
    writer.write(Bytes::from_static(b"hello")).await.unwrap();
    let e = writer.commit(Some(11), None, Labels::new()).await.unwrap_err();
    assert!(matches!(e, ContentError::WrongSize { expected: 11, found: 5, .. }), "{e}");
    let writer = start(&node, "r", 0).await;
    let e = writer.commit(None, Some(&Digest::of(HELLO)), Labels::new()).await.unwrap_err();
    assert_eq!(code(e), Code::FailedPrecondition);
    assert_eq!(node.content.status(&node.scope, "r").await.unwrap().offset, 5);

    // Right after all, as what it is.
    let writer = start(&node, "r", 0).await;
    assert_eq!(writer.commit(None, None, Labels::new()).await.unwrap(), Digest::of(b"hello"));
}

#[tokio::test]
async fn another_size_starts_again() {
    let node = Node::new().await;
    let mut writer = start(&node, "r", 11).await;
    writer.write(Bytes::from_static(b"hello ")).await.unwrap();
    drop(writer);
    let writer = start(&node, "r", 12).await;
    assert_eq!((writer.offset(), writer.total()), (0, 12));
    // The old bytes belong to nobody.
    assert_eq!((node.ingest_dirs(), node.content.sweep().await.unwrap().ingests), (2, 1));
}

#[tokio::test]
async fn what_is_there_is_leased_and_its_ingest_dropped() {
    let node = Node::new().await;
    let early = start(&node, "early", 0).await;
    drop(early);
    let digest = node.put(HELLO, &[]).await;
    let leased = node.lease("l", &[]).await;
    let opened = node.content.writer(&leased, "early", Some(&digest), 0).await.map(drop);
    assert!(matches!(opened, Err(ContentError::Exists(found)) if found == digest));
    assert_eq!((node.ingest_dirs(), node.content.statuses(&node.scope).await.unwrap().len()), (0, 0));

    // Found out at the end only.
    let mut late = node.content.writer(&leased, "late", None, 0).await.unwrap();
    late.write(Bytes::from_static(HELLO)).await.unwrap();
    assert!(matches!(late.commit(None, None, Labels::new()).await, Err(ContentError::Exists(_))));
    node.gc.collect().await.unwrap();
    assert_eq!(read(&node, &node.scope, &digest).await, HELLO);

    let unknown = Scope { lease: Some(crate::domain::LeaseId::parse("no-such").unwrap()), ..node.scope.clone() };
    let e = node.content.writer(&unknown, "x", None, 0).await.map(drop).unwrap_err();
    assert_eq!(code(e), Code::NotFound);
}

#[tokio::test]
async fn a_namespace_sees_its_own_and_adopts_by_digest() {
    let node = Node::new().await;
    let (other, digest) = (scope("other"), node.put(HELLO, &[("mine", "1")]).await);
    assert!(matches!(node.content.open_blob(&other, &digest).await.map(drop), Err(ContentError::NotFound(_))));

    let writer = node.content.writer(&other, "r", Some(&digest), 11).await.unwrap();
    assert_eq!((writer.offset(), writer.total(), writer.digest()), (11, 11, digest.clone()));
    assert_eq!(writer.commit(Some(11), Some(&digest), Labels::new()).await.unwrap(), digest);
    assert!(node.content.info(&other, &digest).await.unwrap().labels.is_empty());

    // The bytes go with the last namespace.
    node.content.delete(&node.scope, &digest).await.unwrap();
    assert_eq!(read(&node, &other, &digest).await, HELLO);
    node.content.delete(&other, &digest).await.unwrap();
    assert!(!node.on_disk(&digest));
    assert!(matches!(node.content.delete(&other, &digest).await, Err(ContentError::NotFound(_))));
}

#[tokio::test]
async fn an_adopter_may_bring_other_bytes() {
    let node = Node::new().await;
    let (other, digest) = (scope("other"), node.put(HELLO, &[]).await);
    let mut writer = node.content.writer(&other, "append", Some(&digest), 11).await.unwrap();
    writer.write(Bytes::from_static(b"!")).await.unwrap();
    assert_eq!((writer.offset(), writer.digest()), (12, Digest::of(b"hello world!")));
    let longer = writer.commit(Some(12), None, Labels::new()).await.unwrap();
    assert_eq!(read(&node, &other, &longer).await, b"hello world!");

    let mut writer = node.content.writer(&other, "again", Some(&digest), 0).await.unwrap();
    writer.truncate().await.unwrap();
    assert_eq!(writer.offset(), 0);
    writer.write(Bytes::from_static(HELLO)).await.unwrap();
    assert_eq!(writer.commit(None, Some(&digest), Labels::new()).await.unwrap(), digest);

    // Another size than the known blob's is not that blob.
    let writer = node.content.writer(&scope("third"), "r", Some(&digest), 12).await.unwrap();
    assert_eq!(writer.offset(), 0);
}

#[tokio::test]
async fn a_reader_sees_what_was_written() {
    use std::os::unix::fs::FileExt as _;
    let node = Node::new().await;
    let mut writer = start(&node, "r", 11).await;
    let reader = writer.reader().unwrap();
    writer.write(Bytes::from_static(b"hello ")).await.unwrap();
    let mut found = [0; 6];
    reader.read_exact_at(&mut found, 0).unwrap();
    assert_eq!(&found, b"hello ");
    writer.write(Bytes::from_static(b"world")).await.unwrap();
    writer.commit(None, None, Labels::new()).await.unwrap();
    let mut rest = [0; 5];
    reader.read_exact_at(&mut rest, 6).unwrap();
    assert_eq!(&rest, b"world");
}

#[tokio::test]
async fn an_aborted_writer_commits_nothing() {
    let node = Node::new().await;
    let mut writer = start(&node, "r", 11).await;
    writer.write(Bytes::from_static(HELLO)).await.unwrap();
    node.content.abort(&node.scope, "r").await.unwrap();
    assert!(matches!(node.content.abort(&node.scope, "r").await, Err(ContentError::NoIngest(_))));
    let e = writer.commit(None, None, Labels::new()).await.unwrap_err();
    assert!(matches!(e, ContentError::Aborted(_)), "{e}");
    assert!(!node.on_disk(&Digest::of(HELLO)) && node.ingest_dirs() == 0);
}

#[tokio::test]
async fn a_write_that_was_cut_spoils_its_writer_but_not_the_ingest() {
    let node = Node::new().await;
    let mut writer = start(&node, "r", 0).await;
    // On a busy machine a write may be done before it is looked at: then the next one is cut.
    let cut = async |writer: &mut Writer| {
        let write = writer.write(Bytes::from(vec![7; 1 << 20]));
        tokio::pin!(write);
        futures::poll!(write.as_mut()).is_pending()
    };
    while !cut(&mut writer).await {}
    let e = writer.write(Bytes::from_static(b"x")).await.unwrap_err();
    assert!(matches!(e, ContentError::Interrupted(_)), "{e}");
    drop(writer);
    // Locked until the cut write is done.
    let writer = loop {
        match node.content.writer(&node.scope, "r", None, 0).await {
            Ok(writer) => break writer,
            Err(ContentError::Locked(_)) => tokio::task::yield_now().await,
            Err(e) => panic!("{e}"),
        }
    };
    assert_eq!(writer.digest(), Digest::of(&vec![7; writer.offset() as usize]));
}

#[tokio::test]
async fn a_start_heals_what_a_crash_left() {
    let node = Node::new().await;
    let (kept, lost) = (node.put(HELLO, &[]).await, node.put(b"lost", &[]).await);
    let blobs = node.dir.path().join("content/blobs/sha256");
    std::fs::remove_file(blobs.join(lost.hex())).unwrap();
    std::fs::write(blobs.join(Digest::of(b"orphan").hex()), b"orphan").unwrap();
    std::fs::write(blobs.join("not-ours"), b"").unwrap();
    std::fs::create_dir(node.dir.path().join("content/ingest/orphan")).unwrap();
    let sweep = node.content.recover().await.unwrap();
    assert_eq!((sweep.blobs, sweep.ingests, sweep.errors.len()), (1, 1, 0));
    assert!(node.on_disk(&kept) && blobs.join("not-ours").exists());
    assert!(matches!(node.content.info(&node.scope, &lost).await, Err(ContentError::NotFound(_))));
}

#[tokio::test]
async fn a_lost_blob_can_be_brought_again() {
    let node = Node::new().await;
    let digest = node.put(HELLO, &[]).await;
    std::fs::remove_file(node.dir.path().join("content/blobs/sha256").join(digest.hex())).unwrap();
    let e = node.content.open_blob(&node.scope, &digest).await.map(drop).unwrap_err();
    assert!(matches!(e, ContentError::NotFound(_)), "{e}");
    node.put(HELLO, &[]).await;
    assert_eq!(read(&node, &node.scope, &digest).await, HELLO);
}

#[tokio::test]
async fn labels_and_refs_have_limits() {
    let node = Node::new().await;
    for bad in [String::new(), "r".repeat(MAX_REF + 1)] {
        let e = node.content.writer(&node.scope, &bad, None, 0).await.map(drop).unwrap_err();
        assert_eq!(code(e), Code::InvalidArgument);
    }
    let digest = node.put(HELLO, &[("a", "1"), ("b", "2")]).await;
    let long = map(&[("k", &"v".repeat(labels::MAX_LABEL))]);
    assert_eq!(code(node.content.set_labels(&node.scope, &digest, long).await.unwrap_err()), Code::InvalidArgument);
    let info = node.content.set_labels(&node.scope, &digest, map(&[("a", ""), ("c", "3")])).await.unwrap();
    assert_eq!(info.labels, map(&[("b", "2"), ("c", "3")]));
    let info = node.content.replace_labels(&node.scope, &digest, map(&[("d", "4")])).await.unwrap();
    assert_eq!(info.labels, map(&[("d", "4")]));
}

#[tokio::test]
async fn creations_and_deletions_are_published() {
    let node = Node::new().await;
    let mut events = node.exchange.subscribe();
    let digest = node.put(HELLO, &[]).await;
    node.content.delete(&node.scope, &digest).await.unwrap();
    let topics = [events.recv().await.unwrap(), events.recv().await.unwrap()].map(|e| (e.ns.clone(), e.topic.clone()));
    let expected = ["/content/create", "/content/delete"].map(|topic| ("test".to_owned(), topic.to_owned()));
    assert_eq!(topics, expected);
}
