"""References: the float64 judge (truth) with its gradient and losses, and exact float32.

The exact float32 arithmetic is what every target repeats, to the bit.
"""
