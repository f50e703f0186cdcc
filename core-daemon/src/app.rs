//! The composition root.

use shared_config::{Config, Warning};

pub fn run(_config: Config, _warnings: &[Warning]) -> anyhow::Result<()> {
    anyhow::bail!("the parts are not assembled yet")
}

pub fn publish(_config: &Config, _topic: &str, _namespace: &str) -> anyhow::Result<()> {
    anyhow::bail!("the parts are not assembled yet")
}
