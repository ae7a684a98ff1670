from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import msgspec
import pytest

from alerts.alert import Alert
from alerts.settings import MqttSettings, StdoutSettings, WebhookSettings
from alerts.sinks import PAYLOAD_BYTES_MAX, SINKS, Fatal, encode, make_sink
from alerts.sinks.mqtt import MqttSink
from alerts.sinks.stdout import StdoutSink
from alerts.sinks.webhook import WebhookSink
from tests.alerts.builders import START_NS, alert

SCHEMA = json.loads((Path(__file__).resolve().parents[3] / "alerts" / "schema" / "alert.json").read_text())


@pytest.mark.parametrize(
    "notification",
    [
        alert(),
        alert(severity="critical", ends_ns=START_NS + 1),
        Alert(name="RecorderStopped", labels={}, severity="info", summary="disk full", starts_ns=0),
    ],
)
def test_payloads_match_the_schema(notification: Alert) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    payload = json.loads(encode(notification))
    jsonschema.validate(payload, SCHEMA, cls=jsonschema.Draft202012Validator)
    assert payload.keys() == SCHEMA["properties"].keys() == set(SCHEMA["required"])
    assert payload["fingerprint"] == notification.fingerprint
    assert payload["delivery_key"] == notification.delivery_key
    assert payload["resolved"] is notification.resolved
    assert payload["provenance"] == notification.labels.get("provenance")


@pytest.mark.parametrize(
    ("field", "value"),
    [("severity", "bad"), ("resolved", True), ("ends_ns", 5), ("labels", {"a": 1}), ("provenance", "guessed"), ("summary", "")],
)
def test_the_schema_refuses_what_is_wrong(field: str, value: object) -> None:
    payload = {**json.loads(encode(alert())), field: value}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(payload, SCHEMA, cls=jsonschema.Draft202012Validator)


def test_a_payload_is_one_line() -> None:
    assert b"\n" not in encode(msgspec.structs.replace(alert(), summary="two\nlines"))


def test_an_endless_payload_is_fatal() -> None:
    with pytest.raises(Fatal, match="bytes of JSON"):
        encode(msgspec.structs.replace(alert(), summary="x" * PAYLOAD_BYTES_MAX))


async def test_each_type_of_settings_makes_its_sink() -> None:
    assert isinstance(make_sink(StdoutSettings(), "desk"), StdoutSink)
    assert isinstance(make_sink(WebhookSettings.model_validate({"url": "http://localhost/"}), "desk"), WebhookSink)
    assert isinstance(make_sink(MqttSettings(host="localhost"), "desk"), MqttSink)
    assert SINKS.keys() == {"stdout", "webhook", "mqtt"}


@pytest.mark.parametrize("module", ["alerts.sinks", "alerts.sinks.stdout", "alerts.sinks.webhook", "alerts.sinks.mqtt"])
def test_modules_can_be_imported_in_any_order(module: str) -> None:
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True, cwd=Path(__file__).resolve().parents[3])


def test_client_libraries_are_loaded_only_when_used() -> None:
    code = "import alerts.sinks, sys; assert not {'aiohttp', 'aiomqtt', 'rich'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).resolve().parents[3])
