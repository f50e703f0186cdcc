//! Objects by id, found by any prefix that only one of them has.
//!
//! Reads never wait for anything but the map's lock, so the kubelet's lists (one a second) cost no call on the core.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use shared_proto::{Error, Result};

/// Something with an id.
pub trait Identified: Send + Sync + 'static {
    /// What messages call it: `sandbox`, `container`.
    const KIND: &'static str;
    fn id(&self) -> &str;
}

/// All objects of a kind, in the order of their ids.
pub struct Store<T>(RwLock<BTreeMap<String, Arc<T>>>);

impl<T> Default for Store<T> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<T: Identified> Store<T> {
    /// The object with this id, or the only one whose id begins with it.
    ///
    /// `NotFound` when there is none or the prefix is empty; `InvalidArgument` when there are several.
    pub fn get(&self, prefix: &str) -> Result<Arc<T>> {
        if prefix.is_empty() {
            return Err(Error::not_found(format!("no {} has an empty id", T::KIND)));
        }
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut matching = all.range(prefix.to_owned()..).take_while(|(id, _)| id.starts_with(prefix));
        match (matching.next(), matching.next()) {
            (Some((_, found)), None) => Ok(found.clone()),
            (Some((id, found)), Some(_)) if id == prefix => Ok(found.clone()),
            (Some((one, _)), Some((other, _))) => {
                Err(Error::invalid(format!("{} id {prefix:?} is ambiguous: it may be {one} or {other}", T::KIND)))
            }
            (None, _) => Err(Error::not_found(format!("{} {prefix:?}: not found", T::KIND))),
        }
    }

    /// Like [`Store::get`], with `None` for one that is not there: stop and remove are done then.
    pub fn find(&self, prefix: &str) -> Result<Option<Arc<T>>> {
        match self.get(prefix) {
            Ok(found) => Ok(Some(found)),
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The object with exactly this id.
    pub fn exact(&self, id: &str) -> Option<Arc<T>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    pub fn insert(&self, object: Arc<T>) {
        let id = object.id().to_owned();
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(id, object);
    }

    pub fn remove(&self, id: &str) -> Option<Arc<T>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(id)
    }

    pub fn list(&self) -> Vec<Arc<T>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared_proto::Code;

    struct Thing(&'static str);

    impl Identified for Thing {
        const KIND: &'static str = "thing";
        fn id(&self) -> &str {
            self.0
        }
    }

    #[test]
    fn prefixes_find_what_only_they_can_mean() {
        let store = Store::default();
        for id in ["ab12", "ab34", "ab", "cd"] {
            store.insert(Arc::new(Thing(id)));
        }
        assert_eq!(store.get("c").unwrap().0, "cd");
        assert_eq!(store.get("ab1").unwrap().0, "ab12");
        assert_eq!(store.get("ab").unwrap().0, "ab", "an exact id is never ambiguous");
        let e = store.get("a").err().unwrap();
        assert_eq!(e.code, Code::InvalidArgument);
        assert!(e.message.contains("ab12"), "{e}");
        assert_eq!(store.get("").err().unwrap().code, Code::NotFound);
        assert_eq!(store.get("x").err().unwrap().code, Code::NotFound);
        assert!(store.find("x").unwrap().is_none() && store.find("a").is_err());
        assert!(store.exact("c").is_none());
        store.remove("cd");
        assert!(store.find("cd").unwrap().is_none());
    }
}
