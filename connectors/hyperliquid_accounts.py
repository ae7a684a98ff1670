"""From decoded Hyperliquid account messages to events; the venue file is ``connectors/hyperliquid.py``."""

from __future__ import annotations

from typing import Final, Literal

from connectors import hyperliquid_wire as wire
from connectors.decoding import feed_error
from connectors.events import AccountMode, AccountModeReport, AccountSnapshot, AnyEvent, Liquidation, PositionReport
from connectors.frames import Frame

MILLISECOND_NS: Final = 1_000_000

ACCOUNT_MODES: Final[dict[str, AccountMode]] = {
    "disabled": "standard",
    "unifiedAccount": "unified",
    "portfolioMargin": "portfolio",
}
"""What the venue calls the modes; every other one, such as the retired ``dexAbstraction``, is unknown and not projected."""

AUTO_DELEVERAGING: Final = "Auto-Deleveraging"


def mode_events(frame: Frame, account: str, abstraction: str | None) -> list[AnyEvent]:
    """Return where the account keeps its collateral."""
    return [
        AccountModeReport(
            venue=frame.venue,
            connection=frame.connection,
            received_ns=frame.received_ns,
            account=account,
            mode=ACCOUNT_MODES.get(abstraction or "", "unknown"),
        )
    ]


def account_events(frame: Frame, account: str, state: wire.ClearinghouseState) -> list[AnyEvent]:
    """Return the account as it was at one moment, or that its mode is unknown where its cash is not that of its positions.

    The latter may be how unified accounts look, which keep their cash elsewhere and of which only the positions are said to mean
    something (venues.md 1.9). No number is taken over from such an answer, and it is no error: most accounts may be like that, and
    an account that gives errors would be asked for before all others.

    Raises:
        FeedError: the positions are not those of the totals, so that one is missing or a field was misread.
    """
    positions = [item.position for item in state.positions]
    if not _has_all_positions(state, positions):
        raise feed_error(frame.venue, "inconsistent", frame.payload or b"")
    if not _has_its_cash(state, positions):
        return mode_events(frame, account, None)
    return [
        AccountSnapshot(
            venue=frame.venue,
            connection=frame.connection,
            received_ns=frame.received_ns,
            account=account,
            exchange_ns=state.time_ms * MILLISECOND_NS,
            cross_cash_usd=state.cross.raw_usd,
            positions=tuple(_position_report(position) for position in positions if position.size),
            account_value_usd=state.cross.account_value,
            maintenance_margin_usd=state.cross_maintenance,
        )
    ]


def _position_report(position: wire.WirePosition) -> PositionReport:
    liquidation_price = position.liquidation_price
    return PositionReport(
        symbol=position.coin,
        size=position.size,
        entry_price=position.entry_price or None,
        isolated_cash_usd=position.leverage.raw_usd if position.leverage.type == "isolated" else None,
        liquidation_price=liquidation_price if liquidation_price is not None and liquidation_price > 0.0 else None,
        leverage=position.leverage.value,
    )


def _has_all_positions(state: wire.ClearinghouseState, positions: list[wire.WirePosition]) -> bool:
    """Check that the positions make up the account's notional, and that each isolated one has its own cash (venues.md 1.6).

    Values are rounded to a millionth of a dollar each, and large ones carry the noise of a double, hence the tolerances.
    """
    for position in positions:
        if position.leverage.type == "isolated":
            cash = position.leverage.raw_usd
            if cash is None or abs(cash + _value_usd(position) - position.margin_used_usd) > 0.01 + 1e-6 * position.value_usd:
                return False
    gross = sum(position.value_usd for position in positions)
    return abs(state.total.notional - gross) <= 0.01 + 1e-6 * gross


def _has_its_cash(state: wire.ClearinghouseState, positions: list[wire.WirePosition]) -> bool:
    """Check the venue's identities of cash and equity (venues.md 1.6): every total is the sum of its parts."""
    isolated = [position for position in positions if position.leverage.type == "isolated"]
    cross_value = sum(_value_usd(position) for position in positions if position.leverage.type == "cross")
    isolated_cash = sum(position.leverage.raw_usd or 0.0 for position in isolated)
    isolated_equity = isolated_cash + sum(_value_usd(position) for position in isolated)
    tolerance = 0.01 + 1e-6 * (state.total.notional + abs(state.cross.raw_usd) + abs(isolated_cash))
    differences = (
        state.cross.account_value - (state.cross.raw_usd + cross_value),
        state.total.raw_usd - (state.cross.raw_usd + isolated_cash),
        state.total.account_value - (state.cross.account_value + isolated_equity),
    )
    return all(abs(difference) <= tolerance for difference in differences)


def _value_usd(position: wire.WirePosition) -> float:
    """Return the signed value of a position at the mark."""
    return position.value_usd if position.size > 0.0 else -position.value_usd


def liquidation_events(frame: Frame, user: str | None, fills: list[wire.Fill]) -> list[AnyEvent]:
    """Return the liquidations that fills of one account were part of, as victim, maker or taker-over.

    The same fill is seen once more when the other party is watched too: ``fill_id`` and ``account`` are the same then.

    Args:
        frame: The frame of the message.
        user: Whose fills these are; ``None`` where the channel does not tell.
        fills: Fills of any kind; most belong to no liquidation.
    """
    events: list[AnyEvent] = []
    for fill in fills:
        side = _victim_side(fill, user)
        if fill.liquidation is None or side is None or not fill.size:
            continue
        victim = fill.liquidation.liquidated_user.lower()
        event = Liquidation(
            venue=frame.venue,
            connection=frame.connection,
            received_ns=frame.received_ns,
            symbol=fill.coin,
            exchange_ns=fill.time_ms * MILLISECOND_NS,
            side=side,
            price=fill.price,
            size=fill.size,
            completeness="partial",
            method="deleveraging" if fill.direction == AUTO_DELEVERAGING else fill.liquidation.method,
            account=victim,
            fill_id=fill.trade_id,
            liquidation_id=f"{fill.transaction}:{victim}:{fill.coin}",
        )
        events.append(event)
    return events


def _victim_side(fill: wire.Fill, user: str | None) -> Literal["long", "short"] | None:
    """Tell the side of the position that died, or ``None`` where that cannot be known.

    A take-over says it in words, on either party's fill (``Liquidated Isolated Short``). Otherwise the victim of a long position
    sold: if the fill is the victim's own, its side is that sale, and if it is the other party's, the opposite. Without the account
    a fill on the book is the victim's own when it took liquidity, because forced orders always do.
    """
    if fill.liquidation is None:
        return None
    if fill.direction.startswith("Liquidated"):
        return "long" if fill.direction.endswith("Long") else "short" if fill.direction.endswith("Short") else None
    if user is not None:
        is_own: bool | None = user.lower() == fill.liquidation.liquidated_user.lower()
    elif fill.liquidation.method == "market" and fill.direction != AUTO_DELEVERAGING:
        is_own = fill.crossed
    else:
        is_own = None
    if is_own is None:
        return None
    return "long" if (fill.side == "A") == is_own else "short"
