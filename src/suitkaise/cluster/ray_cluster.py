"""The machines of a Ray cluster, and the processes of Ray that run nodes. All that the package uses of Ray is here.

Ray places the process of a node, starts it, and tells its death; everything else goes over the node's own connection.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from typing import Any

from suitkaise.cluster.machines import Ended, Machine
from suitkaise.cluster.node import Node, Settings
from suitkaise.errors import SuitkaiseError
from suitkaise.messaging import codec
from suitkaise.platform.condition import OwnFuture
from suitkaise.platform.flag import Flag
from suitkaise.platform.log_queue import QueuedLogger
from suitkaise.platform.threads import OwnThread
from suitkaise.specs.cluster import Place, Ray

__all__ = ["RayCluster", "join"]

logger: QueuedLogger = QueuedLogger("suitkaise.cluster")

ASK_AGAIN = 0.25
"""Seconds after which Ray is asked again for a process that it cannot reach at the moment."""

USAGE_REPORTS = "RAY_USAGE_STATS_ENABLED"
"""The variable by which Ray is told whether it may report its usage to its makers."""

_STORE = 80 << 20
"""Bytes of the object store of each node that is started here: nothing is put there, and Ray takes no less."""

_OUR_NODES = {"object_store_memory": _STORE, "include_dashboard": False}


def join(spec: Ray) -> RayCluster:
    """Join the cluster that is declared, or start it.

    Raises:
        SuitkaiseError: that is not possible, or Ray is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise SuitkaiseError(
            'engine=Ray(...) needs Ray, which is not installed: pip install "suitkaise-xprocess[ray]"'
        ) from error
    if ray.is_initialized():
        if spec.nodes is not None:
            raise SuitkaiseError(
                f"Ray(nodes={spec.nodes}) starts a cluster, but the program has joined one by ray.init"
            )
        return RayCluster(spec, ray, contextlib.ExitStack())
    with contextlib.ExitStack() as made, _signals_kept(), _without_usage_reports(spec):
        address = spec.address
        try:
            if spec.nodes is not None:
                address = _start_nodes(spec.nodes, made)
            options = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}
            ray.init(address=address or "local", **options, **({} if address is not None else _OUR_NODES))
        except Exception as error:
            which = "a cluster on this machine" if spec.address is None else f"the cluster at {spec.address!r}"
            raise SuitkaiseError(f"{which} cannot be joined by Ray: {error}") from error
        made.callback(ray.shutdown)
        _log_instead_of_printing()
        return RayCluster(spec, ray, made.pop_all())


def _start_nodes(count: int, made: contextlib.ExitStack) -> str:
    """Start a cluster of so many nodes on this machine; return its address."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"node_name": "node-0", **_OUR_NODES})
    made.callback(cluster.shutdown)
    for number in range(1, count):
        cluster.add_node(node_name=f"node-{number}", **_OUR_NODES)
    return str(cluster.address)


def _log_instead_of_printing() -> None:
    """Have Ray log what its daemons report to this program, which it prints to standard output."""
    worker: Any = sys.modules.get("ray._private.worker")
    if hasattr(worker, "print_to_stdstream"):
        worker.print_to_stdstream = lambda data, **options: logging.getLogger("ray").info("%s", "".join(data["lines"]))


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Keep this program's handler of SIGTERM, which Ray replaces."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Ray cannot replace it there
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)


@contextlib.contextmanager
def _without_usage_reports(spec: Ray) -> Iterator[None]:
    """Switch Ray's reports of usage off for a cluster that is started here, unless the user's environment sets them."""
    if spec.address is not None or USAGE_REPORTS in os.environ:
        yield
        return
    os.environ[USAGE_REPORTS] = "0"
    try:
        yield
    finally:
        del os.environ[USAGE_REPORTS]


class RayCluster:
    """A Ray cluster that this program has joined.

    Args:
        spec: the declaration.
        ray: the module.
        made: leaves the cluster.
    """

    def __init__(self, spec: Ray, ray: Any, made: contextlib.ExitStack) -> None:
        self.host: str = ray.util.get_node_ip_address()
        self._spec = spec
        self._ray = ray
        self._made = made

    def machines(self) -> list[Machine]:
        """Return the machines that are alive."""
        return [
            Machine(one["NodeID"], one["NodeName"], one["NodeManagerAddress"])
            for one in self._ray.nodes()
            if one["Alive"]
        ]

    def start(self, settings: Settings, machine: Machine | None, place: Place) -> _RayProcess:
        """Start a process with a node."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        options: dict[str, Any] = {"num_cpus": 0, "max_restarts": 0, "max_task_retries": 0, "max_concurrency": 4}
        options |= _resources(place.resources or {})
        if machine is not None:
            options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(machine.id, soft=False)
        # When its process ends, Ray would kill the keeper, too, and no process would be left to end the workers.
        environment = {"RAY_kill_child_processes_on_worker_exit": "false", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
        runtime_env = dict(self._spec.runtime_env or {})
        options["runtime_env"] = {**runtime_env, "env_vars": environment | runtime_env.get("env_vars", {})}
        actor = self._ray.remote(_NodeActor).options(**options).remote()
        return _RayProcess(self._ray, actor, codec.dumps(settings))

    def close(self) -> None:
        """Leave the cluster, unless the program has joined it itself."""
        with _signals_kept():
            self._made.close()


def _resources(wanted: Mapping[str, float]) -> dict[str, Any]:
    """Return Ray's options for these resources."""
    names = {"CPU": "num_cpus", "GPU": "num_gpus", "memory": "memory"}
    options: dict[str, Any] = {names[name]: amount for name, amount in wanted.items() if name in names}
    options["resources"] = {name: amount for name, amount in wanted.items() if name not in names}
    return options


class _NodeActor:
    """The process of a node, for Ray: an actor."""

    def __init__(self) -> None:
        self._over = Flag()

    def run(self, settings: bytes) -> str:
        """Run the node until its end."""
        import ray

        try:
            Node(codec.loads(settings), ray.get_runtime_context().get_node_id()).run()
            return "it was ended"
        finally:
            self._over.set()

    def watch(self) -> str:
        """Return when the node has ended: asked for if the connection of Ray to this process was lost in between."""
        self._over.wait()
        return "it was ended"


class _RayProcess:
    """An actor that runs a node, seen from the program."""

    def __init__(self, ray: Any, actor: Any, settings: bytes) -> None:
        self.ended: Future[Ended] = OwnFuture()
        self._ray = ray
        self._actor = actor
        self._watch(actor.run.remote(settings))

    def _watch(self, result: Any) -> None:
        result.future().add_done_callback(self._done)

    def _done(self, future: Future[str]) -> None:
        error = future.exception()
        if isinstance(error, self._ray.exceptions.ActorUnavailableError):  # which is no death
            timer = threading.Timer(ASK_AGAIN, lambda: self._watch(self._actor.watch.remote()))
            timer.daemon = True
            timer.start()
        elif not self.ended.done():
            self.ended.set_result(Ended(future.result(), certain=True) if error is None else _end(error))
            self.kill()  # the node has ended, and the process that Ray has made for it stays otherwise

    def kill(self) -> None:
        """Have Ray kill the process."""

        def kill() -> None:
            with contextlib.suppress(Exception):  # Ray has been left, or knows the actor no more
                self._ray.kill(self._actor, no_restart=True)

        OwnThread(kill, "suitkaise-kill-node").start()


def _end(error: BaseException) -> Ended:
    """Return in one line what Ray says about the end of a process.

    The word of the process's own machine is certain. That a machine has ended is a judgment, from its silence.
    """
    why = _why(error)
    return Ended(why, certain="process has died" in why)


def _why(error: BaseException) -> str:
    text = str(getattr(error, "cause", None) or error)
    known = re.search(r"(?:The actor|its) (?:is dead because|was killed) .*", text)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return known.group(0).partition(" Worker exit")[0] if known else lines[-1] if lines else type(error).__name__
