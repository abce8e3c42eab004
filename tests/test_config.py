"""Settings: four places, one answer, and sentences for people."""

from __future__ import annotations

import dataclasses
import inspect
import math
import os
import sys
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from apmkit.config import Settings, SettingsError


@pytest.fixture(autouse=True)
def _bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("OTEL_", "APMKIT_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def refusal(**given: Any) -> str:  # noqa: ANN401 - what may be wrong may be anything
    with pytest.raises(SettingsError) as caught:
        Settings.load(**given)
    return str(caught.value)


def test_the_defaults_are_prometheus_and_a_budget() -> None:
    settings = Settings.load()
    assert settings.service_name == f"unknown_service:{Path(sys.executable).name}"
    assert settings.exporters == ("prometheus",)
    assert settings.otlp_endpoint is None
    assert (settings.trace_budget, settings.slow_after) == (100.0, 1.0)
    assert settings.trust_upstream
    assert settings.ops_token is None
    assert ip_network("127.0.0.0/8") in settings.ops_networks
    assert settings.metrics_path == "/metrics"
    assert settings.metric_export_interval == 60.0
    assert not settings.disabled
    assert settings.traces_sampler is None


def test_settings_are_frozen() -> None:
    settings = Settings.load()
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.trace_budget = 3.0  # type: ignore[misc]
    with pytest.raises(TypeError):
        settings.resource["a"] = "b"  # type: ignore[index]


def test_a_keyword_beats_a_standard_variable_beats_our_own_beats_the_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path("apmkit.toml").write_text('service_name = "file"\n', encoding="utf-8")
    assert Settings.load().service_name == "file"
    monkeypatch.setenv("APMKIT_SERVICE_NAME", "own")
    assert Settings.load().service_name == "own"
    monkeypatch.setenv("OTEL_SERVICE_NAME", "standard")
    assert Settings.load().service_name == "standard"
    assert Settings.load(service_name="keyword").service_name == "keyword"


def test_the_file_may_be_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "other.toml"
    path.write_text('exporters = ["otlp"]\ntrace_budget = inf\nmetrics_path = "none"\n', "utf-8")
    monkeypatch.setenv("APMKIT_CONFIG", str(path))
    settings = Settings.load()
    assert settings.exporters == ("otlp",)
    assert math.isinf(settings.trace_budget)
    assert settings.metrics_path is None


def test_a_named_file_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APMKIT_CONFIG", "gone.toml")
    assert (
        refusal() == "APMKIT_CONFIG is 'gone.toml', which cannot be read: No such file or directory"
    )


@pytest.mark.parametrize("content", [b"trace_budget =", b"\xff\xfe", b"a = 1\na = 2"])
def test_a_file_that_is_not_toml_is_refused(content: bytes) -> None:
    Path("apmkit.toml").write_bytes(content)
    assert refusal().startswith("apmkit.toml is not TOML: ")


def test_an_unknown_keyword_is_refused_with_the_nearest_name() -> None:
    assert refusal(trace_budgt=3) == (
        "trace_budgt is not a setting (keyword argument); did you mean trace_budget?"
    )


def test_an_unknown_variable_is_refused_with_the_nearest_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("APMKIT_TRACEBUDGET", "3")
    assert refusal() == (
        "APMKIT_TRACEBUDGET is not a setting (variable); did you mean APMKIT_TRACE_BUDGET?"
    )


def test_an_unknown_key_is_refused_with_the_nearest_name() -> None:
    Path("apmkit.toml").write_text("metrics-path = '/m'\n", encoding="utf-8")
    assert refusal() == (
        "metrics-path is not a setting (key of apmkit.toml); did you mean metrics_path?"
    )


def test_a_standard_only_setting_has_no_name_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "traces_sampler is not a setting" in refusal(traces_sampler="always_on")
    monkeypatch.setenv("APMKIT_TRACES_SAMPLER", "always_on")
    assert "APMKIT_TRACES_SAMPLER is not a setting" in refusal()


def test_a_refusal_names_the_setting_the_place_the_value_and_what_it_may_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    may_be = 'it may be a number of traces a second, 0 or more; "inf" keeps all'
    Path("apmkit.toml").write_text("trace_budget = true\n", encoding="utf-8")
    assert refusal() == f"trace_budget (key trace_budget of apmkit.toml) is True; {may_be}"
    monkeypatch.setenv("APMKIT_TRACE_BUDGET", "lots")
    assert refusal() == f"trace_budget (variable APMKIT_TRACE_BUDGET) is 'lots'; {may_be}"
    assert refusal(trace_budget=-1) == f"trace_budget (keyword argument) is -1; {may_be}"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("service_name", ""),
        ("service_name", None),
        ("service_name", 7),
        ("resource", "a"),
        ("resource", {"a": object()}),
        ("resource", {"": 1}),
        ("resource", {1: 1}),
        ("resource", "a=%ff"),
        ("exporters", 7),
        ("exporters", [7]),
        ("exporters", None),
        ("otlp_endpoint", "localhost:4318"),
        ("otlp_endpoint", "ftp://localhost"),
        ("otlp_endpoint", "http://"),
        ("otlp_endpoint", "http://localhost:99999"),
        ("otlp_endpoint", "http://[::1"),
        ("otlp_endpoint", "http://local host"),
        ("trace_budget", math.nan),
        ("trace_budget", None),
        ("trace_budget", 10**400),
        pytest.param("trace_budget", 10**5_000, id="an integer that Python refuses to print"),
        ("slow_after", 0),
        ("slow_after", True),
        ("trust_upstream", "yes"),
        ("trust_upstream", 1),
        ("ops_token", "short"),
        ("ops_token", "with a space in the middle"),
        ("ops_token", 1234567890123456),
        ("ops_networks", ["10.0.0.1/8"]),
        ("ops_networks", ["everywhere"]),
        ("metrics_path", "metrics"),
        ("metrics_path", "/m?x"),
        ("metrics_path", "/m x"),
        ("metrics_path", 7),
        ("metric_export_interval", 0),
        ("metric_export_interval", "inf"),
        ("metric_export_interval", 86_401),
    ],
)
def test_what_a_setting_may_not_be_is_refused(name: str, value: object) -> None:
    sentence = refusal(**{name: value})
    assert sentence.startswith(f"{name} (keyword argument) is ")
    assert "; it may be " in sentence
    assert "\n" not in sentence


def test_a_long_value_is_shown_in_part() -> None:
    assert len(refusal(trace_budget="x" * 10_000)) < 250


def test_a_token_is_never_shown() -> None:
    token = "hunter2-hunter2-hunter2"
    settings = Settings.load(ops_token=token)
    assert settings.ops_token == token
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in refusal(ops_token="hunter2")


def test_a_password_in_an_endpoint_is_refused_and_not_shown() -> None:
    sentence = refusal(otlp_endpoint="https://ann:hunter2@example.org")
    assert "hunter2" not in sentence
    assert "without user and password" in sentence


@pytest.mark.parametrize(
    "variable",
    [
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
    ],
)
def test_otlp_joins_as_soon_as_an_endpoint_is_known(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "http://localhost:4318")
    settings = Settings.load()
    assert settings.exporters == ("prometheus", "otlp")
    assert settings.otlp_endpoint is None


def test_otlp_joins_where_the_endpoint_is_a_setting() -> None:
    settings = Settings.load(otlp_endpoint="http://localhost:4318")
    assert settings.exporters == ("prometheus", "otlp")
    assert settings.otlp_endpoint == "http://localhost:4318"


def test_the_standard_endpoint_beats_our_own_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APMKIT_OTLP_ENDPOINT", "http://own:4318")
    assert Settings.load().otlp_endpoint == "http://own:4318"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://standard:4318")
    assert Settings.load().otlp_endpoint is None
    assert Settings.load(otlp_endpoint="http://given:4318").otlp_endpoint == "http://given:4318"


def test_named_exporters_are_all_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318")
    assert Settings.load(exporters=[]).exporters == ()
    assert Settings.load(exporters=["console", "console"]).exporters == ("console",)
    monkeypatch.setenv("APMKIT_EXPORTERS", "none")
    assert Settings.load().exporters == ()
    monkeypatch.setenv("APMKIT_EXPORTERS", "console, otlp")
    assert Settings.load().exporters == ("console", "otlp")


@pytest.mark.parametrize(
    ("traces", "metrics", "endpoint", "expected"),
    [
        ("none", "none", "", ()),
        ("otlp", "", "", ("prometheus", "otlp")),
        ("otlp", "otlp", "", ("otlp",)),
        ("console", "prometheus", "", ("prometheus", "console")),
        ("none", "", "http://localhost:4318", ("prometheus", "otlp")),
        ("", "none", "http://localhost:4318", ("otlp",)),
        ("", "none", "", ()),
        ("otlp,console", "none", "", ("otlp", "console")),
    ],
)
def test_the_standard_variables_name_exporters_by_signal(
    traces: str,
    metrics: str,
    endpoint: str,
    expected: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", traces)
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", metrics)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    assert Settings.load().exporters == expected


def test_a_disabled_sdk_exports_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "True")
    settings = Settings.load(exporters=["otlp"])
    assert settings.disabled
    assert settings.exporters == ()
    monkeypatch.setenv("OTEL_SDK_DISABLED", "1")
    assert refusal() == "disabled (variable OTEL_SDK_DISABLED) is '1'; it may be true or false"


def test_the_export_interval_is_milliseconds_in_the_standard_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("APMKIT_METRIC_EXPORT_INTERVAL", "2.5")
    assert Settings.load().metric_export_interval == 2.5
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "1500")
    assert Settings.load().metric_export_interval == 1.5
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "1.5")
    assert "a whole number of milliseconds" in refusal()


def test_a_standard_sampler_replaces_the_budget_unless_a_keyword_sets_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.25")
    assert Settings.load().traces_sampler == "traceidratio"
    assert Settings.load(trace_budget=5).traces_sampler is None


@pytest.mark.parametrize("argument", ["1.5", "-1", "half"])
def test_a_sampler_argument_that_is_no_probability_is_refused(
    argument: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", argument)
    assert refusal() == (
        f"traces_sampler (variable OTEL_TRACES_SAMPLER_ARG) is {argument!r};"
        " it may be a number from 0 to 1"
    )


def test_an_unknown_sampler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "sometimes")
    assert "'sometimes'; it may be always_on or " in refusal()


def test_the_resource_is_merged_the_strongest_place_winning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path("apmkit.toml").write_text('[resource]\nteam = "file"\nregion = "file"\n', encoding="utf-8")
    monkeypatch.setenv("APMKIT_RESOURCE", "region=own,zone=own")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "zone=standard,note=a%2Cb, empty=")
    resource = Settings.load(resource={"note": "keyword", "sizes": [1, 2]}).resource
    found = {key: resource[key] for key in ("team", "region", "zone", "note", "empty", "sizes")}
    assert found == {
        "team": "file",
        "region": "own",
        "zone": "standard",
        "note": "keyword",
        "empty": "",
        "sizes": (1, 2),
    }


def test_the_resource_may_name_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=from-resource")
    settings = Settings.load()
    assert settings.service_name == settings.resource["service.name"] == "from-resource"
    monkeypatch.setenv("OTEL_SERVICE_NAME", "from-name")
    assert Settings.load().resource["service.name"] == "from-name"
    assert Settings.load(resource={"service.name": "given"}).service_name == "given"


def test_the_resource_tells_process_and_sdk() -> None:
    resource = Settings.load().resource
    assert resource["telemetry.sdk.language"] == "python"
    assert resource["telemetry.sdk.name"] == "apmkit"
    assert resource["telemetry.sdk.version"]
    assert resource["process.pid"] == os.getpid()
    assert resource["host.name"]
    assert len(str(resource["service.instance.id"])) == 32


def test_each_process_is_an_instance_of_its_own_unless_it_was_named() -> None:
    settings = Settings.load(resource={"team": "a"}, ops_token="x" * 16)
    child = settings.for_this_process()
    assert child.resource["service.instance.id"] != settings.resource["service.instance.id"]
    assert child.resource["team"] == "a"
    assert child.ops_token == "x" * 16
    named = Settings.load(resource={"service.instance.id": "web-1"}).for_this_process()
    assert named.resource["service.instance.id"] == "web-1"


@pytest.mark.parametrize("value", ["", "none"])
def test_a_variable_switches_a_path_off(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APMKIT_METRICS_PATH", value)
    assert Settings.load().metrics_path is None
    assert Settings.load(metrics_path="/own").metrics_path == "/own"


def test_none_switches_a_path_off() -> None:
    assert Settings.load(metrics_path=None).metrics_path is None


@pytest.mark.parametrize(
    "name", ["OTEL_SERVICE_NAME", "APMKIT_SERVICE_NAME", "APMKIT_TRACE_BUDGET"]
)
def test_an_empty_variable_is_not_set(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, " ")
    settings = Settings.load()
    assert settings.service_name.startswith("unknown_service:")
    assert settings.trace_budget == 100.0


def test_networks_are_read_from_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APMKIT_OPS_NETWORKS", "10.1.0.0/16, ::1")
    assert Settings.load().ops_networks == (ip_network("10.1.0.0/16"), ip_network("::1/128"))
    monkeypatch.setenv("APMKIT_OPS_NETWORKS", "none")
    assert Settings.load().ops_networks == ()
    assert Settings.load(ops_networks=[ip_network("::1/128")]).ops_networks == (
        ip_network("::1/128"),
    )


def test_the_budget_may_be_infinite_or_zero() -> None:
    assert math.isinf(Settings.load(trace_budget="inf").trace_budget)
    assert math.isinf(Settings.load(trace_budget=float("inf")).trace_budget)
    assert Settings.load(trace_budget=0).trace_budget == 0.0


def test_every_setting_is_described() -> None:
    # Python 3.13 strips the indentation of docstrings; getdoc does everywhere.
    documented = inspect.getdoc(Settings) or ""
    fields = [field for field in dataclasses.fields(Settings) if field.metadata]
    assert len(fields) == 13
    for field in fields:
        assert f"    {field.name}: " in documented
        assert field.metadata["may_be"]


def test_a_token_closes_the_pages_to_local_clients_unless_networks_are_named() -> None:
    assert Settings.load(ops_token="x" * 16).ops_networks == ()
    assert Settings.load().ops_networks
    named = Settings.load(ops_token="x" * 16, ops_networks=["10.1.0.0/16"])
    assert [str(network) for network in named.ops_networks] == ["10.1.0.0/16"]


@pytest.mark.parametrize(
    "name", ["APMKIT_PORT", "APMKIT_SERVICE_HOST", "APMKIT_UI_PORT_80_TCP_ADDR"]
)
def test_variables_that_kubernetes_sets_for_a_service_are_not_settings(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "tcp://10.0.0.1:80")
    assert Settings.load().service_name


def test_a_name_like_no_other_gets_the_list_instead_of_a_guess() -> None:
    with pytest.raises(SettingsError, match=r"zzz is not a setting .*; the settings are service_"):
        Settings.load(zzz=1)
