"""What the doctor calls good, doubtful and bad, from made-up facts; the real ones are in tests/integration/test_cli.py."""

import resource
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.cli import doctor
from gateway.cli.doctor import GIB, Finding
from gateway.config import Settings
from store.contract import Endpoint, Routes, Tenant
from store.postgres.inspect import Facts

NOW = 1_790_000_000.0
HEALTHY = Facts(
    version="18.4",
    version_number=180004,
    read_only=False,
    settings={"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "max_connections": "60"},
    round_trip=0.0005,
    clock_ahead=0.001,
    refused_write=None,
    served_by=None,
    connections=3,
    schema=2,
    schema_known=2,
    newest_event=int(NOW * 1000) - 5,
)


def judged(**facts: Any) -> dict[str, Finding]:
    return {each.check: each for each in doctor.judge(msgspec.structs.replace(HEALTHY, **facts), NOW)}


def test_a_healthy_database() -> None:
    found = judged()
    assert {each.verdict for each in found.values()} == {"ok"}
    assert not any(each.remedy for each in found.values())
    assert found["served"].found == "by nobody now"
    assert "pid 7" in judged(served_by="parley host pid 7 since …")["served"].found


@pytest.mark.parametrize(
    ("facts", "check", "verdict", "said"),
    [
        ({"version_number": 140011, "version": "14.11"}, "database", "fail", "14.11"),
        ({"settings": {**HEALTHY.settings, "fsync": "off"}}, "durability", "warn", "fsync OFF"),
        (
            {"settings": {**HEALTHY.settings, "synchronous_commit": "off"}},
            "durability",
            "warn",
            "synchronous_commit OFF",
        ),
        ({"settings": {**HEALTHY.settings, "full_page_writes": "off"}}, "durability", "warn", "full_page_writes OFF"),
        ({"schema": None}, "schema", "ok", "an empty database"),
        ({"schema": 1}, "schema", "warn", "1, this release brings 2"),
        ({"schema": 3}, "schema", "fail", "3, newer than this release's 2"),
        ({"changed_migrations": ("0002_x",)}, "schema", "fail", "0002_x"),
        ({"refused_write": "permission denied"}, "write test", "fail", "permission denied"),
        ({"refused_write": "read-only", "read_only": True}, "write test", "fail", "read-only"),
        ({"round_trip": 0.05}, "round trip", "warn", "50.0 ms"),
        ({"round_trip": 0.5}, "round trip", "fail", "500.0 ms"),
        ({"clock_ahead": 5.0}, "clock", "warn", "5.0 s ahead of"),
        ({"clock_ahead": -5.0}, "clock", "warn", "5.0 s behind"),
        ({"newest_event": int(NOW * 1000) + 3_600_000}, "clock", "fail", "3600 s behind the newest recorded event"),
    ],
)
def test_a_sick_database(facts: dict[str, Any], check: str, verdict: str, said: str) -> None:
    found = judged(**facts)
    assert found[check].verdict == verdict
    assert said in found[check].found
    assert bool(found[check].remedy) == (verdict != "ok"), "what is not well says how to mend it"
    assert {each.verdict for name, each in found.items() if name != check} == {"ok"}


def test_a_standby_is_told_from_missing_rights() -> None:
    assert "primary" in judged(refused_write="read-only", read_only=True)["write test"].remedy
    assert "rights" in judged(refused_write="permission denied")["write test"].remedy


def test_disk_and_files() -> None:
    assert [doctor.disk(Path("/d"), free).verdict for free in (GIB - 1, GIB, 5 * GIB - 1, 5 * GIB)] == [
        "fail",
        "warn",
        "warn",
        "ok",
    ]
    files = [doctor.open_files(1000, soft, 4096).verdict for soft in (256, 1024, 1200, resource.RLIM_INFINITY)]
    assert files == ["fail", "warn", "ok", "ok"]
    assert "ulimit -n 1200" in doctor.open_files(1000, 1024, 4096).remedy
    assert "hard limit is 1100" in doctor.open_files(1000, 1024, 1100).remedy


def test_the_data_directory(tmp_path: Path) -> None:
    assert next(doctor.data_directory(tmp_path / "to" / "be" / "made")).verdict == "ok"
    (tmp_path / "file").write_text("")
    [finding] = doctor.data_directory(tmp_path / "file" / "data")
    assert finding.verdict == "fail"


def test_the_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert doctor.port_free(Settings(port=port)).verdict == "fail"
    assert doctor.port_free(Settings(port=port)).verdict == "ok", "it is free again"
    assert doctor.port_free(Settings(port=0)).verdict == "ok"
    assert doctor.port_free(Settings(host="192.0.2.1")).verdict == "fail", "not an address of this machine"


def test_a_library_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.libraries().verdict == "ok"
    wanted = ["trio>=0.31", "no-such-library[x]>=1; python_version > '3'", "pytest; extra == 'dev'"]
    monkeypatch.setattr("importlib.metadata.requires", lambda _: wanted)
    found = doctor.libraries()
    assert (found.verdict, found.found) == ("fail", "missing: no-such-library")


def test_endpoints_without_a_secret_or_a_token() -> None:
    def endpoint(secret: str, token: str) -> Routes:
        return Routes((Tenant("t", "acme", "Acme"),), (Endpoint("whatsapp", "30", "t", secret, token),), ())

    assert doctor.endpoints(Routes((), (), ()), Settings()).verdict == "warn"
    assert doctor.endpoints(endpoint("s", "v"), Settings()).verdict == "ok"
    no_secret = doctor.endpoints(endpoint("", "v"), Settings())
    assert (no_secret.verdict, no_secret.found) == ("fail", "no app secret: 30 (acme)")
    assert doctor.endpoints(endpoint("s", ""), Settings()).verdict == "warn"
    assert doctor.endpoints(endpoint("", ""), Settings(app_secret="s", verify_token="v")).verdict == "ok"


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, datetime]:
    """A certificate, its key, and when it ends."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    begins = datetime(2026, 1, 1, tzinfo=UTC)
    ends = begins + timedelta(days=90)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    certificate = builder.serial_number(1).not_valid_before(begins).not_valid_after(ends).sign(key, hashes.SHA256())
    folder = tmp_path_factory.mktemp("tls")
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(pem_of(key))
    return folder / "cert.pem", folder / "key.pem", ends


def pem_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    plain = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)


@pytest.mark.parametrize(
    ("days", "verdict", "said"),
    [(-91, "fail", "not valid before"), (-15, "ok", "15 days"), (-13, "warn", "13 days"), (1, "fail", "expired on")],
)
def test_a_certificate_s_life(tls: tuple[Path, Path, datetime], days: int, verdict: str, said: str) -> None:
    chain, key, ends = tls
    found = doctor.certificate(chain, key, ends + timedelta(days=days))
    assert found.verdict == verdict
    assert said in found.found
    assert bool(found.remedy) == (verdict != "ok")


def test_a_certificate_that_cannot_be_served(tls: tuple[Path, Path, datetime], tmp_path: Path) -> None:
    chain, key, ends = tls
    now = ends - timedelta(days=30)
    other = tmp_path / "other.pem"
    other.write_bytes(pem_of(ec.generate_private_key(ec.SECP256R1())))
    assert "does not belong to the key" in doctor.certificate(chain, other, now).found
    assert "No such file" in doctor.certificate(tmp_path / "none.pem", key, now).found
    other.write_text("no certificate")
    assert "no PEM certificate" in doctor.certificate(other, key, now).found
