"""The sender against a gateway in memory: rate, retries, broken connections, forgeries, stopping. Time is virtual."""

import itertools
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from bench.simulators.faults import DROPPED, Faults, spoil
from bench.simulators.http_client import Answer, BrokenConnection, Connection, Target, target_of
from bench.simulators.ledger import Ledger, acknowledged, read_entries
from bench.simulators.meta import Delivery, Traffic
from bench.simulators.sender import run
from bench.simulators.simulate import Options, deliveries, load_tenants, parse_tenant
from bench.simulators.world import SimTenant
from protocol import signatures

TENANT = SimTenant("300000000000001", "200000000000001", "secret", "4930000000")
URL = "http://gateway.test:8080/webhooks/whatsapp?x=1"

Answering = Callable[[bytes], Awaitable[int | None]]
"""Takes a body, returns the status to answer; None breaks the connection."""


class Gateway:
    """An HTTP server on memory streams that does with each body what the test says."""

    def __init__(self, nursery: trio.Nursery, answering: Answering) -> None:
        self._nursery = nursery
        self._answering = answering
        self.seen: list[bytes] = []
        self.arrived: list[float] = []
        self.torn = 0
        self.connections = 0
        self.heads: set[bytes] = set()
        self.down = False

    async def connect(self) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        if self.down:
            raise ConnectionRefusedError
        self.connections += 1
        client, server = memory_stream_pair()
        self._nursery.start_soon(self._serve, server)
        return client

    async def _serve(self, stream: trio.abc.Stream) -> None:
        buffer = b""
        async with stream:
            while True:
                while b"\r\n\r\n" not in buffer:
                    if not (received := await stream.receive_some(65536)):
                        return
                    buffer += received
                head, _, buffer = buffer.partition(b"\r\n\r\n")
                fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
                size = int(fields[b"Content-Length"])
                while len(buffer) < size:
                    if not (received := await stream.receive_some(65536)):
                        self.torn += 1
                        return
                    buffer += received
                body, buffer = buffer[:size], buffer[size:]
                self.heads.add(head.split(b"\r\n")[0])
                self.seen.append(body)
                self.arrived.append(trio.current_time())
                genuine = signatures.verify(b"secret", body, fields[b"X-Hub-Signature-256"])
                status = await self._answering(body) if genuine else 401
                if status is None:
                    return
                await stream.send_all(b"HTTP/1.1 %d Whatever\r\nContent-Length: 2\r\n\r\nok" % status)


async def always_200(body: bytes) -> int | None:
    return 200


def traffic(count: int) -> list[Delivery]:
    return list(itertools.islice(Traffic(1, [TENANT]), count))


async def test_everything_is_sent_once_over_kept_connections(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    gateway, sent = Gateway(nursery, always_200), traffic(200)

    with Ledger() as ledger:
        report = await run(sent, URL, ledger=ledger, concurrency=4, connect=gateway.connect)
        found = ledger.acknowledged()

    assert Counter(gateway.seen) == Counter(each.body for each in sent)
    assert gateway.connections <= 4
    assert gateway.heads == {b"POST /webhooks/whatsapp?x=1 HTTP/1.1"}
    assert report.sent == report.acknowledged == report.attempts == report.statuses[200] == 200
    assert report.items == sum(len(each.truth) for each in sent)
    assert {key for items in found.values() for key in items} == {truth for each in sent for truth in each.truth}


async def test_one_connection_keeps_the_order(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    gateway, sent = Gateway(nursery, always_200), traffic(50)

    with Ledger() as ledger:
        await run(sent, URL, ledger=ledger, concurrency=1, connect=gateway.connect)

    assert gateway.seen == [each.body for each in sent]


async def test_the_rate_does_not_wait_for_answers(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    async def slowly(body: bytes) -> int | None:
        await trio.sleep(3)
        return 200

    gateway = Gateway(nursery, slowly)
    began = trio.current_time()
    with Ledger() as ledger:
        report = await run(traffic(100), URL, ledger=ledger, rate=10, concurrency=64, connect=gateway.connect)

    assert [at - began for at in gateway.arrived] == pytest.approx([number / 10 for number in range(100)])
    assert report.late == 0


async def test_at_a_speed_each_delivery_is_sent_when_it_is_due(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    gateway, sent = Gateway(nursery, always_200), traffic(100)
    began = trio.current_time()
    with Ledger() as ledger:
        await run(sent, URL, ledger=ledger, speed=5, connect=gateway.connect)

    due = [(each.due_ms - sent[0].due_ms) / 1000 / 5 for each in sent]
    assert due[-1] > 10
    assert [at - began for at in gateway.arrived] == pytest.approx(due)


async def test_what_is_outstanding_is_bounded(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    async def slowly(body: bytes) -> int | None:
        await trio.sleep(1)
        return 200

    gateway = Gateway(nursery, slowly)
    with Ledger() as ledger:
        report = await run(
            traffic(40), URL, ledger=ledger, rate=1000, concurrency=64, outstanding=10, connect=gateway.connect
        )

    assert report.late > 0
    assert max(Counter(round(at, 1) for at in gateway.arrived).values()) <= 10
    assert report.acknowledged == 40


@pytest.mark.parametrize("trouble", [503, 500, 201, 404, None])
async def test_anything_but_200_is_tried_again_with_longer_pauses(
    trouble: int | None, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    tries: dict[bytes, list[float]] = defaultdict(list)

    async def third_time_lucky(body: bytes) -> int | None:
        tries[body].append(trio.current_time())
        return 200 if len(tries[body]) == 3 else trouble

    gateway, sent = Gateway(nursery, third_time_lucky), traffic(20)
    with Ledger() as ledger:
        report = await run(sent, URL, ledger=ledger, time_factor=10, connect=gateway.connect)
        statuses = [each.status for each in ledger.entries()]

    assert len(tries) == report.acknowledged == 20
    for one, two, three in tries.values():
        assert 0.8 <= two - one <= 1.2  # ten virtual seconds
        assert 1.6 <= three - two <= 2.4
    assert Counter(statuses) == {200: 20, trouble: 40}
    assert report.broken == (40 if trouble is None else 0)


async def test_a_gateway_that_is_away_is_found_again(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    gateway, sent = Gateway(nursery, always_200), traffic(10)
    gateway.down = True

    async def return_later() -> None:
        await trio.sleep(120)
        gateway.down = False

    nursery.start_soon(return_later)
    with Ledger() as ledger:
        report = await run(sent, URL, ledger=ledger, time_factor=1, connect=gateway.connect)

    assert report.acknowledged == 10
    assert report.broken >= 30


async def test_an_answer_that_does_not_come_is_not_waited_for_for_ever(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    tries = Counter[bytes]()

    async def hang_once(body: bytes) -> int | None:
        tries[body] += 1
        if tries[body] == 1:
            await trio.sleep_forever()
        return 200

    gateway = Gateway(nursery, hang_once)
    with Ledger() as ledger:
        report = await run(traffic(3), URL, ledger=ledger, answer_timeout=5, connect=gateway.connect)

    assert (report.acknowledged, report.broken) == (3, 3)
    nursery.cancel_scope.cancel()


async def test_meta_gives_up_after_seven_days(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    async def never(body: bytes) -> int | None:
        return 503

    gateway = Gateway(nursery, never)
    with Ledger() as ledger:
        report = await run(traffic(1), URL, ledger=ledger, time_factor=1, connect=gateway.connect)
        assert ledger.acknowledged() == {}

    assert (report.gave_up, report.acknowledged) == (1, 0)
    assert 6 * 86400 < gateway.arrived[-1] - gateway.arrived[0] <= 7 * 86400


async def test_a_dropped_delivery_breaks_off_and_comes_again(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    gateway, sent = Gateway(nursery, always_200), list(spoil(traffic(30), Faults(drop=1.0), 1))
    assert all(each.fault == DROPPED for each in sent)

    with Ledger() as ledger:
        report = await run(sent, URL, ledger=ledger, connect=gateway.connect)

    assert (gateway.torn, report.broken, report.acknowledged) == (30, 30, 30)


async def test_a_forgery_is_answered_401_and_not_repeated(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    gateway, sent = Gateway(nursery, always_200), list(spoil(traffic(30), Faults(forged=1.0), 1))

    with Ledger() as ledger:
        report = await run(sent, URL, ledger=ledger, connect=gateway.connect)

    assert (len(gateway.seen), report.statuses, report.forged_accepted) == (60, {200: 30, 401: 30}, 0)


async def test_an_accepted_forgery_is_told(
    nursery: trio.Nursery, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signatures, "verify", lambda *anything: True)
    gateway, sent = Gateway(nursery, always_200), list(spoil(traffic(5), Faults(forged=1.0), 1))

    with Ledger() as ledger:
        report = await run(sent, URL, ledger=ledger, connect=gateway.connect)

    assert report.forged_accepted == 5


async def test_stopped_in_the_middle_the_ledger_holds_every_answer(
    nursery: trio.Nursery, autojump_clock: MockClock, tmp_path: Path
) -> None:
    stop, answered = trio.Event(), list[bytes]()

    async def stop_at_ten(body: bytes) -> int | None:
        answered.append(body)
        if len(answered) == 10:
            stop.set()
            await trio.sleep_forever()
        return 200

    gateway, sent = Gateway(nursery, stop_at_ten), traffic(50)
    with Ledger(tmp_path / "ledger") as ledger:
        report = await run(sent, URL, ledger=ledger, concurrency=1, stop=stop, connect=gateway.connect)

    assert report.acknowledged == 9
    found = acknowledged(read_entries(tmp_path / "ledger"))
    assert {key for items in found.values() for key in items} == {truth for each in sent[:9] for truth in each.truth}
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("wrong", [{"rate": 0}, {"rate": -1}, {"concurrency": 0}, {"time_factor": 0}, {"speed": 0}])
async def test_a_number_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with Ledger() as ledger, pytest.raises(ValueError, match="positive"):
        await run([], URL, ledger=ledger, **wrong)  # type: ignore[arg-type]  # the point of the test


async def test_a_rate_and_a_speed_contradict_each_other() -> None:
    with Ledger() as ledger, pytest.raises(ValueError, match="not both"):
        await run([], URL, ledger=ledger, rate=1, speed=1)


# --- HTTP -----------------------------------------------------------------------------------------------------------


async def answered(*pieces: bytes, close: bool = False) -> tuple[Answer, Connection]:
    """Make a request whose answer arrives in these pieces, each read before the next is sent."""
    client, server = memory_stream_pair()
    connection = Connection(client)

    async def answer() -> None:
        for piece in pieces:
            await wait_all_tasks_blocked()
            await server.send_all(piece)
        if close:
            await server.send_eof()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        try:
            return await connection.request(b"POST"), connection
        except BrokenConnection as error:
            broken = error
    raise broken


WHOLE = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
async def test_an_answer_whole_or_in_pieces(size: int) -> None:
    answer, connection = await answered(*(WHOLE[at : at + size] for at in range(0, len(WHOLE), size)))

    assert answer == Answer(503, b"abcde")
    assert connection.reusable


async def test_a_server_that_closes_says_so() -> None:
    answer, connection = await answered(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")

    assert answer.status == 200
    assert not connection.reusable
    with pytest.raises(BrokenConnection):
        await connection.request(b"POST")


@pytest.mark.parametrize("cut", [0, 10, 40, 60])
async def test_an_answer_that_breaks_off_is_none(cut: int) -> None:
    with pytest.raises(BrokenConnection):
        await answered(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nabcdefghijklmnopqrstuvwxyz"[:cut], close=True)


async def test_an_answer_that_is_not_http_or_far_too_large_is_none() -> None:
    with pytest.raises(BrokenConnection, match="not HTTP"):
        await answered(b"SSH-2.0-OpenSSH\r\n")
    with pytest.raises(BrokenConnection, match="too large"):
        await answered(b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n" + b"x" * 2_000_000)


def test_addresses() -> None:
    assert target_of(URL) == Target("gateway.test", 8080, "/webhooks/whatsapp?x=1", False)
    assert target_of("https://gateway.test") == Target("gateway.test", 443, "/", True)
    for wrong in ("gateway.test", "ftp://gateway.test", "http://"):
        with pytest.raises(ValueError, match="address"):
            target_of(wrong)


# --- Options --------------------------------------------------------------------------------------------------------


def test_options_make_the_same_deliveries_every_time() -> None:
    options = Options(url=URL, tenants=(TENANT,), count=100, faults=Faults(duplicate=0.2))

    assert list(deliveries(options)) == list(deliveries(options))
    assert len(list(deliveries(options))) > 100


def test_tenants_from_files_and_arguments(tmp_path: Path) -> None:
    fields = {name: getattr(TENANT, name) for name in TENANT.__struct_fields__}
    toml = "\n".join(["[[tenants]]", *(f'{name} = "{each}"' for name, each in fields.items())])
    (tmp_path / "t.toml").write_text(toml)
    (tmp_path / "t.json").write_text("[" + str(fields).replace("'", '"') + "]")

    assert load_tenants(tmp_path / "t.toml") == load_tenants(tmp_path / "t.json") == (TENANT,)
    assert parse_tenant("300000000000001:200000000000001:secret:4930000000") == TENANT
    for wrong in ("", "a:b:c", "a:b::d", "a:b:c:d:e"):
        with pytest.raises(ValueError, match="PHONE_NUMBER_ID"):
            parse_tenant(wrong)
    (tmp_path / "t.json").write_text('[{"waba_id": "1"}]')
    with pytest.raises(ValueError, match="phone_number_id"):
        load_tenants(tmp_path / "t.json")
