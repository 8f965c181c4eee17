"""The egress client against real sockets: what it refuses before it speaks, and what it survives afterwards."""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
import zlib
from collections.abc import Callable
from email.message import EmailMessage

import aiosmtplib
import orjson
import pytest
from aiohttp import web
from aiosmtpd import smtp
from aiosmtpd.smtp import Envelope, Session

from engine.guards.egress import Egress, EgressFailed, EgressRefused, EgressTimeout, Limits, SafeUrl
from engine.metrics import Metrics
from tests.conformance.egress.serving import Serve, echo, opened


class Answers:
    """A resolver with prepared answers, one list per look-up, the last one for ever."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, int]] = []

    async def resolve(self, host: str, port: int) -> list[str]:
        self.asked.append((host, port))
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


# -------------------------------------------------------------------------------------------- refused before it speaks


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:a9fe:a9fe]/",
        "http://[64:ff9b::a9fe:a9fe]/",
        "http://[2002:7f00:1::]/",
        "http://169.254.169.254/latest/meta-data/",
        "http://100.100.100.200/",
        "http://168.63.129.16/",
        "http://192.0.0.192/",
        "http://[fd00:ec2::254]/",
        "http://10.0.0.1/",
        "http://0.0.0.0/",
        "http://224.0.0.1/",
        "http://localhost/",
    ],
)
async def test_a_url_that_leads_inside_is_refused(url: str) -> None:
    metrics = Metrics()
    with pytest.raises(EgressRefused, match="not public"):
        await Egress(metrics=metrics).request("GET", SafeUrl.parse(url))
    assert metrics.egress_requests.of("http", "refused")._value.get() == 1.0


@pytest.mark.parametrize(
    "answers",
    [
        ["127.0.0.1"],
        ["::1"],
        ["::ffff:127.0.0.1"],
        ["93.184.216.34", "127.0.0.1"],
        ["2606:4700::1111", "fe80::1"],
        ["169.254.169.254"],
        ["64:ff9b::7f00:1"],
        ["fe80::1%eth0"],
        ["not an address"],
    ],
)
async def test_a_name_is_refused_when_any_of_its_addresses_leads_inside(answers: list[str]) -> None:
    with pytest.raises(EgressRefused):
        await Egress(resolver=Answers(answers)).request("GET", SafeUrl.parse("http://innocent.example/"))


async def test_a_refusal_does_not_tell_the_inner_address() -> None:
    with pytest.raises(EgressRefused) as refused:
        await Egress(resolver=Answers(["10.11.12.13"])).request("GET", SafeUrl.parse("http://innocent.example/"))
    assert "10.11.12.13" not in str(refused.value.to_document())


async def test_a_name_is_resolved_once_and_the_judged_address_is_the_one_called(serve: Serve) -> None:
    hosts: list[str] = []

    async def note(request: web.Request) -> web.Response:
        hosts.append(request.host)
        return web.Response(text="judged")

    port = await serve(note)
    rebinding = Answers(["127.0.0.1"], ["169.254.169.254"])
    egress = Egress(sandbox=[f"rebind.example:{port}"], resolver=rebinding)
    response = await egress.request("GET", SafeUrl.parse(f"http://rebind.example:{port}/"))
    assert (response.body, rebinding.asked) == (b"judged", [("rebind.example", port)])
    assert hosts == [f"rebind.example:{port}"]
    with pytest.raises(EgressRefused):
        await egress.request("GET", SafeUrl.parse(f"http://rebind.example:{port}/"))


async def test_a_literal_address_never_reaches_a_resolver(serve: Serve) -> None:
    port = await serve(echo)
    resolver = Answers(["8.8.8.8"])
    await opened(port, resolver=resolver).request("GET", SafeUrl.parse(f"http://127.0.0.1:{port}/"))
    assert resolver.asked == []


async def test_the_sandbox_opens_exactly_the_named_port_and_spelling(serve: Serve) -> None:
    port = await serve(echo)
    egress = opened(port, resolver=Answers(["127.0.0.1"]))
    assert (await egress.request("GET", SafeUrl.parse(f"http://127.0.0.1:{port}/"))).status == 200
    for other in (f"http://127.0.0.1:{port + 1}/", f"http://127.0.0.2:{port}/", f"http://localhost:{port}/"):
        with pytest.raises(EgressRefused):
            await egress.request("GET", SafeUrl.parse(other))


@pytest.mark.parametrize("target", ["169.254.169.254:80", "[fd00:ec2::254]:80", "[fe80::1]:80"])
async def test_not_even_an_operator_opens_metadata(target: str) -> None:
    with pytest.raises(EgressRefused):
        await Egress(sandbox=[target]).request("GET", SafeUrl.parse(f"http://{target}/"))


@pytest.mark.parametrize(
    "headers",
    [
        {"X": "a\r\nHost: evil"},
        {"X\r\nY": "a"},
        {"X": "a\x00"},
        {"Host": "evil"},
        {"content-length": "5"},
        {"Transfer-Encoding": "chunked"},
        {"Connection": "x"},
        {"": "x"},
        {"X": "a" * 9_000},
        {f"X-{n}": "a" for n in range(101)},
    ],
)
async def test_headers_that_would_change_the_message_are_refused(headers: dict[str, str]) -> None:
    with pytest.raises(EgressRefused) as refused:
        await Egress().request("GET", SafeUrl.parse("http://93.184.216.34/"), headers=headers)
    assert refused.value.field == "headers"


async def test_an_unknown_method_and_an_oversized_body_are_refused() -> None:
    with pytest.raises(EgressRefused):
        await Egress().request("CONNECT", SafeUrl.parse("http://93.184.216.34/"))
    with pytest.raises(EgressRefused):
        await Egress().request("POST", SafeUrl.parse("http://93.184.216.34/"), body=b"x" * 262_145)


# ----------------------------------------------------------------------------------------------------- while it speaks


async def test_the_environments_proxy_and_netrc_are_ignored(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    port = await serve(echo)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    response = await opened(port).request("GET", SafeUrl.parse(f"http://127.0.0.1:{port}/a%2Fb?c=d"))
    seen = orjson.loads(response.body)
    assert (seen["path"], seen["headers"]["Accept-Encoding"]) == ("/a%2Fb?c=d", "identity")
    assert "Authorization" not in seen["headers"]


async def test_a_redirect_is_an_answer_and_is_not_followed(serve: Serve) -> None:
    calls: list[str] = []

    async def away(request: web.Request) -> web.Response:
        calls.append(request.path)
        return web.Response(status=302, headers={"Location": "http://169.254.169.254/"})

    port = await serve(away)
    response = await opened(port).request("GET", SafeUrl.parse(f"http://127.0.0.1:{port}/"))
    assert (response.status, response.headers["location"], calls) == (302, "http://169.254.169.254/", ["/"])


async def test_no_cookie_travels_to_the_next_request(serve: Serve) -> None:
    async def cookies(request: web.Request) -> web.Response:
        return web.Response(text=request.headers.get("Cookie", "none"), headers={"Set-Cookie": "a=b"})

    port = await serve(cookies)
    egress = opened(port)
    for _ in range(2):
        assert (await egress.request("GET", SafeUrl.parse(f"http://127.0.0.1:{port}/"))).body == b"none"


@pytest.mark.parametrize("packed", [gzip.compress, zlib.compress])
async def test_a_bomb_is_stopped_at_its_unpacked_size(serve: Serve, packed: Callable[[bytes], bytes]) -> None:
    bomb = packed(bytes(50_000_000))
    encoding = "gzip" if packed is gzip.compress else "deflate"

    async def explode(request: web.Request) -> web.Response:
        return web.Response(body=bomb, headers={"Content-Encoding": encoding})

    port = await serve(explode)
    with pytest.raises(EgressFailed, match="larger than 1048576 bytes") as failed:
        await opened(port).request("GET", SafeUrl.parse(f"http://127.0.0.1:{port}/"))
    assert failed.value.sent


async def test_a_packed_answer_within_the_cap_is_unpacked_and_a_cut_one_refused(serve: Serve) -> None:
    whole = gzip.compress(b"hello" * 1_000)
    bodies = [whole, whole[:-9], b"not gzip", b""]

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=bodies.pop(0), headers={"Content-Encoding": "gzip"})

    port = await serve(answer)
    egress, url = opened(port), SafeUrl.parse(f"http://127.0.0.1:{port}/")
    assert (await egress.request("GET", url)).body == b"hello" * 1_000
    for _ in range(2):
        with pytest.raises(EgressFailed):
            await egress.request("GET", url)
    assert (await egress.request("GET", url)).body == b""


async def test_an_unknown_packing_is_refused(serve: Serve) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=b"x", headers={"Content-Encoding": "br"})

    port = await serve(answer)
    with pytest.raises(EgressFailed, match="not asked for"):
        await opened(port).request("GET", SafeUrl.parse(f"http://127.0.0.1:{port}/"))


async def test_an_endless_answer_and_endless_headers_are_cut(serve: Serve) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={f"X-{n}": "a" for n in range(200)} if request.path == "/h" else {})
        await response.prepare(request)
        while True:
            await response.write(bytes(65_536))

    port = await serve(endless)
    for path in ("/", "/h"):
        with pytest.raises(EgressFailed):
            await opened(port).request("GET", SafeUrl.parse(f"http://127.0.0.1:{port}{path}"))


async def test_a_silent_server_is_given_up_and_the_request_counts_as_sent(serve: Serve) -> None:
    never = asyncio.Event()

    async def silent(request: web.Request) -> web.Response:
        await never.wait()
        return web.Response()

    port = await serve(silent)
    with pytest.raises(EgressTimeout) as gone:
        await opened(port).request("GET", SafeUrl.parse(f"http://127.0.0.1:{port}/"), seconds=0.2)
    assert gone.value.sent
    never.set()


async def test_a_resolver_that_hangs_is_given_up_and_nothing_was_sent() -> None:
    class Hanging:
        async def resolve(self, host: str, port: int) -> list[str]:
            await asyncio.Event().wait()
            return []

    egress = Egress(resolver=Hanging(), limits=Limits(dns_seconds=0.1))
    with pytest.raises(EgressTimeout) as gone:
        await egress.request("GET", SafeUrl.parse("http://slow.example/"))
    assert not gone.value.sent


async def test_a_refused_connection_counts_as_not_sent() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(EgressFailed) as failed:
            await opened(port).request("GET", SafeUrl.parse(f"http://127.0.0.1:{port}/"))
    assert not failed.value.sent


async def test_the_next_address_is_tried_when_the_first_does_not_answer(serve: Serve) -> None:
    port = await serve(echo)
    egress = Egress(sandbox=[f"two.example:{port}"], resolver=Answers(["127.0.0.9", "127.0.0.1"]))
    assert (await egress.request("GET", SafeUrl.parse(f"http://two.example:{port}/"))).status == 200
    with await egress.dial("two.example", port) as connected:
        assert connected.getpeername() == ("127.0.0.1", port)


async def test_tls_is_checked_against_the_name_in_the_url(tmp_path_factory: pytest.TempPathFactory) -> None:
    names: list[str | None] = []
    certificate = _certificate(tmp_path_factory.mktemp("tls"), "right.example")
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(certificate)
    server_side.sni_callback = lambda _, name, __: names.append(name)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=server_side)
    port = server.sockets[0].getsockname()[1]
    trusting = ssl.create_default_context(cafile=certificate)
    egress = Egress(
        sandbox=[f"right.example:{port}", f"wrong.example:{port}"], resolver=Answers(["127.0.0.1"]), tls=trusting
    )
    async with server:
        assert (await egress.request("GET", SafeUrl.parse(f"https://right.example:{port}/"))).body == b"ok"
        with pytest.raises(EgressFailed) as failed:
            await egress.request("GET", SafeUrl.parse(f"https://wrong.example:{port}/"))
        assert not failed.value.sent
    assert names == ["right.example", "wrong.example"]


# ---------------------------------------------------------------------------------------------------------------- SMTP


SmtpServer = smtp.SMTP


class Sink:
    def __init__(self) -> None:
        self.taken: list[bytes] = []

    async def handle_DATA(self, server: smtp.SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        assert isinstance(envelope.content, bytes)
        self.taken.append(envelope.content)
        return "250 OK"


async def test_mail_goes_over_a_dialled_and_checked_socket() -> None:
    sink = Sink()
    server = await asyncio.get_running_loop().create_server(lambda: SmtpServer(sink), "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        egress = Egress(sandbox=[f"mail.example:{port}"], resolver=Answers(["127.0.0.1"]))
        message = EmailMessage()
        message["From"], message["To"], message["Subject"] = "a@example.org", "b@example.org", "Hello"
        message.set_content("welcome")
        connected = await egress.dial("mail.example", port)
        await aiosmtplib.send(message, hostname="mail.example", port=None, sock=connected, start_tls=False)
    assert b"welcome" in sink.taken[0]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "169.254.169.254", "::1", "2130706433", "user@host"])
async def test_a_mail_server_inside_is_refused_like_any_url(host: str) -> None:
    with pytest.raises(EgressRefused):
        await Egress().dial(host, 25)


def _certificate(folder: object, name: str) -> str:
    from datetime import UTC, datetime, timedelta
    from pathlib import Path

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = Path(str(folder)) / "server.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return str(path)
