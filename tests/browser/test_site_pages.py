"""The website in a browser, opened from disk: the map, the search, the way on, and pictures that move."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "notebooks"))
import build  # noqa: E402
import site_pages  # noqa: E402

SHOWN = ("00", "01", "11")  # one with a formula among them; the whole course is rendered in tests/test_site.py
LOADED = """async () => {
  const images = [...document.images];
  for (const image of images) image.loading = 'eager';
  await Promise.all(images.map(image => image.decode()));
  return images.length;
}"""


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("out") / "site"
    site_pages.write_site(out, [path for path in build.paths() if path.name[:2] in SHOWN], ROOT)
    return out


@pytest.fixture(params=[(1100, 900), (390, 844)], ids=["desk", "phone"])
def page(request, chromium):
    width, height = request.param
    context = chromium.new_context(viewport={"width": width, "height": height}, offline=True)
    page, page.problems = context.new_page(), []
    page.on("console", lambda message: page.problems.append(message.text))
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    yield page
    context.close()
    assert page.problems == []


def fits(page) -> bool:
    """Whether nothing has to be scrolled sideways."""
    return page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def in_view(page, selector: str) -> bool:
    """Whether the top of an element is in the window, under the bar."""
    top = page.locator(selector).bounding_box()["y"]
    return 40 <= top < page.viewport_size["height"]


def test_every_page_shows_its_pictures_and_fits(site, page):
    for path in sorted(site.rglob("*.html")):
        page.goto(path.as_uri())
        pictures = page.evaluate(LOADED)
        assert fits(page) and (pictures > 0 or path.stem == "TEACHING"), path.name


def test_from_the_map_to_a_notebook_and_to_the_next(site, page):
    page.goto((site / "index.html").as_uri())
    page.locator(".cards a").first.click()
    assert page.title() == "00 · Start here · zflib"
    page.locator("[rel=next]").click()
    assert page.title() == "01 · Unpooling with switches · zflib"
    page.locator("footer").get_by_role("link", name="Overlapping pools").click()
    assert page.url.endswith("/deeper/01_overlapping_pools.html")
    page.get_by_role("link", name="zflib", exact=True).click()
    assert page.url.endswith("/index.html")


def test_the_search_is_used_with_the_keyboard(site, page):
    page.goto((site / "deeper" / "01_overlapping_pools.html").as_uri())
    page.keyboard.press("/")
    page.keyboard.type("receptive field")
    results = page.locator("#found a")
    results.first.wait_for()
    assert "results" in page.get_by_role("status").inner_text() and fits(page)
    wanted = results.filter(has_text="The pixels that an activation can see are its receptive field.")
    assert "00 · Start here" in wanted.inner_text() and wanted.locator("mark").count() == 2
    for _ in range(results.count()):
        page.keyboard.press("ArrowDown")
        if "The pixels that an" in page.evaluate("document.activeElement.textContent"):
            break
    page.keyboard.press("Enter")
    page.wait_for_url("**/00_start_here.html#*")
    assert "The pixels that an" in page.locator(":target").inner_text() and in_view(page, ":target")


def test_the_search_finds_what_a_closed_hint_says_and_escape_leaves(site, page):
    page.goto((site / "01_unpooling_with_switches.html").as_uri())
    field = page.get_by_role("searchbox")
    field.fill("reading order: position")
    page.locator("#found a").first.wait_for()
    page.keyboard.press("Escape")
    assert page.locator("#found").is_hidden()
    field.fill("reading order: position =")
    field.press("Enter")
    page.wait_for_url("**/00_start_here.html#*")
    assert page.locator(":target").is_visible() and page.locator("details[open] :target").count() == 1
    field.fill("qqq zzz")
    page.get_by_text("0 results").wait_for()


def test_what_is_typed_is_never_taken_for_html(site, page):
    page.goto((site / "index.html").as_uri())
    page.get_by_role("searchbox").fill("<img src=x onerror=alert(1)> (a+")
    page.get_by_text("0 results").wait_for()


def test_hints_open_and_the_setup_unfolds(site, page):
    page.goto((site / "00_start_here.html").as_uri())
    for name, text in (("Setup", "import importlib.util"), ("Hint", "is what lies under the filter")):
        inside = page.get_by_text(text).first
        assert not inside.is_visible()
        page.locator("summary").filter(has_text=name).first.click()
        inside.wait_for()


def test_an_animation_moves_until_it_is_paused(site, page):
    page.goto((site / "01_unpooling_with_switches.html").as_uri())
    picture = page.locator(".moves img")
    picture.scroll_into_view_if_needed()
    moving = picture.evaluate("image => image.currentSrc")
    page.get_by_role("button", name="Pause").click()
    page.wait_for_function("() => document.querySelector('.moves img').currentSrc.endsWith('-still.png')")
    page.get_by_role("button", name="Play").click()
    page.wait_for_function("() => !document.querySelector('.moves img').currentSrc.endsWith('-still.png')")
    assert picture.evaluate("image => image.currentSrc") == moving
    first = page.locator(".moves img").screenshot()
    for _ in range(10):
        page.wait_for_timeout(300)
        if page.locator(".moves img").screenshot() != first:
            return
    pytest.fail("ten pictures taken in three seconds are the same")


def test_who_asked_for_less_movement_gets_a_still_picture(site, page):
    page.emulate_media(reduced_motion="reduce")
    page.goto((site / "01_unpooling_with_switches.html").as_uri())
    page.locator(".moves img").scroll_into_view_if_needed()
    page.wait_for_function("() => document.querySelector('.moves img').currentSrc.endsWith('-still.png')")
    assert page.get_by_role("button", name="Play").is_visible()


def test_formulas_are_drawn(site, page):
    page.goto((site / "11_correspondence.html").as_uri())
    assert page.locator("math[display=block]").first.bounding_box()["height"] > 20


def test_there_is_a_list_of_headings_at_the_side_where_there_is_room(site, page):
    page.goto((site / "00_start_here.html").as_uri())
    assert page.locator(".headings").get_attribute("open") is None
    page.set_viewport_size({"width": 1400, "height": 900})
    page.reload()
    page.get_by_role("navigation", name="On this page").get_by_role("link", name="1 · Up").click()
    assert in_view(page, ":target") and page.locator(".headings a").first.is_visible()
