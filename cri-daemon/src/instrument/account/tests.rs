use shared_proto::Error;
use shared_proto::containerd::tasks::{StartRequest, StartResponse};
use shared_proto::meter::Meter;

use super::*;
use crate::instrument::{Request, Watches, here, stepped};
use crate::metrics::Metrics;

fn request() -> Request {
    Request::new(Arc::new(Account::new("RunPodSandbox", "", "", Instant::now())), Metrics::default())
}

#[tokio::test]
async fn what_is_done_below_a_request_is_booked_on_it() {
    let request = request();
    let call = Meter::default().register("Tasks.create");
    assert!(here("cni-plugin", || "nobody asked".into()).is_none());
    let work = async {
        let plugin = here("cni-plugin", || "pods/bridge".into());
        call.start().stop::<()>(&Err(Error::not_found("c")));
        std::mem::forget(call.start());
        drop(plugin);
    };
    request.watch(work).await;
    let stages = request.account().stages();
    let seen: Vec<_> = stages.iter().map(|s| (s.name, &*s.detail, s.place, s.failed)).collect();
    assert_eq!(
        seen,
        [
            ("cni-plugin", "pods/bridge", Place::Cri, false),
            ("Tasks.create", "", Place::Seam, true),
            ("Tasks.create", "", Place::Seam, false)
        ]
    );
    let running: Vec<_> = stages.iter().map(|stage| stage.took(request.account().came).1).collect();
    assert_eq!(running, [false, false, true]);
}

#[test]
fn stages_lie_within_their_request() {
    let request = request();
    std::thread::sleep(Duration::from_millis(2));
    request.waited("queue");
    let outer = request.stage("cni");
    std::thread::sleep(Duration::from_millis(2));
    drop(request.stage("netns"));
    drop(outer);
    let account = request.account();
    assert!(account.took().1);
    drop(request);
    let took = |at: usize| account.stages()[at].took(account.came);
    assert!(took(0).0 >= 2000 && account.stages()[1].start_us >= 2000);
    assert!(took(1).0 >= took(2).0 && account.took().0 >= took(1).0);
    assert!(!took(1).1 && !account.took().1);
}

#[tokio::test]
async fn messages_are_kept_only_where_somebody_watches() {
    let call = Meter::default().register("Tasks.start");
    let go = async |request: &Request| {
        request.asked(Some(Message::json("{}")));
        let work = async {
            let plugin = here("cni-plugin", String::new).unwrap();
            plugin.message(Way::Back, || Message::json("[1]"));
            let timer = call.start();
            timer.sends(Default::default(), &StartRequest::default());
            timer.receives(&Ok(StartResponse { pid: 7 }));
            timer.stop(&Ok(()));
        };
        request.watch(work).await;
        request.answered(&StartResponse { pid: 8 });
        request.account().exchanges()
    };
    let nothing = (None, None);
    assert_eq!(go(&request()).await, (nothing.clone(), vec![nothing.clone(), nothing.clone()]));
    let watched = request();
    let watches = Watches::default();
    let _client = watches.begin("web", false).unwrap();
    watched.account().watch(watches.of("shop", "web").unwrap());
    let (own, stages) = go(&watched).await;
    assert_eq!(own, (Some(Message::json("{}")), Some(Message::of(&StartResponse { pid: 8 }))));
    assert_eq!(stages[0], (None, Some(Message::json("[1]"))));
    let call = (Some(Message::of(&StartRequest::default())), Some(Message::of(&StartResponse { pid: 7 })));
    assert_eq!(stages[1], call);
    watched.asked(Some(Message::json("x".repeat(MESSAGES))));
    let kept: usize = watched.account().lock().messages.len();
    assert_eq!(kept, 5, "one that is too much is left out");
}

#[test]
fn an_account_is_small_and_bounded() {
    assert!(size_of::<Stage>() <= 48, "{}", size_of::<Stage>());
    let request = request();
    for _ in 0..STAGES + 5 {
        drop(request.stage("image"));
    }
    assert_eq!(request.account().stages().len(), STAGES);
    request.failed(&Error::internal("ü".repeat(ERROR)));
    assert_eq!(request.account().error().unwrap().len(), ERROR);
}

#[tokio::test]
async fn a_request_that_is_gone_through_step_by_step_waits_and_has_no_hurry() {
    let (request, watches) = (request(), Watches::default());
    let call = Meter::default().register("Tasks.start");
    let mut client = watches.begin("shop/web", true).unwrap();
    request.account().watch(watches.of("shop", "web").unwrap());
    request.asked(Some(Message::json("{}")));
    let work = async {
        assert!(stepped());
        let timer = call.start();
        timer.sends(Default::default(), &StartRequest::default());
        timer.pause(Way::There).await;
        timer.pause(Way::Back).await;
    };
    let go = async {
        request.pause(Way::There).await;
        request.watch(work).await;
        request.pause(Way::Back).await;
        assert!(!stepped());
    };
    let steps = async {
        let mut seen = Vec::new();
        for _ in 0..4 {
            let stop = client.next().await.unwrap();
            watches.go_on(stop.number).unwrap();
            let message = stop.message.map(|message| message.r#type).unwrap_or_default();
            seen.push((stop.stage.map(|stage| stage.name).unwrap_or_default(), stop.done, message));
        }
        seen
    };
    let (seen, ()) = tokio::join!(steps, go);
    let seen: Vec<_> = seen.iter().map(|(name, done, message)| (name.as_str(), *done, message.as_str())).collect();
    let sent = "containerd.services.tasks.v1.StartRequest";
    let call = "Tasks.start";
    assert_eq!(seen, [("", false, "json"), (call, false, sent), (call, true, ""), ("", true, "")]);
}
