"""The HTTP API's description as a page: operations, then schemas, in Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Node = dict[str, Any]


def render(description: Node) -> str:
    """Return the Markdown of an OpenAPI description, as far as ours uses it."""
    return "\n".join([*_operations(description), *_schemas(description["components"]["schemas"])])


def _operations(description: Node) -> Iterator[str]:
    yield "## Operations\n"
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            yield f"### `{method.upper()} {path}`\n"
            yield f"{operation['summary']}. Operation `{operation['operationId']}`; {_who(operation)}\n"
            yield from _parameters(operation.get("parameters", []))
            yield from _body(operation.get("requestBody"))
            yield from _responses(operation["responses"], description["components"].get("responses", {}))


def _who(operation: Node) -> str:
    return "needs the bearer token." if operation.get("security") else "open to everybody."


def _parameters(parameters: list[Node]) -> Iterator[str]:
    if parameters:
        yield "| Parameter | In | Type | Meaning |\n|---|---|---|---|"
        for parameter in parameters:
            name, place = parameter["name"], parameter["in"]
            yield f"| `{name}` | {place} | {type_of(parameter['schema'])} | {parameter['description']} |"
        yield ""


def _body(body: Node | None) -> Iterator[str]:
    if body is not None:
        kinds = ", ".join(f"{type_of(media['schema'])} (`{name}`)" for name, media in body["content"].items())
        yield f"Body{'' if body.get('required') else ', optional'}: {kinds}\n"


def _responses(responses: Node, shared: Node) -> Iterator[str]:
    yield "| Status | Answer | Meaning |\n|---|---|---|"
    for status, given in responses.items():
        response = shared[_name(given["$ref"])] if "$ref" in given else given
        kinds = [
            type_of(media["schema"]) + ("" if name == "application/json" else f" (`{name}`)")
            for name, media in response.get("content", {}).items()
        ]
        yield f"| {status} | {' or '.join(kinds) or 'no body'} | {response['description']} |"
    yield ""


def _schemas(schemas: Node) -> Iterator[str]:
    yield "## Schemas\n"
    for name, schema in schemas.items():
        yield f"(schema-{name})=\n### `{name}`\n\n{schema.get('description', '')}\n"
        if "properties" in schema:
            yield from _properties(schema)
        else:
            yield f"Type: {type_of(schema)}\n"


def _properties(schema: Node) -> Iterator[str]:
    required = schema.get("required", [])
    yield "| Member | Type | Required | Meaning |\n|---|---|---|---|"
    for name, member in schema["properties"].items():
        needed = "yes" if name in required else "no"
        meaning = member.get("description", "")
        if "default" in member:
            meaning += f" Default: `{member['default']}`."
        yield f"| `{name}` | {type_of(member)} | {needed} | {meaning.replace('|', chr(92) + '|')} |"
    yield ""


def type_of(schema: Node) -> str:
    """Return what a schema is, in few words, with a link to a named one."""
    if "$ref" in schema:
        name = _name(schema["$ref"])
        return f"[{name}](#schema-{name})"
    if "enum" in schema:
        return "one of " + ", ".join(f"`{value}`" for value in schema["enum"])
    match schema.get("type"):
        case None:
            return "any JSON"
        case "array":
            return f"array of {type_of(schema.get('items', {}))}"
        case "object" if isinstance(schema.get("additionalProperties"), dict):
            return f"object of {type_of(schema['additionalProperties'])}"
        case "object" if "properties" in schema:
            members = ", ".join(f"`{name}`: {type_of(member)}" for name, member in schema["properties"].items())
            return f"object ({members})"
        case kind:
            return f"{kind} ({schema['format']})" if "format" in schema else str(kind)


def _name(reference: str) -> str:
    return reference.rpartition("/")[2]
