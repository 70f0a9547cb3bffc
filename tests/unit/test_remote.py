# SPDX-License-Identifier: GPL-2.0-or-later
"""Remote repositories: real git servers on the loopback address, and silent ones."""

from __future__ import annotations

import base64
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from blockyard.kernel.catalog import Git, Tarball, find
from blockyard.kernel.host import store
from blockyard.kernel.host.debian import ToolRoot
from blockyard.kernel.host.errors import BlockyardError, Failure, UsageError
from blockyard.kernel.host.settings import settings
from blockyard.kernel.sources import cached, fetch
from blockyard.kernel.spec import KernelSpec
from blockyard.tests.unit import repositories
from blockyard.tests.unit.repositories import git

NO_TOOLS = ToolRoot(Path("/nonexistent"))
USER, TOKEN = "me", "S3CRET"


class Server(ThreadingHTTPServer):
    """Serves the repositories below a folder with git http-backend; requires `token` when set."""

    folder: Path
    token = ""
    commands: list[str]  # command lines of all git processes during a request


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.answer(b"")

    def do_POST(self) -> None:
        self.answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def answer(self, body: bytes) -> None:
        self.server.commands += commands()
        pair = base64.b64encode(f"{USER}:{self.server.token}".encode()).decode()
        if self.server.token and self.headers.get("Authorization") != f"Basic {pair}":
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="x"')
            self.end_headers()
            return
        path, _, query = self.path.partition("?")
        done = subprocess.run(
            ["git", "http-backend"],
            input=body,
            capture_output=True,
            check=True,
            env={
                "PATH": os.environ["PATH"],
                "GIT_PROJECT_ROOT": str(self.server.folder),
                "GIT_HTTP_EXPORT_ALL": "1",
                "REQUEST_METHOD": self.command,
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "CONTENT_LENGTH": str(len(body)),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                "HTTP_GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                "GIT_CONFIG_COUNT": "1",
                "GIT_CONFIG_KEY_0": "safe.directory",
                "GIT_CONFIG_VALUE_0": "*",
            },
        )
        head, _, data = done.stdout.partition(b"\r\n\r\n")
        lines = [line.partition(b": ") for line in head.split(b"\r\n")]
        headers = {name.decode(): value.decode() for name, _, value in lines}
        self.send_response(int(headers.pop("Status", "200").split()[0]))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing on the terminal."""


def commands() -> list[str]:
    """Return the command lines of git's processes, which every local user can read."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return [line for line in lines if "git" in line and "pytest" not in line]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(("127.0.0.1", 0), Handler)
    server.folder, server.commands = tmp_path / "served", []
    repositories.make(server.folder / "linux.git", {"x.c": b"int x;\n"})
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def url(server: Server, user: str = "", query: str = "") -> str:
    return f"http://{user}127.0.0.1:{server.server_port}/linux.git{query}"


class TestFetch:
    def test_branch_tag_and_commit_are_fetched(self, server: Server) -> None:
        first = git(server.folder / "linux.git", "rev-parse", "main")
        for ref in ("main", "v1", "refs/heads/main", first):
            tree = fetch("mine", Git(url(server), ref), NO_TOOLS)
            assert str(tree.origin).endswith(f" {ref} {first}")
            assert (tree.path / "x.c").read_bytes() == b"int x;\n"
        assert cached("mine", Git(url(server), first)) is not None

    def test_cached_commit_is_not_fetched(self, server: Server) -> None:
        tree = fetch("mine", Git(str(server.folder / "linux.git"), "main"), NO_TOOLS)
        assert fetch("mine", Git(url(server), "main"), NO_TOOLS).path == tree.path
        assert not list(store.directory("clones").iterdir())

    def test_refs_with_a_common_suffix_are_distinct(self, server: Server) -> None:
        repository = server.folder / "linux.git"
        first = git(repository, "rev-parse", "main")
        git(repository, "checkout", "--quiet", "-b", "a/main")
        second = repositories.commit(repository, {"y.c": b""})
        git(repository, "tag", "--annotate", "--message=x", "b/main")
        assert str(fetch("mine", Git(url(server), "main"), NO_TOOLS).origin).endswith(first)
        assert str(fetch("mine", Git(url(server), "b/main"), NO_TOOLS).origin).endswith(second)

    def test_missing_branch_is_a_usage_error(self, server: Server) -> None:
        with pytest.raises(UsageError, match="has no branch or tag 'other'"):
            fetch("mine", Git(url(server), "other"), NO_TOOLS)

    def test_git_config_of_the_current_folder_is_ignored(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Neither its URL rewrites nor its proxy command apply to a fetch by git://."""
        cwd = repositories.make(tmp_path / "here")
        witness = tmp_path / "ran"
        git(cwd, "config", "url.ext::false.insteadOf", "git://127.0.0.1")
        git(cwd, "config", "core.gitProxy", f"touch {witness}")
        git(cwd, "config", "protocol.ext.allow", "always")
        served = repositories.make(tmp_path / "served" / "linux.git")
        monkeypatch.chdir(cwd)
        with daemon(served.parent) as port:
            tree = fetch("mine", Git(f"git://127.0.0.1:{port}/linux.git", "v1"), NO_TOOLS)
        assert tree.version == "7.4.0"
        assert not witness.exists()

    @pytest.mark.parametrize("scheme", ["ext::", "ext://", "fd://", "ftp://", "foo://"])
    def test_other_transports_are_refused(self, scheme: str, tmp_path: Path) -> None:
        repository = f"{scheme}touch {tmp_path}/ran"
        with pytest.raises(Failure, match="cannot reach|no such folder"):
            fetch("mine", Git(repository, "main"), NO_TOOLS)
        assert not (tmp_path / "ran").exists()


class daemon:
    """git daemon on a free port."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self.port: int = listener.getsockname()[1]
        argv = ["git", "-c", "safe.directory=*", "daemon", "--export-all", f"--base-path={folder}"]
        argv += ["--listen=127.0.0.1", f"--port={self.port}", str(folder)]
        self.process = subprocess.Popen(argv, start_new_session=True)

    def __enter__(self) -> int:
        for _ in range(100):
            with socket.socket() as probe:
                if not probe.connect_ex(("127.0.0.1", self.port)):
                    return self.port
            time.sleep(0.05)
        raise AssertionError("git daemon does not listen")

    def __exit__(self, *_: object) -> None:
        os.killpg(self.process.pid, 9)
        self.process.wait()


class TestSecrets:
    def everything(self) -> str:
        """Return the contents of all files in the cache, such as logs and configs of clones."""
        folder = settings().cache_dir
        files = [path for path in folder.rglob("*") if path.is_file()]
        return "\n".join(path.read_bytes().decode(errors="replace") for path in files)

    def test_token_is_used_and_stored_nowhere(
        self, server: Server, capsys: pytest.CaptureFixture[str]
    ) -> None:
        server.token = TOKEN
        name = f"{url(server, f'{USER}:{TOKEN}@')}#main"
        tree = fetch(name, find(name), NO_TOOLS)
        assert (tree.path / "x.c").is_file()
        assert any("git-remote-http" in line for line in server.commands)
        captured = capsys.readouterr()
        for text in (
            str(tree.origin),
            *server.commands,
            captured.err,
            captured.out,
            self.everything(),
        ):
            assert TOKEN not in text
        assert TOKEN not in KernelSpec(name).name

    def test_token_without_a_user(self, server: Server) -> None:
        """Some servers take the token in place of the user."""
        server.token = ""
        tree = fetch("mine", Git(url(server, f"{TOKEN}@"), "main"), NO_TOOLS)
        assert TOKEN not in str(tree.origin)

    @pytest.mark.parametrize("ref", ["main", "other"])
    def test_wrong_token_is_not_in_the_error(self, server: Server, ref: str) -> None:
        server.token = "another"
        name = f"{url(server, f'{USER}:{TOKEN}@')}#{ref}"
        with pytest.raises(Failure, match="cannot reach") as caught:
            fetch(name, find(name), NO_TOOLS)
        assert TOKEN not in str(caught.value)
        assert TOKEN not in self.everything()

    def test_credential_helper_does_not_store_the_token(
        self, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server.token = TOKEN
        config = tmp_path / "gitconfig"
        config.write_text(f"[credential]\n\thelper = store --file={tmp_path}/kept\n")
        monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
        fetch("mine", Git(url(server, f"{USER}:{TOKEN}@"), "main"), NO_TOOLS)
        assert not (tmp_path / "kept").exists()

    def test_credential_helper_of_the_user_is_used(
        self, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server.token = TOKEN
        helper = tmp_path / "helper"
        helper.write_text(f"#!/bin/sh\necho username={USER}\necho password={TOKEN}\n")
        helper.chmod(0o755)
        (tmp_path / "gitconfig").write_text(f"[credential]\n\thelper = {helper}\n")
        monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
        assert fetch("mine", Git(url(server), "main"), NO_TOOLS).version == "7.4.0"

    def test_missing_credentials_get_a_hint(self, server: Server) -> None:
        server.token = TOKEN
        with pytest.raises(Failure, match="cannot reach") as caught:
            fetch("mine", Git(url(server), "main"), NO_TOOLS)
        assert "credential helper" in caught.value.hint

    @pytest.mark.parametrize("form", ["{}:x@", "me:{}@"])
    def test_token_of_a_tarball_url_is_hidden(self, server: Server, form: str) -> None:
        location = url(server, form.format(TOKEN), f"/linux.tar?key={TOKEN}")
        entry = find(f"{location} sha256={'0' * 64}")
        for tarball in (
            entry,
            Tarball(location),
            Tarball(location.replace("http", "gopher"), "0" * 64),
        ):
            with pytest.raises(BlockyardError) as caught:
                fetch(location, tarball, NO_TOOLS)
            assert TOKEN not in str(caught.value)
            assert "127.0.0.1" in str(caught.value)
        assert TOKEN not in self.everything()


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield int(listening.getsockname()[1])


class TestSilence:
    @pytest.fixture(autouse=True)
    def short_timeout(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("BLOCKYARD_SERVER_SILENCE_S", "0.5")
        settings.cache_clear()

    @pytest.mark.parametrize("scheme", ["http", "git"])
    def test_silent_git_server_times_out(self, silent: int, scheme: str) -> None:
        started = time.monotonic()
        with pytest.raises(Failure, match=r"for main: no answer for 0.5 s") as caught:
            fetch("mine", Git(f"{scheme}://127.0.0.1:{silent}/x", "main"), NO_TOOLS)
        assert "BLOCKYARD_SERVER_SILENCE_S" in caught.value.hint
        assert time.monotonic() - started < 20

    def test_silence_during_the_fetch_times_out(self, silent: int) -> None:
        entry = Git(f"git://127.0.0.1:{silent}/x", "1" * 40)
        with pytest.raises(Failure, match=r"fetching .*: no answer for 0.5 s"):
            fetch("mine", entry, NO_TOOLS)
        assert not list(store.directory("clones").iterdir())

    def test_silent_tarball_server_times_out(self, silent: int) -> None:
        entry = Tarball(f"http://127.0.0.1:{silent}/x.tar", "0" * 64)
        with pytest.raises(Failure, match=r"no answer for 0.5 s"):
            fetch("mine", entry, NO_TOOLS)
