//! Keeps small what an idle process holds of the program's own file.
//!
//! Once a process serves, most of the pages that it has mapped are code that only its start or a deploy ran: of 43 MB, an
//! idle node goes through 4. Nothing else unmaps them before memory is short. Here they are unmapped while the process is
//! idle; they stay in the page cache, where the kernel takes them first, and come back from there at the next use, 16 pages
//! with each fault.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::time::Duration;

use lyra_kit::tasks;
use rustix::mm::{Advice, madvise};
use rustix::param::page_size;
use rustix::time::{ClockId, clock_gettime};

/// How often a process looks whether it is idle.
const LOOK: Duration = Duration::from_secs(10);
/// Idle is who used no more processor time than this between two looks.
const IDLE: Duration = Duration::from_millis(100);
/// So much of the program's file may stay mapped, in bytes: a process with few calls goes through less.
const KEPT: usize = 24 << 20;

/// Unmaps pages of the program's file whenever the process is idle and holds many. Never ends: to be dropped.
pub(crate) async fn keep_small() {
    let mut used = processor_time();
    loop {
        tokio::time::sleep(LOOK).await;
        let before = std::mem::replace(&mut used, processor_time());
        if used.saturating_sub(before) > IDLE {
            continue;
        }
        match tasks::blocking(|| unmap_above(KEPT)).await {
            Ok(Ok(0)) => {}
            Ok(Ok(bytes)) => tracing::debug!(bytes, "unmapped pages of the program's file"),
            // Where /proc may not be read, the pages stay.
            Ok(Err(error)) => return tracing::debug!(%error, "pages of the program's file stay mapped"),
            Err(_stopping) => return,
        }
    }
}

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// Unmaps the program's file where more than `kept` bytes of it are mapped; returns how many bytes that were.
fn unmap_above(kept: usize) -> io::Result<usize> {
    let mut mapped = Vec::new();
    for range in program_mappings()? {
        if let Some(bytes) = clean_bytes(&range)? {
            mapped.push((range, bytes));
        }
    }
    let total = mapped.iter().map(|(_, bytes)| bytes).sum();
    if total <= kept {
        return Ok(0);
    }
    for (range, _) in mapped {
        #[expect(unsafe_code, reason = "there is no safe interface to memory that is mapped already")]
        // SAFETY: the range is a whole mapping of the program's file that nothing can write to and none of whose pages
        // differs from the file: what is unmapped is read from the file again at the next access.
        unsafe {
            madvise(std::ptr::with_exposed_provenance_mut(range.start), range.len(), Advice::LinuxDontNeed)?;
        }
    }
    Ok(total)
}

/// Where the program's own file is mapped and can't be written to.
fn program_mappings() -> io::Result<Vec<Range<usize>>> {
    let program = std::fs::read_link("/proc/self/exe")?.to_string_lossy().into_owned();
    let mut found = Vec::new();
    for line in BufReader::new(File::open("/proc/self/maps")?).lines() {
        match program_mapping(&line?, &program) {
            Some((range, false)) => found.push(range),
            Some((_, true)) => {}
            // The program's mappings follow each other, and a process with many instances has many others.
            None if !found.is_empty() => break,
            None => {}
        }
    }
    Ok(found)
}

/// A line of `/proc/self/maps` where it is about the program: the addresses, and whether they can be written to.
fn program_mapping(line: &str, program: &str) -> Option<(Range<usize>, bool)> {
    let (head, path) = line.split_at_checked(line.find('/')?)?;
    let mut fields = head.split_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let writable = fields.next()?.contains('w');
    let address = |text| usize::from_str_radix(text, 16).ok();
    (path == program).then_some((address(start)?..address(end)?, writable))
}

/// How many bytes of the mapping are in memory; nothing where a page is not the file's: relocated addresses, or the
/// break points of a debugger. (Bits 61 and 63 of an entry of `/proc/self/pagemap`.)
fn clean_bytes(range: &Range<usize>) -> io::Result<Option<usize>> {
    const OF_FILE: u64 = 1 << 61;
    const SWAPPED: u64 = 1 << 62;
    const PRESENT: u64 = 1 << 63;
    let mut entries = vec![0; range.len() / page_size() * size_of::<u64>()];
    let mut pagemap = File::open("/proc/self/pagemap")?;
    pagemap.seek(SeekFrom::Start((range.start / page_size() * size_of::<u64>()) as u64))?;
    pagemap.read_exact(&mut entries)?;
    let mut present = 0;
    for entry in entries.as_chunks().0 {
        let entry = u64::from_ne_bytes(*entry);
        if entry & SWAPPED != 0 || entry & (PRESENT | OF_FILE) == PRESENT {
            return Ok(None);
        }
        present += usize::from(entry & PRESENT != 0);
    }
    Ok(Some(present * page_size()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_mappings_are_told_from_others() {
        let line = "55d0c0a00000-55d0c0b00000 r-xp 00544000 08:01 1234                       /usr/bin/lyra";
        assert_eq!(program_mapping(line, "/usr/bin/lyra"), Some((0x55d0_c0a0_0000..0x55d0_c0b0_0000, false)));
        assert_eq!(program_mapping(&line.replace("r-x", "rw-"), "/usr/bin/lyra").map(|found| found.1), Some(true));
        assert_eq!(program_mapping(line, "/usr/bin/other"), None);
        assert_eq!(program_mapping("55d0c0b00000-55d0c0c00000 rw-p 00000000 00:00 0   [heap]", "/usr/bin/lyra"), None);
        assert_eq!(program_mapping("55d0c0b00000-55d0c0c00000 rw-p 00000000 00:00 0", "/usr/bin/lyra"), None);
    }

    #[test]
    fn what_is_unmapped_works_on() {
        static TABLE: [u64; 4096] = [7; 4096];
        let mapped =
            || program_mappings().unwrap().iter().filter_map(|range| clean_bytes(range).unwrap()).sum::<usize>();
        assert!(std::hint::black_box(&TABLE).iter().sum::<u64>() == 7 * 4096);
        let before = mapped();
        assert!(unmap_above(0).unwrap() > 0);
        assert!(mapped() < before, "{} of {before} bytes", mapped());
        assert!(std::hint::black_box(&TABLE).iter().sum::<u64>() == 7 * 4096);
        assert_eq!(unmap_above(usize::MAX).unwrap(), 0);
    }
}
