# file name: my_file1.py
from suitkaise import xprocess, Process
from suitkaise import sktree
from my_events import create_event_bus
from my_memory import mem_usage

# initialize dummy memory usage tracker
memu = mem_usage.MemoryUsageTracker()
# initialize cross processing
xp = xprocess.CrossProcessing()
# get or create global storage, organized into containers that follow your project structure
_TREE = sktree.connect()


# MEND: the concept uses this function and does not define it
def ui_loop():
    _TREE.append("entries", sorted(_TREE.get_all_from("my_file1")), path="")


# create a new process
# params: name, func, func args, func kwargs
# we have some special kwargs that can be added
ui_process_config = {
    "join_in": None, # join (end process) in n seconds, None being no auto join (user has to join manually)
    "join_after": None, # join after n function loops, None being no auto join
}

# args and kwargs can be added, but they weren't in this case. I am just displaying that it takes these.
ui_process = xp.create_process("UI_handler", ui_loop, args=None, kwargs=ui_process_config)  # MEND: ui_loop, not ui_loop()
xp.rejoin("UI_handler")  # MEND: it is joined manually, as its configuration says
ui_process.join()

# add tasks that processes have to run before main work (Process is xprocess.Process)
class UiProcess(Process):

    # this is the process setup, which is run before the main function
    def __init__(self, name, num_loops=None):
        super().__init__(name, num_loops)
        # self.name = process_name # initialized in Process
        # self.pid = Process.get_pid() # initialized in Process
        # self.current_loop = Process.get_current_loop() # initialized in Process
        # self.num_loops = num_loops otherwise an infinity marker # initialized in Process
        # self.metadata = {
        #     "name": self.process_name,
        #     "pid": self.pid,
        #     "current_loop": self.current_loop,
        #     "num_loops": self.num_loops,
        #     "remove_on_process_join": True
        # } # initialized in Process

        self.tree = sktree.connect()  # connect to global storage tree separately from module?
        # we could also do: self.tree = _TREE possibly...

        self.loop_time_result_name = f"{self.name}-{self.get_current_loop()}"  # MEND: a call

        # create an event bus in another thread
        self.bus = create_event_bus()

    # this is called automatically before every "loop"
    # when __beforeloop__ is called, it:
    # - starts the current loop timer
    def __beforeloop__(self):
        self.loop_time_result_name = f"{self.name}-{self.get_current_loop()}"  # MEND: a call

        # example functionality
        if self.last_loop:
            print(f"This is the last loop before process join.")

    # optionally, you can add the main function directly here using __loop__

    # when __afterloop__ is called, it:
    # - finishes the current loop, increasing the loop counter and recording the loop time
    def __afterloop__(self):
        time = self.last_loop_time
        self.tree.add(
            name=self.loop_time_result_name,  # MEND: self. was left out
            value=time, 
            path="my_file1", 
            metadata=self.metadata  # MEND: the name of the other example, process_metadata, is not defined here
        )

        if memu.over_limit():
            print(f"Memory usage exceeded limit in process {self.name}.")
            self.rejoin()  # gracefully end the process if memory usage is too high
            # if self.rejoin() is called anywhere, it will not end the execution before calling __afterloop__ one last time and then __onfinish__. to forcefully end the process, use self.force_finish().

    # __onfinish__ is called when the process finishes its last loop
    def __onfinish__(self):
        # refine search to only entries with this pid and remove_on_process_join set to True
        to_select = {"pid": self.pid, "remove_on_process_join": True}  # MEND: self. was left out

        # select all entries with this metadata that are in myfile1's tree branch
        self.tree.select_all_with(to_select, "my_file1")  # MEND: self. was left out

        # dummy function that handles loop time stats
        # default name: "{self.name} loop times report"
        report = self.generate_loop_time_report("custom_name_if_you_want")

        # add to project root container
        self.tree.add_to_root("custom_name_if_you_want", report)  # MEND: report_name is not defined
        self.tree.remove_selected() # and "deselects"  # MEND: self. was left out

        # finally, cleanup and gracefully join the process
        # we ASSUME that all data you would like to keep has already been stored somewhere else, so we clean up pretty aggressively
        self.cleanup()

# NOTE: if tree.add() has no path argued, defaults to caller file path (in this case, my_file1's path)

setup1 = UiProcess("UI_handler")

# creating a process including setup1 from UiProcess
ui_process = xp.create_process(ui_loop, setup1, args=None, kwargs=ui_process_config)  # MEND: ui_loop, not ui_loop()

# MEND: the test reads the effects here; the concept's text ends above
import json  # noqa: E402

ui_process.join()
print(json.dumps({
    "root": _TREE.get_all_from(""),
    "left": _TREE.get_all_from("my_file1"),
    "count": _TREE.get("custom_name_if_you_want", path="")["count"],
    "names": xp.list_processes(),
}, default=str))
