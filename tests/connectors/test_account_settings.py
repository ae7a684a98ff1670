"""The settings of account feeds."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from connectors.account_settings import (
    SECRET_BYTES_MAX,
    AccountFeedSettings,
    FileFeedSettings,
    MqttFeedSettings,
    SecretError,
    WebsocketFeedSettings,
)

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "account-feeds.md"

FILE = {"type": "file", "path": "accounts.jsonl"}
WEBSOCKET = {"type": "websocket", "url": "wss://desk.example/feed"}
MQTT = {"type": "mqtt", "host": "mqtt.desk.example"}


def validate(**fields: Any) -> AccountFeedSettings:
    """As the configuration file does: from JSON, without turning text into numbers."""
    return AccountFeedSettings.model_validate_json(json.dumps({"name": "desk", "venue": "hyperliquid"} | fields), strict=True)


def problem(**fields: Any) -> str:
    with pytest.raises(ValidationError) as error:
        validate(**fields)
    (first,) = error.value.errors(include_url=False)
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def test_the_documented_sections_are_valid() -> None:
    (text,) = re.findall(r"^```toml\n(.*?)^```$", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE)
    sections = tomllib.loads(text)["account_feeds"]
    feeds = [AccountFeedSettings.model_validate_json(json.dumps(section), strict=True) for section in sections]
    assert [type(feed.source) for feed in feeds] == [WebsocketFeedSettings, MqttFeedSettings, FileFeedSettings]
    assert [feed.has_connector for feed in feeds] == [True, False, False]


def test_defaults_are_those_of_the_document() -> None:
    feed = validate(source=MQTT)
    assert isinstance(feed.source, MqttFeedSettings)
    assert feed.silence_s == 60.0
    assert (feed.source.topic, feed.source.resync_topic, feed.source.client_id) == ("liqmon/accounts/#", "", None)
    assert validate(source=FILE, silence_s=None).silence_s is None


def test_the_parser_is_made_from_the_settings() -> None:
    public = validate(source=FILE).feed()
    private = validate(venue="our-exchange", symbols=["BTC-PERP"], source=FILE).feed()
    assert (public.name, public.venue, public.has_markets) == ("desk", "hyperliquid", False)
    assert (private.name, private.venue, private.has_markets) == ("desk", "our-exchange", True)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"source": FILE, "name": "Desk"}, "name: String should match"),
        ({"source": FILE, "name": "a.b"}, "name: String should match"),
        ({"source": FILE, "name": "hyperliquid"}, "name: .*is a venue"),
        ({"source": FILE, "venue": "Our/Exchange"}, "venue: String should match"),
        ({"source": FILE, "symbols": ["BTC"]}, r"symbols are those of the \[\[venues\]\] section of hyperliquid"),
        ({"source": FILE, "venue": "our-exchange"}, "symbols are needed"),
        ({"source": FILE, "venue": "our-exchange", "symbols": ["BTC/USD"]}, "symbols: .*no market name"),
        ({"source": FILE, "venue": "our-exchange", "symbols": ["BTC", "BTC"]}, "symbols: .*listed twice"),
        ({"source": FILE, "silence_s": 0.5}, "silence_s"),
        ({"source": FILE, "silence_s": "60"}, "silence_s: Input should be a valid number"),
        ({"source": FILE, "silent_s": 60}, "silent_s: Extra inputs are not permitted"),
        ({}, "source: Field required"),
        ({"source": {"path": "x"}}, "source: Unable to extract tag"),
        ({"source": {"type": "kafka"}}, "source: Input tag 'kafka'"),
        ({"source": FILE | {"path": ""}}, "source.file.path"),
        ({"source": FILE | {"poll_interval_ms": 1}}, "source.file.poll_interval_ms"),
        ({"source": FILE | {"host": "x"}}, "source.file.host: Extra inputs"),
        ({"source": {"type": "file"}}, "source.file.path: Field required"),
        ({"source": WEBSOCKET | {"url": "https://desk.example"}}, "source.websocket.url: .*ws:// or wss://"),
        ({"source": WEBSOCKET | {"url": "wss://"}}, "source.websocket.url: .*ws:// or wss://"),
        ({"source": WEBSOCKET | {"url": "wss://desk.example:99999"}}, "source.websocket.url: .*no valid URL"),
        ({"source": WEBSOCKET | {"url": "wss://desk.example/a b"}}, "source.websocket.url: .*complete"),
        ({"source": WEBSOCKET | {"url": "wss://me:pw@desk.example"}}, "source.websocket.url: .*must not hold a user name"),
        ({"source": WEBSOCKET | {"url": "wss://desk.example?token=1"}}, "source.websocket.url: .*must not hold"),
        ({"source": WEBSOCKET | {"bearer_token_file": "a", "bearer_token_env": "B"}}, "exclude each other"),
        ({"source": WEBSOCKET | {"bearer_token_env": "NO SPACES"}}, "source.websocket.bearer_token_env"),
        ({"source": WEBSOCKET | {"bearer_token": "secret"}}, "source.websocket.bearer_token: Extra inputs"),
        ({"source": MQTT | {"port": 0}}, "source.mqtt.port"),
        ({"source": MQTT | {"topic": "a/#/b"}}, "source.mqtt.topic: .*last level"),
        ({"source": MQTT | {"topic": "a#"}}, "source.mqtt.topic: .*last level"),
        ({"source": MQTT | {"topic": "a+/b"}}, "source.mqtt.topic: .*whole level"),
        ({"source": MQTT | {"topic": "a\n"}}, "source.mqtt.topic: .*control character"),
        ({"source": MQTT | {"topic": "é" * 600}}, "source.mqtt.topic: .*1000 bytes"),
        ({"source": MQTT | {"resync_topic": "ask/#"}}, "source.mqtt.resync_topic: .*one topic"),
        ({"source": MQTT | {"resync_topic": "liqmon/accounts/ask"}}, "hear its own questions"),
        ({"source": MQTT | {"topic": "a/+", "resync_topic": "a/b"}}, "hear its own questions"),
        ({"source": MQTT | {"topic": "a/#", "resync_topic": "a"}}, "hear its own questions"),
        ({"source": MQTT | {"password_env": "P"}}, "a password needs a username"),
        ({"source": MQTT | {"username": "u", "password_env": "P", "password_file": "p"}}, "exclude each other"),
        ({"source": MQTT | {"tls_ca_file": "ca.pem"}}, "needs tls"),
        ({"source": MQTT | {"client_id": ""}}, "source.mqtt.client_id"),
    ],
)
def test_every_mistake_is_named(fields: dict[str, Any], said: str) -> None:
    assert re.search(said, problem(**fields))


@pytest.mark.parametrize(("topic", "resync"), [("a/+", "a/b/c"), ("a/b", "a/bc"), ("a/b/#", "a"), ("a/b/c", "a/b"), ("+/b", "b")])
def test_questions_may_go_to_any_topic_that_is_not_listened_to(topic: str, resync: str) -> None:
    feed = validate(source=MQTT | {"topic": topic, "resync_topic": resync})
    assert isinstance(feed.source, MqttFeedSettings)


def test_every_field_is_described() -> None:
    models: tuple[type[BaseModel], ...] = (AccountFeedSettings, WebsocketFeedSettings, MqttFeedSettings, FileFeedSettings)
    for model in models:
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name}"


def test_tokens_come_from_files_or_the_environment_and_are_never_shown(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("  s3cret-token\n")
    from_file = validate(source=WEBSOCKET | {"bearer_token_file": str(file)}).source
    from_environment = validate(source=WEBSOCKET | {"bearer_token_env": "TOKEN"}).source
    assert isinstance(from_file, WebsocketFeedSettings)
    assert isinstance(from_environment, WebsocketFeedSettings)
    for token in (from_file.read_token({}), from_environment.read_token({"TOKEN": "s3cret-token"})):
        assert token is not None
        assert token.get_secret_value() == "s3cret-token"
        assert "s3cret" not in repr(token)
    nothing = validate(source=WEBSOCKET).source
    assert isinstance(nothing, WebsocketFeedSettings)
    assert nothing.read_token({}) is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file"),
        (b" \n", "is empty"),
        (b"\xff\xfe", "is not UTF-8"),
        (b"x" * (SECRET_BYTES_MAX + 1), "is too large"),
        (b"two\nlines", "holds line breaks"),
        ("tökén".encode(), "holds line breaks or other"),
    ],
)
def test_a_token_that_cannot_be_used_is_a_problem_that_does_not_repeat_it(tmp_path: Path, content: bytes | None, said: str) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    feed = validate(source=WEBSOCKET | {"bearer_token_file": str(file)})
    told = feed.secret_problem({})
    assert told is not None
    assert said in told
    assert "lines" not in told.replace("line breaks", "")
    assert isinstance(feed.source, WebsocketFeedSettings)
    with pytest.raises(SecretError):
        feed.source.read_token({})


def test_secrets_of_all_sources_can_be_tried_before_the_start() -> None:
    assert validate(source=FILE).secret_problem({}) is None
    mqtt = validate(source=MQTT | {"username": "liqmon", "password_env": "MQTT_PASSWORD"})
    assert mqtt.secret_problem({"MQTT_PASSWORD": "x"}) is None
    assert mqtt.secret_problem({"MQTT_PASSWORD": " "}) == "environment variable MQTT_PASSWORD is not set"
    assert isinstance(mqtt.source, MqttFeedSettings)
    password = mqtt.source.read_password({"MQTT_PASSWORD": "x"})
    assert password is not None
    assert password.get_secret_value() == "x"
