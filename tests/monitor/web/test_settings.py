"""How the server may be configured."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from monitor.web.settings import HttpSettings, is_loopback


def test_accounts_are_named_unless_told_otherwise_and_the_choice_is_described() -> None:
    assert not HttpSettings().redact_accounts
    assert HttpSettings(redact_accounts=True).redact_accounts
    assert "aliases that last until the restart" in (HttpSettings.model_fields["redact_accounts"].description or "")


def test_the_default_is_loopback_without_a_password() -> None:
    settings = HttpSettings()
    assert (settings.host, settings.password, settings.open_to_network) == ("127.0.0.1", None, False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "10.0.0.1"])
def test_listening_beyond_loopback_needs_a_password_or_a_word(host: str) -> None:
    with pytest.raises(ValidationError, match="set a password, or open_to_network"):
        HttpSettings(host=host)
    assert HttpSettings(host=host, password="long enough").host == host  # type: ignore[arg-type]
    assert HttpSettings(host=host, open_to_network=True).host == host
    assert not HttpSettings(host=host, enabled=False).enabled


@pytest.mark.parametrize(
    "wrong",
    [
        {"port": -1},
        {"port": 65_536},
        {"host": "example.com"},
        {"host": ""},
        {"allowed_hosts": ["*"]},
        {"allowed_hosts": ["http://desk"]},
        {"allowed_hosts": ["desk:9477"]},
        {"password": "short"},
        {"username": "a:b"},
        {"header_timeout_s": 0},
        {"stream_interval_s": 0.0},
        {"max_connections": 1},
        {"max_series": 1},
        {"redact_accounts": "perhaps"},
        {"unheard_of": 1},
    ],
)
def test_wrong_values_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        HttpSettings(**wrong)


def test_the_password_does_not_show() -> None:
    assert "hunter22" not in repr(HttpSettings(password="hunter22"))  # type: ignore[arg-type]


def test_loopback_is_told_from_the_rest() -> None:
    assert all(is_loopback(host) for host in ("localhost", "127.0.0.1", "127.9.9.9", "::1"))
    assert not any(is_loopback(host) for host in ("0.0.0.0", "::", "desk", "10.0.0.1", ""))
