//! What a file is by its first bytes, whatever its name says.

use super::files::{Source, broken};
use flate2::read::MultiGzDecoder;
use ropeway_framework::{Error, Result};
use std::io::{Cursor, Read};

/// First bytes, and what begins with them. `None` means: nothing that is known.
pub(crate) fn kind(head: &[u8]) -> Option<&'static str> {
    const KINDS: &[(&[u8], &str)] = &[
        (b"\x89PNG\r\n\x1a\n", "a PNG image"),
        (b"\xff\xd8\xff", "a JPEG image"),
        (b"GIF8", "a GIF image"),
        (b"%PDF", "a PDF document"),
        (b"PK\x03\x04", "a ZIP archive"),
        (b"\x1f\x8b", "a gzip file"),
        (b"\x28\xb5\x2f\xfd", "a zstd file"),
        (b"BZh", "a bzip2 file"),
        (b"\xfd7zXZ", "an xz file"),
        (b"PAR1", "a Parquet file"),
        (b"ARROW1", "an Arrow IPC file"),
        (b"FEA1", "a Feather version 1 file"),
        (b"\xff\xff\xff\xff", "an Arrow IPC stream"),
        (b"SQLite format 3", "an SQLite database"),
        (b"\x89HDF", "an HDF5 file"),
        (b"\x93NUMPY", "a NumPy array"),
        (b"\x7fELF", "a program"),
        (b"\xff\xfe", "UTF-16 text"),
        (b"\xfe\xff", "UTF-16 text"),
    ];
    KINDS.iter().find(|(magic, _)| head.starts_with(magic)).map(|(_, kind)| *kind)
}

/// The error for a file that is not what a stage reads.
pub(crate) fn wrong_kind(name: &str, wanted: &str, head: &[u8]) -> Error {
    let error = Error::new(format!("{name} is no {wanted}"));
    match kind(head) {
        Some("a ZIP archive") => error.help("it is a ZIP archive: unpack it first"),
        Some("a zstd file" | "a bzip2 file" | "an xz file") => {
            error.help("it is compressed in a way that is not read here: unpack it, or use gzip")
        }
        Some("UTF-16 text") => error.help("it is UTF-16 text: convert it with `iconv -f utf-16 -t utf-8`"),
        Some(kind) => error.help(format!("it is {kind}")),
        None => match std::str::from_utf8(head) {
            Ok(text) => error.help(format!("it begins with {:?}", text.chars().take(20).collect::<String>())),
            Err(_) => error.help(format!("it begins with the bytes {:02x?}", head.get(..8).unwrap_or(head))),
        },
    }
}

/// The bytes of a file, unpacked if they are gzip (whatever its name says), and the first few of them.
pub(crate) fn unpack(source: &Source) -> Result<(Box<dyn Read + Send>, Vec<u8>)> {
    let (reader, head) = peek(source.open()?, source.name())?;
    if !head.starts_with(b"\x1f\x8b") {
        return Ok((reader, head));
    }
    let (reader, head) = peek(Box::new(MultiGzDecoder::new(reader)), source.name())?;
    match head.is_empty() {
        true => Err(Error::new(format!("{} is empty (0 bytes, packed)", source.name()))),
        false => Ok((reader, head)),
    }
}

fn peek(mut reader: Box<dyn Read + Send>, name: &str) -> Result<(Box<dyn Read + Send>, Vec<u8>)> {
    let mut head = Vec::new();
    reader.by_ref().take(32).read_to_end(&mut head).map_err(|error| broken(name, error))?;
    Ok((Box::new(Cursor::new(head.clone()).chain(reader)), head))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::io::Write;

    /// Some bytes, packed.
    pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(bytes).unwrap();
        packed.finish().unwrap()
    }

    #[test]
    fn files_are_known_by_their_first_bytes() {
        assert_eq!(kind(b"\x89PNG\r\n\x1a\n...."), Some("a PNG image"));
        assert_eq!(kind(b"a,b\n"), None);
        assert_eq!(wrong_kind("x", "Parquet file", b"a,b\n1,2").advice(), Some("it begins with \"a,b\\n1,2\""));
        assert_eq!(wrong_kind("x", "CSV file", b"PK\x03\x04").advice(), Some("it is a ZIP archive: unpack it first"));
    }
}
