# MEND: the concept's text has no imports and no function here: they are those of its other example
from suitkaise import skthreading, skglobals
from random import randint


def do_work(value1: int, value2: int):
    return value1 + value2


# something like this might be a better/clearer idea!
class DoWorkThread(skthreading.SKThread):

    loop_infinitely = True  # MEND: a class body has no self

    def __on_start__(self):
        self.list_of_results = []
        self.value1 = None
        self.value2 = None

    def __before_loop__(self):
        if self.value1 is None:
            self.value1 = randint(1, 99999)
        if self.value2 is None:
            self.value2 = randint(1, 99999)

    # ...
    # MEND: what the dots leave out, as in the other example
    def __loop__(self):
        return do_work(self.value1, self.value2)

    def __after_loop__(self):
        skthreading.add_last_result(self.list_of_results)
        if len(self.list_of_results) == 5:
            self.rejoin()

    def __on_finish__(self):
        skglobals.create(self.list_of_results, name="list_of_results")


# MEND: the test starts the thread and reads the effects here; the concept's text ends above
import json  # noqa: E402

thread = skthreading.create_thread(name="do_work_thread", setup=DoWorkThread())
thread.join()
results = skglobals.get("list_of_results")
print(json.dumps({"results": len(results), "same": len(set(results)) == 1}))
