"""One trace a run, azure-core's own spans within it, and no secret in any of them."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog

pytest.importorskip("opentelemetry.sdk", reason="the extra `tracing` is not installed")

from azure.core import instrumentation
from azure.core.exceptions import HttpResponseError
from azure.core.settings import settings
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.util._once import Once

from keysync import __version__
from keysync.azure.clients import batch_client, vault_client
from keysync.azure.credentials import Credentials, Endpoints
from keysync.azure.transport import open_transport
from keysync.config.credentials import EnvironmentCredential
from keysync.emulator import Emulator
from keysync.report.tracing import open_tracing
from keysync.secret.redact import Redactor
from keysync.secret.value import MASK, SecretValue
from keysync.tracing import ACCOUNT, RUN, SECRET, span
from tests.support.azure import GROUP, SUBSCRIPTION, data
from tests.support.receiver import Receiver, receiving


@pytest.fixture(autouse=True)
def _as_in_a_new_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Resets OpenTelemetry's provider, which can be set once in a process, and azure-core's reference to it."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", Once())
    instrumentation._get_tracer_cached.cache_clear()
    yield
    instrumentation._get_tracer_cached.cache_clear()


@dataclass
class Stage:
    """Clients that use the embedded Azure."""

    azure: Emulator
    batch: Any
    secrets: Any

    async def list_keys(self, account: str = "alpha") -> Any:
        return await self.batch.batch_account.get_keys(GROUP, account)


@asynccontextmanager
async def staged(monkeypatch: pytest.MonkeyPatch, redactor: Redactor) -> AsyncIterator[Stage]:
    async with Emulator(data("alpha", {"name": "denied", "fault": "role_missing"})) as azure, AsyncExitStack() as stack:
        found = azure.endpoints
        for name in ("tenant_id", "client_id", "client_secret"):
            monkeypatch.setenv(f"AZURE_{name.upper()}", getattr(found, name))
        bundle, manager = Path(found.ca_bundle), found.resource_manager
        endpoints = Endpoints(found.authority, manager, f"{manager}/.default", bundle, known=False)
        transport = await open_transport(stack, ca_bundle=bundle, connect_seconds=5, redactor=Redactor())
        credentials = Credentials(stack, endpoints, transport, redactor, timeout=20)
        credential = await credentials.open(EnvironmentCredential(type="environment"))
        batch = batch_client(credential, SUBSCRIPTION, endpoints, transport, None)
        secrets = vault_client(credential, found.vaults["main"], transport, verify_challenge=False, api_version=None)
        yield Stage(azure, batch, secrets)


def texts(spans: list[ReadableSpan]) -> str:
    """Everything that a collector would see of these spans."""
    return "\n".join(span.to_json() for span in spans)


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


async def a_run(stage: Stage) -> None:
    """Makes spans like a run does: an account in its own task, its secrets in tasks below that."""

    async def secret(name: str, value: str) -> None:
        with span(SECRET, {"secret": name}):
            await stage.secrets.set_secret(name, value)

    async def account() -> None:
        with span(ACCOUNT, {"account": "alpha"}):
            keys = await stage.list_keys()
            async with asyncio.TaskGroup() as group:
                group.create_task(secret("one", keys.primary))
                group.create_task(secret("two", keys.secondary))

    with span(RUN, {"run_id": "run-1"}):
        await asyncio.create_task(account())


async def test_a_run_is_one_trace_with_its_calls_to_azure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run, account, secret, the SDK's operation and its request are nested, across tasks."""
    exporter, redactor = InMemorySpanExporter(), Redactor()
    async with (
        open_tracing(redactor.redact, exporter=exporter),
        staged(monkeypatch, redactor) as stage,
    ):
        await a_run(stage)
        live = stage.azure.state.keys("alpha")
        client_secret = stage.azure.endpoints.client_secret
    spans = list(exporter.get_finished_spans())
    assert len({span.context.trace_id for span in spans}) == 1
    parents = {span.context.span_id: span for span in spans}

    def line(span: ReadableSpan) -> list[str]:
        above = parents.get(span.parent.span_id) if span.parent else None
        return [*(line(above) if above else []), span.name]

    lines = [line(span) for span in spans]
    assert [RUN] in lines
    assert [RUN, ACCOUNT] in lines
    assert lines.count([RUN, ACCOUNT, SECRET]) == 2
    assert [RUN, ACCOUNT, "BatchAccountOperations.get_keys", "POST"] in lines
    assert [RUN, ACCOUNT, SECRET, "SecretClient.set_secret", "PUT"] in lines
    seen = texts(spans)
    assert "/providers/Microsoft.Batch/batchAccounts/alpha/listKeys" in seen
    for hidden in (*live, client_secret, "Bearer", "?"):
        assert hidden not in seen


async def test_a_failed_span_has_the_error_type_without_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """The service's message is only in the report."""
    exporter, redactor = InMemorySpanExporter(), Redactor()
    async with (
        open_tracing(redactor.redact, exporter=exporter),
        staged(monkeypatch, redactor) as stage,
    ):
        with pytest.raises(HttpResponseError), span(ACCOUNT, {"account": "denied"}):
            await stage.list_keys("denied")
    spans = {span.name: span for span in exporter.get_finished_spans()}
    for name in (ACCOUNT, "BatchAccountOperations.get_keys"):
        assert not spans[name].status.is_ok
        assert spans[name].status.description is None
        assert "HttpResponseError" in attributes(spans[name])["error.type"]
        assert not spans[name].events
    assert attributes(spans["POST"])["http.response.status_code"] == 403
    assert "AuthorizationFailed" not in texts(list(spans.values()))


async def test_a_secret_in_an_attribute_is_masked_even_if_it_is_forgotten() -> None:
    """Attributes are redacted when the span ends, queries of URLs are removed, and exceptions leave no text."""
    exporter, redactor = InMemorySpanExporter(), Redactor()
    value = redactor.remember(SecretValue("short-but-secret"))
    async with open_tracing(redactor.redact, exporter=exporter):
        with pytest.raises(ValueError, match="secret"), span("short-but-secret", {"a": "x short-but-secret y"}):
            raise ValueError("short-but-secret")
        with span("unmanaged", {"url.full": "https://host/path?sig=abc"}):
            current = trace.get_current_span()
            current.set_attribute("many", ["short-but-secret", "b"])
            current.set_attribute("count", 3)
            current.add_event("short-but-secret")
        del value
    first, second = exporter.get_finished_spans()
    assert (first.name, attributes(first)) == (MASK, {"a": f"x {MASK} y", "error.type": "ValueError"})
    assert attributes(second) == {"url.full": "https://host/path", "many": [MASK, "b"], "count": 3}
    assert "short-but-secret" not in texts([first, second])


async def test_clients_opened_without_tracing_have_no_tracing_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    """So their requests create no spans and cost nothing."""
    exporter, redactor = InMemorySpanExporter(), Redactor()
    async with staged(monkeypatch, redactor) as stage, open_tracing(redactor.redact, exporter=exporter):
        await stage.list_keys()
    requests = [
        attributes(span).get("url.full", "") for span in exporter.get_finished_spans() if span.name in {"GET", "POST"}
    ]
    assert requests
    assert not [url for url in requests if "listKeys" in url]


async def test_tracing_ends_with_its_context(monkeypatch: pytest.MonkeyPatch) -> None:
    """After that, azure-core creates no spans."""
    exporter, redactor = InMemorySpanExporter(), Redactor()
    async with open_tracing(redactor.redact, exporter=exporter):
        assert settings.tracing_enabled()
    async with staged(monkeypatch, redactor) as stage:
        await stage.list_keys()
    assert not settings.tracing_enabled()
    assert exporter.get_finished_spans() == ()


async def test_spans_arrive_at_a_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the standard variables, over OTLP/HTTP, with the service name. Buffered spans are sent at the end."""
    redactor = Redactor()
    async with receiving() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.base)
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test")
        async with open_tracing(redactor.redact, close_seconds=20), staged(monkeypatch, redactor) as stage:
            await a_run(stage)
            live = stage.azure.state.keys("alpha")
    names, resource = exported(collector)
    assert {RUN, ACCOUNT, SECRET, "BatchAccountOperations.get_keys", "SecretClient.set_secret"} <= set(names)
    assert resource["service.name"] == "keysync"
    assert resource["deployment.environment"] == "test"
    assert {one.path for one in collector.received} == {"/v1/traces"}
    assert not any(key.encode() in one.body for one in collector.received for key in live)


async def test_the_service_name_can_be_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    """OTEL_SERVICE_NAME takes precedence."""
    async with receiving() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{collector.base}/elsewhere")
        monkeypatch.setenv("OTEL_SERVICE_NAME", "keys-of-production")
        async with open_tracing(str, close_seconds=20):
            with span(RUN, {}):
                pass
    assert exported(collector) == ([RUN], {"service.name": "keys-of-production", "service.version": __version__})
    assert [one.path for one in collector.received] == ["/elsewhere"]


async def test_a_redirect_of_a_collector_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The headers, which may contain credentials, go to no other host."""
    async with receiving() as collector, receiving() as other:
        collector.answers = [(307, {"Location": f"{other.base}/v1/traces"})] * 3
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.base)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=of-the-collector")
        async with open_tracing(str):
            with span(RUN, {}):
                pass
        assert collector.received[0].headers["api-key"] == "of-the-collector"
        assert other.received == []


def exported(collector: Receiver) -> tuple[list[str], dict[str, str]]:
    """The names of the spans that arrived, and the attributes of the service."""
    names: list[str] = []
    resource: dict[str, str] = {}
    for one in collector.received:
        packed = one.headers.get("Content-Encoding") == "gzip"
        sent = ExportTraceServiceRequest.FromString(gzip.decompress(one.body) if packed else one.body)
        for group in sent.resource_spans:
            resource |= {pair.key: pair.value.string_value for pair in group.resource.attributes}
            names += [span.name for scope in group.scope_spans for span in scope.spans]
    return names, resource


async def test_a_hung_collector_does_not_block_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spans that it does not accept in time are dropped, with a warning."""
    async with receiving() as collector:
        collector.answers = ["hang"]
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.base)
        # So that the SDK's abandoned thread ends soon as well.
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
        with structlog.testing.capture_logs() as logged:
            async with open_tracing(str, close_seconds=0.3):
                with span(RUN, {}):
                    pass
    assert [(one["event"], one["log_level"]) for one in logged] == [("tracing.flush_timeout", "warning")]


async def test_another_provider_is_not_replaced() -> None:
    """Its spans would not be redacted, so there are none, and a warning."""
    trace.set_tracer_provider(TracerProvider(shutdown_on_exit=False))
    with structlog.testing.capture_logs() as logged:
        exporter = InMemorySpanExporter()
        async with open_tracing(str, exporter=exporter):
            with span(RUN, {}):
                assert not settings.tracing_enabled()
                assert not trace.get_current_span().is_recording()
    assert [(one["event"], one["log_level"]) for one in logged] == [("tracing.disabled", "warning")]
