"""The compiled engine (native/python/module.cc)."""

__version__: str
"""The version of ifgo that it was built for."""

def isa() -> str | None:
    """The instruction set in use; None where IFGO_ISA names one that cannot be."""

def isas() -> list[str]:
    """The instruction sets that are built in and run on this CPU, narrowest vectors first."""

def built_isas() -> list[str]:
    """The instruction sets that are built in."""
