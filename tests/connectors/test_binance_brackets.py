from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import zstandard

from connectors.binance import SHIPPED_BRACKETS
from connectors.binance_brackets import MAX_ERRORS, BracketError, Brackets, load_brackets, venue_symbol
from connectors.events import MarginTier


def write(folder: Path, content: object) -> Path:
    path = folder / "brackets.json"
    path.write_text(json.dumps(content))
    return path


def own(rows: list[list[float | None]]) -> dict[str, object]:
    return {"version": "1", "source": "test", "symbols": {"BTCUSDT": rows}}


def maintenance(tiers: tuple[MarginTier, ...], notional: float) -> float:
    tier = [tier for tier in tiers if tier.lower_bound_usd <= notional][-1]
    return notional * tier.maintenance_rate - tier.deduction_usd


def test_the_shipped_brackets_end_where_nothing_is_known() -> None:
    found = SHIPPED_BRACKETS.symbols["BTCUSDT"]
    assert SHIPPED_BRACKETS.version == "2026-08"
    assert [tier.maintenance_rate for tier in found.tiers] == [0.004, 0.005, 0.0065, 0.01]
    assert found.cap_usd == 12_000_000.0
    assert maintenance(found.tiers, 1_000_000.0) == pytest.approx(5_000.0)


@pytest.mark.parametrize(
    ("name", "symbols", "tiers", "bitcoin", "cap"),
    [
        ("binance_leverage_tiers_2022-02-05.json.zst", 162, 1077, "BTCUSDT", 1.0e9),
        ("binance_leverage_tiers_2024-10-24.json.zst", 348, 2795, "BTCUSDT_241227", 1.8e9),
        ("binance_leverage_tiers_pypi_2026.9.json.zst", 906, 7266, "BTCUSDT_261225", 1.8e9),
    ],
)
def test_three_generations_of_foreign_files_are_read_whole(
    shared_data: Path, tmp_path: Path, name: str, symbols: int, tiers: int, bitcoin: str, cap: float
) -> None:
    packed = (shared_data / "data" / "binance_leverage_tiers" / name).read_bytes()
    path = tmp_path / "tiers.json"
    path.write_bytes(zstandard.ZstdDecompressor().stream_reader(io.BytesIO(packed)).read())
    brackets = load_brackets(path)
    assert len(brackets.symbols) == symbols
    assert sum(len(item.tiers) for item in brackets.symbols.values()) == tiers
    assert "ETHBTC" not in brackets.symbols, "its floors are in bitcoin"
    assert brackets.symbols["BTCUSDT"].cap_usd == cap
    for item in (brackets.symbols[bitcoin], brackets.symbols["BTCUSDT"]):
        for tier in item.tiers[1:]:
            below, above = (
                maintenance(item.tiers, tier.lower_bound_usd * (1 - 1e-12)),
                maintenance(item.tiers, tier.lower_bound_usd),
            )
            assert below == pytest.approx(above)


def test_the_answer_of_the_signed_endpoint_is_read(tmp_path: Path) -> None:
    bracket = {
        "bracket": 1,
        "initialLeverage": 75,
        "notionalCap": 10000,
        "notionalFloor": 0,
        "maintMarginRatio": 0.0065,
        "cum": 0.0,
    }
    second = {
        "bracket": 2,
        "initialLeverage": 50,
        "notionalCap": 50000,
        "notionalFloor": 10000,
        "maintMarginRatio": 0.01,
        "cum": 35.0,
    }
    brackets = load_brackets(write(tmp_path, [{"symbol": "ETHUSDT", "notionalCoef": 1.5, "brackets": [bracket, second]}]))
    assert brackets.symbols["ETHUSDT"].tiers[1] == MarginTier(
        lower_bound_usd=10000.0, maintenance_rate=0.01, deduction_usd=35.0, max_leverage=50.0
    )
    assert brackets.symbols["ETHUSDT"].cap_usd == 50000.0


def test_a_table_without_an_end_row_has_no_cap(tmp_path: Path) -> None:
    brackets = load_brackets(write(tmp_path, own([[0, 0.004, 0, 125]])))
    assert brackets.symbols["BTCUSDT"].cap_usd is None
    assert isinstance(brackets, Brackets)


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([], "BTCUSDT has no rows"),
        ([[5, 0.004, 0, 125]], "row 1: the first row must have floor 0"),
        ([[0, 0.004, 3, 125]], "row 1: the first row must have floor 0"),
        ([[0, 0.004, 0, 125], [300, 0.005, 0.3, 100], [300, 0.006, 0.6, 50]], "row 3: floor 300 is not above 300"),
        ([[0, 0.004, 0, 125], [300000, 0.005, 301, 100]], "row 2: deduction 301 does not continue the one before, expected 300"),
        ([[0, 0.005, 0, 125], [300000, 0.004, 0, 100]], "row 2: maintenance rate 0.004 is not above 0.005"),
        ([[0, 0.4, 0, 125]], "row 1: maintenance rate 0.4 exceeds the initial margin at leverage 125"),
        ([[0, 1.5, 0, None]], "row 1: maintenance rate 1.5 is not a fraction"),
        ([[0, 0.0, 0, None]], "row 1: maintenance rate 0.0 is not a fraction"),
        ([[0, 0.004, None, 125]], "row 1: deduction None"),
        ([[0, 0.004, 0, 0]], "row 1: leverage 0 is not between"),
        ([[0, 0.004, 0, 100], [300000, 0.005, 300, 125]], "row 2: leverage 125 is not below 100"),
        ([[0, None, None, None]], "row 1: only the last row of several"),
        ([[0, 0.004, 0, 1], [5, None, None, None], [9, None, None, None]], "row 2: only the last row of several"),
        ([[0, 0.004, 0, 1], [5, None, 3, None]], "row 2: has no rate but a deduction"),
        ([[0, 0.004, 0, 1], [0, None, None, None]], "row 2: floor 0 is not above 0"),
    ],
)
def test_an_impossible_table_is_refused_with_symbol_and_row(tmp_path: Path, rows: list[list[float | None]], complaint: str) -> None:
    with pytest.raises(BracketError) as caught:
        load_brackets(write(tmp_path, own(rows)))
    assert complaint in str(caught.value)
    assert "BTCUSDT" in str(caught.value)


def test_all_errors_are_listed_at_once_up_to_a_limit(tmp_path: Path) -> None:
    symbols = {f"A{number}USDT": [[0, 2, 0, None]] for number in range(MAX_ERRORS + 5)}
    with pytest.raises(BracketError) as caught:
        load_brackets(write(tmp_path, {"version": "1", "source": "", "symbols": symbols}))
    assert str(caught.value).count("maintenance rate") == MAX_ERRORS
    assert "... and 5 more" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "truncated"),
        (b"{", "truncated"),
        (b"{}", "no symbols"),
        (b"[]", "no symbols"),
        (b'{"version":"1","source":"","symbols":{}}', "no symbols"),
        (b'{"version":"","source":"","symbols":{}}', "length"),
        (b'{"version":"1","source":"","symbols":{"A":[[-1,0.1,0,1]]}}', "$.symbols"),
        (b'{"version":"1","source":"","symbols":{"A":[[0,"0.1",0,1]]}}', "$.symbols"),
        (b'{"BTC/USDT":[{"tier":1,"maxLeverage":5,"info":{"cum":"0"}}]}', "neither minNotional"),
        (
            b'{"BTC/USDT":[{"minNotional":0,"maxNotional":5,"maintenanceMarginRate":"NaN","maxLeverage":5,"info":{"cum":"0"}}]}',
            "rate nan",
        ),
        (b'[{"symbol":"A","brackets":[{"notionalFloor":0}]}]', "missing required field"),
        (b"[" * 100_000, "Expected `object`"),
        (b'{"version":' + b"[" * 100_000, "recursion"),
        (b'{"version":"\xff"}', "utf-8"),
    ],
)
def test_a_file_that_is_none_of_the_layouts_is_refused(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "brackets.json"
    path.write_bytes(content)
    with pytest.raises(BracketError, match=r"brackets\.json") as caught:
        load_brackets(path)
    assert complaint in str(caught.value)


def test_two_names_for_one_symbol_are_refused(tmp_path: Path) -> None:
    tiers = [{"minNotional": 0, "maxNotional": 5, "maintenanceMarginRate": 0.1, "maxLeverage": 5, "info": {"cum": "0"}}]
    with pytest.raises(BracketError, match="a second table for BTCUSDT"):
        load_brackets(write(tmp_path, {"BTC/USDT": tiers, "BTC/USDT:USDT": tiers}))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BracketError, match=r"absent\.json: No such file"):
        load_brackets(tmp_path / "absent.json")


@pytest.mark.parametrize(
    ("name", "symbol"),
    [
        ("BTCUSDT_210326", "BTCUSDT_210326"),
        ("BTC/BUSD", "BTCBUSD"),
        ("BTC/USDT:USDT", "BTCUSDT"),
        ("BTC/USDT:USDT-261225", "BTCUSDT_261225"),
        ("ETH/BTC:BTC", None),
        ("ETH/BTC", None),
    ],
)
def test_foreign_names_become_the_venues_own(name: str, symbol: str | None) -> None:
    assert venue_symbol(name) == symbol
