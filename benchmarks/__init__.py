"""How fast the engine is: against its peers in the same run, and against this machine's limits."""
