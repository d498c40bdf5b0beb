"""An atlas in a browser, opened from disk: from the first page to a wall, a channel, one alike, and back."""

from __future__ import annotations

import pytest

import zflib
from zflib import data

pytestmark = pytest.mark.nightly

#: Sizes of all pictures that the page shows, its backgrounds included; it fails if one of them cannot be decoded.
SIZES = """async () => {
  const shown = [...document.querySelectorAll('[role=img]')].map(e => getComputedStyle(e).backgroundImage);
  const sizes = [];
  for (const address of new Set(shown)) {
    const picture = new Image();
    picture.src = address.slice(5, -2);
    await picture.decode();
    sizes.push([picture.naturalWidth, picture.naturalHeight]);
  }
  return sizes;
}"""


@pytest.fixture(scope="module")
def first_page(tmp_path_factory) -> str:
    photos, out = tmp_path_factory.mktemp("photos"), tmp_path_factory.mktemp("out") / "atlas"
    for name in data.photo_names():
        data.photo(name).resize((96, 72)).save(photos / f"{name} & co.png")
    return zflib.write_atlas(zflib.load("scenes56"), photos, out, layers=("conv2", "fc6")).as_uri()


@pytest.fixture(params=[(1280, 900), (390, 800)], ids=["desk", "phone"])
def page(request, chromium):
    width, height = request.param
    page = chromium.new_page(viewport={"width": width, "height": height})
    yield page
    page.close()


def fits(page) -> bool:
    """Whether nothing has to be scrolled sideways."""
    return page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def left_early(request) -> bool:
    """Whether a picture was still on its way when the page was left."""
    return request.failure == "net::ERR_ABORTED"


def test_from_the_wall_to_a_channel_to_one_alike_and_back(first_page, page):
    problems = []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("requestfailed", lambda request: left_early(request) or problems.append(f"{request.failure} {request.url}"))
    page.goto(first_page)
    assert len(page.evaluate(SIZES)) == 2 and fits(page), "a strip of each wall"
    page.get_by_role("link", name="conv2").click()
    assert page.evaluate(SIZES) == [[1600, 300]] and page.locator(".wall a").count() == 48 and fits(page)
    page.locator("[id='5']").click()
    assert page.url.endswith("/conv2/5.html") and fits(page)
    assert page.evaluate(SIZES)[0] == [1350, 450] and page.locator(".nine .tile").count() == 27
    alike = page.locator(".few a").first
    number = alike.get_attribute("href")
    alike.click()
    assert page.url.endswith(f"/conv2/{number}")
    page.go_back()
    page.get_by_role("link", name="6 →").click()
    assert page.url.endswith("/conv2/6.html")
    page.get_by_role("link", name="conv2", exact=True).click()
    assert page.url.endswith("/conv2/index.html#6")
    assert page.locator("[id='6']").evaluate("e => e.matches(':target')")
    assert problems == []
