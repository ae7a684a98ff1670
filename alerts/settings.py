"""What the operator says about sinks. Secrets are given as a file or an environment variable and never appear in a ``repr``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, StringConstraints, model_validator

STRICT = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False, hide_input_in_errors=True)

# A private key chain has about 10 kB; tokens are far smaller. Anything beyond this is the wrong file.
SECRET_BYTES_MAX = 64 * 1024

# Each sink has a queue of about 2 MB (see alerts/delivery.py) and a task.
SINKS_MAX = 16

SinkName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]
EnvironmentName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")]
HeaderName = Annotated[str, StringConstraints(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}$")]
Timeout = Annotated[float, Field(gt=0.0, le=120.0)]


class SecretError(Exception):
    """A secret cannot be read; the message names its source and never its content."""


def read_secret(file: Path | None, variable: str | None, environment: Mapping[str, str]) -> SecretStr | None:
    """Return the content of ``file`` without surrounding white space, or of the environment ``variable``; ``None`` for neither.

    Raises:
        SecretError: the file cannot be read, is empty or too large, or the variable is not set.
    """
    if file is not None:
        try:
            with file.open("rb") as stream:
                text = stream.read(SECRET_BYTES_MAX + 1).decode().strip()
        except OSError as error:
            raise SecretError(f"{file}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise SecretError(f"{file}: is not UTF-8 text") from None
        if not text or len(text) > SECRET_BYTES_MAX:
            raise SecretError(f"{file}: is {'too large' if text else 'empty'}")
        return SecretStr(text)
    if variable is not None:
        text = environment.get(variable, "")
        if not text:
            raise SecretError(f"environment variable {variable} is not set")
        return SecretStr(text)
    return None


def check_webhook_url(url: SecretStr) -> SecretStr:
    """Return ``url`` if it is an absolute http or https address.

    Raises:
        ValueError: it is not; the message does not repeat it, because a webhook's path is often its password.
    """
    text = url.get_secret_value()
    try:
        parts = urlsplit(text)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not text.isprintable() or " " in text:
        raise ValueError("must be an absolute http:// or https:// address")
    return url


class StdoutSettings(BaseModel):
    """Alerts on standard output."""

    model_config = STRICT

    type: Literal["stdout"] = "stdout"
    """Always ``stdout``."""
    name: SinkName = "stdout"
    """Name of the sink in metrics and status."""
    format: Literal["auto", "json", "text"] = "auto"
    """One JSON object a line, or coloured text; ``auto`` is text on a terminal and JSON everywhere else."""


class WebhookSettings(BaseModel):
    """Alerts as JSON, posted to an HTTP server."""

    model_config = STRICT

    type: Literal["webhook"] = "webhook"
    """Always ``webhook``."""
    name: SinkName = "webhook"
    """Name of the sink in metrics and status."""
    url: Annotated[SecretStr, AfterValidator(check_webhook_url)] | None = None
    """Where to post to. Exactly one of ``url``, ``url_file`` and ``url_env`` is needed."""
    url_file: Path | None = None
    """File that holds the address; read again for each notification."""
    url_env: EnvironmentName | None = None
    """Environment variable that holds the address."""
    timeout_s: Timeout = 10.0
    """Seconds for one attempt, from the connection to the answer."""
    headers: dict[HeaderName, SecretStr] = Field(default_factory=dict, max_length=32)
    """Further request headers; their values are treated as secrets."""
    bearer_token_file: Path | None = None
    """File that holds the token of an ``Authorization: Bearer`` header; read again for each notification."""
    bearer_token_env: EnvironmentName | None = None
    """Environment variable that holds that token."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if [self.url, self.url_file, self.url_env].count(None) != 2:
            raise ValueError("exactly one of url, url_file and url_env is needed")
        if self.bearer_token_file is not None and self.bearer_token_env is not None:
            raise ValueError("bearer_token_file and bearer_token_env exclude each other")
        if any(not value.get_secret_value().isprintable() for value in self.headers.values()):
            raise ValueError("header values must not hold line breaks or other control characters")
        has_token = self.bearer_token_file is not None or self.bearer_token_env is not None
        if has_token and any(name.lower() == "authorization" for name in self.headers):
            raise ValueError("a bearer token and an Authorization header exclude each other")
        return self

    def read_url(self, environment: Mapping[str, str]) -> SecretStr:
        """Return the address from wherever it is kept.

        Raises:
            SecretError: it cannot be read or is no address.
        """
        if self.url is not None:
            return self.url
        url = read_secret(self.url_file, self.url_env, environment)
        assert url is not None, "one of the three sources is given"
        try:
            return check_webhook_url(url)
        except ValueError as error:
            raise SecretError(f"{self.url_file or self.url_env}: {error}") from None

    def read_headers(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Return all request headers in plain text.

        Raises:
            SecretError: the bearer token cannot be read.
        """
        headers = {name: value.get_secret_value() for name, value in self.headers.items()}
        token = read_secret(self.bearer_token_file, self.bearer_token_env, environment)
        if token is not None:
            if not token.get_secret_value().isprintable():
                raise SecretError(f"{self.bearer_token_file or self.bearer_token_env}: holds line breaks")
            headers["Authorization"] = f"Bearer {token.get_secret_value()}"
        return headers


class MqttSettings(BaseModel):
    """Alerts, market states and availability on an MQTT 3.1.1 broker."""

    model_config = STRICT

    type: Literal["mqtt"] = "mqtt"
    """Always ``mqtt``."""
    name: SinkName = "mqtt"
    """Name of the sink in metrics and status."""
    host: str = Field(min_length=1, max_length=253)
    """Host name or address of the broker."""
    port: int = Field(default=1883, ge=1, le=65_535)
    """Port of the broker; brokers with TLS usually listen on 8883."""
    username: str | None = Field(default=None, min_length=1, max_length=256)
    """User at the broker; without it the connection is anonymous."""
    password_file: Path | None = None
    """File that holds the password; read again for each connection."""
    password_env: EnvironmentName | None = None
    """Environment variable that holds the password."""
    tls: bool = False
    """Whether to encrypt, and to check the broker's certificate."""
    tls_ca_file: Path | None = None
    """Certificates to trust instead of those of the system."""
    client_id: str | None = Field(default=None, min_length=1, max_length=128)
    """MQTT client identifier, ``liqmon-{instance}`` by default. Two clients of one identifier throw each other out."""
    instance: str = Field(default="", pattern=r"^[A-Za-z0-9_.-]{0,64}$")
    """Name in the topics ``liqmon/v1/{instance}/...``; empty for the instance of the whole configuration."""
    keepalive_s: int = Field(default=30, ge=5, le=3_600)
    """Seconds of silence after which the peers check each other; a dead daemon shows as offline after 1.5 times this."""
    timeout_s: Timeout = 5.0
    """Seconds to wait for the broker to connect or to confirm a message."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.password_file is not None and self.password_env is not None:
            raise ValueError("password_file and password_env exclude each other")
        has_password = self.password_file is not None or self.password_env is not None
        if has_password and self.username is None:
            raise ValueError("a password needs a username")
        if self.tls_ca_file is not None and not self.tls:
            raise ValueError("tls_ca_file needs tls = true")
        return self

    def read_password(self, environment: Mapping[str, str]) -> SecretStr | None:
        """Return the password, or ``None`` when there is none.

        Raises:
            SecretError: it cannot be read.
        """
        return read_secret(self.password_file, self.password_env, environment)


SinkSettings = Annotated[StdoutSettings | WebhookSettings | MqttSettings, Field(discriminator="type")]
"""The settings of one sink, told apart by ``type``."""


def _unique_names(sinks: tuple[SinkSettings, ...]) -> tuple[SinkSettings, ...]:
    names = [sink.name for sink in sinks]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"sink names must be unique, these are not: {', '.join(repeated)}")
    return sinks


Sinks = Annotated[tuple[SinkSettings, ...], Field(max_length=SINKS_MAX), AfterValidator(_unique_names)]
"""All sinks; their names are unique."""


class AlertSettings(BaseModel):
    """How alerts are passed on, apart from where to."""

    model_config = STRICT

    repeat_interval_s: float = Field(default=14_400.0, ge=60.0, le=604_800.0)
    """Seconds after which an alert that still fires is told again."""


def secret_problems(sinks: Sequence[SinkSettings], environment: Mapping[str, str]) -> list[str]:
    """Try to read every secret, and list what is wrong, by sink; for checking a configuration before it runs."""
    problems = []
    for sink in sinks:
        try:
            match sink:
                case WebhookSettings():
                    sink.read_url(environment)
                    sink.read_headers(environment)
                case MqttSettings():
                    sink.read_password(environment)
                case StdoutSettings():
                    pass
        except SecretError as error:
            problems.append(f"{sink.name}: {error}")
    return problems
