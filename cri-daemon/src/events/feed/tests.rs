use super::*;

const SOON: Duration = Duration::from_millis(50);

fn news(id: &str) -> News {
    News { id: id.into(), sandbox: "s".into(), kind: ContainerEventType::ContainerStoppedEvent, status: None }
}

fn show(news: News) -> ContainerEventResponse {
    ContainerEventResponse { container_id: news.id, ..Default::default() }
}

fn record(feed: &Feed, id: &str) {
    feed.record(|| vec![news(id)], show);
}

fn open(age: Duration, bytes: usize) -> Arc<Feed> {
    let feed = Feed::bounded(age, bytes);
    feed.open(show);
    Arc::new(feed)
}

async fn next(events: &mut Items<ContainerEventResponse>) -> String {
    let next = tokio::time::timeout(Duration::from_secs(10), events.next()).await;
    next.expect("in time").expect("no end").expect("no error").container_id
}

#[tokio::test]
async fn everybody_reads_everything_at_their_own_pace() {
    let feed = open(AGE, BYTES);
    record(&feed, "a");
    let (mut fast, mut slow) = (feed.subscribe(), feed.subscribe());
    assert_eq!(next(&mut fast).await, "a");
    assert!(tokio::time::timeout(SOON, fast.next()).await.is_err(), "nothing more has happened");
    let later = tokio::spawn({
        let feed = feed.clone();
        async move {
            tokio::time::sleep(SOON).await;
            feed.record(|| vec![news("b"), news("c")], show);
        }
    });
    assert_eq!([next(&mut fast).await, next(&mut fast).await], ["b", "c"]);
    later.await.unwrap();
    for id in ["a", "b", "c"] {
        assert_eq!(next(&mut slow).await, id);
    }
    feed.record(Vec::new, show);
    assert!(tokio::time::timeout(SOON, slow.next()).await.is_err(), "nothing happened in that");
}

#[tokio::test]
async fn whoever_waits_is_told_when_the_server_stops() {
    let feed = open(AGE, BYTES);
    let mut waiting = feed.subscribe();
    let waits = tokio::spawn(async move { (waiting.next().await, waiting.next().await.is_none()) });
    tokio::time::sleep(SOON).await;
    feed.close();
    let (told, ended) = tokio::time::timeout(Duration::from_secs(10), waits).await.unwrap().unwrap();
    assert_eq!(told.unwrap().unwrap_err().code, Code::Unavailable);
    assert!(ended);
    assert_eq!(feed.subscribe().next().await.unwrap().unwrap_err().code, Code::Unavailable);
}

#[tokio::test]
async fn who_falls_behind_is_told_and_holds_nobody_up() {
    let size = show(news("a")).encoded_len();
    let feed = open(AGE, 2 * size);
    let (mut behind, mut beside) = (feed.subscribe(), feed.subscribe());
    record(&feed, "a");
    assert_eq!(next(&mut behind).await, "a");
    assert_eq!(next(&mut beside).await, "a");
    for id in ["b", "c", "d"] {
        record(&feed, id);
        assert_eq!(next(&mut beside).await, id);
    }
    let lost = behind.next().await.unwrap().unwrap_err();
    assert!(lost.code == Code::ResourceExhausted && lost.message.starts_with("1 events"), "{lost}");
    assert!(behind.next().await.is_none());
    let mut again = feed.subscribe();
    assert_eq!([next(&mut again).await, next(&mut again).await], ["c", "d"]);
    record(&feed, &"x".repeat(100));
    assert_eq!(next(&mut again).await.len(), 100, "one beyond all bounds");
}

#[tokio::test]
async fn what_is_old_is_gone() {
    let feed = open(SOON, BYTES);
    let mut there = feed.subscribe();
    record(&feed, "a");
    assert_eq!(next(&mut there).await, "a");
    tokio::time::sleep(2 * SOON).await;
    let mut late = feed.subscribe();
    record(&feed, "b");
    assert_eq!([next(&mut late).await, next(&mut there).await], ["b", "b"]);
    assert_eq!(feed.log().entries.len(), 1);
    assert_eq!(feed.log().bytes, show(news("b")).encoded_len());
}

/// The change and its entry are one: whoever sees the entry sees the change, and entries are in its order.
#[test]
fn changes_and_entries_have_one_order() {
    let feed = open(AGE, BYTES);
    let count = Mutex::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..200 {
                    let happen = || {
                        let mut count = count.lock().unwrap();
                        *count += 1;
                        vec![news(&count.to_string())]
                    };
                    feed.record(happen, show);
                }
            });
        }
    });
    let log = feed.log();
    let seen: Vec<_> = log.entries.iter().map(|entry| entry.event.container_id.clone()).collect();
    assert_eq!(seen, (1..=800).map(|n| n.to_string()).collect::<Vec<_>>());
}

/// During recovery not everybody's status is known: an event would show a pod without its containers.
#[tokio::test]
async fn what_happens_before_everything_is_known_is_shown_then() {
    let feed = Arc::new(Feed::default());
    let too_early = |_: News| -> ContainerEventResponse { panic!("shown too early") };
    feed.record(|| vec![news("a")], too_early);
    feed.record(|| vec![news("b")], too_early);
    let mut early = feed.subscribe();
    assert!(tokio::time::timeout(SOON, early.next()).await.is_err());
    feed.open(show);
    feed.open(too_early);
    record(&feed, "c");
    assert_eq!([next(&mut early).await, next(&mut early).await, next(&mut early).await], ["a", "b", "c"]);
}
