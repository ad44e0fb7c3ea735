"""The same for programs of asyncio.

>>> async with connect() as lyra:          # doctest: +SKIP
...     async for event in lyra:
...         if isinstance(event, Open):
...             event.session.ready()
...         elif isinstance(event, Close):
...             await lyra.closed(event.session)
"""

from __future__ import annotations

import asyncio
import os
from typing import AsyncIterator, Optional

from . import _NO_ADDRESS, Close, Configuration, Event, Lyra, Open, Session

__all__ = ["AsyncLyra", "Close", "Configuration", "Event", "Open", "Session", "connect"]


class AsyncLyra:
    """This program, as an instance of Lyra. What a session says does not block, but for ``closed``: await
    :meth:`closed` of this class instead."""

    def __init__(self, address: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()
        self._lyra = Lyra(address, self._wake)

    def _wake(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._woken.set)
        except RuntimeError:
            # The loop is closed: nobody is interested any more.
            pass

    @property
    def session(self) -> Optional[Session]:
        """The current session, or the last one."""
        return self._lyra.session

    async def __aenter__(self) -> "AsyncLyra":
        return self

    async def __aexit__(self, *_: object) -> None:
        self._lyra.close()

    async def __aiter__(self) -> AsyncIterator[Event]:
        while True:
            event = await self.next()
            if event is None:
                return
            yield event

    async def next(self) -> Optional[Event]:
        """The next event, ``None`` when there are no more. May be cancelled without losing any."""
        while True:
            self._woken.clear()
            event = self._lyra.poll()
            if event is not None or self._lyra.is_over:
                return event
            await self._woken.wait()

    async def closed(self, session: Session, reason: str = "", exit_code: Optional[int] = None) -> None:
        """Says that the session is over, and waits until the server knows, 5 seconds at most."""
        await asyncio.to_thread(session.closed, reason, exit_code)


def connect(address: Optional[str] = None) -> AsyncLyra:
    """Connects to the session server of this instance, in the background. Call inside of a running loop."""
    address = address or os.environ.get("LYRA_SESSION_ADDRESS")
    if not address:
        raise RuntimeError(_NO_ADDRESS)
    return AsyncLyra(address)
