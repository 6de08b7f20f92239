"""The peers' packages: installed into `build/peers` of the working directory when first wanted, and again when a pinned version changes.

Owns that directory. Versions stand in `package.json` and `requirements.txt` beside this file, places to fetch from in nobody's file: npm and pip
know theirs. What a machine lacks is `Missing`, which is a finding and no failure.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SOURCE = Path(__file__).parent
HOME = Path("build") / "peers"
INSTALL_SECONDS = 300.0


class Missing(Exception):
    """A peer's runtime is not here. The text says what is missing, and how to get it."""


def program(name: str, package: str) -> str:
    """Return the path of a program. Raises Missing."""
    found = shutil.which(name)
    if found is None:
        raise Missing(f"{name} is not on the PATH (Debian: apt-get install {package})")
    return found


def node(script: str) -> list[str]:
    """Return the command that runs one of the Node peers. Raises Missing."""
    run, npm = program("node", "nodejs"), program("npm", "npm")
    home = HOME.resolve() / "node"
    with _packages(home, SOURCE / "package.json") as pins:
        if pins is not None:
            shutil.copy(pins, home)
            _install([npm, "install", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error"], home)
    for source in SOURCE.glob("*.mjs"):  # beside node_modules, where Node looks imports up
        shutil.copy(source, home)
    return [run, str(home / script)]


def python(script: str) -> list[str]:
    """Return the command that runs a Python peer in an environment of its own. Raises Missing."""
    home = HOME.resolve() / "python"
    run = str(home / "bin" / "python")
    with _packages(home, SOURCE / "requirements.txt") as pins:
        if pins is not None:
            _install([sys.executable, "-m", "venv", "--clear", str(home)], home)
            _install([run, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(pins)], home)
    return [run, str(SOURCE / script)]


@contextmanager
def _packages(home: Path, pins: Path) -> Iterator[Path | None]:
    """Yield the pins if the packages of `home` are not (any more) theirs; what the block then installs is remembered, unless it raises."""
    stamp = home / "installed"
    if stamp.exists() and stamp.read_text() == pins.read_text():
        yield None
        return
    home.mkdir(parents=True, exist_ok=True)
    yield pins
    stamp.write_text(pins.read_text())


def _install(command: list[str], home: Path) -> None:
    try:
        done = subprocess.run(  # noqa: S603  npm, pip or venv with our own arguments
            command, cwd=home, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as expired:
        raise Missing(f"`{' '.join(command)}` did not end within {INSTALL_SECONDS:g} s") from expired
    if done.returncode:
        raise Missing(f"`{' '.join(command)}` failed: {(done.stderr or done.stdout).strip()[-300:]}")
