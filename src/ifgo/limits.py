"""Every bound that untrusted input is held to, with its reason.

A bound keeps a hostile or damaged file from costing more memory or time than a real model would.
"""

from __future__ import annotations

MAX_FILE_BYTES = 2 * 1024**3
"""Largest model file read: protobuf's own limit, and far above any LSTM in use."""

MAX_ELEMENTS = 2**28
"""Largest tensor (1 GiB in float32): the recurrent matrix of hidden_size 8192."""

MAX_HIDDEN_SIZE = 8192
"""Largest hidden_size; its weight_hh has exactly MAX_ELEMENTS elements."""

MAX_INPUT_SIZE = 65536
"""Largest number of features per step."""

MAX_VOCABULARY = 2**24
"""Largest embedding table (rows)."""

MAX_LAYERS = 64
"""Deepest chain; the deepest published recurrent nets have 16 layers."""

MAX_NAME_CHARS = 256
"""Longest name of a layer, tensor or node that is kept."""

MAX_JSON_BYTES = 1024**2
"""Longest JSON description inside a native file, and the longest JSON that may hold anything."""

MAX_JSON_FILE_BYTES = 64 * 1024**2
"""Longest JSON model: MAX_JSON_VALUES numbers, each on an indented line of 60 characters."""

MAX_JSON_VALUES = 2**20
"""Most values in a JSON model, 36 bytes each once parsed: one layer of hidden_size 511."""

MAX_JSON_LISTS = 2**16
"""Most lists in a JSON model; each row of a matrix is one."""

MAX_JSON_KEYS = 2**16
"""Most keys, and most escapes in strings, of a JSON model; each may take 200 bytes."""

MAX_TOML_BYTES = 128 * 1024
"""Longest model.toml: 64 layers with the longest names take half; parsing costs 400 times it."""

MAX_TOML_DEPTH = 8
"""Most parts of a dotted TOML key, whose parser takes memory by its square; the schema needs 2."""

MAX_TEXT_NUMBERS = 3 * 2**20
"""Most numbers in a text tensor or data file: reading them takes under two seconds. More belong in
a binary one."""

MAX_TEXT_BYTES = 32 * MAX_TEXT_NUMBERS
"""Largest text tensor or data file: that many numbers of up to 32 characters."""

MAX_EXPANSION = 16 * 1024**2
"""What compressed arrays may unpack to beyond the size of their file; plain ones are as large."""

MAX_ARRAYS = 1024
"""Most arrays in one .npz."""

MAX_STEPS = 10**7
"""Longest sequence accepted in one call."""

MAX_FOLDED_ELEMENTS = 2**20
"""Largest tensor that constant folding may create out of shape arithmetic."""

MAX_FOLDED_BYTES = 16 * 1024**2
"""What folding may allocate beyond a small multiple of the constants that are there."""

MAX_NODES = 20_000
"""Most nodes of a graph that a reader walks; 64 layers take about 2,000."""

MAX_INPUTS = 1024
"""Most inputs, and most outputs, of a graph; a state for each of 64 layers takes 128."""

MAX_FIELDS = 2**19
"""Most fields in a protobuf file: exporters write about 60 for a node."""

MAX_MESSAGES = 2**17
"""Most messages in a protobuf file: exporters write about 20 for a node, each takes 200 bytes."""

MAX_PACKED_BYTES = 16 * 1024**2
"""What packed integers of a protobuf file may take beyond twice its size."""

MAX_PICKLE_STEPS = 2**17
"""Most instructions of a pickle: an array takes about 30, and reading one costs microseconds."""
