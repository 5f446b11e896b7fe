"""A thread of a tree of your own is set up with `with` blocks; they run later, around its main function."""

from random import randint

from suitkaise import Child, Supervisor, current_worker, skthreading
from suitkaise.concept.setup_worker import worker_for


def do_work(value1: int, value2: int) -> int:
    return value1 + value2


with skthreading.ThreadSetup as setup:
    setup.num_loops = 3

    with skthreading.OnStart():
        results = []
        value1 = 40  # a parameter of `do_work`

    with skthreading.BeforeLoop() as before:
        before.add({"value2": randint(1, 2)})

    with skthreading.AfterLoop():
        results.append(current_worker().last_result)

    with skthreading.OnFinish():
        print("results:", len(results), set(results) <= {41, 42})

worker = worker_for("thread", do_work, setup.build())
with Supervisor("app", Child(worker, id="do_work", restart="transient")).start() as running:
    print("last result:", running["do_work"].result(timeout=10.0) in (41, 42))

# prints: results: 3 True
# prints: last result: True
