"""Aliases in the place of account names, for whoever may see the numbers but not whose they are.

An alias is a keyed hash: without the key, which is drawn at the start and leaves the process nowhere, nobody can hash a list of
known addresses and compare. The real name finds nothing here, so a request cannot be used to ask whether an account is watched.
Sizes and prices are not hidden; who knows a position exactly may recognise it.
"""

from __future__ import annotations

import hashlib
import logging
import re
import secrets
from collections import OrderedDict

import msgspec

from monitor.account_report import AccountReport, AccountsAtRisk, Disagreements
from monitor.projection import ConnectionHealth, DaemonStatus

ALIASES_MAX = 65_536
"""Aliases that can be asked for, those shown last: at some 300 bytes each 20 MB. A list shows 500 at most, and what is shown again
stays."""

ALIAS_BYTES = 6
"""12 hexadecimal digits. Of 65,536 accounts two share an alias with probability 65,536^2 / 2 / 2^48 = 8e-6; the second then gets
another one."""

WITHHELD = "(withheld)"

_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}(?![0-9a-fA-F])")
# Longer hexadecimal numbers, bech32 addresses (dYdX) and long base58 words are no names that we know how to write in one way.
_NAME_LIKE = re.compile(r"0x[0-9a-fA-F]{16,}|\b[a-z]{1,16}1[02-9ac-hj-np-z]{38,}(?:/\d+)?|\b(?=\w*\d)[1-9A-HJ-NP-Za-km-z]{32,64}\b")
_QUOTED = re.compile(r"(?<!\w)'[^']*'(?!\w)|\"[^\"]*\"")
_ACCOUNT_PATH = re.compile(r"(/api/v1/accounts/)[^\s'\"]+")


class Redaction:
    """Gives every account an alias, and finds the account of an alias that was given.

    Args:
        key: of the hash; drawn anew for every process unless given.
        aliases_max: how many aliases are remembered.
    """

    def __init__(self, key: bytes | None = None, aliases_max: int = ALIASES_MAX) -> None:
        self.forgotten = 0
        """Aliases that made room for newer ones; they are unknown until their account is shown again."""
        self._key = key if key is not None else secrets.token_bytes(32)
        self._aliases_max = aliases_max
        self._accounts: OrderedDict[str, tuple[str, str]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._accounts)

    def alias(self, venue: str, account: str) -> str:
        """Return the alias of an account, the same one for as long as this object lives, and remember whose it is."""
        attempt = 0
        while True:
            alias = f"account-{self._digest(venue, account, attempt)}"
            known = self._accounts.setdefault(alias, (venue, account))
            if known == (venue, account):
                break
            attempt += 1
        self._accounts.move_to_end(alias)
        if len(self._accounts) > self._aliases_max:
            self._accounts.popitem(last=False)
            self.forgotten += 1
        return alias

    def account(self, venue: str, alias: str) -> str | None:
        """Return the account of an alias that was given out.

        Only the table of aliases is looked at. A real name is to it what any other wrong word is, and no comparison with real
        names takes place, so neither the answer nor the time it takes depends on whether such an account is known.
        """
        known = self._accounts.get(alias)
        return known[1] if known is not None and known[0] == venue else None

    def text(self, venue: str, text: str, account: str | None = None) -> str:
        """Return free text without the name of ``account``, without addresses, and without anything that looks like one."""
        if not text:
            return text
        if account:
            text = re.sub(rf"(?<!\w){re.escape(account)}(?!\w)", self.alias(venue, account), text)
        text = _ADDRESS.sub(lambda found: self.alias(venue, found.group().lower()), text)
        return _NAME_LIKE.sub(WITHHELD, text)

    def at_risk(self, answer: AccountsAtRisk) -> AccountsAtRisk:
        """Return a list with aliases."""
        rows = tuple(
            msgspec.structs.replace(
                row, account=self.alias(row.venue, row.account), pool=self.text(row.venue, row.pool, row.account)
            )
            for row in answer.accounts
        )
        return msgspec.structs.replace(answer, accounts=rows)

    def report(self, report: AccountReport) -> AccountReport:
        """Return a report with an alias, also in its reasons."""
        venue, account = report.venue, report.account
        margins = tuple(msgspec.structs.replace(margin, pool=self.text(venue, margin.pool, account)) for margin in report.margins)
        reasons = tuple(self.text(venue, reason, account) for reason in report.reasons)
        return msgspec.structs.replace(report, account=self.alias(venue, account), reasons=reasons, margins=margins)

    def disagreements(self, answer: Disagreements) -> Disagreements:
        """Return disagreements with aliases."""
        worst = tuple(msgspec.structs.replace(row, account=self.alias(row.venue, row.account)) for row in answer.worst)
        return msgspec.structs.replace(answer, worst=worst)

    def status(self, status: DaemonStatus) -> DaemonStatus:
        """Return a report about the process whose connections, some of which follow one account each, name none."""
        return msgspec.structs.replace(status, connections=tuple(self._connection(health) for health in status.connections))

    def _connection(self, health: ConnectionHealth) -> ConnectionHealth:
        # What is quoted comes from outside and may be anything; our own words are not quoted.
        detail = _QUOTED.sub(WITHHELD, self.text(health.venue, health.detail))
        silent = tuple(self.text(health.venue, channel) for channel in health.silent_channels)
        return msgspec.structs.replace(health, detail=detail, silent_channels=silent)

    def _digest(self, venue: str, account: str, attempt: int) -> str:
        name = f"{venue}\0{account}\0{attempt}".encode("utf-8", "surrogatepass")
        return hashlib.blake2b(name, digest_size=ALIAS_BYTES, key=self._key).hexdigest()


class WithheldError(Exception):
    """Stands in a log for an error whose own text might name an account."""


class RedactingFilter(logging.Filter):
    """Takes what may name an account out of log lines: paths, addresses, and the texts of errors, but not where they happened."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record; nothing is kept back."""
        text = _ADDRESS.sub(WITHHELD, _ACCOUNT_PATH.sub(rf"\1{WITHHELD}", record.getMessage()))
        record.msg, record.args = _NAME_LIKE.sub(WITHHELD, text), ()
        if record.exc_info and record.exc_info[1] is not None:
            kind, _, trace = record.exc_info
            # A new error has no text of the old one, nor of those that led to it.
            withheld = WithheldError(f"{kind.__name__ if kind else 'error'} {WITHHELD}")
            record.exc_info = (WithheldError, withheld, trace)
        record.exc_text = None
        return True
