//! Header blocks of SPDY/3.1: name and value pairs, compressed as one stream a direction and connection.
//!
//! Both directions begin with the same preset dictionary. Every limit is checked while inflating: a block that grows
//! beyond [`LARGEST`] is an error before it is held.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// A block's size, inflated.
pub const LARGEST: usize = 16 << 10;
/// Pairs of a block.
const MOST: usize = 128;

/// Names that are in the dictionary, each behind its length in four bytes.
const WORDS: [&str; 65] = [
    "options",
    "head",
    "post",
    "put",
    "delete",
    "trace",
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "connection",
    "content-base",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-md5",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "retry-after",
    "server",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "method",
    "get",
    "status",
    "200 OK",
    "version",
    "HTTP/1.1",
    "url",
    "public",
    "set-cookie",
    "keep-alive",
    "origin",
];
/// What follows them.
const TAIL: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505\
203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden\
404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable\
Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT\
chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,\
publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

/// What is wrong with a header block.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum HeaderError {
    #[error("a header block does not inflate: {0}")]
    Inflate(String),
    #[error("a header block is larger than {LARGEST} bytes")]
    TooLarge,
    #[error("a header block has more than {MOST} headers")]
    TooMany,
    #[error("a header block ends in the middle of a header")]
    Truncated,
    #[error("a header has no name")]
    NoName,
}

/// Names and values, in order. A name is in lower case.
pub type Headers = Vec<(String, String)>;

/// The value of a header; an empty text when it is not there.
pub fn value<'a>(headers: &'a Headers, name: &str) -> &'a str {
    headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str()).unwrap_or_default()
}

/// The dictionary that both sides begin with.
pub fn dictionary() -> Vec<u8> {
    let mut out = Vec::new();
    for word in WORDS {
        out.extend_from_slice(&(word.len() as u32).to_be_bytes());
        out.extend_from_slice(word.as_bytes());
    }
    out.extend_from_slice(TAIL.as_bytes());
    out
}

/// Reads the blocks of one direction, in order.
pub struct Reader(Decompress);

impl Default for Reader {
    fn default() -> Self {
        Self(Decompress::new(true))
    }
}

impl Reader {
    pub fn read(&mut self, block: &[u8]) -> Result<Headers, HeaderError> {
        parse(&self.inflate(block)?)
    }

    fn inflate(&mut self, mut block: &[u8]) -> Result<Vec<u8>, HeaderError> {
        let mut out = Vec::with_capacity(1 << 10);
        loop {
            if out.len() == out.capacity() {
                if out.len() > LARGEST {
                    return Err(HeaderError::TooLarge);
                }
                out.reserve(out.len());
            }
            let (read, written) = (self.0.total_in(), out.len());
            let status = match self.0.decompress_vec(block, &mut out, FlushDecompress::Sync) {
                Ok(status) => status,
                Err(e) if e.needs_dictionary().is_some() => {
                    block = &block[(self.0.total_in() - read) as usize..];
                    self.0.set_dictionary(&dictionary()).map_err(|e| HeaderError::Inflate(e.to_string()))?;
                    continue;
                }
                Err(e) => return Err(HeaderError::Inflate(e.to_string())),
            };
            let used = (self.0.total_in() - read) as usize;
            block = &block[used..];
            if out.len() > LARGEST {
                return Err(HeaderError::TooLarge);
            }
            match status {
                Status::StreamEnd if block.is_empty() => return Ok(out),
                Status::StreamEnd => return Err(HeaderError::Inflate("the stream has ended".into())),
                // All is read, and there was room for more.
                Status::Ok | Status::BufError if block.is_empty() && out.len() < out.capacity() => return Ok(out),
                Status::Ok | Status::BufError if used == 0 && out.len() == written && out.len() < out.capacity() => {
                    return Err(HeaderError::Inflate("it makes no sense".into()));
                }
                Status::Ok | Status::BufError => {}
            }
        }
    }
}

fn parse(mut block: &[u8]) -> Result<Headers, HeaderError> {
    let count = number(&mut block)? as usize;
    if count > MOST {
        return Err(HeaderError::TooMany);
    }
    let mut headers = Headers::with_capacity(count);
    for _ in 0..count {
        let name = text(&mut block)?;
        if name.is_empty() {
            return Err(HeaderError::NoName);
        }
        headers.push((name.to_ascii_lowercase(), text(&mut block)?));
    }
    Ok(headers)
}

fn number(block: &mut &[u8]) -> Result<u32, HeaderError> {
    let (number, rest) = block.split_first_chunk::<4>().ok_or(HeaderError::Truncated)?;
    *block = rest;
    Ok(u32::from_be_bytes(*number))
}

fn text(block: &mut &[u8]) -> Result<String, HeaderError> {
    let length = number(block)? as usize;
    let (text, rest) = block.split_at_checked(length).ok_or(HeaderError::Truncated)?;
    *block = rest;
    Ok(String::from_utf8_lossy(text).into_owned())
}

/// Writes the blocks of one direction, in order.
pub struct Writer(Compress);

impl Writer {
    pub fn new() -> Result<Self, HeaderError> {
        let mut compress = Compress::new(Compression::fast(), true);
        compress.set_dictionary(&dictionary()).map_err(|e| HeaderError::Inflate(e.to_string()))?;
        Ok(Self(compress))
    }

    pub fn write(&mut self, headers: &[(&str, &str)]) -> Result<Vec<u8>, HeaderError> {
        let mut block = (headers.len() as u32).to_be_bytes().to_vec();
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            block.extend_from_slice(&(text.len() as u32).to_be_bytes());
            block.extend_from_slice(text.as_bytes());
        }
        let mut out = Vec::with_capacity(block.len() + 128);
        let before = self.0.total_in();
        loop {
            let used = (self.0.total_in() - before) as usize;
            self.0
                .compress_vec(&block[used..], &mut out, FlushCompress::Sync)
                .map_err(|e| HeaderError::Inflate(e.to_string()))?;
            if (self.0.total_in() - before) as usize == block.len() && out.len() < out.capacity() {
                return Ok(out);
            }
            out.reserve(128);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Adler-32, by which zlib names a dictionary.
    fn adler(data: &[u8]) -> u32 {
        let (a, b) = data.iter().fold((1u32, 0u32), |(a, b), byte| {
            let a = (a + u32::from(*byte)) % 65521;
            (a, (b + a) % 65521)
        });
        b << 16 | a
    }

    #[test]
    fn the_dictionary_is_that_of_the_specification() {
        let dictionary = dictionary();
        assert_eq!((dictionary.len(), adler(&dictionary)), (1423, 0xe3c6_a7c2));
    }

    #[test]
    fn blocks_build_on_those_before() {
        let (mut writer, mut reader) = (Writer::new().unwrap(), Reader::default());
        let headers = [("streamtype", "error"), ("port", "8080"), ("requestid", "0")];
        let first = writer.write(&headers).unwrap();
        let read = reader.read(&first).unwrap();
        assert_eq!(value(&read, "port"), "8080");
        assert_eq!(value(&read, "other"), "");
        let second = writer.write(&headers).unwrap();
        assert!(second.len() < first.len(), "the second refers to the first");
        assert_eq!(reader.read(&second).unwrap(), read);
        let empty = writer.write(&[]).unwrap();
        assert!(reader.read(&empty).unwrap().is_empty());
    }

    #[test]
    fn a_bomb_is_refused() {
        let (mut writer, mut reader) = (Writer::new().unwrap(), Reader::default());
        let bomb = "x".repeat(10 << 20);
        let block = writer.write(&[("bomb", &bomb)]).unwrap();
        assert!(block.len() < 100 << 10);
        assert_eq!(reader.read(&block), Err(HeaderError::TooLarge));
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(parse(&[0, 0, 1, 0]), Err(HeaderError::TooMany));
        assert_eq!(parse(&[0, 0, 0, 1, 0, 0, 0, 0]), Err(HeaderError::NoName));
        assert_eq!(parse(&[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff]), Err(HeaderError::Truncated));
        assert_eq!(parse(&[]), Err(HeaderError::Truncated));
        assert!(matches!(Reader::default().read(b"no zlib at all"), Err(HeaderError::Inflate(_))));
    }
}
