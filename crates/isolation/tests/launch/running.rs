//! Programs run, are talked with, and end.

use std::net::{SocketAddr, TcpStream};
use std::os::fd::{FromRawFd, IntoRawFd};

use lyra_isolation::process::launch::{Bind, LaunchError, Limits, Privilege};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

#[tokio::test]
async fn a_program_runs_with_its_arguments_environment_and_directory() {
    let bench = Bench::start().await;
    let mut plan = shell("echo $0 $A; pwd; echo oops >&2; id -u; hostname; exit 7");
    plan.env = vec![("A".into(), "b c".into()), ("PATH".into(), "/usr/bin:/bin".into())];
    let outcome = bench.run(plan).await;
    assert_eq!(outcome.stdout, "/bin/sh b c\n/tmp\n1000\nlyra\n", "{}", outcome.stderr);
    assert_eq!(outcome.stderr, "oops\n");
    assert_eq!(outcome.exit, Exit { code: Some(7), signal: None, out_of_memory: false });
    bench.finish().await;
}

#[tokio::test]
async fn a_forked_interpreter_runs_a_script_like_a_program() {
    let bench = Bench::start().await;
    let mut plan = forked(
        "import os, sys, json\nprint(sys.argv, os.environ['A'], sorted(os.environ), os.getcwd(), os.getuid(), os.getpid(), __name__)\n\
         print(os.listdir('/proc/self/fd').__len__(), os.getgroups(), file=sys.stderr)\nsys.exit(7)",
    );
    plan.env = vec![("A".into(), "b".into())];
    let outcome = bench.run(plan).await;
    assert_eq!(outcome.stdout, "['lyra'] b ['A'] /tmp 1000 2 __main__\n", "{}", outcome.stderr);
    assert_eq!(outcome.stderr, "4 []\n", "no descriptors but the standard ones and that of the list, no groups");
    assert_eq!(outcome.exit.code, Some(7));
    bench.finish().await;
}

#[tokio::test]
async fn many_sandboxes_start_beside_each_other_and_are_told_apart() {
    let bench = Bench::start().await;
    let runs = (0..24).map(|number| {
        let plan = if number % 2 == 0 { shell(&format!("echo {number}")) } else { forked(&format!("print({number})")) };
        bench.run(plan)
    });
    let outcomes = futures::future::join_all(runs).await;
    for (number, outcome) in outcomes.iter().enumerate() {
        assert_eq!(outcome.stdout, format!("{number}\n"), "{outcome:?}");
        assert_eq!(outcome.exit.code, Some(0));
    }
    bench.finish().await;
}

#[tokio::test]
async fn a_listener_made_with_the_sandbox_is_reached_from_inside() {
    let bench = Bench::start().await;
    let mut plan = python("import socket\ns = socket.create_connection(('127.0.0.1', 9001))\ns.sendall(b'hello')");
    plan.listen = vec![9001, 0];
    let mut process = bench.spawn(plan).await;
    assert_eq!(process.listeners.len(), 2);
    assert_ne!(process.listeners[1].local_addr().unwrap().port(), 0);
    let listener = tokio::net::TcpListener::from_std(process.listeners.remove(0)).unwrap();
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "hello");
    assert_eq!(process.wait().await.code, Some(0));
    bench.finish().await;
}

#[tokio::test]
async fn a_socket_made_in_the_sandbox_reaches_its_server() {
    let bench = Bench::start().await;
    let script = "import socket\ns = socket.create_server(('127.0.0.1', 9002))\nprint('up', flush=True)\n\
                  c, _ = s.accept()\nc.sendall(c.recv(100).upper())\n";
    let mut process = bench.spawn(forked(script)).await;
    let mut up = [0; 3];
    process.stdout.as_mut().unwrap().read_exact(&mut up).await.unwrap();
    let address: SocketAddr = "127.0.0.1:9002".parse().unwrap();
    assert!(TcpStream::connect(address).is_err(), "its network is not the machine's");
    let socket = process.socket(false).await.unwrap();
    #[expect(unsafe_code, reason = "tokio takes raw descriptors only")]
    // SAFETY: the descriptor is handed over.
    let socket = unsafe { tokio::net::TcpSocket::from_raw_fd(socket.into_raw_fd()) };
    let mut stream = socket.connect(address).await.unwrap();
    stream.write_all(b"quiet").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "QUIET");
    assert_eq!(process.wait().await.code, Some(0));
    bench.finish().await;
}

#[tokio::test]
async fn code_can_be_mounted_into_a_running_sandbox_and_not_be_changed_there() {
    let bench = Bench::start().await;
    let code = tempfile::tempdir().unwrap();
    std::fs::write(code.path().join("main"), "the code").unwrap();
    let script = "echo up; while ! cat /var/task/main 2>/dev/null; do :; done; echo; echo x > /var/task/main";
    let mut plan = shell(script);
    plan.env = vec![("PATH".into(), "/usr/bin:/bin".into())];
    plan.mount_points = vec!["/var/task".into()];
    let process = bench.spawn(plan).await;
    process.bind(code.path(), Path::new("/var/task")).await.unwrap();
    let refused = process.bind(code.path(), Path::new("/absent")).await;
    assert!(matches!(refused, Err(LaunchError::Refused(_))));
    let outcome = finish(process).await;
    assert_eq!(outcome.stdout, "up\nthe code\n");
    assert!(outcome.stderr.contains("Read-only file system"), "{}", outcome.stderr);
    bench.finish().await;
}

#[tokio::test]
async fn binds_show_what_they_name_and_only_writable_ones_can_be_written() {
    let bench = Bench::start().await;
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("file"), "text").unwrap();
    let writable = outside.path().join("writable");
    std::fs::create_dir(&writable).unwrap();
    std::os::unix::fs::chown(&writable, None, None).unwrap();
    std::fs::set_permissions(&writable, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let mut plan = shell("cat /a/file; echo new > /w/new && echo written; echo x > /a/x || echo refused");
    plan.env = vec![("PATH".into(), "/usr/bin:/bin".into())];
    plan.binds.push(Bind::new(outside.path().join("file"), "/a/file"));
    plan.binds.push(Bind { writable: true, ..Bind::new(&writable, "/w") });
    let outcome = bench.run(plan).await;
    assert_eq!(outcome.stdout, "textwritten\nrefused\n", "{}", outcome.stderr);
    assert_eq!(std::fs::read_to_string(writable.join("new")).unwrap(), "new\n");
    bench.finish().await;
}

#[tokio::test]
async fn a_frozen_sandbox_does_nothing_until_it_is_thawed_and_can_be_killed() {
    let bench = Bench::start().await;
    let mut process = bench.spawn(shell("while :; do echo tick; done")).await;
    let mut stdout = process.stdout.take().unwrap();
    let mut buffer = vec![0; 1 << 20];
    stdout.read_exact(&mut buffer[..10]).await.unwrap();
    process.freeze().await.unwrap();
    // What is in the pipe can still be read; nothing new comes.
    while stdout.try_read(&mut buffer).is_ok_and(|count| count > 0) {}
    let cpu = process.usage().cpu;
    assert!(stdout.try_read(&mut buffer).is_err());
    assert_eq!(process.usage().cpu, cpu);
    process.reclaim().await;
    process.thaw().await.unwrap();
    stdout.read_exact(&mut buffer[..10]).await.unwrap();
    process.freeze().await.unwrap();
    process.kill();
    assert_eq!(process.wait().await.signal, Some(9));
    bench.finish().await;
}

#[tokio::test]
async fn what_cannot_be_started_says_why_and_leaves_nothing() {
    let bench = Bench::start().await;
    let reason = |result: Result<Process, LaunchError>| result.err().unwrap().to_string();
    let absent = reason(bench.launcher.spawn(exec(&["/absent"])).await);
    assert!(absent.contains("starting /absent in a sandbox failed: No such file"), "{absent}");
    let mut plan = shell("true");
    plan.binds.push(Bind::new("/absent", "/a"));
    let bind = reason(bench.launcher.spawn(plan).await);
    assert!(bind.contains("mounting /absent into a sandbox failed"), "{bind}");
    let mut plan = shell("true");
    plan.cwd = "/nowhere".into();
    let directory = reason(bench.launcher.spawn(plan).await);
    assert!(directory.contains("going to the working directory"), "{directory}");
    let mut plan = shell("true");
    plan.env = vec![("A".into(), "x".repeat(1 << 20))];
    assert!(matches!(bench.launcher.spawn(plan).await, Err(LaunchError::InvalidPlan(_))));
    let mut plan = forked("");
    plan.program = Program::Python {
        interpreter: "/bin/false".into(),
        preload: Vec::new(),
        script: String::new(),
        arguments: Vec::new(),
    };
    let interpreter = reason(bench.launcher.spawn(plan).await);
    assert!(interpreter.contains("starting /bin/false failed"), "{interpreter}");
    assert_eq!(bench.run(shell("echo still here")).await.stdout, "still here\n");
    bench.finish().await;
}

#[tokio::test]
async fn limits_of_a_running_sandbox_can_be_changed() {
    let bench = Bench::start().await;
    let mut process = bench
        .spawn(python("import sys\nsys.stdout.write('up')\nsys.stdout.flush()\nsys.stdin.read()\nwhile 1: pass"))
        .await;
    process.stdout.as_mut().unwrap().read_exact(&mut [0; 2]).await.unwrap();
    process.set_limits(Limits { memory_bytes: 256 << 20, ..Limits::default() }).await.unwrap();
    let usage = process.usage();
    assert!(usage.memory > 0 && usage.cpu > Duration::ZERO, "{usage:?}");
    process.kill();
    process.wait().await;
    let late = process.set_limits(Limits::default()).await;
    assert!(matches!(late, Err(LaunchError::Refused(_))), "{late:?}");
    bench.finish().await;
}

#[tokio::test]
async fn an_ordinary_user_gets_sandboxes_by_user_namespaces() {
    // The helper must be where that user may get to.
    let place =
        tempfile::Builder::new().permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755)).tempdir().unwrap();
    let helper = place.path().join("lyra-sandbox");
    std::fs::copy(env!("CARGO_BIN_EXE_lyra-sandbox"), &helper).unwrap();
    let words = ["/usr/bin/setpriv", "--reuid=61234", "--regid=61234", "--clear-groups"];
    let bench = Bench::with(|config| {
        config.helper = words.iter().map(Into::into).chain([helper.into_os_string()]).collect();
    })
    .await;
    assert_eq!(bench.launcher.abilities().privilege, Privilege::UserNamespace);
    assert_eq!(bench.launcher.abilities().cgroups.version, 0);
    let look = "import os\nprint(os.getuid(), sorted(p for p in os.listdir('/proc') if p.isdigit()))\n\
                for path in ('/proc/1/mem', '/proc/1/environ'):\n  try: print('OPEN', open(path, 'rb').read(1))\n  except OSError: pass\n\
                for call in (lambda: os.listdir('/root'), lambda: open('/usr/x', 'w'), lambda: os.setuid(0)):\n  try: print('OPEN', call())\n  except OSError: pass\n";
    for plan in [python(look), forked(look)] {
        let outcome = bench.run(plan).await;
        assert_eq!(outcome.stdout, "1000 ['1', '2']\n", "{}", outcome.stderr);
    }
    let process = bench.spawn(shell("read x; while :; do :; done")).await;
    let refused = process.bind(Path::new("/usr"), Path::new("/tmp")).await;
    assert!(matches!(refused, Err(LaunchError::Refused(_))));
    process.kill();
    assert_eq!(process.wait().await.signal, Some(9));
    bench.finish().await;
}
