"""The command line: one file per verb. It only calls; nothing calls it."""
