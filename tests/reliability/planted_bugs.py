"""One bug at least for each invariant, each as subtle as a real one, and the tests that have to notice it.

A bug is described by what a wrong edit would have done to the source: see `planting`. Where the code has moved on, the
edit fits nowhere, and the test of that bug fails until it is described anew.
"""

from dataclasses import dataclass

from planting import Edit


@dataclass(frozen=True, slots=True)
class Bug:
    """`nodes` are tests of the ordinary suite, few and quick."""

    invariant: int
    name: str
    what: str
    edits: tuple[Edit, ...]
    nodes: tuple[str, ...]


ACCEPTING = "tests/server/test_accepting.py::"
CACHE = "tests/cache/test_cache_cache.py::"
CLOCK = "tests/cache/test_cache_clock.py::"
ENTRIES = "tests/cache/test_cache_entries.py::"
FILL = "tests/cache/test_cache_fill.py::"
INDEX = "tests/cache/test_cache_index.py::"
INTEGRITY = "tests/cache/test_cache_integrity.py::"
RECOVERY = "tests/cache/test_cache_recovery.py::"
SOURCE = "tests/cache/test_cache_body_stream.py::"
STORE = "tests/cache/test_cache_file_storage.py::"
VERIFICATION = "tests/cache/test_cache_verification.py::"
ANSWERS = "tests/s3/test_s3_responses.py::"
FAULTS = "tests/s3/test_s3_faults.py::"
SERVER = "tests/server/"

BUGS = (
    Bug(
        1,
        "etag-of-a-part",
        "The ETag of a part is not compared with the entry's: blocks of two versions get into one file.",
        (
            Edit(
                "bucketfront.cache.fetch.version:Version._get",
                "not found.is_version(known)",
                "found.size != known.size",
            ),
        ),
        (FILL + "test_a_response_of_another_version_is_refused",),
    ),
    Bug(
        1,
        "content-range",
        "A 206 is believed to hold the range that was asked for, whatever its Content-Range says.",
        (Edit("bucketfront.s3.responses:_is_requested", "return span == part.within(total)", "return True"),),
        (ANSWERS + "test_contradictory_heads_are_refused",),
    ),
    Bug(
        1,
        "version-id-ignored",
        "Where an object is asked for by a version id, whatever comes is taken for that version.",
        (Edit("bucketfront.s3.responses:_version", "sent != requested", "not sent"),),
        (ANSWERS + "test_another_version_than_requested",),
    ),
    Bug(
        1,
        "completed-by-key",
        "What is missing of a version that was replaced is asked for by its key alone, so that its answer is cut.",
        (Edit("bucketfront.cache.fetch.version:Version._get_past", "key._replace(version=version)", "key"),),
        (SERVER + "test_version_change.py::test_in_a_bucket_that_keeps_versions",),
    ),
    Bug(
        2,
        "beyond-the-mark",
        "A reader is let up to where a write is going to, in place of where the last one got to.",
        (
            Edit("bucketfront.cache.fetch.fill:Fill.readable", "fetch.mark <= at", "fetch.writing_to <= at"),
            Edit("bucketfront.cache.fetch.fill:Fill.readable", "at = fetch.mark", "at = fetch.writing_to"),
        ),
        (FILL + "test_nothing_is_readable_beyond_the_mark",),
    ),
    Bug(
        2,
        "bit-before-the-write",
        "A block's bit is set when its write begins.",
        (
            Edit(
                "bucketfront.cache.fetch.part_fetch:PartTransfer._write",
                "fetch.writing_to = end\n",
                "fetch.writing_to = end\n"
                "    for block in touched:\n"
                "        if min((block + 1) * size, entry.metadata.size) <= end:\n"
                "            context.entries.commit(entry, block, fetch.checksum)\n",
            ),
        ),
        (FILL + "test_nothing_is_readable_beyond_the_mark", FILL + "test_a_disk_that_fails_during_a_fill"),
    ),
    Bug(
        2,
        "last-byte-of-a-block",
        "A block counts as whole when its last byte is still missing.",
        (
            Edit(
                "bucketfront.cache.fetch.part_fetch:PartTransfer._write",
                "entry.metadata.size) <= end",
                "entry.metadata.size) <= end + 1",
            ),
        ),
        (FILL + "test_any_chunk_size_gives_the_bytes_once",),
    ),
    Bug(
        2,
        "short-write",
        "`pwrite` returning less than it was given is taken for all of it.",
        (Edit("bucketfront.cache.storage.file_storage:_write", "view = view[written:]", "view = view[len(view):]"),),
        (STORE + "test_a_write_is_repeated_until_all_of_it_is_there",),
    ),
    Bug(
        2,
        "blocks-of-another-size",
        "An index whose blocks were smaller is believed when they are to be larger.",
        (Edit("bucketfront.cache.storage.index:Index._connect", "!= self._block_size:", "> self._block_size:"),),
        (INDEX + "test_other_blocks_begin_anew",),
    ),
    Bug(
        2,
        "not-durable",
        "In durable mode the index does not wait until the data that it claims is synced.",
        (
            Edit(
                "bucketfront.cache.upkeep.flusher:Flusher._synced",
                "await self._store.sync(entry.file)",
                "asyncio.create_task(self._store.sync(entry.file))",
            ),
        ),
        (RECOVERY + "test_index_claims_only_what_was_synced",),
    ),
    Bug(
        3,
        "sendfile-returns-0",
        "`sendfile` returning 0 is taken for the end of the answer.",
        (
            Edit(
                "bucketfront.server.send.sendfile:_SendfileStep.send",
                "if not sent:\n        raise EOFError(f'the cached file ended {self.stop - self.at} bytes early')",
                "if not sent:\n        sent = self.stop - self.at",
            ),
        ),
        (SERVER + "test_sendfile.py::test_the_file_ends_early",),
    ),
    Bug(
        3,
        "body-that-ends-early",
        "An origin's body that ends before its Content-Length counts as whole.",
        (
            Edit(
                "bucketfront.s3.body:S3Body._receive",
                "raise BodyTruncated(f'{self._what}: the body broke off {self._left} bytes early') from error",
                "return b''",
            ),
            Edit("bucketfront.s3.body:S3Body.read", "if not data:", "if data is None:"),
        ),
        (FAULTS + "test_a_body_cut_early",),
    ),
    Bug(
        3,
        "padded-to-its-length",
        "An answer whose bytes cannot be had is filled up with zeros.",
        (
            Edit(
                "bucketfront.server.send.sender:Sender.send",
                "abort(outlet)",
                "await self._write(body, bytes(self._length - self.sent))\n        return",
            ),
        ),
        (SERVER + "test_failures.py::test_cut_for_good_cuts_the_answer",),
    ),
    Bug(
        4,
        "metadata-of-two-answers",
        "A 304 that names another Last-Modified renews the metadata of the version before.",
        (
            Edit(
                "bucketfront.cache.fetch.requests:revalidate",
                "response.last_modified in (None, known.last_modified)",
                "response.age is not None",
            ),
        ),
        (SERVER + "test_representation.py::test_metadata_that_changed_under_the_same_etag",),
    ),
    Bug(
        5,
        "remembered-404",
        "A write leaves the remembered 404 of its key.",
        (Edit("bucketfront.cache.upkeep.purge:Purge._purge", "self._negative_cache.forget_all(is_hit)", "pass"),),
        (CACHE + "test_a_purge_forgets_a_404",),
    ),
    Bug(
        5,
        "forgotten-before-only",
        "A write invalidates before S3 is asked, and no more after it spoke.",
        (
            Edit(
                "bucketfront.server.object_writer:ObjectWriter.store",
                "await asyncio.shield(self.invalidate(key))",
                "pass",
            ),
        ),
        (SERVER + "test_tee.py::test_a_read_during_a_write_that_is_not_published",),
    ),
    Bug(
        6,
        "mark-ignored",
        "What a lookup finds is kept although a write came after it began.",
        (
            Edit(
                "bucketfront.cache.fetch.single_flight:Lookup.may_publish",
                "self.state is not LookupState.SHARED",
                "self.state is LookupState.PRIVATE",
            ),
        ),
        (CACHE + "test_an_invalidated_lookup_is_not_kept",),
    ),
    Bug(
        6,
        "row-outlives-its-entry",
        "An entry that is removed while its row is being written leaves the row behind.",
        (
            Edit(
                "bucketfront.cache.entries.pending_changes:PendingChanges.remove",
                "self.tombstones.add(entry.id)",
                "pass",
            ),
        ),
        (ENTRIES + "test_an_entry_removed_during_a_flush_stays_removed",),
    ),
    Bug(
        7,
        "age-from-the-answer",
        "Age counts from when the origin's answer came, not from when it was asked.",
        (
            Edit(
                "bucketfront.cache.lookup_flow:LookupFlow._run",
                "self._create(key, response, lookup, sent_at)",
                "self._create(key, response, lookup, self._clock())",
            ),
        ),
        (CACHE + "test_age_counts_from_the_request",),
    ),
    Bug(
        7,
        "stale-window-without-end",
        "A stale entry answers while it is revalidated, however stale it is.",
        (
            Edit(
                "bucketfront.cache.lookup_flow:LookupFlow._serve",
                "if -ttl < entry.freshness.stale_while_revalidate",
                "if entry.freshness.stale_while_revalidate",
            ),
        ),
        (CACHE + "test_beyond_the_window_a_request_waits",),
    ),
    Bug(
        7,
        "backwards",
        "A version of which a part was found to be replaced answers on, after others have seen the new one.",
        (Edit("bucketfront.cache.fetch.version:Version.fetch", "self._on_replaced(self._entry)", "pass"),),
        (SOURCE + "test_a_version_is_completed_by_its_id",),
    ),
    Bug(
        7,
        "clock-set-back",
        "The cache's clock goes back with the wall clock.",
        (Edit("bucketfront.cache.clock:CacheClock.__call__", "wall > now + JUMP", "abs(wall - now) > JUMP"),),
        (CLOCK + "test_wall_clock_set_back", CLOCK + "test_never_slower_than_time"),
    ),
    Bug(
        7,
        "clock-set-back-between-runs",
        "The cache's clock begins at the wall clock's time, though the last run was later.",
        (Edit("bucketfront.cache.clock:CacheClock.__init__", "max(now, newest)", "now"),),
        (CLOCK + "test_set_back_between_two_runs",),
    ),
    Bug(
        8,
        "cut-at-the-limit",
        "A body that turns out too large is stored up to the limit.",
        (
            Edit(
                "bucketfront.server.receive.request_body:received",
                "raise TooLarge(f'the body has more than the {limit} bytes that are taken')",
                "break",
            ),
        ),
        (SERVER + "test_uploads.py::test_too_large",),
    ),
    Bug(
        8,
        "left-half-way",
        "A client that leaves in the middle of a multipart upload leaves the parts behind.",
        (Edit("bucketfront.s3.upload.uploader:S3Uploader._multipart", "except BaseException:", "except Exception:"),),
        (SERVER + "test_uploads.py::test_client_that_leaves_half_way",),
    ),
    Bug(
        8,
        "copy-is-a-write",
        "A field of S3's that makes a write a copy is passed over: the object becomes an empty one.",
        (Edit("bucketfront.http.write_head:parse", "_refuse_unknown(given)", "pass"),),
        (SERVER + "test_uploads.py::test_what_is_not_implemented_is_not_passed_over",),
    ),
    Bug(
        8,
        "hole-in-what-waits",
        "A file in which a resumable upload waits is begun anew in its middle: the object has zeros there.",
        (
            Edit("bucketfront.tus.upload_folder:_open_to_write", "if is_new:", "if True:"),
            Edit(
                "bucketfront.tus.upload_folder:UploadFolder._write",
                "os.fstat(fd).st_size < HEAD_BYTES + offset",
                "False",
            ),
        ),
        (SERVER + "test_resumable.py::test_lost_staged_bytes",),
    ),
    Bug(
        8,
        "head-timer-in-a-body",
        "Bytes of a body that come before its handler has begun start the deadline of a head.",
        (
            Edit(
                "bucketfront.server.http1.connection:Connection.data_received",
                "not self.is_responding",
                "self._current_request is None and not self._messages",
            ),
        ),
        (SERVER + "test_slow_clients.py::test_a_body_that_comes_before_its_handler",),
    ),
    Bug(
        9,
        "unknown-outcome-is-success",
        "Only a write that succeeded invalidates its key again.",
        (
            Edit(
                "bucketfront.server.object_writer:ObjectWriter.store",
                "finally:\n            await asyncio.shield(self.invalidate(key))",
                "finally:\n            pass\n        await self.invalidate(key)",
            ),
        ),
        (SERVER + "test_write_races.py::test_write_whose_outcome_is_unknown",),
    ),
    Bug(
        9,
        "forgotten-after-only",
        "A write invalidates its key once S3 has spoken, and not before: a kill in between leaves the old version.",
        (
            Edit(
                "bucketfront.server.object_writer:ObjectWriter.store",
                "lambda: self.invalidate(key)",
                "lambda: self.invalidate()",
            ),
        ),
        (SERVER + "test_tee.py::test_the_old_version_is_gone_before_s3_is_asked",),
    ),
    Bug(
        9,
        "resumable-forgotten-before-only",
        "The end of a resumable upload invalidates its key before S3 is asked, and no more after it spoke.",
        (
            Edit(
                "bucketfront.tus.s3_transfer:S3Transfer._complete",
                "await asyncio.shield(self._invalidate(upload.key))",
                "pass",
            ),
        ),
        (SERVER + "test_resumable.py::test_read_while_it_ends",),
    ),
    Bug(
        10,
        "claims-ignored",
        "A second flight is begun for blocks that one is fetching already.",
        (Edit("bucketfront.cache.fetch.fill:Fill._missing", "claimed |= ", "claimed & "),),
        (FILL + "test_many_readers_share_each_block",),
    ),
    Bug(
        10,
        "lookups-side-by-side",
        "Each request that misses asks the origin itself.",
        (
            Edit(
                "bucketfront.cache.fetch.single_flight:Lookups.join_or_start",
                "lookup = self._shared.get(key)",
                "lookup = None",
            ),
        ),
        (CACHE + "test_a_cold_key_is_looked_up_once",),
    ),
    Bug(
        10,
        "loser-goes-on",
        "After a race the first request goes on, though the second one's bytes were taken: they come again.",
        (
            Edit(
                "bucketfront.cache.fetch.body_stream:BodyStream._race",
                "self._request = request",
                "self._request = first",
            ),
        ),
        (SOURCE + "test_any_interleaving_of_two_requests_gives_the_bytes",),
    ),
    Bug(
        11,
        "dies-with-an-older-flight",
        "A reader that came to a flight which was dying already fails with it.",
        (Edit("bucketfront.cache.fetch.fill:Fill._fail", "fetch.began < waiter.since", "False"),),
        ("tests/cache/test_cache_failing_part.py",),
    ),
    Bug(
        11,
        "cut-body-begins-again",
        "A body that was cut, or stalls, is asked for again from where its page of the file begins.",
        (
            Edit(
                "bucketfront.cache.fetch.body_stream:_RangeRequest.__init__",
                "FromTo(at, stop)",
                "FromTo(at & ~4095, stop)",
            ),
        ),
        (FILL + "test_a_cut_body_costs_its_missing_bytes_only",),
    ),
    Bug(
        12,
        "pin-of-a-cancelled-waiter",
        "A waiter cancelled in the turn of its result keeps the pin that it was given.",
        (Edit("bucketfront.cache.fetch.single_flight:Lookups.result", "self._unpin(waiter.result().entry)", "pass"),),
        (CACHE + "test_a_waiter_cancelled_in_the_turn_of_its_result",),
    ),
    Bug(
        12,
        "reads-on-for-nobody",
        "A reader that leaves is not told to its fill, which goes on reading ahead for it.",
        (Edit("bucketfront.cache.reader:Reader.close", "self._fill.leave(self._cursor)", "pass"),),
        (FILL + "test_a_reader_that_leaves_takes_its_read_ahead_along",),
    ),
    Bug(
        12,
        "descriptor-of-a-cancelled-create",
        "A file made for a request that was cancelled meanwhile stays open.",
        (
            Edit(
                "bucketfront.cache.storage.file_storage:FileStorage._run",
                "except asyncio.CancelledError:\n        work.add_done_callback(_close_late)",
                "except asyncio.CancelledError:\n        pass",
            ),
            Edit("bucketfront.cache.storage.file_storage:FileStorage._create", "has_left.is_set()", "False"),
        ),
        (STORE + "test_a_cancelled_create_leaves_no_descriptor",),
    ),
    Bug(
        12,
        "loser-stays-open",
        "The connection of the request that lost a race is not given back.",
        (
            Edit(
                "bucketfront.cache.fetch.body_stream:BodyStream._race",
                "if request is not self._request:",
                "if self._request is None:",
            ),
        ),
        (SOURCE + "test_a_late_head_is_raced", SOURCE + "test_a_stalled_body_is_raced_from_where_it_stands"),
    ),
    Bug(
        13,
        "any-404-is-absence",
        "A 404 page of whatever stands before S3 is read as absence.",
        (
            Edit(
                "bucketfront.s3.error_translation:_from_status",
                "code in _ABSENT or (code == '404' and _may_be_from_s3(what, error))",
                "True",
            ),
        ),
        (SERVER + "test_failures.py::test_404_of_somebody_else_is_no_absence",),
    ),
    Bug(
        13,
        "403-is-remembered",
        "A 403 is remembered as an absence is.",
        (
            Edit(
                "bucketfront.cache.lookup_flow:LookupFlow._run",
                "except ObjectNotFound:",
                "except (ObjectNotFound, AccessDenied):",
            ),
        ),
        (SERVER + "test_failures.py::test_errors_are_not_kept",),
    ),
    Bug(
        13,
        "fallback-in-an-outage",
        "A site's fallback stands in for what cannot be had.",
        (
            Edit(
                "bucketfront.server.handlers.objects:ObjectHandler._send_first_present",
                "candidate.is_fallback and is_unknown",
                "False",
            ),
        ),
        (SERVER + "test_site.py::test_a_fallback_is_for_what_is_absent",),
    ),
    Bug(
        13,
        "absence-for-good",
        "A 404 is believed beyond `negative_ttl`.",
        (
            Edit(
                "bucketfront.cache.entries.negative_cache:NegativeCache.find",
                "known is None or known.until <= now",
                "known is None",
            ),
        ),
        (CACHE + "test_a_404_is_remembered_for_a_while",),
    ),
    Bug(
        14,
        "unclean-stop-unseen",
        "The index is not marked as in use, so a kill looks like a clean stop.",
        (Edit("bucketfront.cache.storage.index:Index._begin_run", "'clean': 0", "'clean': 1"),),
        (INDEX + "test_the_epoch_grows_with_unclean_stops_only",),
    ),
    Bug(
        14,
        "row-without-a-file",
        "A row whose file is gone is an error of the disk, not a miss.",
        (
            Edit(
                "bucketfront.cache.storage.file_storage:FileStorage._open_file",
                "except FileNotFoundError:\n        return None",
                "except FileNotFoundError:\n        raise",
            ),
        ),
        (CACHE + "test_a_row_without_its_file_and_a_file_without_its_row",),
    ),
    Bug(
        14,
        "power-loss-unseen",
        "After a power loss rows are trusted as after a kill, though a purge may be lost.",
        (Edit("bucketfront.cache.storage.index:Index._begin_run", "not was_stopped and (not is_same_boot)", "False"),),
        (RECOVERY + "test_what_a_run_trusts_of_the_last_one",),
    ),
    Bug(
        14,
        "reboot-unseen",
        "Blocks are believed unchecked after a clean stop, though the machine went down after it.",
        (Edit("bucketfront.cache.storage.index:Index._begin_run", "was_stopped and is_same_boot", "was_stopped"),),
        (RECOVERY + "test_what_a_run_trusts_of_the_last_one",),
    ),
    Bug(
        14,
        "synced-again",
        "A file that could not be synced is kept, and synced again with the next flush.",
        (Edit("bucketfront.cache.upkeep.flusher:Flusher._synced", "self._disposal.remove(entry)", "pass"),),
        (RECOVERY + "test_a_file_that_cannot_be_synced_is_discarded",),
    ),
    Bug(
        15,
        "checksum-not-compared",
        "A block from before an unclean stop is believed if it can be read.",
        (Edit("bucketfront.cache.fetch.fill:Fill._check", "== context.entries.checksum(entry, block)", "is not None"),),
        (SERVER + "test_restart.py::test_damage_after_an_unclean_stop",),
    ),
    Bug(
        15,
        "scrubber-believes",
        "The scrubber passes over a block whose checksum does not fit, and only sees that a file is gone.",
        (Edit("bucketfront.cache.scrubber:Scrubber._scrub", "if damage != 0", "if damage is None"),),
        ("tests/cache/test_cache_scrubber.py::test_damage_after_a_clean_start",),
    ),
    Bug(
        15,
        "verify-believes",
        "`bucketfront verify` reads no more than the first block of each file.",
        (
            Edit(
                "bucketfront.cache.storage.verification:_Inspection._inspect",
                "row.metadata.size, claims",
                "row.metadata.size, claims[:1]",
            ),
        ),
        (VERIFICATION + "test_damage_is_found_and_put_right",),
    ),
    Bug(
        15,
        "repair-forgets",
        "A repair gives the space of corrupt blocks back, and the index goes on claiming them.",
        (Edit("bucketfront.cache.storage.verification:_repair", "lost=tuple(lost), ", ""),),
        (VERIFICATION + "test_damage_is_found_and_put_right",),
    ),
    Bug(
        15,
        "s3s-checksum-ignored",
        "Bytes that do not have S3's checksum are served and kept.",
        (Edit("bucketfront.cache.fetch.integrity:Integrity.fits", "found == expected.value", "found is not None"),),
        (INTEGRITY + "test_wrong_bytes_are_not_served",),
    ),
    Bug(
        15,
        "compared-in-one-go-only",
        "S3's checksum is compared only where one flight brings all of an object.",
        (
            Edit(
                "bucketfront.cache.fetch.part_fetch:PartTransfer._completes",
                "| blocks.mask(whole)",
                "& 0 | blocks.mask(whole)",
            ),
        ),
        (INTEGRITY + "test_the_part_that_completes_an_object_compares_it",),
    ),
    Bug(
        15,
        "compared-too-late",
        "The last bytes of an object are readable before its checksum was compared.",
        (
            Edit(
                "bucketfront.cache.fetch.part_fetch:PartTransfer._write",
                "is_last = self",
                "fetch.mark = end\n    self._on_written(fetch)\n    is_last = self",
            ),
        ),
        (INTEGRITY + "test_wrong_bytes_are_not_served",),
    ),
    Bug(
        15,
        "rot-in-what-waits",
        "What waited on the disk is sent to S3 though it is not what was written.",
        (Edit("bucketfront.tus.staging:PartStaging._read_file", "found != checksum", "False"),),
        (SERVER + "test_resumable.py::test_corrupt_staged_bytes",),
    ),
    Bug(
        16,
        "disk-error-is-an-error",
        "A fill that the disk refuses fails its readers.",
        (Edit("bucketfront.server.send.sender:Sender.begin", "except StoreError:\n", "except EOFError:\n"),),
        (SERVER + "test_disk.py::test_writes_fail",),
    ),
    Bug(
        16,
        "sick-disk-is-asked-on",
        "A disk that failed is asked again by every request.",
        (
            Edit(
                "bucketfront.cache.storage.file_storage:FileStorage.note_failure",
                "self._failed_at = self._clock()",
                "self._failed_at = None",
            ),
        ),
        (STORE + "test_a_failed_disk_is_left_alone_for_a_while",),
    ),
    Bug(
        16,
        "link-for-a-shard",
        "OpenFiles are opened and removed through a symbolic link in the place of a folder of the cache.",
        (
            Edit(
                "bucketfront.cache.storage.folder:Folder._shard_of",
                "try:\n        fd = os.open(name[-2:], _FOLDER, ",
                "try:\n        fd = os.open(name[-2:], os.O_DIRECTORY, ",
            ),
        ),
        (STORE + "test_a_shard_that_is_a_symbolic_link_is_not_followed",),
    ),
    Bug(
        16,
        "link-for-the-folder",
        "A cache folder that was deleted is made again where a link of its name leads.",
        (
            Edit("bucketfront.cache.storage.folder:Folder.renew", "self.root.resolve() != self.root", "False"),
            Edit("bucketfront.cache.storage.folder:Folder.renew", "_hold(self.root)", "_hold(self.root.resolve())"),
        ),
        (STORE + "test_a_folder_put_in_the_place_of_ours_is_not_touched",),
    ),
    Bug(
        17,
        "not-reserved",
        "Bytes are written for which nothing was taken from the budget.",
        (Edit("bucketfront.cache.fetch.part_fetch:PartTransfer.run", "await self._context.reserve(count)", "pass"),),
        (CACHE + "test_the_least_recently_used_makes_room",),
    ),
    Bug(
        17,
        "reserved-before-evicting",
        "Space is made when the limit is passed already.",
        (
            Edit(
                "bucketfront.cache.upkeep.space_reservation:SpaceReservation.reserve",
                "while budget.available < count",
                "while budget.available < 0",
            ),
        ),
        ("tests/cache/test_cache_space_reservation.py::test_room_is_made_before_it_is_taken",),
    ),
    Bug(
        17,
        "left-by-a-kill",
        "What a kill left in files stays there, and counts for nothing.",
        (Edit("bucketfront.cache.housekeeper:Housekeeper._strays_in", "file.allocated > charged", "False"),),
        ("tests/cache/test_cache_recovery.py::test_what_a_kill_left_in_a_file_is_given_back",),
    ),
    Bug(
        17,
        "left-by-the-sweep",
        "Orphans that cannot be removed count for nothing.",
        (Edit("bucketfront.cache.housekeeper:Housekeeper.sweep", "left += file.allocated", "pass"),),
        ("tests/cache/test_cache_recovery.py::test_what_a_sweep_cannot_remove_is_charged",),
    ),
    Bug(
        17,
        "min-free-ignored",
        "`min_free` bounds nothing.",
        (
            Edit(
                "bucketfront.cache.entries.budget:Budget.available",
                "self._free - self._unsampled - self.floor",
                "self._free - self._unsampled",
            ),
        ),
        ("tests/cache/test_cache_budget.py",),
    ),
    Bug(
        18,
        "truncated-not-unlinked",
        "Eviction empties a file before it unlinks it.",
        (
            Edit(
                "bucketfront.cache.storage.folder:Folder.unlink",
                "os.unlink(name, dir_fd=shard)",
                "os.close(os.open(name, os.O_WRONLY | os.O_TRUNC, dir_fd=shard))\n"
                "        os.unlink(name, dir_fd=shard)",
            ),
        ),
        (STORE + "test_removing_leaves_open_readers_alone",),
    ),
    Bug(
        18,
        "evicts-what-is-read",
        "An entry in use may be evicted.",
        (Edit("bucketfront.cache.entries.eviction:LeastRecentlyUsed._oldest_hot", "entry.pins or ", ""),),
        (CACHE + "test_pressure_never_touches_what_is_read",),
    ),
    Bug(
        18,
        "no-pages",
        "One turn of the loop removes as many idle entries as there are.",
        (Edit("bucketfront.cache.entries.entry_table:EntryTable._evict", "len(found) < PAGE_ENTRIES and ", ""),),
        (ENTRIES + "test_a_turn_is_bounded",),
    ),
    Bug(
        19,
        "nothing-cools",
        "EntryTable stay in memory, however many there are.",
        (Edit("bucketfront.cache.entries.entry_table:EntryTable.cool", "- self.hot_limit", "- 4 * self.hot_limit"),),
        (CACHE + "test_hot_entries_cool_and_come_back",),
    ),
    Bug(
        19,
        "bodies-without-bound",
        "Small bodies are kept in memory by their number, not by what they take.",
        (
            Edit(
                "bucketfront.cache.entries.hot_bodies:HotBodies.keep",
                "while self._used > self._limit",
                "while len(self._kept) > 64",
            ),
        ),
        ("tests/cache/test_cache_leases.py::test_pushed_out_of_memory",),
    ),
    Bug(
        20,
        "deadline-of-each-attempt",
        "The deadline of a question to the origin begins anew with each attempt.",
        (
            Edit(
                "bucketfront.s3.client:S3Origin._with_retries",
                "asyncio.timeout_at(until)",
                "asyncio.timeout(self._call_timeout)",
            ),
            Edit(
                "bucketfront.s3.client:S3Origin._with_retries",
                " or asyncio.get_running_loop().time() + pause >= until",
                "",
            ),
        ),
        (FAULTS + "test_an_origin_without_a_response",),
    ),
    Bug(
        20,
        "head-that-drips",
        "Each byte of a request's head puts its deadline off.",
        (
            Edit(
                "bucketfront.server.http1.connection:Connection.data_received",
                "before = self.requests_parsed",
                "before = self.requests_parsed\n    self._stop_head_timer()",
            ),
        ),
        (SERVER + "test_slow_clients.py::test_head_that_drips",),
    ),
    Bug(
        20,
        "stop-reads-no-body",
        "A stop closes for bytes as well as for requests: a body under way never ends.",
        (Edit("bucketfront.server.http1.connection:Connection.close", "if not self.is_responding:", "if True:"),),
        (SERVER + "test_disconnect.py::test_stop_reads_the_body_under_way",),
    ),
    Bug(
        20,
        "write-to-a-disk-that-hangs",
        "An upload waits for the disk as long as the disk likes.",
        (
            Edit(
                "bucketfront.cache.upload:Upload._shielded", "asyncio.timeout(DISK_TIMEOUT_S)", "asyncio.timeout(None)"
            ),
        ),
        (SERVER + "test_disk.py::test_an_upload_before_a_disk_that_hangs",),
    ),
    Bug(
        20,
        "uploads-take-all-connections",
        "UploadHandler may have all connections to the origin: reads wait for the slowest body.",
        (Edit("bucketfront.s3.upload.upload_slots:UploadSlots.__init__", "count // 2", "count"),),
        ("tests/s3/test_s3_slots.py::test_uploads_have_half_of_them",),
    ),
    Bug(
        20,
        "upload-that-drips",
        "An upload is given up when nothing comes, and never for coming too slowly.",
        (
            Edit(
                "bucketfront.server.receive.request_body:received",
                "if got < MIN_RATE_BYTES_PER_S * waited",
                "if got < 0",
            ),
        ),
        (SERVER + "test_slow_clients.py::test_upload_that_drips",),
    ),
    Bug(
        21,
        "accepts-to-the-last-descriptor",
        "Connections are accepted until no descriptor is left.",
        (
            Edit(
                "bucketfront.server.http1.listener:BoundedSite._admit",
                "connections.open < connections.limit",
                "connections.open < 1 << 20",
            ),
        ),
        (ACCEPTING + "test_beyond_the_bound",),
    ),
    Bug(
        21,
        "all-are-for-clients",
        "How many clients there may be is reckoned from all descriptors, and nothing is left for others.",
        (Edit("bucketfront.server.http1.descriptors:shares", "int(limit * MAX_USED_SHARE)", "limit"),),
        (ACCEPTING + "test_shares",),
    ),
    Bug(
        21,
        "refused-and-still-here",
        "Connections that are refused take as long to go as they like, however many they are.",
        (
            Edit(
                "bucketfront.server.http1.listener:BoundedSite._admit",
                "connections.leaving < MAX_REJECTED_OPEN",
                "connections.leaving < connections.refused",
            ),
        ),
        (ACCEPTING + "test_a_crowd_that_stays",),
    ),
    Bug(
        22,
        "ranges-without-end",
        "A Range header may name any number of ranges.",
        (Edit("bucketfront.http.ranges:_range_set", " or len(found) == MAX_RANGES", ""),),
        ("tests/http/test_http_ranges.py::test_a_hundred_ranges_are_honoured_and_one_more_is_not",),
    ),
    Bug(
        22,
        "all-in-one-turn",
        "A client that takes everything at once is sent one stretch after the other without a pause.",
        (Edit("bucketfront.server.send.sendfile:FileSender._send_from_memory", "await asyncio.sleep(0)", "pass"),),
        (SERVER + "test_sendfile.py::test_a_stretch_a_turn",),
    ),
    Bug(
        23,
        "dots-removed",
        "Dot segments of a path are resolved.",
        (
            Edit(
                "bucketfront.keys:parse_target",
                "percent_decode(path.encode(",
                "percent_decode(__import__('posixpath').normpath(path).encode(",
            ),
        ),
        ("tests/test_keys.py::test_targets", SERVER + "test_routing.py::test_keys_round_trip"),
    ),
    Bug(
        23,
        "normalised",
        "Keys are normalised to composed characters.",
        (
            Edit(
                "bucketfront.keys:to_key",
                "return octets.decode('utf-8')",
                "return __import__('unicodedata').normalize('NFC', octets.decode('utf-8'))",
            ),
        ),
        ("tests/test_keys.py::test_normalisation_forms_are_different_keys",),
    ),
    Bug(
        24,
        "two-ranges",
        "Of two Range fields the first one counts.",
        (
            Edit(
                "bucketfront.server.http1.framing:check",
                "request.headers.getall(name, ())) > 1",
                "request.headers.getall(name, ())) > 2",
            ),
        ),
        (SERVER + "test_framing.py::test_refused",),
    ),
    Bug(
        24,
        "drained-without-end",
        "A body that nobody needs is read on, however much of it there is.",
        (
            Edit("bucketfront.server.http1.connection:Connection._is_drained", "> left", "> 1 << 60"),
            Edit("bucketfront.server.http1.connection:Connection._is_drained", "left >= 0 and ", ""),
        ),
        (SERVER + "test_framing.py::test_bodies_nobody_needs",),
    ),
    Bug(
        24,
        "decompressed",
        "An upload with Content-Encoding is stored decompressed.",
        (Edit("bucketfront.server.server:client_listener", "auto_decompress=False", "auto_decompress=True"),),
        (SERVER + "test_uploads.py::test_encoded_bodies_stay_as_sent",),
    ),
    Bug(
        25,
        "one-origin-for-all",
        "An entry of the index answers for its bucket and key at whatever endpoint.",
        (Edit("bucketfront.cache.storage.index:Index.load", "WHERE origin = ?", "WHERE (origin = ? OR 1)"),),
        (INDEX + "test_two_origins_share_nothing",),
    ),
    Bug(
        25,
        "all-of-s3s-headers",
        "Whatever header of S3's begins with x-amz- is stored and shown.",
        (
            Edit(
                "bucketfront.s3.responses:_object_headers",
                "name.startswith(USER_METADATA_PREFIX)",
                "name.startswith('x-amz-')",
            ),
        ),
        (ANSWERS + "test_headers_pass_by_allow_list",),
    ),
    Bug(
        26,
        "only-over-tls",
        "Over TLS a stretch that takes more than one piece has the bytes of the first one in all of them.",
        (
            Edit(
                "bucketfront.server.send.sender:Sender._send_enciphered",
                "_peeked(region, piece)",
                "_peeked(region, Span(turn.start, turn.start + piece.length))",
            ),
        ),
        (SERVER + "test_tls.py::test_get_over_tls",),
    ),
    Bug(
        26,
        "only-without-memory",
        "With no memory for small bodies the end of an answer is read from where the object begins.",
        (
            Edit(
                "bucketfront.server.fast_path.fast_connection:FastConnection._send_from_file",
                "page_cache.peek(fd, offset + response.start, length)",
                "page_cache.peek(fd, offset, length)",
            ),
        ),
        (SERVER + "test_fast_path.py::test_without_memory",),
    ),
    Bug(
        27,
        "answered-before-unlinked",
        "A purge is answered while the files are still being unlinked.",
        (
            Edit(
                "bucketfront.cache.upkeep.purge:Purge._remove",
                "await self._disposal.unlink(hit)",
                "for entry in hit:\n        self._disposal.unlink_later(entry)",
            ),
        ),
        (CACHE + "test_a_purge_is_complete_when_it_returns",),
    ),
    Bug(
        27,
        "open-to-all",
        "The admin port may listen beyond loopback without a token.",
        (
            Edit(
                "bucketfront.config.listener_settings:_is_loopback",
                "return ipaddress.ip_address(host).is_loopback",
                "return ipaddress.ip_address(host) is not None",
            ),
        ),
        ("tests/test_config.py::test_admin_beyond_loopback_needs_a_token",),
    ),
    Bug(
        27,
        "any-token",
        "The admin port takes a bearer token that only begins with the right one.",
        (
            Edit(
                "bucketfront.admin.api:AdminApplication._authorise",
                "hmac.compare_digest(given.encode(), ",
                "bytes.startswith(given.encode(), ",
            ),
        ),
        (SERVER + "test_admin.py::test_token",),
    ),
    Bug(
        28,
        "query-in-the-log",
        "The access log has the query, and so the signature, of a request.",
        (
            Edit(
                "bucketfront.server.telemetry.telemetry:Telemetry.finished",
                "request.raw_path.partition('?')[0]",
                "request.raw_path",
            ),
        ),
        (SERVER + "test_failures.py::test_log_has_one_sound_line_a_request",),
    ),
    Bug(
        28,
        "escape-in-a-line",
        "A path is written to the text log as it came.",
        (Edit("bucketfront.server.telemetry.access_log:_plain", "return ascii(text)[1:-1]", "return text"),),
        (SERVER + "test_telemetry.py::test_text_lines",),
    ),
    Bug(
        28,
        "secret-in-a-message",
        "A key that may be a secret is quoted in a message about the configuration.",
        (
            Edit(
                "bucketfront.config.problems:Problem.__str__",
                "_is_guarded(self.loc) and (not _is_plain_key(str(self.loc[-1])))",
                "not self.loc",
            ),
        ),
        ("tests/test_config.py::test_no_message_holds_a_secret",),
    ),
    Bug(
        29,
        "redirects-followed",
        "A redirect of the origin's is followed, credentials and all.",
        (Edit("bucketfront.s3.transport:_StrictSession.request", "allow_redirects=False", "allow_redirects=True"),),
        (FAULTS + "test_a_redirect_is_not_followed",),
    ),
    Bug(
        30,
        "unknown-key-passed-over",
        "A key of the configuration that nobody knows is passed over.",
        (
            Edit(
                "bucketfront.config.validation:validate",
                "Settings.model_validate(tree.data)",
                "Settings.model_validate(tree.data, extra='ignore')",
            ),
        ),
        ("tests/test_config.py::test_an_unknown_key_names_its_place_and_the_nearest_known_one",),
    ),
    Bug(
        30,
        "the-sdk-retries",
        "The SDK's own retries are on, below ours.",
        (Edit("bucketfront.s3.client:S3Origin._create_client", "'total_max_attempts': 1", "'total_max_attempts': 3"),),
        (FAULTS + "test_a_connection_closed_without_a_response",),
    ),
    Bug(
        31,
        "outage-window-ignored",
        "While S3 is out of reach, stale objects are answered no longer than after any other error.",
        (
            Edit(
                "bucketfront.cache.lookup_flow:_stale_window",
                "entry.freshness.outage if is_outage else entry.freshness.stale_if_error",
                "entry.freshness.stale_if_error",
            ),
        ),
        (SERVER + "test_outage.py::test_what_is_cached_is_served",),
    ),
    Bug(
        31,
        "outage-unknown",
        "A miss waits for an origin that is known to be out of reach.",
        (Edit("bucketfront.s3.breaker:Breaker.check", "raise self._refusal(left)", "pass"),),
        (SERVER + "test_outage.py::test_misses_fail_at_once",),
    ),
    Bug(
        31,
        "keys-beside-the-path",
        "The stages of the pipeline see the key of the path alone, and no key of a form or a document.",
        (Edit("bucketfront.server.router:Route.admitted", "self.admit(key)", "pass"),),
        (SERVER + "test_pipeline.py::test_keys_of_forms", SERVER + "test_pipeline.py::test_keys_of_delete_objects"),
    ),
)

NODES = tuple(dict.fromkeys(node for bug in BUGS for node in bug.nodes))
