"""For programs that serve sessions of Lyra: see README.md.

>>> lyra = connect()                      # doctest: +SKIP
>>> for event in lyra:                    # doctest: +SKIP
...     if isinstance(event, Open):
...         event.session.ready()
...     elif isinstance(event, Close):
...         event.session.closed()
"""

from __future__ import annotations

import json
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Iterator, Optional, Union

from ._connection import Connection, parse_address
from ._local import Local, to_bytes

__all__ = ["Close", "Configuration", "Directory", "Event", "Lyra", "Open", "Session", "connect"]

#: How long ``closed`` waits for the server to know, in seconds.
_LAST_WORD = 5.0
_NO_ADDRESS = (
    "LYRA_SESSION_ADDRESS is not set: this program must be started by Lyra, as an application with "
    '"usingNodeSessionService": true'
)


@dataclass(frozen=True)
class Configuration:
    """The application's configuration."""

    version: int
    data: dict[str, str] = field(default_factory=dict)


class Session:
    """A session. What is said of a session that is over does nothing. Usable from every thread."""

    def __init__(self, lyra: "Lyra", info: dict) -> None:
        self._lyra, self._info = lyra, info

    def __repr__(self) -> str:
        return f"<Session {self.name} {self.id}>"

    @property
    def id(self) -> str:
        return self._info["id"]

    @property
    def name(self) -> str:
        return self._info["name"]

    @property
    def tenant(self) -> str:
        return self._info["tenant"]

    @property
    def application(self) -> str:
        return self._info["application"]

    @property
    def application_version(self) -> int:
        return self._info["application_version"]

    @property
    def data(self) -> bytes:
        """``spec.sessionData``, as it is."""
        return self._info["data"]

    @property
    def text(self) -> str:
        """The data as text."""
        return self.data.decode()

    @property
    def configuration(self) -> Configuration:
        """The application's configuration when the session was opened."""
        known = self._info["configuration"]
        return Configuration(known["version"], known["data"])

    @property
    def timeout(self) -> float:
        """How long opening may take, in seconds."""
        return self._info["timeout_ms"] / 1_000

    @property
    def is_active(self) -> bool:
        return self._lyra._look(lambda local: local.has(self.id))

    def ready(self) -> None:
        """Says that clients can come."""
        self._lyra._say(self.id, lambda local: local.advance("open"))

    def fail(self, reason: str) -> None:
        """Says that the session can't be opened, or broke, and why."""
        self._lyra._say(self.id, lambda local: local.advance("failed", reason))

    def client_joined(self, client: str) -> bool:
        """Says that a client is there. ``False`` when there are as many as there may be: turn it away."""
        if not client or len(client.encode()) > 128:
            raise ValueError("the id of a client has 1 to 128 bytes")
        return self._lyra._say(self.id, lambda local: local.join(client)) is not False

    def client_left(self, client: str) -> None:
        """Says that a client is gone."""
        self._lyra._say(self.id, lambda local: local.leave(client))

    def closing(self) -> None:
        """Says that the program is about to close the session by itself."""
        self._lyra._say(self.id, lambda local: local.advance("closing"))

    def closed(self, reason: str = "", exit_code: Optional[int] = None) -> None:
        """Says that the session is over, and waits until the server knows, 5 seconds at most."""
        self.say_closed(reason, exit_code)
        self._lyra._wait_known(_LAST_WORD)

    def say_closed(self, reason: str = "", exit_code: Optional[int] = None) -> None:
        """As :meth:`closed`, without waiting."""
        self._lyra._say(self.id, lambda local: local.advance("closed", reason, exit_code))


@dataclass(frozen=True)
class Open:
    """A session is to be opened: say :meth:`Session.ready` or :meth:`Session.fail`."""

    session: Session


@dataclass(frozen=True)
class Close:
    """The session is to be closed: say :meth:`Session.closed` within ``grace`` seconds. May come again, with less."""

    session: Session
    grace: float


Event = Union[Open, Close, Configuration]


class Lyra:
    """This program, as an instance of Lyra. Iterating gives events, until the server has given the instance up."""

    def __init__(self, address: str, notify: Optional[Callable[[], None]] = None) -> None:
        """``notify`` is called, in a thread of the library, when there may be an event."""
        self._local = Local()
        self._changed = threading.Condition()
        self._session: Optional[Session] = None
        self._over = False
        self._notify = notify or (lambda: None)
        self._connection = Connection(parse_address(address), self._local, self._changed, self._notify, self._end)

    @property
    def session(self) -> Optional[Session]:
        """The current session, or the last one."""
        return self._session

    def close(self) -> None:
        """Ends the connection."""
        self._connection.end()
        self._end()

    def __enter__(self) -> "Lyra":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Event]:
        while True:
            event = self.next()
            if event is None:
                return
            yield event

    def next(self, timeout: Optional[float] = None) -> Optional[Event]:
        """The next event. ``None`` when there are no more, or none came in time: see :attr:`is_over`."""
        with self._changed:
            self._changed.wait_for(lambda: self._local.told or self._over, timeout)
            return self._take()

    def poll(self) -> Optional[Event]:
        """An event, if there is one."""
        with self._changed:
            return self._take()

    @property
    def is_over(self) -> bool:
        """Whether the server has given this instance up, or the connection was ended."""
        return self._over

    def _take(self) -> Optional[Event]:
        if not self._local.told:
            return None
        kind, info, more = self._local.told.pop(0)
        if kind == "configuration":
            return Configuration(more["version"], more["data"])
        if kind == "open":
            self._session = Session(self, info)
            return Open(self._session)
        assert self._session is not None
        return Close(self._session, more)

    def _look(self, look: Callable[[Local], Any]) -> Any:
        with self._changed:
            return look(self._local)

    def _say(self, session: str, work: Callable[[Local], Any]) -> Any:
        with self._changed:
            if not self._local.has(session):
                return None
            result = work(self._local)
            self._changed.notify_all()
            return result

    def _wait_known(self, limit: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._local.state_known or self._over, limit)

    def _end(self) -> None:
        with self._changed:
            self._over = True
            self._changed.notify_all()
        self._notify()


def connect(address: Optional[str] = None) -> Lyra:
    """Connects to the session server of this instance, in the background."""
    address = address or os.environ.get("LYRA_SESSION_ADDRESS")
    if not address:
        raise RuntimeError(_NO_ADDRESS)
    return Lyra(address)


class Directory:
    """The session as files, which follow each change."""

    def __init__(self, path: Union[str, os.PathLike, None] = None) -> None:
        found = path or os.environ.get("LYRA_SESSION_DIR")
        if not found:
            raise RuntimeError("LYRA_SESSION_DIR is not set: this program must be started by Lyra")
        self.path = Path(found)

    def session(self) -> dict:
        """What ``session.json`` says; ``data`` is bytes."""
        session = json.loads((self.path / "session.json").read_text())
        return dict(session, data=to_bytes(session["data"]))

    def configuration(self) -> dict[str, str]:
        """The configuration: content of each file of ``config/``, by name."""
        files = (self.path / "config").iterdir()
        return {file.name: file.read_text() for file in files if not file.name.startswith(".")}

    def secret(self, name: str) -> bytes:
        """A secret of the application."""
        return (self.path / "secrets" / name).read_bytes()
