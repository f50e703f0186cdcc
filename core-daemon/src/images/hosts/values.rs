//! Values of `hosts.toml`, read by type; what is wrong is named with file and line.

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{ClientCert, beside};
use crate::images::ImageError;

pub(super) type Value<'a> = Spanned<DeValue<'a>>;

/// A file, and the registry that it is read for.
pub(super) struct Reader<'a> {
    pub text: &'a str,
    pub path: &'a Path,
    pub registry: &'a str,
}

impl Reader<'_> {
    pub fn line(&self, at: usize) -> usize {
        self.text[..at.min(self.text.len())].bytes().filter(|&b| b == b'\n').count() + 1
    }

    pub fn error(&self, at: usize, reason: impl Into<String>) -> ImageError {
        ImageError::HostsFile { path: self.path.to_owned(), line: self.line(at), reason: reason.into() }
    }

    pub fn wrong<T>(&self, value: &Value<'_>, wanted: &str) -> Result<T, ImageError> {
        Err(self.error(value.span().start, format!("found {}, wanted {wanted}", value.get_ref().type_str())))
    }

    pub fn string(&self, value: &Value<'_>) -> Result<String, ImageError> {
        value.get_ref().as_str().map_or_else(|| self.wrong(value, "a string"), |s| Ok(s.to_owned()))
    }

    pub fn boolean(&self, value: &Value<'_>) -> Result<bool, ImageError> {
        value.get_ref().as_bool().map_or_else(|| self.wrong(value, "true or false"), Ok)
    }

    pub fn table<'v, 't>(&self, value: &'v Value<'t>) -> Result<&'v DeTable<'t>, ImageError> {
        value.get_ref().as_table().map_or_else(|| self.wrong(value, "a table"), Ok)
    }

    /// One string, or a list of them.
    pub fn strings(&self, value: &Value<'_>) -> Result<Vec<String>, ImageError> {
        match value.get_ref() {
            DeValue::String(one) => Ok(vec![one.to_string()]),
            DeValue::Array(all) => all.iter().map(|item| self.string(item)).collect(),
            _ => self.wrong(value, "a string or a list of strings"),
        }
    }

    pub fn paths(&self, value: &Value<'_>) -> Result<Vec<PathBuf>, ImageError> {
        Ok(self.strings(value)?.iter().map(|path| self.beside(path)).collect())
    }

    pub fn beside(&self, path: &str) -> PathBuf {
        beside(self.path.parent().unwrap_or(Path::new("/")), path)
    }

    /// `"both.pem"`, `["both.pem"]` or `[["cert", "key"]]`.
    pub fn client(&self, value: &Value<'_>) -> Result<Option<ClientCert>, ImageError> {
        let one = |cert: &str| ClientCert { cert: self.beside(cert), key: None };
        let wanted = "a path, a list of paths or a list of [certificate, key]";
        let mut found = Vec::new();
        match value.get_ref() {
            DeValue::String(path) => found.push(one(path)),
            DeValue::Array(items) => {
                for item in items.iter() {
                    match item.get_ref() {
                        DeValue::String(path) => found.push(one(path)),
                        DeValue::Array(_) => match self.strings(item)?.as_slice() {
                            [cert, key] if key.is_empty() => found.push(one(cert)),
                            [cert, key] => {
                                found.push(ClientCert { cert: self.beside(cert), key: Some(self.beside(key)) })
                            }
                            _ => return self.wrong(item, "[certificate, key]"),
                        },
                        _ => return self.wrong(item, wanted),
                    }
                }
            }
            _ => return self.wrong(value, wanted),
        }
        if found.len() > 1 {
            return Err(self.error(value.span().start, "only one client certificate a host is supported"));
        }
        Ok(found.pop())
    }

    pub fn headers(&self, value: &Value<'_>) -> Result<HeaderMap, ImageError> {
        let mut headers = HeaderMap::new();
        for (key, value) in self.table(value)? {
            let name: HeaderName = key
                .get_ref()
                .parse()
                .map_err(|_| self.error(key.span().start, format!("{:?} is no name of a header", key.get_ref())))?;
            for text in self.strings(value)? {
                let reason = format!("the value of header {name} has characters that no header may have");
                let text = HeaderValue::from_str(&text).map_err(|_| self.error(value.span().start, reason))?;
                headers.append(name.clone(), text);
            }
        }
        Ok(headers)
    }

    pub fn duration(&self, value: &Value<'_>) -> Result<Duration, ImageError> {
        let text = self.string(value)?;
        shared_config::parse_duration(&text).ok_or_else(|| {
            self.error(value.span().start, format!("{text:?} is no duration like \"3s\", \"1m30s\" or \"500ms\""))
        })
    }
}
