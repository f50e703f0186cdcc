//! The database: one writer thread with group commit, readers that never wait for it.
//!
//! Writes are closures, queued to one thread. It takes all that wait, runs each in its own savepoint of one
//! transaction, commits once and answers all of them: many writers share one fsync. A closure that fails rolls back
//! its own savepoint only. A batch in which nobody asked for [`Durability::Durable`] is committed without an fsync;
//! SQLite's write-ahead log keeps it consistent, and the next durable commit makes it durable too. (That is
//! `synchronous=NORMAL`: with `OFF`, a checkpoint could write the database before its log is on disk.)
//!
//! Readers have connections of their own and see the last commit (WAL); they never wait for an fsync.
//!
//! Limits: one opener (a lock beside the file); at most [`BATCH`] writes a commit; [`READERS`] idle readers are kept.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use shared_sys::files::Durability;
use tokio::sync::oneshot;

use super::migrations;
use crate::stages;

/// The most writes that share one commit.
const BATCH: usize = 256;
/// Idle reading connections that are kept: each has a cache of up to 2 MB.
const READERS: usize = 8;
/// Prepared statements that a connection keeps: more than there are.
const STATEMENTS: usize = 256;

/// Why the database could not do something.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    #[error("metadata database: {0}")]
    Sqlite(#[from] rusqlite::Error),
    #[error("metadata database {path}: {source}")]
    Open { path: PathBuf, source: rusqlite::Error },
    #[error("metadata database {path} is in use: another core has the same root folder")]
    InUse { path: PathBuf },
    #[error("lock of the metadata database {path}: {source}")]
    Lock { path: PathBuf, source: std::io::Error },
    #[error("metadata database {path} has schema version {found}, newer than this program's {known}")]
    TooNew { path: PathBuf, found: u32, known: u32 },
    #[error("metadata database: commit failed: {0}")]
    Commit(String),
    #[error("metadata database is closed")]
    Closed,
}

/// What a finished closure leaves behind: called with the error of the commit, if it failed.
type Answer = Box<dyn FnOnce(Option<&rusqlite::Error>) + Send>;
/// Runs inside the savepoint; says whether to keep what it wrote.
type Work = Box<dyn FnOnce(&Connection) -> (bool, Answer) + Send>;

struct Job {
    durability: Durability,
    work: Work,
}

/// A handle on the database; cheap to clone.
#[derive(Clone)]
pub struct Db(Arc<Inner>);

struct Inner {
    path: PathBuf,
    writer: Mutex<mpsc::Sender<Job>>,
    readers: Mutex<Vec<Connection>>,
    /// Locked as long as there is a handle.
    _lock: File,
}

impl Db {
    /// Opens or creates the database at `path` and brings its schema up to date. Blocking. `InUse` when it is open
    /// already, in whatever process.
    pub fn open(path: &Path) -> Result<Self, DbError> {
        let lock = lock(path)?;
        let named = |source| DbError::Open { path: path.to_owned(), source };
        let mut connection = Connection::open(path).map_err(named)?;
        connection.pragma_update(None, "journal_mode", "WAL").map_err(named)?;
        connection.pragma_update(None, "foreign_keys", "ON").map_err(named)?;
        prepare(&connection).map_err(named)?;
        migrations::run(&mut connection, path)?;

        let (sender, receiver) = mpsc::channel();
        std::thread::Builder::new()
            .name("db-writer".into())
            .spawn(move || write_loop(&connection, &receiver))
            .expect("spawn the database's writer thread");
        let (writer, readers) = (Mutex::new(sender), Mutex::default());
        Ok(Self(Arc::new(Inner { path: path.to_owned(), writer, readers, _lock: lock })))
    }

    /// Runs `work` in a transaction. When it answers `Ok`, the answer comes after the commit; when it answers `Err`,
    /// nothing that it wrote stays. Dropping the future does not stop the work.
    pub async fn write<T, E>(
        &self,
        durability: Durability,
        work: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<DbError> + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let work: Work = Box::new(move |connection| {
            let outcome = work(connection);
            let keep = outcome.is_ok();
            let answer: Answer = Box::new(move |failed| {
                let outcome = match failed {
                    Some(e) if keep => Err(DbError::Commit(e.to_string()).into()),
                    _ => outcome,
                };
                // A caller that went away doesn't need the answer.
                let _ = sender.send(outcome);
            });
            (keep, answer)
        });
        let queued = self.0.writer.lock().expect("writer lock").send(Job { durability, work });
        queued.map_err(|_| DbError::Closed)?;
        // The queue, the batch and its commit.
        stages::stage("database", receiver).await.map_err(|_| DbError::Closed)?
    }

    /// Runs `work` on a read-only connection, on the blocking pool.
    pub async fn read<T, E>(&self, work: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<DbError> + Send + 'static,
    {
        let inner = self.0.clone();
        shared_sys::blocking(move || {
            let connection = inner.reader()?;
            let answer = work(&connection);
            let mut idle = inner.readers.lock().expect("readers lock");
            if idle.len() < READERS {
                idle.push(connection);
            }
            answer
        })
        .await
    }
}

impl Inner {
    fn reader(&self) -> Result<Connection, DbError> {
        if let Some(connection) = self.readers.lock().expect("readers lock").pop() {
            return Ok(connection);
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let named = |source| DbError::Open { path: self.path.clone(), source };
        let connection = Connection::open_with_flags(&self.path, flags).map_err(named)?;
        prepare(&connection).map_err(named)?;
        Ok(connection)
    }
}

/// Locks the file beside the database: SQLite's own locks let other processes in between transactions.
fn lock(path: &Path) -> Result<File, DbError> {
    let beside = path.with_extension("lock");
    let failed = |source| DbError::Lock { path: beside.clone(), source };
    let file = File::options().create(true).append(true).open(&beside).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(DbError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// What every connection needs.
fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.busy_timeout(Duration::from_secs(5))
}

/// The writer thread: lives until the last handle is gone, and finishes what was queued.
fn write_loop(connection: &Connection, jobs: &mpsc::Receiver<Job>) {
    while let Ok(first) = jobs.recv() {
        let mut batch = vec![first];
        batch.extend(jobs.try_iter().take(BATCH - 1));
        commit_batch(connection, batch);
    }
}

fn commit_batch(connection: &Connection, batch: Vec<Job>) {
    let durable = batch.iter().any(|job| job.durability == Durability::Durable);
    let mut answers = Vec::with_capacity(batch.len());
    let outcome = (|| {
        connection.pragma_update(None, "synchronous", if durable { "FULL" } else { "NORMAL" })?;
        connection.execute_batch("BEGIN IMMEDIATE")?;
        for job in batch {
            connection.execute_batch("SAVEPOINT job")?;
            let run = std::panic::AssertUnwindSafe(|| (job.work)(connection));
            let keep = match std::panic::catch_unwind(run) {
                Ok((keep, answer)) => {
                    answers.push(answer);
                    keep
                }
                // The caller's answer channel was dropped with the closure: it sees `Closed`. Others go on.
                Err(_) => false,
            };
            connection.execute_batch(if keep { "RELEASE job" } else { "ROLLBACK TO job; RELEASE job" })?;
        }
        connection.execute_batch("COMMIT")
    })();
    if let Err(e) = &outcome {
        tracing::error!(error = %e, "metadata database: a commit failed");
        if !connection.is_autocommit() {
            let _ = connection.execute_batch("ROLLBACK");
        }
    }
    for answer in answers {
        answer(outcome.as_ref().err());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn scratch() -> (tempfile::TempDir, Db) {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(&dir.path().join("meta.db")).unwrap();
        db.write::<_, DbError>(Durability::Durable, |c| Ok(c.execute_batch("CREATE TABLE t (n INTEGER UNIQUE)")?))
            .await
            .unwrap();
        (dir, db)
    }

    async fn count(db: &Db) -> i64 {
        db.read::<_, DbError>(|c| Ok(c.query_row("SELECT count(*) FROM t", [], |r| r.get(0))?)).await.unwrap()
    }

    #[tokio::test]
    async fn a_failing_write_takes_back_only_its_own() {
        let (_dir, db) = scratch().await;
        let insert = |n: i64| {
            let db = db.clone();
            async move {
                db.write::<_, DbError>(Durability::Durable, move |c| {
                    c.execute("INSERT INTO t VALUES (?1 + 1000)", [n])?;
                    c.execute("INSERT INTO t VALUES (?1)", [n])?;
                    Ok(())
                })
                .await
            }
        };
        // The second pair collides with the first; the third does not.
        let (a, b, c) = tokio::join!(insert(1), insert(1), insert(2));
        assert!(a.is_ok() && b.is_err() && c.is_ok());
        assert_eq!(count(&db).await, 4);
    }

    /// Opens what was closed just now: a child that another test is about to start holds the lock until it has begun.
    fn reopen(path: &Path) -> Result<Db, DbError> {
        for _ in 0..200 {
            match Db::open(path) {
                Err(DbError::InUse { .. }) => std::thread::sleep(std::time::Duration::from_millis(10)),
                opened => return opened,
            }
        }
        Db::open(path)
    }

    #[tokio::test]
    async fn a_database_has_one_opener_at_a_time() {
        let (dir, db) = scratch().await;
        let path = dir.path().join("meta.db");
        assert!(matches!(Db::open(&path), Err(DbError::InUse { .. })));
        drop(db);
        reopen(&path).unwrap();
    }

    #[tokio::test]
    async fn what_was_written_without_a_sync_is_there_after_reopening() {
        let (dir, db) = scratch().await;
        for n in 0..2000 {
            let insert = move |c: &Connection| Ok::<_, DbError>(c.execute("INSERT INTO t VALUES (?1)", [n])?);
            db.write(Durability::Rebuildable, insert).await.unwrap();
        }
        drop(db);
        assert_eq!(count(&reopen(&dir.path().join("meta.db")).unwrap()).await, 2000);
    }

    #[tokio::test]
    async fn a_newer_schema_is_refused() {
        let (dir, db) = scratch().await;
        db.write::<_, DbError>(Durability::Durable, |c| Ok(c.pragma_update(None, "user_version", 99)?)).await.unwrap();
        drop(db);
        let e = reopen(&dir.path().join("meta.db")).map(drop).unwrap_err();
        assert!(matches!(e, DbError::TooNew { found: 99, .. }), "{e}");
    }

    #[tokio::test]
    async fn a_panicking_write_is_an_error_for_its_caller_only() {
        let (_dir, db) = scratch().await;
        let bad = db.write::<(), DbError>(Durability::Durable, |_| panic!("on purpose")).await;
        assert!(matches!(bad, Err(DbError::Closed)));
        db.write::<_, DbError>(Durability::Rebuildable, |c| Ok(c.execute("INSERT INTO t VALUES (7)", [])?))
            .await
            .unwrap();
        assert_eq!(count(&db).await, 1);
    }
}
