//! Keeps the index a true copy of the core's image records.
//!
//! Three things change it: our own pulls and removals, at once; the core's events, so that what `ctr -n k8s.io images
//! import` made shows up; and a full comparison whenever the event stream had to be opened anew, because what happened
//! in between was not heard. Subscribing comes before comparing, so nothing falls between the two.
//!
//! A record is read from the core without a lock, so it may be out of date when it arrives. It is taken over only if
//! the index has not changed since before the question; else it is asked for again.
//!
//! Images that others made get what a pull by us would have left: the label that they are managed, and a reference
//! under their id.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use shared_proto::api::Items;
use shared_proto::containerd::events_service::SubscribeRequest;
use shared_proto::containerd::images::{ImageCreate, ImageDelete, ImageUpdate};
use shared_proto::containerd::{Envelope, images as records};
use shared_proto::{Result, any};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::content::{self, Inspected};
use super::index::Named;
use super::{Images, PINNED, reference};
use crate::call;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

impl Images {
    /// Fills the index and keeps it fresh from then on, in a task of `work` that ends at `shutdown`.
    pub async fn start(&self, work: &TaskTracker, shutdown: CancellationToken) -> Result<()> {
        let begin = || async {
            let events = self.subscribe().await?;
            self.forget_unpacks().await?;
            self.rebuild().await?;
            Ok(events)
        };
        let events = call::patient("find the images", call::PROCESS, call::PATIENCE, begin).await?;
        let images = self.clone();
        work.spawn(async move {
            shutdown.run_until_cancelled(images.watch(events)).await;
        });
        Ok(())
    }

    /// Compares the whole index with the core. An image that can't be read is left out and logged.
    pub async fn rebuild(&self) -> Result<()> {
        let list = self.0.core.images.list(&self.0.cx, records::ListImagesRequest::default());
        let records = call::within("list images", call::RECORD, list).await?.images;
        let names: BTreeSet<String> = records.iter().map(|record| record.name.clone()).collect();
        self.index_mut().retain(&names);
        for name in names {
            if let Err(error) = self.refresh(&name).await {
                tracing::warn!(image = name, %error, "an image is left out");
            }
        }
        Ok(())
    }

    async fn subscribe(&self) -> Result<Items<Envelope>> {
        let filter = format!("namespace=={},topic~=|^/images/|", crate::NAMESPACE);
        let subscribe = self.0.core.events.subscribe(&self.0.cx, SubscribeRequest { filters: vec![filter] });
        call::within("subscribe to image events", call::RECORD, subscribe).await
    }

    /// Follows the events; when they break off, waits for the core and compares everything.
    async fn watch(&self, mut events: Items<Envelope>) {
        let mut pause = FIRST_PAUSE;
        loop {
            while let Some(Ok(envelope)) = events.next().await {
                pause = FIRST_PAUSE;
                let Some(name) = changed(&envelope) else { continue };
                if let Err(error) = self.refresh(&name).await {
                    tracing::warn!(image = name, %error, "an image can't be read");
                }
            }
            events = loop {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
                match self.subscribe().await {
                    Ok(events) => break events,
                    Err(error) => tracing::debug!(%error, "no image events yet"),
                }
            };
            match self.rebuild().await {
                Ok(()) => tracing::info!("image events are back"),
                // The new stream breaks off too, or the next event says more.
                Err(error) => tracing::warn!(%error, "images were not compared"),
            }
        }
    }

    /// Reads one record and its content from the core and puts them into the index.
    pub(super) async fn refresh(&self, name: &str) -> Result<()> {
        loop {
            let before = self.index().changes();
            let found = match self.record(name).await {
                Ok(record) => Some(record),
                Err(e) if e.is_not_found() => None,
                Err(e) => return Err(e),
            };
            let named = match &found {
                Some(record) => self.named(record).await,
                None => {
                    let mut index = self.index_mut();
                    if index.changes() == before {
                        index.remove(name);
                        return Ok(());
                    }
                    continue;
                }
            };
            {
                let mut index = self.index_mut();
                if index.changes() != before {
                    continue;
                }
                match &named {
                    Ok(named) => index.set(name, named.clone()),
                    // It was readable once, perhaps; now it is of no use.
                    Err(_) => index.remove(name),
                }
            }
            let named = named?;
            return match found {
                Some(record) => self.adopt(&record, &named.image).await,
                None => Ok(()),
            };
        }
    }

    /// What the index says of a record: its content is read unless it is known.
    pub(super) async fn named(&self, record: &records::Image) -> Result<Named> {
        let target = record.target.as_ref().map(|t| t.digest.clone()).unwrap_or_default();
        let known = self.index().content(&target);
        let image = match known {
            Some(image) => image,
            None => {
                let inner = &*self.0;
                Arc::new(content::inspect(&inner.core, &inner.cx, &record.name, &target, &inner.platform).await?)
            }
        };
        let labelled = record.labels.get(PINNED).is_some_and(|value| value == "pinned");
        let pinned = labelled || self.0.pinned.contains(&record.name);
        Ok(Named { target, pinned, image })
    }

    /// Makes an image that somebody else recorded look like one that was pulled through us.
    async fn adopt(&self, record: &records::Image, image: &Inspected) -> Result<()> {
        let labels = self.labels(&record.name);
        if reference::is_id(&record.name) || labels.iter().all(|(key, value)| record.labels.get(key) == Some(value)) {
            return Ok(());
        }
        self.point(&image.id, record.target.clone().unwrap_or_default(), &labels).await?;
        if !self.label(&record.name, labels).await? {
            // Removed meanwhile, and maybe before there was a reference under the id: that must go as well.
            let left = self.index().names_of(&image.id);
            if left.iter().all(|name| *name == image.id || *name == record.name) {
                self.unlink(&image.id, true).await?;
            }
            return Ok(());
        }
        tracing::debug!(image = record.name, id = image.id, "adopted");
        Ok(())
    }
}

/// The name of the image that an event is about.
fn changed(envelope: &Envelope) -> Option<String> {
    if envelope.namespace != crate::NAMESPACE {
        return None;
    }
    let event = envelope.event.as_ref()?;
    match envelope.topic.as_str() {
        "/images/create" => any::unpack::<ImageCreate>(event).ok().map(|e| e.name),
        "/images/update" => any::unpack::<ImageUpdate>(event).ok().map(|e| e.name),
        "/images/delete" => any::unpack::<ImageDelete>(event).ok().map(|e| e.name),
        _ => None,
    }
}
