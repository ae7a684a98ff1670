"""From decoded Hyperliquid account messages to events; the venue file is ``connectors/hyperliquid.py``."""

from __future__ import annotations

import re
from typing import Final, Literal

from connectors import hyperliquid_wire as wire
from connectors.decoding import feed_error
from connectors.events import (
    AccountBalances,
    AccountMode,
    AccountModeReport,
    AccountSnapshot,
    AnyEvent,
    Completeness,
    HoldingReport,
    Liquidation,
    PositionReport,
)
from connectors.frames import Frame
from connectors.hyperliquid_markets import coin_of

MILLISECOND_NS: Final = 1_000_000

ACCOUNT_MODES: Final[dict[str, AccountMode]] = {
    "disabled": "standard",
    "unifiedAccount": "unified",
    "portfolioMargin": "portfolio",
}
"""What the venue calls the modes; every other one, such as the retired ``dexAbstraction``, is unknown and not projected."""

AUTO_DELEVERAGING: Final = "Auto-Deleveraging"

_OUTCOME: Final = re.compile(r"[+o]\d+")
"""Shares in an outcome, which are no token."""


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


def account_events(frame: Frame, account: str, state: wire.ClearinghouseState, *, dex: str = "") -> list[AnyEvent]:
    """Return one pool of the account, its positions and cash on one dex, as it was at one moment; marks are value over size.

    A unified or portfolio account keeps its cash elsewhere, and of its answer only the positions mean something (venues.md 1.9).
    The answer itself cannot tell: it often keeps all identities, with the equity of the positions in place of the account's value.
    Where the cash is plainly not that of the positions, the snapshot says ``mode="unknown"``: its positions, their maintenance and
    the cash of isolated ones hold, the cross cash is not to be used and the account value is left out. That is no error: many
    accounts may be like that, and an account that gives errors would be asked for before all others.

    Raises:
        FeedError: the positions are not those of the totals, so that one is missing or a field was misread.
    """
    positions = [item.position for item in state.positions]
    if not _has_all_positions(state, positions):
        raise feed_error(frame.venue, "inconsistent", frame.payload or b"")
    has_its_cash = _has_its_cash(state, positions)
    return [
        AccountSnapshot(
            venue=frame.venue,
            connection=frame.connection,
            received_ns=frame.received_ns,
            account=account,
            exchange_ns=state.time_ms * MILLISECOND_NS,
            cross_cash_usd=state.cross.raw_usd,
            positions=tuple(_position_report(frame, position, dex) for position in positions if position.size),
            account_value_usd=state.cross.account_value if has_its_cash else None,
            maintenance_margin_usd=state.cross_maintenance,
            pool=dex,
            mode=None if has_its_cash else "unknown",
        )
    ]


def balance_events(frame: Frame, account: str, state: wire.SpotState) -> list[AnyEvent]:
    """Return what an account holds outside of its positions, by token, and that it is in portfolio margin where that shows.

    Totals are taken as they are: what is on hold for orders and positions is part of them, and a negative one is owed. Tokens of
    which there is nothing are left out, and so are shares in outcomes, which back no position. Only accounts in portfolio margin
    borrow, and they are not projected, so that it does not matter whether a total is net of what is borrowed.

    Raises:
        FeedError: a token that calls itself USDC and is not, a token twice.
    """
    tokens = [balance for balance in state.balances if balance.token is not None or not _OUTCOME.fullmatch(balance.coin)]
    is_plausible = all(
        (balance.coin == "USDC") == (balance.token == wire.USDC_TOKEN) for balance in tokens if balance.token is not None
    )
    if not is_plausible or len({balance.coin for balance in tokens}) != len(tokens):
        raise feed_error(frame.venue, "inconsistent", frame.payload or b"")
    balances = AccountBalances(
        venue=frame.venue,
        connection=frame.connection,
        received_ns=frame.received_ns,
        account=account,
        balances=tuple(HoldingReport(symbol=balance.coin, quantity=balance.total) for balance in tokens if balance.total),
    )
    if state.is_portfolio_margin or any(balance.borrowed for balance in tokens):
        return [*mode_events(frame, account, "portfolioMargin"), balances]
    return [balances]


def _position_report(frame: Frame, position: wire.WirePosition, dex: str) -> PositionReport:
    liquidation_price = position.liquidation_price
    return PositionReport(
        symbol=coin_of(frame, position.coin, dex),
        size=position.size,
        entry_price=position.entry_price or None,
        isolated_cash_usd=position.leverage.raw_usd if position.leverage.type == "isolated" else None,
        liquidation_price=liquidation_price if liquidation_price is not None and liquidation_price > 0.0 else None,
        leverage=position.leverage.value,
        mark_price=position.value_usd / abs(position.size) or None,
        max_leverage=position.max_leverage,
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
    """Return the liquidations that fills of one watched account were part of, as victim, maker or taker-over.

    The same fill is seen once more when the other party is watched too: ``fill_id`` and ``account`` are the same then.

    Args:
        frame: The frame of the message.
        user: Whose fills these are; ``None`` where the channel does not tell.
        fills: Fills of any kind; most belong to no liquidation.
    """
    events = (liquidation_event(frame, user, fill, completeness="partial") for fill in fills if fill.liquidation is not None)
    return [event for event in events if event is not None]


def liquidation_event(
    frame: Frame, user: str | None, fill: wire.Fill, *, completeness: Completeness, is_deleveraging: bool = False
) -> Liquidation | None:
    """Return the liquidation that one fill is part of, or ``None`` if it is of none or the side that died cannot be known.

    Args:
        frame: The frame of the message.
        user: Whose fill it is; ``None`` where the channel does not tell.
        fill: The fill.
        completeness: How much of the liquidations the source shows.
        is_deleveraging: Whether the other party's fill says that it is one; this one says it in ``direction``.
    """
    side = _victim_side(fill, user)
    if fill.liquidation is None or side is None or not fill.size:
        return None
    victim = fill.liquidation.liquidated_user
    victim = None if victim is None else victim.lower()
    return Liquidation(
        venue=frame.venue,
        connection=frame.connection,
        received_ns=frame.received_ns,
        symbol=fill.coin,
        exchange_ns=fill.time_ms * MILLISECOND_NS,
        side=side,
        price=fill.price,
        size=fill.size,
        completeness=completeness,
        method="deleveraging" if is_deleveraging or fill.direction == AUTO_DELEVERAGING else fill.liquidation.method,
        account=victim,
        fill_id=fill.trade_id,
        liquidation_id=None if victim is None else f"{fill.transaction}:{victim}:{fill.coin}",
    )


def is_own_liquidation(fill: wire.Fill, user: str | None) -> bool | None:
    """Tell whether a fill with a liquidation is of the account that was liquidated, ``None`` where that cannot be known.

    Where the account or the victim is not named, a fill on the book is the victim's own when it took liquidity, because forced
    orders always do.
    """
    if fill.liquidation is None:
        return None
    if user is not None and fill.liquidation.liquidated_user is not None:
        return user.lower() == fill.liquidation.liquidated_user.lower()
    if fill.liquidation.method == "market" and fill.direction != AUTO_DELEVERAGING:
        return fill.crossed
    return None


def _victim_side(fill: wire.Fill, user: str | None) -> Literal["long", "short"] | None:
    """Tell the side of the position that died, or ``None`` where that cannot be known.

    A take-over says it in words, on either party's fill (``Liquidated Isolated Short``). Otherwise the victim of a long position
    sold: if the fill is the victim's own, its side is that sale, and if it is the other party's, the opposite.
    """
    if fill.liquidation is None:
        return None
    if fill.direction.startswith("Liquidated"):
        return "long" if fill.direction.endswith("Long") else "short" if fill.direction.endswith("Short") else None
    is_own = is_own_liquidation(fill, user)
    if is_own is None:
        return None
    return "long" if (fill.side == "A") == is_own else "short"
