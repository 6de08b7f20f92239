"""TLS with a certificate made for the occasion, over all lanes."""

import datetime
import ssl
from pathlib import Path

import pytest
import trio
import trio_websocket
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.listener import Limits

from .conftest import Client, Serve

Contexts = tuple[ssl.SSLContext, ssl.SSLContext]

HOOK = b"POST /hook HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
PING = b"GET /api/ping HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Contexts:
    """A server's context and that of a client that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    file: Path = tmp_path_factory.mktemp("tls") / "both.pem"
    file.write_bytes(
        pem
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(file)
    server.set_alpn_protocols(["h2", "http/1.1"])
    client = ssl.create_default_context(cadata=pem.decode())
    return server, client


async def test_all_lanes(serve: Serve, tls: Contexts) -> None:
    async with serve(tls=tls) as serving:
        client = await serving.connect()
        assert (await client.ask(HOOK)).body == b"hook:hello"
        assert (await client.ask(PING)).body == b"pong"
        assert (await client.ask(HOOK)).body == b"hook:hello"
        await client.stream.aclose()

        for begin in (b"", PING):
            client = await serving.connect()
            if begin:
                await client.ask(begin)
            async with trio.open_nursery() as nursery:
                connection = await trio_websocket.wrap_client_stream(nursery, client.stream, "localhost", "/ws")
                await connection.send_message(b"")
                assert await connection.get_message() == b""
                await connection.aclose()
                nursery.cancel_scope.cancel()
            await client.stream.aclose()
    assert serving.listener.statistics().failed == 0


async def test_the_end_is_said_in_tls(serve: Serve, tls: Contexts) -> None:
    """Without close_notify a client has to take an orderly end for a truncation."""
    async with serve(tls=tls) as serving:
        transport = await trio.open_tcp_stream("127.0.0.1", serving.port)
        strict = trio.SSLStream(transport, tls[1], server_hostname="localhost", https_compatible=False)
        client = Client(strict)
        answer = await client.ask(HOOK.replace(b"Host", b"Connection: close\r\nHost"))
        assert answer.closes
        await strict.aclose()


async def test_http_2_by_alpn(serve: Serve, tls: Contexts, monkeypatch: pytest.MonkeyPatch) -> None:
    import h2.config
    import h2.connection
    import h2.events

    async with serve(tls=tls) as serving:
        offering = tls[1]
        offering.set_alpn_protocols(["h2"])
        stream = (await serving.connect()).stream
        offering.set_alpn_protocols(["http/1.1"])
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        connection.initiate_connection()
        fields = [(":method", "POST"), (":path", "/hook"), (":authority", "x"), (":scheme", "https")]
        connection.send_headers(1, fields)
        connection.send_data(1, b"hello", end_stream=True)
        await stream.send_all(connection.data_to_send())
        body, ended = b"", False
        while not ended:
            for event in connection.receive_data(bytes(await stream.receive_some())):
                if isinstance(event, h2.events.DataReceived):
                    body += event.data or b""
                ended = ended or isinstance(event, h2.events.StreamEnded)
        assert body == b"hook:hello"
        await stream.aclose()


@pytest.mark.slow
@pytest.mark.parametrize("data", [b"", b"\x16\x03\x01\x02\x00\x01"])
async def test_slow_handshakes_are_gone_in_time(serve: Serve, tls: Contexts, quick: Limits, data: bytes) -> None:
    async with serve(quick, tls=tls) as serving:
        stream = await trio.open_tcp_stream("127.0.0.1", serving.port)
        if data:
            await stream.send_all(data)
        with trio.fail_after(4):
            assert await stream.receive_some() == b""
        await stream.aclose()


async def test_plain_text_on_the_tls_port(serve: Serve, tls: Contexts) -> None:
    async with serve(tls=tls) as serving:
        stream = await trio.open_tcp_stream("127.0.0.1", serving.port)
        await stream.send_all(PING)
        with trio.fail_after(4):
            try:
                while await stream.receive_some():
                    pass
            except trio.BrokenResourceError:
                pass
        await stream.aclose()
    assert serving.listener.statistics().failed == 0


@pytest.mark.slow
@pytest.mark.parametrize("begin", [HOOK, PING], ids=["ingest", "hypercorn"])
async def test_shutdown(serve: Serve, tls: Contexts, quick: Limits, begin: bytes) -> None:
    async with serve(quick, tls=tls) as serving:
        client = await serving.connect()
        await client.ask(begin)
        with trio.fail_after(4):
            await serving.stop()
        assert await client.closed() == b""
        await client.stream.aclose()
    assert serving.events == ["app started", "app stopped"]
