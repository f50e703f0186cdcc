//! Undoing: what a failed `create` has made so far, and shims that are not needed any more.
//!
//! Every step is tried, whatever became of the one before. Errors are logged, as the caller has a better one to tell;
//! what stays on disk is found at the next start.

use std::path::Path;
use std::sync::Arc;

use shared_proto::ttrpc::task::{DeleteRequest, DeleteResponse, ShutdownRequest};

use super::bundle::Bundle;
use super::launch;
use super::manager::Inner;
use super::shim::{Shim, deadline, remove_dead_socket};
use super::strays;

impl Inner {
    /// Ends a shim that has no task any more.
    pub async fn shut_down(&self, shim: &Shim, bundle: &Bundle) {
        let request = ShutdownRequest { id: bundle.id.to_string(), now: false };
        let doing = || format!("shut down the shim of task {:?}", bundle.id.as_str());
        match shim.call::<()>(bundle.ns.as_str(), "Shutdown", &request, Some(deadline::SHUTDOWN), doing).await {
            Ok(()) => {}
            // It went before it could answer.
            Err(e) if e.is_closed() => {}
            Err(e) => {
                tracing::error!(error = %e, address = shim.address, "a shim doesn't end by itself");
                kill_strays(bundle).await;
            }
        }
        shim.retire();
    }

    /// Undoes a task that its shim may or may not have made.
    pub async fn abandon(&self, bundle: &Bundle, binary: &Path, shim: &Arc<Shim>) {
        let request = DeleteRequest { id: bundle.id.to_string(), exec_id: String::new() };
        let doing = || format!("clean up task {:?}", bundle.id.as_str());
        let limit = Some(deadline::QUICK);
        let gone = match shim.call::<DeleteResponse>(bundle.ns.as_str(), "Delete", &request, limit, doing).await {
            Ok(_) => true,
            // Its runtime may have been killed half way: the shim knows nothing of what that has made.
            Err(e) if e.is_not_found() => false,
            Err(e) => {
                tracing::warn!(error = %e, "a failed task must be cleaned up from outside");
                false
            }
        };
        if self.shims.give_back(shim) {
            self.shut_down(shim, bundle).await;
        }
        if gone {
            remove_bundle(bundle).await;
        } else {
            self.clean_up(bundle, binary).await;
        }
    }

    /// Undoes a `start` that failed; it may have left a shim all the same.
    pub async fn abandon_launch(&self, bundle: &Bundle, binary: &Path) {
        let record = {
            let bundle = bundle.clone();
            shared_sys::blocking(move || bundle.load()).await
        };
        match record.bootstrap {
            Some(bootstrap) => match self.shims.connect(&bootstrap).await {
                Ok((shim, _)) => self.abandon(bundle, binary, &shim).await,
                Err(_) => drop(self.clean_up(bundle, binary).await),
            },
            None => {
                kill_strays(bundle).await;
                let socket = launch::usual_socket(&self.config, bundle);
                shared_sys::blocking(move || remove_dead_socket(&socket)).await;
                remove_bundle(bundle).await;
            }
        }
    }
}

/// Kills what works in the bundle's folder.
pub(super) async fn kill_strays(bundle: &Bundle) {
    let path = bundle.path.clone();
    shared_sys::blocking(move || strays::kill(&path)).await;
}

/// Removes a bundle. What stays is removed at the next start, so it is no error of the operation.
pub(super) async fn remove_bundle(bundle: &Bundle) {
    let bundle = bundle.clone();
    if let Err(e) = shared_sys::blocking(move || bundle.remove()).await {
        tracing::error!(error = %e, "a bundle stays until the next start");
    }
}
