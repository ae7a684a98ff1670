from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from alerts.settings import (
    AlertSettings,
    MqttSettings,
    SecretError,
    Sinks,
    SinkSettings,
    StdoutSettings,
    WebhookSettings,
    read_secret,
    secret_problems,
)

SINKS: TypeAdapter[tuple[SinkSettings, ...]] = TypeAdapter(Sinks)
URL = "https://hooks.example.com/services/T0/B0/very-secret-path"


def test_sinks_are_told_apart_by_their_type() -> None:
    sinks = SINKS.validate_python(
        [{"type": "stdout"}, {"type": "webhook", "url": URL}, {"type": "mqtt", "host": "broker", "name": "desk"}]
    )
    assert [type(sink) for sink in sinks] == [StdoutSettings, WebhookSettings, MqttSettings]
    assert [sink.name for sink in sinks] == ["stdout", "webhook", "desk"]


def test_sinks_can_be_read_from_strict_json() -> None:
    text = '[{"type": "webhook", "url_file": "/run/secrets/url", "headers": {"X-Team": "risk"}}, {"type": "stdout"}]'
    assert len(SINKS.validate_json(text, strict=True)) == 2


@pytest.mark.parametrize(
    ("sinks", "complaint"),
    [
        ([{"type": "stdout"}, {"type": "stdout"}], "unique"),
        ([{"type": "pager"}], "type"),
        ([{"type": "stdout", "name": "Upper Case"}], "pattern"),
        ([{"type": "stdout", "colour": "red"}], "colour"),
        ([{"type": "webhook"}], "exactly one of url"),
        ([{"type": "webhook", "url": URL, "url_env": "URL"}], "exactly one of url"),
        ([{"type": "webhook", "url": "ftp://example.com/"}], "absolute http"),
        ([{"type": "webhook", "url": "https:///path"}], "absolute http"),
        ([{"type": "webhook", "url": "https://example.com:99999/"}], "absolute http"),
        ([{"type": "webhook", "url": "https://example.com/a b"}], "absolute http"),
        ([{"type": "webhook", "url": URL, "headers": {"Bad Name": "x"}}], "headers"),
        ([{"type": "webhook", "url": URL, "headers": {"X": "a\r\nY: b"}}], "control characters"),
        ([{"type": "webhook", "url": URL, "bearer_token_env": "A", "bearer_token_file": "b"}], "exclude each other"),
        ([{"type": "webhook", "url": URL, "bearer_token_env": "A", "headers": {"authorization": "x"}}], "exclude each other"),
        ([{"type": "webhook", "url": URL, "timeout_s": 0}], "timeout_s"),
        ([{"type": "mqtt"}], "host"),
        ([{"type": "mqtt", "host": "b", "password_env": "P"}], "needs a username"),
        ([{"type": "mqtt", "host": "b", "username": "u", "password_env": "P", "password_file": "p"}], "exclude each other"),
        ([{"type": "mqtt", "host": "b", "tls_ca_file": "ca.pem"}], "needs tls"),
        ([{"type": "mqtt", "host": "b", "instance": "a/b"}], "instance"),
        ([{"type": "mqtt", "host": "b", "port": 0}], "port"),
        ([{"type": "stdout", "name": f"s{i}"} for i in range(17)], "16"),
    ],
)
def test_what_cannot_work_is_refused(sinks: list[dict[str, Any]], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint) as caught:
        SINKS.validate_python(sinks)
    assert "very-secret-path" not in str(caught.value)


def test_secrets_do_not_show() -> None:
    settings = WebhookSettings.model_validate({"url": URL, "headers": {"X-Key": "hush-hush"}})
    shown = repr(settings) + str(settings) + settings.model_dump_json()
    assert "very-secret-path" not in shown
    assert "hush-hush" not in shown
    assert settings.read_url({}).get_secret_value() == URL
    assert settings.read_headers({}) == {"X-Key": "hush-hush"}


def test_secrets_come_from_files_and_the_environment(tmp_path: Path) -> None:
    (tmp_path / "url").write_text(URL + "\n")
    settings = WebhookSettings(url_file=tmp_path / "url", bearer_token_env="TOKEN")
    assert settings.read_url({}).get_secret_value() == URL
    assert settings.read_headers({"TOKEN": "abc"}) == {"Authorization": "Bearer abc"}
    (tmp_path / "password").write_text("  s3cret \n")
    mqtt = MqttSettings(host="broker", username="liqmon", password_file=tmp_path / "password")
    password = mqtt.read_password({})
    assert password is not None
    assert password.get_secret_value() == "s3cret"
    assert MqttSettings(host="broker").read_password({}) is None


def test_a_secret_that_cannot_be_read_is_named_by_its_source(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "large").write_text("x" * 100_000)
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for file, complaint in [("absent", "No such file"), ("empty", "empty"), ("large", "too large"), ("binary", "UTF-8")]:
        with pytest.raises(SecretError, match=f"{file}: .*{complaint}"):
            read_secret(tmp_path / file, None, {})
    with pytest.raises(SecretError, match="TOKEN is not set"):
        read_secret(None, "TOKEN", {})


def test_all_unreadable_secrets_are_listed(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("not an address, but still-a-secret")
    sinks = SINKS.validate_python(
        [
            {"type": "stdout"},
            {"type": "webhook", "name": "a", "url_file": tmp_path / "url"},
            {"type": "webhook", "name": "b", "url": URL, "bearer_token_env": "TOKEN"},
            {"type": "mqtt", "name": "c", "host": "b", "username": "u", "password_file": tmp_path / "absent"},
            {"type": "webhook", "name": "d", "url_env": "GOOD"},
        ]
    )
    problems = secret_problems(sinks, {"GOOD": URL})
    assert [problem.split(":")[0] for problem in problems] == ["a", "b", "c"]
    assert "still-a-secret" not in " ".join(problems)


def test_every_setting_is_described() -> None:
    for model in (StdoutSettings, WebhookSettings, MqttSettings, AlertSettings):
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name}"


def test_sinks_fit_into_a_larger_configuration() -> None:
    class Whole(BaseModel):
        model_config = ConfigDict(extra="forbid")
        sinks: Sinks = ()

    assert Whole().sinks == ()
    assert len(Whole.model_validate({"sinks": [{"type": "stdout"}]}).sinks) == 1
