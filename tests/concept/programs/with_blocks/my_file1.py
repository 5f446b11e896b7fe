# file name: my_file1.py
from suitkaise import xprocess, sktree
from my_events import create_event_bus

# initialize cross processing
xp = xprocess.CrossProcessing()
# get or create global storage, organized into containers that follow your project structure
tree = sktree.connect()


# MEND: the concept uses these three functions and defines none of them
def ui_loop(bus=None, current_loop=None, loop_time_result_name=None, last_loop_time=None):
    received = [type(bus).__name__, current_loop, loop_time_result_name, last_loop_time]
    tree.append("received", (received, sorted(tree.get_all_from("my_file1"))), path="")


def generate_loop_time_report():
    return {"loops": xp.get_current_loop(), "pid": xp.get_process_id()}


def cleanup():
    tree.append("cleaned up", xp.get_process_name(), path="")


# create a new process
# params: name, func, func args, func kwargs
# we have some special kwargs that can be added
ui_process_config = {
    "join_in": None, # join (end process) in n seconds, None being no auto join (user has to join manually)
    "join_after": 3, # join after n function loops, None being no auto join  # MEND: 3, not None, so that the program ends
}

# args and kwargs can be added, but they weren't in this case. I am just displaying that it takes these.
ui_process = xp.create_process("UI_handler", ui_loop, args=None, kwargs=ui_process_config)  # MEND: ui_loop, not ui_loop(), which is None
ui_process.join()  # MEND: so that the effects of the two processes have an order

# add tasks that processes have to run before main work
with xp.ProcessSetup() as setup:
    # results here are added to config going into main function kwargs
    with xp.OnStart() as start:
        # create an event bus in another thread
        bus = create_event_bus()

        process_name = xp.get_process_name()
        pid = xp.get_process_id()
        process_metadata = {
            "process_name": process_name,
            "pid": pid,
            "remove_on_process_join": True
        }

    # results here are added to this loop's kwargs
    with xp.BeforeLoop() as before:
        current = xp.get_current_loop()
        loop_time_result_name = f"{process_name}-{current}" # added to kwargs of main func
        to_add = {
            "current_loop": current,
            "loop_time_result_name": loop_time_result_name
        }
        before.add_these(to_add)

    # results optionally added to next loop kwargs
    with xp.AfterLoop(add_for_next=False) as after:
        time = xp.get_last_loop_time()
        tree.add(name=loop_time_result_name, value=time, path="my_file1", metadata=process_metadata)
        after.add({"last_loop_time": time})

    with xp.OnFinish() as finish:
        to_select = {"pid": pid, "remove_on_process_join": True}
        tree.select_all_with(to_select, "my_file1")
        # dummy function that handles loop time stats
        report = generate_loop_time_report()
        report_name = f"{process_name} loop times report"
        # add to project root container
        tree.add_to_root(report_name, report)
        tree.remove_selected() # and "deselects"
        cleanup()

# NOTE: if tree.add() has no path argued, defaults to caller file path (in this case, my_file1's path)

setup1 = setup.build() # returns the data in workable form from the context manager

# creating a process including setup1 from xp.ProcessSetup
ui_process = xp.create_process("UI_handler", ui_loop, setup1, args=None, kwargs=ui_process_config)  # MEND: ui_loop, not ui_loop()

# MEND: the test reads the effects here; the concept's text ends above
import json  # noqa: E402

ui_process.join()
print(json.dumps({
    "root": tree.get_all_from(""),
    "left": tree.get_all_from("my_file1"),
    "pid": tree.get("UI_handler-2 loop times report", path="")["pid"],
    "names": xp.list_processes(),
    "globals": sorted({"bus", "process_name", "report", "time"} & set(globals())),
}, default=str))
