//! containerd's filter language, which lists and event streams take.
//!
//! ```text
//! filter    = selector *("," selector)            all of them must hold
//! selector  = fieldpath [operator value]          without an operator: the field is there
//! fieldpath = field *("." field)                  labels."a.b/c": a quoted field may hold anything
//! operator  = "==" | "!=" | "~="                  "~=" is a regular expression that is found anywhere
//! value     = quoted | 1*(anything but "," and space)
//! quoted    = "…" with Go's escapes; behind "~=" also |…| or /…/, where only the quote itself is escaped
//! ```
//!
//! Of several filters one must hold; no filter, like an empty one, lets everything pass. A malformed filter or
//! expression is refused, while containerd lets an expression that does not compile match nothing.
//!
//! Limits: [`MAX_FILTER`] bytes a filter.

use std::borrow::Cow;

use regex::Regex;

use super::{Invalid, Labels};

mod parse;

/// The longest filter, bytes.
pub const MAX_FILTER: usize = 16 << 10;

/// What filters can look at.
pub trait Fields {
    /// The value at a path. `None` and an empty value both mean that the field is not there.
    fn field(&self, path: &[&str]) -> Option<Cow<'_, str>>;
}

/// Filters, one of which must hold.
#[derive(Debug, Clone, Default)]
pub struct Filters(Vec<Filter>);

/// Selectors, all of which must hold.
#[derive(Debug, Clone, Default)]
struct Filter(Vec<Selector>);

#[derive(Debug, Clone)]
struct Selector {
    path: Vec<String>,
    test: Test,
}

#[derive(Debug, Clone)]
enum Test {
    Present,
    Equal(String),
    NotEqual(String),
    Matches(Regex),
}

impl Filters {
    /// Parses the filters of a request.
    pub fn parse<S: AsRef<str>>(filters: &[S]) -> Result<Self, Invalid> {
        filters.iter().map(|filter| parse::filter(filter.as_ref())).collect::<Result<_, _>>().map(Self)
    }

    /// Whether everything passes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty() || self.0.iter().any(|filter| filter.0.is_empty())
    }

    pub fn matches(&self, object: &impl Fields) -> bool {
        self.0.is_empty() || self.0.iter().any(|filter| filter.0.iter().all(|selector| selector.matches(object)))
    }
}

impl Selector {
    fn matches(&self, object: &impl Fields) -> bool {
        let path: Vec<&str> = self.path.iter().map(String::as_str).collect();
        let found = object.field(&path);
        let value = found.as_deref().unwrap_or_default();
        match &self.test {
            Test::Present => !value.is_empty(),
            Test::Equal(wanted) => !value.is_empty() && value == wanted,
            Test::NotEqual(unwanted) => value != unwanted,
            Test::Matches(expression) => expression.is_match(value),
        }
    }
}

/// The value of a label, for [`Fields`]: a key may be written as one quoted field or as several.
pub fn label<'a>(labels: &'a Labels, key: &[&str]) -> Option<Cow<'a, str>> {
    let value = match key {
        [one] => labels.get(*one),
        several => labels.get(&several.join(".")),
    };
    value.map(|value| value.as_str().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Thing(Labels);

    impl Fields for Thing {
        fn field(&self, path: &[&str]) -> Option<Cow<'_, str>> {
            match path {
                ["id"] => Some("redis-1".into()),
                ["runtime", "name"] => Some("io.containerd.runc.v2".into()),
                ["empty"] => Some("".into()),
                ["labels", key @ ..] => label(&self.0, key),
                _ => None,
            }
        }
    }

    fn passes(filters: &[&str]) -> bool {
        let labels = [("a.b/c", "x,y"), ("plain", "1"), ("dotted.key", "2"), ("q\"uote", "\u{fc}")];
        let thing = Thing(labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect());
        Filters::parse(filters).unwrap_or_else(|e| panic!("{filters:?}: {e}")).matches(&thing)
    }

    #[test]
    fn selects() {
        for yes in [
            "",
            "id",
            "id==redis-1",
            "id == redis-1",
            "id==\"redis-1\"",
            "id!=redis",
            "id~=^redis",
            "id~=/^redis-[0-9]$/",
            "id~=|^redis|",
            "runtime.name==io.containerd.runc.v2",
            "labels.\"a.b/c\"==\"x,y\"",
            "labels.\"a.b/c\"",
            "labels.plain==1,id~=redis",
            "labels.dotted.key==2",
            "labels.\"dotted.key\"==2",
            "labels.\"q\\\"uote\"==\"\\u00fc\"",
            "unknown!=x",
            "labels.\"a.b/c\"~=/x\\,y/",
            "id~=|redis\\-\\d|",
        ] {
            assert!(passes(&[yes]), "{yes}");
        }
        for no in
            ["id==redis", "id!=redis-1", "empty", "unknown", "labels.absent", "labels.plain==1,id==x", "unknown==\"\""]
        {
            assert!(!passes(&[no]), "{no}");
        }
    }

    #[test]
    fn several_filters_are_alternatives() {
        assert!(passes(&[]));
        assert!(passes(&["id==x", "labels.plain==1"]));
        assert!(!passes(&["id==x", "labels.plain==2"]));
        assert!(Filters::parse(&["id==x", ""]).unwrap().is_empty());
    }

    #[test]
    fn the_filter_of_docker() {
        struct Event(&'static str, &'static str);
        impl Fields for Event {
            fn field(&self, path: &[&str]) -> Option<Cow<'_, str>> {
                match path {
                    ["namespace"] => Some(self.0.into()),
                    ["topic"] => Some(self.1.into()),
                    _ => None,
                }
            }
        }
        let filters = Filters::parse(&["namespace==moby,topic~=|^/tasks/|"]).unwrap();
        assert!(filters.matches(&Event("moby", "/tasks/exit")));
        assert!(!filters.matches(&Event("moby", "/images/create")));
        assert!(!filters.matches(&Event("k8s.io", "/tasks/exit")));
    }

    #[test]
    fn malformed_ones_are_refused_by_name() {
        let long = "x".repeat(MAX_FILTER + 1);
        for bad in [
            "=",
            "id=",
            "id==",
            "id=x",
            "id==x,",
            ",id",
            "id==\"x",
            "id~=[",
            "id~=/a",
            "a..b",
            "labels.",
            "id==x y",
            "id==|x",
            "1 2",
            "id~=\"\\q\"",
            &long,
        ] {
            let error = Filters::parse(&[bad]).map(|_| bad).unwrap_err();
            assert!(error.0.contains("filter"), "{error}");
        }
    }
}
