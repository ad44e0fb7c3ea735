// Says whether a file is a well-formed ES module, whatever its name: node's own check goes by the name.
import { spawnSync } from 'node:child_process';
import { copyFileSync } from 'node:fs';

const copy = '/tmp/' + process.argv[2].split('/').pop().replace(/\.\w+$/, '') + '.mjs';
copyFileSync(process.argv[2], copy);
const { status, stderr } = spawnSync(process.execPath, ['--no-warnings', '--check', copy]);
process.stderr.write(String(stderr).replaceAll(copy, process.argv[2]).replaceAll('file://', ''));
process.exitCode = status ?? 1;
