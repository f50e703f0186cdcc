-- Version 1. Times are nanoseconds since the epoch (UTC). Labels are JSON objects of strings, keys sorted.
-- `ns` is the containerd namespace: every object belongs to one, and every key starts with it.

CREATE TABLE namespaces (
    name   TEXT PRIMARY KEY,
    labels TEXT NOT NULL DEFAULT '{}'
) STRICT, WITHOUT ROWID;

CREATE TABLE containers (
    ns           TEXT NOT NULL,
    id           TEXT NOT NULL,
    labels       TEXT NOT NULL,
    image        TEXT NOT NULL,
    runtime_name TEXT NOT NULL,
    snapshotter  TEXT NOT NULL,
    snapshot_key TEXT NOT NULL,
    sandbox      TEXT NOT NULL,
    created_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL,
    PRIMARY KEY (ns, id)
) STRICT, WITHOUT ROWID;

-- What a container's record only carries, byte for byte as given. Apart from the record, so that lists, filters and
-- label updates don't touch it.
CREATE TABLE container_payloads (
    ns        TEXT NOT NULL,
    container TEXT NOT NULL,
    kind      TEXT NOT NULL,          -- 'extension', 'options' (of the runtime) or 'spec'
    name      TEXT NOT NULL,          -- of the extension; else ''
    type_url  TEXT NOT NULL,
    value     BLOB NOT NULL,
    PRIMARY KEY (ns, container, kind, name),
    FOREIGN KEY (ns, container) REFERENCES containers (ns, id) ON DELETE CASCADE
) STRICT;

CREATE TABLE sandboxes (
    ns         TEXT NOT NULL,
    id         TEXT NOT NULL,
    labels     TEXT NOT NULL,
    record     BLOB NOT NULL,         -- containerd.types.Sandbox, encoded, without its labels and times
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (ns, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE images (
    ns          TEXT NOT NULL,
    name        TEXT NOT NULL,
    labels      TEXT NOT NULL,
    media_type  TEXT NOT NULL,
    digest      TEXT NOT NULL,
    size        INTEGER NOT NULL,
    annotations TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL,
    PRIMARY KEY (ns, name)
) STRICT, WITHOUT ROWID;

-- Which namespace sees which blob. The bytes lie once, under the digest.
CREATE TABLE blobs (
    ns         TEXT NOT NULL,
    digest     TEXT NOT NULL,
    size       INTEGER NOT NULL,
    labels     TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (ns, digest)
) STRICT, WITHOUT ROWID;
CREATE INDEX blobs_by_digest ON blobs (digest);

-- Running downloads. Offset and digest are state of the file under ingest/<dir>.
CREATE TABLE ingests (
    ns         TEXT NOT NULL,
    ref        TEXT NOT NULL,
    dir        TEXT NOT NULL UNIQUE,
    expected   TEXT NOT NULL,
    total      INTEGER NOT NULL,
    started_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (ns, ref)
) STRICT, WITHOUT ROWID;

CREATE TABLE leases (
    ns         TEXT NOT NULL,
    id         TEXT NOT NULL,
    labels     TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (ns, id)
) STRICT, WITHOUT ROWID;

-- `type` is `content`, `ingests`, `images` or `snapshots/<snapshotter>`.
CREATE TABLE lease_resources (
    ns    TEXT NOT NULL,
    lease TEXT NOT NULL,
    type  TEXT NOT NULL,
    id    TEXT NOT NULL,
    PRIMARY KEY (ns, lease, type, id),
    FOREIGN KEY (ns, lease) REFERENCES leases (ns, id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX lease_resources_by_id ON lease_resources (ns, type, id);

-- What clients call a snapshot. `backend` is its key at the snapshotter, unique over all namespaces.
CREATE TABLE snapshots (
    ns          TEXT NOT NULL,
    snapshotter TEXT NOT NULL,
    name        TEXT NOT NULL,
    backend     TEXT NOT NULL,
    parent      TEXT NOT NULL,        -- a name in the same namespace; '' = none
    kind        INTEGER NOT NULL,     -- 1 view, 2 active, 3 committed
    labels      TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL,
    PRIMARY KEY (ns, snapshotter, name),
    UNIQUE (snapshotter, backend)
) STRICT, WITHOUT ROWID;
CREATE INDEX snapshots_by_parent ON snapshots (ns, snapshotter, parent);

-- What a snapshotter itself keeps. `id` names the folder snapshots/<id>.
CREATE TABLE layers (
    snapshotter TEXT NOT NULL,
    id          INTEGER NOT NULL,
    key         TEXT NOT NULL,
    parent      TEXT NOT NULL,
    kind        INTEGER NOT NULL,     -- 1 view, 2 active, 3 committed
    labels      TEXT NOT NULL,
    size        INTEGER NOT NULL,     -- bytes and inodes of a committed layer
    inodes      INTEGER NOT NULL,
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL,
    PRIMARY KEY (snapshotter, key),
    UNIQUE (snapshotter, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX layers_by_parent ON layers (snapshotter, parent);
