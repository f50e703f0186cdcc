//! Compressed layers to plain archives.
//!
//! The media type says whether this is a layer at all; how it is compressed is told by its first bytes, as containerd
//! does, because media types are often wrong about that. Several gzip members or zstd frames in a row are one stream;
//! anything else behind the end is an error.

use std::io::{BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;

use super::DiffError;

/// Compressed bytes read at a time.
const BUFFER: usize = 256 << 10;

const GZIP: [u8; 3] = [0x1f, 0x8b, 0x08];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// The last three bytes of the magic of a skippable zstd frame, whose first is 0x50 to 0x5f.
const ZSTD_SKIPPABLE: [u8; 3] = [0x2a, 0x4d, 0x18];

/// Whether blobs of this media type are layers that can be applied.
pub fn is_layer(media_type: &str) -> bool {
    let base = media_type.strip_suffix("+gzip").or_else(|| media_type.strip_suffix("+zstd")).unwrap_or(media_type);
    let base = base.strip_suffix(".gzip").or_else(|| base.strip_suffix(".zstd")).unwrap_or(base);
    matches!(
        base,
        "application/vnd.oci.image.layer.v1.tar"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar"
            | "application/vnd.docker.image.rootfs.diff.tar"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar"
    )
}

/// The plain archive in a layer's blob. Reads the first bytes.
pub fn decompress<'a>(
    media_type: &str,
    reader: Box<dyn Read + Send + 'a>,
) -> Result<Box<dyn Read + Send + 'a>, DiffError> {
    if !is_layer(media_type) {
        return Err(DiffError::MediaType(media_type.to_owned()));
    }
    let mut magic = [0; 4];
    let mut reader = BufReader::with_capacity(BUFFER, reader);
    let mut known = 0;
    while known < magic.len() {
        match reader.read(&mut magic[known..]) {
            Ok(0) => break,
            Ok(length) => known += length,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(DiffError::Read(e)),
        }
    }
    let whole = std::io::Cursor::new(magic).take(known as u64).chain(reader);
    if magic[..3] == GZIP {
        Ok(Box::new(MultiGzDecoder::new(whole)))
    } else if magic == ZSTD || (magic[0] & 0xf0 == 0x50 && magic[1..] == ZSTD_SKIPPABLE) {
        Ok(Box::new(zstd::stream::read::Decoder::with_buffer(whole).map_err(DiffError::Read)?))
    } else {
        Ok(Box::new(plain(whole)))
    }
}

/// An unbuffered view, so that large reads go straight to the blob.
fn plain(whole: impl BufRead + Send) -> impl Read + Send {
    whole
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const OCI: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn all(blob: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut out = Vec::new();
        decompress(OCI, Box::new(blob)).map_err(std::io::Error::other)?.read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn tells_by_the_first_bytes() {
        let text = b"a layer ".repeat(100_000);
        assert_eq!(all(&gzip(&text)).unwrap(), text);
        assert_eq!(all(&zstd::encode_all(text.as_slice(), 1).unwrap()).unwrap(), text);
        assert_eq!(all(&text).unwrap(), text);
        for short in [&b""[..], b"a", b"abcde"] {
            assert_eq!(all(short).unwrap(), short);
        }
    }

    #[test]
    fn many_members_are_one_stream_and_garbage_is_an_error() {
        let members = [gzip(b"one"), gzip(b"two")].concat();
        assert_eq!(all(&members).unwrap(), b"onetwo");
        let frame = |text: &[u8]| zstd::encode_all(text, 1).unwrap();
        let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9][..], &frame(b"one"), &frame(b"two")].concat();
        assert_eq!(all(&skippable).unwrap(), b"onetwo");
        for blob in [members, skippable] {
            all(&[&blob[..], b"garbage"].concat()).unwrap_err();
            all(&blob[..blob.len() - 3]).unwrap_err();
        }
    }

    #[test]
    fn only_layers_are_taken() {
        for good in ["application/vnd.docker.image.rootfs.diff.tar.gzip", "application/vnd.oci.image.layer.v1.tar+zstd"]
        {
            assert!(is_layer(good), "{good}");
        }
        for bad in ["", "application/vnd.oci.image.config.v1+json", "application/vnd.oci.image.layer.v1.tar+encrypted"]
        {
            assert!(matches!(decompress(bad, Box::new(&b""[..])), Err(DiffError::MediaType(_))), "{bad}");
        }
    }
}
