"""`parley bench-actors`: the actor runtime measured by itself, for `parley bench actors`, which runs this as a process of its own.

Owns the measuring program: it stands here because it must reach the runtime and the conversation actor, which `bench` may not. Prints progress
on standard error and one JSON object on standard output.

Messages and round trips are those of actors that do nothing, so that only the runtime is measured. Memory is that of conversation actors and the
journal as they are, on a stand-in for the store that keeps nothing: each conversation has been woken from a snapshot, has recorded one
message more and is at rest.
"""

import gc
import sys
import time
from collections.abc import Callable, Sequence
from typing import Annotated, cast

import msgspec
import psutil
import trio
import typer

from actors.conversation import LIMITS, Conversation
from actors.feed import Feed
from actors.journal import Journal
from actors.ports import Deliver, Relearner
from gateway.cli.context import run
from protocol.commands import ContactRef, ReceiveMessage
from protocol.content import Text
from protocol.machines import conversation as machine
from protocol.outcomes import Rejected
from store.contract import Append, Committed, LoadedStream, Outcome, QuarantineEntry, RawWebhook, Store
from supervisor import Actor, ActorPool, Envelope

ACTORS = 1000
BURST = 20
"""Messages to each actor before it is waited for: as many as one turn of a busy conversation may find."""
ASKERS = 100
CHUNK = 10_000
"""Conversations woken at a time, so that messages on their way are not taken for what stays."""
ENDPOINT = "300000000000001"
AT = 1_790_000_000_000
CONTACT = ContactRef(phone="4915112345678", name="Mira Köhler")
"""Of every conversation. Each holds a copy of its own, decoded from its snapshot."""


class Figures(msgspec.Struct):
    """What is printed."""

    messages_per_s: float
    asks_per_s: float
    conversations: int
    bytes_per_conversation: float
    wakes_per_s: float


class Counter(Actor):
    """Counts its messages, and answers with how many they were."""

    __slots__ = ("_count", "_on_turn")

    batch = 64

    def __init__(self, on_turn: Callable[[int], None]) -> None:
        self._count = 0
        self._on_turn = on_turn

    async def turn(self, envelopes: Sequence[Envelope]) -> None:
        """Count."""
        for envelope in envelopes:
            self._count += 1
            envelope.answer(self._count)
        self._on_turn(len(envelopes))


class Countdown:
    """Lets one task wait until so many messages have been handled."""

    def __init__(self) -> None:
        self._left = 0
        self._done = trio.Event()

    def expect(self, count: int) -> None:
        """Begin to wait for `count` messages."""
        self._left, self._done = count, trio.Event()

    def count(self, handled: int) -> None:
        """Note that some were handled."""
        self._left -= handled
        if self._left <= 0:
            self._done.set()

    async def wait(self) -> None:
        """Wait for the last."""
        await self._done.wait()


class OnePast:
    """A store in which every conversation has the same past, and which accepts every append and keeps nothing."""

    def __init__(self, messages: int, countdown: Countdown) -> None:
        self._countdown = countdown
        state = machine.INITIAL
        for number in range(messages):
            events = machine.decide(state, received(0, number))
            if isinstance(events, Rejected):
                raise RuntimeError(events.detail)
            for event in events:
                state = machine.evolve(state, event)
        version = messages + 1  # the first event says that the conversation started
        self._stream = LoadedStream(version, machine.encode_snapshot(state), version, ())
        if not messages:
            self._stream = LoadedStream(0, None, 0, ())

    async def load_streams(self, streams: Sequence[str]) -> list[LoadedStream]:
        """Return that past."""
        return [self._stream] * len(streams)

    async def append_batch(
        self,
        appends: Sequence[Append],
        *,
        webhooks: Sequence[RawWebhook] = (),
        quarantine: Sequence[QuarantineEntry] = (),
        at: int,
    ) -> list[Outcome]:
        """Accept."""
        self._countdown.count(len(appends))
        return [Committed(1, at)] * len(appends)


def received(conversation: int, number: int) -> machine.Happened:
    """Return a message as WhatsApp's are: its id has 58 characters."""
    message_id = f"wamid.HBgNNDkxNTExMjM0NTY3OBUCABIYFjNFQj{conversation:08d}{number:08d}AA=="
    command = ReceiveMessage(message_id, Text("Is the blue one in stock?"))
    return machine.Happened(ENDPOINT, CONTACT, AT + number, command)


def bench_actors(
    conversations: Annotated[
        int, typer.Option(help="Resident conversations whose memory is measured.", min=100)
    ] = 1_000_000,
    past: Annotated[int, typer.Option(help="Messages each of them had before.", min=0, max=128)] = 10,
    seconds: Annotated[float, typer.Option(help="Of each measured stretch.", min=0.1)] = 5.0,
) -> None:
    """Measure the actor runtime in this process; `parley bench actors` runs it and makes a report of it."""

    async def command() -> None:
        gc.collect()
        gc.freeze()  # as the gateway does once it is ready
        sys.stderr.write("messages\n")
        messages = await messages_per_second(seconds)
        sys.stderr.write("round trips\n")
        asks = await asks_per_second(seconds)
        each, wakes = await memory(conversations, past)
        sys.stdout.write(msgspec.json.encode(Figures(messages, asks, conversations, each, wakes)).decode())

    run(command)


async def messages_per_second(seconds: float) -> float:
    """Tell a thousand actors, in bursts."""
    countdown = Countdown()
    pool = ActorPool[int]("bench", lambda _: Counter(countdown.count))
    refs = [pool.ref(key) for key in range(ACTORS)]
    told = 0
    async with trio.open_nursery() as nursery:
        await nursery.start(pool.run)
        begin = time.perf_counter()
        while time.perf_counter() - begin < seconds:
            countdown.expect(BURST * ACTORS)
            for number in range(BURST):
                for ref in refs:
                    ref.tell(number)
            await countdown.wait()
            told += BURST * ACTORS
        took = time.perf_counter() - begin
        nursery.cancel_scope.cancel()
    return told / took


async def asks_per_second(seconds: float) -> float:
    """Have a hundred tasks ask an actor each, one question after the other."""
    pool = ActorPool[int]("bench", lambda _: Counter(lambda _: None))
    answered = 0

    async def ask(key: int, until: float) -> None:
        nonlocal answered
        ref = pool.ref(key)
        while time.perf_counter() < until:
            await ref.ask(None)
            answered += 1

    async with trio.open_nursery() as nursery:
        await nursery.start(pool.run)
        begin = time.perf_counter()
        async with trio.open_nursery() as askers:
            for key in range(ASKERS):
                askers.start_soon(ask, key, begin + seconds)
        took = time.perf_counter() - begin
        nursery.cancel_scope.cancel()
    return answered / took


async def memory(conversations: int, past: int) -> tuple[float, float]:
    """Return bytes per resident idle conversation, and how many a second were woken (on one core, the store's time left out)."""
    countdown = Countdown()
    store = cast(Store, OnePast(past, countdown))
    journal = Journal(store, Feed(store), lambda: AT, on_fenced=lambda _: None)
    pool = ActorPool[str](
        "conversations",
        lambda key: Conversation("tnt_bench", key, journal, store, cast(Relearner, None)),
        mailbox=LIMITS,
        max_resident=conversations,
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(journal.child_spec().start)
        await nursery.start(pool.run)
        process = psutil.Process()
        before = process.memory_info().rss
        begin = time.perf_counter()
        for first in range(0, conversations, CHUNK):
            chunk = range(first, min(first + CHUNK, conversations))
            countdown.expect(len(chunk))
            for number in chunk:
                webhook = RawWebhook(f"whk_{number}", "whatsapp", AT, b"", "routed")
                message = Deliver(received(number, past), number.to_bytes(16, "big"), webhook)
                pool.ref(f"cnv_{number:026d}").tell(message)
            await countdown.wait()
            while pool.statistics().active:
                await trio.lowlevel.checkpoint()
            sys.stderr.write(f"woken {chunk.stop}\n")
            sys.stderr.flush()
        took = time.perf_counter() - begin
        grown = process.memory_info().rss - before
        nursery.cancel_scope.cancel()
    return grown / conversations, conversations / took
