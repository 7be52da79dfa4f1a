"""The boards that the emulator has: core, memories, flags, and the two peripherals we use.

Addresses and sizes are those of the parts' reference manuals, where QEMU agrees with them. A
Cortex-M7 and a Cortex-M33 of any vendor run what their mps2 boards run: only memories differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from ifgo.errors import UsageError

_TIM2: Final = 0x4000_0000
_NRF51_TIMER0: Final = 0x4000_8000


@dataclass(frozen=True)
class Memory:
    """A region of the address space, in bytes."""

    origin: int
    size: int


@dataclass(frozen=True)
class Uart:
    """The serial port that -DIFGO_UART writes to. kind: the peripheral's register layout."""

    kind: Literal["stm32", "cmsdk", "nrf51"]
    base: int


@dataclass(frozen=True)
class Timer:
    """A 32-bit counter whose emulated time is counted in instructions.

    Under `-icount shift=S` an instruction takes 2^S ns, so ticks / ticks_per_instruction counts
    instructions; a tick is exactly an instruction or less than a quarter of one, so that the
    difference of two intervals rounds to a whole number of instructions without doubt.
    setup: (address, value) writes that start it. capture: address to write 1 to before reading.
    """

    setup: tuple[tuple[int, int], ...]
    counter: int
    hertz: int
    shift: int
    down: bool = False
    capture: int | None = None

    @property
    def ticks_per_instruction(self) -> float:
        """Ticks of the counter during one emulated instruction."""
        return 2**self.shift * self.hertz / 1e9


@dataclass(frozen=True)
class Board:
    """One board. flags: what the compiler is told about the core. machine: QEMU's name for it.

    hertz: the highest clock of the part, of an mps board the clock of its core. debugger: OpenOCD's
    configuration files, where OpenOCD can flash the part.
    """

    name: str
    part: str
    core: str
    flags: tuple[str, ...]
    hertz: int
    flash: Memory
    ram: Memory
    machine: str
    uart: Uart
    timer: Timer
    debugger: tuple[str, ...] = ()

    @property
    def has_fpu(self) -> bool:
        """Whether float arithmetic is done by instructions, not by library calls."""
        return "-mfloat-abi=hard" in self.flags


def _cmsdk_timer(base: int, hertz: int) -> Timer:
    setup = ((base, 0), (base + 8, 0xFFFF_FFFF), (base + 4, 0xFFFF_FFFF), (base, 1))
    return Timer(setup, base + 4, hertz, shift=8, down=True)


_STM32_TIMER: Final = Timer(
    ((_TIM2 + 0x28, 0), (_TIM2 + 0x2C, 0xFFFF_FFFF), (_TIM2 + 0x14, 1), (_TIM2, 1)),
    _TIM2 + 0x24,
    hertz=1_000_000_000,
    shift=0,
)
"""TIM2; the emulator runs it at 1 GHz."""

_SYSTEM_COUNTER: Final = Timer(((0x5810_0000, 1),), 0x4810_1000, hertz=32_000_000, shift=8)

_NRF51_TIMER: Final = Timer(
    (
        (_NRF51_TIMER0 + 0x508, 3),
        (_NRF51_TIMER0 + 0x510, 0),
        (_NRF51_TIMER0 + 0x000, 1),
    ),
    _NRF51_TIMER0 + 0x540,
    hertz=16_000_000,
    shift=8,
    capture=_NRF51_TIMER0 + 0x040,
)

_M0: Final = ("-mcpu=cortex-m0", "-mfloat-abi=soft")
_M3: Final = ("-mcpu=cortex-m3", "-mfloat-abi=soft")
_M4: Final = ("-mcpu=cortex-m4", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard")
_M7: Final = ("-mcpu=cortex-m7", "-mfpu=fpv5-sp-d16", "-mfloat-abi=hard")
_M33: Final = ("-mcpu=cortex-m33", "-mfpu=fpv5-sp-d16", "-mfloat-abi=hard")
_M55: Final = ("-mcpu=cortex-m55", "-mfloat-abi=hard")

_STM32_FLASH: Final = Memory(0x0800_0000, 1024 * 1024)
_STM32_RAM: Final = Memory(0x2000_0000, 128 * 1024)
_STM32_UART: Final = Uart("stm32", 0x4001_1000)
_MPS2_FLASH: Final = Memory(0x0000_0000, 4 * 1024 * 1024)
_MPS2_RAM: Final = Memory(0x2000_0000, 4 * 1024 * 1024)
_MPS2_UART: Final = Uart("cmsdk", 0x4000_4000)
_MPS2_TIMER: Final = _cmsdk_timer(0x4000_0000, 25_000_000)

_ALL: Final = (
    Board(
        "stm32f405",
        "STM32F405",
        "cortex-m4",
        _M4,
        168_000_000,
        _STM32_FLASH,
        _STM32_RAM,
        "netduinoplus2",
        _STM32_UART,
        _STM32_TIMER,
        ("interface/stlink.cfg", "target/stm32f4x.cfg"),
    ),
    Board(
        "stm32f205",
        "STM32F205",
        "cortex-m3",
        _M3,
        120_000_000,
        _STM32_FLASH,
        _STM32_RAM,
        "netduino2",
        _STM32_UART,
        _STM32_TIMER,
        ("interface/stlink.cfg", "target/stm32f2x.cfg"),
    ),
    Board(
        "microbit",
        "nRF51822",
        "cortex-m0",
        _M0,
        16_000_000,
        Memory(0x0000_0000, 256 * 1024),
        Memory(0x2000_0000, 16 * 1024),
        "microbit",
        Uart("nrf51", 0x4000_2000),
        _NRF51_TIMER,
        ("interface/cmsis-dap.cfg", "target/nrf51.cfg"),
    ),
    Board(
        "mps2-an385",
        "Arm MPS2 AN385",
        "cortex-m3",
        _M3,
        25_000_000,
        _MPS2_FLASH,
        _MPS2_RAM,
        "mps2-an385",
        _MPS2_UART,
        _MPS2_TIMER,
    ),
    Board(
        "mps2-an386",
        "Arm MPS2 AN386",
        "cortex-m4",
        _M4,
        25_000_000,
        _MPS2_FLASH,
        _MPS2_RAM,
        "mps2-an386",
        _MPS2_UART,
        _MPS2_TIMER,
    ),
    Board(
        "mps2-an500",
        "Arm MPS2 AN500",
        "cortex-m7",
        _M7,
        25_000_000,
        _MPS2_FLASH,
        _MPS2_RAM,
        "mps2-an500",
        _MPS2_UART,
        _MPS2_TIMER,
    ),
    Board(
        "mps2-an505",
        "Arm MPS2 AN505",
        "cortex-m33",
        _M33,
        20_000_000,
        Memory(0x1000_0000, 4 * 1024 * 1024),
        Memory(0x3800_0000, 4 * 1024 * 1024),
        "mps2-an505",
        Uart("cmsdk", 0x5020_0000),
        _cmsdk_timer(0x5000_0000, 20_000_000),
    ),
    Board(
        "mps3-an547",
        "Arm MPS3 AN547",
        "cortex-m55",
        _M55,
        32_000_000,
        Memory(0x0000_0000, 512 * 1024),
        Memory(0x2100_0000, 4 * 1024 * 1024),
        "mps3-an547",
        Uart("cmsdk", 0x5930_3000),
        _SYSTEM_COUNTER,
    ),
)

BOARDS: Final[dict[str, Board]] = {board.name: board for board in _ALL}
"""Name → board."""


def find_board(name: str | Board) -> Board:
    """The board of that name. Raises UsageError listing the names where there is none."""
    if isinstance(name, Board):
        return name
    if name not in BOARDS:
        raise UsageError(f"unknown board {name!r}", expected="one of " + ", ".join(BOARDS))
    return BOARDS[name]
