'use strict';
// Keeps a stream to the session server, for as long as the program lives: lines of JSON over HTTP/1.1.

const http = require('node:http');

/** First and longest wait before connecting again, in milliseconds. */
const PAUSES = [20, 1_000];
/** Longest wait for an answer, in milliseconds. */
const PATIENCE = 5_000;
/** Longest line of the server, in bytes. */
const MAX_LINE = 8 << 20;

/** `host:port` or `unix:/path`, as options of a request. */
function parseAddress(text) {
  if (text.startsWith('unix:') && text.length > 5) return { socketPath: text.slice(5) };
  const match = /^(?:http:\/\/)?(\[[^\]]+\]|[^:/]+):(\d{1,5})\/?$/.exec(text);
  if (!match || Number(match[2]) > 65_535) {
    throw new Error(`${JSON.stringify(text)} is no address: write host:port or unix:/path`);
  }
  return { host: match[1].replace(/^\[|\]$/g, ''), port: Number(match[2]) };
}

class Connection {
  /** `heard` is called after each message, `over` when the server has given the instance up. */
  constructor(address, local, heard, over) {
    this.target = parseAddress(address);
    this.agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
    Object.assign(this, { local, heard, over, ended: false, pause: PAUSES[0], request: null, posting: false });
    this.open();
  }

  end() {
    this.ended = true;
    clearTimeout(this.timer);
    this.request?.destroy();
    this.agent.destroy();
  }

  open() {
    const body = JSON.stringify(this.local.begin());
    const path = '/v1/session/stream';
    const headers = { host: 'session', 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) };
    const request = http.request({ ...this.target, method: 'POST', path, headers, agent: false });
    this.request = request;
    const patience = setTimeout(() => request.destroy(new Error('no answer')), PATIENCE);
    let done = false;
    const broken = (isOver) => {
      clearTimeout(patience);
      if (done || this.request !== request) return;
      done = true;
      this.request = null;
      this.local.stream = undefined;
      request.destroy();
      if (this.ended) return;
      if (isOver) {
        this.end();
        this.over();
        return;
      }
      this.timer = setTimeout(() => this.open(), this.pause);
      this.pause = Math.min(this.pause * 2, PAUSES[1]);
    };
    request.on('error', () => broken(false));
    request.on('response', (response) => {
      clearTimeout(patience);
      response.on('error', () => broken(false));
      response.on('close', () => broken(response.statusCode === 410));
      if (response.statusCode !== 200) {
        response.resume();
        return;
      }
      this.pause = PAUSES[0];
      this.read(response);
    });
    request.end(body);
  }

  read(response) {
    let rest = '';
    response.setEncoding('utf8');
    response.on('data', (chunk) => {
      const lines = (rest + chunk).split('\n');
      rest = lines.pop();
      if (rest.length > MAX_LINE) response.destroy();
      for (const line of lines) {
        let message;
        try {
          message = JSON.parse(line);
        } catch {
          response.destroy();
          return;
        }
        this.local.hear(message);
      }
      if (lines.length > 0) {
        this.heard();
        this.flush();
      }
    });
  }

  /** Says what there is to be said, one post after the other. */
  flush() {
    if (this.posting || this.ended) return;
    const messages = this.local.unsaid();
    if (messages.length === 0) return;
    this.posting = true;
    const tellsState = messages.some((message) => message.state || message.hello);
    const { stream } = this.local;
    this.post(messages.map((message) => JSON.stringify(message)).join('\n'), (status, answer) => {
      this.posting = false;
      if (this.local.stream === stream) {
        if (status === 200) {
          if (tellsState && !this.local.stateChanged) this.local.stateKnown = true;
          this.heard();
        } else if (answer.code === 'gap') {
          this.local.helloAgain = true;
        } else {
          // Who knows what was taken: a new stream says everything again.
          this.request?.destroy();
          return;
        }
      }
      this.flush();
    });
  }

  /** Messages have numbers, so that a second try, when an idle connection was just closed, says nothing twice. */
  post(body, answered) {
    this.postOnce(body, (status, answer) => {
      if (status === 0 && !this.ended) this.postOnce(body, answered);
      else answered(status, answer);
    });
  }

  postOnce(body, answered) {
    const path = '/v1/session/state';
    const headers = { host: 'session', 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) };
    const request = http.request({ ...this.target, method: 'POST', path, headers, agent: this.agent, timeout: PATIENCE });
    let done = false;
    const finish = (status, answer) => {
      if (done) return;
      done = true;
      answered(status, answer);
    };
    request.on('timeout', () => request.destroy());
    request.on('error', () => finish(0, {}));
    request.on('response', (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (chunk) => (text += chunk));
      response.on('error', () => finish(0, {}));
      response.on('close', () => finish(0, {}));
      response.on('end', () => {
        try {
          finish(response.statusCode, JSON.parse(text));
        } catch {
          finish(response.statusCode, {});
        }
      });
    });
    request.end(body);
  }
}

module.exports = { Connection, parseAddress };
