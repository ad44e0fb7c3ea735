//! A program for the tests of the runtimes `native` and `http`: does what the variable `DEED` says, once for each event.
//!
//! It is built by the tests with `rustc` alone. With `PORT` it is an HTTP server, else it speaks the AWS Lambda Runtime
//! API. It is written for the tests and takes whatever it is sent to be well formed.

use std::ffi::{c_char, c_int, c_long, c_ulong, c_void};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

unsafe extern "C" {
    fn acct(file: *const c_char) -> c_int;
    fn chroot(path: *const c_char) -> c_int;
    fn fork() -> c_int;
    fn kill(pid: c_int, signal: c_int) -> c_int;
    fn mknod(path: *const c_char, mode: u32, device: u64) -> c_int;
    fn mount(
        source: *const c_char,
        target: *const c_char,
        kind: *const c_char,
        flags: c_ulong,
        data: *const c_void,
    ) -> c_int;
    fn process_vm_readv(pid: c_int, local: *const c_void, n: c_ulong, remote: *const c_void, m: c_ulong, flags: c_ulong) -> isize;
    fn ptrace(request: c_int, pid: c_int, address: *mut c_void, data: *mut c_void) -> c_long;
    fn sethostname(name: *const c_char, length: usize) -> c_int;
    fn setgroups(count: usize, groups: *const u32) -> c_int;
    fn setns(fd: c_int, kind: c_int) -> c_int;
    fn setuid(user: u32) -> c_int;
    fn signal(number: c_int, handler: usize) -> usize;
    fn socket(family: c_int, kind: c_int, protocol: c_int) -> c_int;
    fn swapoff(path: *const c_char) -> c_int;
    fn umount2(target: *const c_char, flags: c_int) -> c_int;
    fn unshare(flags: c_int) -> c_int;
}

fn main() {
    let deed = variable("DEED");
    if deed == "deaf" {
        // SAFETY: the signal is ignored (1), no code of ours runs.
        unsafe { signal(15, 1) };
    }
    match std::env::var("PORT") {
        Ok(port) => serve(&deed, &port),
        Err(_) => take_invocations(&deed),
    }
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

/// A request or a response: its first line, its header lines, its body.
struct Message {
    first: String,
    headers: Vec<String>,
    body: Vec<u8>,
}

impl Message {
    fn read(from: &mut impl BufRead) -> Option<Message> {
        let mut line = || {
            let mut line = String::new();
            from.read_line(&mut line).ok().filter(|count| *count > 0)?;
            Some(line.trim_end().to_owned())
        };
        let first = line()?;
        let mut headers = Vec::new();
        loop {
            match line()? {
                end if end.is_empty() => break,
                header => headers.push(header),
            }
        }
        let mut message = Message { first, headers, body: Vec::new() };
        message.body = vec![0; message.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0)];
        from.read_exact(&mut message.body).ok()?;
        Some(message)
    }

    fn header(&self, name: &str) -> Option<&str> {
        let named = |line: &&String| line.len() > name.len() && line[..name.len()].eq_ignore_ascii_case(name);
        Some(self.headers.iter().find(named)?.split_once(':')?.1.trim())
    }
}

fn take_invocations(deed: &str) {
    let api = variable("AWS_LAMBDA_RUNTIME_API");
    let connect = || TcpStream::connect(&api).expect("the runtime interface is there");
    let root = "/2018-06-01/runtime/invocation/";
    let mut stream = BufReader::new(connect());
    let mut calls = 0;
    loop {
        write!(stream.get_mut(), "GET {root}next HTTP/1.1\r\nhost: {api}\r\n\r\n").expect("asked");
        if deed == "leave" && calls == 1 {
            // Gives up waiting, and never asks again.
            std::thread::sleep(Duration::from_millis(200));
            drop(stream);
            return sleep();
        }
        let invocation = Message::read(&mut stream).expect("an invocation");
        let id = invocation.header("lambda-runtime-aws-request-id").expect("it has a number").to_owned();
        calls += 1;
        match deed {
            "close" => {
                drop(stream);
                return sleep();
            }
            "break" => {
                let part = format!("POST {root}{id}/response HTTP/1.1\r\nhost: {api}\r\ncontent-length: 100\r\n\r\n\"half");
                stream.get_mut().write_all(part.as_bytes()).expect("written");
                drop(stream);
                return sleep();
            }
            // As programs do that make a connection for each request.
            "reconnect" => {
                drop(stream);
                std::thread::sleep(Duration::from_millis(1500));
                stream = BufReader::new(connect());
            }
            _ => {}
        }
        let (what, body) = match act(deed, &invocation.body, calls) {
            Ok(body) => ("response", body),
            Err(why) => ("error", format!("{{\"errorType\":\"Asked\",\"errorMessage\":\"{why}\"}}").into_bytes()),
        };
        let head = format!("POST {root}{id}/{what} HTTP/1.1\r\nhost: {api}\r\ncontent-length: {}\r\n\r\n", body.len());
        // What is too large is refused before all of it was sent.
        let sent = stream.get_mut().write_all(head.as_bytes()).and_then(|()| stream.get_mut().write_all(&body));
        if sent.is_err() || Message::read(&mut stream).is_none() {
            stream = BufReader::new(connect());
        }
    }
}

fn serve(deed: &str, port: &str) {
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).expect("the port is free");
    let mut calls = 0;
    for stream in listener.incoming().map_while(Result::ok) {
        let mut stream = BufReader::new(stream);
        while let Some(request) = Message::read(&mut stream) {
            if !request.first.starts_with("POST /") {
                break;
            }
            calls += 1;
            if deed == "close" {
                drop(stream);
                drop(listener);
                return sleep();
            }
            let (status, body) = match act(deed, &request.body, calls) {
                Ok(body) => ("200 OK", body),
                Err(why) => ("500 Internal Server Error", why.into_bytes()),
            };
            let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n", body.len());
            if stream.get_mut().write_all(head.as_bytes()).and_then(|()| stream.get_mut().write_all(&body)).is_err() {
                break;
            }
        }
    }
}

fn sleep() {
    std::thread::sleep(Duration::from_secs(600));
}

fn act(deed: &str, event: &[u8], calls: u32) -> Result<Vec<u8>, String> {
    match deed {
        "count" => return Ok(calls.to_string().into_bytes()),
        "wait" => std::thread::sleep(Duration::from_millis(20)),
        "forever" => loop {
            std::hint::spin_loop();
        },
        "hoard" => hoard(),
        "crash" => std::process::abort(),
        "exit" => std::process::exit(0),
        "fail" => return Err("as asked".to_owned()),
        "large" => return Ok(format!("\"{}\"", "x".repeat(2 << 20)).into_bytes()),
        "lines" => println!("a line"),
        "flood" => {
            let line = format!("{}\n", "x".repeat(65_535));
            while std::io::stdout().write_all(line.as_bytes()).is_ok() {}
        }
        "bomb" => loop {
            // SAFETY: this program has one thread.
            if unsafe { fork() } < 0 {
                std::thread::sleep(Duration::from_millis(10));
            }
        },
        "files" => {
            let mut open = Vec::new();
            while let Ok(file) = std::fs::File::open("/dev/null") {
                open.push(file);
            }
            return Ok(open.len().to_string().into_bytes());
        }
        "disk" => {
            let mut file = std::fs::File::create("/tmp/big").map_err(|error| error.to_string())?;
            // SAFETY: the signal of a file that is too large is ignored.
            unsafe { signal(25, 1) };
            let error = loop {
                if let Err(error) = file.write_all(&[1; 1 << 16]) {
                    break error;
                }
            };
            std::fs::remove_file("/tmp/big").map_err(|error| error.to_string())?;
            return Ok(error.raw_os_error().unwrap_or(0).to_string().into_bytes());
        }
        "look" => return Ok(look().into_bytes()),
        "escape" => return Ok(escape().into_bytes()),
        _ => {}
    }
    Ok(event.to_vec())
}

fn hoard() {
    let mut all = Vec::new();
    loop {
        all.push(std::hint::black_box(vec![1u8; 1 << 20]));
    }
}

/// The variables and the device nodes that tell of GPUs, and what a node answers.
fn look() -> String {
    let devices = std::fs::read_dir("/dev").into_iter().flatten().flatten();
    let mut names: Vec<String> = devices.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.retain(|name| name.starts_with("nvidia"));
    names.sort();
    let opened = names.iter().map(|name| {
        let node = std::fs::OpenOptions::new().read(true).write(true).open(format!("/dev/{name}"));
        let mut byte = [1];
        node.and_then(|mut node| node.read_exact(&mut byte).and_then(|()| node.write_all(&byte))).is_ok()
    });
    let opened: Vec<bool> = opened.collect();
    let library = std::fs::read_to_string("/opt/nvidia/lib/libcuda.so.1").unwrap_or_default();
    let of = variable;
    format!(
        "{{\"devices\":{names:?},\"opened\":{opened:?},\"visible\":{:?},\"path\":{:?},\"library\":{library:?}}}",
        of("CUDA_VISIBLE_DEVICES"),
        of("LD_LIBRARY_PATH"),
    )
}

/// Ways out, tried by the plainest means; the names of those that are open.
fn escape() -> String {
    let outside: c_int = variable("OUTSIDE").parse().expect("the number of a process outside");
    let null = std::ptr::null_mut::<c_void>();
    let mut open = Vec::new();
    let mut tried = 0;
    let mut refused = |what: &str, result: i64| {
        tried += 1;
        if result >= 0 {
            open.push(what.to_owned());
        }
    };
    // SAFETY: strings end with a zero, other pointers are null or of the length that is given.
    unsafe {
        refused("mount", mount(c"x".as_ptr(), c"/tmp".as_ptr(), c"tmpfs".as_ptr(), 0, null).into());
        refused("remount", mount(std::ptr::null(), c"/".as_ptr(), std::ptr::null(), 32 | 4096, null).into());
        refused("bind", mount(c"/proc".as_ptr(), c"/tmp".as_ptr(), std::ptr::null(), 4096, null).into());
        refused("umount", umount2(c"/proc".as_ptr(), 2).into());
        refused("chroot", chroot(c"/tmp".as_ptr()).into());
        for flag in [0x0002_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000, 0x0800_0000, 0x0400_0000, 0x0200_0000] {
            refused("unshare", unshare(flag).into());
        }
        refused("setns", setns(0, 0).into());
        refused("ptrace of the first process", ptrace(16, 1, null, null));
        refused("ptrace of one outside", ptrace(16, outside, null, null));
        refused("being traced", ptrace(0, 0, null, null));
        refused("memory of the first process", process_vm_readv(1, null, 0, null, 0, 0) as i64);
        refused("kill outside", kill(outside, 0).into());
        refused("a block device", mknod(c"/tmp/b".as_ptr(), 0o60666, 254 << 8).into());
        refused("a device of memory", mknod(c"/tmp/c".as_ptr(), 0o20666, 1 << 8 | 1).into());
        for (family, kind, protocol) in [(2, 3, 1), (10, 3, 58), (17, 3, 3), (17, 2, 3), (40, 1, 0), (38, 5, 0), (16, 3, 9)] {
            refused(&format!("socket {family} {kind}"), socket(family, kind, protocol).into());
        }
        refused("root", setuid(0).into());
        refused("groups", setgroups(1, &0).into());
        refused("the name", sethostname(c"x".as_ptr(), 1).into());
        refused("accounting", acct(c"/tmp/a".as_ptr()).into());
        refused("swap", swapoff(c"/tmp/a".as_ptr()).into());
    }
    let mut missing = |how: &str, path: String, result: std::io::Result<()>| refused(&format!("{how} {path}"), if result.is_ok() { 0 } else { -1 });
    for path in ["/root", "/home", "/etc/shadow", "/sys/fs/cgroup", "/dev/mem", "/dev/kmsg", "/dev/kvm", "/dev/fuse", "/dev/net/tun"] {
        missing("see", path.to_owned(), std::fs::metadata(path).map(drop));
    }
    for path in ["root", "fd", "cwd/..", "environ", "mem", "maps"] {
        let path = format!("/proc/1/{path}");
        let seen = std::fs::read_dir(&path).map(drop).or_else(|_| {
            std::fs::File::open(&path).and_then(|mut file| file.read_exact(&mut [0]))
        });
        missing("read", path, seen);
    }
    missing("see", format!("/proc/{outside}"), std::fs::metadata(format!("/proc/{outside}")).map(drop));
    for path in [
        "/usr/x",
        "/etc/passwd",
        "/x",
        "/dev/x",
        "/var/task/x",
        "/proc/sys/kernel/core_pattern",
        "/proc/sysrq-trigger",
        "/proc/1/oom_score_adj",
        "/proc/1/uid_map",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/cgroup.procs",
    ] {
        missing("write", path.to_owned(), std::fs::write(path, "1"));
    }
    let outside = std::net::SocketAddr::from(([192, 0, 2, 1], 9));
    missing("connect", outside.to_string(), TcpStream::connect_timeout(&outside, Duration::from_secs(1)).map(drop));
    format!("{{\"open\":{open:?},\"tried\":{}}}", tried > 50)
}
