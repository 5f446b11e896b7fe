from suitkaise import skthreading, skglobals
from random import randint


# MEND: the concept uses this function and does not define it
def convert_to_word_form(number):
    return "-".join("zero one two three four five six seven eight nine".split()[int(digit)] for digit in str(number))


def do_work(value1: int, value2: int):
    result = convert_to_word_form(value1) + " " + convert_to_word_form(value2)
    return result

# the user can decide if they want the thread to loop or not, and we handle looping, joining looping threads, looping a certain number of times, etc internally and gracefully. 
with skthreading.ThreadSetup as setup:
    setup.loop_infinitely = True

    with skthreading.OnStart() as start:
        list_of_results = []
        value1 = None
        value2 = None

    with skthreading.BeforeLoop() as before:
        if value1 is None:
            value1 = randint(1, 99999)
        if value2 is None:
            value2 = randint(1, 99999)

    with skthreading.AfterLoop() as after:
        # append last result to list of results
        skthreading.add_last_result(list_of_results)

    with skthreading.OnFinish() as finish:
        # add list of results to global storage
        skglobals.create(list_of_results)

dw_thread = skthreading.create_thread(name="do_work_thread", func=do_work, setup=setup.build(), args=None, kwargs=None)

# MEND: the thread gets a turn before it is ended, so that there are results
while not skthreading.get_thread_stats("do_work_thread")["loops"]:
    pass

# end an infinite looping thread or a finite looping thread early and gracefully (let it end its current loop)
skthreading.rejoin(dw_thread)

# MEND: the test reads the effects here; the concept's text ends above
import json  # noqa: E402

dw_thread.join()
results = skglobals.get("list_of_results")
print(json.dumps({"results": len(results), "first": results[0], "here": "list_of_results" in globals()}))
