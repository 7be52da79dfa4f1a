"""References: the float64 judge (truth) and the exact float32 arithmetic every target repeats."""
