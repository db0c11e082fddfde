"""The page as it is served, without a browser: what it loads, what it answers, what it leaves behind."""

from __future__ import annotations

import os
import re
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from robustree.demo.bench import Bench
from robustree.demo.serving import build_app, listen, own_folder
from robustree.demo.uploads import MAX_BYTES
from tests.auditing.page import Page

LOADS = {
    "link": "href",
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "object": "data",
}
IN_CSS = re.compile(r"""url\(\s*['"]?([^'")]+)|@import\s+['"]([^'"]+)""")
OWN = "http://127.0.0.1"


@pytest.fixture(scope="module")
def audit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audit")
    (folder / "report.html").write_text("<!doctype html><title>the report</title>")
    (folder / "figures.json").write_text('{"models": [], "cuts": []}')
    return folder


@pytest.fixture(scope="module")
def visitor(bench: Bench, audit: Path) -> Iterator[TestClient]:
    with own_folder(), TestClient(build_app(replace(bench, audit=audit), only_local=True), base_url=OWN) as client:
        yield client


def loaded(page: str) -> list[str]:
    """What the elements and style sheets of a page load, but for what they hold themselves."""
    elements = Page()
    elements.feed(page)
    found = [
        attributes[LOADS[tag]] or ""
        for tag, attributes in elements.seen
        if tag in LOADS and attributes.get(LOADS[tag]) and attributes.get("rel") not in ("canonical", "alternate")
    ]
    found += [a or b for a, b in IN_CSS.findall(page)]
    return [place for place in found if not place.startswith("data:")]


def test_the_page_its_scripts_and_its_styles_load_nothing_from_another_host(visitor: TestClient) -> None:
    page = visitor.get("/")
    assert page.status_code == 200
    assert "Attack one image, and watch it in the tree." in page.text  # the words come with the page, not after it
    waiting, seen, styles = [place for place in loaded(page.text) if not place.startswith("#")], set(), 0
    assert waiting
    while waiting:
        place = waiting.pop()
        assert not re.match(r"(https?:)?//(?!127\.0\.0\.1)", place), place
        path = "/" + place.removeprefix(OWN).removeprefix("./").lstrip("/")
        if path in seen:
            continue
        seen.add(path)
        answer = visitor.get(path)
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'self';")
        assert "http" not in policy
        if path.endswith(".css"):
            styles += 1
            inside = [a or b for a, b in IN_CSS.findall(answer.text)]
            folder = path.rpartition("/")[0]
            waiting += [f if f.startswith(("http", "//", "/")) else f"{folder}/{f}" for f in inside if f[:5] != "data:"]
    assert styles


def test_the_server_speaks_to_nobody(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    ask, connect = socket.getaddrinfo, socket.socket.connect

    def getaddrinfo(host: str, *rest: Any, **named: Any) -> Any:
        asked.append(host)
        return ask(host, *rest, **named)

    def connected(self: socket.socket, address: Any) -> None:
        asked.append(address)
        connect(self, address)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(socket.socket, "connect", connected)
    with own_folder(), TestClient(build_app(bench, only_local=True), base_url=OWN) as client:
        assert client.get("/").status_code == 200
        assert client.get("/config").json()["analytics_enabled"] is False
    assert asked == []
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", 1), timeout=1)
    assert asked  # the net holds fish


def test_the_report_is_sealed_off(visitor: TestClient) -> None:
    answer = visitor.get("/audit/report.html")
    assert "the report" in answer.text
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("sandbox allow-scripts; default-src 'none';")
    assert "allow-same-origin" not in policy
    (frame,) = list(re.findall(r"<iframe[^>]*>", visitor.get("/config").json()["components"].__str__()))
    assert 'sandbox="allow-scripts"' in frame


def test_requests_that_name_another_host_are_refused(visitor: TestClient) -> None:
    assert visitor.get("/", headers={"host": "evil.example"}).status_code == 400
    assert visitor.get("/", headers={"host": "localhost"}).status_code == 200


def test_files_of_the_server_are_not_served(visitor: TestClient, audit: Path) -> None:
    for path in (audit / "figures.json", Path("/etc/passwd"), Path(__file__)):
        assert visitor.get(f"/gradio_api/file={path}").status_code in (403, 404)


def test_an_upload_is_bounded_and_lies_in_the_folder_of_the_page(visitor: TestClient) -> None:
    small = visitor.post("/gradio_api/upload", files={"files": ("a.png", b"\0" * 100)})
    assert small.status_code == 200
    (path,) = small.json()
    assert Path(path).is_relative_to(os.environ["GRADIO_TEMP_DIR"])
    large = visitor.post("/gradio_api/upload", files={"files": ("a.png", b"\0" * (MAX_BYTES + 1))})
    assert large.status_code == 413


def test_there_is_no_programming_interface(visitor: TestClient) -> None:
    assert visitor.get("/gradio_api/info").json() == {"named_endpoints": {}, "unnamed_endpoints": {}}
    assert visitor.get("/docs").status_code == 404
    assert visitor.get("/openapi.json").status_code == 404


def test_nothing_is_left_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv("GRADIO_TEMP_DIR", raising=False)
    before = dict(os.environ)
    with own_folder():
        folder = Path(os.environ["GRADIO_TEMP_DIR"])
        (folder / "inside").mkdir()
        assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
        assert folder.parent == tmp_path
    assert dict(os.environ) == before
    assert list(tmp_path.iterdir()) == []


def test_an_address_that_cannot_be_used_gets_a_sentence() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=rf"cannot be served at 127\.0\.0\.1:{port} .*: give another --host or"):
            listen("127.0.0.1", port).__enter__()
    for host, other in (("no such host", 0), ("127.0.0.1", 70_000)):
        with pytest.raises(ValueError, match=f"cannot be served at {host}:{other}"):
            listen(host, other).__enter__()
    with listen("127.0.0.1", 0) as fresh:
        assert fresh.getsockname()[0] == "127.0.0.1"
        assert isinstance(fresh, socket.socket)
