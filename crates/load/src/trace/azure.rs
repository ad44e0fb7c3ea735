//! Reads the public traces of Azure Functions (github.com/Azure/AzurePublicDataset).
//!
//! 2021: one CSV, a line for each call: `app,func,end_timestamp,duration`, in seconds. 2019: a file of invocation
//! counts by minute, one of execution times by function and one of memory by application; the calls of a minute are
//! spread evenly over it. Neither has cold-start times, and 2021 has no memory: what is missing is given.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;

use super::{Arrival, Function, Trace, whole_ms};
use crate::Error;

/// What stands in for what the files do not say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Missing {
    /// Time to start an instance, in ms.
    pub start_ms: f64,
    /// Memory of an instance, in MiB.
    pub memory_mb: u32,
}

impl Default for Missing {
    /// A second, and the median memory of an application in the 2019 paper.
    fn default() -> Missing {
        Missing { start_ms: 1_000.0, memory_mb: 170 }
    }
}

/// The functions seen so far, by what the files call them.
#[derive(Default)]
struct Known {
    index: HashMap<String, u32>,
    functions: Vec<Function>,
}

impl Known {
    fn of(&mut self, key: String, owner: &str, missing: &Missing) -> u32 {
        let next = u32::try_from(self.functions.len()).unwrap_or(u32::MAX);
        *self.index.entry(key).or_insert_with_key(|key| {
            self.functions.push(Function {
                name: key.clone(),
                tenant: owner.to_owned(),
                start_ms: missing.start_ms,
                exec_ms: 1.0,
                memory_mb: missing.memory_mb,
            });
            next
        })
    }
}

fn rows<T: serde::de::DeserializeOwned>(path: &Path) -> Result<impl Iterator<Item = Result<T, Error>>, Error> {
    let file = std::fs::File::open(path).map_err(|error| Error::file(path, "read", error))?;
    let reader = csv::Reader::from_reader(std::io::BufReader::new(file));
    let path = path.to_owned();
    Ok(reader.into_deserialize().map(move |row| row.map_err(|error| Error::format(&path, error))))
}

#[derive(Deserialize)]
struct Call2021 {
    app: String,
    func: String,
    end_timestamp: f64,
    duration: f64,
}

/// Reads the trace of 2021.
///
/// # Errors
/// When the file can't be read or is another one.
pub fn read_2021(path: &Path, missing: &Missing) -> Result<Trace, Error> {
    let mut known = Known::default();
    let mut calls: Vec<(f64, u32, f64)> = Vec::new();
    for row in rows::<Call2021>(path)? {
        let row = row?;
        if !row.end_timestamp.is_finite() || !(0.0..1e6).contains(&row.duration) {
            return Err(Error::format(path, format!("a call of {} has a time out of range", row.func)));
        }
        let function = known.of(format!("{}/{}", row.app, row.func), &row.app, missing);
        calls.push((row.end_timestamp - row.duration, function, row.duration * 1e3));
    }
    let begin = calls.iter().map(|call| call.0).fold(f64::MAX, f64::min);
    let mut sums = vec![(0.0, 0u32); known.functions.len()];
    let mut arrivals = Vec::with_capacity(calls.len());
    for (start, function, exec_ms) in calls {
        let sum = &mut sums[function as usize];
        *sum = (sum.0 + exec_ms, sum.1 + 1);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counted from the first call")]
        let at_ms = ((start - begin) * 1e3) as u64;
        arrivals.push(Arrival { at_ms, function, exec_ms: whole_ms(exec_ms) });
    }
    for (function, (sum, count)) in known.functions.iter_mut().zip(sums) {
        function.exec_ms = sum / f64::from(count.max(1));
    }
    Ok(Trace { functions: known.functions, arrivals }.sorted())
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Duration2019 {
    hash_app: String,
    hash_function: String,
    average: f64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Memory2019 {
    hash_app: String,
    average_allocated_mb: f64,
}

/// Reads a day of the trace of 2019: invocations, durations and memory. Functions without a duration are left out.
///
/// # Errors
/// When a file can't be read or is another one.
pub fn read_2019(invocations: &Path, durations: &Path, memory: &Path, missing: &Missing) -> Result<Trace, Error> {
    let mut averages: HashMap<String, f64> = HashMap::new();
    for row in rows::<Duration2019>(durations)? {
        let row = row?;
        averages.insert(format!("{}/{}", row.hash_app, row.hash_function), row.average);
    }
    let mut memories: HashMap<String, u32> = HashMap::new();
    for row in rows::<Memory2019>(memory)? {
        let row = row?;
        memories.insert(row.hash_app, whole_ms(row.average_allocated_mb));
    }
    let mut known = Known::default();
    let mut arrivals = Vec::new();
    // Owner, application, function, trigger, then a column for each minute.
    for row in rows::<Vec<String>>(invocations)? {
        let row = row?;
        let [owner, app, function, _, minutes @ ..] = row.as_slice() else {
            return Err(Error::format(invocations, "a line has less than four columns"));
        };
        let key = format!("{app}/{function}");
        let Some(average) = averages.get(&key) else { continue };
        let index = known.of(key, owner, missing);
        let entry = &mut known.functions[index as usize];
        entry.exec_ms = average.max(1.0);
        entry.memory_mb = memories.get(app).copied().unwrap_or(missing.memory_mb);
        let exec_ms = whole_ms(*average);
        for (minute, count) in (0u64..).zip(minutes) {
            let wrong = |error| Error::format(invocations, format!("minute {}: {error}", minute + 1));
            let count: u64 = count.parse().map_err(wrong)?;
            arrivals.extend((0..count).map(|n| Arrival {
                at_ms: minute * 60_000 + n * 60_000 / count,
                function: index,
                exec_ms,
            }));
        }
    }
    Ok(Trace { functions: known.functions, arrivals }.sorted())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_format_of_2021() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("2021.csv");
        std::fs::write(&path, "app,func,end_timestamp,duration\na,f,10.5,0.5\na,f,12.1,0.1\nb,g,10.2,0.1\n")
            .expect("writes");
        let trace = read_2021(&path, &Missing::default()).expect("reads");
        assert_eq!(trace.functions.len(), 2);
        assert_eq!((trace.functions[0].exec_ms, &*trace.functions[0].tenant), (300.0, "a"));
        let times: Vec<u64> = trace.arrivals.iter().map(|call| call.at_ms).collect();
        assert_eq!(times[0], 0);
        assert!(times[1] == 99 || times[1] == 100);
        assert!(read_2021(&folder.path().join("none"), &Missing::default()).is_err());
    }

    #[test]
    fn reads_the_format_of_2019() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("writes");
            path
        };
        let invocations =
            write("i.csv", "HashOwner,HashApp,HashFunction,Trigger,1,2\no,a,f,http,2,1\no,a,unknown,http,5,5\n");
        let durations = write("d.csv", "HashOwner,HashApp,HashFunction,Average,Count\no,a,f,250,3\n");
        let memory = write("m.csv", "HashOwner,HashApp,SampleCount,AverageAllocatedMb\no,a,9,96\n");
        let trace = read_2019(&invocations, &durations, &memory, &Missing::default()).expect("reads");
        let calls: Vec<_> = trace.arrivals.iter().map(|call| (call.at_ms, call.exec_ms)).collect();
        assert_eq!(calls, [(0, 250), (30_000, 250), (60_000, 250)]);
        assert_eq!((trace.functions.len(), trace.functions[0].memory_mb), (1, 96));
    }
}
