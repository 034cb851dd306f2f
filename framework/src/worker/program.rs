//! Which program this is: workers of one run must be the same one, on the same instruction-set level.

use crate::Result;
use crate::data::Digest;
use std::fs::File;
use std::io::Read;
use std::sync::OnceLock;

/// The digest of this executable.
pub(crate) fn digest() -> Result<Digest> {
    static DIGEST: OnceLock<Digest> = OnceLock::new();
    if let Some(digest) = DIGEST.get() {
        return Ok(*digest);
    }
    let file = File::open(std::env::current_exe()?)?;
    let digest = Digest::of_file(&file, file.metadata()?.len())?;
    Ok(*DIGEST.get_or_init(|| digest))
}

/// The program and the instruction-set level that compute, for the record: the promise of equal bytes is made for one
/// build and one level.
pub(crate) fn build() -> String {
    #[cfg(target_arch = "x86_64")]
    let level = match () {
        () if is_x86_feature_detected!("avx512f") => "x86-64-v4",
        () if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") => "x86-64-v3",
        () => "x86-64",
    };
    #[cfg(not(target_arch = "x86_64"))]
    let level = std::env::consts::ARCH;
    format!("ropeway {} {level}", env!("CARGO_PKG_VERSION"))
}

/// [`build`] and what tells one program from another of the same version: the identity that the linker wrote into it,
/// or else its digest.
///
/// # Errors
/// The executable can't be read.
pub(crate) fn identity() -> Result<String> {
    static IDENTITY: OnceLock<String> = OnceLock::new();
    if let Some(identity) = IDENTITY.get() {
        return Ok(identity.clone());
    }
    let name = std::env::current_exe()?.file_name().map(|name| name.to_string_lossy().into_owned());
    let content = match linked() {
        Some(id) => id,
        None => digest()?.short(),
    };
    let identity = format!("{} ({} {content})", build(), name.unwrap_or_default());
    Ok(IDENTITY.get_or_init(|| identity).clone())
}

/// The build identity in this executable's notes: digesting the whole file would cost a starting worker more than all
/// the rest of its start.
fn linked() -> Option<String> {
    // Notes lie near the head of the file.
    let mut head = Vec::new();
    File::open("/proc/self/exe").ok()?.take(1 << 16).read_to_end(&mut head).ok()?;
    build_id(&head).map(|id| id.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The GNU build identity in the head of a 64-bit little-endian ELF file (System V ABI, "Program Header" and "Note
/// Section").
fn build_id(head: &[u8]) -> Option<&[u8]> {
    const PT_NOTE: usize = 4;
    const NT_GNU_BUILD_ID: usize = 3;
    let number = |at: usize, bytes: usize| -> Option<usize> {
        let field = head.get(at..at.checked_add(bytes)?)?;
        usize::try_from(field.iter().rev().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte))).ok()
    };
    if head.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let (table, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    for index in 0..count {
        let header = table.checked_add(index * size)?;
        if number(header, 4)? != PT_NOTE {
            continue;
        }
        let (mut at, length) = (number(header + 8, 8)?, number(header + 32, 8)?);
        let end = at.checked_add(length)?;
        while at + 12 <= end {
            let (name, content, kind) = (number(at, 4)?, number(at + 4, 4)?, number(at + 8, 4)?);
            let begin = (at + 12).checked_add(name.next_multiple_of(4))?;
            let owner = head.get(at + 12..(at + 12).checked_add(name)?)?;
            if kind == NT_GNU_BUILD_ID && owner == b"GNU\0" {
                return head.get(begin..begin.checked_add(content)?);
            }
            at = begin.checked_add(content.next_multiple_of(4))?;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_knows_itself_and_garbage_is_no_program() {
        assert_eq!(identity().unwrap(), identity().unwrap());
        assert!(identity().unwrap().starts_with(&build()));
        let mut garbage = b"\x7fELF\x02\x01".to_vec();
        assert_eq!(build_id(&garbage), None);
        garbage.resize(4096, 0xff);
        assert_eq!(build_id(&garbage), None);
        let mut head = Vec::new();
        File::open("/proc/self/exe").unwrap().take(1 << 16).read_to_end(&mut head).unwrap();
        for cut in 0..head.len().min(2000) {
            build_id(&head[..cut]);
        }
    }
}
