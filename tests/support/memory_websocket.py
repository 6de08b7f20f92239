"""A `gateway.http.WebSocket` without a network, for tests of what speaks on one. The test is its client."""

import math

import trio

from gateway.http import Frame, Headers, Request, Response, SocketClosed


def get(query: str, *, path: str = "/socket.io/", headers: Headers = ()) -> Request:
    return Request("GET", path, query.encode(), ((b"host", b"gateway.test"), *headers), b"", "192.0.2.1")


def post(query: str, body: bytes, *, path: str = "/socket.io/", headers: Headers = ()) -> Request:
    return Request("POST", path, query.encode(), ((b"host", b"gateway.test"), *headers), body, "192.0.2.1")


class MemoryWebSocket:
    """Both ends of one connection. The methods of the contract are the server's, those named `client_…` the test's."""

    def __init__(self, query: str, *, headers: Headers = ()) -> None:
        self.request = get(query, headers=headers)
        self.rejection: Response | None = None
        self.close_code: int | None = None
        self.close_reason = ""
        self.closed = trio.Event()
        self.accepted = trio.Event()
        self.writes: list[int] = []  # how many messages each write carried
        self._to_server, self._server_inbox = trio.open_memory_channel[str | bytes | SocketClosed](math.inf)
        self._to_client, self._client_inbox = trio.open_memory_channel[str | bytes](math.inf)
        self._reading = trio.Event()
        self._reading.set()

    async def accept(self, subprotocol: str | None = None) -> None:
        await trio.lowlevel.checkpoint()
        self.accepted.set()

    async def reject(self, response: Response) -> None:
        await trio.lowlevel.checkpoint()
        self.rejection = response

    async def receive(self) -> str | bytes:
        message = await self._server_inbox.receive()
        if isinstance(message, SocketClosed):
            self._to_server.send_nowait(message)  # and so says every later call
            raise message
        return message

    async def send(self, data: str | bytes) -> None:
        await self._write([data])

    async def send_frames(self, frames: list[Frame]) -> None:
        await self._write([frame.payload.decode() for frame in frames])

    def try_send_frames(self, frames: list[Frame]) -> list[Frame]:
        return frames

    async def close(self, code: int = 1000, reason: str = "") -> None:
        await trio.lowlevel.checkpoint()
        if self.close_code is None:
            self.close_code, self.close_reason = code, reason
            self._to_client.close()
            self.closed.set()

    async def _write(self, messages: list[str | bytes]) -> None:
        await self._reading.wait()
        if self.closed.is_set():
            raise SocketClosed
        self.writes.append(len(messages))
        for message in messages:
            self._to_client.send_nowait(message)

    def client_send(self, *messages: str | bytes) -> None:
        for message in messages:
            self._to_server.send_nowait(message)

    async def client_receive(self) -> str | bytes:
        """The next message; trio.EndOfChannel once the server has closed."""
        return await self._client_inbox.receive()

    async def client_rest(self) -> list[str | bytes]:
        """Everything up to the server's close."""
        return [message async for message in self._client_inbox]

    def client_close(self, code: int = 1001) -> None:
        self._to_server.send_nowait(SocketClosed(code))

    def client_stop_reading(self) -> None:
        """From now on writes block, as they do when the kernel's buffers are full."""
        self._reading = trio.Event()

    def client_resume_reading(self) -> None:
        self._reading.set()
