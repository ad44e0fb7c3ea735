"""Runs a Python function for Lyra.

Started before it is known which function it will run: it connects to its host, waits for its assignment, loads the
code, and then serves one call at a time. Frames are a length, a kind and a payload; see frames.rs.
"""

import asyncio
import importlib
import inspect
import json
import os
import socket
import struct
import sys
import time
import traceback

ASSIGN, CALL, PING, STOP = 1, 2, 3, 4
READY, RESULT, THROWN, NO_JSON, PONG, FATAL = 16, 17, 18, 19, 20, 21
HEAD = struct.Struct("<IB")
DEADLINE = struct.Struct("<q")
ID_LENGTH = 30
HERE = (lambda: 0).__code__.co_filename


class Wire:
    def __init__(self, address):
        host, port = address.split(":")
        self.socket = socket.create_connection((host, int(port)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def receive(self):
        while len(self.buffer) < HEAD.size:
            self._more(65536)
        size, kind = HEAD.unpack_from(self.buffer)
        end = HEAD.size + size
        if len(self.buffer) < end:
            parts, have = [self.buffer], len(self.buffer)
            while have < end:
                part = self._part(min(end - have, 1 << 20))
                parts.append(part)
                have += len(part)
            self.buffer = b"".join(parts)
        payload = self.buffer[HEAD.size : end]
        self.buffer = self.buffer[end:]
        return kind, payload

    def _part(self, size):
        part = self.socket.recv(size)
        if not part:
            os._exit(0)
        return part

    def _more(self, size):
        self.buffer += self._part(size)

    def send(self, kind, payload=b""):
        self.socket.sendall(HEAD.pack(len(payload), kind) + payload)


class Context:
    """What a handler is told of its call, in Lyra's names and in those of AWS Lambda."""

    identity = None
    client_context = None

    def __init__(self, about, invocation_id, deadline_ms, traceparent):
        self.invocation_id = self.aws_request_id = invocation_id
        self.function_name = about["function_name"]
        self.function_version = about["function_version"]
        self.tenant = about["tenant"]
        self.memory_limit_mb = self.memory_limit_in_mb = about["memory_mb"]
        self.invoked_function_arn = about["arn"]
        self.log_group_name = about["log_group"]
        self.log_stream_name = about["log_stream"]
        self.deadline_ms = deadline_ms
        self.traceparent = traceparent or None

    def get_remaining_time_in_millis(self):
        return max(0, int(self.deadline_ms - time.time() * 1000))

    def log(self, message):
        sys.stdout.write(str(message))

    def __repr__(self):
        return f"Context(invocation_id={self.invocation_id!r}, function_name={self.function_name!r})"


def own(frame):
    return frame.filename in (HERE, importlib.__file__) or frame.filename.startswith("<frozen importlib")


def thrown(error):
    """What was thrown, as JSON, without the frames of this file."""
    name = type(error).__name__
    try:
        message = str(error)
    except Exception:
        message = "(an error whose message can't be made)"
    try:
        whole = traceback.TracebackException.from_exception(error)
        seen = whole
        while seen is not None:
            seen.stack = traceback.StackSummary.from_list([frame for frame in seen.stack if not own(frame)])
            seen = seen.__cause__ or seen.__context__
        stack = "".join(whole.format())
    except Exception:
        stack = ""
    return json.dumps({"name": name, "message": message[:65536], "stack": stack[:262144]}).encode()


def flush():
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            pass


def load(about):
    root = about["task_root"]
    os.environ.clear()
    os.environ.update(about["env"])
    if "TZ" in about["env"]:
        time.tzset()
    os.chdir(root)
    here = os.path.dirname(HERE)
    sys.path[:] = [root] + [entry for entry in sys.path if entry not in ("", here, root)]
    sys.argv = [about["file"]]
    importlib.invalidate_caches()
    module = importlib.import_module(about["module"])
    handler = module
    for part in about["function"].split("."):
        if not hasattr(handler, part):
            raise AttributeError(f"{about['file']} has no function named {about['function']}")
        handler = getattr(handler, part)
    if not callable(handler):
        raise TypeError(f"{about['function']} of {about['file']} can't be called")
    return handler


class Loop:
    """Runs coroutines, always on the same loop, so that what a function keeps between calls goes on working."""

    loop = None

    def run(self, coroutine):
        if self.loop is None:
            self.loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self.loop)
        return self.loop.run_until_complete(coroutine)


def main():
    wire = Wire(sys.argv[1])
    kind, payload = wire.receive()
    if kind != ASSIGN:
        os._exit(0)
    about = json.loads(payload)
    try:
        handler = load(about)
    except Exception as error:
        flush()
        wire.send(FATAL, thrown(error))
        os._exit(1)
    except SystemExit:
        flush()
        raise
    flush()
    wire.send(READY)
    loop = Loop()
    encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
    while True:
        kind, payload = wire.receive()
        if kind == CALL:
            begin = ID_LENGTH + DEADLINE.size + 1
            end = begin + payload[begin - 1]
            deadline = DEADLINE.unpack_from(payload, ID_LENGTH)[0]
            context = Context(about, payload[:ID_LENGTH].decode(), deadline, payload[begin:end].decode())
            try:
                event = json.loads(payload[end:] or b"null")
                result = handler(event, context)
                if inspect.isawaitable(result):
                    result = loop.run(result)
            except Exception as error:
                answer = THROWN, thrown(error)
            else:
                try:
                    answer = RESULT, encode(result).encode()
                except Exception as error:
                    answer = NO_JSON, f"{type(error).__name__}: {error}".encode("utf-8", "replace")
            flush()
            wire.send(*answer)
        elif kind == PING:
            wire.send(PONG)
        else:
            flush()
            sys.exit(0)


if __name__ == "__main__":
    main()
