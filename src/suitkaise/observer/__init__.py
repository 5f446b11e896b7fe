"""What observers know of a program, and the web page that shows it, served by a process of its own.

The process reads the program's overview and events over the hub's socket, while a page is open and not otherwise. So a
page costs the program two short requests a second, and a fault in the observer is no fault in the tree.
"""
