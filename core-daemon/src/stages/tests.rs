use super::*;

fn names(stages: &Stages, id: &str) -> Vec<(&'static str, bool)> {
    stages.of("k8s.io", id).iter().map(|stage| (stage.name, stage.took.is_some())).collect()
}

#[tokio::test]
async fn parts_belong_to_the_container_whose_call_they_are_done_for() {
    let stages = Stages::default();
    let (held, hold) = tokio::sync::oneshot::channel::<()>();
    let create = {
        let stages = stages.clone();
        tokio::spawn(async move {
            let work = async {
                stage("bundle", async {}).await;
                // As services do it, so that a caller who goes away cancels nothing.
                let shim = stage("shim", async { hold.await.unwrap() });
                tokio::spawn(carried(shim)).await.unwrap();
            };
            stages.during("k8s.io", "a", "Tasks.create", false, work).await;
        })
    };
    stage("nobody's", async {}).await;
    while stages.of("k8s.io", "a").len() < 3 {
        tokio::task::yield_now().await;
    }
    assert_eq!(names(&stages, "a"), [("Tasks.create", false), ("bundle", true), ("shim", false)]);
    held.send(()).unwrap();
    create.await.unwrap();
    assert_eq!(names(&stages, "a"), [("Tasks.create", true), ("bundle", true), ("shim", true)]);
    let all = stages.of("k8s.io", "a");
    assert_eq!((all[0].kind, all[2].kind), (Kind::Call, Kind::Step));
    assert!(all[0].took >= all[2].took);
    assert!(stages.of("moby", "a").is_empty() && stages.of("k8s.io", "b").is_empty());
}

#[tokio::test]
async fn the_list_is_bounded_in_both_directions() {
    let stages = Stages::default();
    for n in 0..CONTAINERS + 5 {
        stages.during("ns", &n.to_string(), "Tasks.create", false, async {}).await;
    }
    assert_eq!(stages.lock().len(), CONTAINERS);
    assert!(stages.of("ns", "4").is_empty() && stages.of("ns", "5").len() == 1);
    for _ in 0..STAGES + 5 {
        stages.during("ns", "5", "Containers.update", false, async {}).await;
    }
    assert_eq!(stages.of("ns", "5").len(), STAGES);
    assert!(stages.of("ns", "5").iter().all(|stage| stage.took.is_some()));
}

#[tokio::test]
async fn messages_are_kept_of_calls_that_are_watched_and_not_without_end() {
    let stages = Stages::default();
    let message = |n: usize| Message { r#type: "json".into(), value: vec![b'x'; n] };
    let work = || async {
        stage("bundle", async {}).await;
        stage("runtime-create", async {
            keep(Way::There, || message(3));
            tokio::spawn(carried(async {
                keep(Way::Back, || Message { r#type: "json".into(), value: vec![b'y'; 4] })
            }))
            .await
            .unwrap();
        })
        .await;
        stage("runtime-start", async { keep(Way::There, || message(SEEN)) }).await;
    };
    stages.during("ns", "a", "Tasks.create", true, work()).await;
    stages.during("ns", "b", "Tasks.create", false, work()).await;
    keep(Way::There, || unreachable!("nobody asks for it here"));
    let sizes = |id: &str| {
        let size = |message: &Option<Message>| message.as_ref().map(|message| message.value.len());
        stages.of("ns", id).iter().map(|s| (s.name, size(&s.sent), size(&s.received))).collect::<Vec<_>>()
    };
    let too_much = ("runtime-start", None, None);
    let kept = [("Tasks.create", None, None), ("bundle", None, None), ("runtime-create", Some(3), Some(4)), too_much];
    assert_eq!(sizes("a"), kept);
    assert!(sizes("b").iter().all(|(_, sent, received)| sent.is_none() && received.is_none()));
}
