'use strict';
const assert = require('node:assert/strict');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const test = require('node:test');
const { connect, Directory } = require('..');
const { Local } = require('../lib/local');
const { parseAddress } = require('../lib/connection');

function opened(id = 'a') {
  const local = new Local();
  local.begin();
  local.hear({ sequence: 1, welcome: { stream: 1, max_clients: 3 } });
  local.hear({ sequence: 2, open: { session: { id, name: 'one' }, data: 'map=1', timeout_ms: 5_000 } });
  return local;
}

test('only the difference is told', () => {
  const local = opened();
  local.advance('open');
  for (const id of ['x', 'y', 'z']) assert.ok(local.join(id));
  assert.ok(!local.join('w'));
  local.leave('x');
  const [state, clients, ...rest] = local.unsaid();
  assert.equal(state.state.phase, 'open');
  assert.deepEqual([clients.clients.joined, clients.clients.left, rest], [['y', 'z'], [], []]);
  assert.deepEqual([state.sequence, clients.sequence], [1, 2]);
  local.leave('y');
  local.join('y');
  assert.deepEqual(local.unsaid(), []);
});

test('a new stream is told everything', () => {
  const local = opened();
  local.advance('open');
  local.join('x');
  const hello = local.begin();
  assert.equal(hello.state.phase, 'open');
  assert.deepEqual(hello.clients, ['x']);
  assert.deepEqual(local.unsaid(), []);
  local.hear({ sequence: 1, welcome: { stream: 2, max_clients: 3 } });
  local.hear({ sequence: 2, resync: {} });
  const [again] = local.unsaid();
  assert.deepEqual([again.stream, again.sequence, again.hello.clients], [2, 1, ['x']]);
});

test('nothing is told twice to the program', () => {
  const local = opened();
  local.hear({ sequence: 3, open: { session: { id: 'a' }, data: '', timeout_ms: 1 } });
  for (const grace of [20, 10]) local.hear({ sequence: 4, close: { session: 'a', grace_ms: grace } });
  assert.deepEqual(local.told.map(({ kind, graceMs }) => [kind, graceMs]), [['open', undefined], ['close', 10]]);
  local.advance('closed');
  local.advance('open');
  assert.equal(local.phase, 'closed');
});

test('a session that is not there is closed', () => {
  const local = new Local();
  local.begin();
  local.hear({ sequence: 1, welcome: { stream: 1, max_clients: 3 } });
  local.hear({ sequence: 2, close: { session: 'z', grace_ms: 0 } });
  assert.deepEqual(local.unsaid()[0].state, { session: 'z', phase: 'closed' });
});

test('addresses are understood', () => {
  assert.deepEqual(parseAddress('127.0.0.1:9003'), { host: '127.0.0.1', port: 9003 });
  assert.deepEqual(parseAddress('http://[::1]:80/'), { host: '::1', port: 80 });
  assert.deepEqual(parseAddress('unix:/run/s'), { socketPath: '/run/s' });
  for (const bad of ['', 'unix:', 'localhost', ':80', 'host:99999']) assert.throws(() => parseAddress(bad), /no address/);
});

test('a program that is no instance is told so', () => {
  assert.throws(() => connect(undefined), /LYRA_SESSION_ADDRESS is not set/);
  assert.throws(() => new Directory(undefined), /LYRA_SESSION_DIR is not set/);
});

test('the directory is read', (t) => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'lyra-session-'));
  t.after(() => fs.rmSync(folder, { recursive: true }));
  fs.writeFileSync(path.join(folder, 'session.json'), '{"id":"a","data":{"base64":"/wA="}}');
  for (const name of ['config', 'secrets']) fs.mkdirSync(path.join(folder, name));
  fs.writeFileSync(path.join(folder, 'config', 'mode'), 'easy');
  fs.writeFileSync(path.join(folder, 'config', '.new'), 'half');
  fs.writeFileSync(path.join(folder, 'secrets', 'key'), 'k');
  const directory = new Directory(folder);
  assert.deepEqual(directory.session().data, Buffer.from([255, 0]));
  assert.deepEqual(directory.configuration(), { mode: 'easy' });
  assert.equal(directory.secret('key').toString(), 'k');
});
