"""Reading bits: fixed-width fields, Exp-Golomb codes, emulation prevention.

ISO/IEC 14496-10 §7.2, §7.4.1.1 and §9.1; H.265 and AV1 read alike.
"""

from edged.errors import RemoteProtocolError

EXP_GOLOMB_ZEROS_MAX = 32  # ue(v) reaches 2**32 - 2 (§9.1); more zeros are garbage.


class BitReader:
    """Reads big-endian bit fields of `what`; past the end it raises RemoteProtocolError."""

    __slots__ = ("_data", "_end", "_what", "position")

    def __init__(self, data: bytes, what: str) -> None:
        self._data = data
        self._end = 8 * len(data)
        self._what = what
        self.position = 0  # In bits.

    @property
    def left(self) -> int:
        """Bits not yet read."""
        return self._end - self.position

    def read(self, bits: int) -> int:
        """The next `bits` bits, unsigned."""
        start = self.position
        end = start + bits
        if end > self._end:
            raise RemoteProtocolError(
                f"{self._what} ends early: bit {end} of {self._end} was asked for"
            )
        self.position = end
        last = (end + 7) >> 3
        window = int.from_bytes(self._data[start >> 3 : last], "big")
        return (window >> (8 * last - end)) & ((1 << bits) - 1)

    def flag(self) -> bool:
        """The next bit."""
        return self.read(1) == 1

    def skip(self, bits: int) -> None:
        """Pass over `bits` bits, which must be there."""
        self.position += bits
        if self.position > self._end:
            raise RemoteProtocolError(
                f"{self._what} ends early: bit {self.position} of {self._end} was asked for"
            )

    def ue(self) -> int:
        """Unsigned Exp-Golomb, ue(v)."""
        zeros = 0
        while not self.read(1):
            zeros += 1
            if zeros > EXP_GOLOMB_ZEROS_MAX:
                raise RemoteProtocolError(
                    f"{self._what}: an Exp-Golomb code with more than {EXP_GOLOMB_ZEROS_MAX} zeros"
                )
        return (1 << zeros) - 1 + self.read(zeros)

    def se(self) -> int:
        """Signed Exp-Golomb, se(v)."""
        code = self.ue()
        return (code + 1) // 2 if code & 1 else -(code // 2)

    def ue_max(self, maximum: int, name: str) -> int:
        """ue(v) of a field that the specification bounds."""
        value = self.ue()
        if value > maximum:
            raise RemoteProtocolError(f"{self._what}: {name} is {value}, more than {maximum}")
        return value

    def align(self) -> None:
        """Go on at the next whole byte."""
        self.position = (self.position + 7) & ~7


def remove_emulation_prevention(nal: bytes) -> bytes:
    """A NAL unit's bytes without its emulation_prevention_three_bytes (§7.4.1.1)."""
    # Left to right and without overlap, as a decoder goes.
    return nal.replace(b"\0\0\3", b"\0\0")
