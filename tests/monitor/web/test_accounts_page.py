"""Accounts at risk on the live page, in a real browser.

Goal: the table and the account in full are those of the API, can be used with the keyboard alone, and nothing that is stale,
unknown, simulated or hidden is shown as anything else.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from monitor.account_report import AccountQuery, AtRiskOrder
from tests.browser import chromium, console_errors, requested_urls
from tests.monitor.web.account_builder import Account, Book, Margin, address, book
from tests.monitor.web.builder import World
from tests.monitor.web.running import Instrument
from tests.monitor.web.test_page import browser, column, shown, text, wait

__all__ = ["browser"]

ROWS = "#accounts tbody tr"


@pytest.fixture
def source() -> Book:
    return book()


@pytest.fixture
def instrument(source: Book) -> Iterator[Instrument]:
    with Instrument(World(), source, evaluation_timeout_s=3.0) as running:
        yield running


def open_page(browser: webdriver.Chrome, instrument: Instrument) -> webdriver.Chrome:
    """Load the page and scroll to the accounts."""
    browser.get("about:blank")
    console_errors(browser)
    requested_urls(browser)
    browser.get(f"http://127.0.0.1:{instrument.port}/")
    wait(browser, lambda: text(browser, "#link") == "connected")
    browser.execute_script("document.getElementById('accounts-panel').scrollIntoView()")
    wait(browser, lambda: len(column(browser, "#accounts", 0)) > 1)
    return browser


@pytest.fixture
def page(browser: webdriver.Chrome, instrument: Instrument) -> webdriver.Chrome:
    return open_page(browser, instrument)


def choose(driver: webdriver.Chrome, group: str, value: str) -> None:
    driver.find_element(By.CSS_SELECTOR, f"#{group} input[value='{value}']").send_keys(Keys.SPACE)


def numbers(driver: webdriver.Chrome, index: int) -> list[float | None]:
    return [float(value) if value else None for value in column(driver, "#accounts", index)]


def has_column(driver: webdriver.Chrome, index: int, expected: list[float]) -> bool:
    return numbers(driver, index) == expected


def titles(driver: webdriver.Chrome) -> list[str]:
    script = "return [...document.querySelectorAll(arguments[0])].map(row => row.cells[0].title.split(' ')[1])"
    return list(driver.execute_script(script, ROWS))


def sorted_columns(driver: webdriver.Chrome) -> list[str | None]:
    return [th.get_attribute("data-order") for th in driver.find_elements(By.CSS_SELECTOR, "#accounts th[aria-sort]")]


def live(driver: webdriver.Chrome, selector: str) -> bool:
    return driver.find_element(By.CSS_SELECTOR, selector).get_attribute("data-live") == "true"


def test_the_table_is_sorted_as_chosen_and_shows_what_the_api_says(
    page: webdriver.Chrome, source: Book, instrument: Instrument
) -> None:
    orders: tuple[tuple[AtRiskOrder, float, str], ...] = (
        ("notional", -0.1, "−10 %"),
        ("bad_debt", -0.2, "−20 %"),
        ("bad_debt", 0.1, "+10 %"),
        ("distance", -0.05, "−5 %"),
    )
    for order, move, written in orders:
        choose(page, "account-orders", order)
        choose(page, "account-moves", f"{move:g}")
        query = AccountQuery(venue="hyperliquid", symbol="BTC", order=order, move_ratio=move)
        expected = source.at_risk(query, 0).accounts
        debts = [row.bad_debt_usd for row in expected]
        wait(page, partial(has_column, page, 5, debts))
        assert titles(page) == [row.account for row in expected]
        assert numbers(page, 2) == [row.notional_usd for row in expected]
        assert numbers(page, 3) == [row.equity_usd for row in expected]
        assert numbers(page, 4) == [row.distance_ratio for row in expected]
        assert numbers(page, 7) == [row.liquidation_price for row in expected]
        assert column(page, "#accounts", 6) == [row.symbol for row in expected]
        assert sorted_columns(page) == [order]
        assert text(page, "#accounts-move") == f"at {written}"
    first = expected[0].account
    assert text(page, f"{ROWS} td") == f"{first[:8]}…{first[-6:]}"
    assert "1 account is not known well enough and not listed" in text(page, "#accounts-note")
    assert live(page, "#accounts-panel")
    assert console_errors(page) == []
    origins = tuple(f"{scheme}://127.0.0.1:{instrument.port}/" for scheme in ("http", "ws"))
    urls = requested_urls(page)
    assert any("/accounts?" in url for url in urls)
    assert {url for url in urls if not url.startswith((*origins, "about:"))} == set()


def test_the_table_follows_the_market_or_shows_all(page: webdriver.Chrome, source: Book) -> None:
    def listed(symbol: str | None) -> list[str]:
        return [row.account for row in source.at_risk(AccountQuery(symbol=symbol), 0).accounts]

    Select(page.find_element(By.ID, "picker")).select_by_visible_text("xyz:TSLA")
    wait(page, lambda: titles(page) == listed("xyz:TSLA"))
    choose(page, "account-scopes", "all")
    wait(page, lambda: titles(page) == listed(None))
    Select(page.find_element(By.ID, "picker")).select_by_visible_text("ETH")
    choose(page, "account-scopes", "market")
    wait(page, lambda: titles(page) == listed("ETH"))
    assert console_errors(page) == []


def test_one_account_opens_by_keyboard_and_gives_the_focus_back(page: webdriver.Chrome, source: Book) -> None:
    name = address(1)
    choose(page, "account-orders", "notional")
    button = wait(page, lambda: page.find_elements(By.CSS_SELECTOR, f"{ROWS} td[title$='{name}'] button"))[0]
    button.send_keys(Keys.ENTER)
    wait(page, lambda: text(page, "#account-state") == "live" and page.find_elements(By.CSS_SELECTOR, "#account .margin"))
    assert text(page, "#account-name") == name
    assert page.switch_to.active_element.get_attribute("id") == "account-close"
    assert not shown(page, "#account-reasons")
    assert not shown(page, "#account-simulated")
    headings = [heading.text for heading in page.find_elements(By.CSS_SELECTOR, "#account h3")]
    assert headings == ["Cross margin", "Isolated margin, ETH"]

    report = source.account("hyperliquid", name, 0)
    assert report is not None
    legs = report.margins[0].legs
    table = "#account .margin:first-child table"
    assert column(page, table, 0) == ["BTC", "ETH"]
    assert column(page, table, 1) == ["long", "short"]
    for index, field in (
        (3, "entry_price"),
        (4, "price"),
        (8, "liquidation_price"),
        (9, "distance_ratio"),
        (10, "bankruptcy_price"),
    ):
        assert [float(value) for value in column(page, table, index)] == [getattr(leg, field) for leg in legs]
    assert column(page, table, 11) == [str(legs[0].venue_liquidation_price), ""]
    disagreement = [cell.text for cell in page.find_elements(By.CSS_SELECTOR, f"{table} td:nth-child(13)")]
    assert disagreement == ["−0.0200 %", "–"]
    equity = page.find_element(By.CSS_SELECTOR, "#account .margin:first-child [data-key=equity]").get_attribute("value")
    assert float(equity or "nan") == report.margins[0].equity_usd

    # A term inside of the dialog is explained above it.
    page.execute_script("document.querySelector('#account [data-term=bankruptcy]').focus()")
    wait(page, lambda: shown(page, "#tip"))
    assert page.execute_script("return document.getElementById('tip').closest('dialog') !== null")
    page.switch_to.active_element.send_keys(Keys.ESCAPE)
    wait(page, lambda: not shown(page, "#account"))
    assert page.switch_to.active_element == button
    assert console_errors(page) == []


def test_a_row_keeps_the_focus_when_the_order_changes(page: webdriver.Chrome, source: Book) -> None:
    before = titles(page)
    button = page.find_elements(By.CSS_SELECTOR, f"{ROWS} button")[3]
    page.execute_script("arguments[0].focus()", button)
    source.prices["BTC"] *= 1.004
    wait(page, lambda: titles(page) != before)
    assert titles(page).index(before[3]) != 3
    assert page.switch_to.active_element == button
    assert before[3] in (button.get_attribute("aria-label") or "")
    button.send_keys(Keys.ENTER)
    wait(page, lambda: text(page, "#account-name") == before[3])
    close(page)


def look_up(driver: webdriver.Chrome, name: str) -> None:
    field = driver.find_element(By.ID, "account-wanted")
    field.clear()
    field.send_keys(name + Keys.ENTER)
    wait(driver, lambda: text(driver, "#account-name") == name and text(driver, "#account-state") != "waiting")


def close(driver: webdriver.Chrome) -> None:
    driver.find_element(By.ID, "account-close").click()
    wait(driver, lambda: not shown(driver, "#account"))


def test_stale_and_unknown_accounts_are_looked_up_and_do_not_look_live(page: webdriver.Chrome) -> None:
    figure = "#account [data-key=equity]"
    look_up(page, address(1))
    colour = page.find_element(By.CSS_SELECTOR, figure).value_of_css_property("color")
    assert live(page, "#account")
    close(page)

    look_up(page, address(2))
    assert text(page, "#account-state") == "stale"
    assert text(page, "#account-reasons").startswith("stale: fills of")
    assert text(page, "#account-reasons").endswith("These numbers held once and are not live.")
    assert not live(page, "#account")
    node = page.find_element(By.CSS_SELECTOR, "#account dd")
    assert node.value_of_css_property("color") != colour
    assert node.value_of_css_property("font-style") == "italic"
    close(page)

    look_up(page, address(3))
    assert text(page, "#account-state") == "unknown"
    assert "unified mode, and its spot balance is not known" in text(page, "#account-reasons")
    assert {text(page, f"#account [data-key={key}]") for key in ("equity", "surplus", "distance", "usage")} == {"unknown"}
    assert set(column(page, "#account table", 8)) == {""}
    close(page)
    assert console_errors(page) == []

    look_up(page, "nobody")
    assert text(page, "#account-state") == "unknown"
    assert "has never been seen" in text(page, "#account-reasons")
    assert page.find_elements(By.CSS_SELECTOR, "#account .margin") == []


def test_an_account_below_its_maintenance_margin_has_no_distance_left(page: webdriver.Chrome, source: Book) -> None:
    source.accounts[0].margins = [Margin("cross", 10.0, {"BTC": 1.0})]
    source.accounts[0].margins[0].cash = -source.prices["BTC"] * 0.99
    choose(page, "account-scopes", "all")
    cell = f"{ROWS} td[title$='{address(1)}'] ~ td:nth-child(5)"
    wait(page, lambda: page.find_elements(By.CSS_SELECTOR, cell) and text(page, cell) == "liquidatable")
    look_up(page, address(1))
    assert text(page, "#account [data-key=distance]") == "liquidatable"
    close(page)


def test_an_account_that_becomes_stale_while_it_is_looked_at_says_so(page: webdriver.Chrome, source: Book) -> None:
    look_up(page, address(1))
    assert live(page, "#account")
    source.accounts[0].state, source.accounts[0].reasons = "stale", ("the feed was lost",)
    wait(page, lambda: text(page, "#account-state") == "stale")
    assert text(page, "#account-reasons").startswith("stale: the feed was lost.")
    close(page)
    wait(page, lambda: address(1) not in titles(page))


def test_a_list_that_is_not_renewed_is_not_live(page: webdriver.Chrome, instrument: Instrument) -> None:
    assert not shown(page, "#accounts-stale")
    instrument.paused = True
    wait(page, lambda: shown(page, "#accounts-stale"))
    assert "no new evaluation for more than 3 s" in text(page, "#accounts-stale")
    assert not live(page, "#accounts-panel")
    instrument.paused = False
    wait(page, lambda: live(page, "#accounts-panel"))

    look_up(page, address(1))
    instrument.call(instrument.stop_serving)
    wait(page, lambda: text(page, "#account-state") == "stale", 15.0)
    assert "no new answer since" in text(page, "#account-reasons")
    close(page)
    wait(page, lambda: shown(page, "#accounts-stale"))
    assert "no new answer (liqmon does not answer)" in text(page, "#accounts-stale")
    assert not live(page, "#accounts-panel")
    instrument.call(instrument.serve)
    wait(page, lambda: live(page, "#accounts-panel"))


def test_without_a_source_the_table_says_unknown(browser: webdriver.Chrome, instrument: Instrument) -> None:
    instrument.hub.accounts = None
    browser.get(f"http://127.0.0.1:{instrument.port}/")
    browser.execute_script("document.getElementById('accounts-panel').scrollIntoView()")
    wait(browser, lambda: text(browser, "#accounts tbody") == "unknown: nothing is known of accounts yet")
    assert not live(browser, "#accounts-panel")
    assert text(browser, "#accounts-note") == ""


def test_simulated_accounts_are_marked(browser: webdriver.Chrome) -> None:
    with Instrument(World(simulated=True), book(simulated=True)) as instrument:
        page = open_page(browser, instrument)
        assert text(page, "#accounts-simulated") == "simulated"
        assert shown(page, "#accounts-simulated")
        assert all(kind.endswith(", simulated") for kind in column(page, "#accounts", 1))
        look_up(page, address(1))
        wait(page, lambda: shown(page, "#account-simulated"))
        close(page)


def test_aliases_can_be_opened_and_no_real_name_is_on_the_page(browser: webdriver.Chrome, source: Book) -> None:
    with Instrument(World(), source, redact_accounts=True) as instrument:
        page = open_page(browser, instrument)
        aliases = titles(page)
        assert all(alias.startswith("account-") for alias in aliases)
        assert "Names are aliases" in text(page, "#accounts-note")
        page.find_element(By.CSS_SELECTOR, f"{ROWS} button").click()
        wait(page, lambda: text(page, "#account-state") == "live")
        assert text(page, "#account-name") == aliases[0]
        assert "its name is an alias" in text(page, "#account-note")
        html = page.execute_script("return document.documentElement.outerHTML")
        assert [account.name for account in source.accounts if account.name in html] == []
        close(page)


def test_a_name_is_text_whatever_is_in_it(browser: webdriver.Chrome) -> None:
    name = "<img/src=x:y/onerror=document.title='taken'>"
    accounts = [Account(name, [Margin("cross", 9_000.0, {"BTC": 1.0})]), Account("plain", [Margin("cross", 9_000.0, {"BTC": 2.0})])]
    with Instrument(World(), Book(accounts)) as instrument:
        page = open_page(browser, instrument)
        assert sorted(titles(page)) == sorted([name, "plain"])
        look_up(page, name)
        assert page.find_elements(By.CSS_SELECTOR, "#accounts-panel img, #account img") == []
        assert "taken" not in page.title
        assert console_errors(page) == []
        close(page)


@pytest.mark.parametrize(("width", "height", "dark"), [(390, 844, True), (1280, 800, False)])
def test_table_and_account_fit_a_phone_and_a_desk(
    tmp_path: Path, instrument: Instrument, width: int, height: int, dark: bool
) -> None:
    with chromium(tmp_path / "profile", width=width, height=height, dark=dark) as driver:
        page = open_page(driver, instrument)
        look_up(page, address(1))
        wait(page, lambda: page.find_elements(By.CSS_SELECTOR, "#account .margin"))
        assert page.execute_script("return document.documentElement.scrollWidth") <= width
        for selector in ("#account", "#account-close", "#account-state", "#account .scroll"):
            box = page.find_element(By.CSS_SELECTOR, selector).rect
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width
        assert page.find_element(By.ID, "account").rect["height"] <= height
        assert console_errors(page) == []
