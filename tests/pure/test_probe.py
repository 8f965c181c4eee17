"""The container's health check says what /readyz says."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator

import pytest

from scripts import probe


class _Answer(http.server.BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        body = b'{"bus": {"ok": false}}'
        self.send_response(self.status if self.path == "/readyz" else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Silent: the test looks at the exit code."""


@pytest.fixture(params=[200, 503])
def answering(request: pytest.FixtureRequest) -> Iterator[tuple[int, int]]:
    handler = type("_Handler", (_Answer,), {"status": request.param})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server.server_address[1], request.param
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("which", "variable"), [("web", "UNWIND_HTTP__PORT"), ("process", "UNWIND_HTTP__PROBE_PORT")])
def test_the_exit_code_is_the_readiness(
    which: str,
    variable: str,
    answering: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    port, status = answering
    monkeypatch.setenv(variable, str(port))
    assert probe.main([which]) == (0 if status == 200 else 1)
    said = capsys.readouterr().err
    assert said == "" if status == 200 else ("503" in said and '"bus"' in said)


def test_silence_is_not_readiness(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Answer) as server:
        port = server.server_address[1]
    monkeypatch.setenv("UNWIND_HTTP__PORT", str(port))
    assert probe.main(["web"]) == 1
    assert str(port) in capsys.readouterr().err


def test_a_wrong_question_is_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    assert probe.main(["module", "billing"]) == 2
    assert "usage" in capsys.readouterr().err
