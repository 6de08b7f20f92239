"""The hot path: webhooks and polling, served on the raw stream.

Owns the life of an HTTP/1 connection until it ends or belongs to another lane: requests one after the other, whole
bodies, answers in order. Must not know what handlers do, nor the other lanes.

A request that arrives in one segment is one wait for bytes, one recv, one run of the C parser, one call of the handler,
one send: no task, no cancel scope, no copy but that of its body. Answers to pipelined requests are sent one by one and
not joined: a handler may take its time (a long poll takes 25 s), and an answer must not wait for the next one.
"""

from io import BytesIO
from math import inf

import msgspec
import structlog
import trio

from gateway.http import Request, Response
from gateway.listener.answers import CLOSE, CONTINUE, KEEP, KEEP_HTTP10, Answers
from gateway.listener.chunked import ChunkedBody
from gateway.listener.limits import LINGER_SECONDS, PROGRESS_BYTES_PER_SECOND, Limits
from gateway.listener.refusals import FAILED, TIMED_OUT, Refusal
from gateway.listener.sniff import CHUNKED, Head, Sniffer, Verdict
from gateway.listener.statistics import Counters
from gateway.listener.watch import Life, Phase, Watch
from gateway.listener.wire import Wire

# Pipelined requests whose handlers never wait would keep every other connection waiting.
_REQUESTS_WITHOUT_REST = 16

log = structlog.get_logger("parley.listener")


class Departure(msgspec.Struct, frozen=True):
    """A connection that leaves this lane: for the realtime lane with its `head`, for hypercorn without.

    `rest` is what was read and not used: behind the upgrade request, or from the first byte of the application's.
    """

    head: Head | None
    rest: bytes


class IngestLane:
    """Serves any number of connections; what belongs to one lives in the local variables of `serve`."""

    def __init__(self, sniffer: Sniffer, answers: Answers, watch: Watch, counters: Counters, limits: Limits) -> None:
        self._sniffer = sniffer
        self._answers = answers
        self._watch = watch
        self._counters = counters
        self._limits = limits

    async def serve(self, wire: Wire, life: Life) -> Departure | None:
        """Serve a connection. Returns None when it is to be closed. Raises nothing of its own."""
        departure = None
        try:
            with life.scope:
                outcome = await self._serve(wire, life)
                if isinstance(outcome, bytes):
                    await self._answer_last(wire, life, outcome)
                else:
                    departure = outcome
            if life.expired and life.phase is Phase.RECEIVING:
                # Out of time already: the answer goes out if it can at once, and there is no lingering.
                with trio.move_on_after(LINGER_SECONDS):
                    await wire.send(self._refuse(TIMED_OUT))
                    await wire.finish()
        except trio.BrokenResourceError:
            return None  # nobody left to answer
        return departure

    async def _serve(self, wire: Wire, life: Life) -> Departure | bytes | None:
        """Serve requests to the last: returns the connection's last answer, None when the peer went away."""
        buffer = b""
        at = 0
        without_rest = 0
        while True:
            head = self._sniffer.sniff(buffer, at)
            while head is Verdict.NEED_MORE:
                if life.phase is Phase.IDLE and at < len(buffer):
                    life.phase = Phase.RECEIVING
                    life.deadline = min(life.deadline, trio.current_time() + self._limits.header_seconds)
                data = await wire.receive()
                if not data or life.expired:
                    return None
                buffer = buffer[at:] + data if at < len(buffer) else data
                at = without_rest = 0
                head = self._sniffer.sniff(buffer)
            if isinstance(head, Refusal):
                return self._refuse(head)
            if head is Verdict.HAND_OVER or head.socket is not None:
                life.phase = Phase.WORKING
                life.deadline = inf
                if head is Verdict.HAND_OVER:  # h11 knows no empty line in front of a request
                    return Departure(None, buffer[at:].removeprefix(b"\r\n"))
                return Departure(head, buffer[head.end :])

            if 0 <= head.length <= len(buffer) - head.end:
                at = head.end + head.length
                body = buffer[head.end : at]
            else:
                received = await self._receive_body(wire, life, head, buffer[head.end :])
                if received is None:
                    return None
                if isinstance(received, Refusal):
                    return self._refuse(received)
                body, buffer = received
                at = 0

            life.phase = Phase.WORKING
            life.deadline = inf
            request = Request(
                method=head.method,
                path=head.path,
                query=head.query,
                headers=head.headers,
                body=body,
                client=wire.client,
            )
            answer, keep = await self._answer(head, request)
            if not keep:
                return answer
            await wire.send(answer)
            life.phase = Phase.IDLE
            life.deadline = trio.current_time() + self._limits.idle_seconds
            without_rest += 1
            if without_rest >= _REQUESTS_WITHOUT_REST:
                without_rest = 0
                await trio.lowlevel.checkpoint()

    async def _answer(self, head: Head, request: Request) -> tuple[bytes, bool]:
        """Return the handler's answer, and whether others may follow: the connection's boundary to bugs."""
        assert head.handler is not None  # noqa: S101 - the sniffer's promise: one of the two is there
        try:
            response: Response = await head.handler(request)
            # Asked only now: the shutdown may have begun while the handler worked.
            keep = head.keep_alive and not self._watch.draining
            connection = (KEEP_HTTP10 if head.http10 else KEEP) if keep else CLOSE
            answer = self._answers.encode(response, connection, without_body=head.method == "HEAD")
        except Exception:
            self._counters.failed += 1
            log.exception("handler_failed", method=head.method, path=head.path)
            return self._answers.encode(FAILED.response(), CLOSE), False
        self._counters.answers[response.status] += 1
        return answer, keep

    async def _receive_body(
        self, wire: Wire, life: Life, head: Head, data: bytes
    ) -> tuple[bytes, bytes] | Refusal | None:
        """Return the body and the bytes behind it; None when the peer vanished.

        BytesIO, because its value is its buffer: a list of pieces joined at the end holds everything twice.
        """
        life.phase = Phase.RECEIVING
        latest = trio.current_time() + self._limits.body_seconds
        life.deadline = latest
        if head.expects_continue and not data:
            await wire.send(CONTINUE)
        if head.length == CHUNKED:
            chunked = ChunkedBody(self._limits.body_bytes, self._limits.header_bytes)
            while (rest := chunked.receive(data)) is None:
                life.deadline = latest + chunked.received / PROGRESS_BYTES_PER_SECOND
                data = await wire.receive()
                if not data or life.expired:
                    return None
            return rest if isinstance(rest, Refusal) else (chunked.body(), rest)
        collected = BytesIO()
        while len(data) < (missing := head.length - collected.tell()):
            collected.write(data)
            life.deadline = latest + collected.tell() / PROGRESS_BYTES_PER_SECOND
            data = await wire.receive()
            if not data or life.expired:
                return None
        collected.write(data[:missing])
        return collected.getvalue(), data[missing:]

    def _refuse(self, refusal: Refusal) -> bytes:
        self._counters.refused[refusal.code] += 1
        return self._answers.encode(refusal.response(), CLOSE)

    async def _answer_last(self, wire: Wire, life: Life, answer: bytes) -> None:
        """Send and read on for a moment, so that the answer arrives and not a reset (see LINGER_SECONDS)."""
        life.phase = Phase.LINGERING
        await wire.send(answer)
        await wire.finish()
        life.deadline = trio.current_time() + LINGER_SECONDS
        while await wire.receive() and not life.expired:
            pass
