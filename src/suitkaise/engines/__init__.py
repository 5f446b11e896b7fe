"""Where workers run: in threads, in processes that the keeper forks, in a simulation."""
