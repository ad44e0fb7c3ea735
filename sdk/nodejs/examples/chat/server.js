'use strict';
// A chat room: one session is one room. The page is at /, the room a WebSocket at /ws; both without any package.
//
// The session's data may be the title of the room. Configuration: `motd`, a line for everyone who comes, and on each change.

const crypto = require('node:crypto');
const http = require('node:http');
const { connect } = require('../..');

const MAX_MESSAGE = 4_096;
const MAX_WAITING = 1 << 20;

const PAGE = `<!doctype html><meta charset="utf-8"><title>Chat</title>
<ul id="lines"></ul><form><input name="line" autofocus autocomplete="off"></form>
<script>
const socket = new WebSocket(location.href.replace(/^http/, 'ws').replace(/\\/?$/, '/ws'));
socket.onmessage = ({ data }) => document.getElementById('lines').append(
  Object.assign(document.createElement('li'), { textContent: data }));
document.forms[0].onsubmit = (event) => {
  event.preventDefault();
  socket.send(event.target.line.value);
  event.target.reset();
};
</script>`;

const lyra = connect();
const guests = new Map();
let session = null;
let motd = '';

/** A frame of RFC 6455, as a server sends it. */
function frame(opcode, payload) {
  const { length } = payload;
  const head = length < 126 ? Buffer.from([0x80 | opcode, length]) : Buffer.from([0x80 | opcode, 126, length >> 8, length & 255]);
  return Buffer.concat([head, payload]);
}

function say(text) {
  const bytes = frame(1, Buffer.from(text).subarray(0, 65_535));
  for (const socket of guests.values()) {
    // Who does not read is not waited for.
    if (socket.writableLength > MAX_WAITING) socket.destroy();
    else socket.write(bytes);
  }
}

const server = http.createServer((request, response) => {
  response.writeHead(request.url === '/' ? 200 : 404, { 'content-type': 'text/html' });
  response.end(request.url === '/' ? PAGE : 'not found');
});

server.on('upgrade', (request, socket) => {
  const key = request.headers['sec-websocket-key'];
  const id = crypto.randomUUID();
  const name = `guest-${id.slice(0, 4)}`;
  socket.on('error', () => {});
  if (!key || !request.url.endsWith('/ws') || !session?.clientJoined(id)) {
    socket.end('HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\n\r\n');
    return;
  }
  const accept = crypto.createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64');
  socket.write(`HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: ${accept}\r\n\r\n`);
  guests.set(id, socket);
  for (const line of [session.text, motd]) {
    if (line) socket.write(frame(1, Buffer.from(line)));
  }
  say(`${name} joined`);
  let received = Buffer.alloc(0);
  socket.on('data', (chunk) => {
    received = Buffer.concat([received, chunk]);
    for (;;) {
      if (received.length < 2) return;
      let length = received[1] & 127;
      let at = 2;
      if (length === 126) {
        if (received.length < 4) return;
        length = received.readUInt16BE(2);
        at = 4;
      }
      // Clients mask; long messages and those in pieces are no chat.
      if (length > MAX_MESSAGE || !(received[1] & 128) || !(received[0] & 128)) return socket.destroy();
      if (received.length < at + 4 + length) return;
      const mask = received.subarray(at, at + 4);
      const payload = Buffer.from(received.subarray(at + 4, at + 4 + length));
      for (let i = 0; i < payload.length; i++) payload[i] ^= mask[i & 3];
      const opcode = received[0] & 15;
      received = received.subarray(at + 4 + length);
      if (opcode === 8) return socket.end(frame(8, payload));
      if (opcode === 9) socket.write(frame(10, payload));
      if (opcode === 1) say(`${name}: ${payload.toString('utf8')}`);
    }
  });
  // A server of HTTP keeps its half of a connection open.
  socket.on('end', () => socket.end());
  socket.on('close', () => {
    guests.delete(id);
    session?.clientLeft(id);
    say(`${name} left`);
  });
});

lyra.on('open', (opened) => {
  session = opened;
  motd = opened.configuration.data.motd ?? '';
  server.once('error', (error) => opened.fail(error.message));
  server.listen(Number(process.env.PORT ?? 8080), () => opened.ready());
});

lyra.on('configuration', ({ data }) => {
  motd = data.motd ?? '';
  if (motd) say(motd);
});

lyra.on('close', async ({ session: closing }) => {
  say('the room closes');
  for (const socket of guests.values()) socket.end(frame(8, Buffer.from([3, 233])));
  server.close();
  await closing.closed();
  session = null;
});

lyra.on('gone', () => process.exit(0));
