"""Who may talk to the server, checked without a server."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from monitor.web.security import CONTENT_SECURITY_POLICY, Access, host_name
from monitor.web.settings import HttpSettings


def access(**settings: Any) -> Access:
    return Access(HttpSettings(**settings))


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("localhost", "localhost"),
        ("LOCALHOST:9477", "localhost"),
        ("127.0.0.1:1", "127.0.0.1"),
        ("[::1]:9477", "::1"),
        ("[::1]", "::1"),
        ("", None),
        (":80", None),
        ("localhost:", None),
        ("localhost:x", None),
        ("[::1", None),
        ("[::1]x", None),
        ("a:b:c", None),
    ],
)
def test_a_host_header_is_read_without_its_port(header: str, name: str | None) -> None:
    assert host_name(header) == name


@pytest.mark.parametrize("host", ["localhost", "localhost:9477", "127.0.0.1:5", "[::1]:9477"])
def test_loopback_names_are_allowed(host: str) -> None:
    assert access().host_allowed(host)


@pytest.mark.parametrize(
    "host", [None, "", "evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "10.0.0.1:9477", "0.0.0.0"]
)
def test_other_names_are_not(host: str | None) -> None:
    assert not access().host_allowed(host)


def test_configured_names_are_allowed() -> None:
    desk = access(allowed_hosts=["Liqmon.desk.example", "[fd00::5]"])
    assert desk.host_allowed("liqmon.desk.example:443")
    assert desk.host_allowed("[fd00::5]:9477")
    assert not desk.host_allowed("other.desk.example")


def test_a_server_on_the_network_answers_to_addresses_but_not_to_strange_names() -> None:
    open_one = access(host="0.0.0.0", open_to_network=True)
    assert open_one.host_allowed("10.1.2.3:9477")
    assert open_one.host_allowed("[fd00::1]:9477")
    assert not open_one.host_allowed("rebound.evil.example:9477")


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        (None, True),
        ("http://localhost:9477", True),
        ("https://desk.example", True),
        ("https://desk.example:8443", True),
        ("http://localhost:3000", False),
        ("http://evil.example", False),
        ("http://localhost:9477.evil.example", False),
        ("null", False),
        ("file://", False),
        ("chrome-extension://abc", False),
        ("", False),
    ],
)
def test_streams_are_opened_by_the_own_page_only(origin: str | None, allowed: bool) -> None:
    assert access(allowed_hosts=["desk.example"]).origin_allowed(origin, "localhost:9477") is allowed


def test_credentials_are_compared_whole() -> None:
    guarded = access(password="correct horse")

    def basic(text: str) -> str:
        return "Basic " + base64.b64encode(text.encode()).decode()

    assert guarded.authorised("/metrics", basic("liqmon:correct horse"))
    for wrong in (
        None,
        "",
        "Basic",
        "Basic !!!",
        "Basic ä",
        "Bearer correct horse",
        basic("liqmon:correct"),
        basic("x:correct horse"),
    ):
        assert not guarded.authorised("/metrics", wrong)
    assert guarded.authorised("/healthz", None)
    assert guarded.authorised("/readyz", None)
    assert not guarded.authorised("/healthz/../metrics", None)
    assert access().authorised("/metrics", None)


def test_the_page_may_not_run_inline_scripts_or_load_from_elsewhere() -> None:
    policy = dict(part.strip().split(" ", 1) for part in CONTENT_SECURITY_POLICY.split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == "'self'"
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    assert "*" not in CONTENT_SECURITY_POLICY
