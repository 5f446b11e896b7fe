"""The terminal observer: `suitkaise top`, running trees as a live table, with the keyboard to look closer and to steer.

It reads what the web page reads, an `Observation`, and asks the program only while it is open.
"""
