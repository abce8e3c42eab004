from __future__ import annotations

import importlib.util
import re
import socket
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
APP = ROOT / "examples" / "quickstart" / "app.py"
AGENT_LINES = 10


@pytest.fixture
def base_url() -> Iterator[str]:
    specification = importlib.util.spec_from_file_location("quickstart", APP)
    assert specification is not None
    assert specification.loader is not None
    module: Any = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(module.app, log_config=None))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
        module.agent.stop()
        module.database.close()


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=10) as response:  # noqa: S310 - our own server
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def counts(exposition: str, metric: str, *labels: str) -> dict[tuple[str, ...], float]:
    """Return the count of each series of a histogram, by the values of `labels`."""
    found: dict[tuple[str, ...], float] = {}
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            if sample.name == f"{metric}_count":
                key = tuple(sample.labels.get(label, "") for label in labels)
                found[key] = found.get(key, 0) + sample.value
    return found


def test_the_readme_shows_this_very_file() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    assert APP.read_text("utf-8") in blocks


def test_it_has_at_most_ten_lines_about_the_agent() -> None:
    lines = [
        line for line in APP.read_text("utf-8").splitlines() if re.search("apmkit|agent", line)
    ]
    assert 0 < len(lines) <= AGENT_LINES


def test_its_metrics_count_requests_queries_and_cache_lookups(base_url: str) -> None:
    statuses = [get(f"{base_url}/products/{number}")[0] for number in (1, 1, 1, 2, 9)]
    assert statuses == [200, 200, 200, 200, 404]

    status, exposition = get(f"{base_url}/metrics")

    assert status == 200
    requests = counts(
        exposition,
        "http_server_request_duration_seconds",
        "http_route",
        "http_response_status_code",
    )
    assert requests == {("/products/{product_id}", "200"): 4, ("/products/{product_id}", "404"): 1}
    queries = counts(exposition, "db_client_operation_duration_seconds", "db_query_summary")
    assert queries["SELECT product",] == 3
    lookups = counts(
        exposition,
        "cache_client_operation_duration_seconds",
        "cache_name",
        "cache_operation",
        "cache_hit",
    )
    hits = {
        key[2].lower(): count for key, count in lookups.items() if key[:2] == ("products", "get")
    }
    assert hits == {"true": 2, "false": 3}
