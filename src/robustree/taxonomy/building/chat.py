"""A client for OpenAI-compatible chat endpoints: bounded in time, size and tries, its answers kept on disk."""

from __future__ import annotations

import hashlib
import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from email.message import Message as Headers
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from robustree.writing import write_whole

Messages = Sequence[tuple[str, str]]
"""A conversation: (role, text), the role "user" or "assistant"."""

MAX_BYTES = 4 * 1024**2
"""The largest answer that is read."""
MAX_WAIT = 120.0
"""Seconds that are waited at most between two tries, whatever the endpoint asks for."""
_TRY_AGAIN = {408, 409, 425, 429, 500, 502, 503, 504, 529}
_LOCAL = ("localhost", "127.0.0.1", "::1")
_EXCERPT = 160


class NoAnswerError(Exception):
    """One try brought no usable answer; `wait` is what the endpoint asked for, in seconds."""

    def __init__(self, reason: str, wait: float | None = None):
        super().__init__(reason)
        self.wait = wait


@dataclass(frozen=True)
class Answer:
    """What the model said; `complete` is False when its length limit cut it off."""

    text: str
    complete: bool


@dataclass(frozen=True, kw_only=True)
class Chat:
    """A model behind an endpoint.

    `endpoint`: the URL up to /v1. `key`: sent as bearer token where it is not empty; never shown or written.
    `cache`: a directory with one file an answer, named by the sha256 of model, endpoint and conversation.
    `timeout`: seconds for one answer. `tries`: how often one is asked for. `sleep`: how waiting is done.
    """

    endpoint: str
    model: str
    cache: Path
    key: str = field(default="", repr=False)
    timeout: float = 120.0
    tries: int = 5
    sleep: Callable[[float], None] = time.sleep

    def __post_init__(self) -> None:
        parts = urlsplit(self.endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"the endpoint is {self.endpoint!r}; give a URL such as http://localhost:8000/v1.")
        if parts.username or parts.password or parts.query:
            raise ValueError("the endpoint holds a user name, a password or a query: give the plain URL up to /v1.")
        if not self.key.isascii() or not self.key.isprintable() or " " in self.key:
            raise ValueError("the key holds blanks, line ends or letters beyond ASCII: set it to the key alone.")
        if self.key and parts.scheme == "http" and parts.hostname not in _LOCAL:
            raise ValueError(f"the key would go to {parts.hostname} unencrypted: give an https:// endpoint.")
        if self.timeout <= 0 or self.tries < 1:
            raise ValueError(f"timeout is {self.timeout} and tries {self.tries}; both must be positive.")

    def ask(self, messages: Messages) -> Answer:
        """The answer to a conversation: from the cache, else from the endpoint.

        Raises:
            ValueError: every try failed, or the endpoint refuses the request; the sentence says what it said.
        """
        file = self._file(messages)
        if file.is_file():
            try:
                content = json.loads(file.read_text(encoding="utf-8"))
                return Answer(str(content["answer"]), bool(content["complete"]))
            except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
                raise ValueError(f"the cached answer {str(file)!r} is damaged: delete it and run again.") from error
        answer = self._ask_until(messages)
        content = {"messages": list(messages), "answer": answer.text, "complete": answer.complete}
        write_whole(file, json.dumps(content, ensure_ascii=False, indent=1) + "\n")
        return answer

    def forget(self, messages: Messages) -> None:
        """Take the answer to a conversation out of the cache, so that it is asked for again."""
        self._file(messages).unlink(missing_ok=True)

    def _file(self, messages: Messages) -> Path:
        content = json.dumps([self.endpoint, self.model, list(messages)], ensure_ascii=True)
        return self.cache / f"{hashlib.sha256(content.encode('ascii')).hexdigest()}.json"

    def _ask_until(self, messages: Messages) -> Answer:
        reason = ""
        for number in range(self.tries):
            try:
                return self._ask_once(messages)
            except NoAnswerError as failed:
                reason = str(failed)
                if number + 1 < self.tries:
                    self.sleep(min(MAX_WAIT, 2.0**number if failed.wait is None else failed.wait))
        raise ValueError(
            f"{self.endpoint} gave no usable answer in {self.tries} tries ({reason}): check that it runs and that "
            f"it serves {self.model!r}, then run the same command again."
        )

    def _ask_once(self, messages: Messages) -> Answer:
        body = {"model": self.model, "messages": [{"role": role, "content": text} for role, text in messages]}
        request = urllib.request.Request(
            f"{self.endpoint.rstrip('/')}/chat/completions",
            data=json.dumps(body).encode("utf-8"),
            headers={"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "robustree"}
            | ({"Authorization": f"Bearer {self.key}"} if self.key else {}),
        )
        deadline = time.monotonic() + self.timeout
        try:
            with urllib.request.build_opener(_NoRedirect).open(request, timeout=self.timeout) as response:
                content = _read(response, deadline)
        except urllib.error.HTTPError as error:
            with error:
                raise self._refusal(error, deadline) from error
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise NoAnswerError(self._without_key(str(reason) or type(error).__name__)) from error
        return self._parsed(content)

    def _refusal(self, error: urllib.error.HTTPError, deadline: float) -> Exception:
        try:
            said = self._excerpt(_read(error, deadline))
        except (NoAnswerError, OSError, http.client.HTTPException):
            said = error.reason
        if error.code in _TRY_AGAIN:
            return NoAnswerError(f"{error.code}: {said}", _seconds(error.headers.get("Retry-After")))
        hint = "set the environment variable of the key" if error.code in (401, 403) else "check URL and model name"
        return ValueError(f"{self.endpoint} refuses with {error.code} ({said}): {hint}.")

    def _parsed(self, content: bytes) -> Answer:
        try:
            choice = json.loads(content)["choices"][0]
            text = choice["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
            raise NoAnswerError(f"no chat completion but {self._excerpt(content)!r}") from error
        if not isinstance(text, str) or not text.strip():
            raise NoAnswerError("an empty answer")
        return Answer(text, choice.get("finish_reason") != "length")

    def _excerpt(self, content: bytes) -> str:
        text = " ".join(self._without_key(content.decode("utf-8", "replace")).split())
        return text if len(text) <= _EXCERPT else f"{text[:_EXCERPT]}..."

    def _without_key(self, text: str) -> str:
        return text.replace(self.key, "[key]") if self.key else text


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to another host."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Headers, newurl: str
    ) -> None:
        return None


def _read(response: http.client.HTTPResponse | urllib.error.HTTPError, deadline: float) -> bytes:
    """The body, unless it is too long or comes too slowly."""
    content = b""
    while part := response.read1(65536):
        content += part
        if len(content) > MAX_BYTES:
            raise NoAnswerError(f"an answer of more than {MAX_BYTES} bytes")
        if time.monotonic() > deadline:
            raise NoAnswerError("an answer that did not end in time")
    return content


def _seconds(header: str | None) -> float | None:
    """The seconds of a Retry-After header; None where it is absent or a date."""
    try:
        return max(0.0, float(header)) if header is not None else None
    except ValueError:
        return None
