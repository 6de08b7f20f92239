"""What tests need and a wheel cannot bring: Chromium, Node and its socket.io-client. `python -m tests.support.tools` brings them.

`make test` runs it first. Where something can be had neither on the machine nor by apt-get or npm, it says so in one line, and the tests that need
it are reported as skipped with the same line.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CLIENTS = Path(__file__).parents[1] / "integration" / "node"
INSTALLED = Path(__file__).parents[2] / "build" / "node"
SECONDS = 600.0


def chromium() -> str:
    """Return Chromium's path, or skip the test."""
    for name in CHROMIUM:
        if found := shutil.which(name):
            return found
    pytest.skip("not tested: there is no Chromium here, and apt-get could not install it")


def node_script(name: str) -> Path:
    """Return one of the scripts in tests/integration/node, ready to be run by node; or skip the test."""
    if shutil.which("node") is None:
        pytest.skip("not tested: there is no Node here, and apt-get could not install it")
    if not (INSTALLED / "node_modules" / "socket.io-client").exists():
        pytest.skip("not tested: npm could not install socket.io-client")
    return Path(shutil.copy(CLIENTS / name, INSTALLED))  # next to node_modules, where imports are looked up


def main() -> None:
    """Install what is missing, as far as this machine allows; never fails."""
    wanted = []
    if not any(map(shutil.which, CHROMIUM)):
        wanted += ["chromium", "fonts-noto-color-emoji"]
    if not (shutil.which("node") and shutil.which("npm")):
        wanted += ["nodejs", "npm"]
    if wanted:
        _apt(wanted)
    _npm()


def _apt(packages: list[str]) -> None:
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        print(f"tools: missing, and not ours to install: {', '.join(packages)}; their tests will be skipped")
        return
    print(f"tools: installing {', '.join(packages)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for arguments in (["update", "-q"], ["install", "-yq", "--no-install-recommends", *packages]):
        if not _run(["apt-get", *arguments], environment=environment):
            print(f"tools: apt-get {arguments[0]} failed; tests that need {', '.join(packages)} will be skipped")
            return


def _npm() -> None:
    npm = shutil.which("npm")
    wanted = (CLIENTS / "package.json").read_text()
    stamp = INSTALLED / "installed.json"
    if npm is None or (stamp.exists() and stamp.read_text() == wanted):
        return
    INSTALLED.mkdir(parents=True, exist_ok=True)
    shutil.copy(CLIENTS / "package.json", INSTALLED)
    install = [npm, "install", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error"]
    if _run(install, directory=INSTALLED):
        stamp.write_text(wanted)
    else:
        print("tools: npm could not install socket.io-client; its tests will be skipped")


def _run(command: list[str], *, environment: dict[str, str] | None = None, directory: Path | None = None) -> bool:
    try:
        done = subprocess.run(
            command, env=environment, cwd=directory, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        print(f"tools: {command[0]} took longer than {SECONDS:g} s", file=sys.stderr)
        return False
    if done.returncode:
        print(done.stderr.strip()[-300:], file=sys.stderr)
    return done.returncode == 0


if __name__ == "__main__":
    main()
