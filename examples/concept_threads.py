"""Threads that are made by calls: a function with blocks around it, and a class with the same hooks."""

from suitkaise import skthreading


def square(number):
    return number * number


results = []

with skthreading.ThreadSetup as setup:
    setup.num_loops = 4

    with skthreading.BeforeLoop() as before:
        number = skthreading.get_current_loop()

    with skthreading.AfterLoop() as after:
        skthreading.add_last_result(results)

thread = skthreading.create_thread(name="squares", func=square, setup=setup.build())
print(skthreading.get_thread_result(thread), results)


class Ticks(skthreading.SKThread):
    loop_infinitely = True

    def __on_start__(self):
        self.ticks = 0

    def __loop__(self):
        self.ticks += 1
        self.wait(0.001)  # the sleep that a rejoin ends

    def __result__(self):
        return self.ticks


ticks = skthreading.create_thread(Ticks)
skthreading.rejoin(ticks)
print("ticked:", skthreading.get_thread_result(ticks) > 0)

# prints: 16 [1, 4, 9, 16]
# prints: ticked: True
