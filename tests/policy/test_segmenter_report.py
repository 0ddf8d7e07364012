import msgspec

from edged.policy.segmenter_report import DEVIATION_S_MAX, RenditionMark, SegmenterStatistics


def test_they_are_plain_data() -> None:
    mark = RenditionMark(
        name="v0", msn=3, part=-1, tfdt=9, discontinuity_sequence=1, init_digest="ab"
    )
    for value in (mark, SegmenterStatistics(units=3, deviation_s=0.5)):
        data = msgspec.msgpack.encode(value)
        assert msgspec.msgpack.decode(data, type=type(value)) == value


def test_rungs_are_misaligned_beyond_the_limit() -> None:
    assert not SegmenterStatistics(deviation_s=DEVIATION_S_MAX).misaligned
    assert SegmenterStatistics(deviation_s=DEVIATION_S_MAX + 0.01).misaligned
    assert SegmenterStatistics(unaligned=1).misaligned
