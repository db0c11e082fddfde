"""A chat endpoint on this machine that answers as a test wants: well, badly, slowly or not at all."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Reply:
    """One HTTP answer; `body` is sent as it is, or in parts with `pause` between them."""

    body: bytes | str
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    parts: Iterator[bytes] | None = None


def says(text: str, finish: str = "stop") -> Reply:
    """A chat completion with this text."""
    return Reply(
        json.dumps({"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": finish}]})
    )


@dataclass
class Seen:
    """What the endpoint was asked."""

    url: str
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    @property
    def prompts(self) -> list[str]:
        return [request["messages"][-1]["content"] for request in self.requests]


@contextmanager
def endpoint(answer: Callable[[dict[str, Any], int], Reply | None]) -> Iterator[Seen]:
    """Serve `answer(request, number)` until the block ends; None closes the connection without a word."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.requests.append(request)
            seen.keys.append(self.headers["Authorization"])
            seen.paths.append(self.path)
            reply = answer(request, len(seen.requests) - 1)
            if reply is None:
                return
            body = reply.body.encode() if isinstance(reply.body, str) else reply.body
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            if reply.parts is None:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            try:
                for part in reply.parts or [body]:
                    self.wfile.write(part)
                    self.wfile.flush()
            except (BrokenPipeError, ConnectionResetError):
                pass  # the client had enough

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    seen = Seen(f"http://127.0.0.1:{server.server_address[1]}/v1")
    thread.start()
    try:
        yield seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
