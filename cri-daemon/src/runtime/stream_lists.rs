//! The Stream* lists: the same lists, cut into messages that stay far below the size limit of one.
//!
//! A list is taken once, as the plain call takes it, so each object comes once. No message is empty; an empty list is
//! an end without any.

use futures::StreamExt as _;
use shared_proto::Result;
use shared_proto::api::Items;
use shared_proto::cri::v1;

use crate::Cri;

/// The most objects in a message, and the most bytes.
const COUNT: usize = 1000;
const BYTES: usize = 1 << 20;

impl Cri {
    pub async fn stream_pod_sandboxes(
        &self,
        req: v1::StreamPodSandboxesRequest,
    ) -> Result<Items<v1::StreamPodSandboxesResponse>> {
        let list = self.list_pod_sandbox(v1::ListPodSandboxRequest { filter: req.filter }).await?;
        Ok(stream(list.items, |pod_sandboxes| v1::StreamPodSandboxesResponse { pod_sandboxes }))
    }

    pub async fn stream_containers(
        &self,
        req: v1::StreamContainersRequest,
    ) -> Result<Items<v1::StreamContainersResponse>> {
        let list = self.list_containers(v1::ListContainersRequest { filter: req.filter }).await?;
        Ok(stream(list.containers, |containers| v1::StreamContainersResponse { containers }))
    }

    pub async fn stream_container_stats(
        &self,
        req: v1::StreamContainerStatsRequest,
    ) -> Result<Items<v1::StreamContainerStatsResponse>> {
        let list = self.list_container_stats(v1::ListContainerStatsRequest { filter: req.filter }).await?;
        Ok(stream(list.stats, |container_stats| v1::StreamContainerStatsResponse { container_stats }))
    }

    pub async fn stream_pod_sandbox_stats(
        &self,
        req: v1::StreamPodSandboxStatsRequest,
    ) -> Result<Items<v1::StreamPodSandboxStatsResponse>> {
        let list = self.list_pod_sandbox_stats(v1::ListPodSandboxStatsRequest { filter: req.filter }).await?;
        Ok(stream(list.stats, |pod_sandbox_stats| v1::StreamPodSandboxStatsResponse { pod_sandbox_stats }))
    }

    pub async fn stream_images(&self, req: v1::StreamImagesRequest) -> Result<Items<v1::StreamImagesResponse>> {
        let list = self.list_images(v1::ListImagesRequest { filter: req.filter }).await?;
        Ok(stream(list.images, |images| v1::StreamImagesResponse { images }))
    }
}

fn stream<T, M>(all: Vec<T>, message: impl Fn(Vec<T>) -> M) -> Items<M>
where
    T: prost::Message,
    M: Send + 'static,
{
    let messages: Vec<Result<M>> = batches(all, COUNT, BYTES).into_iter().map(|batch| Ok(message(batch))).collect();
    futures::stream::iter(messages).boxed()
}

/// Cuts a list; an object that is too large by itself stands alone.
fn batches<T: prost::Message>(all: Vec<T>, count: usize, bytes: usize) -> Vec<Vec<T>> {
    let mut batches: Vec<Vec<T>> = Vec::new();
    let mut size = 0;
    for object in all {
        let own = object.encoded_len();
        match batches.last_mut() {
            Some(batch) if batch.len() < count && size + own <= bytes => {
                size += own;
                batch.push(object);
            }
            Some(_) | None => {
                size = own;
                batches.push(vec![object]);
            }
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(length: usize) -> v1::Container {
        v1::Container { id: "c".repeat(length), ..Default::default() }
    }

    #[test]
    fn every_object_comes_once_and_no_message_is_empty() {
        assert!(batches::<v1::Container>(Vec::new(), 3, 100).is_empty());
        let lengths = |all: Vec<v1::Container>| -> Vec<Vec<usize>> {
            batches(all, 3, 100).iter().map(|batch| batch.iter().map(|c| c.id.len()).collect()).collect()
        };
        assert_eq!(lengths(vec![named(1), named(2), named(3), named(4)]), [vec![1, 2, 3], vec![4]], "by number");
        assert_eq!(lengths(vec![named(60), named(61), named(5)]), [vec![60], vec![61, 5]], "by size");
        assert_eq!(lengths(vec![named(5), named(500), named(6)]), [vec![5], vec![500], vec![6]], "one over the limit");
    }
}
