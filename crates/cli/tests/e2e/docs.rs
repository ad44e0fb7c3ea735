//! What the guide prints works as printed: runs the `console` blocks of `README.md` and of every page of the guide.
//!
//! In a block, a line `$ command` is run, with lines `> …` as its continuation; the lines after it are what it prints
//! (stdout and stderr), where `…` stands for any text in a line and a line `…` for any number of lines. A command that
//! prints nothing in the page may print anything. Its exit code must be 0, unless `$ echo $?` comes next. All blocks of
//! a page run in one shell, in order, in a directory with a copy of `examples/`, against a server with fresh data.
//! `127.0.0.1:8080` is replaced by the server's address, and `cargo run --release --` by the binary. A block that
//! begins with ```` ```console no-run ```` is left out.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::start::{BINARY, alone, repository, server};

#[derive(Debug)]
struct Step {
    line: usize,
    command: String,
    expected: Vec<String>,
}

fn steps(page: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut inside = false;
    let mut fresh = true;
    for (number, line) in page.lines().enumerate() {
        if line.starts_with("```") {
            inside = !inside && line == "```console";
            fresh = true;
            continue;
        }
        if !inside {
            continue;
        }
        if let Some(command) = line.strip_prefix("$ ") {
            steps.push(Step { line: number + 1, command: command.to_owned(), expected: Vec::new() });
            fresh = false;
        } else if let Some(step) = steps.last_mut().filter(|_| !fresh) {
            match line.strip_prefix('>').filter(|_| step.expected.is_empty()) {
                Some(more) => step.command += &format!("\n{}", more.strip_prefix(' ').unwrap_or(more)),
                None => step.expected.push(line.to_owned()),
            }
        }
    }
    steps
}

fn line_matches(pattern: &str, line: &str) -> bool {
    let mut parts = pattern.split('…');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = line.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

fn matches(expected: &[String], printed: &[&str]) -> bool {
    match (expected.split_first(), printed.split_first()) {
        (None, None) => true,
        (Some((pattern, rest)), _) if pattern == "…" => {
            (0..=printed.len()).any(|skipped| matches(rest, &printed[skipped..]))
        }
        (Some((pattern, expected)), Some((line, printed))) => line_matches(pattern, line) && matches(expected, printed),
        _ => false,
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()))?;
        } else {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// The script that runs the steps one by one and notes what each printed and how it ended.
fn script(steps: &[Step], address: &str) -> String {
    let mut script = "set -u\ncargo() { shift 3; lyra \"$@\"; }\nlast=0\n".to_owned();
    for (number, step) in steps.iter().enumerate() {
        let command = step.command.replace("127.0.0.1:8080", address);
        script += &format!(
            "(exit $last)\n{{\n{command}\n}} >\"$OUT/{number}.out\" 2>&1 </dev/null\nlast=$?\necho $last >\"$OUT/{number}.code\"\n"
        );
    }
    script
}

async fn run_page(name: &str) -> Result<usize> {
    let page = fs::read_to_string(repository().join(name)).with_context(|| name.to_owned())?;
    let steps = steps(&page);
    let lyra = server().await?;
    let (work, out, bin) = (lyra.scratch().join("work"), lyra.scratch().join("out"), lyra.scratch().join("bin"));
    copy(&repository().join("examples"), &work.join("examples"))?;
    fs::create_dir_all(&out)?;
    fs::create_dir_all(&bin)?;
    std::os::unix::fs::symlink(BINARY, bin.join("lyra"))?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = format!("{}:{}", bin.display(), path.to_string_lossy());
    let shell = alone().binary("bash").within(&work);
    let shell = shell.env("PATH", &path).env("LYRA_URL", lyra.url()).env("OUT", &out.to_string_lossy());
    shell.run(["-c", &script(&steps, lyra.address())]).await?;
    for (number, step) in steps.iter().enumerate() {
        let place = format!("{name}:{}: $ {}", step.line, step.command);
        let printed = fs::read_to_string(out.join(format!("{number}.out"))).with_context(|| place.clone())?;
        let code =
            fs::read_to_string(out.join(format!("{number}.code"))).with_context(|| format!("{place}\n{printed}"))?;
        let code_is_shown = steps.get(number + 1).is_some_and(|next| next.command == "echo $?");
        ensure!(code.trim() == "0" || code_is_shown, "{place}\nended with {}\n{printed}", code.trim());
        let printed = printed.replace(lyra.address(), "127.0.0.1:8080");
        let lines: Vec<&str> = printed.lines().collect();
        if !step.expected.is_empty() && !matches(&step.expected, &lines) {
            bail!("{place}\nprints\n{printed}\nand not\n{}", step.expected.join("\n"));
        }
    }
    Ok(steps.len())
}

#[tokio::test]
async fn the_readme_works_as_printed() -> Result<()> {
    assert!(run_page("README.md").await? >= 5);
    Ok(())
}

#[tokio::test]
async fn every_page_of_the_guide_works_as_printed() -> Result<()> {
    let mut pages: Vec<String> = Vec::new();
    for entry in fs::read_dir(repository().join("docs/guide"))? {
        let file = entry?.file_name().into_string().unwrap_or_default();
        if file.ends_with(".md") {
            pages.push(format!("docs/guide/{file}"));
        }
    }
    pages.sort();
    assert!(pages.len() >= 8, "{pages:?}");
    let mut steps = 0;
    for page in pages {
        steps += run_page(&page).await?;
    }
    assert!(steps >= 40, "{steps} commands were run");
    Ok(())
}

#[test]
fn every_curl_or_lyra_line_of_the_guide_is_run_or_says_that_it_is_not() -> Result<()> {
    for folder in ["docs/guide", "."] {
        for entry in fs::read_dir(repository().join(folder))? {
            let path = entry?.path();
            if path.extension().is_none_or(|ending| ending != "md") {
                continue;
            }
            let text = fs::read_to_string(&path)?;
            let mut fence: Option<&str> = None;
            for line in text.lines() {
                if line.starts_with("```") {
                    fence = if fence.is_some() { None } else { Some(line) };
                    continue;
                }
                // In a console block, what does not begin with `$ ` is output.
                let shown = fence.is_some_and(|fence| fence.starts_with("```console") || fence == "```text");
                let calls = line.starts_with("curl ") || line.starts_with("lyra ");
                assert!(shown || !calls, "{}: `{line}` stands in no console block", path.display());
            }
        }
    }
    Ok(())
}

#[test]
fn patterns_match_what_was_printed() {
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    for (expected, printed, good) in [
        ("a", "a", true),
        ("a", "a b", false),
        ("took … ms", "took 12 ms", true),
        ("took … ms", "took 12 s", false),
        ("…", "", true),
        ("a\n…\nz", "a\nb\nc\nz", true),
        ("a\n…", "b", false),
        ("x … y … z", "x 1 y 2 z", true),
    ] {
        let printed: Vec<&str> = printed.lines().collect();
        assert_eq!(matches(&lines(expected), &printed), good, "{expected} / {printed:?}");
    }
}
