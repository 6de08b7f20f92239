"""The mailbox by example, and against a model that is one flat list sorted anew for each take."""

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from supervisor import Envelope, Mailbox, MailboxFull, MailboxLimits, Reply


def messages(envelopes: list[Envelope]) -> list[Any]:
    return [envelope.message for envelope in envelopes]


def test_lower_lane_first_then_lower_rank_then_arrival() -> None:
    mailbox = Mailbox(MailboxLimits((10, 10)))
    for message, lane, rank in [("a", 1, 2), ("b", 1, 0), ("c", 1, 2), ("d", 0, 9), ("e", 1, 0)]:
        mailbox.put_nowait(Envelope(message, lane, rank))
    assert messages(mailbox.take(10)) == ["d", "b", "e", "a", "c"]


def test_a_full_lane_refuses_and_leaves_the_other_lanes_alone() -> None:
    mailbox = Mailbox(MailboxLimits((1, 2)))
    mailbox.put_nowait(Envelope("x", 1))
    mailbox.put_nowait(Envelope("y", 1))
    with pytest.raises(MailboxFull):
        mailbox.put_nowait(Envelope("z", 1))
    mailbox.put_nowait(Envelope("control", 0))
    assert messages(mailbox.take(9)) == ["control", "x", "y"]
    statistics = mailbox.statistics()
    assert (statistics.depth, statistics.refused, statistics.high_water) == ((0, 0), 1, 3)


def test_what_is_put_back_goes_ahead_of_its_kind_even_when_there_is_no_room() -> None:
    mailbox = Mailbox(MailboxLimits((2,)))
    mailbox.put_nowait(Envelope(1))
    mailbox.put_nowait(Envelope(2))
    taken = mailbox.take(2)
    mailbox.put_nowait(Envelope(3))
    mailbox.put_back(taken)
    assert (mailbox.depth, mailbox.suspects) == (3, 2)
    with pytest.raises(MailboxFull):
        mailbox.put_nowait(Envelope(4))
    assert messages(mailbox.take(1)) == [1]
    assert messages(mailbox.take(5)) == [2, 3]
    assert mailbox.suspects == 0


def test_what_nobody_waits_for_is_skipped_unless_it_has_begun() -> None:
    mailbox = Mailbox(MailboxLimits((5,)))
    expired, begun, live = (Envelope(name, reply=Reply()) for name in ("expired", "begun", "live"))
    mailbox.put_nowait(begun)
    mailbox.put_back(mailbox.take(1))
    mailbox.put_nowait(expired)
    mailbox.put_nowait(live)
    for envelope in (expired, begun):
        assert envelope.reply is not None
        envelope.reply.expired = True
    assert messages(mailbox.take(2)) == ["begun", "live"]
    assert mailbox.statistics().expired == 1
    assert mailbox.depth == 0


@pytest.mark.parametrize(("lane", "rank"), [(-1, 0), (1, 0), (0, -1), (0, 256)])
def test_a_place_that_does_not_exist_is_refused(lane: int, rank: int) -> None:
    mailbox = Mailbox(MailboxLimits((1,)))
    with pytest.raises(ValueError, match="no such place"):
        mailbox.put_nowait(Envelope("x", lane, rank))
    assert mailbox.depth == 0


@pytest.mark.parametrize("lanes", [(), (0,), (3, 0)])
def test_limits_without_room_are_refused(lanes: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="mailbox"):
        MailboxLimits(lanes)


LIMITS = MailboxLimits((2, 4, 3))


class MailboxModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.mailbox = Mailbox(LIMITS)
        self.waiting: list[tuple[int, int, int, Envelope]] = []  # lane, rank, place in the queue
        self.places: dict[Envelope, int] = {}
        self.taken: list[Envelope] = []
        self.next_place, self.front_place = 0, 0
        self.refused = self.expired = self.high_water = 0

    @rule(lane=st.integers(0, 2), rank=st.integers(0, 2), asked=st.booleans())
    def put(self, lane: int, rank: int, asked: bool) -> None:
        envelope = Envelope(None, lane, rank, Reply() if asked else None)
        if sum(entry[0] == lane for entry in self.waiting) >= LIMITS.lanes[lane]:
            self.refused += 1
            with pytest.raises(MailboxFull):
                self.mailbox.put_nowait(envelope)
            return
        self.mailbox.put_nowait(envelope)
        self.next_place += 1
        self.waiting.append((lane, rank, self.next_place, envelope))
        self.high_water = max(self.high_water, len(self.waiting))

    @rule(count=st.integers(1, 5))
    def take(self, count: int) -> None:
        expected: list[Envelope] = []
        for entry in sorted(self.waiting, key=lambda entry: entry[:3]):
            if len(expected) == count:
                break
            self.waiting.remove(entry)
            envelope = entry[3]
            if envelope.reply is not None and envelope.reply.expired and not envelope.begun:
                self.expired += 1
            else:
                expected.append(envelope)
        self.taken = self.mailbox.take(count)
        assert self.taken == expected

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def put_back_what_is_not_through(self, data: st.DataObject) -> None:
        back = [envelope for envelope in self.taken if data.draw(st.booleans())]
        self.mailbox.put_back(back)
        for envelope in reversed(back):
            self.front_place -= 1
            self.waiting.append((envelope.lane, envelope.rank, self.front_place, envelope))
            assert envelope.begun
        self.taken = []

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def an_asker_gives_up(self, data: st.DataObject) -> None:
        envelope = data.draw(st.sampled_from(self.waiting))[3]
        if envelope.reply is not None:
            envelope.reply.expired = True

    @invariant()
    def figures_agree(self) -> None:
        statistics = self.mailbox.statistics()
        assert self.mailbox.depth == len(self.waiting)
        assert self.mailbox.suspects == sum(entry[3].begun for entry in self.waiting)
        assert statistics.depth == tuple(sum(entry[0] == lane for entry in self.waiting) for lane in range(3))
        assert statistics.refused == self.refused
        assert statistics.expired >= self.expired
        assert statistics.high_water == self.high_water


TestMailboxModel = pytest.mark.slow(MailboxModel.TestCase)
