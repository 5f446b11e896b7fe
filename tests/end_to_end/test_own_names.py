"""`path`, `copy`, `metadata` and `log` are the user's to define; what the runtime knows stays at the ref."""

import pytest

from suitkaise import Child, Process, Supervisor, Thread
from tests.support import eventually


class OwnNames:
    """Has its own values for the names that the runtime leaves to users."""

    def __init__(self, path):
        self.path, self.copy, self.metadata = path, "my copy", {"my": "metadata"}

    def log(self, text):
        return f"my log of {text}"

    def on_receive(self, message):
        if message == "crash":
            raise LookupError("mine")
        self.tree.add("goes", 1, path="own-names", metadata={"remove_on_process_join": True})
        before = self.tree.exists("goes", path="own-names")
        self.cleanup()
        after = self.tree.exists("goes", path="own-names")
        return (self.path, self.copy, self.metadata, self.log("x")), (self.ref.path, self.ref.copy), (before, after)


class OwnNamesInAProcess(OwnNames, Process):
    pass


class OwnNamesInAThread(OwnNames, Thread):
    pass


@pytest.mark.parametrize("kind", [OwnNamesInAProcess, OwnNamesInAThread])
def test_path_copy_metadata_and_log_may_be_the_users_own_and_the_runtime_uses_its_own(kind):
    with Supervisor("tree", Child(kind("/my/path"), id="own", copies=2)).start() as running:
        ref = running["own-1"]
        assert ref.ask("facts") == (
            ("/my/path", "my copy", {"my": "metadata"}, "my log of x"), ("tree/own-1", 1), (True, False),
        )  # fmt: skip
        assert ref.proxy().path.get() == "/my/path"
        with pytest.raises(LookupError, match="mine"):
            ref.ask("crash")
        [report] = eventually(running.crashes, what="a report")
        assert (report.path, ref.path) == ("tree/own-1", "tree/own-1")
        assert "tree/own-1" in str(report)
        assert "my/path" not in str(report)
