//! RunPodSandbox: a pod's network and its pause process.
//!
//! ```text
//!  image ─▶ record ─┬─▶ netns ──────▶ CNI ADD ──────────────┐
//!                   ├─▶ files, /dev/shm ──┐                 ├─▶ start ─▶ record again, with the addresses
//!                   └─▶ snapshot ─▶ (user, spec) ─▶ create ─┘
//! ```
//!
//! The record comes first: from it everything else can be cleaned up, by us when a step fails, by the next daemon when
//! this one is killed. The caller only waits; when it gives up the work goes on, and its next try joins it.
//!
//! The image is normally there, and looking it up takes no time. When it must be pulled that comes first on purpose:
//! a node that can't pull it would otherwise take and give back an address with every try.

use std::sync::{Arc, PoisonError};
use std::time::Instant;

use shared_proto::cri::v1;
use shared_proto::errdefs::ResultExt as _;
use shared_proto::meter::Way;
use shared_proto::{Error, Result};
use tokio::sync::oneshot;
use tracing::Instrument as _;

use super::{SandboxRequest, new_id};
use crate::call::records::{Kind, NewRecord};
use crate::call::tasks::Io;
use crate::image::ResolvedImage;
use crate::instrument::{PodStart, Request};
use crate::names::Claim;
use crate::network::Setup;
use crate::pod::{Leftover, Phase, Record, Sandbox, State, record};
use crate::rootfs::Accounts;
use crate::spec::{self, SandboxInput, SpecError, UserRequest};
use crate::{Cri, Inner, host, paths, selinux};

/// Asks for the handler `untrusted`.
const UNTRUSTED: &str = "io.kubernetes.cri.untrusted-workload";

impl Cri {
    pub async fn run_pod_sandbox(&self, req: v1::RunPodSandboxRequest) -> Result<v1::RunPodSandboxResponse> {
        let came = Instant::now();
        let asked = self.0.starts.watches.note(&req);
        let config = req.config.ok_or_else(|| Error::invalid("config: a sandbox needs it"))?;
        let name = record::name(&config)?;
        let handler = handler(&req.runtime_handler, &config)?;
        self.0.runtime(&handler).context(format!("run sandbox {name:?}"))?;
        let wanted = SandboxRequest { config, handler };
        let id = new_id();
        let pod_sandbox_id = match self.0.sandbox_names.claim(&name, &id, wanted.clone())? {
            Claim::New(ticket, outcome) => {
                let cri = self.clone();
                let start = self.0.starts.begin(&id, &wanted.config);
                let request = self.0.starts.request(&start, "RunPodSandbox", ("", ""), came, &self.0.metrics);
                request.asked(asked);
                let work = async move {
                    request.waited("queue");
                    request.pause(Way::There).await;
                    let made = cri.0.make_sandbox(&id, name.clone(), wanted, start, &request);
                    let made = request.watch(made).await;
                    let made = made.with_context(|| format!("run sandbox {name:?}"));
                    if made.is_ok() {
                        request.answered(&v1::RunPodSandboxResponse { pod_sandbox_id: id.clone() });
                    }
                    request.pause(Way::Back).await;
                    drop(request);
                    ticket.finish(&id, made.map(|()| id.clone()));
                };
                self.0.work.spawn(work.in_current_span());
                outcome.wait().await?
            }
            Claim::Joined(outcome) => outcome.wait().await?,
            Claim::Taken(owner) => self.0.same_sandbox(&name, owner, &wanted)?,
        };
        Ok(v1::RunPodSandboxResponse { pod_sandbox_id })
    }
}

fn handler(asked: &str, config: &v1::PodSandboxConfig) -> Result<String> {
    if config.annotations.get(UNTRUSTED).map(String::as_str) != Some("true") {
        return Ok(asked.to_owned());
    }
    match asked {
        "" | "untrusted" => Ok("untrusted".into()),
        other => Err(Error::invalid(format!("an untrusted workload can't have the runtime handler {other:?}"))),
    }
}

/// What the three branches of the graph need.
struct Plan<'a> {
    record: &'a Record,
    runtime: &'a shared_config::Runtime,
    image: &'a ResolvedImage,
    hostname: &'a str,
    snapshotter: &'a str,
}

impl Inner {
    /// The answer to a request for a sandbox that is there already: the same one, if the answer got lost.
    fn same_sandbox(&self, name: &str, owner: String, wanted: &SandboxRequest) -> Result<String> {
        let there = self.sandboxes.exact(&owner);
        let Some(sandbox) = there else {
            return Err(Error::exists(format!("sandbox {name:?} exists already: {owner}, which is being removed")));
        };
        let (record, state) = (sandbox.record(), sandbox.life.state());
        let same = record.config == wanted.config && record.runtime_handler == wanted.handler;
        match state {
            State::Ready { .. } if same => Ok(owner),
            State::Ready { .. } | State::Creating | State::NotReady { .. } | State::Unknown { .. } => {
                let how = if same { state.name() } else { "of another configuration" };
                Err(Error::exists(format!("sandbox {name:?} exists already: {owner}, {how}")))
            }
        }
    }

    async fn make_sandbox(
        &self,
        id: &str,
        name: String,
        wanted: SandboxRequest,
        start: Arc<PodStart>,
        request: &Request,
    ) -> Result<()> {
        let listed = self.images.snapshotter(&wanted.handler).map_err(Error::from);
        let listed = listed.and_then(|snapshotter| self.list_sandbox(id, name, wanted, snapshotter, start));
        let sandbox = listed.inspect_err(|e| request.failed(e))?;
        match self.build_sandbox(&sandbox, request).await {
            Ok(pid) => {
                self.sandbox_made(&sandbox, pid);
                tracing::info!(sandbox = id, name = sandbox.record().name, ip = sandbox.record().ip, "sandbox made");
                Ok(())
            }
            Err(e) => {
                request.failed(&e);
                let _clean = request.stage("rollback");
                self.discard_sandbox(&sandbox).await;
                Err(e)
            }
        }
    }

    /// Puts a sandbox that is to be made among the others, with an SELinux label that none of them has.
    fn list_sandbox(
        &self,
        id: &str,
        name: String,
        wanted: SandboxRequest,
        snapshotter: String,
        start: Arc<PodStart>,
    ) -> Result<Arc<Sandbox>> {
        let settings = &self.config.runtime;
        let contexts = selinux::contexts(settings, self.host.facts());
        let options = context(&wanted.config).and_then(|context| context.selinux_options.as_ref());
        // Held until the sandbox is listed: two at a time must not choose the same label.
        let _choosing = self.labels.lock().unwrap_or_else(PoisonError::into_inner);
        let others = self.sandboxes.list();
        let taken: Vec<String> = match contexts {
            Some(_) => others.iter().map(|other| other.record().process_label.clone()).collect(),
            None => Vec::new(),
        };
        let taken = taken.iter().map(String::as_str);
        let label = selinux::of_pod(options, contexts, settings.selinux_category_range, taken)?;
        let record = Record {
            id: id.to_owned(),
            name,
            netns: if own_network(&wanted.config) { host::new_netns_path(&self.config) } else { Default::default() },
            config: wanted.config,
            ip: String::new(),
            additional_ips: Vec::new(),
            runtime_handler: wanted.handler,
            cni_result: None,
            process_label: label.process,
            created_at: self.host.now(),
            phase: Phase::Creating,
            updated_resources: None,
        };
        if !record.host_network() {
            crate::network::check(&record.network())?;
        }
        let sandbox = Arc::new(Sandbox::begun(record, snapshotter, State::Creating, start));
        self.sandboxes.insert(sandbox.clone());
        Ok(sandbox)
    }

    /// Cleans up after a sandbox that could not be made. What can't be cleaned stays listed, for stop and remove.
    pub(crate) async fn discard_sandbox(&self, sandbox: &Sandbox) {
        let record = sandbox.record();
        let mut cleaned = self.stop_sandbox_parts(&record).await;
        if cleaned.is_ok() {
            cleaned = self.remove_sandbox_parts(&record.id, &sandbox.snapshotter).await;
        }
        let Err(e) = cleaned else {
            self.sandboxes.remove(&record.id);
            sandbox.life.ended(Leftover::Nothing);
            return;
        };
        tracing::warn!(sandbox = record.id, error = %e, "a failed sandbox could not be cleaned up; it waits for removal");
        let failed = Record { phase: Phase::Failed, ..(*record).clone() };
        let kept = match failed.to_any() {
            Ok(value) => self.complete_record(&record.id, None, Some((record::EXTENSION, value))).await,
            Err(e) => Err(e.into()),
        };
        match kept {
            // The record never came to be, so the next daemon would not know of the rest either: we do.
            Err(e) if e.is_not_found() => {}
            Err(e) => tracing::warn!(sandbox = record.id, error = %e, "its record still says that it is being made"),
            Ok(()) => {}
        }
        sandbox.set_record(failed);
        self.sandbox_failed(sandbox);
    }

    /// The graph. The pid of the pause process.
    async fn build_sandbox(&self, sandbox: &Sandbox, request: &Request) -> Result<u32> {
        let record = sandbox.record();
        let id = record.id.as_str();
        let image = {
            let _stage = request.stage_of("image", &self.config.images.sandbox_image);
            self.images
                .ensure(&self.config.images.sandbox_image, &sandbox.snapshotter)
                .await
                .context("get the sandbox image")?
        };
        let hostname = match record.config.hostname.as_str() {
            "" => self.host.hostname(),
            name => name.to_owned(),
        };
        let plan = Plan {
            record: &record,
            runtime: self.runtime(&record.runtime_handler)?,
            image: &image,
            hostname: &hostname,
            snapshotter: &sandbox.snapshotter,
        };
        let accounts = self.accounts.get(&image.chain_id);
        let spec = match &accounts {
            Some(accounts) => {
                let _stage = request.stage("spec");
                Some(self.sandbox_spec(&plan, accounts).await?)
            }
            None => None,
        };
        let spec_follows = spec.is_none();
        {
            let _stage = request.stage("record");
            self.create_record(NewRecord {
                id,
                kind: Kind::Sandbox,
                labels: &record.config.labels,
                image: &image.reference,
                runtime: plan.runtime,
                snapshotter: plan.snapshotter,
                sandbox: "",
                spec,
                extension: (record::EXTENSION, record.to_any()?),
            })
            .await?;
        }
        let (netns_made, netns) = oneshot::channel();
        let (files_made, files) = oneshot::channel();
        let (network, files, task) = tokio::join!(
            self.sandbox_network(&plan, request, netns_made),
            self.sandbox_files(&plan, request, files_made),
            self.sandbox_task(&plan, request, spec_follows, netns, files),
        );
        // The task's branch also fails when another one did; that one's error says why.
        let setup = network?;
        files?;
        let _pid = task?;
        let made = match setup {
            Some(setup) => with_network(&record, setup),
            None => Record { phase: Phase::Made, ..(*record).clone() },
        };
        let pid = {
            let _stage = request.stage("task-start");
            self.start_process(id, "").await?
        };
        // Only now: a record that says "made" with a process that never ran would keep its name from the next try.
        {
            let _stage = request.stage("record-update");
            self.complete_record(id, None, Some((record::EXTENSION, made.to_any()?))).await?;
        }
        sandbox.set_record(made);
        Ok(pid)
    }

    async fn sandbox_network(
        &self,
        plan: &Plan<'_>,
        request: &Request,
        made: oneshot::Sender<()>,
    ) -> Result<Option<Setup>> {
        let record = plan.record;
        if record.host_network() {
            // Nobody waits any more when the task's branch has failed.
            let _ = made.send(());
            return Ok(None);
        }
        {
            let _stage = request.stage("netns");
            self.host.create_netns(&record.netns).await?;
        }
        let _ = made.send(());
        let _stage = request.stage("cni");
        Ok(Some(self.network_of(&record.runtime_handler).setup(&record.network()).await?))
    }

    async fn sandbox_files(&self, plan: &Plan<'_>, request: &Request, made: oneshot::Sender<()>) -> Result<()> {
        let _stage = request.stage("files");
        let dirs = paths::sandbox(&self.config, &plan.record.id);
        if !host_ipc(&plan.record.config) {
            self.host.mount_shm(&dirs.shm(), host::SHM_SIZE).await?;
        }
        let (config, hostname) = (plan.record.config.clone(), plan.hostname.to_owned());
        shared_sys::blocking(move || spec::write_files(&dirs, &config, &hostname)).await?;
        // Nobody waits any more when the task's branch has failed.
        let _ = made.send(());
        Ok(())
    }

    async fn sandbox_task(
        &self,
        plan: &Plan<'_>,
        request: &Request,
        spec_follows: bool,
        netns: oneshot::Receiver<()>,
        files: oneshot::Receiver<()>,
    ) -> Result<u32> {
        let id = plan.record.id.as_str();
        let mounts = {
            let _stage = request.stage_of("snapshot", plan.snapshotter);
            self.prepare(plan.snapshotter, id, plan.image).await?
        };
        if spec_follows {
            let accounts = {
                let _stage = request.stage("user");
                let read = self.accounts.read(&plan.image.chain_id, mounts.clone()).await;
                read.map_err(|e| Error::internal(format!("look into the sandbox image: {e}")))?
            };
            let _stage = request.stage("spec");
            let spec = self.sandbox_spec(plan, &accounts).await?;
            self.complete_record(id, Some(spec), None).await?;
        }
        let given_up = |_| Error::new(shared_proto::Code::Aborted, "another part of the sandbox failed");
        netns.await.map_err(given_up)?;
        files.await.map_err(given_up)?;
        let _stage = request.stage_of("task-create", &plan.runtime.runtime_type);
        self.create_task(id, mounts, &Io::default(), plan.runtime).await
    }

    async fn sandbox_spec(&self, plan: &Plan<'_>, accounts: &Arc<Accounts>) -> Result<Vec<u8>> {
        let user = user_request(&plan.record.config, plan.image);
        let dirs = paths::sandbox(&self.config, &plan.record.id);
        let (record, image, accounts) = (plan.record.clone(), plan.image.config.clone(), accounts.clone());
        let (runtime, settings) = (plan.runtime.clone(), self.config.runtime.clone());
        let (hostname, host) = (plan.hostname.to_owned(), self.host.clone());
        // No options: the pod's own label, as it was chosen.
        let label = selinux::of_container(None, selinux::contexts(&settings, host.facts()), &record.process_label)?;
        let image_name = self.config.images.sandbox_image.clone();
        let make = move || -> Result<Vec<u8>, SpecError> {
            let user = spec::user::resolve(&user, &mut |path| accounts.file(path))?;
            let input = SandboxInput {
                id: &record.id,
                image_name: &image_name,
                config: &record.config,
                image: &image,
                runtime: &runtime,
                settings: &settings,
                netns: (!record.host_network()).then_some(record.netns.as_path()),
                hostname: &hostname,
                dirs: &dirs,
                label: &label,
                user: &user,
                host: host.facts(),
                apparmor: host.apparmor(),
            };
            spec::to_json(&spec::sandbox(&input)?)
        };
        Ok(shared_sys::blocking(make).await?)
    }
}

fn with_network(record: &Record, setup: Setup) -> Record {
    let mut ips = setup.ips.iter().map(ToString::to_string);
    Record {
        ip: ips.next().unwrap_or_default(),
        additional_ips: ips.collect(),
        cni_result: Some(setup.result),
        phase: Phase::Made,
        ..record.clone()
    }
}

fn context(config: &v1::PodSandboxConfig) -> Option<&v1::LinuxSandboxSecurityContext> {
    config.linux.as_ref()?.security_context.as_ref()
}

fn namespaces(config: &v1::PodSandboxConfig) -> Option<&v1::NamespaceOption> {
    context(config)?.namespace_options.as_ref()
}

fn own_network(config: &v1::PodSandboxConfig) -> bool {
    namespaces(config).is_none_or(|options| options.network() != v1::NamespaceMode::Node)
}

fn host_ipc(config: &v1::PodSandboxConfig) -> bool {
    namespaces(config).is_some_and(|options| options.ipc() == v1::NamespaceMode::Node)
}

fn user_request(config: &v1::PodSandboxConfig, image: &ResolvedImage) -> UserRequest {
    let image_user = image.config.config().as_ref().and_then(|c| c.user().clone()).unwrap_or_default();
    let Some(context) = context(config) else { return UserRequest { image_user, ..Default::default() } };
    UserRequest {
        uid: context.run_as_user.map(|id| id.value),
        gid: context.run_as_group.map(|id| id.value),
        username: String::new(),
        supplemental_groups: context.supplemental_groups.clone(),
        policy: context.supplemental_groups_policy,
        image_user,
    }
}
