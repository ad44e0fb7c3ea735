'use strict';
// For programs that serve sessions of Lyra: see README.md.

const { EventEmitter } = require('node:events');
const fs = require('node:fs');
const path = require('node:path');
const { Connection } = require('./connection');
const { Local, bytes } = require('./local');

/** How long `closed` waits for the server to know, in milliseconds. */
const LAST_WORD = 5_000;

/** A session. What is said of a session that is over does nothing. */
class Session {
  #lyra;
  #info;

  constructor(lyra, info) {
    this.#lyra = lyra;
    this.#info = info;
  }

  get id() { return this.#info.id; }
  get name() { return this.#info.name; }
  get tenant() { return this.#info.tenant; }
  get application() { return this.#info.application; }
  get applicationVersion() { return this.#info.application_version; }
  /** `spec.sessionData`, as it is. */
  get data() { return this.#info.data; }
  /** The data as text. */
  get text() { return this.#info.data.toString('utf8'); }
  /** The application's configuration when the session was opened: `{version, data}`. */
  get configuration() { return this.#info.configuration; }
  /** How long opening may take, in milliseconds. */
  get timeoutMs() { return this.#info.timeoutMs; }
  get isActive() { return this.#lyra._local.has(this.id); }

  /** Says that clients can come. */
  ready() {
    this.#lyra._say(this.id, (local) => local.advance('open'));
  }

  /** Says that the session can't be opened, or broke, and why. */
  fail(reason) {
    this.#lyra._say(this.id, (local) => local.advance('failed', reason));
  }

  /** Says that a client is there. `false` when there are as many as there may be: turn it away. */
  clientJoined(id) {
    if (typeof id !== 'string' || id === '' || Buffer.byteLength(id) > 128) {
      throw new TypeError('the id of a client is a string of 1 to 128 bytes');
    }
    let joined = true;
    this.#lyra._say(this.id, (local) => (joined = local.join(id)));
    return joined;
  }

  /** Says that a client is gone. */
  clientLeft(id) {
    this.#lyra._say(this.id, (local) => local.leave(id));
  }

  /** Says that the program is about to close the session by itself. */
  closing() {
    this.#lyra._say(this.id, (local) => local.advance('closing'));
  }

  /** Says that the session is over; resolves when the server knows, after 5 seconds at the latest. */
  closed({ reason = '', exitCode } = {}) {
    this.#lyra._say(this.id, (local) => local.advance('closed', reason, exitCode));
    return this.#lyra._known(LAST_WORD);
  }
}

/** This program, as an instance of Lyra. Emits `open`, `close`, `configuration` and `gone`; or iterate it. */
class Lyra extends EventEmitter {
  #connection;
  #current = null;
  #waiting = [];
  #iterating = false;
  #scheduled = false;
  #over = false;

  constructor(address) {
    super();
    this._local = new Local();
    this.#connection = new Connection(address, this._local, () => this.#heard(), () => this.#gone());
    // Events that came before anybody listened.
    this.on('newListener', () => setImmediate(() => this.#heard()));
  }

  /** The current session, or the last one. */
  get session() {
    return this.#current;
  }

  /** Ends the connection. */
  end() {
    this.#connection.end();
    this.#gone();
  }

  /** Events as `{type, session?, graceMs?, configuration?}`, until the server has given this instance up. */
  async *[Symbol.asyncIterator]() {
    this.#iterating = true;
    for (;;) {
      const told = this._local.told.shift();
      if (told) {
        yield this.#event(told);
      } else if (this.#over) {
        return;
      } else {
        await new Promise((resolve) => this.#waiting.push(resolve));
      }
    }
  }

  _say(id, work) {
    if (!this._local.has(id)) return;
    work(this._local);
    // What is said in one go is told together.
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      this.#connection.flush();
    });
  }

  _known(limit) {
    return new Promise((resolve) => {
      if (this._local.stateKnown || this.#over) return resolve();
      const timer = setTimeout(done, limit);
      const { _local: local } = this;
      const check = () => {
        if (local.stateKnown) done();
      };
      const emitter = this;
      function done() {
        clearTimeout(timer);
        emitter.off('_heard', check);
        emitter.off('gone', done);
        resolve();
      }
      this.on('_heard', check);
      this.on('gone', done);
    });
  }

  #event({ kind, session, graceMs, configuration }) {
    if (kind === 'configuration') return { type: kind, configuration };
    if (kind === 'open') this.#current = new Session(this, session);
    return kind === 'open' ? { type: kind, session: this.#current } : { type: kind, session: this.#current, graceMs };
  }

  #heard() {
    this.emit('_heard');
    if (this.#iterating) {
      for (const resolve of this.#waiting.splice(0)) resolve();
      return;
    }
    for (;;) {
      // Kept until somebody listens.
      const at = this._local.told.findIndex(({ kind }) => this.listenerCount(kind) > 0);
      if (at < 0) return;
      const [told] = this._local.told.splice(at, 1);
      const event = this.#event(told);
      this.emit(event.type, event.type === 'open' ? event.session : event.configuration ?? event);
    }
  }

  #gone() {
    if (this.#over) return;
    this.#over = true;
    for (const resolve of this.#waiting.splice(0)) resolve();
    this.emit('gone');
  }
}

/** Connects to the session server of this instance, in the background. */
function connect(address = process.env.LYRA_SESSION_ADDRESS) {
  if (!address) {
    throw new Error(
      'LYRA_SESSION_ADDRESS is not set: this program must be started by Lyra, as an application with ' +
        '"usingNodeSessionService": true',
    );
  }
  return new Lyra(address);
}

/** The session as files, which follow each change. */
class Directory {
  constructor(folder = process.env.LYRA_SESSION_DIR) {
    if (!folder) throw new Error('LYRA_SESSION_DIR is not set: this program must be started by Lyra');
    this.path = folder;
  }

  /** What `session.json` says; `data` is a Buffer. */
  session() {
    const session = JSON.parse(fs.readFileSync(path.join(this.path, 'session.json'), 'utf8'));
    return { ...session, data: bytes(session.data) };
  }

  /** The configuration: content of each file of `config/`, by name. */
  configuration() {
    const folder = path.join(this.path, 'config');
    const names = fs.readdirSync(folder).filter((name) => !name.startsWith('.'));
    return Object.fromEntries(names.map((name) => [name, fs.readFileSync(path.join(folder, name), 'utf8')]));
  }

  /** A secret, as a Buffer. */
  secret(name) {
    return fs.readFileSync(path.join(this.path, 'secrets', name));
  }
}

module.exports = { connect, Lyra, Session, Directory };
