//! CreateContainer: record, root file system and spec of a container. Nothing runs yet.
//!
//! ```text
//!  image ─▶ (user, spec) ─▶ record ─▶ snapshot ─▶ (user, spec, record again) ─▶ volumes ─▶ status
//! ```
//!
//! Who the process runs as is read from the image. It is known before the snapshot exists when another container of
//! the same image was made before, and only then is the second writing of the record saved.

use std::path::{Component, Path};
use std::sync::Arc;
use std::time::Instant;

use shared_proto::containerd::types;
use shared_proto::cri::v1;
use shared_proto::errdefs::ResultExt as _;
use shared_proto::meter::Way;
use shared_proto::{Error, Result};
use tracing::Instrument as _;

use super::{ContainerRequest, new_id};
use crate::call::records::{Kind, NewRecord};
use crate::container::{Container, Record, RecordUser, State, record, volumes};
use crate::image::ResolvedImage;
use crate::instrument::Request;
use crate::names::Claim;
use crate::pod::{Sandbox, state::Admitted};
use crate::rootfs::Accounts;
use crate::selinux::{self, Label};
use crate::spec::{self, ContainerInput, SpecError, UserRequest};
use crate::{Cri, Inner, paths, signal};

impl Cri {
    pub async fn create_container(&self, req: v1::CreateContainerRequest) -> Result<v1::CreateContainerResponse> {
        let came = Instant::now();
        let asked = self.0.starts.watches.note(&req);
        let config = req.config.ok_or_else(|| Error::invalid("config: a container needs it"))?;
        let sandbox = self.0.sandboxes.get(&req.pod_sandbox_id)?;
        let pod = sandbox.record();
        let name = record::name(&config, &pod.config)?;
        if config.image.as_ref().is_none_or(|image| image.image.is_empty()) {
            return Err(Error::invalid("config.image: a container needs it"));
        }
        let log_path = log_path(&pod.config.log_directory, &config.log_path)?;
        let (admitted, sandbox_pid) = sandbox.life.admit().context(format!("create container {name:?}"))?;
        let wanted = ContainerRequest { sandbox_id: pod.id.clone(), config };
        let id = new_id();
        let container_id = match self.0.container_names.claim(&name, &id, wanted.clone())? {
            Claim::New(ticket, outcome) => {
                let cri = self.clone();
                let gate: Admitted = admitted;
                let subject = wanted.config.metadata.as_ref().map_or("", |metadata| &metadata.name);
                let of = (subject, id.as_str());
                let request = self.0.starts.request(&sandbox.start, "CreateContainer", of, came, &self.0.metrics);
                request.asked(asked);
                let work = async move {
                    request.waited("queue");
                    request.pause(Way::There).await;
                    let (pod, config) = ((&*sandbox, sandbox_pid), wanted.config);
                    let made = cri.0.make_container(&id, &name, config, log_path, pod, &request);
                    let made = request.watch(made).await.inspect_err(|e| request.failed(e));
                    if made.is_ok() {
                        request.answered(&v1::CreateContainerResponse { container_id: id.clone() });
                    }
                    request.pause(Way::Back).await;
                    drop(request);
                    let made = made.with_context(|| format!("create container {name:?}"));
                    ticket.finish(&id, made.map(|()| id.clone()));
                    drop(gate);
                };
                self.0.work.spawn(work.in_current_span());
                outcome.wait().await?
            }
            Claim::Joined(outcome) => outcome.wait().await?,
            Claim::Taken(owner) => self.0.same_container(&name, owner, &wanted)?,
        };
        Ok(v1::CreateContainerResponse { container_id })
    }
}

/// What spec and record are made of.
#[derive(Clone)]
struct Plan {
    id: String,
    name: String,
    config: v1::ContainerConfig,
    pod: Arc<crate::pod::Record>,
    sandbox_pid: u32,
    target_pid: Option<u32>,
    image: ResolvedImage,
    image_name: String,
    runtime: shared_config::Runtime,
    log_path: String,
    stop_signal: String,
    created_at: i64,
    /// Folders for the volumes of the image.
    volumes: Vec<v1::Mount>,
    label: Label,
}

impl Inner {
    /// The answer to a request for a container that is there already: the same one, if the answer got lost.
    fn same_container(&self, name: &str, owner: String, wanted: &ContainerRequest) -> Result<String> {
        let Some(container) = self.containers.exact(&owner) else {
            return Err(Error::exists(format!("container {name:?} exists already: {owner}, which is being removed")));
        };
        let (record, state) = (&container.record, container.life.state());
        let same = record.config == wanted.config && record.sandbox_id == wanted.sandbox_id;
        if same && state == State::Created {
            return Ok(owner);
        }
        let how = if same { state.name() } else { "of another configuration" };
        Err(Error::exists(format!("container {name:?} exists already: {owner}, {how}")))
    }

    async fn make_container(
        &self,
        id: &str,
        name: &str,
        config: v1::ContainerConfig,
        log_path: String,
        (sandbox, sandbox_pid): (&Sandbox, u32),
        request: &Request,
    ) -> Result<()> {
        let pod = sandbox.record();
        let made = {
            let image_name = config.image.as_ref().map(|image| image.image.clone()).unwrap_or_default();
            let image = {
                let _stage = request.stage_of("image", &image_name);
                self.images.resolve(&image_name).await.with_context(|| format!("image {image_name:?}"))?
            };
            let plan = Plan {
                id: id.to_owned(),
                name: name.to_owned(),
                target_pid: self.target_pid(&config, &pod.id)?,
                label: self.container_label(&config, &pod.process_label)?,
                log_path,
                stop_signal: signal::of_container(&config, &image.config)?,
                image_name: match config.image.as_ref().map(|image| image.user_specified_image.as_str()) {
                    Some(asked) if !asked.is_empty() => asked.to_owned(),
                    Some(_) | None => image_name,
                },
                volumes: match self.config.runtime.ignore_image_defined_volumes {
                    true => Vec::new(),
                    false => {
                        let dir = paths::container(&self.config, id).volumes();
                        spec::image_volumes(&image.config, &config, &dir)
                    }
                },
                created_at: self.host.now(),
                runtime: self.runtime(&pod.runtime_handler)?.clone(),
                config,
                pod,
                sandbox_pid,
                image,
            };
            let made = self.build_container(&plan, &sandbox.snapshotter, request).await;
            if made.is_err() {
                let _stage = request.stage("rollback");
                self.discard_container(&plan, &sandbox.snapshotter).await;
            }
            made?
        };
        let (record, mounts) = made;
        let container = Container::new(record, sandbox.snapshotter.clone(), State::Created);
        container.timeline.add(request.account());
        container.set_rootfs(mounts);
        self.container_made(Arc::new(container));
        tracing::info!(container = id, name, "container created");
        Ok(())
    }

    /// Cleans up after a container that could not be made. What is left then is an unlisted record, whose sandbox
    /// takes it along: it is shown as a container in an unknown state.
    async fn discard_container(&self, plan: &Plan, snapshotter: &str) {
        let record = plan.record(RecordUser { uid: 0, gid: 0, additional_gids: Vec::new() });
        let state = State::Unknown { reason: "it could not be made, and not be cleaned up".into(), asking: false };
        let container = Container::new(record, snapshotter.to_owned(), state);
        if let Err(e) = self.remove_container_parts(&container).await {
            tracing::warn!(container = plan.id, error = %e, "a failed container could not be cleaned up");
            self.container_made(Arc::new(container));
        }
    }

    async fn build_container(
        &self,
        plan: &Plan,
        snapshotter: &str,
        request: &Request,
    ) -> Result<(Record, Vec<types::Mount>)> {
        let id = plan.id.as_str();
        let known = match self.accounts.get(&plan.image.chain_id) {
            Some(accounts) => {
                let _stage = request.stage("spec");
                Some(self.container_spec(plan, &accounts).await?)
            }
            None => None,
        };
        // Until the user is known the record says root; nothing runs from it.
        let nobody = RecordUser { uid: 0, gid: 0, additional_gids: Vec::new() };
        let (first, spec) = match &known {
            Some((user, spec)) => (plan.record(user.clone()), Some(spec.clone())),
            None => (plan.record(nobody), None),
        };
        {
            let _stage = request.stage("record");
            self.create_record(NewRecord {
                id,
                kind: Kind::Container,
                labels: &plan.config.labels,
                image: &plan.image.reference,
                runtime: &plan.runtime,
                snapshotter,
                sandbox: &plan.pod.id,
                spec,
                extension: (record::EXTENSION, first.to_any()?),
            })
            .await?;
        }
        let mounts = {
            let _stage = request.stage_of("snapshot", snapshotter);
            self.prepare(snapshotter, id, &plan.image).await?
        };
        let record = match known {
            Some(_) => first,
            None => {
                let accounts = {
                    let _stage = request.stage("user");
                    let read = self.accounts.read(&plan.image.chain_id, mounts.clone()).await;
                    read.map_err(|e| Error::internal(format!("look into image {:?}: {e}", plan.image_name)))?
                };
                let _stage = request.stage("spec");
                let (user, spec) = self.container_spec(plan, &accounts).await?;
                let record = plan.record(user);
                self.complete_record(id, Some(spec), Some((record::EXTENSION, record.to_any()?))).await?;
                record
            }
        };
        if !plan.volumes.is_empty() {
            let _stage = request.stage("volumes");
            let (volumes, mounts, label) = (plan.volumes.clone(), mounts.clone(), plan.label.mount.clone());
            shared_sys::blocking(move || volumes::fill(&volumes, &mounts, &label)).await?;
        }
        let _stage = request.stage("status");
        self.write_status(id, State::Created).await?;
        Ok((record, mounts))
    }

    async fn container_spec(&self, plan: &Plan, accounts: &Arc<Accounts>) -> Result<(RecordUser, Vec<u8>)> {
        let (plan, accounts) = (plan.clone(), accounts.clone());
        let (settings, host) = (self.config.runtime.clone(), self.host.clone());
        let dirs = paths::sandbox(&self.config, &plan.pod.id);
        let base = self.base_spec(&plan.runtime);
        let make = move || -> Result<(RecordUser, Vec<u8>), SpecError> {
            let wanted = user_request(&plan.config, &plan.image);
            let user = spec::user::resolve(&wanted, &mut |path| accounts.file(path))?;
            let hostname = match plan.pod.config.hostname.as_str() {
                "" => host.hostname(),
                name => name.to_owned(),
            };
            let spec = spec::container(&ContainerInput {
                id: &plan.id,
                sandbox_id: &plan.pod.id,
                sandbox_pid: plan.sandbox_pid,
                target_pid: plan.target_pid,
                name: plan.config.metadata.as_ref().map_or("", |metadata| &metadata.name),
                image_name: &plan.image_name,
                config: &plan.config,
                sandbox: &plan.pod.config,
                image: &plan.image.config,
                runtime: &plan.runtime,
                base: base.as_deref(),
                settings: &settings,
                netns: (!plan.pod.host_network()).then_some(plan.pod.netns.as_path()),
                hostname: &hostname,
                dirs: &dirs,
                volumes: &plan.volumes,
                label: &plan.label,
                user: &user,
                host: host.facts(),
                apparmor: host.apparmor(),
            })?;
            let user = RecordUser { uid: user.uid, gid: user.gid, additional_gids: user.additional_gids };
            Ok((user, spec::to_json(&spec)?))
        };
        Ok(shared_sys::blocking(make).await?)
    }

    fn container_label(&self, config: &v1::ContainerConfig, pod: &str) -> Result<Label> {
        let options = context(config).and_then(|context| context.selinux_options.as_ref());
        let contexts = selinux::contexts(&self.config.runtime, self.host.facts());
        Ok(selinux::of_container(options, contexts, pod)?)
    }

    /// The process whose pid namespace an ephemeral container wants to share.
    fn target_pid(&self, config: &v1::ContainerConfig, sandbox: &str) -> Result<Option<u32>> {
        let options = context(config).and_then(|context| context.namespace_options.as_ref());
        let Some(options) = options.filter(|options| options.pid() == v1::NamespaceMode::Target) else {
            return Ok(None);
        };
        let target = self.containers.get(&options.target_id).context("the container whose pid namespace is wanted")?;
        match target.life.state() {
            _ if target.record.sandbox_id != sandbox => {
                Err(Error::invalid(format!("container {} is not in sandbox {sandbox}", target.record.id)))
            }
            State::Running { pid, .. } => Ok(Some(pid)),
            state @ (State::Created | State::Starting | State::Exited(_) | State::Unknown { .. }) => {
                let (id, state) = (&target.record.id, state.name());
                Err(Error::precondition(format!("container {id}, whose pid namespace is wanted, is {state}")))
            }
        }
    }
}

impl Plan {
    fn record(&self, user: RecordUser) -> Record {
        Record {
            id: self.id.clone(),
            name: self.name.clone(),
            sandbox_id: self.pod.id.clone(),
            config: self.config.clone(),
            image_ref: self.image.id.clone(),
            log_path: self.log_path.clone(),
            stop_signal: self.stop_signal.clone(),
            process_label: self.label.process.clone(),
            image_name: self.image.reference.clone(),
            repo_digest: self.image.repo_digest.clone(),
            user: Some(user),
            created_at: self.created_at,
            resources: None,
        }
    }
}

fn context(config: &v1::ContainerConfig) -> Option<&v1::LinuxContainerSecurityContext> {
    config.linux.as_ref()?.security_context.as_ref()
}

/// No log is kept unless both parts are given. The log lies below the pod's log folder, whoever asks.
fn log_path(directory: &str, file: &str) -> Result<String> {
    if directory.is_empty() || file.is_empty() {
        return Ok(String::new());
    }
    if !Path::new(directory).is_absolute() {
        return Err(Error::invalid(format!("log_directory {directory:?} of the sandbox is not an absolute path")));
    }
    if !Path::new(file).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(Error::invalid(format!("log_path {file:?} leads out of the log folder")));
    }
    Ok(Path::new(directory).join(file).to_string_lossy().into_owned())
}

fn user_request(config: &v1::ContainerConfig, image: &ResolvedImage) -> UserRequest {
    let image_user = image.config.config().as_ref().and_then(|c| c.user().clone()).unwrap_or_default();
    let Some(context) = context(config) else { return UserRequest { image_user, ..Default::default() } };
    UserRequest {
        uid: context.run_as_user.map(|id| id.value),
        gid: context.run_as_group.map(|id| id.value),
        username: context.run_as_username.clone(),
        supplemental_groups: context.supplemental_groups.clone(),
        policy: context.supplemental_groups_policy,
        image_user,
    }
}
