//! Sizes of a terminal, as clients send them: one JSON object after the other.

use serde::Deserialize;

/// Bytes of one size that may wait for their end.
const LONGEST: usize = 1 << 10;

/// A terminal's size in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Size {
    #[serde(rename = "Width", alias = "width", default)]
    pub width: u16,
    #[serde(rename = "Height", alias = "height", default)]
    pub height: u16,
}

/// Reads sizes from pieces of any length.
#[derive(Debug, Default)]
pub struct Sizes(Vec<u8>);

/// The channel does not hold sizes.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a terminal's size can't be read: {0}")]
pub struct NoSize(String);

impl Sizes {
    /// The last whole size so far; those before it are of no interest any more.
    pub fn add(&mut self, data: &[u8]) -> Result<Option<Size>, NoSize> {
        let mut last = None;
        // One size at a time, so that what waits stays short.
        for piece in data.chunks(LONGEST) {
            self.0.extend_from_slice(piece);
            let mut sizes = serde_json::Deserializer::from_slice(&self.0).into_iter::<Size>();
            let mut used = 0;
            while let Some(size) = sizes.next() {
                match size {
                    Ok(size) => (last, used) = (Some(size), sizes.byte_offset()),
                    Err(e) if e.is_eof() => break,
                    Err(e) => return Err(NoSize(e.to_string())),
                }
            }
            self.0.drain(..used);
            if self.0.len() > LONGEST {
                return Err(NoSize("it does not end".into()));
            }
        }
        Ok(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_come_in_any_pieces() {
        let mut sizes = Sizes::default();
        assert_eq!(sizes.add(b"{\"Width\":80,\"Hei"), Ok(None));
        assert_eq!(sizes.add(b"ght\":24}\n{\"Width\":100,"), Ok(Some(Size { width: 80, height: 24 })));
        let two = b"\"Height\":30}{\"width\":1,\"height\":2}\n";
        assert_eq!(sizes.add(two), Ok(Some(Size { width: 1, height: 2 })));
        assert_eq!(sizes.add(b"\n"), Ok(None));
        assert!(sizes.add(b"resize!").is_err());
        assert!(Sizes::default().add(b"{\"Width\":-1,\"Height\":1}").is_err());
        assert!(Sizes::default().add(&[b' '; 5000]).is_err());
    }
}
