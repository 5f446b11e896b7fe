"""The tests. They are a package so that a worker class declared in a test can be imported by its process."""
