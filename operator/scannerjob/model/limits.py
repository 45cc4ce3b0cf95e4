"""The times and bounds that the promises rest on, in one place: they depend on one another."""

from __future__ import annotations

from datetime import timedelta

# What is claimed must be handed to the network within this, by a clock that a sleeping machine does
# not stop; whoever is later sends nothing.
SEND_WITHIN = timedelta(seconds=30)
# A claim of which nobody knows whether it was sent is left alone this long: whoever made it may be
# about to send it and to say so.
ORPHAN_AFTER = timedelta(seconds=5)
# After this no send of a claim can still be on its way: SEND_WITHIN, and what a network may delay.
LATEST_SEND = timedelta(minutes=15)
# Workers may begin a message that long after it has expired: their clocks differ from ours.
LATEST_START = timedelta(minutes=2)
# What is dated further ahead was dated by a clock that was wrong, or ours has been set back.
CLOCKS_DIFFER = timedelta(minutes=2)
# A launch of which nothing is left is sent again after this, and then after twice as long.
RESEND_FORGOTTEN = timedelta(seconds=30)
# A claim that a look did not find is sent again only this soon after the look: however long its
# query takes, or a process is frozen, it is known when the last send of a launch can have begun.
RESEND_AFTER_LOOK = timedelta(minutes=5)
# Where a second message may mean a second execution, and the author puts up with it, a launch is
# sent so often at most: a broker that answers to none of them may have them all.
MAX_REPUBLISHED = 5
# Launches of which nothing was heard for this long make the condition Stalled.
STALLED_AFTER = timedelta(hours=1)
# That no worker was seen is said after this: where the broker knows who listens, and where it can
# only be seen that nothing is taken from the queue (workers may be busy with long tasks).
NO_CONSUMER_AFTER = timedelta(minutes=1)
NOTHING_TAKEN_AFTER = timedelta(minutes=10)

# `lastScanTime` alone is not worth a write more often than this.
LAST_SCAN_EVERY = timedelta(minutes=5)
# Looks at the database follow each other at this distance at least: 20 a second.
MIN_LOOK_DISTANCE = timedelta(milliseconds=50)
# Writes of a large status are spread out: etcd keeps every version until it is compacted.
STATUS_BYTES_PER_SECOND = 128 * 1024

# Rows that failed are remembered up to here. A thousand failures need a person, not a thousand
# more.
MAX_REMEMBERED = 1000
# An object of over 1.5 MiB is refused by etcd; half of that leaves room for the spec and
# managedFields.
MAX_LEDGER_BYTES = 480 * 1024
# What an item takes in JSON beside its key, at most; MAX_REASON of it for why it is there.
ITEM_BYTES = 420
MAX_REASON = 100
