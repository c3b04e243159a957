"""The tools, as tables: names, words for agents, and the schemas of their arguments. [pure]

The names and arguments of those that Positron's agents know are its API's; the words are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from kallichore.agents.arguments import find_misfit
from kallichore.agents.problems import Problem, ToolError

DEFAULT_SECONDS, MOST_SECONDS = 60, 600
"""How long a run may take if the agent does not say, and at most: agents give up on calls that take longer."""

LARGEST_CODE = 1 << 20
"""Characters of code in one call. Data that is larger belongs into a file."""


@attrs.frozen
class Tool:
    """One tool.

    Args:
        name: What agents call it.
        description: What it does, to an agent.
        properties: Its arguments: JSON Schemas by name.
        required: Those that have to be there.
        reads_only: Whether it changes nothing.
    """

    name: str
    description: str
    properties: Mapping[str, Any] = attrs.field(factory=dict)
    required: tuple[str, ...] = ()
    reads_only: bool = False

    @property
    def input_schema(self) -> dict[str, Any]:
        """The JSON Schema of its arguments."""
        schema: dict[str, Any] = {"type": "object", "properties": dict(self.properties), "additionalProperties": False}
        return {**schema, "required": list(self.required)} if self.required else schema

    def check(self, arguments: Mapping[str, Any]) -> None:
        """Check arguments.

        Raises:
            ToolError: ``INVALID_ARGUMENTS``, they do not fit the schema.
        """
        if (misfit := find_misfit(arguments, self.properties, self.required)) is not None:
            raise ToolError(Problem.INVALID_ARGUMENTS, f"{self.name}: {misfit}")


_SESSION = {
    "type": "string",
    "description": "Which session, by its id. If left out: the one in the foreground, else the only one.",
}
_CODE = {"type": "string", "description": "The code to run, in the session's language.", "maxLength": LARGEST_CODE}
_TIMEOUT = {
    "type": "integer",
    "minimum": 1,
    "maximum": MOST_SECONDS,
    "default": DEFAULT_SECONDS,
    "description": "Seconds that it may take, the wait for its turn included; then it is interrupted.",
}
_LIMIT = {"type": "integer", "minimum": 1, "maximum": 100, "default": 10, "description": "How many, at most."}
_WAIT = {
    "type": "boolean",
    "default": False,
    "description": "Wait for a turn while the session runs other code; otherwise that is RUNTIME_BUSY at once.",
}

LIST_SESSIONS = Tool(
    "list_sessions",
    "List the sessions (running kernels that keep their state): id, language, status, which one is the default.",
    reads_only=True,
)
GET_SESSION_HISTORY = Tool(
    "get_session_history",
    "Show what was executed lately in a session, by anybody, with its output in short.",
    {"session_id": _SESSION, "limit": _LIMIT},
    reads_only=True,
)
EXECUTE_CODE = Tool(
    "execute_code",
    "Run code in a session and return what it printed, displayed and returned, or its error. The session keeps its "
    "state: variables, imports and the working directory are there for the next call.",
    {"code": _CODE, "session_id": _SESSION, "timeout_s": _TIMEOUT},
    ("code",),
)
EVALUATE_CODE = Tool(
    "evaluate_code",
    "Run code that only looks at something (a value, a data frame's columns) and return what comes of it. It is not "
    "kept in the session's history.",
    {"code": _CODE, "session_id": _SESSION, "timeout_s": _TIMEOUT, "wait": _WAIT},
    ("code",),
)
INTERRUPT_SESSION = Tool(
    "interrupt_session",
    "Interrupt what a session runs now, as Ctrl-C would. Its state stays; what waited behind it is dropped.",
    {"session_id": _SESSION},
)
LIST_POSITRON_COMMANDS = Tool(
    "list_positron_commands",
    "Find commands of the Positron window by words of their id or description.",
    {"search": {"type": "string", "description": "Words that have to be in it; all commands if left out."}},
    reads_only=True,
)
RUN_POSITRON_COMMAND = Tool(
    "run_positron_command",
    "Run a command of the Positron window, by an id that list_positron_commands told.",
    {
        "command_id": {"type": "string", "description": "The command's id."},
        "args": {"type": "array", "description": "Its arguments, by position."},
    },
    ("command_id",),
)
GET_PLOT = Tool("get_plot", "Return the plot that the Positron window shows now, as an image.", reads_only=True)

IN_WINDOW = (
    *(LIST_SESSIONS, GET_SESSION_HISTORY, EXECUTE_CODE, EVALUATE_CODE),
    *(INTERRUPT_SESSION, LIST_POSITRON_COMMANDS, RUN_POSITRON_COMMAND, GET_PLOT),
)
"""What agents beside an IDE are offered."""

ALONE_EXECUTE_CODE = attrs.evolve(
    EXECUTE_CODE,
    properties={
        **EXECUTE_CODE.properties,
        "keep_running": {
            "type": "boolean",
            "default": False,
            "description": "When timeout_s is up, let it go on rather than interrupt it; get_output tells the rest.",
        },
    },
)
LIST_KERNELS = Tool("list_kernels", "List the installed kernels that start_session can start.", reads_only=True)
START_SESSION = Tool(
    "start_session",
    "Start a new session: a kernel that keeps its state until it is stopped.",
    {
        "kernel": {"type": "string", "description": "Which kernel, by its name; the usual one if left out."},
        "directory": {"type": "string", "description": "Where it starts; the current directory if left out."},
        "session_id": {"type": "string", "description": "The id that it is to have.", "minLength": 1, "maxLength": 100},
    },
)
RESTART_SESSION = Tool(
    "restart_session",
    "Restart a session's kernel: its state is lost, the session stays.",
    {"session_id": _SESSION},
)
STOP_SESSION = Tool("stop_session", "End a session and its kernel for good.", {"session_id": _SESSION})
GET_OUTPUT = Tool(
    "get_output",
    "Return what a session's runs have put out since a number: how to come back to a run that was left running.",
    {
        "session_id": _SESSION,
        "since": {
            "type": "integer",
            "minimum": 0,
            "default": 0,
            "description": "The `next` of an earlier answer; what was put out up to there is left out.",
        },
        "wait_s": {
            "type": "integer",
            "minimum": 0,
            "maximum": MOST_SECONDS,
            "default": 0,
            "description": "Seconds to wait until there is something new or nothing runs any more.",
        },
    },
    reads_only=True,
)

ALONE = (
    *(LIST_KERNELS, START_SESSION, LIST_SESSIONS, ALONE_EXECUTE_CODE, EVALUATE_CODE, GET_OUTPUT),
    *(INTERRUPT_SESSION, RESTART_SESSION, STOP_SESSION, GET_SESSION_HISTORY),
)
"""What agents without an IDE are offered."""
