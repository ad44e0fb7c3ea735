"""Keeps a stream to the session server, for as long as the program lives: lines of JSON over HTTP/1.1.

Two threads, which end with the process: one reads the stream, one posts what there is to be said.
"""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import threading
from typing import Callable, Optional, Union

from ._local import Local

#: First and longest wait before connecting again, in seconds.
_PAUSES = (0.02, 1.0)
#: Longest wait for an answer, in seconds.
_PATIENCE = 5.0
#: Longest line of the server, in bytes.
_MAX_LINE = 8 << 20

Address = Union[str, tuple[str, int]]


def parse_address(text: str) -> Address:
    """``host:port`` as a pair, ``unix:/path`` as a path."""
    if text.startswith("unix:") and len(text) > 5:
        return text[5:]
    match = re.fullmatch(r"(?:http://)?(\[[^\]]+\]|[^:/]+):(\d{1,5})/?", text)
    if not match or int(match[2]) > 65_535:
        raise ValueError(f"{text!r} is no address: write host:port or unix:/path")
    return match[1].strip("[]"), int(match[2])


def _without_signals(run: Callable[[], None]) -> None:
    """Leaves signals to the program's own threads: Python runs handlers in the first one, and that one may sleep on
    when another thread is given the signal."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    run()


class _Http(http.client.HTTPConnection):
    def __init__(self, address: Address) -> None:
        super().__init__("session", timeout=_PATIENCE)
        self._address = address

    def connect(self) -> None:
        if isinstance(self._address, str):
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(self.timeout)
            self.sock.connect(self._address)
        else:
            self.sock = socket.create_connection(self._address, self.timeout)
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class Connection:
    """``heard`` is called after each message, ``over`` when the server has given the instance up; both in a thread of
    the library, without the lock."""

    def __init__(
        self,
        address: Address,
        local: Local,
        changed: threading.Condition,
        heard: Callable[[], None],
        over: Callable[[], None],
    ) -> None:
        self._address, self._local, self._changed = address, local, changed
        self._heard, self._over = heard, over
        self._ended = threading.Event()
        self._socket: Optional[socket.socket] = None
        for name, run in (("lyra-session-stream", self._listen), ("lyra-session-post", self._post)):
            threading.Thread(target=_without_signals, args=(run,), name=name, daemon=True).start()

    def end(self) -> None:
        self._ended.set()
        with self._changed:
            self._break()
            self._changed.notify_all()

    def _break(self) -> None:
        """Has the listening thread begin again. With the lock held."""
        self._local.stream = None
        if self._socket is not None:
            try:
                self._socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _listen(self) -> None:
        pause = _PAUSES[0]
        while not self._ended.is_set():
            status = None
            connection = _Http(self._address)
            try:
                with self._changed:
                    hello = json.dumps(self._local.begin())
                connection.request("POST", "/v1/session/stream", hello, {"Content-Type": "application/json"})
                with self._changed:
                    self._socket = connection.sock
                response = connection.getresponse()
                status = response.status
                if status == 200:
                    pause = _PAUSES[0]
                    # Pings come when the server likes.
                    self._socket.settimeout(None)
                    self._read(response)
            except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
                # Whatever it was, the next stream says everything again.
                pass
            finally:
                with self._changed:
                    self._socket = None
                    self._local.stream = None
                connection.close()
            if status == 410:
                self._ended.set()
                with self._changed:
                    self._changed.notify_all()
                self._over()
                return
            self._ended.wait(pause)
            pause = min(pause * 2, _PAUSES[1])

    def _read(self, response: http.client.HTTPResponse) -> None:
        while not self._ended.is_set():
            line = response.readline(_MAX_LINE)
            if not line.endswith(b"\n"):
                return
            message = json.loads(line)
            with self._changed:
                self._local.hear(message)
                self._changed.notify_all()
            self._heard()

    def _post(self) -> None:
        connection = _Http(self._address)
        while not self._ended.is_set():
            with self._changed:
                while not self._ended.is_set() and not self._local.has_unsaid():
                    self._changed.wait()
                stream = self._local.stream
                messages = self._local.unsaid()
            if not messages:
                continue
            body = "\n".join(json.dumps(message) for message in messages)
            status, code = 0, ""
            # The server ends idle connections. Messages have numbers, so that a second try says nothing twice.
            for _ in range(2):
                try:
                    connection.request("POST", "/v1/session/state", body, {"Content-Type": "application/json"})
                    response = connection.getresponse()
                    status, code = response.status, json.loads(response.read()).get("code", "")
                    break
                except (OSError, http.client.HTTPException, ValueError):
                    connection.close()
            tells_state = any("state" in message or "hello" in message for message in messages)
            with self._changed:
                if self._local.stream == stream:
                    if status == 200:
                        if tells_state and not self._local.state_changed:
                            self._local.state_known = True
                    elif code == "gap":
                        self._local.hello_again = True
                    else:
                        # Who knows what was taken: a new stream says everything again.
                        self._break()
                self._changed.notify_all()
        connection.close()
