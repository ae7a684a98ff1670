"""The live page in a real browser, on a real server whose world moves.

Goal: the numbers on the page are those of the API, the heat is where the triggers are, nothing that is not live looks live, and the
page talks to its own server only.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

from tests.browser import chromium, console_errors, requested_urls
from tests.monitor.web.builder import World, alert
from tests.monitor.web.running import Instrument

# Colours that no axis or text has: warm ones of long positions, cool ones of short positions.
HEAT = """
const canvas = document.querySelector('#heat canvas');
const { data, width, height } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
const found = { warm: 0, cool: 0, warmY: 0, coolY: 0, width, height };
for (let i = 0; i < data.length; i += 4) {
  const [r, , b] = [data[i], data[i + 1], data[i + 2]];
  const y = Math.floor(i / 4 / width);
  if (r > b + 40) { found.warm++; found.warmY += y; }
  if (b > r + 40) { found.cool++; found.coolY += y; }
}
found.warmY /= found.warm; found.coolY /= found.cool;
return found;
"""
PAINTED = """
const canvas = document.querySelector(arguments[0] + ' canvas');
const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
return new Set(new Uint32Array(data.buffer)).size;
"""


def wait(driver: webdriver.Chrome, condition: Callable[[], Any], timeout_s: float = 10.0) -> Any:
    return WebDriverWait(driver, timeout_s, poll_frequency=0.05).until(lambda _: condition())


def text(driver: webdriver.Chrome, selector: str) -> str:
    # Not .text: hidden text is empty there, and a mistake would pass for it.
    return str(driver.execute_script("return document.querySelector(arguments[0]).textContent", selector)).strip()


def shown(driver: webdriver.Chrome, selector: str) -> bool:
    return driver.find_element(By.CSS_SELECTOR, selector).is_displayed()


def number(driver: webdriver.Chrome, selector: str) -> float | None:
    value = driver.find_element(By.CSS_SELECTOR, selector).get_attribute("value")
    return float(value) if value else None


def column(driver: webdriver.Chrome, table: str, index: int) -> list[str]:
    # While there is nothing to show, a table has one row with one cell, which is no row of the column.
    script = "return [...document.querySelectorAll(arguments[0] + ' tbody tr')].map(r => r.cells[arguments[1]]).filter(Boolean)"
    script += ".map(c => (c.firstElementChild ?? c).getAttribute('value') ?? c.textContent)"
    return list(driver.execute_script(script, table, index))


def api(instrument: Instrument, path: str) -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{instrument.port}/api/v1{path}", timeout=5) as answer:
        return json.load(answer)


@pytest.fixture
def instrument() -> Iterator[Instrument]:
    with Instrument(World(), evaluation_timeout_s=3.0) as running:
        for _ in range(120):
            running.call(lambda: running.hub.publish(running.world.step()))
        running.call(lambda: running.hub.publish_alerts([alert()], (alert(),)))
        yield running


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    with chromium(Path(tmp_path_factory.mktemp("profile"))) as driver:
        yield driver


@pytest.fixture
def page(browser: webdriver.Chrome, instrument: Instrument) -> webdriver.Chrome:
    browser.get("about:blank")
    console_errors(browser)
    requested_urls(browser)
    browser.get(f"http://127.0.0.1:{instrument.port}/")
    wait(browser, lambda: text(browser, "#link") == "connected" and number(browser, "#price") is not None)
    return browser


def test_values_on_the_page_are_those_of_the_api(page: webdriver.Chrome, instrument: Instrument) -> None:
    before = number(page, "#price")
    wait(page, lambda: number(page, "#price") != before)
    instrument.paused = True
    market = api(instrument, "/markets/hyperliquid/BTC")
    wait(page, lambda: number(page, "#price") == market["reference_price"])

    assert text(page, "#price") == f"{market['reference_price']:,.1f}"
    assert text(page, "#source") == "mark"
    assert text(page, "#provenance") == "observed"
    figures = {"bid": "best_bid", "ask": "best_ask", "coverage": "coverage_ratio", "open-interest": "open_interest_usd"}
    for key, name in figures.items():
        assert number(page, f"[data-key={key}]") == market[name]
    clusters = sorted(market["clusters"], key=lambda cluster: abs(cluster["distance_ratio"]))
    assert [float(value) for value in column(page, "#clusters", 1)] == [cluster["price"] for cluster in clusters]
    assert [float(value) for value in column(page, "#clusters", 3)] == [cluster["notional_usd"] for cluster in clusters]
    assert column(page, "#clusters", 0) == [cluster["side"] for cluster in clusters]
    landings = market["cascade"]["down"]["landing"] + market["cascade"]["up"]["landing"]
    assert [float(value) for value in column(page, "#landing", 2)] == [landing["last_trade_price"] for landing in landings]
    shown_texts = [row.text for row in page.find_elements(By.CSS_SELECTOR, "#landing tbody tr td:nth-child(3)")]
    assert [value.startswith("beyond") for value in shown_texts] == [landing["book_exhausted"] for landing in landings]
    survival = market["cascade"]["down"]["survival"] + market["cascade"]["up"]["survival"]
    assert [float(value) for value in column(page, "#survival", 1)] == [point["price"] for point in survival]
    assert column(page, "#feeds", 0) == [feed["channel"] for feed in market["feeds"]]
    assert text(page, "#completeness") == "partial"
    assert column(page, "#connections", 1) == ["connected", "degraded: webData2 has been silent for 12 s"]
    assert "ClusterNear" in text(page, "#firing")
    assert len(column(page, "#overview", 0)) == 3


def test_heat_and_curves_are_painted_and_the_page_keeps_to_its_server(page: webdriver.Chrome, instrument: Instrument) -> None:
    heat = wait(page, lambda: (found := page.execute_script(HEAT))["warm"] > 1_000 and found["cool"] > 1_000 and found)
    # Longs die below the price and shorts above it; y grows downwards.
    assert heat["warmY"] > heat["coolY"] + heat["height"] * 0.1
    assert page.execute_script(PAINTED, "#barrier") > 20
    assert page.execute_script(PAINTED, "#liquidated") > 3
    assert "to" in text(page, "#legend-scale")
    assert "USD" in text(page, "#legend-scale")

    page.find_element(By.CSS_SELECTOR, "#windows input[value='300']").send_keys(Keys.SPACE)
    page.find_element(By.CSS_SELECTOR, "#ranges input[value='0.05']").send_keys(Keys.SPACE)
    wait(page, lambda: page.execute_script(HEAT)["warm"] > 1_000)

    origins = (f"http://127.0.0.1:{instrument.port}/", f"ws://127.0.0.1:{instrument.port}/")
    urls = requested_urls(page)
    assert f"{origins[1]}api/v1/stream" in urls
    assert f"{origins[0]}static/vendor/uPlot.iife.min.js" in urls
    assert {url for url in urls if not url.startswith((*origins, "data:", "about:"))} == set()
    assert console_errors(page) == []


def test_another_market_can_be_picked_by_keyboard_and_by_address(page: webdriver.Chrome, instrument: Instrument) -> None:
    Select(page.find_element(By.ID, "picker")).select_by_visible_text("xyz:TSLA")
    wait(page, lambda: text(page, "#headline-title") == "hyperliquid xyz:TSLA" and number(page, "#price") is not None)
    assert (number(page, "#price") or 0) < 1_000
    page.execute_script("location.hash = encodeURIComponent('hyperliquid/ETH')")
    wait(page, lambda: text(page, "#headline-title") == "hyperliquid ETH" and number(page, "#price") is not None)
    assert 1_000 < (number(page, "#price") or 0) < 10_000
    page.get(f"http://127.0.0.1:{instrument.port}/#hyperliquid%2Fxyz%3ATSLA")
    wait(page, lambda: text(page, "#headline-title") == "hyperliquid xyz:TSLA")
    assert console_errors(page) == []


def chosen_span(driver: webdriver.Chrome) -> str | None:
    return driver.find_element(By.CSS_SELECTOR, "#windows input:checked").get_attribute("value")


def test_the_span_holds_the_history_until_the_reader_picks_one(page: webdriver.Chrome, instrument: Instrument) -> None:
    wait(page, lambda: chosen_span(page) == "300")
    for _ in range(190):
        instrument.call(lambda: instrument.hub.publish(instrument.world.step()))
    wait(page, lambda: chosen_span(page) == "900")
    page.find_element(By.CSS_SELECTOR, "#windows input[value='120']").send_keys(Keys.SPACE)
    for _ in range(2):
        instrument.call(lambda: instrument.hub.publish(instrument.world.step()))
    before = number(page, "#price")
    wait(page, lambda: number(page, "#price") != before)
    assert chosen_span(page) == "120"
    assert console_errors(page) == []


def test_the_page_is_as_it_should_be_after_a_while_in_the_background(page: webdriver.Chrome, instrument: Instrument) -> None:
    front = page.current_window_handle
    page.switch_to.new_window("tab")
    try:
        for _ in range(400):
            instrument.call(lambda: instrument.hub.publish(instrument.world.step()))
    finally:
        page.close()
        page.switch_to.window(front)
    instrument.paused = True
    market = api(instrument, "/markets/hyperliquid/BTC")
    wait(page, lambda: number(page, "#price") == market["reference_price"])
    wait(page, lambda: text(page, "#link") == "connected" and not shown(page, "#lost"))
    wait(page, lambda: chosen_span(page) == "900")
    # The past is there without a hole: the span from its beginning to now is two thirds of the chart.
    heat = wait(page, lambda: (found := page.execute_script(HEAT))["warm"] > 1_000 and found)
    assert heat["cool"] > 1_000
    assert console_errors(page) == []


def test_alerts_open_by_keyboard_and_say_how_they_ended(page: webdriver.Chrome, instrument: Instrument) -> None:
    ended = msgspec.structs.replace(alert(), ends_ns=alert().starts_ns + 10**9, annotations={"reason": "reached"}, summary="Over.")
    instrument.call(lambda: instrument.hub.publish_alerts([ended], ()))
    wait(page, lambda: text(page, "#firing") == "nothing fires")
    first = page.find_element(By.CSS_SELECTOR, "#recent li")
    wait(page, lambda: "resolved (reached)" in first.text)
    assert not first.find_element(By.TAG_NAME, "p").is_displayed()
    first.find_element(By.TAG_NAME, "summary").send_keys(Keys.ENTER)
    wait(page, lambda: first.find_element(By.TAG_NAME, "p").is_displayed())
    # What the reader opened stays open while the rest of the page changes.
    before = number(page, "#price")
    wait(page, lambda: number(page, "#price") != before)
    assert first.find_element(By.TAG_NAME, "p").text == "Over."


def test_two_hundred_markets_can_be_picked_from(browser: webdriver.Chrome) -> None:
    with Instrument(World()) as instrument:
        instrument.paused = True
        one = instrument.world.step()
        many = tuple(msgspec.structs.replace(one.markets[0], symbol=f"COIN{n}") for n in range(200))
        instrument.call(lambda: instrument.hub.publish(msgspec.structs.replace(one, markets=many)))
        browser.get(f"http://127.0.0.1:{instrument.port}/#hyperliquid%2FCOIN177")
        wait(browser, lambda: text(browser, "#headline-title") == "hyperliquid COIN177" and number(browser, "#price") is not None)
        assert len(browser.find_elements(By.CSS_SELECTOR, "#picker option")) == 200
        assert len(column(browser, "#overview", 0)) == 200
        assert browser.find_element(By.CSS_SELECTOR, "#overview td.selected").text == "hyperliquid COIN177"
        assert browser.execute_script("return document.documentElement.scrollHeight") < 2_500


TEXTS = {
    "signedPercent(-0.00001).text": "0.00 %",
    "signedPercent(-0.0123).text": "−1.23 %",
    "amount(2310).text": "2.31 k",
    "baseName({ symbol: 'BTCUSDT' })": "BTC",
    "baseName({ symbol: 'xyz:TSLA' })": "TSLA",
    "baseName({ symbol: 'BTC-USD' })": "BTC",
    "baseName({ symbol: 'USDC' })": "USDC",
    "typicalFlow({ symbol: 'BTC', typical_flow_base: null, flow_window_covered_ratio: 0 }).text": "unknown",
    "typicalFlow({ symbol: 'BTC', typical_flow_base: 2310, flow_window_covered_ratio: 0.07 }).text": "2.31 k BTC (7 %)",
}


def test_numbers_are_written_for_people(page: webdriver.Chrome) -> None:
    calls = ", ".join(f"format.{call}" for call in TEXTS)
    assert page.execute_script(f"return import('/static/format.js').then(format => [{calls}])") == list(TEXTS.values())


def test_terms_are_explained_on_focus(page: webdriver.Chrome, instrument: Instrument) -> None:
    page.execute_script("document.querySelector('#barrier-title .term').focus()")
    wait(page, lambda: shown(page, "#tip"))
    assert "has to sell" in text(page, "#tip")
    page.switch_to.active_element.send_keys(Keys.ESCAPE)
    wait(page, lambda: not shown(page, "#tip"))
    missing = (
        "import('/static/terms.js').then(m => [...document.querySelectorAll('.term')].filter(t => !m.TERMS[t.dataset.term]).length)"
    )
    assert page.execute_script(f"return {missing}") == 0


def test_a_stale_market_says_why_and_does_not_look_live(page: webdriver.Chrome, instrument: Instrument) -> None:
    live = page.find_element(By.ID, "price").value_of_css_property("color")
    assert not shown(page, "#stale")
    instrument.world.markets[0].stale_reasons = ("book silent for 41 s",)
    wait(page, lambda: page.find_element(By.TAG_NAME, "body").get_attribute("data-stale") == "true")
    assert shown(page, "#stale")
    assert text(page, "#stale").startswith("stale: book silent for 41 s")
    assert page.find_element(By.ID, "price").value_of_css_property("color") != live
    assert "stale: book silent for 41 s" in column(page, "#feeds", 2)
    wait(page, lambda: column(page, "#overview", 4)[0] == "stale: book silent for 41 s")
    assert column(page, "#overview", 1)[0] == ""
    assert page.title.startswith("stale")
    instrument.world.markets[0].stale_reasons = ()
    wait(page, lambda: not shown(page, "#stale"))


def test_unknown_is_a_word_and_never_zero(browser: webdriver.Chrome) -> None:
    with Instrument(World()) as instrument:
        instrument.paused = True
        browser.get(f"http://127.0.0.1:{instrument.port}/")
        wait(browser, lambda: text(browser, "#link") == "connected")
        # A published market may be there already; then it is replaced by one of which nothing is known.
        unknown = _nothing_known(instrument.world)
        instrument.call(lambda: instrument.hub.publish(unknown))
        wait(browser, lambda: text(browser, "#price") == "unknown")
        for key in ("bid", "ask", "coverage", "open-interest", "account-age", "reference-age"):
            assert text(browser, f"[data-key={key}]") == "unknown"
        for table in ("#clusters", "#landing", "#survival"):
            assert text(browser, f"{table} tbody").startswith("unknown")
        assert text(browser, "#barrier-note").startswith("unknown")
        assert text(browser, "#completeness") == "none seen"
        assert text(browser, "#liquidated-totals").endswith("is not known yet")
        assert console_errors(browser) == []


def _nothing_known(world: World) -> Any:
    projection = world.step()
    fields: dict[str, Any] = dict.fromkeys(
        (
            "reference_price",
            "reference_age_s",
            "index_price",
            "funding_rate",
            "best_bid",
            "best_ask",
            "open_interest_base",
            "open_interest_usd",
            "coverage_ratio",
            "oldest_account_age_s",
            "median_account_age_s",
            "histogram",
            "cascade_down",
            "cascade_up",
            "typical_flow_base",
        )
    )
    fields |= {"reference_source": "none", "clusters": (), "liquidation_completeness": "none", "feeds": ()}
    fields |= {"stale": True, "stale_reasons": ("no price yet",)}
    return msgspec.structs.replace(projection, markets=(msgspec.structs.replace(projection.markets[0], **fields),))


def test_simulated_markets_carry_a_banner(browser: webdriver.Chrome) -> None:
    with Instrument(World(simulated=True)) as instrument:
        browser.get(f"http://127.0.0.1:{instrument.port}/")
        wait(browser, lambda: shown(browser, "#simulated"))
        assert text(browser, "#simulated").startswith("SIMULATED")
        assert set(column(browser, "#clusters", 6)) == {"simulated"}


def test_a_stopped_evaluation_and_a_lost_connection_are_said_in_words(page: webdriver.Chrome, instrument: Instrument) -> None:
    instrument.paused = True
    wait(page, lambda: shown(page, "#stale"))
    assert "no new evaluation for more than 3 s" in text(page, "#stale")
    assert text(page, "#link") == "connected"
    instrument.paused = False
    wait(page, lambda: not shown(page, "#stale"))

    instrument.call(instrument.stop_serving)
    wait(page, lambda: shown(page, "#lost"), 4.0)
    assert "not live" in text(page, "#lost")
    assert text(page, "#link") == "connection lost"
    assert text(page, "#ready") == "readiness unknown"
    assert float(page.find_element(By.TAG_NAME, "main").value_of_css_property("opacity")) < 0.9
    age_s = number(page, "[data-key=evaluation-age]") or 0.0
    wait(page, lambda: (number(page, "[data-key=evaluation-age]") or 0.0) > age_s + 0.5)

    price = number(page, "#price")
    instrument.call(instrument.serve)
    wait(page, lambda: text(page, "#link") == "connected" and not shown(page, "#lost"), 20.0)
    wait(page, lambda: number(page, "#price") != price)


@pytest.mark.parametrize(("width", "height", "dark"), [(390, 844, True), (1280, 800, False)])
def test_the_page_fits_a_phone_and_a_desk(tmp_path: Path, instrument: Instrument, width: int, height: int, dark: bool) -> None:
    with chromium(tmp_path / "profile", width=width, height=height, dark=dark) as driver:
        driver.get(f"http://127.0.0.1:{instrument.port}/")
        wait(driver, lambda: text(driver, "#link") == "connected" and number(driver, "#price") is not None)
        wait(driver, lambda: driver.execute_script(HEAT)["warm"] > 500)
        assert driver.execute_script("return document.documentElement.scrollWidth") <= width
        heat = driver.find_element(By.ID, "heat").rect
        assert heat["x"] >= 0
        assert heat["x"] + heat["width"] <= width
        assert heat["height"] >= 250
        assert console_errors(driver) == []
