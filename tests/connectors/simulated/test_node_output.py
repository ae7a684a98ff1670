from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from connectors.simulated.account_messages import clearinghouse_state, fills_data
from connectors.simulated.exchange import ExchangeConfig
from connectors.simulated.node_output import NodeOutput, block_line, hourly_path
from connectors.simulated.population import PopulationConfig
from connectors.simulated.simulation import Simulation, SimulationConfig
from tests.connectors.simulated.worlds import START_MS, give, quote, set_mark, world

LOCAL_NS = START_MS * 1_000_000 + 144_831_874_828


def test_a_block_is_one_line_with_its_times_and_number() -> None:
    exchange, _ = world()
    exchange.begin_block(START_MS + 687)
    line = block_line(exchange, 758_800_641, local_ns=LOCAL_NS)
    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1
    assert json.loads(line) == {
        "local_time": "2025-10-09T08:55:44.831874828",
        "block_time": "2025-10-09T08:53:20.687",
        "block_number": 758_800_641,
        "events": [],
    }


def test_every_fill_is_there_for_both_parties_with_the_fields_of_the_real_node() -> None:
    exchange, engine = world(config=ExchangeConfig())
    give(exchange, 1, 0, 100.0, 1_000.0)
    quote(exchange, 0, [(95.0, 1_000.0)], is_bid=True)
    exchange.begin_block(START_MS + 1)
    set_mark(exchange, 0, 94.0)
    engine.run()
    events = json.loads(block_line(exchange, 1, local_ns=LOCAL_NS))["events"]
    (buyer, bought), (seller, sold) = events
    assert (buyer, seller) == (exchange.table.addresses[0], exchange.table.addresses[1])
    assert (bought["side"], sold["side"]) == ("B", "A")
    assert bought["tid"] == sold["tid"]
    assert bought["liquidation"]["liquidatedUser"] == sold["liquidation"]["liquidatedUser"] == seller
    # The fields of the recorded line in venues.md 1.10, and no others but the null that later versions of the node add.
    documented = {"coin", "px", "sz", "side", "time", "startPosition", "dir", "closedPnl", "hash", "oid", "crossed", "fee", "tid"}
    assert set(sold) == documented | {"liquidation", "feeToken", "twapId"}
    assert json.loads(json.dumps(fills_data(exchange, 1, exchange.trades))) == [sold]


def test_positions_follow_from_the_lines_alone(tmp_path: Path) -> None:
    config = SimulationConfig(seed=3, scenario="crash", population=PopulationConfig(accounts=150, isolated_share=0.3))
    simulation = Simulation(config)
    exchange, output = simulation.exchange, NodeOutput(tmp_path)
    sizes: dict[tuple[str, str], float] = defaultdict(float)
    for row, address in enumerate(simulation.table.addresses):
        for entry in state_of(simulation, row)["assetPositions"]:
            sizes[address, entry["position"]["coin"]] = float(entry["position"]["szi"])
    for block in range(1, 91):
        simulation.step(config.start_ms + 1_000 * block)
        output.write(block_line(exchange, block, local_ns=exchange.time_ms * 1_000_000), exchange.time_ms)
    output.close()
    (path,) = [path for path in tmp_path.rglob("*") if path.is_file()]
    blocks = [json.loads(line) for line in path.read_text().splitlines()]
    assert [block["block_number"] for block in blocks] == list(range(1, 91))
    directions = set()
    for block in blocks:
        for user, fill in block["events"]:
            held = sizes[user, fill["coin"]]
            assert held == pytest.approx(float(fill["startPosition"]), abs=1e-9)
            sizes[user, fill["coin"]] = held + float(fill["sz"]) * (1.0 if fill["side"] == "B" else -1.0)
            directions.add(fill["dir"])
    assert {"Open Long", "Close Long", "Liquidated Cross Long"} <= directions
    for row, address in enumerate(simulation.table.addresses):
        now = {entry["position"]["coin"]: entry["position"]["szi"] for entry in state_of(simulation, row)["assetPositions"]}
        for spec in simulation.config.markets:
            assert sizes[address, spec.coin] == pytest.approx(float(now.get(spec.coin, 0.0)), abs=1e-9)


def state_of(simulation: Simulation, row: int) -> Any:
    return clearinghouse_state(simulation.exchange, row)


def test_a_new_hour_is_a_new_file_and_a_restart_goes_on_in_the_same(tmp_path: Path) -> None:
    # 2025-10-09 has its last hour from this time on.
    late_ms = START_MS - START_MS % 86_400_000 + 23 * 3_600_000
    assert hourly_path(late_ms) == Path("node_fills_by_block/hourly/20251009/23")
    assert hourly_path(late_ms + 3_600_000) == Path("node_fills_by_block/hourly/20251010/0")
    first = NodeOutput(tmp_path)
    first.write(b"1\n", late_ms)
    assert (tmp_path / hourly_path(late_ms)).read_bytes() == b"1\n", "a line is on disk before the next one comes"
    first.close()
    second = NodeOutput(tmp_path)
    second.write(b"2\n", late_ms + 3_599_999)
    second.write(b"3\n", late_ms + 3_600_000)
    second.close()
    assert (tmp_path / hourly_path(late_ms)).read_bytes() == b"1\n2\n"
    assert (tmp_path / hourly_path(late_ms + 3_600_000)).read_bytes() == b"3\n"
