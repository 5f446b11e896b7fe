"""Functions that are called once, each in a supervised process: one that dies harms no other."""

import os

from suitkaise import Supervisor, WorkerFailed


def count_words(text: str) -> int:
    if text == "poison":
        os.abort()
    return len(text.split())


with Supervisor("library").start() as running:
    print("the words:", list(running.stream(count_words, ["to be or not", "to be"], limit=2)))
    bad, good = running.task(count_words, "poison"), running.task(count_words, "that is the question")
    try:
        bad.get(timeout=20.0)
    except WorkerFailed as error:
        print("it died:", error.reason)
    print("the other one:", good.get(timeout=20.0))

# prints: the words: [4, 2]
# prints: it died: signal 6 (SIGABRT)
# prints: the other one: 4
