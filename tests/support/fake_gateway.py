"""A scripted gateway for the dashboard's tests: the page, the REST shapes it reads and `/ws`, in memory, behind the real listener.

Written against `gateway.api` (shapes, opaque cursors) and `protocol.frames` (the way of a session). It folds events into rows plainly, so that
what the page makes of the events can be compared with it. A test may cut connections, refuse them, hold answers back, lose feed history or
begin a new epoch.
"""

import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs

import msgspec
import trio

from gateway.dashboard import HEADERS, assets
from gateway.http import Request, Response, SocketClosed, WebSocket
from gateway.listener import Limits, Listener
from protocol import frames
from protocol.commands import ContactRef
from protocol.content import Content, Reaction, Text, preview
from protocol.events import (
    ConversationEvent,
    ConversationStarted,
    MessageEdited,
    MessageRecorded,
    MessageRevoked,
    ReceiptRecorded,
    encode,
)
from protocol.machines.identity import display_name
from protocol.machines.timeline import RANK

KEY = "pk_demo_0123456789"
ENDPOINTS = {"300000000000001": "Berlin", "300000000000002": "Nairobi"}
BERLIN = "300000000000001"

Json = dict[str, Any]


def now() -> int:
    return time.time_ns() // 1_000_000


class Thread:
    """One conversation: its row as the API gives it, its messages by id, its event frames."""

    def __init__(self, number: int, endpoint: str, contact: ContactRef) -> None:
        self.id = f"cnv_{number:06d}"
        self.contact = contact
        self.messages: dict[str, Json] = {}
        self.events: list[Json] = []
        self.row: Json = {
            "id": self.id,
            "endpoint": endpoint,
            "contact": msgspec.to_builtins(contact),
            "name": display_name(contact),
            "preview": "",
            "last_at": 0,
            "last_outbound": False,
            "last_status": None,
            "unanswered": 0,
            "messages": 0,
            "version": 0,
            "merged_into": None,
        }


class Gate:
    """Holds answers to requests whose path contains `path`, composed but not sent, until it is opened: what a slow network does."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.reached = trio.Event()
        self.opened = trio.Event()


class FakeGateway:
    """`serve` it in a nursery; script it from the same thread."""

    def __init__(self) -> None:
        self.threads: dict[str, Thread] = {}
        self.feed: list[Json] = []
        self.epoch = "e1"
        self.oldest = 1
        self.quarantine: list[Json] = []
        self.refusing = False
        """Answer 503 to the API and to new sockets."""
        self.revoked = False
        self.held: Gate | None = None
        self.requests: list[str] = []
        self.subscriptions: list[Json] = []
        """Every `subscribe` that came."""
        self._followers: set[Callable[[bytes], None]] = set()
        self._cuts: set[Callable[[], None]] = set()
        self._assets = assets()
        self._messages = 0
        limits = Limits(drain_seconds=0.2)  # at the end of a test nothing is worth waiting for
        self._listener = Listener(handlers={}, sockets={"/ws": self._socket}, app=self._app, limits=limits)

    async def serve(self, *, task_status: trio.TaskStatus[str]) -> None:
        """Serve on loopback; reports the address."""
        async with trio.open_nursery() as nursery:
            ((host, port),) = await nursery.start(self._listener.serve, "127.0.0.1", 0)
            task_status.started(f"http://{host}:{port}")

    # --- what a test does

    def conversation(self, contact: ContactRef, *, endpoint: str = BERLIN, at: int | None = None) -> Thread:
        """Start a conversation."""
        thread = Thread(len(self.threads) + 1, endpoint, contact)
        self.threads[thread.id] = thread
        self.record(thread, ConversationStarted(at=at or now(), endpoint=endpoint, contact=contact))
        return thread

    def say(self, thread: Thread, content: Content | str, *, outbound: bool = False, **fields: Any) -> str:
        """Record a message and return its id."""
        self._messages += 1
        message_id = fields.pop("message_id", f"wamid.{self._messages}")
        at = fields.pop("at", None) or now()
        said = Text(content) if isinstance(content, str) else content
        origin = fields.pop("origin", "echo" if outbound else "customer")
        self.record(thread, MessageRecorded(at, message_id, said, origin=origin, outbound=outbound, **fields))
        return str(message_id)

    def receipt(self, thread: Thread, message_id: str, status: Any, **fields: Any) -> None:
        """Record a delivery receipt."""
        self.record(
            thread,
            ReceiptRecorded(at=now(), message_id=message_id, raw_status=status, current=status, **fields),
        )

    def record(self, thread: Thread, event: ConversationEvent) -> None:
        """Append an event to the feed, fold it, push it to whoever follows."""
        thread.row["version"] += 1
        offset = len(self.feed) + 1
        fields = frames.event_fields(
            thread.id, thread.row["endpoint"], offset, thread.row["version"], now(), encode(event)
        )
        frame: Json = msgspec.json.decode(b"{" + fields + b"}")
        thread.events.append(frame)
        self.feed.append(frame)
        self._fold(thread, event, frame)
        for push in list(self._followers):
            push(b'{"type":"event",' + fields + b"}")

    def cut(self) -> None:
        """Break every WebSocket, as a failing network does."""
        for cut in list(self._cuts):
            cut()

    def begin_epoch(self, epoch: str) -> None:
        """Restore from nothing: another life of the feed, whose offsets and versions begin anew."""
        self.epoch = epoch
        self.feed.clear()
        self.threads.clear()

    def forget_feed(self) -> None:
        """Lose all history before the newest event: positions before it are too old."""
        self.oldest = len(self.feed) + 1

    # --- folding

    def _fold(self, thread: Thread, event: ConversationEvent, frame: Json) -> None:
        row = thread.row
        match event:
            case MessageRecorded():
                built = frame["event"]
                thread.messages[event.message_id] = {
                    "message_id": event.message_id,
                    "conversation": thread.id,
                    "seq": frame["offset"],
                    "at": event.at,
                    "recorded_at": frame["recorded_at"],
                    "outbound": event.outbound,
                    "origin": event.origin,
                    "content": built["content"],
                    "context": built.get("context"),
                    "author": event.author,
                    "status": event.status,
                    "status_at": None,
                    "problems": built.get("problems", []),
                    "edited": False,
                    "revoked": False,
                }
                if not isinstance(event.content, Reaction):
                    row["unanswered"] = 0 if event.outbound else row["unanswered"] + 1
                row |= {
                    "preview": preview(event.content),
                    "last_at": max(row["last_at"], event.at),
                    "last_outbound": event.outbound,
                    "last_status": event.status if event.outbound else None,
                    "messages": row["messages"] + 1,
                    "last": event.message_id,
                }
            case ReceiptRecorded(message_id=message_id, current=status) if message_id in thread.messages and status:
                message = thread.messages[message_id]
                if RANK[status] > RANK.get(message["status"], 0):
                    message |= {"status": status, "problems": frame["event"].get("problems", [])}
                    if row.get("last") == message_id:
                        row["last_status"] = status
            case MessageEdited():
                thread.messages[event.original_id] |= {"content": frame["event"]["content"], "edited": True}
            case MessageRevoked():
                thread.messages[event.original_id]["revoked"] = True
            case _:
                pass

    # --- REST

    async def _app(
        self, scope: Json, receive: Callable[[], Awaitable[Any]], send: Callable[[Json], Awaitable[None]]
    ) -> None:
        """Serve ASGI: the lifespan, and `_http` for requests."""
        if scope["type"] == "lifespan":
            for step in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{step}.complete"})
            return
        request = Request(scope["method"], scope["path"], scope["query_string"], tuple(scope["headers"]), b"", "")
        response = await self._http(request)
        await send({"type": "http.response.start", "status": response.status, "headers": list(response.headers)})
        await send({"type": "http.response.body", "body": response.body})

    async def _http(self, request: Request) -> Response:
        await trio.lowlevel.checkpoint()
        asset = self._assets.get(request.path)
        if asset is not None:
            headers = [(name.encode(), value.encode()) for name, value in HEADERS]
            return Response(200, asset.body, ((b"content-type", asset.content_type.encode()), *headers))
        self.requests.append(f"{request.path}?{request.query.decode()}")
        if self.refusing:
            return _problem(503, "overloaded", "The gateway is not ready")
        if self.revoked or request.header(b"authorization") != f"Bearer {KEY}".encode():
            return _problem(401, "unauthenticated", "The API key is not valid")
        query = {name: values[0] for name, values in parse_qs(request.query.decode()).items()}
        answer = self._answer(request.path.removeprefix("/api/v1/").split("/"), query)
        if self.held is not None and self.held.path in request.path:
            self.held.reached.set()
            await self.held.opened.wait()
        return answer

    def _answer(self, path: list[str], query: dict[str, str]) -> Response:
        feed = {"epoch": self.epoch, "offset": len(self.feed)}
        match path:
            case ["me"]:
                endpoints = [
                    {"provider": "whatsapp", "external_id": id_, "display": name, "account": "2"}
                    for id_, name in ENDPOINTS.items()
                ]
                tenant = {"id": "tnt_1", "slug": "bakery", "name": "The Bakery", "status": "active"}
                return _json({"tenant": tenant, "endpoints": endpoints, "key": {"id": "key_1", "prefix": "pk_demo"}})
            case ["quarantine"]:
                return _json(_page(self.quarantine, query, lambda entry: [entry["id"]]))
            case ["conversations"]:
                return _json(
                    {**_page(self._listed(query), query, lambda row: [row["last_at"], row["id"]]), "feed": feed}
                )
            case ["conversations", id_, *rest] if id_ in self.threads:
                thread = self.threads[id_]
                match rest:
                    case []:
                        return _json({"data": thread.row, "feed": feed})
                    case ["messages"]:
                        newest_first = sorted(thread.messages.values(), key=lambda message: -message["seq"])
                        return _json({**_page(newest_first, query, lambda message: [message["seq"]]), "feed": feed})
                    case ["events"]:
                        after = int(query.get("after", 0))
                        return _json({"data": thread.events[after : after + int(query.get("limit", 50))]})
        return _problem(404, "not_found", "There is no such thing")

    def _listed(self, query: dict[str, str]) -> list[Json]:
        wanted = query.get("q", "").casefold()
        rows = [
            thread.row
            for thread in self.threads.values()
            if query.get("endpoint") in (None, thread.row["endpoint"])
            and (query.get("unanswered") != "true" or thread.row["unanswered"])
            and wanted in f"{thread.row['name']} {thread.row['preview']} {thread.contact.phone}".casefold()
        ]
        return sorted(rows, key=lambda row: (row["last_at"], row["id"]), reverse=True)

    # --- realtime

    async def _socket(self, socket: WebSocket) -> None:
        if self.refusing:
            await socket.reject(_problem(503, "overloaded", "The gateway is not ready"))
            return
        with trio.CancelScope() as scope:
            await socket.accept()
            sender, outgoing = trio.open_memory_channel[bytes](10_000)
            follow = sender.send_nowait
            self._cuts.add(scope.cancel)
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_write, socket, outgoing)
                    await self._converse(socket, follow)
                    nursery.cancel_scope.cancel()
            except* SocketClosed:
                pass
            finally:
                self._cuts.discard(scope.cancel)
                self._followers.discard(follow)

    async def _converse(self, socket: WebSocket, push: Callable[[bytes], None]) -> None:
        while True:
            match frames.decode_client(await socket.receive()):
                case frames.Authenticate(token=token):
                    if token != KEY or self.revoked:
                        await socket.close(frames.UNAUTHENTICATED, "no valid key")
                        return
                    push(frames.encode(frames.Welcome("con_1", "tnt_1")))
                case frames.Subscribe() as request:
                    self.subscriptions.append(msgspec.to_builtins(request))
                    self._subscribe(request, push)
                case frames.Ping(id=id_):
                    push(frames.encode(frames.Pong(id_)))

    def _subscribe(self, request: frames.Subscribe, push: Callable[[bytes], None]) -> None:
        head = len(self.feed)
        after = head if request.offset is None else request.offset
        reason = (
            "epoch_changed"
            if request.epoch not in (None, self.epoch)
            else "too_old"
            if after < self.oldest - 1
            else "ahead"
            if after > head
            else None
        )
        if reason is not None:
            push(frames.encode(frames.SnapshotRequired(reason, self.epoch, head)))
            return
        for frame in self.feed[after:]:
            push(msgspec.json.encode({"type": "event", **frame}))
        push(frames.encode(frames.Subscribed(self.epoch, head)))
        self._followers.add(push)


async def _write(socket: WebSocket, outgoing: trio.MemoryReceiveChannel[bytes]) -> None:
    async for message in outgoing:
        await socket.send(message.decode())


def _page(entries: list[Json], query: dict[str, str], position: Callable[[Json], list[Any]]) -> Json:
    """Cut a page by keyset, newest first, as the API does."""
    limit = int(query.get("limit", 50))
    if "cursor" in query:
        after = msgspec.json.decode(bytes.fromhex(query["cursor"]))
        entries = [entry for entry in entries if position(entry) < after]
    page = entries[:limit]
    cursor = msgspec.json.encode(position(page[-1])).hex() if len(entries) > limit else None
    return {"data": page, "next_cursor": cursor}


def _json(body: object, status: int = 200, kind: bytes = b"application/json") -> Response:
    return Response(status, msgspec.json.encode(body), ((b"content-type", kind), (b"cache-control", b"no-store")))


def _problem(status: int, code: str, title: str) -> Response:
    body = {"type": f"/problems/{code}", "title": title, "status": status, "detail": None, "code": code}
    return _json({**body, "retryable": status >= 500}, status, b"application/problem+json")
