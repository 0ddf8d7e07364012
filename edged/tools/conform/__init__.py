"""`edged conform`: is a live LL-HLS stream, anybody's, as RFC 8216bis and Apple's rules want it?

`client` fetches, `observe` follows a stream and probes its server, the `items_*` judge what was
seen, each by its number in the checklist, and `report` has the whole list.
"""
