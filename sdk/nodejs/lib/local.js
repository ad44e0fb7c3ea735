'use strict';
// The program's side of a session: where it stands, and what the server has not been told yet.
//
// There is no queue of messages: what is told is the difference between what holds and what the server knows. So nothing
// grows while the server is away, and a stream that breaks loses nothing.

const PLACES = { none: 0, initializing: 1, open: 2, closing: 3, closed: 4, failed: 4 };
const SDK = 'nodejs/0.1.0';

class Local {
  constructor() {
    this.session = null; // what the server said of the session
    this.phase = 'none';
    this.reason = '';
    this.exitCode = undefined;
    this.clients = new Set();
    this.maxClients = 10_000;
    this.configuration = { version: 0, data: {} };
    this.told = []; // for the program; at most one of each kind
    this.stream = undefined;
    this.sequence = 0;
    this.stateChanged = false;
    this.stateKnown = true;
    this.joined = new Set();
    this.left = new Set();
    this.pong = undefined;
    this.unknown = undefined;
    this.helloAgain = false;
  }

  get id() {
    return this.session ? this.session.id : '';
  }

  isActive() {
    return this.phase === 'initializing' || this.phase === 'open' || this.phase === 'closing';
  }

  has(id) {
    return this.isActive() && this.id === id;
  }

  // What the program says.

  /** Goes on to a phase, if that is further than where it stands. */
  advance(phase, reason = '', exitCode = undefined) {
    if (PLACES[phase] <= PLACES[this.phase]) return;
    Object.assign(this, { phase, reason: String(reason), exitCode, stateChanged: true, stateKnown: false });
    if (!this.isActive()) {
      for (const set of [this.clients, this.joined, this.left]) set.clear();
    }
  }

  join(id) {
    if (this.clients.has(id)) return true;
    if (this.clients.size >= this.maxClients) return false;
    this.clients.add(id);
    if (!this.left.delete(id)) this.joined.add(id);
    return true;
  }

  leave(id) {
    if (this.clients.delete(id) && !this.joined.delete(id)) this.left.add(id);
  }

  // What is said to the server.

  state() {
    const state = { session: this.id, phase: this.phase, reason: this.reason };
    if (this.exitCode !== undefined) state.exit_code = this.exitCode;
    return state;
  }

  hello() {
    this.helloAgain = false;
    this.stateChanged = false;
    this.joined.clear();
    this.left.clear();
    const { version } = this.configuration;
    return { sdk: SDK, state: this.state(), clients: [...this.clients], configuration: version };
  }

  /** A new stream: everything is said again. */
  begin() {
    Object.assign(this, { stream: undefined, sequence: 0, pong: undefined, unknown: undefined });
    return this.hello();
  }

  /** What is to be said now, in order. */
  unsaid() {
    const messages = [];
    if (this.stream === undefined) return messages;
    const say = (body) => messages.push({ stream: this.stream, sequence: ++this.sequence, ...body });
    if (this.helloAgain) say({ hello: this.hello() });
    if (this.pong !== undefined) {
      say({ pong: { number: this.pong } });
      this.pong = undefined;
    }
    if (this.stateChanged) {
      this.stateChanged = false;
      say({ state: this.state() });
    }
    if (this.joined.size > 0 || this.left.size > 0) {
      say({ clients: { session: this.id, joined: [...this.joined], left: [...this.left] } });
      this.joined.clear();
      this.left.clear();
    }
    if (this.unknown !== undefined) {
      say({ state: { session: this.unknown, phase: 'closed' } });
      this.unknown = undefined;
    }
    return messages;
  }

  // What the server says.

  hear(message) {
    if (message.welcome) {
      this.stream = message.welcome.stream;
      this.maxClients = message.welcome.max_clients;
      this.stateKnown = !this.stateChanged;
    } else if (message.resync) {
      this.helloAgain = true;
    } else if (message.ping) {
      this.pong = message.ping.number;
    } else if (message.configuration) {
      this.configure(message.configuration);
    } else if (message.open) {
      this.open(message.open);
    } else if (message.close) {
      this.close(message.close);
    }
    // Acks are the answers to posts here, and a newer server may say more.
  }

  tell(kind, event) {
    this.told = this.told.filter((told) => told.kind !== kind);
    this.told.push({ kind, ...event });
  }

  configure(configuration) {
    if (configuration.version === this.configuration.version) return;
    this.configuration = configuration;
    this.tell('configuration', { configuration });
  }

  open(open) {
    // The one that is being opened, again; the server opens no second one.
    if (this.isActive()) return;
    this.configuration = open.configuration ?? { version: 0, data: {} };
    this.told = [];
    this.session = {
      ...open.session,
      data: bytes(open.data),
      timeoutMs: open.timeout_ms,
      configuration: this.configuration,
    };
    this.phase = 'none';
    this.advance('initializing');
    this.tell('open', { session: this.session });
  }

  close(close) {
    if (close.session !== this.id) {
      this.unknown = close.session;
    } else if (!this.isActive()) {
      this.stateChanged = true;
    } else {
      this.advance('closing');
      this.tell('close', { session: this.session, graceMs: close.grace_ms });
    }
  }
}

/** A session's data: a string where it is text, else base64. */
function bytes(data) {
  return typeof data === 'string' ? Buffer.from(data, 'utf8') : Buffer.from(data?.base64 ?? '', 'base64');
}

module.exports = { Local, bytes };
