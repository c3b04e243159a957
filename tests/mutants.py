"""Changes the pure modules, one operator, constant, return or line at a time, and sees whether their tests notice.

What no test notices is either not tested or says the same in other words. `mutants.toml` beside this has the reason
for each change that may live; the run fails if one lives without a reason, or if a reason is for nothing.

Why not mutmut or cosmic-ray: the former knows no table of which tests belong to which module, the latter starts a
Python for each change, and both take hours for what has to be over in minutes. Here everything that does not depend on
the module is imported once, and each change is a fork of that: it takes as long as the first test that notices.

    python tests/mutants.py                 everything
    python tests/mutants.py --sample 900    so many of all, chosen by chance; it says which seed chooses the same again
    python tests/mutants.py activity zmtp   only modules with these names
"""

from __future__ import annotations

import argparse
import ast
import importlib
import io
import json
import os
import random
import resource
import select
import signal
import sys
import time
import tomllib
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from importlib.machinery import SourceFileLoader
from itertools import takewhile
from pathlib import Path
from types import CodeType
from typing import Any, NamedTuple

import attrs

PLACE = Path(__file__).parent
REASONS = PLACE / "mutants.toml"

TESTS: dict[str, tuple[str, ...]] = {
    "conversation/activity.py": ("conversation/test_activity.py", "conversation/test_saving.py"),
    "conversation/conversation.py": (
        "conversation/test_conversation.py",
        "conversation/test_answers.py",
        "conversation/test_callers.py",
        "conversation/test_whole_conversation.py",
        "conversation/test_parts.py",
    ),
    "conversation/callers.py": ("conversation/test_callers.py", "conversation/test_conversation.py"),
    "conversation/culling.py": ("conversation/test_culling.py",),
    "conversation/delivery.py": (
        "conversation/test_delivery.py",
        "conversation/test_callers.py",
        "conversation/test_saving.py",
    ),
    "conversation/execution_queue.py": ("conversation/test_execution_queue.py", "conversation/test_saving.py"),
    "conversation/exit_report.py": ("conversation/test_exit_report.py",),
    "conversation/flood.py": ("conversation/test_flood.py",),
    "conversation/heartbeat.py": ("conversation/test_heartbeat.py",),
    "conversation/history.py": ("conversation/test_history.py", "conversation/test_saving.py"),
    "conversation/journal.py": (
        "conversation/test_journal.py",
        "conversation/test_callers.py",
        "conversation/test_saving.py",
    ),
    "conversation/parts.py": ("conversation/test_parts.py",),
    "conversation/patience.py": ("conversation/test_patience.py",),
    "conversation/requests.py": ("conversation/test_requests.py", "conversation/test_saving.py"),
    "conversation/runs.py": ("conversation/test_runs.py",),
    "conversation/status.py": ("conversation/test_status.py", "conversation/test_saving.py"),
    "conversation/supervision.py": ("conversation/test_supervision.py",),
    "conversation/ticks.py": ("conversation/test_ticks.py",),
    "conversation/usage_record.py": ("conversation/test_usage_record.py",),
    "conversation/voice.py": ("conversation/test_voice.py",),
    "conversation/run_result.py": ("conversation/test_run_result.py",),
    "jupyter/dialect.py": ("jupyter/test_dialect.py",),
    "state/records.py": ("state/test_records.py",),
    "state/replay.py": ("state/test_replay.py",),
    "wire/envelope_parts.py": ("wire/test_envelope_parts.py",),
    "wire/frames.py": ("wire/test_frames.py",),
    "wire/host_frames.py": ("wire/test_host_frames.py",),
    "wire/jupyter_frames.py": ("wire/test_jupyter_frames.py", "jupyter/test_dialect.py"),
    "wire/signing.py": ("wire/test_signing.py",),
    "wire/zmtp.py": ("wire/test_zmtp.py",),
    "server/changes.py": ("server/test_changes.py",),
    "attach/pings.py": ("attach/test_pings.py",),
    "attach/outgoing.py": ("attach/test_outgoing.py",),
    "engines/complaints.py": ("engines/test_complaints.py",),
    "engines/ssh_words.py": ("engines/test_ssh_words.py",),
    "session/clients.py": ("session/test_clients.py", "attach/test_outgoing.py", "conversation/test_callers.py"),
}
"""The modules, and which tests are to notice a change."""

EXAMPLES = 40
"""Of Hypothesis, for each test: a change that so few do not notice deserves a test of its own."""

MOST_WORK = 1.0
"""Seconds of a processor for one test, beyond three times what it takes unchanged. A change with which one takes more
goes round in circles, and counts as noticed; a busy machine is not to be mistaken for that."""

MOST_SECONDS = 60.0
"""For one change, beyond ten times what the tests take; one that takes longer waits for what never comes."""

MOST_MEMORY = 4 << 30
"""Bytes of address space: what goes round in circles may also grow."""

AT_ONCE = os.cpu_count() or 2

_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.GtE),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.LtE),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Add,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitOr,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
_DECLARATIONS = frozenset({"alias", "eq", "factory", "frozen", "gc", "init", "kw_only"})
"""Arguments that declare a class; the checker of types sees what is wrong with them."""


class Mutant(NamedTuple):
    """A module with one change."""

    module: str
    name: str
    """Where, what was and what becomes of it: how reasons call it."""
    line: int
    source: str


@attrs.define
class _Collector:
    """Finds what can be changed in a module."""

    module: str
    source: str
    found: list[Mutant] = attrs.field(factory=list, init=False)
    _names: Counter[str] = attrs.field(factory=Counter, init=False)
    _starts: list[int] = attrs.field(factory=lambda: [0], init=False)
    """Where each line begins, in bytes."""

    def collect(self) -> list[Mutant]:
        for line in self.source.encode().splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))
        self._visit_body(ast.parse(self.source).body, "")
        return self.found

    def _change(self, node: ast.expr | ast.stmt, becomes: ast.AST | str, where: str) -> None:
        text = becomes if isinstance(becomes, str) else ast.unparse(becomes)
        if isinstance(becomes, ast.expr):
            text = f"({text})"
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        data = self.source.encode()
        start = self._starts[node.lineno - 1] + node.col_offset
        end = self._starts[node.end_lineno - 1] + node.end_col_offset
        was = " ".join(ast.unparse(node).split())
        name = f"{where or 'module'}: {_difference(was, ' '.join(text.split()))}"
        self._names[name] += 1
        if self._names[name] > 1:
            name += f" ({self._names[name]})"
        self.found.append(Mutant(self.module, name, node.lineno, (data[:start] + text.encode() + data[end:]).decode()))

    def _visit_body(self, body: list[ast.stmt], where: str) -> None:
        for statement in body:
            self._visit_statement(statement, where)

    def _visit_statement(self, node: ast.stmt, where: str) -> None:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                inner = f"{where}.{name}".lstrip(".")
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    for default in (*node.args.defaults, *node.args.kw_defaults):
                        self._visit(default, inner)
                self._visit_body(node.body, inner)
                return
            case ast.Import() | ast.ImportFrom() | ast.Assert() | ast.Expr(value=ast.Constant()):
                return
            case ast.Return(value=value) if value is not None and ast.unparse(value) != "None":
                self._change(node, "return None", where)
            case ast.Expr() | ast.AugAssign() | ast.Raise() | ast.Delete():
                self._change(node, "pass", where)
            case ast.Assign(targets=[target]) if where and not isinstance(target, ast.Name):
                self._change(node, "pass", where)
            case ast.Continue():
                self._change(node, "break", where)
            case ast.Break():
                self._change(node, "continue", where)
        for _, value in ast.iter_fields(node):
            for part in value if isinstance(value, list) else [value]:
                if isinstance(part, ast.stmt):
                    self._visit_statement(part, where)
                elif isinstance(part, ast.ExceptHandler | ast.match_case):
                    self._visit_body(part.body, where)
                elif isinstance(part, ast.expr) and not (isinstance(node, ast.AnnAssign) and part is node.annotation):
                    self._visit(part, where)
        if isinstance(node, ast.If | ast.While):
            self._negate(node.test, where)

    def _negate(self, test: ast.expr, where: str) -> None:
        # What compares is changed as such; `not` is taken away.
        if not isinstance(test, ast.Compare | ast.UnaryOp):
            self._change(test, ast.UnaryOp(ast.Not(), test), where)

    def _visit(self, node: ast.AST | None, where: str) -> None:
        match node:
            case None:
                return
            case ast.Constant(value=value):
                for other in _other_values(value):
                    self._change(node, ast.Constant(other), where)
            case ast.JoinedStr():
                self._change(node, ast.Constant("mutant"), where)
            case ast.Compare(ops=[operator]):
                for other_operator in _COMPARISONS[type(operator)]:
                    self._change(node, ast.Compare(node.left, [other_operator()], node.comparators), where)
                if isinstance(operator, ast.In | ast.NotIn) and isinstance(node.comparators[0], ast.Tuple):
                    # One of several less.
                    for gone in node.comparators[0].elts:
                        elements = [element for element in node.comparators[0].elts if element is not gone]
                        self._change(node, ast.Compare(node.left, [operator], [ast.Tuple(elements)]), where)
            case ast.BoolOp(op=operator, values=values):
                other = ast.Or() if isinstance(operator, ast.And) else ast.And()
                self._change(node, ast.BoolOp(other, values), where)
            case ast.BinOp(op=operator) if type(operator) in _OPERATORS:
                self._change(node, ast.BinOp(node.left, _OPERATORS[type(operator)](), node.right), where)
            case ast.Dict(keys=keys, values=elements):
                # One line of a table less.
                for index in range(len(keys)):
                    rest = [[*part[:index], *part[index + 1 :]] for part in (keys, elements)]
                    self._change(node, ast.Dict(*rest), where)
            case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
                self._change(node, operand, where)
            case ast.IfExp(test=test):
                self._negate(test, where)
            case ast.comprehension(ifs=ifs):
                for test in ifs:
                    self._negate(test, where)
        if isinstance(node, ast.JoinedStr | ast.Constant | ast.Lambda):
            return
        for child in ast.iter_child_nodes(node):
            if not (isinstance(child, ast.keyword) and child.arg in _DECLARATIONS):
                self._visit(child, where)


def _difference(was: str, becomes: str) -> str:
    """Return both, without most of what is the same at their beginnings and ends."""
    if becomes.startswith("("):
        becomes = becomes[1:-1]
    start = max(0, _same(was, becomes) - 30)
    end = max(0, _same(was[start:][::-1], becomes[start:][::-1]) - 20)
    first, last = "…" if start else "", "…" if end else ""
    was, becomes = (text[start : len(text) - end] for text in (was, becomes))
    return f"{first}{was}{last} -> {first}{becomes}{last}"


def _same(one: str, other: str) -> int:
    """Return how many characters at their beginnings are the same."""
    return sum(1 for _ in takewhile(bool, map(str.__eq__, one, other)))


def _other_values(value: object) -> list[Any]:
    match value:
        case bool():
            return [not value]
        case int() | float():
            return [value + 1]
        case str():
            return ["" if value else "mutant"]
        case bytes():
            return [b"" if value else b"mutant"]
        case _:
            return []


@attrs.define
class _QuickFirst:
    """Has pytest run the tests that took least first: most changes are then noticed soon. Ends one that takes too long.

    Args:
        file: Where it is kept how long each took.
    """

    file: Path
    _took: Counter[str] = attrs.field(factory=Counter, init=False)
    _known: dict[str, float] = attrs.field(factory=dict, init=False)

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        if self.file.exists():
            self._known = json.loads(self.file.read_text())
        items.sort(key=lambda item: round(self._known.get(item.nodeid, 0), 1))

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        if self._known:
            # Nobody handles the signal, so it ends the process, whatever that is at.
            signal.setitimer(signal.ITIMER_PROF, MOST_WORK + 3 * self._known.get(nodeid, 0))

    def pytest_runtest_logreport(self, report: Any) -> None:
        self._took[report.nodeid] += report.duration

    def pytest_sessionfinish(self) -> None:
        if not self.file.exists():
            self.file.write_text(json.dumps(self._took))


def _run_tests(tests: list[str], place: Path) -> int:
    """Run tests in this process, and return pytest's exit code."""
    import pytest
    import pytest_trio.plugin

    os.chdir(PLACE.parent)
    output = io.StringIO()
    with redirect_stdout(output), redirect_stderr(output):
        options = ["-x", "-q", "-p", "no:cacheprovider", "-o", "faulthandler_timeout=0", "--noconftest"]
        code = pytest.main([*options, *tests], plugins=[pytest_trio.plugin, _QuickFirst(place / "took")])
    # A test may say half a surrogate pair.
    (place / f"{os.getpid()}").write_text(output.getvalue(), errors="backslashreplace")
    return int(code)


def _prepare(module: str) -> None:
    """Import what the tests need and what does not depend on the module, once for all its changes."""
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    sys.path[:0] = [str(PLACE.parent), str(PLACE)]
    import pytest_trio.plugin  # noqa: F401
    from hypothesis import HealthCheck, Phase, settings

    settings.register_profile(
        "mutants",
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    settings.load_profile("mutants")
    name = "kallichore." + module.removesuffix(".py").replace("/", ".")
    importlib.import_module(name)
    package, _, own = name.rpartition(".")
    del sys.modules[name]
    delattr(sys.modules[package], own)


def _become(mutant: Mutant) -> None:
    """Have the module that is imported next be the changed one."""
    path = str(PLACE.parent / "kallichore" / mutant.module)
    get_code = SourceFileLoader.get_code

    def get_changed_code(self: SourceFileLoader, fullname: str) -> CodeType | None:
        if self.path == path:
            code: CodeType = compile(mutant.source, path, "exec", dont_inherit=True)
            return code
        return get_code(self, fullname)

    SourceFileLoader.get_code = get_changed_code  # type: ignore[method-assign]


class _Outcome(NamedTuple):
    mutant: Mutant | None
    passed: bool
    seconds: float
    said: str


@attrs.define
class _Trial:
    """The tests of one module, run in forks of this process."""

    tests: list[str]
    place: Path
    limit: float = 600.0
    _running: dict[int, tuple[Mutant | None, float]] = attrs.field(factory=dict, init=False)

    def start(self, mutant: Mutant | None) -> None:
        """Begin to run the tests with a change, or with none."""
        sys.stdout.flush()
        pid = os.fork()
        if not pid:
            code = 2
            try:
                resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
                if mutant is not None:
                    _become(mutant)
                code = _run_tests(self.tests, self.place)
            except Exception:
                traceback.print_exc()
            finally:
                os._exit(code)
        self._running[pid] = mutant, time.monotonic()

    def __len__(self) -> int:
        return len(self._running)

    def wait(self) -> _Outcome:
        """Wait for one to end."""
        while True:
            for pid, (mutant, began) in self._running.items():
                ended, status = os.waitpid(pid, os.WNOHANG)
                seconds = time.monotonic() - began
                if not ended and seconds > self.limit:
                    os.kill(pid, signal.SIGKILL)
                    ended, status = os.waitpid(pid, 0)
                if ended:
                    del self._running[pid]
                    said = self.place / f"{pid}"
                    text = said.read_text() if said.exists() else ""
                    said.unlink(missing_ok=True)
                    return _Outcome(mutant, status == 0, seconds, text)
            select.select([], [], [], 0.01)


def _try_module(module: str, mutants: list[Mutant], place: Path) -> Iterator[Mutant]:
    """Try each change of a module; yield those that live.

    Raises:
        SystemExit: The tests fail without any change.
    """
    _prepare(module)
    trial = _Trial([f"tests/{name}" for name in TESTS[module]], place)
    trial.start(None)
    unchanged = trial.wait()
    if not unchanged.passed:
        raise SystemExit(f"{module}: its tests fail as it is\n{unchanged.said}")
    trial.limit = MOST_SECONDS + 10 * unchanged.seconds
    waiting = list(reversed(mutants))
    while waiting or trial:
        while waiting and len(trial) < AT_ONCE:
            trial.start(waiting.pop())
        outcome = trial.wait()
        if outcome.passed and outcome.mutant is not None:
            yield outcome.mutant


def try_module(module: str, mutants: list[Mutant]) -> list[str]:
    """Try each change of a module, in a process of its own; return the names of those that live."""
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        sys.stdout.flush()
        pid = os.fork()
        if not pid:
            code = 1
            try:
                living = [mutant.name for mutant in _try_module(module, mutants, Path(place))]
                (Path(place) / "living").write_text("\n".join(living))
                code = 0
            except SystemExit as error:
                print(error)
            except Exception:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        if status:
            raise SystemExit(f"{module} could not be tried")
        return (Path(place) / "living").read_text().splitlines()


def mutants_of(module: str) -> list[Mutant]:
    """Return all changes of a module that make a Python program."""
    source = (PLACE.parent / "kallichore" / module).read_text()
    found = sorted(_Collector(module, source).collect(), key=lambda mutant: mutant.line)
    return [mutant for mutant in found if mutant.source != source]


def read_reasons() -> dict[str, dict[str, str]]:
    """Return why changes may live: by module, by the name of the change."""
    reasons: dict[str, dict[str, str]] = {}
    for entry in tomllib.loads(REASONS.read_text()).get("lives", []):
        reasons.setdefault(entry["module"], {}).update(dict.fromkeys(entry["changes"], entry["reason"]))
    return reasons


def choose(changes: list[Mutant], count: int | None, seed: int) -> list[Mutant]:
    """Return so many of the changes, the same ones for the same seed, in their order."""
    if count is None or count >= len(changes):
        return changes
    return [changes[index] for index in sorted(random.Random(seed).sample(range(len(changes)), count))]


def main() -> None:
    """Try what the arguments name, and say what lives."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", help="parts of the names of modules; all if there are none")
    parser.add_argument("--sample", type=int, metavar="N", help="try only so many changes, chosen by chance")
    parser.add_argument("--seed", type=int, default=int(time.time()) % 10_000, help="chooses the same again")
    options = parser.parse_args()
    reasons = read_reasons()
    tried = without_reason = 0
    began = time.monotonic()
    wanted = [module for module in TESTS if not options.names or any(name in module for name in options.names)]
    changes = [mutant for module in wanted for mutant in mutants_of(module)]
    chosen = choose(changes, options.sample, options.seed)
    if len(chosen) < len(changes):
        print(f"{len(chosen)} of {len(changes)} changes: --sample {options.sample} --seed {options.seed}", flush=True)
    for module in wanted:
        since = time.monotonic()
        mutants = [mutant for mutant in chosen if mutant.module == module]
        living = try_module(module, mutants)
        known = reasons.get(module, {})
        unexplained = [name for name in living if name not in known]
        here = {mutant.name for mutant in changes if mutant.module == module}
        alive = here - {mutant.name for mutant in mutants} | set(living)
        dead = [name for name in known if name not in alive]
        seconds = time.monotonic() - since
        counts = f"{len(mutants)} changes, {len(living)} live, {len(unexplained)} without a reason"
        print(f"{module}: {counts}, {seconds:.0f} s", flush=True)
        lines = {mutant.name: mutant.line for mutant in mutants}
        for name in unexplained:
            print(f"    {lines[name]}: {name!r}")
        for name in dead:
            print(f"    has a reason and does not live, or is no more: {name!r}")
        tried += len(mutants)
        without_reason += len(unexplained) + len(dead)
    print(f"{tried} changes in {time.monotonic() - began:.0f} s")
    if without_reason:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
