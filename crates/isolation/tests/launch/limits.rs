//! What a sandbox may use is bounded, and ends it alone.

use super::*;

#[tokio::test]
async fn a_memory_bomb_ends_as_out_of_memory() {
    let bench = Bench::start().await;
    let bomb = "x = []\nwhile True: x.append(bytearray(1 << 20))";
    for mut plan in [python(bomb), forked(bomb)] {
        plan.limits.memory_bytes = 64 << 20;
        let outcome = bench.run(plan).await;
        assert_eq!(outcome.exit, Exit { code: None, signal: Some(9), out_of_memory: true });
    }
    let killed = bench.spawn(shell("read x")).await;
    killed.kill();
    assert!(!killed.wait().await.out_of_memory, "a kill is told from it");
    bench.finish().await;
}

#[tokio::test]
async fn a_fork_bomb_is_bounded_and_leaves_no_process() {
    let bench = Bench::start().await;
    let bomb = "import os\nn = 0\ntry:\n  while True:\n    if os.fork() == 0:\n      while True: os.read(r, 1) if 0 else __import__('signal').pause()\n    n += 1\nexcept BlockingIOError: print(n)";
    for mut plan in [python(bomb), forked(bomb)] {
        plan.limits.pids = 16;
        let outcome = bench.run(plan).await;
        assert_eq!(outcome.stdout, "14\n", "beside the first process and the program: {}", outcome.stderr);
        assert_eq!(outcome.exit.code, Some(0));
    }
    bench.finish().await;
}

#[tokio::test]
async fn open_files_the_tmp_directory_and_files_are_bounded() {
    let bench = Bench::start().await;
    let script = "import os, errno\nn = []\ntry:\n  while True: n.append(os.open('/dev/null', 0))\n\
        except OSError as e: print(len(n) < 64, e.errno == errno.EMFILE)\n[os.close(f) for f in n]\n\
        f = open('/tmp/a', 'wb', 0)\ntry:\n  while True: f.write(bytes(1 << 20))\nexcept OSError as e: print(e.errno == errno.ENOSPC, f.tell() >> 20)\n\
        f.close(); os.unlink('/tmp/a')\ntry:\n  for i in range(1 << 20): open('/tmp/f%d' % i, 'w').close()\nexcept OSError as e: print(e.errno == errno.ENOSPC)\n";
    for mut plan in [python(script), forked(script)] {
        plan.limits.open_files = 64;
        plan.tmp_bytes = 8 << 20;
        let outcome = bench.run(plan).await;
        assert_eq!(outcome.stdout, "True True\nTrue 8\nTrue\n", "{}", outcome.stderr);
    }
    let mut plan = python(
        "import signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\ntry:\n  open('/tmp/a', 'wb').write(bytes(2 << 20))\nexcept OSError as e: print(e.errno)",
    );
    plan.limits.file_bytes = 1 << 20;
    assert_eq!(bench.run(plan).await.stdout, "27\n");
    bench.finish().await;
}

#[tokio::test]
async fn sigterm_asks_and_a_program_that_ignores_it_is_killed() {
    let bench = Bench::start().await;
    // No `signal.pause`: a signal just before it would be taken by Python only after it.
    let polite = "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(3))\nprint('up', flush=True)\nwhile True: time.sleep(0.02)";
    let deaf = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('up', flush=True)\nwhile True: signal.pause()";
    for make in [python, forked] {
        for (script, ends) in [(polite, Some(3)), (deaf, None)] {
            let mut process = bench.spawn(make(script)).await;
            tokio::io::AsyncReadExt::read_exact(process.stdout.as_mut().unwrap(), &mut [0; 3]).await.unwrap();
            process.signal(libc::SIGTERM);
            if ends.is_none() {
                process.socket(false).await.expect("it still lives after the signal");
                process.kill();
            }
            let exit = process.wait().await;
            assert_eq!((exit.code, exit.signal), (ends, ends.map_or(Some(9), |_| None)));
        }
    }
    bench.finish().await;
}

#[tokio::test]
async fn without_cgroups_memory_is_watched_and_processes_are_counted() {
    let bench = Bench::with(|config| config.cgroups = false).await;
    assert_eq!(bench.launcher.abilities().cgroups.version, 0);
    for make in [python, forked] {
        let mut plan = make("x = []\nwhile len(x) < 4096: x.append(bytearray(1 << 20))\n");
        plan.limits.memory_bytes = 64 << 20;
        assert!(bench.run(plan).await.exit.out_of_memory);
    }
    let process = bench.spawn(shell("while :; do :; done")).await;
    process.freeze().await.unwrap();
    process.thaw().await.unwrap();
    assert!(process.usage().memory > 0);
    process.kill();
    assert_eq!(process.wait().await.signal, Some(9));
    bench.finish().await;
}
