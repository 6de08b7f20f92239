"""Faults: repeatable, in the share asked for, and harmless to the truth. Ledger: what was answered 200, after a kill too."""

import itertools
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from bench.simulators.faults import DROPPED, DUPLICATE, FORGED, GIVE_UP_S, MALFORMED, Faults, pause_after, spoil
from bench.simulators.ledger import Ledger, acknowledged, read_entries
from bench.simulators.life import Truth
from bench.simulators.meta import Delivery, Traffic
from bench.simulators.world import SimTenant
from protocol import signatures
from protocol.errors import RemoteProtocolError
from protocol.whatsapp import peek_endpoints, split

TENANT = SimTenant("300000000000001", "200000000000001", "secret", "4930000000")


def traffic(count: int) -> list[Delivery]:
    return list(itertools.islice(Traffic(1, [TENANT]), count))


GENUINE = traffic(1000)


def spoilt(**shares: float) -> list[Delivery]:
    return list(spoil(GENUINE, Faults(**shares), 1))


def genuine(deliveries: list[Delivery]) -> list[int]:
    return [each.number for each in deliveries if each.fault in (None, DROPPED)]


def test_without_faults_nothing_changes() -> None:
    assert spoilt() == GENUINE


def test_the_same_seed_is_the_same_trouble() -> None:
    faults = Faults(duplicate=0.2, reorder=0.2, delay=0.1, drop=0.1, malformed=0.1, forged=0.1)

    assert list(spoil(GENUINE, faults, 1)) == list(spoil(GENUINE, faults, 1)) != list(spoil(GENUINE, faults, 2))


@pytest.mark.parametrize("name", ["duplicate", "reorder", "delay", "drop", "malformed", "forged"])
def test_no_fault_loses_or_invents_a_genuine_delivery(name: str) -> None:
    assert sorted(genuine(spoilt(**{name: 0.3}))) == list(range(1000))


@pytest.mark.parametrize(
    ("name", "fault"), [("duplicate", DUPLICATE), ("drop", DROPPED), ("malformed", MALFORMED), ("forged", FORGED)]
)
def test_a_fault_befalls_its_share(name: str, fault: str) -> None:
    assert 250 < Counter(each.fault for each in spoilt(**{name: 0.3}))[fault] < 350


def test_a_duplicate_is_the_same_bytes_often_right_behind() -> None:
    sent = spoilt(duplicate=0.3)
    behind = sum(two.fault == DUPLICATE and two.body == one.body for one, two in itertools.pairwise(sent))

    assert 100 < behind < 300
    assert all(each.body == GENUINE[each.number].body for each in sent)


def test_reordering_is_near_and_delay_is_far() -> None:
    near = max(number - place for place, number in enumerate(genuine(spoilt(reorder=0.3))))
    far = max(place - number for place, number in enumerate(genuine(spoilt(delay=0.1))))

    assert 1 <= near <= 20
    assert far > 100


def test_malformed_bodies_are_validly_signed_routable_and_unreadable() -> None:
    bodies = [each for each in spoilt(malformed=0.3) if each.fault == MALFORMED]

    for each in bodies:
        assert signatures.verify(b"secret", each.body, each.signature)
        assert peek_endpoints(each.body).phone_number_ids or peek_endpoints(each.body).waba_ids
        assert each.truth == ()
        with pytest.raises(RemoteProtocolError):
            split(each.body)


def test_forged_bodies_fail_the_check() -> None:
    forged = [each for each in spoilt(forged=0.3) if each.fault == FORGED]

    assert forged
    assert not any(signatures.verify(b"secret", each.body, each.signature) for each in forged)


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_is_between_0_and_1(share: float) -> None:
    with pytest.raises(ValueError, match="drop"):
        Faults(drop=share)


def test_pauses_double_up_to_six_hours_and_fill_seven_days() -> None:
    pauses = [pause_after(attempt, Random(attempt)) for attempt in range(60)]

    assert 8 <= pauses[0] <= 12
    assert 16 <= pauses[1] <= 24
    assert max(pauses) <= 6 * 3600 * 1.2
    assert 20 < next(n for n, total in enumerate(itertools.accumulate(pauses)) if total > GIVE_UP_S) < 60


# --- Ledger ---------------------------------------------------------------------------------------------------------


def delivery(number: int, *truth: Truth, fault: str | None = None) -> Delivery:
    return Delivery(number, 0, TENANT, b"{}", b"", truth, fault)


ONE, TWO, OTHER = Truth("c/1", "m:1", "text", ("phone:49",)), Truth("c/1", "m:2", "text"), Truth("c/2", "m:3", "text")


@pytest.mark.parametrize("on_disk", [True, False])
def test_what_was_answered_200_is_acknowledged_once_in_order(on_disk: bool, tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger" if on_disk else None) as ledger:
        ledger.record(delivery(1, TWO, OTHER), 0, 200)
        ledger.record(delivery(0, ONE), 0, None)
        ledger.record(delivery(0, ONE), 1, 503)
        assert ledger.acknowledged() == {"c/1": [TWO], "c/2": [OTHER]}

        ledger.record(delivery(0, ONE), 2, 200)
        ledger.record(delivery(1, TWO, OTHER, fault=DUPLICATE), 0, 200)
        assert ledger.acknowledged() == {"c/1": [TWO, ONE], "c/2": [OTHER]}
        assert [(each.number, each.attempt, each.status) for each in ledger.entries()] == [
            (1, 0, 200),
            (0, 0, None),
            (0, 1, 503),
            (0, 2, 200),
            (1, 0, 200),
        ]


def test_a_ledger_is_read_while_it_is_written_and_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    with Ledger(path) as ledger:
        ledger.record(delivery(0, ONE), 0, 200)
        assert acknowledged(read_entries(path)) == {"c/1": [ONE]}
    whole = path.read_bytes()

    for cut in range(1, len(whole)):
        path.write_bytes(whole + whole[:cut])  # killed within the second line
        assert len(list(read_entries(path))) == 1


def test_a_ledger_goes_on_where_it_ended(tmp_path: Path) -> None:
    for number, truth in enumerate((ONE, TWO)):
        with Ledger(tmp_path / "ledger") as ledger:
            ledger.record(delivery(number, truth), 0, 200)

    assert acknowledged(read_entries(tmp_path / "ledger")) == {"c/1": [ONE, TWO]}
