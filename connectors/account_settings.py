"""What the operator says about account feeds. Secrets are given as a file or an environment variable and never as a value."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints, field_validator, model_validator

from connectors.account_feed import AccountFeed
from connectors.registry import VENUES

STRICT: Final = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

SECRET_BYTES_MAX: Final = 64 * 1024
"""The largest tokens, signed ones with all their claims, have some 8 kB; beyond this it is the wrong file."""

_SYMBOL = re.compile(r"[^\s/+#\"'\\\x00-\x1f\x7f]{1,40}")
_TOPIC_BYTES_MAX: Final = 1_000
"""The protocol allows 65,535 bytes, brokers much less."""

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]
EnvironmentName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")]


class SecretError(Exception):
    """A secret cannot be read; the message names its source and never its content."""


class WebsocketFeedSettings(BaseModel):
    """A websocket server that sends the feed."""

    model_config = STRICT

    type: Literal["websocket"] = Field(description="always websocket")
    url: str = Field(max_length=500, description="ws:// or wss:// address of the server, without user, password or query")
    bearer_token_file: Path | None = Field(
        default=None, description="file with the token of an Authorization: Bearer header; read again for each connection"
    )
    bearer_token_env: EnvironmentName | None = Field(default=None, description="environment variable with that token")

    @field_validator("url")
    @classmethod
    def _url_is_complete(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            usable = parts.scheme in {"ws", "wss"} and bool(parts.hostname) and parts.port != 0
        except ValueError:
            raise ValueError("is no valid URL") from None
        if not usable or re.search(r"\s", url):
            raise ValueError("must be a complete ws:// or wss:// address")
        if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
            raise ValueError("must not hold a user name, a password, a query or a fragment: a token goes into bearer_token_file")
        return url

    @model_validator(mode="after")
    def _one_token(self) -> WebsocketFeedSettings:
        if self.bearer_token_file is not None and self.bearer_token_env is not None:
            raise ValueError("bearer_token_file and bearer_token_env exclude each other")
        return self

    def read_token(self, environment: Mapping[str, str]) -> SecretStr | None:
        """Return the bearer token, or ``None`` when there is none.

        Raises:
            SecretError: it cannot be read, or cannot stand in a header.
        """
        token = read_secret(self.bearer_token_file, self.bearer_token_env, environment)
        if token is not None and not (token.get_secret_value().isascii() and token.get_secret_value().isprintable()):
            raise SecretError(
                f"{self.bearer_token_file or self.bearer_token_env}: holds line breaks or other characters no token has"
            )
        return token


class MqttFeedSettings(BaseModel):
    """Topics of an MQTT 3.1.1 broker that the feed is published on."""

    model_config = STRICT

    type: Literal["mqtt"] = Field(description="always mqtt")
    host: str = Field(min_length=1, max_length=253, description="host name or address of the broker")
    port: int = Field(default=1883, ge=1, le=65_535, description="1 to 65535; brokers with TLS usually listen on 8883")
    topic: str = Field(
        default="liqmon/accounts/#",
        min_length=1,
        max_length=_TOPIC_BYTES_MAX,
        description="topic filter of the feed; + stands for one level, # for all that follow",
    )
    resync_topic: str = Field(
        default="", max_length=_TOPIC_BYTES_MAX, description="topic that snapshots are asked for on; leave it out if nobody listens"
    )
    username: str | None = Field(default=None, min_length=1, max_length=256, description="user at the broker; anonymous without it")
    password_file: Path | None = Field(default=None, description="file with the password; read again for each connection")
    password_env: EnvironmentName | None = Field(default=None, description="environment variable with the password")
    tls: bool = Field(default=False, description="true or false: whether to encrypt, and to check the broker's certificate")
    tls_ca_file: Path | None = Field(default=None, description="certificates to trust instead of those of the system")
    client_id: str | None = Field(
        default=None,
        min_length=1,
        max_length=64,
        description="client identifier under which the broker keeps messages while the daemon is away, liqmon-accounts-<name> by "
        "default; two daemons need two of them, or they throw each other out",
    )
    keepalive_s: int = Field(
        default=30, ge=5, le=3_600, description="5 to 3600 seconds of silence after which the peers check each other"
    )
    timeout_s: float = Field(
        default=5.0, gt=0.0, le=120.0, description="seconds, up to 120, for the broker to connect or to confirm"
    )

    @field_validator("topic")
    @classmethod
    def _topic_is_a_filter(cls, topic: str) -> str:
        levels = topic.split("/")
        for index, level in enumerate(levels):
            if "+" in level and level != "+":
                raise ValueError("has a + that is not a whole level")
            if "#" in level and (level != "#" or index != len(levels) - 1):
                raise ValueError("has a # that is not the whole last level")
        return _sendable(topic)

    @field_validator("resync_topic")
    @classmethod
    def _topic_is_one(cls, topic: str) -> str:
        if "+" in topic or "#" in topic:
            raise ValueError("must be one topic, without + and #")
        return _sendable(topic)

    @model_validator(mode="after")
    def _consistent(self) -> MqttFeedSettings:
        if self.password_file is not None and self.password_env is not None:
            raise ValueError("password_file and password_env exclude each other")
        if (self.password_file is not None or self.password_env is not None) and self.username is None:
            raise ValueError("a password needs a username")
        if self.tls_ca_file is not None and not self.tls:
            raise ValueError("tls_ca_file needs tls = true")
        if self.resync_topic and _matches(self.topic, self.resync_topic):
            raise ValueError("resync_topic lies within topic, so the daemon would hear its own questions")
        return self

    def read_password(self, environment: Mapping[str, str]) -> SecretStr | None:
        """Return the password, or ``None`` when there is none.

        Raises:
            SecretError: it cannot be read.
        """
        return read_secret(self.password_file, self.password_env, environment)


class FileFeedSettings(BaseModel):
    """A file that the feed is appended to."""

    model_config = STRICT

    type: Literal["file"] = Field(description="always file")
    path: str = Field(min_length=1, max_length=4_096, description="file with one message a line, relative to the config file")
    poll_interval_ms: int = Field(
        default=100, ge=10, le=60_000, description="10 to 60000 milliseconds between two looks at the file"
    )


SourceSettings = Annotated[WebsocketFeedSettings | MqttFeedSettings | FileFeedSettings, Field(discriminator="type")]
"""Where a feed comes from, told apart by ``type``."""


class AccountFeedSettings(BaseModel):
    """One private account feed."""

    model_config = STRICT

    name: Name = Field(description="name of the feed in recordings, metrics and status: up to 32 small letters, digits, - and _")
    venue: Name = Field(description="whose accounts these are: the name of a venue with a connector, or one of your own choice")
    symbols: tuple[str, ...] = Field(
        default=(), max_length=300, description="markets to watch of a venue without a connector; at most 300, none for the others"
    )
    silence_s: float | None = Field(
        default=60.0,
        ge=1.0,
        le=86_400.0,
        description="seconds, 1 to 86400, without a message after which all accounts of the feed are stale; its heartbeats have to "
        "come more often",
    )
    source: SourceSettings = Field(description="a table with type = websocket, mqtt or file")

    @field_validator("name")
    @classmethod
    def _name_is_no_venue(cls, name: str) -> str:
        if name in VENUES:
            raise ValueError(f"{name!r} is a venue with a connector; recordings could not tell the two apart")
        return name

    @field_validator("symbols")
    @classmethod
    def _symbols_are_names(cls, symbols: tuple[str, ...]) -> tuple[str, ...]:
        for index, symbol in enumerate(symbols):
            if not _SYMBOL.fullmatch(symbol):
                raise ValueError(f"{symbol!r} is no market name: 1 to 40 characters without spaces, quotes or any of / + # \\")
            if symbol in symbols[:index]:
                raise ValueError(f"{symbol!r} is listed twice")
        return symbols

    @model_validator(mode="after")
    def _markets_have_one_source(self) -> AccountFeedSettings:
        if self.has_connector and self.symbols:
            raise ValueError(f"symbols are those of the [[venues]] section of {self.venue}, not of the feed")
        if not self.has_connector and not self.symbols:
            raise ValueError(f"symbols are needed: there is no connector for {self.venue} that could tell its markets")
        return self

    @property
    def has_connector(self) -> bool:
        """Whether the venue's markets come from a connector."""
        return self.venue in VENUES

    def feed(self) -> AccountFeed:
        """Return the parser of this feed."""
        return AccountFeed(self.name, self.venue, has_markets=not self.has_connector)

    def secret_problem(self, environment: Mapping[str, str]) -> str | None:
        """Try to read the secrets and say what is wrong, for checking a configuration before it runs."""
        try:
            match self.source:
                case WebsocketFeedSettings():
                    self.source.read_token(environment)
                case MqttFeedSettings():
                    self.source.read_password(environment)
                case FileFeedSettings():
                    pass
        except SecretError as error:
            return str(error)
        return None


def read_secret(file: Path | None, variable: str | None, environment: Mapping[str, str]) -> SecretStr | None:
    """Return what ``file`` or the environment ``variable`` holds, without white space around it; ``None`` for neither.

    Raises:
        SecretError: the file cannot be read, is empty or too large, or the variable is not set.
    """
    if file is not None:
        try:
            with file.open("rb") as stream:
                content = stream.read(SECRET_BYTES_MAX + 1)
            text = content.decode().strip()
        except OSError as error:
            raise SecretError(f"{file}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise SecretError(f"{file}: is not UTF-8 text") from None
        if not text or len(content) > SECRET_BYTES_MAX:
            raise SecretError(f"{file}: is {'too large' if text else 'empty'}")
        return SecretStr(text)
    if variable is not None:
        text = environment.get(variable, "").strip()
        if not text:
            raise SecretError(f"environment variable {variable} is not set")
        return SecretStr(text)
    return None


def _sendable(topic: str) -> str:
    if re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", topic) or len(topic.encode(errors="replace")) > _TOPIC_BYTES_MAX:
        raise ValueError(f"holds a control character or has more than {_TOPIC_BYTES_MAX} bytes")
    return topic


def _matches(pattern: str, topic: str) -> bool:
    """Tell whether a topic filter takes in ``topic`` (MQTT 3.1.1, section 4.7)."""
    levels = topic.split("/")
    wanted = pattern.split("/")
    for index, level in enumerate(wanted):
        if level == "#":
            return True
        if index >= len(levels) or level not in {"+", levels[index]}:
            return False
    return len(wanted) == len(levels)
