"""The server of the page: this machine only unless asked, nothing from other hosts, nothing left behind."""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from robustree.demo.bench import Bench
from robustree.demo.uploads import MAX_BYTES

if TYPE_CHECKING:
    from fastapi import FastAPI

LOOPBACK = ("127.0.0.1", "localhost", "::1")
WAITING = 16
"""How many visitors may wait for the models."""
OWN_HOST = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; frame-src 'self'; worker-src 'self' blob:; "
    "base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
"""What the page may load (gradio's scripts are inline in part): the browser itself refuses every other host."""
SEALED = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"
)
"""What the report of an audit may load: itself. Its scripts see nothing of the page."""


def serve(bench: Bench, *, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serve the page until it is interrupted; `ready` is told its address once the server listens. Port 0 is any.

    Raises:
        ValueError: the address cannot be used.
    """
    import uvicorn

    with listen(host, port) as listening, own_folder():
        app = build_app(bench, only_local=host in LOOPBACK)
        address = f"[{host}]" if ":" in host else host
        ready(f"http://{address}:{listening.getsockname()[1]}/")
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])


@contextmanager
def listen(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens at the address.

    Raises:
        ValueError: the address cannot be used.
    """
    with ExitStack() as kept:
        try:
            if not 0 <= port <= 65535:
                raise OSError("ports are 0 to 65535")
            family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            listening = kept.enter_context(socket.socket(family, kind, protocol))
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen()
        except OSError as error:
            raise ValueError(
                f"the page cannot be served at {host}:{port} ({error}): give another --host or --port (0 for any)."
            ) from error
        yield listening


@contextmanager
def own_folder() -> Iterator[None]:
    """Everything that gradio writes goes into a temporary folder, which ends with the page; it reports to nobody."""
    with tempfile.TemporaryDirectory(prefix="robustree-demo-", ignore_cleanup_errors=True) as folder:
        wanted = {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": folder}
        before = {name: os.environ[name] for name in wanted if name in os.environ}
        os.environ.update(wanted)
        try:
            yield
        finally:
            for name in wanted:
                del os.environ[name]
            os.environ.update(before)


def build_app(bench: Bench, *, only_local: bool) -> FastAPI:
    """The page as an ASGI application; with `only_local`, requests that name another host are refused."""
    return asyncio.run(_assemble(bench, only_local=only_local))


async def _assemble(bench: Bench, *, only_local: bool) -> FastAPI:
    """A coroutine, because gradio opens an event loop, and never closes it, wherever it finds none running."""
    import gradio
    from fastapi import FastAPI
    from fastapi.responses import FileResponse
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from robustree.demo.page import REPORT_ROUTE, build_page, theme
    from robustree.demo.style import head

    silent: dict[str, Any] = {"docs_url": None, "redoc_url": None, "openapi_url": None}
    app = FastAPI(**silent)
    if only_local:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "[::1]"])
    app.add_middleware(Headers)
    if bench.audit is not None:
        report = bench.audit / "report.html"
        app.add_api_route(REPORT_ROUTE, lambda: FileResponse(report, headers={"content-security-policy": SEALED}))
    page = build_page(bench).queue(max_size=WAITING, default_concurrency_limit=1, api_open=False)
    return gradio.mount_gradio_app(
        app,
        page,
        path="/",
        app_kwargs=silent,
        footer_links=[],
        run_history=False,
        max_file_size=MAX_BYTES,
        enable_monitoring=False,
        ssr_mode=False,
        theme=theme(),
        head=head(),
    )


class Headers:
    """Security headers on every answer that does not bring its own."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        async def with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", []))
                names = {name for name, _ in headers}
                for name, value in ((b"content-security-policy", OWN_HOST), (b"x-content-type-options", "nosniff")):
                    if name not in names:
                        headers.append((name, value.encode()))
                message["headers"] = headers
            await send(message)

        await self.app(scope, receive, with_headers)
