"""The tools' tables, and what becomes of arguments that do not fit."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st
from jsonschema import Draft202012Validator

from kallichore.agents.arguments import _LIMITS
from kallichore.agents.problems import ToolError
from kallichore.agents.tools import ALONE, IN_WINDOW, LARGEST_CODE, Tool

TOOLS = {**{f"{tool.name} alone": tool for tool in ALONE}, **{f"{tool.name} in a window": tool for tool in IN_WINDOW}}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=5,
)


def test_tools_beside_an_ide_are_those_that_its_agents_know() -> None:
    """An agent that was taught Positron's tools finds each of them, by its name and with its arguments."""
    expected = {
        "list_sessions": set(),
        "get_session_history": {"session_id", "limit"},
        "execute_code": {"code", "session_id", "timeout_s"},
        "evaluate_code": {"code", "session_id", "timeout_s", "wait"},
        "interrupt_session": {"session_id"},
        "list_positron_commands": {"search"},
        "run_positron_command": {"command_id", "args"},
        "get_plot": set(),
    }

    assert expected == {tool.name: set(tool.properties) for tool in IN_WINDOW}


@pytest.mark.parametrize("name", sorted(TOOLS))
@given(data=st.data())
def test_arguments_fit_their_schema_or_are_refused_in_words(name: str, data: st.DataObject) -> None:
    """Whatever an agent sends as arguments fits if JSON Schema says so, and else is refused by a short message which
    names the tool.
    """
    tool = TOOLS[name]
    likely = st.booleans() | st.sampled_from(["", "a", "x" * 101, 0, 1, 1.0, 1.5, 601, -1, [], [{}], None])
    names = st.sampled_from([*tool.properties, "code", "since"]) | st.text(max_size=9)
    arguments = data.draw(st.dictionaries(names, likely | JSON))
    refusal = None
    try:
        tool.check(arguments)
    except ToolError as error:
        refusal = error

    assert (refusal is None) == Draft202012Validator(tool.input_schema).is_valid(arguments)
    if refusal is not None:
        assert (refusal.code, refusal.message.split(":")[0]) == ("INVALID_ARGUMENTS", tool.name)
        assert len(refusal.message) < 1000


def test_schemas_say_no_more_than_is_checked() -> None:
    """Each keyword of the tools' schemas is either checked or is for people."""
    used = {keyword for tool in TOOLS.values() for schema in tool.properties.values() for keyword in schema}

    assert used <= {"type", "default", "description", *_LIMITS}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, "'code' is required"),
        ({"code": 1}, "code: 1 is not of type 'string'"),
        ({"code": "", "timeout_s": 0}, "timeout_s: 0 is less than the minimum of 1"),
        ({"code": "", "timeout_s": 601}, "timeout_s: 601 is greater than the maximum of 600"),
        ({"code": "", "sesion_id": "a"}, "no argument 'sesion_id'; there are code, session_id, timeout_s"),
        ({"code": "x" * (LARGEST_CODE + 1)}, f"code: a str of {LARGEST_CODE + 3} characters is longer"),
    ],
)
def test_refusal_says_what_does_not_fit(arguments: dict[str, Any], says: str) -> None:
    """A refusal names the argument and what is wrong with it, and does not repeat a megabyte of code."""
    tool: Tool = TOOLS["execute_code in a window"]
    with pytest.raises(ToolError) as refused:
        tool.check(arguments)

    assert says in refused.value.message
