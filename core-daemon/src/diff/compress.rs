//! Plain archives to layers: compressed as the media type says, with both digests.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};
use zstd::stream::write::Encoder;

use super::DiffError;
use crate::domain::Digest;

/// Takes a plain archive and writes the layer to `W`.
pub struct Layer<W: Write> {
    packed: Packed<W>,
    plain: Sha256,
}

enum Packed<W: Write> {
    Plain(W),
    Gzip(Box<GzEncoder<W>>),
    Zstd(Box<Encoder<'static, W>>),
}

impl<W: Write> Layer<W> {
    /// A layer of this media type.
    pub fn new(media_type: &str, out: W) -> Result<Self, DiffError> {
        let packed = match media_type {
            "application/vnd.oci.image.layer.v1.tar" | "application/vnd.docker.image.rootfs.diff.tar" => {
                Packed::Plain(out)
            }
            "application/vnd.oci.image.layer.v1.tar+gzip" | "application/vnd.docker.image.rootfs.diff.tar.gzip" => {
                Packed::Gzip(Box::new(GzEncoder::new(out, Compression::default())))
            }
            "application/vnd.oci.image.layer.v1.tar+zstd" | "application/vnd.docker.image.rootfs.diff.tar.zstd" => {
                Packed::Zstd(Box::new(Encoder::new(out, 0).map_err(DiffError::Write)?))
            }
            other => return Err(DiffError::MediaType(other.to_owned())),
        };
        Ok(Self { packed, plain: Sha256::new() })
    }

    /// Writes what is left; answers the digest of the plain archive, and where the layer went.
    pub fn finish(self) -> Result<(Digest, W), DiffError> {
        let out = match self.packed {
            Packed::Plain(out) => Ok(out),
            Packed::Gzip(encoder) => encoder.finish(),
            Packed::Zstd(encoder) => encoder.finish(),
        };
        Ok((Digest::from_hash(&self.plain.finalize()), out.map_err(DiffError::Write)?))
    }
}

impl<W: Write> Write for Layer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = match &mut self.packed {
            Packed::Plain(out) => out.write(bytes),
            Packed::Gzip(encoder) => encoder.write(bytes),
            Packed::Zstd(encoder) => encoder.write(bytes),
        }?;
        self.plain.update(&bytes[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.packed {
            Packed::Plain(out) => out.flush(),
            Packed::Gzip(encoder) => encoder.flush(),
            Packed::Zstd(encoder) => encoder.flush(),
        }
    }
}
