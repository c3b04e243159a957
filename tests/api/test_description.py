"""kallichore.json and the code say the same: neither can drift without a test failing."""

from __future__ import annotations

import json
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import attrs
import jsonschema
import pytest
from openapi_spec_validator import validate

from kallichore.api.operations import OPERATIONS, Operation
from kallichore.errors import StartupReason
from kallichore.models import bodies
from kallichore.models.converter import REQUIRED, unstructure
from kernels import body, execute, open_client, open_started

DESCRIPTION: dict[str, Any] = json.loads((Path(__file__).parents[2] / "kallichore.json").read_text())
SCHEMAS = DESCRIPTION["components"]["schemas"]

MODELS = {
    "error": bodies.ErrorBody,
    "mcpWorkspaceRegistration": bodies.McpWorkspaceRegistration,
    "mcpWorkspace": bodies.McpWorkspace,
    "mcpClient": bodies.McpClient,
    "mcpWorkspaceStatus": bodies.McpWorkspaceStatus,
    "mcpStatus": bodies.McpStatus,
    "startupError": bodies.StartupErrorBody,
    "varAction": bodies.VarAction,
    "connectionInfo": bodies.ConnectionInfo,
    "newSession": bodies.NewSession,
    "kernelProvisioner": bodies.KernelProvisioner,
    "startKernel": bodies.StartKernel,
    "kernel": bodies.Kernel,
    "kernelList": bodies.KernelList,
    "warmKernel": bodies.WarmKernel,
    "warmKernelList": bodies.WarmKernelList,
    "restartSession": bodies.RestartSession,
    "clientHeartbeat": bodies.ClientHeartbeat,
    "execution_queue": bodies.ExecutionQueue,
    "resourceUsage": bodies.ResourceUsage,
    "pendingStart": bodies.PendingStart,
    "connectionLost": bodies.ConnectionLost,
    "kernelPlace": bodies.KernelPlace,
    "engineProfile": bodies.EngineProfile,
    "engineProfiles": bodies.EngineProfiles,
    "activeSession": bodies.ActiveSession,
    "culling": bodies.Culling,
    "kernelExit": bodies.KernelExit,
    "runningRequest": bodies.RunningRequest,
    "sessionList": bodies.SessionList,
    "executeRequest": bodies.ExecuteRequest,
    "attribution": bodies.Attribution,
    "executeOutput": bodies.ExecuteOutput,
    "executeReply": bodies.ExecuteReply,
    "executionError": bodies.ExecutionError,
    "executionHistoryEntry": bodies.ExecutionHistoryEntry,
    "sessionSummary": bodies.SessionSummary,
    "changes": bodies.Changes,
    "samples": bodies.Samples,
    "logLine": bodies.LogLine,
    "logLines": bodies.LogLines,
    "serverStatus": bodies.ServerStatus,
    "serverConfiguration": bodies.ServerConfiguration,
}
ENUMS = {
    "status": bodies.Status,
    "sessionMode": bodies.SessionMode,
    "interrupt_mode": bodies.InterruptMode,
    "startupEnvironment": bodies.StartupEnvironment,
    "transportEncryption": bodies.TransportEncryption,
    "kernelTransport": bodies.KernelTransport,
    "varActionType": bodies.VarActionType,
    "startupReason": StartupReason,
    "exitCause": bodies.ExitCause,
    "cullHold": bodies.CullHold,
    "warmStatus": bodies.WarmStatus,
}


def test_description_is_valid_openapi() -> None:
    """The file is a valid OpenAPI document."""
    validate(DESCRIPTION)


def test_every_schema_is_a_model_and_every_model_a_schema() -> None:
    """Schemas and classes are the same set, but for the one that is a plain array."""
    assert {*MODELS, *ENUMS, "envVarActions"} == set(SCHEMAS)
    classes = {kind for kind in vars(bodies).values() if isinstance(kind, type) and kind.__module__ == bodies.__name__}
    assert classes - {*MODELS.values(), *ENUMS.values()} == {bodies.LogLevel}


def _json_type(hint: Any) -> str:
    """Return the JSON type of a type annotation, or the name of the schema that it refers to."""
    given = [kind for kind in get_args(hint) if kind is not type(None)]
    if type(None) in get_args(hint):
        return _json_type(given[0])
    if get_origin(hint) is tuple:
        return "array"
    if get_origin(hint) is dict:
        return "object"
    for name, kind in {**MODELS, **ENUMS}.items():
        if kind is hint:
            return name
    if hint in (datetime, bodies.LogLevel):
        return "string"
    return {str: "string", int: "integer", float: "number", bool: "boolean"}[hint]


def _described_type(schema: dict[str, Any]) -> str:
    name = schema["$ref"].rpartition("/")[2] if "$ref" in schema else schema["type"]
    return "array" if name == "envVarActions" else str(name)


@pytest.mark.parametrize(("name", "kind"), MODELS.items(), ids=list(MODELS))
def test_members_of_a_model_are_those_of_its_schema(name: str, kind: type) -> None:
    """Names, types and which of them are required agree."""
    hints = get_type_hints(kind)
    schema = SCHEMAS[name]
    assert {field: _json_type(hint) for field, hint in hints.items()} == {
        member: _described_type(described) for member, described in schema["properties"].items()
    }
    optional = {field for field, hint in hints.items() if type(None) in get_args(hint)}
    required = REQUIRED.get(kind) or set(hints) - optional
    # It is always sent, but older descriptions do not promise it, and generated clients depend on that.
    assert set(required) - {"initial_env"} == set(schema.get("required", []))
    assert all(described.get("description") for described in schema["properties"].values() if "$ref" not in described)


@pytest.mark.parametrize(("name", "kind"), ENUMS.items(), ids=list(ENUMS))
def test_values_of_an_enum_are_those_of_its_schema(name: str, kind: type[Enum]) -> None:
    """The values agree, and so do those of the log level, which is described in its place."""
    assert [member.value for member in kind] == SCHEMAS[name]["enum"]
    level = SCHEMAS["serverConfiguration"]["properties"]["log_level"]
    assert [member.value for member in bodies.LogLevel] == level["enum"]


def test_operations_are_those_that_are_served() -> None:
    """Paths, methods, ids, bodies and which operations need the token agree."""
    described = {
        (path, method.upper()): operation
        for path, item in DESCRIPTION["paths"].items()
        for method, operation in item.items()
    }
    assert set(described) == {(operation.path, operation.method) for operation in OPERATIONS}
    for operation in OPERATIONS:
        _check_operation(operation, described[operation.path, operation.method])


def _check_operation(operation: Operation, described: dict[str, Any]) -> None:
    assert described["operationId"] == operation.operation_id
    assert described["summary"]
    assert described["security"] == ([{"bearerAuth": []}] if operation.needs_token else [])
    assert {tag["name"] for tag in DESCRIPTION["tags"]} >= set(described["tags"])
    assert "403" in described["responses"]
    assert ("401" in described["responses"]) == operation.needs_token
    assert ("404" in described["responses"]) == operation.has_subject
    content = described.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    named = MODELS.get(content.get("$ref", "").rpartition("/")[2])
    assert named is operation.body
    assert described.get("requestBody", {}).get("required", True) is not operation.body_optional


async def test_what_the_server_sends_fits_its_schemas() -> None:
    """Real answers, of a session in use, validate against the description."""
    resolver = {**SCHEMAS["activeSession"], "components": DESCRIPTION["components"]}
    async with (
        open_client(resource_sample_interval_ms=100, cull_idle_after=3600, cull_connected=True) as client,
        open_started(client, body(notebook_uri="file:///n.ipynb")) as channel,
    ):
        await execute(channel, "print x")
        jsonschema.validate(await client.call("GET", "/sessions/s"), resolver)
        for path, name in (
            ("/status", "serverStatus"),
            ("/sessions", "sessionList"),
            ("/server_configuration", "serverConfiguration"),
            ("/kernels", "kernelList"),
            ("/events", "changes"),
            ("/samples", "samples"),
            ("/sessions/s/connection_info", "connectionInfo"),
        ):
            schema = {**SCHEMAS[name], "components": DESCRIPTION["components"]}
            jsonschema.validate(await client.call("GET", path), schema)


def test_optional_members_without_a_value_are_left_out() -> None:
    """What has no value is not in the answer, never null."""
    assert unstructure(bodies.ErrorBody(code="KS-0", message="text")) == {"code": "KS-0", "message": "text"}
    assert attrs.asdict(bodies.RestartSession()) == {"working_directory": None, "env": None}
