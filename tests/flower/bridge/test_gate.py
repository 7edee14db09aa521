"""The gate: other machines reach the nodes' interface, and nothing else of a SuperLink."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from privagg.flower.bridge.gate import Gate

INSIDE = [("127.0.0.1", 5), ("::1", 5)]
OUTSIDE = [("127.0.0.2", 5), ("10.1.2.3", 5), ("::ffff:127.0.0.1", 5), ("testclient", 5), None]


def _ask(path: str, client: Any, kind: str = "http") -> list[Any]:
    """What comes back: a status, a closing, or `passed`."""
    found: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        found.append("passed")

    async def send(event: Any) -> None:
        found.append(event.get("status", event.get("code", event["type"])))

    async def receive() -> Any:
        raise AssertionError("a refused request is not read")

    asyncio.run(Gate(app)({"type": kind, "path": path, "client": client}, receive, send))
    return found


@pytest.mark.parametrize("client", INSIDE)
@pytest.mark.parametrize(
    "path", ["/v1/control/start-run", "/v1/runtime/acquire-task", "/docs", "/"]
)
def test_this_machine_reaches_everything(path: str, client: Any) -> None:
    assert _ask(path, client) == ["passed"]


@pytest.mark.parametrize("client", OUTSIDE)
def test_another_machine_reaches_the_nodes_interface(client: Any) -> None:
    assert _ask("/v1/fleet/pull-messages", client) == ["passed"]


@pytest.mark.parametrize("client", OUTSIDE)
@pytest.mark.parametrize(
    "path",
    [
        "/v1/control/start-run",
        "/v1/control/register-node",
        "/v1/runtime/acquire-task",
        "/v1/fleet/../control/start-run",
        "//v1/fleet/x",
        "/v1/fleet",
        "/docs",
        "/openapi.json",
        "",
    ],
)
def test_and_nothing_else(path: str, client: Any) -> None:
    assert _ask(path, client) == [403, "http.response.body"]


def test_no_socket_is_opened_for_strangers() -> None:
    assert _ask("/v1/fleet/x", ("10.1.2.3", 5), "websocket") == [1008]
    assert _ask("", None, "lifespan") == ["passed"]


def test_once_installed_it_stands_before_everything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    from flwr.superlink import extensions, main

    from privagg.flower.bridge import gate

    monkeypatch.setattr(extensions, "get_middleware", tuple)
    gate.install()
    assert main._get_middleware()[0].cls is Gate
    monkeypatch.setattr(main, "_get_middleware", lambda: [type("Other", (), {"cls": None})])
    with pytest.raises(SystemExit, match="no hook"):
        gate.install()
