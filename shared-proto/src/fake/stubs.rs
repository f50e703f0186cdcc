//! Ports of which the fake has only the surface.

use async_trait::async_trait;

use super::FakeCore;
use crate::api::{Diff, Introspection, Items, Streaming, Transfer, Version};
use crate::containerd::{diff as d, introspection as i, transfer as t, version as v};
use crate::context::Context;
use crate::errdefs::{Error, Result};

fn unimplemented<T>(what: &str) -> Result<T> {
    Err(Error::unimplemented(format!("the fake core has no {what}")))
}

#[async_trait]
impl Diff for FakeCore {
    async fn apply(&self, _: &Context, _: d::ApplyRequest) -> Result<d::ApplyResponse> {
        unimplemented("Diff.Apply")
    }
    async fn diff(&self, _: &Context, _: d::DiffRequest) -> Result<d::DiffResponse> {
        unimplemented("Diff.Diff")
    }
}

#[async_trait]
impl Streaming for FakeCore {
    async fn stream(&self, _: &Context, _: Items<prost_types::Any>) -> Result<Items<prost_types::Any>> {
        unimplemented("Streaming.Stream")
    }
}

#[async_trait]
impl Transfer for FakeCore {
    async fn transfer(&self, _: &Context, _: t::TransferRequest) -> Result<()> {
        unimplemented("Transfer.Transfer")
    }
}

#[async_trait]
impl Version for FakeCore {
    async fn version(&self, _: &Context, (): ()) -> Result<v::VersionResponse> {
        Ok(v::VersionResponse { version: "0.0.0-fake".into(), revision: String::new() })
    }
}

#[async_trait]
impl Introspection for FakeCore {
    async fn plugins(&self, _: &Context, _: i::PluginsRequest) -> Result<i::PluginsResponse> {
        let plugin = i::Plugin {
            r#type: "io.containerd.snapshotter.v1".into(),
            id: super::snapshots::SNAPSHOTTER.into(),
            exports: [("root".to_owned(), "/fake".to_owned())].into(),
            ..Default::default()
        };
        Ok(i::PluginsResponse { plugins: vec![plugin] })
    }
    async fn server(&self, _: &Context, (): ()) -> Result<i::ServerResponse> {
        Ok(i::ServerResponse { uuid: "fake".into(), ..Default::default() })
    }
    async fn plugin_info(&self, _: &Context, _: i::PluginInfoRequest) -> Result<i::PluginInfoResponse> {
        unimplemented("Introspection.PluginInfo")
    }
}
