//! The differences from Debian's containerd 1.6 that stay: one table of sentences, one of all else.
//!
//! Both are tested: what does not differ any more must go from here.

/// The same thing said in other words. The kind of the error, behind the last colon, must be the same.
#[derive(Debug)]
pub struct Wording {
    /// What it says; `$1` is what both sides say, mostly a name.
    pub meaning: &'static str,
    /// Regular expressions for containerd's words and for ours.
    pub theirs: &'static str,
    pub ours: &'static str,
}

const fn wording(meaning: &'static str, theirs: &'static str, ours: &'static str) -> Wording {
    Wording { meaning, theirs, ours }
}

/// A name is in quotes, or in escaped quotes where it is part of a line of a log.
pub const WORDINGS: &[Wording] = &[
    // Names, labels and filters.
    wording(
        "$1 is no name",
        r#"(?:namespace validation: |create container failed validation: container\.ID: |invalid exec id .*?: )?identifier "(.*?)" must match \S+\$"#,
        r#"(?:namespace|id) "(.*?)" is not of the form \S+\*"#,
    ),
    wording(
        "$1 is too long",
        r#"(?:create container failed validation: container\.ID: )?identifier "(\w+)" greater than maximum length \(76 characters\)"#,
        r#"(?:namespace|id) "(\w+)" is longer than 76 characters"#,
    ),
    wording(
        "a label is too long",
        r"(?:(?:create container|update) failed validation: )?\w+\.Labels: label key and value greater than maximum size \(4096 bytes\), key: k+",
        r#"label "k+" is longer than 4096 bytes \(key and value\)"#,
    ),
    wording(
        "a filter without an operator: invalid argument",
        r#"filters: parse error: \[.*\]: unsupported operator "=~"(?:: invalid argument)+"#,
        r#"filter ".*": expected one of the operators ==, != and ~=, at byte \d+: invalid argument"#,
    ),
    // Records.
    wording(
        "no container $1: not found",
        r#"container (\\?"[^"\\]*\\?") in namespace \\?"[^"\\]*\\?": not found"#,
        r#"container (\\?"[^"\\]*\\?"): not found"#,
    ),
    wording(
        "namespace $1 must be empty",
        r#"namespace (\\?".*?\\?") must be empty"#,
        r#"namespace (\\?".*?\\?"): must be empty"#,
    ),
    // Content.
    wording("no content $1", r"content digest (sha256:\w+)", r"content (sha256:\w+)"),
    wording(
        "$1 has $2 bytes, not $3",
        r#""(\w+)" failed size validation: (\d+) != (\d+)"#,
        r"ref (\w+): unexpected commit size (\d+), expected (\d+)",
    ),
    // Snapshots.
    wording("no snapshotter $1", r"snapshotter not loaded: (\w+)", r#"snapshotter "(\w+)" is not configured"#),
    wording("no snapshot $1: not found", r"snapshot (\S+) does not exist: not found", r#"snapshot "(\S+)": not found"#),
    wording(
        "the parent $1 is not committed",
        r#"failed to create snapshot: parent "snapshots/\d+/(\w+)" is not committed snapshot"#,
        r#"parent snapshot "(\w+)" is not committed"#,
    ),
    wording(
        "$1 has no mounts",
        r"failed to get active mount: requested snapshot snapshots/\d+/(\w+) not active or view",
        r#"snapshot "(\w+)" is committed, but must be active or a view"#,
    ),
    wording(
        "$1 is not active",
        r#"failed to commit snapshot: snapshot "snapshots/\d+/(\w+)" is not active"#,
        r#"snapshot "(\w+)" is (?:committed|a view), but must be active"#,
    ),
    wording(
        "it has children",
        r"cannot remove snapshot with child",
        r#"snapshot "\S+" has children and can't be removed"#,
    ),
    wording(
        "$1 is no layer",
        r"unsupported diff media type: ([^\s:]+)",
        r#"media type "(\S+)" is not that of a layer"#,
    ),
    // Tasks and processes.
    wording(
        "no task $1: not found",
        r"task (\w+) not found: not found",
        r#"task "(\w+)" in namespace "\w+": not found"#,
    ),
    wording("there is a task $1", r"task (\w+): already exists", r#"task "(\w+)" in namespace "\w+": already exists"#),
    wording(
        "there is a process $1",
        r"id (\w+): already exists",
        r#"task "\w+": Exec: container "\w+" has a process "(\w+)" already: already exists"#,
    ),
    wording(
        "no process $1",
        r"process does not exist (\w+)",
        r#"(?:state of task "\w+" process "\w+"|task "\w+": Kill): container "\w+" has no process "(\w+)""#,
    ),
    wording("it has ended", r"process already finished", r#"task "\w+": process "" has already finished"#),
    wording("no task was made", r"failed to create shim task:", r#"failed to create shim task "\w+":"#),
    wording("no process was made", r"OCI runtime exec failed:", r#"task "\w+": Start: OCI runtime exec failed:"#),
];

/// What one command says otherwise, and why.
#[derive(Debug)]
pub struct Difference {
    /// Script and command; `*` stands for anything.
    pub script: &'static str,
    pub command: &'static str,
    pub why: &'static str,
    /// Lines that only containerd (`- `) or only we (`+ `) say; `*` stands for anything.
    pub lines: &'static [&'static str],
}

pub const DIFFERENCES: &[Difference] = &[
    Difference {
        script: "version",
        command: "ctr version",
        why: "We are another program. The version is above 1.6, so that clients use what came later.",
        lines: &[
            "- * Version: 1.6.*",
            "- * Revision: 1.6.*",
            "+ * Version: 1.7.99+seam.*",
            "+ * Revision: *",
            "+ WARNING: version mismatch",
            "+ WARNING: revision mismatch",
        ],
    },
    Difference {
        script: "plugins",
        command: "ctr plugins ls | sort",
        why: "Parts that we don't have: snapshotters of other file systems, the old runtime, the folder of `ctr install`; \
              CRI is no part of the core; containerd lists the inside of each service as well.",
        lines: &[
            "- io.containerd.snapshotter.v1 aufs linux/* skip",
            "- io.containerd.snapshotter.v1 btrfs linux/* skip",
            "- io.containerd.snapshotter.v1 devmapper linux/* error",
            "- io.containerd.snapshotter.v1 zfs linux/* skip",
            "- io.containerd.runtime.v1 linux linux/* ok",
            "- io.containerd.internal.v1 opt - ok",
            "- io.containerd.internal.v1 restart - ok",
            "- io.containerd.monitor.v1 cgroups linux/* ok",
            "- io.containerd.grpc.v1 cri linux/* ok",
            "- io.containerd.service.v1 * - ok",
        ],
    },
    Difference {
        script: "plugins",
        command: "ctr plugins ls | sort",
        why: "Parts that containerd got later, and the database, which is another one.",
        lines: &[
            "- io.containerd.metadata.v1 bolt - ok",
            "+ io.containerd.metadata.v1 sqlite - ok",
            "+ io.containerd.lease.v1 manager - ok",
            "+ io.containerd.sandbox.store.v1 local - ok",
            "+ io.containerd.streaming.v1 manager - ok",
            "+ io.containerd.transfer.v1 local linux/* ok",
            "+ io.containerd.grpc.v1 sandboxes - ok",
            "+ io.containerd.grpc.v1 streaming - ok",
            "+ io.containerd.grpc.v1 transfer - ok",
        ],
    },
    Difference {
        script: "plugins",
        command: "ctr plugins ls -d *id==native",
        why: "Every snapshotter tells its folder; in 1.6 overlayfs alone does.",
        lines: &["+ Exports:", "+  root DIR/root/io.containerd.snapshotter.v1.native"],
    },
    Difference {
        script: "namespaces",
        command: "ctr * 'no name' snapshots ls",
        why: "containerd loses the kind of the error.",
        lines: &[
            "- ctr: <no name is no name>: invalid argument: unknown",
            "+ ctr: <no name is no name>: invalid argument",
        ],
    },
    Difference {
        script: "namespaces",
        command: "ctr namespaces label *",
        why: "The same.",
        lines: &[
            "- ctr: <a label is too long>: invalid argument: unknown",
            "+ ctr: <a label is too long>: invalid argument",
        ],
    },
    Difference {
        script: "namespaces",
        command: "ctr * 'no name' tasks ls",
        why: "`ctr` shows this error as it came; only containerd's text repeats the kind.",
        lines: &[
            "- ctr: rpc error: code = InvalidArgument desc = <no name is no name>: invalid argument",
            "+ ctr: rpc error: code = InvalidArgument desc = <no name is no name>",
        ],
    },
    Difference {
        script: "leases",
        command: "ctr leases create --id 'a name'",
        why: "An id of a lease is sent in a header, so it is visible ASCII.",
        lines: &[
            "- a name",
            "- exit 0",
            "+ ctr: lease id * has characters that are not visible ASCII: invalid argument",
            "+ exit 1",
        ],
    },
    Difference {
        script: "leases",
        command: "ctr leases create --id fifth *",
        why: "Labels of leases have a limit like all others.",
        lines: &["- fifth", "- exit 0", "+ ctr: <a label is too long>: invalid argument", "+ exit 1"],
    },
    Difference {
        script: "leases",
        command: "ctr leases rm 'a name' fifth",
        why: "They were not made.",
        lines: &["- a name", "- fifth", "- exit 0", "+ ctr: lease *: not found", "+ exit 1"],
    },
    Difference {
        script: "content",
        command: "ctr content ls -q size==6",
        why: "containerd knows the field, but finds nothing by it.",
        lines: &["+ sha256:*"],
    },
    Difference {
        script: "snapshots",
        command: "ctr snapshots --snapshotter native * --target *",
        why: "A native snapshot is a folder in the snapshot's folder, as it is of overlayfs.",
        lines: &["- mount -t bind * -o rbind,r*", "+ mount -t bind */fs /mnt -o r*,rbind"],
    },
    Difference {
        script: "*",
        command: "*",
        why: "The engine writes to the container's own error stream, and so says why it failed there as well. \
              containerd's shim throws that away.",
        lines: &["+ runc create failed: *", "+ exec failed: *"],
    },
    Difference {
        script: "run",
        command: "* --runtime *",
        why: "What the caller asks for wrongly is an invalid argument.",
        lines: &["- ctr: failed to start shim: *: unknown", "+ ctr: runtime *: invalid argument"],
    },
    Difference {
        script: "run",
        command: "* --runc-binary *",
        why: "The same thing in a sentence of its own.",
        lines: &[
            "- ctr: <no task was made> * /none: no such file or directory: unknown",
            "+ ctr: <no task was made> run /none: No such file * (os error 2): unknown",
        ],
    },
    Difference {
        script: "tasks",
        command: "*",
        why: "The wrong moment is a failed precondition.",
        lines: &[
            "- ctr: cannot pause a paused container: unknown",
            "+ ctr: task *: Pause: cannot pause container *: it is paused: failed precondition",
            "- ctr: cannot exec in a paused state: unknown",
            "+ ctr: task *: Start: cannot exec in container *: it is paused: failed precondition",
            "- ctr: cannot resume a running process: unknown",
            "+ ctr: task *: Resume: cannot resume container *: it is not paused: failed precondition",
            "- ctr: cannot pause a stopped container: unknown",
            "+ ctr: task *: Pause: cannot pause container *: it has ended: failed precondition",
            "- ctr: cannot exec in a stopped state: unknown",
            "+ ctr: task *: Exec: cannot exec in container *: it has ended: failed precondition",
        ],
    },
    Difference {
        script: "tasks",
        command: "ctr tasks kill -s 99 c1",
        why: "What is no signal is an invalid argument, and is not tried.",
        lines: &[
            "- ctr: unknown error after kill: *",
            "- : unknown",
            "+ ctr: task *: no signal has the number 99: invalid argument",
        ],
    },
    Difference {
        script: "events",
        command: "seen",
        why: "As in later versions, the end of a task tells the id of the process.",
        lines: &[
            "- * /tasks/delete *\"exited_at\":\"TIME\"}",
            "+ * /tasks/delete *\"exited_at\":\"TIME\",\"id\":\"c1\"}",
        ],
    },
    Difference {
        script: "events",
        command: "seen*",
        why: "Content that was collected is told as well as content that was removed: there are those who keep lists of it.",
        lines: &["+ * /content/delete*"],
    },
    Difference {
        script: "events",
        command: "ctr events *",
        why: "A filter that can't be read is an invalid argument.",
        lines: &[
            "- ctr: rpc error: code = Unknown desc = subscription error: failed parsing subscription filters: *",
            "+ ctr: rpc error: code = InvalidArgument desc = filter *",
        ],
    },
    Difference {
        script: "refusals",
        command: "ctr install example.com/busybox:1",
        why: "The core has no folder for programs: they come from the node.",
        lines: &["- exit 0", "+ ctr: opt service not enabled", "+ exit 1"],
    },
];
