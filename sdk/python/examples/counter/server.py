"""A counter that everyone shares: one session is one counter.

Clients connect to $PORT and write lines: a number is added, anything else just asks; each change is told to all. The
session's data is where the counter starts. Configuration: ``most``, the most that one line may add.
"""

import asyncio
import itertools
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))
from lyra_session import aio  # noqa: E402

MOST_WAITING = 64 << 10


class Counter:
    def __init__(self, session: aio.Session) -> None:
        self.session = session
        self.value = int(session.text or "0")
        self.configure(session.configuration.data)
        self.clients: set[asyncio.StreamWriter] = set()
        self.names = (f"client-{number}" for number in itertools.count(1))

    def configure(self, data: dict) -> None:
        self.most = int(data.get("most", "1000"))

    def tell(self, writer: asyncio.StreamWriter) -> None:
        writer.write(f"{self.value}\n".encode())
        # Who does not read is not waited for.
        if writer.transport.get_write_buffer_size() > MOST_WAITING:
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        name = next(self.names)
        if not self.session.client_joined(name):
            writer.close()
            return
        self.clients.add(writer)
        try:
            self.tell(writer)
            while line := await reader.readline():
                try:
                    step = max(-self.most, min(self.most, int(line)))
                except ValueError:
                    self.tell(writer)
                    continue
                self.value += step
                for client in self.clients:
                    self.tell(client)
        except (ConnectionError, ValueError):
            pass
        finally:
            self.clients.discard(writer)
            self.session.client_left(name)
            writer.close()


async def main() -> None:
    counter = server = None
    async with aio.connect() as lyra:
        async for event in lyra:
            if isinstance(event, aio.Open):
                try:
                    counter = Counter(event.session)
                    server = await asyncio.start_server(counter.serve, None, int(os.environ.get("PORT", "8080")))
                except (OSError, ValueError) as error:
                    event.session.fail(str(error))
                else:
                    event.session.ready()
            elif isinstance(event, aio.Configuration) and counter:
                counter.configure(event.data)
            elif isinstance(event, aio.Close) and counter and server:
                server.close()
                for client in list(counter.clients):
                    client.close()
                print(f"the counter ended at {counter.value}", flush=True)
                await lyra.closed(event.session)


asyncio.run(main())
