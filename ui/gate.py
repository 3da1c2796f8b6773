"""The gate that every request passes before Streamlit sees it, and the headers of every answer.

Streamlit lets in pages of any other server on this machine, and asks the network for its own
addresses to judge a strange Origin. Here a websocket's Origin is the Host that it asks for, or
stands in `server.corsAllowedOrigins`; nothing is looked up.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from streamlit import config
from streamlit.web.server.starlette.starlette_websocket import is_host_allowed

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

# Pictures, sounds and connections are this server's own, so that what a stranger's run says in
# Markdown fetches nothing. Streamlit's page needs inline scripts and styles, and eval.
CONTENT_POLICY = "; ".join(
    (
        "default-src 'self' data: blob:",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob: data:",
        "style-src 'self' 'unsafe-inline' blob:",
        "connect-src 'self' data: blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
HEADERS = [
    (b"content-security-policy", CONTENT_POLICY.encode()),
    (b"x-frame-options", b"DENY"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
]
REFUSED = 403
CLOSED_BY_POLICY = 1008  # of a websocket


class Gate:
    """ASGI middleware: refuses strange hosts and origins, and adds the headers."""

    def __init__(self, app: Application) -> None:
        self.app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        origin = headers.get(b"origin", b"").decode("latin-1")
        if fault := refusal(scope["type"], scope["path"], host, origin):
            await _refuse(scope["type"], fault, send)
            return
        if scope["type"] == "websocket" and origin:
            # What passed is as good as the server's own: Streamlit need not judge it again
            own = [(k, v) for k, v in scope["headers"] if k != b"origin"]
            scope = {**scope, "headers": [*own, (b"origin", f"http://{host}".encode("latin-1"))]}

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *HEADERS]}
            await send(message)

        await self.app(scope, receive, send_with_headers)


def refusal(kind: str, path: str, host: str, origin: str) -> str:
    """Why a request is refused, with the setting that would let it in; "" if it passes."""
    if not is_host_allowed(host or None):
        return "This server does not answer to that name; add it to server.allowedHosts."
    if path.endswith("/_stcore/metrics"):
        return "The server's figures are not shown to visitors."
    allowed = {o.strip().rstrip("/") for o in config.get_option("server.corsAllowedOrigins")}
    is_own = not origin or urlsplit(origin).netloc == host or origin in allowed
    if kind == "websocket" and not is_own:
        return "This server does not answer to pages of that origin; see server.corsAllowedOrigins."
    return ""


async def _refuse(kind: str, fault: str, send: Send) -> None:
    if kind == "websocket":  # closed before it is accepted: the client gets status 403
        await send({"type": "websocket.close", "code": CLOSED_BY_POLICY, "reason": fault})
        return
    headers = [(b"content-type", b"text/plain; charset=utf-8"), *HEADERS]
    await send({"type": "http.response.start", "status": REFUSED, "headers": headers})
    await send({"type": "http.response.body", "body": fault.encode()})
