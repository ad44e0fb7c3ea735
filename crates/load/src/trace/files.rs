//! Traces as two CSV files: the calls (`function,arrival_ms` and, where it is known, `exec_ms`) and the functions
//! (`function,cold_ms,warm_ms,memory_mb` and, where it is known, `tenant`).
//!
//! `cold_ms` is a whole call on an instance that has to be started first, `warm_ms` one on an instance that is there;
//! the start alone is their difference. Other columns are left alone.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Arrival, Function, Trace, whole_ms};
use crate::Error;

#[derive(Debug, Serialize, Deserialize)]
struct Call<'a> {
    function: &'a str,
    arrival_ms: f64,
    exec_ms: Option<f64>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Row {
    function: String,
    cold_ms: f64,
    warm_ms: f64,
    memory_mb: u32,
    tenant: Option<String>,
}

/// Where a trace's functions stand beside its calls: `trace.csv` → `trace.functions.csv`.
pub fn functions_beside(calls: &Path) -> std::path::PathBuf {
    calls.with_extension("functions.csv")
}

/// Reads a trace.
///
/// # Errors
/// When a file can't be read, or does not hold a trace; with the line.
pub fn read(calls: &Path, functions: &Path) -> Result<Trace, Error> {
    let mut trace = Trace { functions: read_functions(functions)?, arrivals: Vec::new() };
    let by_name: HashMap<String, u32> =
        (0u32..).zip(&trace.functions).map(|(index, function)| (function.name.clone(), index)).collect();
    let mut reader = reader(calls)?;
    let headers = reader.headers().map_err(|error| Error::format(calls, error))?.clone();
    let mut record = csv::StringRecord::new();
    while reader.read_record(&mut record).map_err(|error| Error::format(calls, error))? {
        let call: Call<'_> = record.deserialize(Some(&headers)).map_err(|error| Error::format(calls, error))?;
        let wrong = |reason: String| {
            let line = record.position().map_or(0, csv::Position::line);
            Error::format(calls, format!("line {line}: {reason}"))
        };
        let Some(index) = by_name.get(call.function).copied() else {
            return Err(wrong(format!("function {} is not in {}", call.function, functions.display())));
        };
        if !(0.0..1e13).contains(&call.arrival_ms) || call.exec_ms.is_some_and(|exec| !(0.0..1e9).contains(&exec)) {
            return Err(wrong("a time is out of range".to_owned()));
        }
        let exec_ms = call.exec_ms.unwrap_or(trace.functions[index as usize].exec_ms);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range, as was just checked")]
        let at_ms = call.arrival_ms as u64;
        trace.arrivals.push(Arrival { at_ms, function: index, exec_ms: whole_ms(exec_ms) });
    }
    Ok(trace.sorted())
}

fn reader(path: &Path) -> Result<csv::Reader<BufReader<File>>, Error> {
    let file = File::open(path).map_err(|error| Error::file(path, "read", error))?;
    Ok(csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(BufReader::new(file)))
}

fn read_functions(path: &Path) -> Result<Vec<Function>, Error> {
    let mut functions = Vec::new();
    for row in reader(path)?.deserialize() {
        let row: Row = row.map_err(|error| Error::format(path, error))?;
        let fits = |ms: f64| (0.0..1e9).contains(&ms);
        if !fits(row.cold_ms) || !fits(row.warm_ms) {
            return Err(Error::format(path, format!("function {}: a time is out of range", row.function)));
        }
        functions.push(Function {
            name: row.function,
            tenant: row.tenant.filter(|tenant| !tenant.is_empty()).unwrap_or_else(|| "default".to_owned()),
            start_ms: (row.cold_ms - row.warm_ms).max(0.0),
            exec_ms: row.warm_ms,
            memory_mb: row.memory_mb,
        });
    }
    Ok(functions)
}

/// Writes a trace.
///
/// # Errors
/// When a file can't be written.
pub fn write(trace: &Trace, calls: &Path, functions: &Path) -> Result<(), Error> {
    let mut writer = writer(functions)?;
    for function in &trace.functions {
        let row = Row {
            function: function.name.clone(),
            cold_ms: function.start_ms + function.exec_ms,
            warm_ms: function.exec_ms,
            memory_mb: function.memory_mb,
            tenant: Some(function.tenant.clone()),
        };
        writer.serialize(row).map_err(|error| Error::format(functions, error))?;
    }
    finish(writer, functions)?;
    let mut writer = self::writer(calls)?;
    for call in &trace.arrivals {
        let row = Call {
            function: &trace.functions[call.function as usize].name,
            arrival_ms: call.at_ms as f64,
            exec_ms: Some(f64::from(call.exec_ms)),
        };
        writer.serialize(row).map_err(|error| Error::format(calls, error))?;
    }
    finish(writer, calls)
}

fn writer(path: &Path) -> Result<csv::Writer<BufWriter<File>>, Error> {
    let file = File::create(path).map_err(|error| Error::file(path, "written", error))?;
    Ok(csv::Writer::from_writer(BufWriter::new(file)))
}

fn finish(writer: csv::Writer<BufWriter<File>>, path: &Path) -> Result<(), Error> {
    let done = writer.into_inner().map_err(|error| error.into_error()).and_then(|mut file| file.flush());
    done.map_err(|error| Error::file(path, "written", error))
}

#[cfg(test)]
mod tests {
    use super::super::{Settings, generate};
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let calls = folder.path().join("day.csv");
        let functions = functions_beside(&calls);
        let settings = Settings { functions: 20, invocations: 500, ..Settings::default() };
        let trace = generate(&settings).expect("makes");
        write(&trace, &calls, &functions).expect("writes");
        assert_eq!(read(&calls, &functions).expect("reads"), trace);
    }

    #[test]
    fn faults_are_told_with_their_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let (calls, functions) = (folder.path().join("c.csv"), folder.path().join("f.csv"));
        std::fs::write(&functions, "function,cold_ms,warm_ms,memory_mb\na,300,20,64\n").expect("writes");
        for (text, says) in [
            ("function,arrival_ms\na,5\nb,6\n", "line 3: function b"),
            ("function,arrival_ms\na,5\na,-6\n", "line 3: a time"),
            ("function,when\na,5\n", "arrival_ms"),
            ("function,arrival_ms\na,soon\n", "line: 2"),
        ] {
            std::fs::write(&calls, text).expect("writes");
            let error = read(&calls, &functions).expect_err(text).to_string();
            assert!(error.contains(says), "{error}");
        }
        std::fs::write(&calls, "function,arrival_ms,more\na,5.2,x\n").expect("writes");
        let trace = read(&calls, &functions).expect("reads");
        assert_eq!(trace.arrivals, [Arrival { at_ms: 5, function: 0, exec_ms: 20 }]);
        assert_eq!(trace.functions[0].start_ms, 280.0);
        assert!(read(&folder.path().join("none"), &functions).is_err());
    }
}
