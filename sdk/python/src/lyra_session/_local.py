"""The program's side of a session: where it stands, and what the server has not been told yet.

There is no queue of messages: what is told is the difference between what holds and what the server knows. So nothing
grows while the server is away, and a stream that breaks loses nothing. No locks here: whoever calls holds one.
"""

from __future__ import annotations

import base64
from typing import Any, Optional

_PLACES = {"none": 0, "initializing": 1, "open": 2, "closing": 3, "closed": 4, "failed": 4}
SDK = "python/0.1.0"


def to_bytes(data: Any) -> bytes:
    """A session's data: a string where it is text, else base64."""
    if isinstance(data, str):
        return data.encode()
    return base64.b64decode((data or {}).get("base64", ""))


class Local:
    def __init__(self) -> None:
        self.session: Optional[dict] = None
        self.phase = "none"
        self.reason = ""
        self.exit_code: Optional[int] = None
        self.clients: set[str] = set()
        self.max_clients = 10_000
        self.configuration: dict = {"version": 0, "data": {}}
        #: For the program, at most one of each kind: (kind, session, what else).
        self.told: list[tuple[str, Any, Any]] = []
        self.stream: Optional[int] = None
        self.sequence = 0
        self.state_changed = False
        self.state_known = True
        self.joined: set[str] = set()
        self.left: set[str] = set()
        self.pong: Optional[int] = None
        self.unknown: Optional[str] = None
        self.hello_again = False

    @property
    def id(self) -> str:
        return self.session["id"] if self.session else ""

    def is_active(self) -> bool:
        return self.phase in ("initializing", "open", "closing")

    def has(self, session_id: str) -> bool:
        return self.is_active() and self.id == session_id

    # What the program says.

    def advance(self, phase: str, reason: str = "", exit_code: Optional[int] = None) -> None:
        """Goes on to a phase, if that is further than where it stands."""
        if _PLACES[phase] <= _PLACES[self.phase]:
            return
        self.phase, self.reason, self.exit_code = phase, str(reason), exit_code
        self.state_changed, self.state_known = True, False
        if not self.is_active():
            for clients in (self.clients, self.joined, self.left):
                clients.clear()

    def join(self, client: str) -> bool:
        if client in self.clients:
            return True
        if len(self.clients) >= self.max_clients:
            return False
        self.clients.add(client)
        if client in self.left:
            self.left.discard(client)
        else:
            self.joined.add(client)
        return True

    def leave(self, client: str) -> None:
        if client not in self.clients:
            return
        self.clients.discard(client)
        if client in self.joined:
            self.joined.discard(client)
        else:
            self.left.add(client)

    # What is said to the server.

    def _state(self) -> dict:
        state: dict = {"session": self.id, "phase": self.phase, "reason": self.reason}
        if self.exit_code is not None:
            state["exit_code"] = self.exit_code
        return state

    def _hello(self) -> dict:
        self.hello_again = False
        self.state_changed = False
        self.joined.clear()
        self.left.clear()
        version = self.configuration["version"]
        return {"sdk": SDK, "state": self._state(), "clients": sorted(self.clients), "configuration": version}

    def begin(self) -> dict:
        """A new stream: everything is said again."""
        self.stream, self.sequence, self.pong, self.unknown = None, 0, None, None
        return self._hello()

    def has_unsaid(self) -> bool:
        wants = self.hello_again or self.state_changed or self.joined or self.left
        return self.stream is not None and bool(wants or self.pong is not None or self.unknown is not None)

    def unsaid(self) -> list[dict]:
        """What is to be said now, in order."""
        messages: list[dict] = []

        def say(kind: str, body: dict) -> None:
            self.sequence += 1
            messages.append({"stream": self.stream, "sequence": self.sequence, kind: body})

        if self.stream is None:
            return messages
        if self.hello_again:
            say("hello", self._hello())
        if self.pong is not None:
            say("pong", {"number": self.pong})
            self.pong = None
        if self.state_changed:
            self.state_changed = False
            say("state", self._state())
        if self.joined or self.left:
            say("clients", {"session": self.id, "joined": sorted(self.joined), "left": sorted(self.left)})
            self.joined.clear()
            self.left.clear()
        if self.unknown is not None:
            say("state", {"session": self.unknown, "phase": "closed"})
            self.unknown = None
        return messages

    # What the server says.

    def hear(self, message: dict) -> None:
        if "welcome" in message:
            self.stream = message["welcome"]["stream"]
            self.max_clients = message["welcome"]["max_clients"]
            self.state_known = not self.state_changed
        elif "resync" in message:
            self.hello_again = True
        elif "ping" in message:
            self.pong = message["ping"]["number"]
        elif "configuration" in message:
            self._configure(message["configuration"])
        elif "open" in message:
            self._open(message["open"])
        elif "close" in message:
            self._close(message["close"])
        # Acks are the answers to posts here, and a newer server may say more.

    def _tell(self, kind: str, session: Any, more: Any) -> None:
        self.told = [told for told in self.told if told[0] != kind]
        self.told.append((kind, session, more))

    def _configure(self, configuration: dict) -> None:
        if configuration["version"] != self.configuration["version"]:
            self.configuration = configuration
            self._tell("configuration", None, configuration)

    def _open(self, message: dict) -> None:
        if self.is_active():
            # The one that is being opened, again; the server opens no second one.
            return
        self.configuration = message.get("configuration") or {"version": 0, "data": {}}
        self.told = []
        self.session = dict(
            message["session"],
            data=to_bytes(message["data"]),
            timeout_ms=message["timeout_ms"],
            configuration=self.configuration,
        )
        self.phase = "none"
        self.advance("initializing")
        self._tell("open", self.session, None)

    def _close(self, message: dict) -> None:
        if message["session"] != self.id:
            self.unknown = message["session"]
        elif not self.is_active():
            self.state_changed = True
        else:
            self.advance("closing")
            self._tell("close", self.session, message["grace_ms"] / 1_000)
