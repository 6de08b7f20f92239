"""The two ways bytes travel: a bare non-blocking socket, or any trio stream (TLS, memory).

Owns reading, bounded writing and closing of one connection. Must not know HTTP.

Both report a vanished peer the same way: `receive` returns b"", `send` raises `trio.BrokenResourceError`; whether it was
an orderly end, a reset or our own `abort` makes no difference to anybody above.
"""

import socket
from contextlib import suppress
from typing import Protocol

import trio

from gateway.listener.limits import PROGRESS_BYTES_PER_SECOND, Limits

RECEIVE_BYTES = 64 * 1024

_SEND_PIECE = PROGRESS_BYTES_PER_SECOND
"""What a peer has to take before its time for sending starts anew: so a big answer may take long, but one that is not
read at all is given up as soon as a small one."""
_PIECE_SECONDS = 1.0


class Wire(Protocol):
    """One connection's bytes. One task receives; sends are serialised by the caller."""

    client: str
    """The peer's host."""

    async def receive(self) -> bytes:
        """Return the next bytes, b"" when there will be no more. A checkpoint."""

    async def send(self, data: bytes) -> None:
        """Send everything. Not a checkpoint when the kernel takes it at once.

        Raises:
            trio.BrokenResourceError: the peer is gone, or has not read for too long.
        """

    def try_send(self, data: bytes) -> bytes:
        """Send what can be sent without waiting, and return the rest. Raises trio.BrokenResourceError."""

    async def finish(self) -> None:
        """Say that nothing more will be sent, as far as the transport can."""

    async def close(self) -> None:
        """Close in bounded time, also when cancelled. May be called twice."""

    def abort(self) -> None:
        """Drop the connection now. Tasks that wait on it wake up. May be called twice."""


class SocketWire:
    """A plain TCP connection.

    Why not `trio.SocketStream`: its `receive_some` first tries a read that nearly always fails (the next request is not
    there yet: a system call and an exception), and its `send_all` ends in a trip round the scheduler. Here a request
    costs one wait, one recv and one send.
    """

    def __init__(self, sock: socket.socket, client: str, limits: Limits) -> None:
        sock.setblocking(False)
        # An answer is one write, there is nothing to wait for.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.client = client
        self._sock = sock
        self._limits = limits

    async def receive(self) -> bytes:
        """Return the next bytes, b"" at the end."""
        try:
            while self._sock.fileno() >= 0:
                await trio.lowlevel.wait_readable(self._sock)
                try:
                    return self._sock.recv(RECEIVE_BYTES)
                except BlockingIOError:
                    continue  # readiness was spurious
        except (OSError, trio.ClosedResourceError):
            return b""
        await trio.lowlevel.checkpoint()
        return b""

    async def send(self, data: bytes) -> None:
        """Send everything. Raises trio.BrokenResourceError."""
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise trio.BrokenResourceError from error
        if sent < len(data):
            await self._send_rest(memoryview(data)[sent:])

    def try_send(self, data: bytes) -> bytes:
        """Send what the kernel's buffer takes, and return the rest. Raises trio.BrokenResourceError."""
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            return data
        except OSError as error:
            raise trio.BrokenResourceError from error
        return data[sent:]

    async def _send_rest(self, rest: memoryview) -> None:
        while rest:
            left_over = len(rest) - _SEND_PIECE
            with trio.move_on_after(self._limits.send_seconds + _PIECE_SECONDS):
                while len(rest) > max(left_over, 0):
                    if self._sock.fileno() < 0:
                        raise trio.BrokenResourceError("closed meanwhile")
                    try:
                        await trio.lowlevel.wait_writable(self._sock)
                        rest = rest[self._sock.send(rest) :]
                    except BlockingIOError:
                        continue
                    except (OSError, trio.ClosedResourceError) as error:
                        raise trio.BrokenResourceError from error
                continue
            self.abort()
            raise trio.BrokenResourceError("the peer does not read")

    async def finish(self) -> None:
        """Half-close, where the transport can."""
        with suppress(OSError):  # gone already, which is what this is about
            self._sock.shutdown(socket.SHUT_WR)

    async def close(self) -> None:
        """Close in bounded time."""
        self.abort()

    def abort(self) -> None:
        """Drop the connection now."""
        if self._sock.fileno() >= 0:
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()


class StreamWire:
    """Any trio stream as a wire; `transport` is the socket under a TLS stream, for a hard end."""

    def __init__(
        self,
        stream: trio.abc.Stream,
        client: str,
        limits: Limits,
        transport: trio.SocketStream | None = None,
    ) -> None:
        self.client = client
        self._stream = stream
        self._limits = limits
        self._transport = transport

    async def receive(self) -> bytes:
        """Return the next bytes, b"" at the end."""
        try:
            return bytes(await self._stream.receive_some(RECEIVE_BYTES))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return b""

    async def send(self, data: bytes) -> None:
        """Send everything. Raises trio.BrokenResourceError."""
        try:
            for at in range(0, len(data), _SEND_PIECE):
                with trio.move_on_after(self._limits.send_seconds + _PIECE_SECONDS) as scope:
                    await self._stream.send_all(data[at : at + _SEND_PIECE])
                if scope.cancelled_caught:
                    self.abort()
                    raise trio.BrokenResourceError("the peer does not read")
        except trio.ClosedResourceError as error:
            raise trio.BrokenResourceError from error

    def try_send(self, data: bytes) -> bytes:
        """Send nothing: a stream has no way to write without waiting."""
        return data

    async def finish(self) -> None:
        """Half-close, where the transport can."""
        if isinstance(self._stream, trio.abc.HalfCloseableStream):
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await self._stream.send_eof()

    async def close(self) -> None:
        """Close in bounded time."""
        # TLS says good-bye with a message of its own, which a peer that does not read can hold up.
        with trio.move_on_after(self._limits.close_seconds, shield=True):
            with suppress(trio.BrokenResourceError):
                await self._stream.aclose()
        self.abort()

    def abort(self) -> None:
        """Drop the connection now."""
        if self._transport is not None:
            self._transport.socket.close()
