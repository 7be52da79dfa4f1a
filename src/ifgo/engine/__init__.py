"""The compiled engine: the Python face of native/."""
