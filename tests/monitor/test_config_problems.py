"""How problems of the config file are put into words."""

from __future__ import annotations

from pydantic import BaseModel, Field

from monitor.config import Config
from monitor.config_problems import Problem, describe_field, document_path, dotted, field_at, models_at, most_important
from monitor.settings import ProjectionSettings


def test_a_problem_reads_as_line_key_message_and_hint() -> None:
    assert str(Problem(3, "http.port", "unknown key", "did you mean x?")) == "line 3: http.port: unknown key (did you mean x?)"
    assert str(Problem(None, "", "cannot be read")) == "cannot be read"


def test_keys_are_written_as_in_the_file() -> None:
    assert dotted(("venues", 0, "symbols", 2)) == "venues[0].symbols[2]"
    assert dotted(("rules", "markets", "a/b", "x-y")) == 'rules.markets."a/b".x-y'
    assert dotted(('q"\\',)) == '"q\\"\\\\"'
    assert dotted(()) == ""


def test_names_of_union_members_are_dropped_from_the_path() -> None:
    document = {"sinks": [{"type": "mqtt", "hots": 1}]}
    assert document_path(("sinks", 0, "mqtt", "hots"), document) == ("sinks", 0, "hots")
    assert document_path(("sinks", 0, "mqtt", "host"), document, missing=True) == ("sinks", 0, "host")
    assert document_path(("sinks", 5, "name"), document) == ("sinks",)


def test_a_field_is_found_through_tables_lists_and_free_names() -> None:
    document: dict[str, object] = {"rules": {"markets": {"a/b": {"low_barrier": {}}}}}
    field = field_at(Config, ("rules", "markets", "a/b", "low_barrier", "multiple"), document)
    assert field is not None
    assert field.default == 3.0
    assert (
        field_at(Config, ("projection", "exogenous_notional_usd", 1), {})
        is ProjectionSettings.model_fields["exogenous_notional_usd"]
    )
    assert field_at(Config, ("nothing",), {}) is None
    assert field_at(Config, (), {}) is None


def test_the_type_of_a_sink_chooses_its_model() -> None:
    names = {model.__name__ for model in models_at(Config, ("sinks", 0), {"sinks": [{}]})}
    assert names == {"StdoutSettings", "WebhookSettings", "MqttSettings"}
    assert [model.__name__ for model in models_at(Config, ("sinks", 0), {"sinks": [{"type": "mqtt"}]})] == ["MqttSettings"]


def test_a_field_without_description_is_described_by_its_bounds_unit_and_default() -> None:
    class Section(BaseModel):
        timeout_s: float = Field(default=5.0, gt=0, le=60)
        share_ratio: float = Field(ge=0)
        plain: bool = True
        described: int = Field(default=3, description="``n`` of them.")

    fields = Section.model_fields
    assert describe_field("timeout_s", fields["timeout_s"]) == "above 0 and at most 60; seconds; default 5.0"
    assert describe_field("share_ratio", fields["share_ratio"]) == "at least 0; a fraction: 0.01 is 1 %"
    assert describe_field("plain", fields["plain"]) == "default true"
    assert describe_field("described", fields["described"]) == "n of them; default 3"
    assert describe_field("x", None) == ""


def test_problems_are_sorted_by_line_and_told_once() -> None:
    first, second = Problem(1, "a", "x"), Problem(7, "b", "y")
    assert most_important([second, first, second]) == [first, second]
