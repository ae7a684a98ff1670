"""How the HTTP server is reached, and its limits."""

from __future__ import annotations

import ipaddress
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


def is_loopback(host: str) -> bool:
    """Tell whether ``host`` can only be reached from this machine; a name other than ``localhost`` counts as reachable."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class HttpSettings(BaseModel):
    """The ``http`` section of the configuration.

    The server is read-only: it has no request that changes anything. Still, positions of other people are nobody's business, so
    it listens on loopback unless told otherwise, and then insists on a password or on the operator's word that something in
    front of it asks for one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    enabled: bool = Field(default=True, description="whether to serve HTTP at all")
    host: str = Field(default="127.0.0.1", description="address to listen on; beyond loopback needs a password or open_to_network")
    port: int = Field(default=9477, ge=0, le=65_535, description="TCP port, 0 to 65535; 0 takes a free one")
    allowed_hosts: tuple[str, ...] = Field(
        default=(),
        max_length=100,
        description="names (no port) under which the server may be addressed, beside loopback names",
    )
    username: str = Field(default="liqmon", max_length=100, description="user name of HTTP basic authentication")
    password: SecretStr | None = Field(
        default=None,
        description="for HTTP basic authentication of all but /healthz and /readyz; 8 characters at least",
    )
    open_to_network: bool = Field(
        default=False, description="confirms listening beyond loopback without a password: the network or a proxy keeps others out"
    )
    redact_accounts: bool = Field(default=False, description="true hides account names behind aliases that last until the restart")
    # Each connection holds at most 32 KiB of header and a 64 KiB write buffer: 256 x 96 KiB = 24 MiB.
    max_connections: int = Field(default=256, ge=8, le=10_000, description="open connections, 8 to 10000; idle ones make room")
    max_stream_clients: int = Field(default=64, ge=1, le=5_000, description="open streams, 1 to 5000")
    header_timeout_s: float = Field(
        default=5.0, gt=0, le=60, description="seconds for a whole request header to arrive, at most 60"
    )
    response_timeout_s: float = Field(
        default=30.0, gt=0, le=300, description="seconds for a client to take its answer, at most 300"
    )
    keepalive_timeout_s: float = Field(default=30.0, gt=0, le=3_600, description="seconds an idle connection is kept, at most 3600")
    stream_interval_s: float = Field(
        default=0.5, ge=0.05, le=0.9, description="least seconds between two states of one market to one stream, 0.05 to 0.9"
    )
    stream_send_timeout_s: float = Field(
        default=5.0, gt=0, le=120, description="seconds in which a stream client has to take a batch, or it is cut, at most 120"
    )
    evaluation_timeout_s: float = Field(
        default=10.0, gt=0, le=3_600, description="seconds without a new evaluation after which every market is presented as stale"
    )
    # One costs 0.94 MB, see monitor/web/history.py.
    history_markets: int = Field(default=64, ge=0, le=5_000, description="markets with a history, 0 to 5000; 1 MB each")
    # 300 markets x 153 series = 46,000; x 12 us = 0.6 s a scrape, in a thread.
    max_series: int = Field(default=50_000, ge=100, le=1_000_000, description="series of /metrics, 100 to 1000000")

    @field_validator("host")
    @classmethod
    def _host_is_an_address(cls, host: str) -> str:
        if host != "localhost":
            try:
                ipaddress.ip_address(host)
            except ValueError:
                raise ValueError(f"{host!r} is neither an IP address to listen on nor 'localhost'") from None
        return host

    @field_validator("allowed_hosts")
    @classmethod
    def _names_without_port(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if not host or "/" in host or (":" in host and not host.startswith("[")) or host == "*":
                raise ValueError(f"{host!r} must be a host name or address without scheme and port; IPv6 in brackets")
        return tuple(host.lower() for host in hosts)

    @field_validator("password")
    @classmethod
    def _password_is_long_enough(cls, password: SecretStr | None) -> SecretStr | None:
        if password is not None and len(password.get_secret_value()) < 8:
            raise ValueError("the password has fewer than 8 characters")
        return password

    @field_validator("username")
    @classmethod
    def _username_fits_basic_authentication(cls, username: str) -> str:
        if not username or ":" in username:
            raise ValueError("the user name must not be empty and cannot contain ':'")
        return username

    @model_validator(mode="after")
    def _network_needs_protection(self) -> Self:
        if self.enabled and not is_loopback(self.host) and self.password is None and not self.open_to_network:
            raise ValueError(
                f"host {self.host} can be reached from other machines: set a password, or open_to_network: true if the network "
                "or a proxy in front keeps others out"
            )
        return self
