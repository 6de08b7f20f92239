"""A past for a gateway: as many conversations as wanted, written through the front door and as fast as that goes.

Owns filling and where the checks begin after it. Batched webhooks make a conversation many times as fast as single ones do, and nothing is
written that the gateway did not write itself: what is measured afterwards is what a deployment of that age has.
"""

from bench.bodies import Work
from bench.gateway_process import GatewayFailed
from bench.load import Plan, Result
from bench.measure import Load
from bench.scenario import Context
from bench.server import Server
from bench.worker import worker

BATCH = 200
CONNECTIONS = 8
"""With BATCH: 1,600 items on their way, enough to keep the gateway busy and far from its bounds."""

CHUNK = 500
"""Webhooks composed at once, some 100 KB each."""

SEED = 1_000_000_000
"""Added to the run's seed: the past has message ids of its own, which no check takes for what it sent."""


async def preload(context: Context, server: Server, conversations: int) -> None:
    """Write one message to each of the first tenant's first so many people. May be called again with ten times as many.

    Raises:
        GatewayFailed: not all of it was acknowledged.
    """
    batch = min(BATCH, conversations)
    webhooks = -(-conversations // batch)
    # Any run of as many items as there are people visits each of them (bench.bodies). Where it begins, no smaller past has been.
    for done in range(0, webhooks, CHUNK):
        plan = Plan(
            url=server.webhooks,
            work=Work(server.tenants[:1], conversations=conversations, batch=batch, seed=context.settings.seed + SEED),
            seconds=600.0,
            warmup=0.0,
            connections=CONNECTIONS,
            first=webhooks + done,
            most=min(CHUNK, webhooks - done),
        )

        async def on_line(line: str, done: int = done) -> None:
            _, _, answers = line.partition(" ")
            if answers:
                context.progress(f"{(done + int(answers)) * batch:,} of {conversations:,} conversations")

        async with worker("bench.load", plan=plan, on_line=on_line) as generator:
            result = await generator.result(Result)
        if result.acknowledged_ever < plan.most:
            raise GatewayFailed(
                f"{plan.most - result.acknowledged_ever} of {plan.most} webhooks of the past were not acknowledged: {result.answers}"
            )


class LoadFromHere(Load):
    """Load on a gateway with a past: it begins at item `first`, and its checks at what is stored now."""

    def __init__(self, context: Context, server: Server, *, conversations: int, first: int = 0) -> None:
        super().__init__(context, server, conversations=conversations)
        self._next = first

    @property
    def next(self) -> int:
        """The first item that has not been sent."""
        return self._next

    async def begin(self) -> None:
        """Note where the feeds stand."""
        for key in self._server.keys:
            self._read_to[key] = await self._server.head(key)
