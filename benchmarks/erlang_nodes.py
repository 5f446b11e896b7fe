"""Two Erlang nodes on this machine, as a peer: `gen_server:call` and `gen_server:cast` from one to the other.

They need no epmd and listen on the loopback interface alone. `erl` is in Debian's package `erlang-base`.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["ErlangNodes", "erlang_nodes"]

_MODULE = r"""
-module(benchmark_peer).
-behaviour(gen_server).
-export([serve/0, drive/0, init/1, handle_call/3, handle_cast/2]).

init([]) -> {ok, none}.
handle_call(Message, _, State) -> {reply, Message, State}.
handle_cast(_, State) -> {noreply, State}.

serve() ->
    {ok, _} = gen_server:start({local, echo}, ?MODULE, [], []),
    io:format("ready~n"),
    io:get_line(""),
    halt(0).

drive() ->
    Echo = {echo, server@localhost},
    Message = binary:copy(<<"x">>, 100),
    Message = gen_server:call(Echo, Message),
    io:format("ready~n"),
    drive(Echo, Message).

drive(Echo, Message) ->
    case io:fread("", "~a ~d") of
        {ok, [What, Count]} ->
            io:format("~s~n", [lists:join(" ", [integer_to_list(Took) || Took <- run(What, Echo, Message, Count)])]),
            drive(Echo, Message);
        eof -> halt(0)
    end.

run(ask, Echo, Message, Count) ->
    [timed(fun() -> gen_server:call(Echo, Message) end) || _ <- lists:seq(1, Count)];
run(tell, Echo, Message, Count) ->
    [timed(fun() -> tell(Echo, Message, Count) end)].

tell(Echo, Message, 0) -> gen_server:call(Echo, Message, infinity);
tell(Echo, Message, Count) -> gen_server:cast(Echo, Message), tell(Echo, Message, Count - 1).

timed(Function) ->
    Began = erlang:monotonic_time(nanosecond),
    Function(),
    erlang:monotonic_time(nanosecond) - Began.
"""


class ErlangNodes:
    """The node that asks; the messages are binaries of 100 bytes."""

    def __init__(self, driver: subprocess.Popen[str]) -> None:
        self._driver = driver

    def asks(self, message: object, count: int) -> list[float]:
        """Return the seconds of each call; the message is always the same."""
        return self._run("ask", count)

    def tells(self, size: int, count: int) -> float:
        """Return the casts a second that the other node gets and handles; the size is always the same."""
        (taken,) = self._run("tell", count)
        return count / taken

    def _run(self, what: str, count: int) -> list[float]:
        assert self._driver.stdin
        assert self._driver.stdout
        self._driver.stdin.write(f"{what} {count}\n")
        self._driver.stdin.flush()
        return [int(taken) / 1e9 for taken in self._driver.stdout.readline().split()]


@contextlib.contextmanager
def erlang_nodes() -> Iterator[ErlangNodes | None]:
    """Start both nodes; None without Erlang."""
    if shutil.which("erl") is None or shutil.which("erlc") is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        Path(folder, "benchmark_peer.erl").write_text(_MODULE)
        subprocess.run(["erlc", "benchmark_peer.erl"], cwd=folder, check=True)
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
        free.close()

        def node(name: str, function: str, *more: str) -> subprocess.Popen[str]:
            command = [
                *("erl", "-noshell", "-sname", f"{name}@localhost", "-setcookie", "benchmark"),
                *("-start_epmd", "false", "-erl_epmd_port", port, *more, "-s", "benchmark_peer", function),
            ]
            made = subprocess.Popen(
                command, cwd=folder, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
            assert made.stdout
            said = made.stdout.readline()
            if said != "ready\n":
                raise SystemExit(f"the Erlang node {name!r} did not start: {said}{made.stdout.read()}")
            return made

        loopback = ("-kernel", "inet_dist_use_interface", "{127,0,0,1}")
        with node("server", "serve", *loopback) as server, node("driver", "drive", "-dist_listen", "false") as driver:
            try:
                yield ErlangNodes(driver)
            finally:
                for one in (driver, server):
                    assert one.stdin
                    one.stdin.close()  # ends it
