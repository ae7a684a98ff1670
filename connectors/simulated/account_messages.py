"""Account data of the simulated exchange in Hyperliquid's JSON (venues.md 1.6).

Amounts are exact decimals and rates the shortest text of the float, where the real venue rounds: figures can be compared to 1e-9.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from connectors.simulated.accounts import Floats
from connectors.simulated.exchange import Exchange, Trade
from connectors.simulated.liquidation_price import liquidation_price
from connectors.simulated.markets import MICROS_PER_USD, float_text, micro_text

Json = dict[str, object]


def clearinghouse_state(exchange: Exchange, row: int | None, prices_usd: Sequence[Floats] | None = None) -> Json:
    """Return the positions of one account as of the last block; ``None`` is an account that was never seen, which has nothing.

    Cash, account value and withdrawable of a unified account leave out its spot collateral, and so mean nothing, as on the real
    venue (25.9 shown where there is 977.6, venues.md 1.9); positions and maintenance mean what they always do; see
    :func:`spot_state`.

    Args:
        exchange: The exchange between two blocks.
        row: The account.
        prices_usd: What :func:`~connectors.simulated.liquidation_price.liquidation_prices` says of each market at the present
            marks, for those who make many answers from one block; finding a price for one position takes half of an answer's time.
    """
    table, marks = exchange.table, exchange.mark
    positions = [] if row is None else table.positions(row)
    cross_raw = 0 if row is None else int(table.raw[row])
    cross_notional = cross_value = isolated_notional = isolated_value = isolated_raw = 0
    cross_margin = isolated_margin = 0.0
    entries = []
    for market, lots in positions:
        assert row is not None, "only an account has positions"
        value = lots * marks[market]
        if table.isolated[row, market]:
            isolated_notional += abs(value)
            isolated_raw += int(table.isolated_raw[row, market])
            isolated_value += int(table.isolated_raw[row, market]) + value
            isolated_margin += (int(table.isolated_raw[row, market]) + value) / MICROS_PER_USD
        else:
            cross_notional += abs(value)
            cross_value += value
            cross_margin += abs(value) / MICROS_PER_USD / int(table.leverage[row, market])
        entries.append({"type": "oneWay", "position": _position(exchange, row, market, lots, prices_usd)})
    cross_value += cross_raw
    maintenance = 0.0 if row is None else table.cross_maintenance_usd(row, marks)
    return {
        "marginSummary": {
            "accountValue": micro_text(cross_value + isolated_value),
            "totalNtlPos": micro_text(cross_notional + isolated_notional),
            "totalRawUsd": micro_text(cross_raw + isolated_raw),
            "totalMarginUsed": float_text(cross_margin + isolated_margin),
        },
        "crossMarginSummary": {
            "accountValue": micro_text(cross_value),
            "totalNtlPos": micro_text(cross_notional),
            "totalRawUsd": micro_text(cross_raw),
            "totalMarginUsed": float_text(cross_margin),
        },
        "crossMaintenanceMarginUsed": float_text(maintenance),
        "withdrawable": float_text(max(0.0, cross_value / MICROS_PER_USD - cross_margin)),
        "assetPositions": entries,
        "time": exchange.time_ms,
    }


def _position(exchange: Exchange, row: int, market: int, lots: int, prices_usd: Sequence[Floats] | None) -> Json:
    table, mark, spec = exchange.table, exchange.mark[market], exchange.markets[market]
    setting = int(table.leverage[row, market])
    notional, cost = abs(lots * mark), abs(int(table.cost[row, market]))
    profit = lots * mark - int(table.cost[row, market])
    if prices_usd is None:
        liquidated_at = liquidation_price(table, row, market, exchange.mark)
    else:
        known = prices_usd[market].item(row)
        liquidated_at = None if math.isnan(known) else known
    if table.isolated[row, market]:
        raw = int(table.isolated_raw[row, market])
        leverage: Json = {"type": "isolated", "value": setting, "rawUsd": micro_text(raw)}
        margin_text = micro_text(raw + lots * mark)
    else:
        leverage = {"type": "cross", "value": setting}
        margin_text = float_text(notional / MICROS_PER_USD / setting)
    return {
        "coin": spec.coin,
        "szi": spec.size_text(lots),
        "leverage": leverage,
        "entryPx": float_text(table.entry_price(row, market) / spec.price_scale),
        "positionValue": micro_text(notional),
        "unrealizedPnl": micro_text(profit),
        "returnOnEquity": float_text(profit / (cost / setting)) if cost else "0.0",
        "liquidationPx": None if liquidated_at is None else float_text(liquidated_at),
        "marginUsed": margin_text,
        "maxLeverage": spec.max_leverage_at(notional / MICROS_PER_USD),
        "cumFunding": {"allTime": "0.0", "sinceOpen": "0.0", "sinceChange": "0.0"},
    }


def spot_state(exchange: Exchange, row: int | None) -> Json:
    """Return the spot balances: everything that stands behind the positions of a unified account, nothing otherwise.

    The venue's ratio of a unified account is ``crossMaintenanceMarginUsed / (total - sum of isolated marginUsed)`` (venues.md 1.9).
    It tells how near the account is to liquidation only if ``total`` has the unrealised profit in it, so ``total`` is read as the
    whole value: ``collateral + cash + sum(size * mark) over the cross positions + isolated equities``, at the marks of the last
    block, as the positions are. Less the isolated equities that is the value which the exchange compares with the maintenance, so
    the account is short exactly where the ratio passes 1. All terms are whole micro-USD: nothing is rounded.
    """
    if row is None or not exchange.table.unified[row]:
        return {"balances": []}
    table, marks = exchange.table, exchange.mark
    isolated = [market for market, _ in table.positions(row) if table.isolated[row, market]]
    total = table.cross_value(row, marks) + sum(table.isolated_value(row, market, marks[market]) for market in isolated)
    return {"balances": [{"coin": "USDC", "token": 0, "total": micro_text(total), "hold": "0.0", "entryNtl": "0.0"}]}


def account_mode(exchange: Exchange, row: int | None) -> str:
    """Return where an account keeps its collateral; accounts that were never seen are in standard mode."""
    return "unifiedAccount" if row is not None and exchange.table.unified[row] else "disabled"


def fills_data(exchange: Exchange, row: int, trades: Iterable[Trade]) -> list[Json]:
    """Return one account's side of trades; of a trade with itself, which cannot happen, it would be both."""
    data = []
    for trade in trades:
        if trade.buyer.account == row:
            data.append(_fill(exchange, trade, is_buyer=True))
        if trade.seller.account == row:
            data.append(_fill(exchange, trade, is_buyer=False))
    return data


def party_fills(exchange: Exchange, trades: Iterable[Trade]) -> list[tuple[str, Json]]:
    """Return both sides of trades as (account, fill), the buyer's first."""
    addresses = exchange.table.addresses
    sides = ((trade, party, is_buyer) for trade in trades for party, is_buyer in ((trade.buyer, True), (trade.seller, False)))
    return [(addresses[party.account], _fill(exchange, trade, is_buyer=is_buyer)) for trade, party, is_buyer in sides]


def _fill(exchange: Exchange, trade: Trade, *, is_buyer: bool) -> Json:
    spec = exchange.markets[trade.market]
    party = trade.buyer if is_buyer else trade.seller
    fill: Json = {
        "coin": spec.coin,
        "px": spec.price_text(trade.price),
        "sz": spec.size_text(trade.lots),
        "side": "B" if is_buyer else "A",
        "time": trade.time_ms,
        "startPosition": spec.size_text(party.start_lots),
        "dir": _direction(trade, party.start_lots, trade.lots if is_buyer else -trade.lots),
        "closedPnl": micro_text(party.closed_profit),
        "hash": trade.transaction,
        "oid": party.order_id,
        "crossed": party.is_taker,
        "fee": micro_text(party.fee),
        "tid": trade.trade_id,
        "feeToken": "USDC",
        "twapId": None,
    }
    if trade.forced is not None:
        fill["liquidation"] = {
            "liquidatedUser": exchange.table.addresses[trade.forced.account],
            "markPx": spec.price_text(trade.forced.mark),
            # The only recorded fill of an auto-deleveraging says "backstop", so the direction is what tells the two apart.
            "method": "market" if trade.forced.method == "market" else "backstop",
        }
    return fill


def _direction(trade: Trade, start_lots: int, signed_lots: int) -> str:
    forced = trade.forced
    if forced is not None and forced.method == "deleveraging":
        return "Auto-Deleveraging"
    if forced is not None and forced.method == "backstop":
        return f"Liquidated {'Isolated' if forced.is_isolated else 'Cross'} {'Long' if forced.is_long else 'Short'}"
    if start_lots * signed_lots >= 0:
        return "Open Long" if signed_lots > 0 else "Open Short"
    if abs(signed_lots) <= abs(start_lots):
        return "Close Long" if start_lots > 0 else "Close Short"
    return "Long > Short" if start_lots > 0 else "Short > Long"
