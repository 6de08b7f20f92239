"""The packages' directions, the purity of `protocol`, the one home of asyncio, and the shape of files: read from the code itself."""

import ast
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "protocol": set[str](),
    "supervisor": set[str](),
    "store": {"protocol"},
    "actors": {"protocol", "supervisor", "store"},
    "gateway": {"protocol", "supervisor", "store", "actors"},
    "bench": {"protocol"},
}
PURE = {"trio", "asyncio", "socket", "time", "random", "secrets", "os", "logging", "structlog", "uuid", "datetime"}
BOUNDARIES = {
    # the supervisor's child runner
    "supervisor/pool.py",
    "supervisor/supervisor.py",
    # the connection boundary
    "gateway/listener/asgi.py",
    "gateway/listener/ingest_lane.py",
    "gateway/listener/listener.py",
    "gateway/listener/realtime_lane.py",
    "gateway/realtime/engine.py",
    # carried on unchanged, not caught: see the comments there
    "store/postgres/coalesce.py",
    "store/postgres/pool.py",
    "store/postgres/store.py",
}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def imports(path: Path) -> frozenset[str]:
    found: set[str] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return frozenset(found)


def roots(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports(path)}


def modules(*packages: str) -> list[Path]:
    return [path for package in packages or MAY_IMPORT for path in sorted((ROOT / package).rglob("*.py"))]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_imports_point_downwards() -> None:
    wrong = {}
    for path in modules():
        package, second, *_ = path.relative_to(ROOT).parts
        allowed = MAY_IMPORT[package] | {package}
        if (package, second) == ("gateway", "cli"):  # only the command line reaches into the outside world
            allowed |= {"bench"}
        wrong[name(path)] = (roots(path) & MAY_IMPORT.keys()) - allowed
    assert not {where: what for where, what in wrong.items() if what}


def test_protocol_is_pure() -> None:
    assert not {name(path): bad for path in modules("protocol") if (bad := roots(path) & PURE)}


def test_the_runtime_imports_only_trio() -> None:
    allowed = {"trio", "supervisor"} | sys.stdlib_module_names
    assert not {name(path): bad for path in modules("supervisor") if (bad := roots(path) - allowed)}


def test_actors_know_the_store_by_its_contract() -> None:
    used = {each for path in modules("actors") for each in imports(path) if each.partition(".")[0] == "store"}
    assert used == {"store.contract"}


def test_asyncio_is_touched_in_one_place() -> None:
    wrong = []
    for path in modules():
        here = roots(path)
        if name(path).startswith("bench/peers/"):
            continue  # what others would build, in their ways
        if not name(path).startswith("store/postgres/"):
            wrong += [name(path)] if here & {"asyncio", "asyncpg", "trio_asyncio"} else []
        elif path.name != "bridge.py":
            wrong += [name(path)] if "trio" in here and "asyncio" in here else []
    assert not wrong


def test_files_are_of_a_readable_size_or_say_why() -> None:
    long = [path for path in modules() if len(path.read_text().splitlines()) > 600]
    assert not [name(path) for path in long if "lines" not in (ast.get_docstring(tree(path)) or "")]


def test_modules_say_what_they_are() -> None:
    assert not [name(path) for path in modules() if not ast.get_docstring(tree(path))]
    meaningless = {"utils", "helpers", "manager", "common", "base", "misc"}
    assert not [name(path) for path in modules() if path.stem in meaningless]


def test_exceptions_are_caught_wholesale_only_at_the_boundaries() -> None:
    found = {
        name(path)
        for path in modules()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ExceptHandler) and isinstance(node.type, ast.Name) and node.type.id == "Exception"
    }
    assert found <= BOUNDARIES
