"""The operating system as the floors above use it: the I/O thread, the status board, processes, private directories."""
