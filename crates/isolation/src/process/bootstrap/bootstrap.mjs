// Runs a Node.js function for Lyra.
//
// Started before it is known which function it will run: it connects to its host, waits for its assignment, loads the
// code, and then serves one call at a time. Frames are a length, a kind and a payload; see frames.rs.

import net from 'node:net';
import path from 'node:path';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const ASSIGN = 1, CALL = 2, PING = 3; // and 4: end
const READY = 16, RESULT = 17, THROWN = 18, NO_JSON = 19, PONG = 20, FATAL = 21;
const HEAD = 5, ID_LENGTH = 30;

const [host, port] = process.argv[2].split(':');
const socket = net.connect({ host, port: Number(port), noDelay: true });
const exit = process.exit.bind(process);
let write = (bytes, then) => then?.();
const { parse, stringify } = JSON;
const now = Date.now;
let about;
let handler;
let calling = false;

function send(kind, payload, then) {
  const body = payload === undefined ? Buffer.alloc(0) : Buffer.from(payload);
  const head = Buffer.allocUnsafe(HEAD);
  head.writeUInt32LE(body.length, 0);
  head[4] = kind;
  write(body.length === 0 ? head : Buffer.concat([head, body]), then);
}

function thrown(error) {
  let name = 'Error', message = '', stack = '';
  try {
    if (error instanceof Error || (error !== null && typeof error === 'object' && 'message' in error)) {
      name = String(error.name ?? 'Error');
      message = String(error.message);
      stack = ownLines(String(error.stack ?? ''));
    } else {
      message = typeof error === 'string' ? error : stringify(error) ?? String(error);
    }
  } catch {
    message = '(an error whose message can\'t be made)';
  }
  return stringify({ name, message: message.slice(0, 65536), stack: stack.slice(0, 262144) });
}

function ownLines(stack) {
  return stack.split('\n').filter((line) => !line.includes(import.meta.url)).join('\n');
}

class Context {
  callbackWaitsForEmptyEventLoop = false;
  identity = undefined;
  clientContext = undefined;

  constructor(invocationId, deadlineMs, traceparent) {
    this.invocationId = this.awsRequestId = invocationId;
    this.functionName = about.function_name;
    this.functionVersion = about.function_version;
    this.tenant = about.tenant;
    this.memoryLimitMb = about.memory_mb;
    this.memoryLimitInMB = String(about.memory_mb);
    this.invokedFunctionArn = about.arn;
    this.logGroupName = about.log_group;
    this.logStreamName = about.log_stream;
    this.deadlineMs = deadlineMs;
    if (traceparent !== '') this.traceparent = traceparent;
  }

  getRemainingTimeInMillis() {
    return Math.max(0, this.deadlineMs - now());
  }
}

async function load() {
  for (const name of Object.keys(process.env)) delete process.env[name];
  Object.assign(process.env, about.env);
  process.chdir(about.task_root);
  const file = path.join(about.task_root, about.file);
  process.argv = [process.argv[0], file];
  const module = await loadModule(file);
  const found = lookUp(module, about.function) ?? lookUp(module.default, about.function)
    ?? (about.function === 'handler' ? [module.default, module].find((value) => typeof value === 'function') : undefined);
  if (found === undefined) throw new Error(`${about.file} exports no function named ${about.function}`);
  if (typeof found !== 'function') throw new TypeError(`${about.function} of ${about.file} is no function`);
  return found;
}

function lookUp(from, name) {
  let value = from;
  for (const part of name.split('.')) value = value?.[part];
  return value;
}

async function loadModule(file) {
  // `require` is several times faster than the first `import()` of a process.
  if (!file.endsWith('.mjs') && !about.is_module) {
    try {
      return createRequire(file)(file);
    } catch (error) {
      const isModule = error?.code === 'ERR_REQUIRE_ESM' || error?.code === 'ERR_REQUIRE_ASYNC_MODULE'
        || (error instanceof SyntaxError && /import statement|Unexpected token 'export'|import\.meta/.test(error.message));
      if (!isModule) throw error;
    }
  }
  return import(pathToFileURL(file).href);
}

function run(payload) {
  const begin = ID_LENGTH + 9, end = begin + payload[ID_LENGTH + 8];
  const deadline = Number(payload.readBigInt64LE(ID_LENGTH));
  const context = new Context(payload.latin1Slice(0, ID_LENGTH), deadline, payload.latin1Slice(begin, end));
  const text = payload.utf8Slice(end);
  calling = true;
  try {
    const event = text === '' ? null : parse(text);
    // The callback is the old way to answer: only handlers that ask for it get to use it.
    if (handler.length >= 3) {
      let answered = false;
      const callback = (error, value) => {
        if (answered) return;
        answered = true;
        if (error === null || error === undefined) answer(value); else fail(error);
      };
      const returned = handler(event, context, callback);
      if (typeof returned?.then === 'function') returned.then((value) => callback(null, value), callback);
      return;
    }
    const returned = handler(event, context);
    if (typeof returned?.then === 'function') returned.then(answer, fail); else answer(returned);
  } catch (error) {
    fail(error);
  }
}

function answer(value) {
  if (!calling) return;
  let text;
  try {
    text = stringify(value) ?? 'null';
  } catch (error) {
    calling = false;
    send(NO_JSON, String(error));
    return;
  }
  calling = false;
  send(RESULT, text);
}

function fail(error) {
  if (!calling) return;
  calling = false;
  send(THROWN, thrown(error));
}

function last(error) {
  send(FATAL, thrown(error), () => exit(1));
}

async function take(kind, payload) {
  if (kind === CALL) {
    run(payload);
  } else if (kind === PING) {
    send(PONG);
  } else if (kind === ASSIGN) {
    about = parse(payload.toString());
    try {
      handler = await load();
      send(READY);
    } catch (error) {
      last(error);
    }
  } else {
    exit(0);
  }
}

// What an assignment says of a function, empty.
function named() {
  return { function_name: '', function_version: '', tenant: '', memory_mb: 0, arn: '', log_group: '', log_stream: '' };
}

socket.on('close', () => exit(0));
socket.on('error', () => exit(0));
process.on('uncaughtException', last);

// Writes to stdout and stderr wait until the host has read: else what a call prints beyond what a pipe holds would gather in
// memory, and go to the log of a later call.
for (const stream of [process.stdout, process.stderr]) stream._handle?.setBlocking?.(true);

// What the first load of a function, and its first call, would have to wait for is done here once: a file is loaded,
// called, answers and throws, which nobody hears, and is forgotten.
const require = createRequire(import.meta.url);
require('node:url');
const here = path.dirname(process.argv[1]);
about = { ...named(), env: { ...process.env }, task_root: here, file: 'rehearsal.cjs', function: 'handler' };
handler = await load();
for (const event of ['{"a":[1,"b"]}', '{"throw":true}']) {
  run(Buffer.concat([Buffer.alloc(ID_LENGTH, '0'), Buffer.alloc(9), Buffer.from(event)]));
  await new Promise(setImmediate);
}
delete require.cache[require.resolve('./rehearsal.cjs')];
await import('data:text/javascript,');
about = handler = undefined;
write = socket.write.bind(socket);

let parts = [], have = 0;
socket.on('data', (chunk) => {
  parts.push(chunk);
  have += chunk.length;
  while (have >= HEAD) {
    if (parts[0].length < HEAD) parts = [Buffer.concat(parts)];
    const end = HEAD + parts[0].readUInt32LE(0);
    if (have < end) return;
    const whole = parts.length === 1 ? parts[0] : Buffer.concat(parts);
    parts = whole.length > end ? [whole.subarray(end)] : [];
    have -= end;
    void take(whole[4], whole.subarray(HEAD, end));
  }
});
