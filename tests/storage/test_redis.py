"""What can happen to a storage in Redis: a server that is away, refuses, is full, was emptied, or has forgotten."""

from __future__ import annotations

import os
import socket
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from suitkaise import sktree
from suitkaise.errors import StorageDamaged, StorageError, StorageFull
from suitkaise.storage.backends.engines import chosen_engine
from suitkaise.storage.backends.redis_address import (
    Address,
    address_for_others,
    note_address,
    read_address,
    shown,
    write_address,
)  # fmt: skip
from suitkaise.storage.backends.redis_connection import RedisConnection
from suitkaise.storage.backends.redis_server import RedisServer
from suitkaise.storage.backends.store import Store
from suitkaise.storage.backends.tables import Unreachable
from suitkaise.storage.tree import Tree
from tests.redis_server import RedisProcess, needs_redis
from tests.storage.support import put_entry, run_in_process
from tests.storage.test_server import ServerInThread
from tests.support import run_program

pytestmark = needs_redis

SECRET = "s3cret"


def test_a_connection_that_another_thread_takes_while_all_are_closed_is_no_error() -> None:
    class Emptied(deque[RedisConnection]):
        def __len__(self) -> int:
            return 1  # as it was when this thread looked

    server = RedisServer(Address.parse("redis://127.0.0.1/0?name=x"))
    server._free = Emptied()
    server.close()


@pytest.fixture
def server() -> Iterator[RedisProcess]:
    """A server that a test may kill, with what it has acknowledged on its disk."""
    with closing(RedisProcess("--appendonly", "yes", "--appendfsync", "always")) as server:
        yield server


@pytest.fixture
def url(redis_server: RedisProcess) -> str:
    return redis_server.url()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    from suitkaise.storage.backends import redis_server

    monkeypatch.setattr(redis_server, "PATIENCE", 0.05)


def folder(tmp_path: Path, name: str, url: str) -> Path:
    """Make a folder that leads to a storage."""
    (tmp_path / name).mkdir()
    note_address(tmp_path / name, url)
    return tmp_path / name


def test_a_url_is_taken_apart_and_shown_without_its_password() -> None:
    url = f"rediss://user:{SECRET}@cache/3?name=shop&ssl_ca_certs=ca.pem"
    address = Address.parse(url)
    assert (address.host, address.port, address.database, address.user, address.password) == (
        "cache", 6379, 3, "user", SECRET,
    )  # fmt: skip
    assert address.is_encrypted
    assert shown(url) == "rediss://cache:6379/3?name=shop"
    assert SECRET not in f"{address} {address!r}"


@pytest.mark.parametrize(
    "wrong, why",
    [
        (f"redis://u:{SECRET}@h:1/x?name=a", "must be redis://HOST"),
        (f"redis://u:{SECRET}@h:port?name=a", "must be redis://HOST"),
        (f"redis://u:{SECRET}@h", "must name the storage"),
        (f"redis://u:{SECRET}@h?name=a/b", "must name the storage"),
        (f"redis://u:{SECRET}@h?name=a&retry=3", "unknown option 'retry'"),
        (f"unix://u:{SECRET}@/?name=a", "must be redis://HOST"),
    ],
)
def test_a_url_that_leads_to_no_storage_is_refused_without_telling_its_password(wrong: str, why: str) -> None:
    with pytest.raises(StorageError, match=why) as caught:
        Address.parse(wrong)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("directory_there", [False, True])
def test_a_storage_in_redis_takes_no_directory(tmp_path: Path, url: str, directory_there: bool) -> None:
    directory = tmp_path / "state"
    if directory_there:
        directory.mkdir()
    with pytest.raises(StorageError, match="lies in its server, and takes no directory"):
        sktree.connect(directory, durable=True, engine=url)
    assert directory.exists() is directory_there
    assert not directory_there or not list(directory.iterdir())


def test_a_url_with_a_wrong_scheme_is_refused_without_telling_its_password() -> None:
    with pytest.raises(StorageError, match=r"not 'reddis://\.\.\.'") as caught:
        sktree.connect(engine="reddis://user:secret@cache/0?name=shop")
    assert "secret" not in str(caught.value)


def test_without_the_extra_the_error_tells_what_to_install() -> None:
    program = """
import sys
sys.modules["hiredis"] = None
from suitkaise import sktree
from suitkaise.errors import StorageError
try:
    sktree.connect(engine="redis://localhost?name=a")
except StorageError as error:
    print(error)
"""
    assert "pip install 'suitkaise-xprocess[redis]'" in run_program(program).check().stdout


@pytest.mark.usefixtures("impatient")
def test_a_server_that_is_not_there_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match=r"the Redis server at unix:///nowhere cannot be reached: No such file"):
        Store(folder(tmp_path, "a", "unix:///nowhere?name=a"), engine="redis")


def test_a_server_that_refuses_the_password_is_one_error_without_it(tmp_path: Path) -> None:
    with closing(RedisProcess("--requirepass", "another")) as server:
        for user in ("", f":{SECRET}@"):
            with pytest.raises(StorageError, match="refuses the user or the password of the URL") as caught:
                Store(folder(tmp_path, f"a{len(user)}", server.url(user=user)), engine="redis")
            assert SECRET not in str(caught.value)
        Store(folder(tmp_path, "b", server.url(user=":another@")), engine="redis").close()


def test_a_server_that_is_too_old_is_one_error(tmp_path: Path) -> None:
    def answer() -> None:
        client, _ = listener.accept()
        with client:
            while client.recv(1000):
                client.sendall(b"-ERR unknown command `HELLO`\r\n")

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "old"))
        listener.listen()
        thread = threading.Thread(target=answer)
        thread.start()
        try:
            with pytest.raises(StorageError, match="is too old; a storage needs Redis 6"):
                Store(folder(tmp_path, "a", f"unix://{tmp_path}/old?name=a"), engine="redis")
        finally:
            thread.join()


def test_a_server_that_throws_away_what_it_likes_is_refused(tmp_path: Path) -> None:
    with closing(RedisProcess("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")) as server:
        with pytest.raises(StorageError, match="a storage needs `maxmemory-policy noeviction`"):
            Store(folder(tmp_path, "a", server.url()), engine="redis")


def test_a_full_server_refuses_writes_and_takes_removals_and_reads(tmp_path: Path, server: RedisProcess) -> None:
    directory = folder(tmp_path, "a", server.url())
    with closing(ServerInThread(directory, "redis")), closing(Tree(directory)) as tree:
        tree.add("old", 1, "p")
        server.command("CONFIG", "SET", "maxmemory", 1)
        with pytest.raises(
            StorageFull, match=r"no room is left for 'new' in 'p': the Redis server at .* no memory left"
        ):
            tree.add("new", bytes(1000), "p")
        assert tree.get("old", "p") == 1
        tree.remove("old", "p")
        server.command("CONFIG", "SET", "maxmemory", 0)
        tree.add("new", 2, "p")
        assert tree.get_all_from("p") == {"new": 2}


def test_an_emptied_server_is_an_error_of_reads_and_writes(tmp_path: Path, server: RedisProcess) -> None:
    directory = folder(tmp_path, "a", server.url())
    with closing(ServerInThread(directory, "redis")), closing(Tree(directory)) as tree:
        tree.add("a", 1, "p")
        tree.get_all_from("p")
        server.command("FLUSHALL")
        with pytest.raises(StorageDamaged, match="was emptied while this program used it"):
            tree.add("a", 2, "p")
        with pytest.raises(StorageDamaged, match="was emptied while this program used it"):
            tree.get_all_from("p")


def test_a_server_that_is_started_anew_is_waited_for_and_nothing_is_lost(tmp_path: Path, server: RedisProcess) -> None:
    directory = folder(tmp_path, "a", server.url())
    with closing(ServerInThread(directory, "redis")), closing(Tree(directory)) as tree:
        tree.increment("n", path="p")
        server.kill()
        tree.increment("n", path="p", wait=False)
        server.start()
        tree.flush()
        assert tree.increment("n", path="p") == 3
        assert tree.get("n", "p") == 3


@pytest.mark.usefixtures("impatient")
def test_a_server_that_stays_away_is_one_error_until_it_is_back(tmp_path: Path, server: RedisProcess) -> None:
    directory = folder(tmp_path, "a", server.url())
    with closing(ServerInThread(directory, "redis")), closing(Tree(directory)) as tree:
        tree.add("a", 1, "p")
        server.kill()
        with pytest.raises(StorageError, match=r"not stored, as far as can be told: the Redis server at .* reached"):
            tree.add("a", 2, "p")
        with pytest.raises(StorageError, match=r"the Redis server at .* cannot be reached"):
            tree.get_all_from("p")
        server.start()
        tree.add("a", 3, "p")
        assert tree.get_all_from("p") == {"a": 3}


def test_a_server_that_has_forgotten_what_it_had_acknowledged_is_an_error(tmp_path: Path, url: str) -> None:
    directory = folder(tmp_path, "a", url)
    with closing(Store(directory, engine="redis")) as store:
        store.write(put_entry("a", 1))
        opened = store.opened
        mark = opened._mark  # type: ignore[attr-defined]
        store.write(put_entry("a", 2))
        store.write(put_entry("a", 3))
        opened.server.call("HSET", opened.tables[0], b"", mark)  # type: ignore[attr-defined]
        with pytest.raises(StorageDamaged, match="has lost the last 2 commits of this program"):
            store.write(put_entry("a", 4))


@pytest.mark.parametrize("is_stored", [True, False])
def test_a_commit_whose_answer_is_lost_is_stored_once(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch, is_stored: bool
) -> None:
    from suitkaise.storage.backends.redis_connection import ConnectionLost
    from suitkaise.storage.backends.redis_server import RedisServer

    with closing(Store(folder(tmp_path, "a", url), engine="redis")) as store:
        store.write(put_entry("a", 1))
        run, broken = RedisServer.run, [True]

        def run_once_without_answer(self, script, keys, *arguments):  # type: ignore[no-untyped-def]
            if not broken.pop() if broken else True:
                return run(self, script, keys, *arguments)
            if is_stored:
                run(self, script, keys, *arguments)
            raise ConnectionLost("the cable is out")

        monkeypatch.setattr(RedisServer, "run", run_once_without_answer)
        store.write(put_entry("a", 2))
        store.write(put_entry("b", 3))
        assert store.revision == 3
        assert store.opened._mark.endswith(b" 4")  # type: ignore[attr-defined]


def test_a_second_program_is_refused_and_comes_next(tmp_path: Path, url: str) -> None:
    first = Store(folder(tmp_path, "a", url), engine="redis")
    second = folder(tmp_path, "b", url)
    with pytest.raises(StorageError, match=rf"is in use by another program \(pid {os.getpid()} on "):
        Store(second, engine="redis")
    first.write(put_entry("a", 1))
    first.close()
    with closing(Store(second, engine="redis")) as store:
        assert store.revision == 1


def test_a_program_that_was_killed_is_not_waited_for(tmp_path: Path, url: str) -> None:
    program = """
import sys
from pathlib import Path
from suitkaise.storage.backends.store import Store
Path(sys.argv[1]).mkdir()
Store(Path(sys.argv[1]), engine=sys.argv[2])
print("open", flush=True)
sys.stdin.read()
"""
    with run_in_process(program, tmp_path / "a", url) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
    Store(folder(tmp_path, "b", url), engine="redis").close()


def test_a_program_that_was_cut_off_and_replaced_writes_nothing(tmp_path: Path, url: str) -> None:
    first = Store(folder(tmp_path, "a", url), engine="redis")
    first.opened.server.call("DEL", first.opened._lease)  # type: ignore[attr-defined]
    with closing(Store(folder(tmp_path, "b", url), engine="redis")) as second:
        with pytest.raises(StorageDamaged, match="is used by another program now"):
            first.write(put_entry("a", 1))
        second.write(put_entry("a", 2))
        first.close()
        assert second.revision == 1


def test_readers_on_another_machine_are_led_to_the_server_unless_it_is_this_machines(tmp_path: Path) -> None:
    here = folder(tmp_path, "a", "redis://localhost?name=a")
    assert address_for_others(here) is None
    note_address(here, f"redis://:{SECRET}@cache?name=a")
    address = address_for_others(here)
    assert address is not None
    (tmp_path / "b").mkdir()
    write_address(tmp_path / "b", address)
    assert read_address(tmp_path / "b")[0].host == "cache"


def test_the_file_with_the_password_is_for_this_user_alone(tmp_path: Path) -> None:
    url = f"redis://:{SECRET}@cache?name=a"
    assert chosen_engine(tmp_path, url) == "redis"
    (file,) = tmp_path.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert read_address(tmp_path)[0].password == SECRET
