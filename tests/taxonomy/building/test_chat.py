"""The chat client against an endpoint that misbehaves in every way there is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from robustree.taxonomy.building import chat as module
from robustree.taxonomy.building.chat import Answer, Chat
from tests.taxonomy.building.endpoint import Reply, endpoint, says

HELLO = (("user", "hello"),)
KEY = "sk-very-secret"


def client(url: str, cache: Path, waits: list[float] | None = None, **more: object) -> Chat:
    settings: dict[str, object] = {"timeout": 5.0, "tries": 3} | more
    waits = [] if waits is None else waits
    return Chat(endpoint=url, model="m", cache=cache, sleep=waits.append, **settings)  # type: ignore[arg-type]


def test_an_answer_is_asked_for_once_and_kept(tmp_path: Path) -> None:
    with endpoint(lambda request, number: says("hi")) as seen:
        chat = client(seen.url, tmp_path, key=KEY)
        assert chat.ask(HELLO) == chat.ask(HELLO) == Answer("hi", True)
        assert seen.paths == ["/v1/chat/completions"]
        assert seen.requests == [{"model": "m", "messages": [{"role": "user", "content": "hello"}]}]
        assert seen.keys == [f"Bearer {KEY}"]
        chat.forget(HELLO)
        chat.ask(HELLO)
        assert len(seen.requests) == 2
    assert chat.ask(HELLO).text == "hi"  # from the disk: nobody listens any more
    (file,) = tmp_path.iterdir()
    assert KEY not in file.read_text() and KEY not in repr(chat)
    file.write_text("{")
    with pytest.raises(ValueError, match="is damaged: delete it and run again"):
        chat.ask(HELLO)


def test_a_busy_endpoint_is_asked_again_after_the_time_it_names(tmp_path: Path) -> None:
    replies = [
        Reply("slow down", 429, {"Retry-After": "7"}),
        Reply("", 503, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}),
        Reply("<html>", 502, {"Retry-After": "9999"}),
        says("at last"),
    ]
    waits: list[float] = []
    with endpoint(lambda request, number: replies[number]) as seen:
        assert client(seen.url, tmp_path, waits, tries=4).ask(HELLO).text == "at last"
    assert waits == [7.0, 2.0, module.MAX_WAIT]


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (None, "gave no usable answer in 3 tries"),
        (Reply("<html>welcome</html>"), "no chat completion but '<html>welcome</html>'"),
        (Reply('{"choices": []}'), "no chat completion"),
        (Reply("[" * 100_000), "no chat completion"),
        (Reply(b"\xff\xfe"), "no chat completion"),
        (says("  "), "an empty answer"),
        (Reply('{"choices": [{"message": {"content": null}}]}'), "an empty answer"),
        (Reply("busy", 500), "500: busy"),
        (Reply(f"bad key {KEY}", 500), r"500: bad key \[key\]"),
    ],
)
def test_no_usable_answer_is_refused_after_bounded_tries(reply: Reply | None, reason: str, tmp_path: Path) -> None:
    waits: list[float] = []
    with endpoint(lambda request, number: reply) as seen, pytest.raises(ValueError, match=reason) as caught:
        client(seen.url, tmp_path, waits, key=KEY).ask(HELLO)
    assert len(seen.requests) == 3 and waits == [1.0, 2.0]
    assert KEY not in str(caught.value) and "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("reply", "sentence"),
    [
        (Reply("no such key", 401), r"refuses with 401 \(no such key\): set the environment variable of the key"),
        (Reply("no such model", 404), r"refuses with 404 \(no such model\): check URL and model name"),
        (Reply("", 302, {"Location": "http://127.0.0.1:9/"}), "refuses with 302"),
    ],
)
def test_a_refusal_is_not_tried_again(reply: Reply, sentence: str, tmp_path: Path) -> None:
    with endpoint(lambda request, number: reply) as seen, pytest.raises(ValueError, match=sentence):
        client(seen.url, tmp_path, key=KEY).ask(HELLO)
    assert len(seen.requests) == 1


def test_nobody_listens(tmp_path: Path) -> None:
    with endpoint(lambda request, number: None) as seen:
        url = seen.url
    with pytest.raises(ValueError, match=r"in 2 tries \(.*refused.*check that it runs"):
        client(url, tmp_path, tries=2).ask(HELLO)


def test_an_endless_answer_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 100_000)

    def endless() -> Iterator[bytes]:
        while True:
            yield b" " * 10_000

    with (
        endpoint(lambda request, number: Reply("", parts=endless())) as seen,
        pytest.raises(ValueError, match="an answer of more than 100000 bytes"),
    ):
        client(seen.url, tmp_path, tries=1).ask(HELLO)


def test_a_slow_answer_ends_in_time(tmp_path: Path) -> None:
    def drip() -> Iterator[bytes]:
        for _ in range(100):
            time.sleep(0.05)
            yield b" "

    started = time.monotonic()
    with (
        endpoint(lambda request, number: Reply("", parts=drip())) as seen,
        pytest.raises(ValueError, match="an answer that did not end in time"),
    ):
        client(seen.url, tmp_path, tries=1, timeout=0.3).ask(HELLO)
    with (
        endpoint(lambda request, number: time.sleep(0.5)) as seen,
        pytest.raises(ValueError, match="timed out"),
    ):
        client(seen.url, tmp_path, tries=1, timeout=0.2).ask(HELLO)
    assert time.monotonic() - started < 4


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"endpoint": "localhost:8000"}, "give a URL such as http://localhost:8000/v1"),
        ({"endpoint": "http://"}, "give a URL such as"),
        ({"endpoint": "https://me:pw@host/v1"}, "holds a user name, a password or a query"),
        ({"endpoint": "http://far.example/v1", "key": KEY}, "the key would go to far.example unencrypted"),
        ({"tries": 0}, "both must be positive"),
        ({"key": f"{KEY}\nX-Other: 1"}, "the key holds blanks, line ends or letters beyond ASCII"),
    ],
)
def test_bad_settings(settings: dict[str, object], sentence: str, tmp_path: Path) -> None:
    good: dict[str, object] = {"endpoint": "https://host/v1", "model": "m", "cache": tmp_path}
    with pytest.raises(ValueError, match=sentence) as caught:
        Chat(**(good | settings))  # type: ignore[arg-type]
    assert KEY not in str(caught.value) and "pw" not in str(caught.value).replace("password", "")
