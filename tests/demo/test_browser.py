"""A visitor's ways through the page, in a real Chromium. `make test-browser` runs these, nothing else does.

Screenshots go to the folder SCREENSHOTS if that variable is set. DEMO_DIRECTORY names a directory in which
`robustree quickstart` has run; without it, the page shows nano beside a model hardened for two steps."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from robustree.auditing.report.page import write_report
from tests.auditing.conftest import write_audit

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser
DESK, PHONE = {"width": 1360, "height": 900}, {"width": 390, "height": 844}
CHROMIUM = "/usr/bin/chromium"
PATIENCE = 30_000  # milliseconds
WATCH_STEPS = """() => {
  const seen = (window.stepsSeen = []);
  new MutationObserver(() => {
    const step = /Step (\\d+) of/.exec(document.querySelector("#cards .progress")?.textContent ?? "")?.[1];
    if (step !== undefined && seen.at(-1)?.[0] !== step) requestAnimationFrame((at) => seen.push([step, at]));
  }).observe(document.querySelector("#cards"), { childList: true, subtree: true, characterData: true });
}"""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if os.environ.get("DEMO_DIRECTORY"):
        return Path(os.environ["DEMO_DIRECTORY"])
    folder = tmp_path_factory.mktemp("demo")
    words = ["harden", "hierarchical", "--model", "nano", "--trees", "unicode", "wordnet", "--steps", "2"]
    words += ["--output", "robustree-quickstart/hierarchical", "--device", "cpu"]
    subprocess.run([sys.executable, "-m", "robustree", *words], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def audit(directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if (directory / "robustree-quickstart" / "report.html").exists():
        return directory / "robustree-quickstart"
    folder = tmp_path_factory.mktemp("audit")
    write_audit(folder)
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def address(directory: Path, audit: Path) -> Iterator[str]:
    words = [sys.executable, "-u", "-m", "robustree", "demo", "--port", "0", "--audit", str(audit), "--device", "cpu"]
    with subprocess.Popen(words, cwd=directory, stdout=subprocess.PIPE, text=True) as page:
        watchdog = threading.Timer(600, page.kill)
        watchdog.start()
        try:
            assert page.stdout is not None
            yield page.stdout.readline().split()[1]
        finally:
            watchdog.cancel()
            page.kill()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()


Visit = Callable[..., "Page"]


@pytest.fixture
def visit(browser: Browser, address: str) -> Iterator[Visit]:
    """Open the page in a fresh context; at the end no request may have left this machine, and no script failed."""
    requests: list[str] = []
    failures: list[str] = []
    contexts = []

    def opened(viewport: dict[str, int] = DESK, **options: Any) -> Page:
        contexts.append(browser.new_context(viewport=viewport, **options))  # type: ignore[arg-type]
        page = contexts[-1].new_page()
        page.set_default_timeout(PATIENCE)
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: failures.append(str(error)))
        page.goto(address)
        page.wait_for_selector(".card")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert [url for url in requests if not url.startswith((address, "data:", "blob:"))] == []
    assert failures == []


def save(page: Page, name: str, *, whole: bool = True) -> None:
    folder = os.environ.get("SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.wait_for_timeout(600)
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=whole)


def choose(page: Page, box: str, option: str) -> None:
    field = page.locator(f"{box} input")
    field.click()
    field.fill(option)
    page.get_by_role("option", name=option).first.click()


def attack(page: Page) -> None:
    page.click("#attack")
    page.wait_for_function("/Step (\\d+) of \\1 /.test(document.querySelector('#cards .progress').textContent)")


def number_of(page: Page, box: str, value: str) -> None:
    field = page.locator(f"{box} input[type=number]")
    field.fill(value)
    field.press("Enter")


def test_from_the_start_to_a_changed_prediction(visit: Visit) -> None:
    page = visit()
    paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    assert paint < 3000
    assert "not attacked yet" in page.inner_text(".card:first-child")
    save(page, "start")
    choose(page, "#level", "unicode/2")
    number_of(page, "#eps", "8")
    page.evaluate(WATCH_STEPS)
    attack(page)
    first = page.locator(".card").first
    assert "broken at unicode/2" in first.inner_text()
    assert first.locator(".way tr").first.locator(".wrong").count() == 1
    assert first.locator(".pictures img").count() == 3
    assert first.locator(".drawn .trace").count() == 2
    seen = page.evaluate("stepsSeen.map(([step, at]) => [Number(step), at])")
    speed = (len(seen) - 1) / (seen[-1][1] - seen[0][1]) * 1000
    assert speed >= 2
    print(f"\nfirst paint after {paint:.0f} ms; {speed:.1f} shown steps a second")
    save(page, "attack")


def test_an_aim_is_reached(visit: Visit) -> None:
    page = visit()
    choose(page, "#aim", "any thing to eat or drink")
    number_of(page, "#eps", "16")
    attack(page)
    assert "towards “thing to eat or drink”" in page.inner_text("#cards .progress")
    assert "taken for thing to eat or drink after" in page.inner_text(".card:first-child")


def test_every_level_is_swept_over_eps_and_the_slider_asks_about_one(visit: Visit) -> None:
    page = visit()
    models = page.locator(".card").count()
    page.get_by_role("tab", name="Over ε").click()
    page.click("#sweep")
    page.wait_for_function(f"document.querySelectorAll('#chart .row .who').length === {3 * models}")
    before = page.inner_text("#chart .reading")
    save(page, "eps")
    page.locator("#here input[type=range]").press("Home")
    page.wait_for_function("document.querySelector('#chart .reading').textContent.includes('ε = 0:')")
    assert page.inner_text("#chart .reading") != before
    page.get_by_role("tab", name="Attack").click()
    page.locator("#gallery .thumbnail-item").nth(2).click()
    page.get_by_role("tab", name="Over ε").click()
    page.wait_for_selector("text=Nothing has been computed")


def test_the_image_moves_in_the_ball(visit: Visit) -> None:
    page = visit()
    page.get_by_role("tab", name="Ball").click()
    assert page.locator("#disk .image").count() == 1
    page.click("#attack")
    page.wait_for_function("document.querySelectorAll('#disk .moving .step').length > 1")
    assert page.locator("#disk .image").count() == 2
    assert "nearness here is not nearness in the ball" in page.inner_text("#disk")
    page.wait_for_timeout(1500)
    save(page, "ball")


def test_the_report_is_shown_and_cannot_reach_the_page(visit: Visit) -> None:
    page = visit()
    page.get_by_role("tab", name="Audit").click()
    assert page.locator("#audit table.map").count() >= 2
    frame = page.locator("#audit iframe")
    frame.scroll_into_view_if_needed()
    inside = page.frame_locator("#audit iframe")
    inside.get_by_role("link", name="Transfer").click()
    inside.locator("#transfer").wait_for()
    (report,) = [found for found in page.frames if found.url.partition("#")[0].endswith("/audit/report.html")]
    assert report.evaluate("window.scrollY") > 0
    assert (
        report.evaluate("(() => { try { return String(parent.document.title) } catch (error) { return 'sealed' } })()")
        == "sealed"
    )
    save(page, "audit", whole=False)


def test_an_upload_is_attacked_and_a_bad_one_gets_a_sentence(visit: Visit, tmp_path: Path) -> None:
    page = visit()
    Image.radial_gradient("L").resize((300, 200)).convert("RGB").save(tmp_path / "sun.jpg")
    page.set_input_files("input[type=file]", tmp_path / "sun.jpg")
    page.wait_for_selector("text=sun.jpg: what it shows is for the models to say")
    attack(page)
    assert page.locator(".card .changed").count() >= 1
    save(page, "upload")
    (tmp_path / "<b>evil.png").write_text("no image")
    page.set_input_files("input[type=file]", tmp_path / "<b>evil.png")
    page.wait_for_selector("#notice [role=alert]")
    assert "could not be read as an image" in page.inner_text("#notice")
    assert page.locator("#notice b").count() == 0
    assert "sun.jpg" in page.inner_text("#cards .shows")
    save(page, "refused", whole=False)
    (tmp_path / "large.png").write_bytes(b"\0" * 10_000_001)
    page.set_input_files("input[type=file]", tmp_path / "large.png")
    page.wait_for_selector("text=/maximum allowed size|too large/i")
    page.locator("#gallery .thumbnail-item").first.click()  # the one that was chosen before the upload
    page.wait_for_function("!document.querySelector('#cards .shows').textContent.includes('sun.jpg')")
    assert page.inner_text("#notice").strip() == ""


def test_the_page_fits_a_phone(visit: Visit) -> None:
    page = visit(PHONE, device_scale_factor=2, has_touch=True, is_mobile=True)
    attack(page)
    for tab in ("Attack", "Over ε", "Ball", "Audit"):
        page.get_by_role("tab", name=tab).click()
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        save(page, f"phone-{tab.split()[-1].lower()}", whole=tab != "Audit")


def test_the_keyboard_is_enough(visit: Visit) -> None:
    page = visit()
    shown = page.inner_text("#cards .shows")

    def tab_to(target: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate(f"document.activeElement.matches({target!r})"):
                return
        raise AssertionError(f"60 times Tab do not lead to {target}")

    tab_to("#gallery .gallery-item:nth-child(2) button")
    page.keyboard.press("Enter")
    page.wait_for_function(f"document.querySelector('#cards .shows').textContent !== {shown!r}")
    tab_to("#level input")
    page.locator("[role=option].active").wait_for()
    page.keyboard.press("ArrowDown")
    page.locator("[role=option].active", has_text="unicode/1").wait_for()
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('#level input').value.startsWith('unicode/1')")
    tab_to("#eps input[type=range]")
    page.keyboard.press("End")
    tab_to("#attack")
    page.keyboard.press("Enter")
    page.wait_for_function("/Step 20 of 20/.test(document.querySelector('#cards .progress').textContent)")
    assert "ε = 16/255" in page.inner_text("#cards .progress")
    assert "aimed at unicode/1" in page.inner_text("#cards .progress")
    tab_to("[role=tab]")
    page.keyboard.press("ArrowRight")
    save(page, "keyboard", whole=False)


def test_every_picture_and_every_control_has_a_name(visit: Visit) -> None:
    page = visit()
    attack(page)
    assert page.evaluate("[...document.images].filter((image) => !image.alt).length") == 0
    nameless = """[...document.querySelectorAll("input, button, select, textarea")]
      .filter((e) => e.offsetParent && !e.labels?.length && !e.ariaLabel && !e.textContent.trim() && !e.title)
      .map((e) => e.outerHTML)"""
    assert page.evaluate(nameless) == []
    assert page.evaluate(
        "[...document.querySelectorAll('svg[role=img]')].every((e) => e.ariaLabel || e.querySelector('title'))"
    )


def test_visitors_share_nothing_and_wait_for_each_other(visit: Visit) -> None:
    first, second = visit(), visit()
    shown = second.inner_text("#cards .shows")
    first.locator("#gallery .thumbnail-item").nth(3).click()
    first.wait_for_function(f"document.querySelector('#cards .shows').textContent !== {shown!r}")
    for page in (first, second):
        page.click("#attack")
    for page in (first, second):
        page.wait_for_function("/Step 20 of 20/.test(document.querySelector('#cards .progress').textContent)")
    assert second.inner_text("#cards .shows") == shown
    assert first.inner_text("#cards .shows") != shown


def test_an_attack_can_be_stopped(visit: Visit) -> None:
    page = visit()
    number_of(page, "#steps", "100")
    page.click("#attack")
    page.wait_for_function("/Step [1-9]/.test(document.querySelector('#cards .progress').textContent)")
    page.click("#stop")
    page.wait_for_timeout(1000)
    stopped = page.inner_text("#cards .progress")
    page.wait_for_timeout(1000)
    assert page.inner_text("#cards .progress") == stopped
    assert "Step 100" not in stopped


def test_the_page_is_dark_where_the_system_is(visit: Visit) -> None:
    page = visit(color_scheme="dark")
    attack(page)
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(23, 20, 28)"
    save(page, "dark")
