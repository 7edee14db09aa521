"""The gate before a SuperLink: from other machines, only authenticated nodes get through.

Flower 1.41 serves three interfaces on one port: Fleet, where nodes authenticate with registered
keys; Control, which submits runs and registers nodes and has no authentication of its own in the
open-source edition; and Runtime, for the apps. Whoever reaches the port could so register a node of
his own and have every node run his code. The gate answers Control and Runtime to this machine only.
Who asks is who holds the connection, whatever a header says: the web server's trust in forwarded
addresses is switched off. A proxy on the coordinator's own machine would make strangers look local:
let none forward to the port.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN_PATH = "/v1/fleet/"
"""Under this Flower checks a node's registered key and signature itself."""
FORWARDED = "FORWARDED_ALLOW_IPS"
"""Environment variable of uvicorn: whose `X-Forwarded-For` it believes."""
NOBODY = "nobody"
"""No address: unset, uvicorn would believe this machine's own processes."""
LOCAL_PEERS = frozenset({"127.0.0.1", "::1"})


class Gate:
    """ASGI middleware that answers 403 to what other machines have no business with.

    Args:
        app: what it stands before.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it unread."""
        if scope["type"] == "lifespan" or _may_pass(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await send({"type": "http.response.start", "status": 403, "headers": []})
            await send({"type": "http.response.body", "body": b""})
        else:
            await send({"type": "websocket.close", "code": 1008})


def _may_pass(scope: Scope) -> bool:
    client = scope.get("client")
    if client is not None and client[0] in LOCAL_PEERS:
        return True
    path = str(scope.get("path", ""))
    return scope["type"] == "http" and path.startswith(OPEN_PATH) and ".." not in path


def install() -> None:
    """Put the gate in front of the SuperLink that this process is about to start.

    Raises:
        SystemExit: this release of Flower has no place for it; without it nothing is started.
    """
    from flwr.superlink import extensions, main
    from starlette.middleware import Middleware

    os.environ[FORWARDED] = NOBODY
    refusal = "this release of flwr has no hook for privagg's gate; use flwr 1.41 or 1.42"
    build = getattr(main, "_get_middleware", None)
    if build is None or not hasattr(extensions, "get_middleware"):
        raise SystemExit(refusal)
    inner = extensions.get_middleware
    extensions.get_middleware = lambda: (Middleware(Gate), *inner())
    if build()[0].cls is not Gate:  # asked of Flower itself: the gate must be the outermost
        raise SystemExit(refusal)
