from edged.runtime.track_statistics import TrackStatistics


def test_all_begins_at_nothing_but_what_is_said() -> None:
    counted = TrackStatistics(units=3)
    names = [name for name in dir(counted) if not name.startswith("_")]
    assert {name: getattr(counted, name) for name in names} == {
        **dict.fromkeys(names, 0),
        "units": 3,
    }
    assert len(names) == 11
