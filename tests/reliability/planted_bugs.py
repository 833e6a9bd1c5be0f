"""The planted bugs, at least one for each invariant, and the tests that must fail with each of them.

A bug is described as an edit of the source, see `planting`. If an edit no longer fits the source, the test of that bug
fails until its description is updated.
"""

from dataclasses import dataclass

from planting import Edit


@dataclass(frozen=True, slots=True)
class Bug:
    """One planted bug. `what` is its text in docs/reliability.md, `nodes` are a few quick tests that must fail."""

    invariant: int
    name: str
    what: str
    edits: tuple[Edit, ...]
    nodes: tuple[str, ...]


ARCHIVES = "tests/server/test_archives.py::"
ACCEPTING = "tests/server/test_accepting.py::"
CACHE = "tests/cache/test_cache_cache.py::"
CLOCK = "tests/cache/test_cache_clock.py::"
ENTRIES = "tests/cache/test_cache_entries.py::"
FILL = "tests/cache/test_cache_fill.py::"
INDEX = "tests/cache/test_cache_index.py::"
INTEGRITY = "tests/cache/test_cache_integrity.py::"
PROBATION = "tests/cache/test_cache_probation.py::"
PURGE = "tests/cache/test_cache_purge.py::"
DISCARDS = "tests/cache/test_cache_discard_queue.py::"
PURGE_TAGS = "tests/cache/test_cache_purge_tags.py::"
RECOVERY = "tests/cache/test_cache_recovery.py::"
SOURCE = "tests/cache/test_cache_body_stream.py::"
SWAPPED = "tests/cache/test_cache_swapped_files.py::"
STORE = "tests/cache/test_cache_file_storage.py::"
VIEWS = "tests/cache/test_cache_views.py::"
VERIFICATION = "tests/cache/test_cache_verification.py::"
AGREEMENT = "tests/s3/test_s3_agreement.py::"
CONDITIONS = "tests/s3/test_s3_conditions.py::"
COMPLETION = "tests/s3/test_s3_completion.py::"
ANSWERS = "tests/s3/test_s3_responses.py::"
FAULTS = "tests/s3/test_s3_faults.py::"
FORWARDED = "tests/s3/test_s3_forward_faults.py::"
SERVER = "tests/server/"
ENDPOINT = SERVER + "test_endpoint.py::"
RELOAD = SERVER + "test_reload.py::"
FRONT_ENDS = SERVER + "test_front_ends.py::"
S3_HOSTILE = SERVER + "test_s3_hostile.py::"
HEADS = "tests/http/test_s3_hostile_heads.py::"
PASSTHROUGH = SERVER + "test_s3_passthrough.py::"
FAIR_SHARES = SERVER + "test_fair_shares.py::"

WARM = SERVER + "test_warm.py::"
EVENTS = "tests/s3_events/test_event_applier.py::"
READER = "tests/s3_events/test_queue_reader.py::"
DOCUMENTS = "tests/warm/test_warm_documents.py::"
FLEET = "tests/fleet/test_fleet.py::"
BOUND = "tests/cache/test_cache_freshness_bound.py::"
ANNOUNCEMENTS = "tests/cache/test_cache_announcements.py::"

BUGS = (
    Bug(
        5,
        "a-write-is-not-announced",
        "Other nodes do not learn of a write.",
        (Edit("bucketfront.cache.cache:Cache.invalidate", "announces=announces", "announces=False"),),
        (FLEET + "test_a_write_reaches_all_nodes",),
    ),
    Bug(
        5,
        "a-debt-is-forgotten",
        "A node that was killed with unsent notices says nothing when it is back.",
        (Edit("bucketfront.fleet.fleet:Fleet.start", "if self._state.is_indebted:", "if False:"),),
        (FLEET + "test_what_a_killed_node_has_not_sent_makes_all_stale",),
    ),
    Bug(
        6,
        "an-applied-notice-is-announced",
        "What comes from another node is announced again.",
        (Edit("bucketfront.cache.cache:Cache.apply", "announces=False", "announces=True"),),
        (ANNOUNCEMENTS + "test_what_is_applied_is_not_announced_again", FLEET + "test_no_notice_goes_round"),
    ),
    Bug(
        7,
        "a-gap-is-not-noticed",
        "A node reads on although entries that it has not read are gone.",
        (
            Edit(
                "bucketfront.fleet.follower:continues",
                "return behind == len(batch.entries) if batch.is_last else behind > len(batch.entries)",
                "return True",
            ),
        ),
        (FLEET + "test_a_node_that_was_away_for_too_long_takes_all_for_stale",),
    ),
    Bug(
        7,
        "an-old-dump-is-not-noticed",
        "A node does not notice that the stream ends before its position.",
        (
            Edit(
                "bucketfront.fleet.follower:continues",
                "behind = batch.end.added - position.added",
                "behind = max(0, batch.end.added - position.added)",
            ),
            Edit("bucketfront.fleet.follower:continues", "if batch.end.at < position.at:", "if False:"),
        ),
        (FLEET + "test_a_stream_that_lost_entries_makes_all_stale",),
    ),
    Bug(
        7,
        "a-lost-bus-does-not-end-freshness",
        "Objects stay fresh for their whole lifetime although changes elsewhere are unknown.",
        (
            Edit(
                "bucketfront.cache.entries.freshness_bound:FreshnessBound.ttl",
                "(fresh_until if bound > now else min(fresh_until, bound))",
                "fresh_until",
            ),
        ),
        (
            FLEET + "test_a_node_without_the_bus_serves_for_the_shorter_time",
            BOUND + "test_a_lease_ends_by_itself",
        ),
    ),
    Bug(
        7,
        "an-unreadable-notice-is-skipped",
        "A notice that a node cannot read changes nothing there.",
        (Edit("bucketfront.fleet.follower:Follower._notice", "return Signal.EVERYTHING_STALE", "return None"),),
        (FLEET + "test_a_notice_that_cannot_be_read_makes_all_stale",),
    ),
    Bug(
        7,
        "a-lost-position-is-not-noticed",
        "A node that does not know how far it has read goes on at the end of the bus, and keeps what it has as fresh.",
        (
            Edit(
                "bucketfront.fleet.follower:Follower._begin_anew",
                "self._must_expire = True",
                "self._must_expire = self.figures.gaps > 0",
            ),
        ),
        (FLEET + "test_a_damaged_node_file_makes_all_stale",),
    ),
    Bug(
        6,
        "a-purge-waits-for-no-node",
        "A purge with `wait` has its response before the other nodes have applied it.",
        (
            Edit(
                "bucketfront.fleet.fleet:Fleet.acknowledged",
                "member.at >= barrier for member in awaited.values()",
                "True for member in awaited.values()",
            ),
        ),
        (FLEET + "test_all_live_nodes_acknowledge",),
    ),
    Bug(
        36,
        "a-node-that-hangs-has-acknowledged",
        "A purge with `wait` names a node that does nothing among those that have applied it.",
        (
            Edit(
                "bucketfront.fleet.fleet:Fleet.acknowledged",
                "for member in members if member.at >= barrier",
                "for member in members",
            ),
        ),
        (FLEET + "test_a_node_that_does_not_acknowledge_is_named",),
    ),
    Bug(
        36,
        "front-ends-have-no-bound",
        "The leases of front ends do not end while the owner hears of no changes.",
        (Edit("bucketfront.front_end.lease_table:LeaseTable.in_step", "self._bound.grace = facts['grace']", "pass"),),
        (
            "tests/front_end/test_lease_table.py::test_leases_end_by_themselves_while_the_owner_does_not_move_their_bound",
        ),
    ),
    Bug(
        22,
        "a-long-message-holds-the-event-loop",
        "A message of thousands of events of S3 is parsed in one turn of the event loop.",
        (Edit("bucketfront.s3_events.message_reader:read_message", "len(body) <= MAX_INLINE", "True"),),
        ("tests/s3_events/test_message_reader.py::test_a_long_message_is_parsed_in_a_thread",),
    ),
    Bug(
        34,
        "a-refresh-fetches-what-is-not-read",
        "An object that changes often and is not read any more is fetched after each event of S3.",
        (Edit("bucketfront.warm.refresher:Refresher.note", "held is None or not held.is_read", "held is None"),),
        (SERVER + "test_refresh.py::test_an_object_that_is_read_no_more_is_fetched_once",),
    ),
    Bug(
        7,
        "an-event-spares-by-etag-alone",
        "An object that was copied onto itself keeps its old metadata, although an event of S3 reports the copy.",
        (Edit("bucketfront.cache.upkeep.spared_version:WrittenVersion.spares", "modified >= floor(self.at)", "True"),),
        (EVENTS + "test_a_copy_onto_itself_is_another_version",),
    ),
    Bug(
        7,
        "the-end-of-an-old-version-hides-a-write",
        "After the event of a deleted version, the event of an earlier write of the same key counts as outdated.",
        (
            Edit(
                "bucketfront.s3_events.event_order:EventOrder.note",
                "event.kind not in _OF_CURRENT",
                "False",
            ),
        ),
        (EVENTS + "test_the_end_of_a_version_hides_no_earlier_write",),
    ),
    Bug(
        7,
        "events-are-deleted-before-they-are-applied",
        "A message of the queue is deleted before its events are applied, so that a kill loses it.",
        (
            Edit(
                "bucketfront.s3_events.queue_reader:QueueReader._step",
                "await self._keep_continuity(messages)",
                "await self._delete(messages); await self._keep_continuity(messages)",
            ),
        ),
        (READER + "test_a_reader_that_is_killed_in_a_batch",),
    ),
    Bug(
        7,
        "lost-events-are-forgotten",
        "After an absence that was longer than the queue keeps messages, the cache is trusted as before.",
        (Edit("bucketfront.s3_events.continuity:Continuity.loss", "now - before > self.bound", "False"),),
        (READER + "test_an_absence",),
    ),
    Bug(
        27,
        "the-operators-token-opens-the-webhook",
        "The webhook takes the token of the admin port in place of its own.",
        (
            Edit(
                "bucketfront.admin.api:AdminApplication._check_token",
                "self._webhook.judge(authorization)",
                "self._token.judge(authorization)",
            ),
        ),
        (SERVER + "test_s3_events.py::test_who_may_post",),
    ),
    Bug(
        21,
        "each-process-has-the-whole-limit",
        "Each front end has as many connections as all of them may have together.",
        (
            Edit(
                "bucketfront.server.http1.connection_limit:ConnectionLimit._has_place",
                "self.tally is None",
                "True",
            ),
        ),
        (SERVER + "test_connection_limit.py::test_processes_share_a_limit[0]",),
    ),
    Bug(
        36,
        "purge-awaits-no-front-end",
        "The response to a purge does not wait for the front ends, so that one of them may still serve the object.",
        (
            Edit(
                "bucketfront.front_end.lease_grants:LeaseGrants._is_due",
                "next(iter(holder.unacknowledged), upto + 1) <= upto",
                "False",
            ),
        ),
        (FRONT_ENDS + "test_a_stopped_front_end_holds_no_purge",),
    ),
    Bug(
        36,
        "lease-outlives-a-write",
        "No front end learns that a lease has ended, so that it serves the version before a write.",
        (Edit("bucketfront.cache.cache:Cache.lend", "lease.on_revoke = end", "lease.on_revoke = None"),),
        (FRONT_ENDS + "test_no_response_is_stale_after_a_change[put]",),
    ),
    Bug(
        5,
        "archive-unconfirmed",
        "An import stores the bytes of an archive although S3 has another version by now.",
        (
            Edit(
                "bucketfront.cache.adoption:Adopter._refusal",
                "not (current.is_strong and current.has_second_validator and current.is_version(claimed))",
                "False",
            ),
        ),
        (ARCHIVES + "test_a_write_before_the_import",),
    ),
    Bug(
        1,
        "archive-as-evidence",
        "Bytes of an archive that S3's checksum contradicts count as evidence, and are served the second time.",
        (
            Edit(
                "bucketfront.cache.fetch.integrity:Comparison.check",
                "is_evidence=not entry.has_supplied",
                "is_evidence=True",
            ),
        ),
        (ARCHIVES + "test_bytes_of_another_object",),
    ),
    Bug(
        34,
        "warm-job-evicts",
        "A warm job goes on in a full cache, and each object displaces one that it has brought.",
        (
            Edit(
                "bucketfront.warm.allowance:Allowance.take",
                "cost > free - self._promised - self._spare and self.held + cost > self._replaceable",
                "False",
            ),
        ),
        (WARM + "test_the_hot_set_stays",),
    ),
    Bug(
        34,
        "warm-job-without-share",
        "A warm job works for no client, so it has no share and takes all connections.",
        (Edit("bucketfront.warm.job:Job.run", "acting_for(WARM_CLIENT)", "acting_for(None)"),),
        (WARM + "test_clients_come_first",),
    ),
    Bug(
        29,
        "playlist-leads-outside",
        "An absolute URL in a playlist is taken for a path of this proxy, whatever its host is.",
        (
            Edit(
                "bucketfront.warm.following:_resolved",
                "(parts.scheme in ('http', 'https') and host in hosts)",
                "host",
            ),
        ),
        (DOCUMENTS + "test_references_that_lead_outside",),
    ),
    Bug(
        19,
        "document-without-bound",
        "A playlist gives a warm job as many objects as it names.",
        (Edit("bucketfront.warm.following:follow", "islice(found, MAX_LINKS)", "found"),),
        (DOCUMENTS + "test_a_document_with_too_many_references",),
    ),
    Bug(
        7,
        "stale-counts-as-fresh",
        "A warm job skips an object whose time to live is over.",
        (Edit("bucketfront.cache.cache:Cache.present", "entry.ttl(self._clock()) > 0", "True"),),
        (WARM + "test_a_stale_object",),
    ),
    Bug(
        6,
        "purged-tag-comes-back",
        "A lookup that began before a purge of its object's tag is published after it.",
        (
            Edit(
                "bucketfront.cache.fetch.single_flight:Lookups.check_tags",
                "self._purged_tags.has_purged(tags(), lookup.began_at)",
                "False",
            ),
        ),
        (PURGE_TAGS + "test_a_lookup_that_brings_a_purged_tag",),
    ),
    Bug(
        6,
        "joined-before-the-purge",
        "A request after a purge by tag joins a lookup that began before it, and gets what was purged.",
        (
            Edit(
                "bucketfront.cache.fetch.single_flight:Lookups.join_or_start",
                "lookup.is_outdated and joined_at > lookup.began_at",
                "False",
            ),
        ),
        (PURGE_TAGS + "test_a_request_that_joins_after_the_purge",),
    ),
    Bug(
        27,
        "tags-in-memory",
        "A purge by tag misses entries in memory that the index does not have yet.",
        (
            Edit(
                "bucketfront.cache.upkeep.purge:_Run._hot",
                "self._selection.has(key) or self._is_tagged(entry)",
                "self._selection.has(key)",
            ),
        ),
        (PURGE_TAGS + "test_objects_with_a_tag",),
    ),
    Bug(
        27,
        "nested-mount",
        "A purge by prefix misses the mounts below it that show other buckets.",
        (Edit("bucketfront.admin.purge_paths:PurgePaths._reached", "path.startswith(head)", "path == head"),),
        (SERVER + "test_purges.py::test_what_each_selection_has",),
    ),
    Bug(
        27,
        "counted-twice",
        "A soft purge counts an entry in memory, and its row in the index as well.",
        (Edit("bucketfront.cache.upkeep.purge:_Run._handle_rows", "row.id not in self._in_memory", "True"),),
        (PURGE + "test_each_object_counts_once",),
    ),
    Bug(
        27,
        "soft-purge-of-a-row",
        "A soft purge of an entry on disk is forgotten if the index cannot take it.",
        (Edit("bucketfront.cache.entries.entry_table:EntryTable.find", "entry.id in self._pending.expired", "False"),),
        (PURGE + "test_a_soft_purge_that_the_index_refuses",),
    ),
    Bug(
        29,
        "proxy-of-the-environment",
        "An HTTP proxy that the environment names gets all requests to S3.",
        (
            Edit(
                "bucketfront.s3.sdk_client:SdkClient._create_client",
                "None if settings.environment_proxy else {}",
                "None",
            ),
        ),
        ("tests/s3/test_s3_environment_proxy.py",),
    ),
    Bug(
        1,
        "prepared-folder",
        "The cache opens a folder into which other users may put files, and serves those.",
        (Edit("bucketfront.cache.storage.folder:refuse_foreign", "found.st_mode & _WRITABLE_BY_OTHERS", "False"),),
        ("tests/cache/test_cache_file_storage.py::test_a_folder_that_others_may_write_to",),
    ),
    Bug(
        1,
        "etag-of-a-part",
        "The ETag of a part is not compared with the entry's, so one file gets blocks of two versions.",
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
        "A 206 is taken as the requested range, whatever its Content-Range is.",
        (Edit("bucketfront.s3.responses:_is_requested", "return span == part.within(total)", "return True"),),
        (ANSWERS + "test_contradictory_heads_are_refused",),
    ),
    Bug(
        1,
        "two-codings",
        "Responses with one ETag are of one version, even if only one of them has a Content-Encoding.",
        (
            Edit(
                "bucketfront.http.metadata:Metadata.is_version",
                " or self.coding != other.coding",
                "",
            ),
        ),
        (SERVER + "test_codings.py::test_two_codings_never_mix",),
    ),
    Bug(
        25,
        "head-accepts-another-coding",
        "HEAD has another Accept-Encoding than GET.",
        (
            Edit(
                "bucketfront.s3.object_reads:ObjectReads._read",
                "accept_encoding.set(self._codings.of(key))",
                "accept_encoding.set('identity' if what.startswith('HEAD') else self._codings.of(key))",
            ),
        ),
        (SERVER + "test_codings.py::test_a_named_coding_is_cached",),
    ),
    Bug(
        1,
        "part-with-200",
        "A 200 with Content-Range is taken for the whole object.",
        (
            Edit(
                "bucketfront.s3.responses:_check_no_content_range",
                "'content-range' in headers",
                "'x-content-range' in headers",
            ),
        ),
        (ANSWERS + "test_a_200_with_content_range_is_refused",),
    ),
    Bug(
        22,
        "wave-in-one-turn",
        "All events of a wave of requests come to the event loop in one turn.",
        (
            Edit(
                "bucketfront.server.http1.event_loop:InlineSelector.select",
                "else MAX_EVENTS_ALONE",
                "else len(waiting)",
            ),
        ),
        (SERVER + "test_event_loop.py::test_a_wave_comes_in_turns",),
    ),
    Bug(
        1,
        "buffer-in-use",
        "A buffer is received into while another body's bytes in it wait for the disk.",
        (Edit("bucketfront.s3.body_receiver:_has_views", "return True", "return False"),),
        ("tests/s3/test_s3_body_receiver.py::test_a_buffer_is_used_again_only_without_views",),
    ),
    Bug(
        3,
        "longer-than-declared",
        "The bytes of a chunked body beyond the range in its head are left unread, so a wrong body counts as whole.",
        (Edit("bucketfront.s3.body:S3Body._read", "not self._shows_end", "False"),),
        (FAULTS + "test_a_chunk_beyond_the_range",),
    ),
    Bug(
        13,
        "head-of-a-part",
        "A 206 to HEAD is taken for the object.",
        (Edit("bucketfront.s3.responses:size_sent", "status != 200", "status > 299"),),
        (ANSWERS + "test_only_a_200_describes_an_object_to_head",),
    ),
    Bug(
        9,
        "accepted-is-done",
        "A 202 to a write is told as a success.",
        (Edit("bucketfront.s3.responses:check_done", "status not in _DONE", "status < 200"),),
        (ANSWERS + "test_what_a_write_may_respond",),
    ),
    Bug(
        1,
        "version-id-ignored",
        "A request by version id accepts a response of any version.",
        (Edit("bucketfront.s3.responses:_version", "sent != requested", "not sent"),),
        (ANSWERS + "test_another_version_than_requested",),
    ),
    Bug(
        1,
        "completed-by-key",
        "After a version is replaced, its missing bytes are requested by key alone, so its responses are cut.",
        (Edit("bucketfront.cache.fetch.version:Version._get_past", "key._replace(version=version)", "key"),),
        (SERVER + "test_version_change.py::test_in_a_bucket_that_keeps_versions",),
    ),
    Bug(
        2,
        "beyond-the-mark",
        "A reader may read up to the end of a running write, not only up to the end of the last finished one.",
        (
            Edit("bucketfront.cache.fetch.fill:Fill._reaches", "fetch.mark <= at", "fetch.writing_to <= at"),
            Edit("bucketfront.cache.fetch.fill:Fill._reaches", "at = fetch.mark", "at = fetch.writing_to"),
        ),
        (FILL + "test_nothing_is_readable_beyond_the_mark",),
    ),
    Bug(
        2,
        "bit-before-the-write",
        "A block's bit is set when its write begins.",
        (
            Edit(
                "bucketfront.cache.fetch.part_transfer:PartTransfer._write",
                "fetch.writing_to = end\n",
                "fetch.writing_to = end\n"
                "    whole = range(touched.start, blocks.whole_below(end, entry.metadata.size, size))\n"
                "    context.entries.commit(entry, whole.start, [fetch.checksum] * len(whole))\n",
            ),
        ),
        (FILL + "test_nothing_is_readable_beyond_the_mark", FILL + "test_a_disk_that_fails_during_a_fill"),
    ),
    Bug(
        2,
        "last-byte-of-a-block",
        "A block counts as complete while its last byte is missing.",
        (
            Edit(
                "bucketfront.cache.fetch.part_transfer:PartTransfer._write",
                "blocks.whole_below(end,",
                "blocks.whole_below(min(end + 1, entry.metadata.size),",
            ),
        ),
        (FILL + "test_any_chunk_size_gives_the_bytes_once",),
    ),
    Bug(
        2,
        "short-write",
        "A `pwrite` that writes less than it was given counts as a write of all of it.",
        (Edit("bucketfront.cache.storage.file_storage:_write", "view = view[written:]", "view = view[len(view):]"),),
        (STORE + "test_a_write_is_repeated_until_all_of_it_is_there",),
    ),
    Bug(
        2,
        "blocks-of-another-size",
        "An index with smaller blocks is still used after `block_size` has grown.",
        (
            Edit(
                "bucketfront.cache.storage.index_database:IndexDatabase._connect",
                "!= self._block_size:",
                "> self._block_size:",
            ),
        ),
        (INDEX + "test_other_blocks_begin_anew",),
    ),
    Bug(
        2,
        "not-durable",
        "In durable mode, the index is written before the data that it claims is synced.",
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
        "`sendfile` returning 0 counts as the end of the response.",
        (
            Edit(
                "bucketfront.server.send.sendfile:SendfileStep.send",
                "if not sent:\n        raise EOFError(f'the cached file ended {self.stop - self.at} bytes early')",
                "if not sent:\n        sent = self.stop - self.at",
            ),
        ),
        (SERVER + "test_sendfile.py::test_the_file_ends_early",),
    ),
    Bug(
        3,
        "body-that-ends-early",
        "An origin body that ends before its Content-Length counts as complete.",
        (
            Edit(
                "bucketfront.s3.body:S3Body._receive",
                "raise BodyTruncated(f'{self._what}: the body broke off {missing}') from error",
                "return b''",
            ),
            Edit("bucketfront.s3.body:S3Body._next", "if not data:", "if data is None:"),
        ),
        (FAULTS + "test_a_body_cut_early",),
    ),
    Bug(
        3,
        "padded-to-its-length",
        "A response whose bytes cannot be fetched is filled up with zeros.",
        (
            Edit(
                "bucketfront.server.send.sender:Sender.send",
                "abort(outlet)",
                "await self._write(outlet, body, bytes(self._length - self.sent))\n        return",
            ),
        ),
        (SERVER + "test_failures.py::test_cut_for_good_cuts_the_answer",),
    ),
    Bug(
        4,
        "metadata-of-two-answers",
        "A 304 with a new Last-Modified refreshes the metadata of the old version.",
        (
            Edit(
                "bucketfront.http.metadata:Metadata.renewed",
                "last_modified not in (None, self.last_modified)",
                "age is None",
            ),
        ),
        (SERVER + "test_representation.py::test_metadata_that_changed_under_the_same_etag",),
    ),
    Bug(
        4,
        "304-renews-nothing",
        "A 304 keeps the stored Cache-Control and Expires, whatever it says itself.",
        (Edit("bucketfront.http.metadata:Metadata.renewed", "sent = {", "headers = ()\n    sent = {"),),
        (SERVER + "test_object_fields.py::test_a_304_renews_the_lifetime",),
    ),
    Bug(
        4,
        "one-coding",
        "Octets that are not UTF-8 are left out of a header field.",
        (
            Edit(
                "bucketfront.server.http1.aiohttp_private:_with_octets",
                "if all(map(is_text, headers.values())):",
                "if headers:",
            ),
        ),
        (SERVER + "test_object_fields.py::test_octets_pass_in_a_304",),
    ),
    Bug(
        5,
        "remembered-404",
        "A write leaves its key in the negative cache.",
        (Edit("bucketfront.cache.upkeep.purge:Purge.void", "self._negative_cache.forget(key)", "pass"),),
        (CACHE + "test_a_purge_forgets_a_404",),
    ),
    Bug(
        5,
        "writes-side-by-side",
        "A write does not wait for an earlier one of its key, so that S3 may end with the earlier.",
        (
            Edit(
                "bucketfront.server.object_writer:ObjectWriter.change",
                "partial(self._begin, place)",
                "partial(self.invalidate, *keys)",
            ),
        ),
        (SERVER + "test_write_order.py::test_the_later_write_prevails",),
    ),
    Bug(
        5,
        "resumable-without-a-turn",
        "The completion of a resumable upload waits for no write of its key that is at S3.",
        (Edit("bucketfront.tus.s3_transfer:S3Transfer._complete", "await about_to_write()", "pass"),),
        (SERVER + "test_write_order.py::test_a_resumable_upload_has_its_place[False]",),
    ),
    Bug(
        5,
        "resumable-without-a-place",
        "A resumable upload takes its place after its last part, so a write that came later is overtaken.",
        (
            Edit(
                "bucketfront.tus.s3_transfer:S3Transfer.finish",
                "written = await self._complete(upload)",
                "await self.send_part(upload)\n            written = await self._complete(upload)",
            ),
        ),
        (SERVER + "test_write_order.py::test_a_resumable_upload_has_its_place[True]",),
    ),
    Bug(
        34,
        "slow-body-holds-its-key",
        "A slow upload that passes through to S3 holds up other writes of its key for a minute.",
        (
            Edit(
                "bucketfront.server.write_order:WriteOrder.before",
                "(other.is_writing or is_earlier) and other.has_arrived()",
                "other.is_writing or (is_earlier and other.has_arrived())",
            ),
        ),
        (SERVER + "test_write_order.py::test_a_write_that_goes_on_while_its_body_arrives",),
    ),
    Bug(
        23,
        "siblings-for-clients-of-s3",
        "A client of S3 gets the sibling or the fallback page of a site in place of the object that its path names.",
        (Edit("bucketfront.server.selection:candidates", "version is not None or dialect is Dialect.S3", "version"),),
        (SERVER + "test_s3_requests.py::test_a_client_of_s3_gets_no_sibling",),
    ),
    Bug(
        26,
        "fast-path-without-dialects",
        "The fast path serves the hits of a site to clients of S3, which the ordinary path refuses.",
        (
            Edit(
                "bucketfront.server.pipeline:build_pipeline",
                "s3_requests.DIALECT_FIELDS if selects else frozenset()",
                "frozenset()",
            ),
            Edit(
                "bucketfront.server.fast_path.prepared:PreparedResponses.__init__",
                "pipeline.reads >= s3_requests.DIALECT_FIELDS",
                "True",
            ),
        ),
        (SERVER + "test_s3_requests.py::test_the_root_of_a_site_is_a_bucket",),
    ),
    Bug(
        24,
        "stored-framing",
        "The checksums behind an aws-chunked body, and its end, are not verified.",
        (
            Edit(
                "bucketfront.server.receive.request_body:_unframed",
                "trailing = decoder.close()",
                "trailing = ()",
            ),
        ),
        (SERVER + "test_aws_chunked.py::test_a_wrong_body_is_not_stored[headers2-body2]",),
    ),
    Bug(
        5,
        "forgotten-before-only",
        "A write invalidates its key before the request to S3, but not after the response.",
        (
            Edit(
                "bucketfront.server.object_writer:ObjectWriter.change",
                "await asyncio.shield(self.invalidate(*keys))",
                "pass",
            ),
        ),
        (SERVER + "test_tee.py::test_a_read_during_a_write_that_is_not_published",),
    ),
    Bug(
        6,
        "mark-ignored",
        "A lookup result is kept although a write came after the lookup began.",
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
        "Age counts from the origin's response, not from the request.",
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
        "A stale entry is served during revalidation, however stale it is.",
        (
            Edit(
                "bucketfront.cache.entries.decision:decide",
                "-ttl < entry.freshness.stale_while_revalidate",
                "entry.freshness.stale_while_revalidate",
            ),
        ),
        (CACHE + "test_beyond_the_window_a_request_waits",),
    ),
    Bug(
        7,
        "backwards",
        "A version is still served after a part fetch found it replaced, and after clients got the new one.",
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
        "The cache's clock starts at the wall clock, although the last run ended at a later time.",
        (Edit("bucketfront.cache.clock:CacheClock.__init__", "max(now, newest)", "now"),),
        (CLOCK + "test_set_back_between_two_runs",),
    ),
    Bug(
        8,
        "cut-at-the-limit",
        "A body that exceeds the size limit is stored up to the limit.",
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
        "If a client leaves in the middle of a multipart upload, the parts stay at S3.",
        (Edit("bucketfront.s3.upload.uploader:S3Uploader._multipart", "except BaseException:", "except Exception:"),),
        (SERVER + "test_uploads.py::test_client_that_leaves_half_way",),
    ),
    Bug(
        8,
        "copy-is-a-write",
        "The S3 header that makes a write a copy is ignored, so the object becomes empty.",
        (Edit("bucketfront.http.write_head:parse_framed", "_refuse_unknown(given)", "pass"),),
        (SERVER + "test_uploads.py::test_what_is_not_implemented_is_not_passed_over",),
    ),
    Bug(
        8,
        "hole-in-what-waits",
        "The staging file of a resumable upload is recreated halfway, so the object has zeros there.",
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
        "half-closed-gets-nothing",
        "A client that has closed its sending side gets no response.",
        (
            Edit(
                "bucketfront.server.http1.connection:Connection._end_receiving",
                "return is_owed and self.transport is not None and self.transport.can_write_eof()",
                "return False",
            ),
        ),
        (SERVER + "test_half_close.py::test_write_of_a_client_that_is_done",),
    ),
    Bug(
        8,
        "carried-out-only-with-a-client",
        "A write whose body arrived whole is cancelled because its client closed or reset the connection.",
        (
            Edit(
                "bucketfront.server.http1.connection:_is_whole_write",
                "return method in _WRITES and body.is_eof()",
                "return False",
            ),
        ),
        (SERVER + "test_half_close.py::test_write_of_a_client_that_is_gone",),
    ),
    Bug(
        8,
        "end-within-a-body",
        "An end within a body counts as an end behind it, so the unfinished request is handled.",
        (
            Edit(
                "bucketfront.server.http1.receiver:Receiver.meaning_of_end",
                "self._state in _IN_BODY",
                "False",
            ),
        ),
        (
            SERVER + "test_receiver.py::test_what_an_end_means",
            SERVER + "test_half_close.py::test_end_within_a_body_behind_others",
        ),
    ),
    Bug(
        8,
        "head-timer-in-a-body",
        "Body bytes that arrive before the handler runs start the timer for a request head.",
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
        "A write whose outcome is unknown does not invalidate its key a second time.",
        (
            Edit(
                "bucketfront.server.object_writer:ObjectWriter.change",
                "yield partial(self._begin, place)\n        finally:",
                "yield partial(self._begin, place)\n        except BaseException:\n            raise\n        else:",
            ),
        ),
        (SERVER + "test_write_races.py::test_write_whose_outcome_is_unknown",),
    ),
    Bug(
        9,
        "forgotten-after-only",
        "A write does not invalidate its key before the request to S3, so a kill leaves the old version cached.",
        (
            Edit(
                "bucketfront.server.object_writer:ObjectWriter.change",
                "partial(self._begin, place)",
                "place.turn",
            ),
        ),
        (SERVER + "test_tee.py::test_the_old_version_is_gone_before_s3_is_asked",),
    ),
    Bug(
        9,
        "resumable-forgotten-before-only",
        "A resumable upload invalidates its key before its completion at S3, but not after it.",
        (
            Edit(
                "bucketfront.server.object_writer:ObjectWriter.change",
                "await asyncio.shield(self.invalidate(*keys))",
                "pass",
            ),
        ),
        (SERVER + "test_resumable.py::test_read_while_it_ends",),
    ),
    Bug(
        8,
        "any-etag-agrees",
        "The ETag in S3's response to a body is not compared with the bytes that were sent.",
        (
            Edit(
                "bucketfront.s3.upload.agreement:agreement",
                "shown = Agreement.PROVEN if found == sent.md5 else Agreement.DIFFERENT",
                "shown = Agreement.PROVEN",
            ),
        ),
        (AGREEMENT + "test_other_bytes_are_no_success",),
    ),
    Bug(
        8,
        "the-size-is-not-compared",
        "Behind an ETag that is no MD5, an object of another size counts as the one that was sent.",
        (
            Edit(
                "bucketfront.s3.upload.agreement:_check_version",
                "found.size != expected.size and (not is_later)",
                "False",
            ),
        ),
        (AGREEMENT + "test_etags_of_another_form",),
    ),
    Bug(
        8,
        "conditions-are-trusted",
        "A condition of a write is sent to S3 without asking whether S3 keeps it, so an object is overwritten.",
        (
            Edit(
                "bucketfront.s3.upload.conditions:require",
                "not await _keeps(origin, key, step, condition)",
                "False",
            ),
        ),
        (CONDITIONS + "test_a_condition_is_kept_or_refused",),
    ),
    Bug(
        8,
        "conditions-of-completions-are-trusted",
        "A server that keeps the conditions of PutObject counts as one that keeps those of CompleteMultipartUpload.",
        (
            Edit(
                "bucketfront.s3.upload.uploader:S3Uploader._multipart",
                "await conditions.require(self._origin, key, head, WriteStep.COMPLETE)",
                "pass",
            ),
        ),
        (CONDITIONS + "test_a_completion_is_asked_by_itself",),
    ),
    Bug(
        9,
        "any-object-proves-the-upload",
        "After a lost response to a completion, any object of that size counts as the one that the upload made.",
        (
            Edit(
                "bucketfront.s3.upload.expected_object:ExpectedObject.is_proven_by",
                "return was_accepted and is_newer",
                "return True",
            ),
        ),
        (COMPLETION + "test_a_condition_that_our_own_object_breaks",),
    ),
    Bug(
        9,
        "older-bytes-prove-the-upload",
        "After failed completions, an older object with the same bytes counts as the upload's, under other headers.",
        (
            Edit(
                "bucketfront.s3.upload.expected_object:ExpectedObject.is_proven_by",
                "return was_accepted or is_newer or (not self._is_conditional and self._has_headers_of(found))",
                "return True",
            ),
        ),
        (COMPLETION + "test_the_same_bytes_of_an_older_write",),
    ),
    Bug(
        10,
        "claims-ignored",
        "A second part fetch starts for blocks that are being fetched already.",
        (Edit("bucketfront.cache.fetch.fill:Fill._claims", "claimed |= ", "claimed & "),),
        (FILL + "test_many_readers_share_each_block",),
    ),
    Bug(
        10,
        "a-promise-may-be-dropped",
        "A range with an end gets the small parts of one that may be dropped at any time.",
        (
            Edit(
                "bucketfront.cache.fetch.read_ahead:ReadAhead.is_eager",
                "demand is Demand.WHOLE or span.stop < size",
                "demand is Demand.WHOLE",
            ),
        ),
        (FILL + "test_a_range_with_an_end_takes_whole_parts",),
    ),
    Bug(
        10,
        "each-range-alone",
        "A part ends with the range that it was started for, although ranges of the same download follow.",
        (
            Edit(
                "bucketfront.cache.fetch.part_choice:wanted_parts",
                "max(ahead.stop, cursor.ahead_of_walk.stop)",
                "ahead.stop",
            ),
        ),
        (FILL + "test_ranges_of_one_turn_are_planned_in_order", FILL + "test_a_download_in_ranges_side_by_side"),
    ),
    Bug(
        10,
        "download-splits-itself",
        "A range of a download splits the part of its neighbour, so that the origin sends bytes twice.",
        (Edit("bucketfront.cache.fetch.fill:Fill._split_for", "and fetch.cursor.is_parallel", "and False"),),
        (FILL + "test_a_range_within_a_download_does_not_split_it",),
    ),
    Bug(
        10,
        "each-neighbour-is-a-download",
        "A player's range without an end counts as a download if a short range before it is still being read.",
        (
            Edit(
                "bucketfront.cache.fetch.read_ahead:ReadAhead.is_last",
                "open_range.length <= LAST_RANGES * neighbour.length",
                "True",
            ),
        ),
        (FILL + "test_an_open_range_behind_a_short_one_is_no_download",),
    ),
    Bug(
        10,
        "lookups-side-by-side",
        "Each request that misses starts a lookup of its own.",
        (
            Edit(
                "bucketfront.cache.fetch.single_flight:Lookups.join_or_start",
                "lookup = self._shared.get(key)",
                "return await self.run_private(key, run, stale)",
            ),
        ),
        (CACHE + "test_a_cold_key_is_looked_up_once",),
    ),
    Bug(
        10,
        "loser-goes-on",
        "After the second request wins a race, the first one continues and delivers the same bytes again.",
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
        34,
        "connection-of-a-waiting-client",
        "A stream holds its origin connection while its client takes nothing.",
        (
            Edit(
                "bucketfront.cache.fetch.passthrough:Passthrough._wait_for_room",
                "None if self._is_one_response else CLIENT_WAIT_S - self._waited",
                "None",
            ),
        ),
        ("tests/cache/test_cache_passthrough.py::test_a_client_that_stops_loses_few_bytes",),
    ),
    Bug(
        10,
        "parts-without-a-bound",
        "The parts of a stream grow without a bound, so that pauses lose much of what came.",
        (
            Edit(
                "bucketfront.cache.fetch.passthrough:Passthrough._begin_part",
                "min(self._may_lose, (self._body.at - self._keeps_pace_since) // GROWTH_SHARE)",
                "(self._body.at - self._keeps_pace_since) // GROWTH_SHARE",
            ),
        ),
        ("tests/cache/test_cache_passthrough.py::test_a_client_that_stops_loses_few_bytes",),
    ),
    Bug(
        11,
        "dies-with-an-older-flight",
        "A reader fails with a part fetch that was failing already when the reader joined.",
        (Edit("bucketfront.cache.fetch.fill:Fill._fail", "fetch.began < waiter.since", "False"),),
        ("tests/cache/test_cache_failing_part.py",),
    ),
    Bug(
        11,
        "cut-body-begins-again",
        "After a cut or stall, the body is requested again from the start of its page, not from the missing byte.",
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
        "A waiter that is cancelled just as its result arrives never releases its pin.",
        (Edit("bucketfront.cache.fetch.single_flight:Lookups.result", "self._unpin(waiter.result().entry)", "pass"),),
        (CACHE + "test_a_waiter_cancelled_in_the_turn_of_its_result",),
    ),
    Bug(
        12,
        "reads-on-for-nobody",
        "A reader that leaves is not removed from its fill, which continues its read-ahead.",
        (Edit("bucketfront.cache.reader:Reader.close", "self._fill.leave(self._cursor)", "pass"),),
        (FILL + "test_a_reader_that_leaves_takes_its_read_ahead_along",),
    ),
    Bug(
        12,
        "descriptor-of-a-cancelled-create",
        "A file created for a request that was cancelled meanwhile stays open.",
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
        "The request that loses a race never releases its connection.",
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
        "A 404 page from a proxy in front of S3 counts as an absent object.",
        (
            Edit(
                "bucketfront.s3.error_translation:_fact",
                "case 404 if response.code in ('NoSuchKey', 'NoSuchVersion'):",
                "case 404:",
            ),
        ),
        (SERVER + "test_failures.py::test_404_of_somebody_else_is_no_absence",),
    ),
    Bug(
        13,
        "403-is-remembered",
        "A 403 is stored in the negative cache like a 404.",
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
        "A site's fallback page is served if S3 cannot be reached.",
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
        "A 404 stays in use beyond `negative_ttl`.",
        (
            Edit(
                "bucketfront.cache.entries.negative_cache:NegativeCache.find",
                "known.holds(now)",
                "True",
            ),
        ),
        (CACHE + "test_a_404_is_remembered_for_a_while",),
    ),
    Bug(
        14,
        "unclean-stop-unseen",
        "The index is not marked as in use, so a kill looks like a clean stop.",
        (Edit("bucketfront.cache.storage.index_database:IndexDatabase._begin_run", "'clean': 0", "'clean': 1"),),
        (INDEX + "test_the_epoch_grows_with_each_start",),
    ),
    Bug(
        31,
        "password-outlives-its-file",
        "A password that was verified is remembered although the file of passwords has changed.",
        (Edit("bucketfront.server.access.basic:BasicRule.examine", "self._remembered.clear()", "pass"),),
        (SERVER + "test_access_rotation.py::test_a_new_secret_counts_soon",),
    ),
    Bug(
        28,
        "message-of-aiohttp",
        "A failure of an app that decides is logged with aiohttp's message, which may repeat a client's credentials.",
        (
            Edit(
                "bucketfront.server.access.http_client:_reason",
                "return 'the response is not HTTP'",
                "return str(error)",
            ),
        ),
        (SERVER + "test_access_http_client.py",),
    ),
    Bug(
        15,
        "clean-stop-trusted",
        "After a clean stop, blocks are sent without a comparison with their checksums.",
        (
            Edit(
                "bucketfront.cache.storage.index_database:IndexDatabase._begin_run",
                "value + 1 WHERE name = 'epoch'\")",
                "value + 1 WHERE name = 'epoch' AND ?\", (not self.was_clean,))",
            ),
        ),
        (SWAPPED + "test_a_file_that_was_changed_between_two_runs",),
    ),
    Bug(
        15,
        "hard-link-accepted",
        "A file that has a second name elsewhere counts as the cache's own, and holes are made in it.",
        (Edit("bucketfront.cache.storage.folder:_require_own", "found.st_nlink > 1 or ", ""),),
        (SWAPPED + "test_what_a_link_leads_to_is_left_alone",),
    ),
    Bug(
        14,
        "row-without-a-file",
        "A row whose file is missing counts as a disk error, not as a miss.",
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
        "After a power loss the rows are trusted as after a kill, although a purge may have been lost.",
        (
            Edit(
                "bucketfront.cache.storage.index_database:IndexDatabase._begin_run",
                "not was_stopped and (not is_same_boot)",
                "False",
            ),
        ),
        (RECOVERY + "test_what_a_run_trusts_of_the_last_one",),
    ),
    Bug(
        14,
        "reboot-unseen",
        "A stop counts as clean although the machine went down later, so that stray files are not waited for.",
        (
            Edit(
                "bucketfront.cache.storage.index_database:IndexDatabase._begin_run",
                "was_stopped and is_same_boot",
                "was_stopped",
            ),
        ),
        (RECOVERY + "test_what_a_run_trusts_of_the_last_one",),
    ),
    Bug(
        14,
        "synced-again",
        "A file whose sync failed is kept and synced again by the next flush.",
        (
            Edit(
                "bucketfront.cache.upkeep.flusher:Flusher._synced",
                "self._disposal.remove(entry, RemovalReason.LOST)",
                "pass",
            ),
        ),
        (RECOVERY + "test_a_file_that_cannot_be_synced_is_discarded",),
    ),
    Bug(
        15,
        "checksum-not-compared",
        "A block of an earlier run is accepted if it can be read, whatever its checksum.",
        (
            Edit(
                "bucketfront.cache.fetch.block_verification:BlockVerification._check",
                "== context.entries.checksum(entry, block)",
                "is not None",
            ),
        ),
        (SERVER + "test_restart.py::test_damage_after_an_unclean_stop",),
    ),
    Bug(
        15,
        "scrubber-believes",
        "The scrubber finds missing files, but no block with a wrong checksum.",
        (Edit("bucketfront.cache.scrubber:Scrubber._scrub", "if damage != 0", "if damage is None"),),
        ("tests/cache/test_cache_scrubber.py::test_damage_after_a_clean_start",),
    ),
    Bug(
        15,
        "verify-believes",
        "`bucketfront verify` reads only the first block of each file.",
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
        "A repair frees the space of corrupt blocks, but the index still claims them.",
        (Edit("bucketfront.cache.storage.verification:_repair", "lost=tuple(lost), ", ""),),
        (VERIFICATION + "test_damage_is_found_and_put_right",),
    ),
    Bug(
        15,
        "s3s-checksum-ignored",
        "Bytes that do not match S3's checksum are served and kept.",
        (Edit("bucketfront.cache.fetch.integrity:Integrity.fits", "found == expected.value", "found is not None"),),
        (INTEGRITY + "test_wrong_bytes_are_not_served",),
    ),
    Bug(
        15,
        "compared-in-one-go-only",
        "S3's checksum is compared only if one part fetch brings the whole object.",
        (
            Edit(
                "bucketfront.cache.fetch.part_transfer:PartTransfer._completes",
                "| blocks.mask(whole)",
                "& 0 | blocks.mask(whole)",
            ),
        ),
        (INTEGRITY + "test_the_part_that_completes_an_object_compares_it",),
    ),
    Bug(
        1,
        "any-wrong-bytes-twice",
        "Bytes that did not fit an ETag once are served the second time, even if they differ from the first.",
        (
            Edit(
                "bucketfront.cache.fetch.integrity:Integrity.fits",
                "self._misfits.get(version) == found",
                "version in self._misfits",
            ),
        ),
        (INTEGRITY + "test_when_one_etag_is_believed_to_be_no_md5",),
    ),
    Bug(
        1,
        "md5-against-last-modified",
        "An ETag that looks like an MD5 is believed against Last-Modified, so an old version is served for ever.",
        (
            Edit(
                "bucketfront.http.metadata:Metadata.is_version",
                "return self.last_modified == other.last_modified and",
                "return (self.content_md5 is not None or self.last_modified == other.last_modified) and",
            ),
        ),
        (ANSWERS + "test_a_version_has_one_last_modified",),
    ),
    Bug(
        15,
        "compared-too-late",
        "The last bytes of an object are readable before its checksum is compared.",
        (
            Edit(
                "bucketfront.cache.fetch.part_transfer:PartTransfer._write",
                "is_last = self",
                "fetch.mark = end\n    self._on_written(fetch)\n    is_last = self",
            ),
        ),
        (INTEGRITY + "test_wrong_bytes_are_not_served",),
    ),
    Bug(
        15,
        "rot-in-what-waits",
        "Corrupt bytes of the staging area are sent to S3.",
        (Edit("bucketfront.tus.staging:PartStaging._read_file", "found != checksum", "False"),),
        (SERVER + "test_resumable.py::test_corrupt_staged_bytes",),
    ),
    Bug(
        16,
        "disk-error-is-an-error",
        "If the disk refuses a fill, its readers fail.",
        (Edit("bucketfront.server.send.sender:Sender.begin", "except StoreError:\n", "except EOFError:\n"),),
        (SERVER + "test_disk.py::test_writes_fail",),
    ),
    Bug(
        16,
        "sick-disk-is-asked-on",
        "After a disk error, every further request tries the disk again.",
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
        "Files are opened and removed through a symbolic link that replaced a subfolder of the cache.",
        (
            Edit(
                "bucketfront.cache.storage.folder:Folder._shard_of",
                "try:\n        fd = os.open(shard, _FOLDER, ",
                "try:\n        fd = os.open(shard, os.O_DIRECTORY, ",
            ),
        ),
        (STORE + "test_a_shard_that_is_a_symbolic_link_is_not_followed",),
    ),
    Bug(
        16,
        "link-for-the-folder",
        "A deleted cache folder is recreated through a symbolic link that took its place.",
        (
            Edit("bucketfront.cache.storage.folder:Folder.renew", "self.root.resolve() != self.root", "False"),
            Edit("bucketfront.cache.storage.folder:Folder.renew", "_hold(self.root)", "_hold(self.root.resolve())"),
        ),
        (STORE + "test_a_folder_put_in_the_place_of_ours_is_not_touched",),
    ),
    Bug(
        17,
        "not-reserved",
        "Bytes are written without a reservation from the budget.",
        (
            Edit(
                "bucketfront.cache.fetch.part_transfer:PartTransfer.run",
                "await self._context.space.reserve(count)",
                "pass",
            ),
        ),
        (CACHE + "test_the_least_recently_used_makes_room",),
    ),
    Bug(
        17,
        "reserved-before-evicting",
        "Eviction starts only after the limit is exceeded.",
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
        "Surplus bytes that a kill left in files stay there and are not charged.",
        (Edit("bucketfront.cache.housekeeper:Housekeeper._strays_in", "file.allocated > charged", "False"),),
        ("tests/cache/test_cache_recovery.py::test_what_a_kill_left_in_a_file_is_given_back",),
    ),
    Bug(
        17,
        "left-by-the-sweep",
        "Orphans that cannot be removed are not charged.",
        (Edit("bucketfront.cache.housekeeper:Housekeeper.sweep", "left += file.allocated", "pass"),),
        ("tests/cache/test_cache_recovery.py::test_what_a_sweep_cannot_remove_is_charged",),
    ),
    Bug(
        17,
        "min-free-ignored",
        "`min_free` has no effect.",
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
        17,
        "inodes-not-counted",
        "`min_free` holds for bytes, and the cache takes the last inode.",
        (
            Edit(
                "bucketfront.cache.entries.budget:Budget.available_files",
                "self._free_inodes - self._unsampled_files - self.inode_floor",
                "self._free_inodes",
            ),
        ),
        ("tests/cache/test_cache_space_reservation.py::test_a_share_of_the_inodes_stays_free",),
    ),
    Bug(
        16,
        "full-disk-evicts-nothing",
        "If the file system refuses a file, nothing is evicted and nothing more is cached.",
        (
            Edit(
                "bucketfront.cache.upkeep.space_reservation:SpaceReservation.fit",
                "if not await self.make_room(count)",
                "if True",
            ),
        ),
        ("tests/cache/test_cache_space_reservation.py::test_files_run_out",),
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
        "Eviction may remove an entry that a request is reading.",
        (
            Edit("bucketfront.cache.entries.eviction:LeastRecentlyUsed._oldest_hot", "entry.pins or ", ""),
            Edit("bucketfront.cache.entries.probation:Queue.victim", "not entry.pins and ", ""),
        ),
        (CACHE + "test_pressure_never_touches_what_is_read",),
    ),
    Bug(
        18,
        "no-pages",
        "One turn of the event loop evicts any number of idle entries.",
        (Edit("bucketfront.cache.entries.entry_table:EntryTable._evict", "len(found) < PAGE_ENTRIES and ", ""),),
        (ENTRIES + "test_a_turn_is_bounded",),
    ),
    Bug(
        19,
        "nothing-cools",
        "All entries stay in memory, however many there are.",
        (Edit("bucketfront.cache.entries.entry_table:EntryTable.cool", "- self.hot_limit", "- 4 * self.hot_limit"),),
        (CACHE + "test_hot_entries_cool_and_come_back",),
    ),
    Bug(
        19,
        "bodies-without-bound",
        "The memory for small bodies is bounded by their number, not by their size.",
        (
            Edit(
                "bucketfront.cache.entries.hot_bodies:HotBodies._push_out",
                "while self._used > self._limit",
                "while len(self._kept) > 64",
            ),
        ),
        ("tests/cache/test_cache_leases.py::test_pushed_out_of_memory",),
    ),
    Bug(
        20,
        "deadline-of-each-attempt",
        "The timeout of an origin request starts anew with each attempt.",
        (
            Edit(
                "bucketfront.s3.client:S3Origin._with_retries",
                "asyncio.timeout_at(until)",
                "asyncio.timeout(self._call_timeout)",
            ),
            Edit(
                "bucketfront.s3.client:S3Origin._with_retries",
                " or now + pause >= until",
                "",
            ),
        ),
        (FAULTS + "test_an_origin_without_a_response",),
    ),
    Bug(
        20,
        "head-that-drips",
        "Each byte of a request head restarts its timeout.",
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
        "write-to-a-disk-that-hangs",
        "An upload waits for a hanging disk without a timeout.",
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
        "Uploads may use all connections to the origin, so reads wait for the slowest upload.",
        (Edit("bucketfront.s3.upload.upload_slots:UploadSlots.__init__", "count // 2", "count"),),
        ("tests/s3/test_s3_slots.py::test_uploads_have_half_of_them",),
    ),
    Bug(
        20,
        "upload-that-drips",
        "A stalled upload is ended, but an upload below the minimum rate is not.",
        (
            Edit(
                "bucketfront.server.receive.request_body:received",
                "if got < exchange.min_rate * waited",
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
                "bucketfront.server.http1.connection_limit:ConnectionLimit._has_place",
                "self.open < room",
                "True",
            ),
        ),
        (ACCEPTING + "test_beyond_the_bound",),
    ),
    Bug(
        21,
        "idle-ones-stay",
        "At the limit, new clients get a 503 although others only hold idle connections.",
        (
            Edit(
                "bucketfront.server.http1.connection_limit:ConnectionLimit._first_to_go",
                "return self._order.oldest(now)",
                "return None",
            ),
        ),
        (ACCEPTING + "test_idle_connections_make_way",),
    ),
    Bug(
        21,
        "any-idle-one-goes",
        "The connection that came first makes way, although others have been idle for longer.",
        (
            Edit(
                "bucketfront.server.http1.connection_limit:IdleOrder.oldest",
                "since == noted",
                "since is not None",
            ),
        ),
        (SERVER + "test_connection_limit.py::test_the_longest_idle_one_makes_way",),
    ),
    Bug(
        21,
        "unread-is-idle",
        "A connection whose next request is still in the kernel makes way, so the request is lost.",
        (Edit("bucketfront.server.http1.listener:_AcceptedConnection._has_unread", "unread != (0,)", "False"),),
        (ACCEPTING + "test_a_request_that_was_not_read_yet",),
    ),
    Bug(
        21,
        "one-client-takes-all",
        "One client may have all connections, so others get a 503.",
        (
            Edit(
                "bucketfront.server.http1.connection_limit:ConnectionLimit.admit",
                "self.limit // RESERVED_PART if has_its_share else 0",
                "0",
            ),
        ),
        (ACCEPTING + "test_one_client_and_the_others",),
    ),
    Bug(
        21,
        "all-are-for-clients",
        "The client limit counts all descriptors, so none are left for other purposes.",
        (Edit("bucketfront.server.http1.descriptors:shares", "int(limit * MAX_USED_SHARE)", "limit"),),
        (ACCEPTING + "test_shares",),
    ),
    Bug(
        21,
        "refused-and-still-here",
        "The number of refused connections that are still closing has no bound.",
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
        "heads-without-end",
        "The heads of a form's parts have no bound together.",
        (Edit("bucketfront.http.multipart_form:FormParser._head", "self._head_bytes > MAX_HEADS_BYTES", "False"),),
        (SERVER + "test_upload_forms.py::test_forms_that_are_refused",),
    ),
    Bug(
        22,
        "ranges-without-end",
        "A Range header may have any number of ranges.",
        (Edit("bucketfront.http.ranges:_range_set", " or len(found) == MAX_RANGES", ""),),
        ("tests/http/test_http_ranges.py::test_a_hundred_ranges_are_honoured_and_one_more_is_not",),
    ),
    Bug(
        22,
        "all-in-one-turn",
        "A client that accepts all bytes at once is sent everything without a pause.",
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
        "one-chunk-is-all",
        "A chunked body ends behind its first chunk, so the next one is taken for a request.",
        (
            Edit(
                "bucketfront.server.http1.chunked:ChunkedFraming._take",
                "self._left = size + len(b'\\r\\n')",
                "self._left, self._was_last_chunk = (size + len(b'\\r\\n'), True)",
            ),
        ),
        (SERVER + "test_chunked.py::test_end",),
    ),
    Bug(
        24,
        "chunk-without-its-line-end",
        "The line end behind a chunk is taken for the line of the next chunk's size.",
        (
            Edit(
                "bucketfront.server.http1.chunked:ChunkedFraming._take",
                "self._left = size + len(b'\\r\\n')",
                "self._left = size",
            ),
        ),
        (SERVER + "test_chunked.py::test_end",),
    ),
    Bug(
        24,
        "bare-line-feeds",
        "The line of a chunk's size may end in a bare line feed, where servers in front may see another end.",
        (
            Edit(
                "bucketfront.server.http1.chunked:ChunkedFraming._take",
                "_SIZE_LINE.fullmatch(line)",
                "_SIZE_LINE.fullmatch(line.rstrip() + b'\\r\\n')",
            ),
        ),
        (SERVER + "test_chunked.py::test_broken",),
    ),
    Bug(
        24,
        "the-parser-alone-ends-a-body",
        "A chunked body ends where the parser ends it, although the framing sees no end there.",
        (
            Edit(
                "bucketfront.server.http1.receiver:Receiver.verdict",
                "is_whole and (not chunks.is_over)",
                "False",
            ),
        ),
        (SERVER + "test_receiver.py::test_the_parser_must_agree",),
    ),
    Bug(
        24,
        "a-trailer-is-a-field",
        "The last trailer of a chunked body becomes a field of the next request.",
        (
            Edit(
                "bucketfront.server.http1.receiver:Receiver.verdict",
                "is_whole and chunks.has_trailers",
                "False",
            ),
        ),
        (SERVER + "test_receiver.py::test_the_parser_must_agree",),
    ),
    Bug(
        24,
        "two-ranges",
        "If a request has two Range fields, the first one is used.",
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
        "An unneeded body is read to its end, however large it is.",
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
        (Edit("bucketfront.server.server:connection_options", "'auto_decompress': False", "'auto_decompress': True"),),
        (SERVER + "test_uploads.py::test_encoded_bodies_stay_as_sent",),
    ),
    Bug(
        25,
        "one-origin-for-all",
        "An index entry serves its bucket and key for any endpoint.",
        (Edit("bucketfront.cache.storage.index:Index.load", "WHERE origin = ?", "WHERE (origin = ? OR 1)"),),
        (INDEX + "test_two_origins_share_nothing",),
    ),
    Bug(
        25,
        "named-by-the-settings",
        "The cache's origin is named by the settings, although the SDK takes another endpoint from a variable.",
        (Edit("bucketfront.s3.endpoint:resolve", "_name(url, used, region)", 'f"aws:{region}"'),),
        (ENDPOINT + "test_another_endpoint_is_another_cache", ENDPOINT + "test_plain_aws_and_its_variants"),
    ),
    Bug(
        25,
        "all-of-s3s-headers",
        "Every S3 header that begins with x-amz- is stored and sent to clients.",
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
        "Over TLS, each later piece of a stretch repeats the bytes of its first piece.",
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
        "only-hits-over-tls",
        "Over TLS, each later piece of a large hit repeats the bytes of its first piece.",
        (
            Edit(
                "bucketfront.server.send.enciphered:send_some",
                "region.offset + at, length",
                "region.offset + span.start, length",
            ),
        ),
        (SERVER + "test_fast_path_tls.py::test_large_responses",),
    ),
    Bug(
        19,
        "all-of-a-hit-enciphered",
        "Over TLS, a large hit is enciphered although the client takes nothing.",
        (
            Edit(
                "bucketfront.server.send.enciphered:send_some",
                "not transport.get_write_buffer_size()",
                "True",
            ),
            Edit(
                "bucketfront.server.send.enciphered:send_some",
                "min(span.stop, span.start + MAX_PER_TURN_BYTES)",
                "span.stop",
            ),
        ),
        (SERVER + "test_fast_path_tls.py::test_a_slow_reader",),
    ),
    Bug(
        26,
        "only-without-memory",
        "Without memory for small bodies, the end of a response is read from the start of the object.",
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
        "The response to a purge is sent while its files are still being unlinked.",
        (
            Edit(
                "bucketfront.cache.upkeep.purge:Purge.remove",
                "await self._disposal.unlink(found)",
                "for entry in found:\n        self._disposal.unlink_later(entry)",
            ),
        ),
        (CACHE + "test_a_purge_by_key_waits_for_its_file",),
    ),
    Bug(
        27,
        "answered-before-discarded",
        "The response to a purge of many entries is sent before the index knows them as removed.",
        (
            Edit(
                "bucketfront.cache.upkeep.purge:Purge.finish_discarding",
                "await self._flush()",
                "pass",
            ),
        ),
        (DISCARDS + "test_a_purge_is_complete_before_its_files_are_gone",),
    ),
    Bug(
        17,
        "freed-before-unlinked",
        "The bytes of purged entries are given back although their files are still there.",
        (
            Edit(
                "bucketfront.cache.upkeep.discard_queue:DiscardQueue._free",
                "await self._store.remove_all([row.file for row in rows])",
                "pass",
            ),
        ),
        (DISCARDS + "test_a_purge_is_complete_before_its_files_are_gone",),
    ),
    Bug(
        27,
        "explained-into-memory",
        "An explanation brings the entry into memory, where it pushes out others.",
        (Edit("bucketfront.cache.views:Views.of_key", "self._entries.peek(key)", "self._entries.get(key)"),),
        (VIEWS + "test_a_view_of_a_cold_entry_is_that_of_a_hot_one",),
    ),
    Bug(
        27,
        "explained-as-a-use",
        "An explanation counts as a use, so that an entry that an operator looks at is never idle.",
        (
            Edit(
                "bucketfront.cache.views:Views.of_key",
                "now = self._clock()",
                "now = self._clock()\n    for one in self._entries.hot_entries():\n        one.accessed_at = now",
            ),
        ),
        (VIEWS + "test_a_view_is_no_use",),
    ),
    Bug(
        27,
        "pages-beyond-the-prefix",
        "A page of entries has those that are not flushed yet, whatever its prefix is.",
        (
            Edit(
                "bucketfront.cache.entries.entry_table:EntryTable.page",
                "entry.key.key.startswith(prefix)",
                "True",
            ),
        ),
        (VIEWS + "test_pages_are_a_sorted_list",),
    ),
    Bug(
        27,
        "wrong-removal-reason",
        "An entry that was evicted for space is said to have been idle.",
        (
            Edit(
                "bucketfront.cache.entries.entry_table:EntryTable.evict",
                "RemovalReason.SPACE",
                "RemovalReason.IDLE",
            ),
        ),
        ("tests/cache/test_cache_removals.py::test_evicted_for_space",),
    ),
    Bug(
        19,
        "removals-without-bound",
        "The reasons of all removals are remembered, so that purges fill the memory.",
        (Edit("bucketfront.cache.entries.removals:Removals._remember", "len(self._last) > self._limit", "False"),),
        ("tests/cache/test_cache_removals.py::test_the_memory_is_bounded",),
    ),
    Bug(
        27,
        "open-to-all",
        "The admin port may listen beyond loopback without a token.",
        (
            Edit(
                "bucketfront.config.listen_host:is_loopback",
                "ipaddress.ip_address(address).is_loopback",
                "ipaddress.ip_address(address) is not None",
            ),
        ),
        ("tests/test_config.py::test_admin_beyond_loopback_needs_a_token",),
    ),
    Bug(
        27,
        "any-token",
        "The admin port accepts a bearer token that lacks its last character.",
        (
            Edit(
                "bucketfront.admin.tokens:Token.__init__",
                "_digest(f'Bearer {secret}')",
                "_digest(f'Bearer {secret}'[:-1])",
            ),
        ),
        (SERVER + "test_admin.py::test_token",),
    ),
    Bug(
        28,
        "query-in-the-log",
        "The access log contains the query of a request, and with it the signature.",
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
        "The text log contains paths without escapes.",
        (
            Edit(
                "bucketfront.server.telemetry.access_log:_plain",
                "return ascii(text)[1:-1]",
                "return text",
            ),
        ),
        (SERVER + "test_telemetry.py::test_text_lines_of_odd_paths",),
    ),
    Bug(
        28,
        "secret-in-a-message",
        "A configuration error quotes a key that may be a secret.",
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
        "A redirect from the origin is followed, with credentials.",
        (Edit("bucketfront.s3.transport:_StrictSession._send", "allow_redirects=False", "allow_redirects=True"),),
        (FAULTS + "test_a_redirect_is_not_followed",),
    ),
    Bug(
        29,
        "requests-leave-the-endpoint",
        "With a custom endpoint, the requests of a Multi-Region Access Point go to AWS.",
        (Edit("bucketfront.s3.sdk_client:SdkClient._check_egress", "if not", "if False and not"),),
        (ENDPOINT + "test_no_request_leaves_a_custom_endpoint",),
    ),
    Bug(
        30,
        "unknown-key-passed-over",
        "An unknown key in the configuration is ignored.",
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
        "The SDK's own retries are active below bucketfront's.",
        (
            Edit(
                "bucketfront.s3.sdk_client:SdkClient._create_client",
                "'total_max_attempts': 1",
                "'total_max_attempts': 3",
            ),
        ),
        (FAULTS + "test_a_connection_closed_without_a_response",),
    ),
    Bug(
        31,
        "outage-window-ignored",
        "In an outage, stale objects are served no longer than after any other origin error.",
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
        "In an outage, a miss waits for the origin although the circuit breaker is open.",
        (
            Edit(
                "bucketfront.s3.breaker:Breaker.check",
                "raise self._refusal(max(self._open_until - self._clock(), 0.0) or PROBE_WAIT_S)",
                "pass",
            ),
        ),
        (SERVER + "test_outage.py::test_misses_fail_at_once",),
    ),
    Bug(
        23,
        "any-spelling-of-a-mount",
        "Needless escapes in the path of a mount lead to the mount, past the path rules of a server in front.",
        (
            Edit(
                "bucketfront.server.router:_check_spelling",
                "target.spelling.startswith(spelling)",
                "True",
            ),
        ),
        (SERVER + "test_routing.py::test_one_spelling_of_a_mount",),
    ),
    Bug(
        31,
        "keys-beside-the-path",
        "The stages check the key of the path, but no key from a form or an XML document.",
        (Edit("bucketfront.server.router:Route.admitted", "self.admit(key)", "pass"),),
        (SERVER + "test_pipeline.py::test_keys_of_forms", SERVER + "test_pipeline.py::test_keys_of_delete_objects"),
    ),
    Bug(
        31,
        "degraded-is-down",
        "A proxy that cannot reach S3 is not ready, so a load balancer takes away what it could serve.",
        (
            Edit(
                "bucketfront.admin.probes:Probes._readyz",
                "health.phase is Phase.SERVING",
                "health.phase is Phase.SERVING and not health.troubles",
            ),
        ),
        (SERVER + "test_operators_view.py::test_ready_and_degraded",),
    ),
    Bug(
        28,
        "codes-of-the-origin",
        "Any error code that the origin sends becomes a label of a metric.",
        (
            Edit(
                "bucketfront.s3.failures:label",
                "response.code if error_codes.is_known(response.code) else _OTHER",
                "response.code",
            ),
        ),
        (SERVER + "test_operators_view.py::test_metrics_by_code",),
    ),
    Bug(
        35,
        "stale-without-a-reason",
        "The log line of a stale response does not have the failure of the origin because of which it is stale.",
        (
            Edit(
                "bucketfront.server.handlers.objects:ObjectHandler._send_candidate",
                "found.failure is not None",
                "False",
            ),
        ),
        (SERVER + "test_operators_view.py::test_a_stale_response_names_the_failure",),
    ),
    Bug(
        35,
        "odd-key",
        "A key that the origin refuses without a known code is a 502.",
        (Edit("bucketfront.s3.calls:Calls.judged", "if not names_object or not await", "if True or await"),),
        (SERVER + "test_whose_fault.py::test_an_odd_key_is_never_a_502",),
    ),
    Bug(
        28,
        "damaged-fields",
        "Metadata with control characters passes to clients.",
        (Edit("bucketfront.s3.responses:_object_headers", "damaged_descriptions(headers)", "frozenset()"),),
        (SERVER + "test_object_fields.py::test_a_field_with_control_characters_is_dropped",),
    ),
    Bug(
        35,
        "probe-of-a-sick-key",
        "The breaker probes the object that failed, so a client with sick keys closes the origin to all.",
        (
            Edit(
                "bucketfront.s3.reference:Reference.read",
                "ABSENT if good is None or good.key == key else good.key",
                "key",
            ),
        ),
        ("tests/s3/test_s3_breaker.py::test_sick_objects_shut_out_no_other",),
    ),
    Bug(
        35,
        "our-fault-by-guess",
        "Each unexplained refusal is a client's 400, also if the origin refuses all requests of ours.",
        (Edit("bucketfront.s3.reference:Reference.works", "works = False", "works = True"),),
        ("tests/s3/test_s3_error_codes.py::test_an_unexplained_refusal_while_nothing_works",),
    ),
    Bug(
        35,
        "bucket-is-no-object",
        "A bucket that does not exist counts as an absent object, and the 404 is remembered.",
        (
            Edit(
                "bucketfront.s3.error_translation:_fact",
                "('NoSuchKey', 'NoSuchVersion')",
                "('NoSuchKey', 'NoSuchVersion', 'NoSuchBucket')",
            ),
        ),
        ("tests/s3/test_s3_error_codes.py::test_our_own_faults", SERVER + "test_whose_fault.py"),
    ),
    Bug(
        35,
        "expired-token-to-clients",
        "A refusal of our own credentials is the object's, so clients get 403.",
        (
            Edit(
                "bucketfront.s3.error_translation:_fault",
                "OriginRefused(message, fault)",
                "AccessDenied(message)",
            ),
        ),
        ("tests/s3/test_s3_error_codes.py::test_our_own_faults",),
    ),
    Bug(
        35,
        "refusals-cost-retries",
        "Requests that S3 refuses for good are tried again, and use up the retries of others.",
        (
            Edit(
                "bucketfront.s3.client:S3Origin._with_retries",
                "error.is_final or number == READ_ATTEMPTS",
                "number == READ_ATTEMPTS",
            ),
        ),
        ("tests/s3/test_s3_error_codes.py::test_our_own_faults",),
    ),
    Bug(
        29,
        "any-certificate",
        "The origin's certificate is not verified.",
        (
            Edit(
                "bucketfront.s3.trust:client_context",
                "ssl.create_default_context()",
                "ssl._create_unverified_context()",
            ),
        ),
        ("tests/s3/test_s3_tls.py::test_an_unknown_authority",),
    ),
    Bug(
        24,
        "length-that-stands-for-none",
        "A Content-Length of 2**64 - 1, which the parser takes for its absence, is a length.",
        (
            Edit(
                "bucketfront.server.http1.framing:body_length",
                "(length := int(value)) > MAX_LENGTH",
                "(length := int(value)) < 0",
            ),
        ),
        (SERVER + "test_framing.py::test_refused[apart]",),
    ),
    Bug(
        33,
        "description-without-the-token",
        "The description of the admin port is served to a page under any name, as a probe is.",
        (Edit("bucketfront.admin.api:AdminApplication._respond", "operation.is_probe", "is_read"),),
        (SERVER + "test_admin_openapi.py::test_each_path_responds_as_described",),
    ),
    Bug(
        33,
        "form-of-a-foreign-page",
        "A write of a foreign page is refused only if the browser sends Sec-Fetch-Site.",
        (
            Edit(
                "bucketfront.server.foreign_pages:ForeignPages.check",
                "not is_own(origin, field('host') or '', is_tls=self._is_tls)",
                "False",
            ),
        ),
        (SERVER + "test_foreign_pages.py::test_own_origin",),
    ),
    Bug(
        33,
        "port-of-another-server",
        "Pages of other servers on the same host may write.",
        (
            Edit(
                "bucketfront.http.web_origin:is_own",
                " and (theirs.port or default) == (ours.port or default)",
                "",
            ),
        ),
        (SERVER + "test_foreign_pages.py::test_own_origin",),
    ),
    Bug(
        33,
        "names-below-ours",
        "Writes are answered under any name that begins with a digit.",
        (
            Edit(
                "bucketfront.server.host_names:HostNames.check",
                "authority.is_address",
                "authority.host[:1].isdigit()",
            ),
        ),
        (SERVER + "test_host_names.py::test_without_names",),
    ),
    Bug(
        33,
        "purge-as-text",
        "A purge may have any type, so that a page can send it without a preflight.",
        (
            Edit(
                "bucketfront.admin.request_body:read_json",
                "media_types.essence(request.headers.get(hdrs.CONTENT_TYPE, '')) != 'application/json'",
                "False",
            ),
        ),
        (SERVER + "test_admin_gate.py::test_refused",),
    ),
    Bug(
        33,
        "all-origins-are-named",
        "A preflight of any page is offered writes.",
        (Edit("bucketfront.server.cors:Cors.preflight", "origin not in self._writers", "False"),),
        (SERVER + "test_foreign_pages.py::test_a_preflight_offers_reads",),
    ),
    Bug(
        35,
        "any-date-is-believed",
        "A false Date of the origin changes the time of signatures until S3 refuses one.",
        (Edit("bucketfront.s3.signature:Signature.cures", "context.get(_GUESSED)", "False"),),
        ("tests/s3/test_s3_signature.py::test_a_false_date",),
    ),
    Bug(
        35,
        "stale-after-stale",
        "A read on a stale connection is sent again on another one that was idle.",
        (Edit("bucketfront.s3.transport:_StrictSession.request", "self._send(Pool.NEW", "self._send(Pool.KEPT"),),
        ("tests/s3/test_s3_connections.py::test_many_stale_connections",),
    ),
    Bug(
        35,
        "writes-on-idle-connections",
        "A write takes a connection that was idle, so that the origin may have closed it.",
        (Edit("bucketfront.s3.transport:_StrictSession.request", "self._send(Pool.RECENT", "self._send(Pool.KEPT"),),
        ("tests/s3/test_s3_connections.py::test_a_write_takes_no_idle_connection",),
    ),
    Bug(
        35,
        "a-client-gets-our-refusal",
        "A refusal of our own credentials reaches a client of S3 as its own.",
        (Edit("bucketfront.s3.forwarder:_judged", "raise error", "return response"),),
        (FORWARDED + "test_our_own_faults_never_reach_a_client", FORWARDED + "test_pages_and_failures_are_raised"),
    ),
    Bug(
        3,
        "a-forwarded-list-ends-early",
        "A chunked body that breaks off ends as if it were whole.",
        (
            Edit(
                "bucketfront.s3.forwarded_response:ChunkedBody._read",
                "raise BodyTruncated(f'{self._what}: the body broke off before its end') from error",
                "pass",
            ),
        ),
        (FORWARDED + "test_an_object_that_breaks_off_raises",),
    ),
    Bug(
        8,
        "an-early-success-counts",
        "A success that the origin sends before it has the body counts.",
        (
            Edit(
                "bucketfront.s3.forwarder:Forwarder._check_success",
                "raw.status < 200 or not (body.is_complete or request.length is None)",
                "raw.status < 200",
            ),
        ),
        (FORWARDED + "test_an_early_success_is_none",),
    ),
    Bug(
        9,
        "a-forwarded-write-is-repeated",
        "A write whose outcome is unknown is sent again.",
        (Edit("bucketfront.s3.client:S3Origin.forward", "request.is_read and ", ""),),
        (FORWARDED + "test_reads_are_repeated_and_writes_are_not",),
    ),
    Bug(
        31,
        "an-expired-authorisation-serves",
        "A request whose signature has ended is served without S3, because S3 allowed it before.",
        (
            Edit(
                "bucketfront.server.s3_endpoint.authorizations:Authorizations._is_expired",
                "proof.expires_at is not None",
                "False",
            ),
        ),
        (PASSTHROUGH + "test_an_expired_signature_serves_nothing",),
    ),
    Bug(
        31,
        "a-remembered-request-outlives-its-refusal",
        "A request that S3 has refused is served because S3 allowed it before.",
        (
            Edit(
                "bucketfront.server.s3_endpoint.authorizations:Authorizations.refuse",
                "self._allowed.pop(proof.digest, None)",
                "pass",
            ),
        ),
        (PASSTHROUGH + "test_a_refusal_holds_for_the_remembered_request",),
    ),
    Bug(
        31,
        "any-signature-is-remembered",
        "What S3 has allowed to one signature is allowed to any other.",
        (
            Edit(
                "bucketfront.http.client_signature:digest_of",
                "parts = [method, target]",
                "parts = [method, target.partition('Signature=')[0]]",
            ),
        ),
        (PASSTHROUGH + "test_another_request_is_asked",),
    ),
    Bug(
        13,
        "a-refusal-of-a-signature-is-shared",
        "S3's 403 for one client is what the next one gets.",
        (
            Edit(
                "bucketfront.server.s3_endpoint.passthrough_application:PassthroughApplication._read",
                "if response is not None:\n        return response\n    assert",
                "if response is not None:\n        self._buckets = frozenset()\n        return response\n    assert",
            ),
        ),
        (PASSTHROUGH + "test_a_refusal_is_of_its_client_alone",),
    ),
    Bug(
        25,
        "another-object-of-s3-is-served",
        "A client gets the object that the proxy takes a request for, and not the one that S3 has shown.",
        (
            Edit(
                "bucketfront.cache.lookup_flow:Shown.is_of",
                "self.etag == metadata.etag and self.last_modified in (None, metadata.last_modified)",
                "True",
            ),
        ),
        (PASSTHROUGH + "test_another_object_than_ours",),
    ),
    Bug(
        35,
        "rotation-needs-a-restart",
        "Credentials that S3 refuses are not loaded again.",
        (Edit("bucketfront.s3.signature:Signature.cures", "fault is Fault.CREDENTIALS", "False"),),
        ("tests/s3/test_s3_signature.py::test_rotated_secret_files",),
    ),
    Bug(
        34,
        "no-share-for-what-is-requested-once",
        "Objects that are requested once may take all of the cache.",
        (Edit("bucketfront.cache.entries.probation:Probation.take", "not self.has_too_much or ", "True or "),),
        (
            PROBATION + "test_the_hot_set_outlives_a_crawl",
            PROBATION + "test_the_hot_set_outlives_reads_of_single_bytes",
        ),
    ),
    Bug(
        34,
        "ranges-make-popular",
        "Ranges of a byte that need other bytes of an object each time make it popular.",
        (Edit("bucketfront.cache.reader:Reader.expect", "self._found_all and holds", "self._found_all"),),
        (PROBATION + "test_a_range_that_was_not_cached_is_no_second_request",),
    ),
    Bug(
        32,
        "only-the-path-decides",
        "A mount with a longer prefix of the key has no say in what another route does to it.",
        (Edit("bucketfront.server.pipeline:_check_inner", "inner is not None", "False"),),
        (SERVER + "test_inner_mounts.py::test_writes_to_a_mount_that_only_reads",),
    ),
    Bug(
        32,
        "limits-of-the-path",
        "The limits of the mount that serves a key do not hold on the upload route.",
        (Edit("bucketfront.server.router:Route.mount_of_write", "inner is None", "True"),),
        (SERVER + "test_inner_mounts.py::test_limits_of_the_inner_mount",),
    ),
    Bug(
        31,
        "any-token-of-a-client",
        "A bearer token that is not listed lets a client in.",
        (Edit("bucketfront.server.access.bearer:BearerRule.examine", "not any(fits)", "False and fits"),),
        (SERVER + "test_access.py::test_reads_need_a_token",),
    ),
    Bug(
        32,
        "rules-of-the-path",
        "The rules of the mount that serves a key do not hold for the path of another mount.",
        (Edit("bucketfront.server.access.access:Access.check", "inner is not None", "False"),),
        (SERVER + "test_access.py::test_keys_of_an_inner_mount",),
    ),
    Bug(
        34,
        "nothing-is-reserved",
        "One client may have the whole of a limited resource.",
        (Edit("bucketfront.fair_share:Shares.refusal", "left - self._reserved < count", "left < count"),),
        ("tests/test_fair_share.py::test_no_client_gets_the_reserved_part",),
    ),
    Bug(
        34,
        "origin-for-the-first",
        "Connections to the origin go to those that ask first, whichever client they are of.",
        (Edit("bucketfront.s3.connection_slots:ConnectionSlots.acquire", "current_client()", "None"),),
        (FAIR_SHARES + "test_cold_reads_of_one_client_delay_no_other",),
    ),
    Bug(
        34,
        "misses-without-end",
        "A client may have any number of misses waiting for the origin.",
        (Edit("bucketfront.s3.client:S3Origin.admit", "self._shares is not None", "False"),),
        (FAIR_SHARES + "test_a_client_that_waits_for_too_much_is_refused",),
    ),
    Bug(
        34,
        "joiners-wait-for-the-first",
        "A client that joins a lookup waits in the queue of the client that began it.",
        (Edit("bucketfront.s3.connection_slots:ConnectionSlots.hurry", "list(share.waits)", "()"),),
        ("tests/s3/test_s3_slots.py::test_a_read_that_another_client_joins",),
    ),
    Bug(
        34,
        "requests-of-a-front",
        "One client behind a front may have all requests at once.",
        (
            Edit(
                "bucketfront.server.application:Application._enter",
                "self._shares.take(Resource.REQUESTS, client)",
                "self._shares.take(Resource.REQUESTS, None)",
            ),
        ),
        (FAIR_SHARES + "test_requests_at_once",),
    ),
    Bug(
        34,
        "uploads-of-a-front",
        "One client may have all uploads at once.",
        (
            Edit(
                "bucketfront.server.application:Application._enter",
                "self._shares.take(Resource.UPLOADS, client)",
                "self._shares.take(Resource.UPLOADS, None)",
            ),
        ),
        (FAIR_SHARES + "test_bodies_that_do_not_come",),
    ),
    Bug(
        34,
        "unfinished-uploads-of-one",
        "One client may have all unfinished resumable uploads.",
        (Edit("bucketfront.tus.manager:UploadManager.create", "current_client()", "None"),),
        (FAIR_SHARES + "test_unfinished_uploads_of_one_client",),
    ),
    Bug(
        34,
        "abandoned-uploads-stay",
        "Abandoned uploads of a client beyond its share keep the others out for a day.",
        (Edit("bucketfront.tus.manager:UploadManager._first_to_go", "min(idle", "min([]"),),
        (FAIR_SHARES + "test_abandoned_uploads_make_way",),
    ),
    Bug(
        34,
        "delete-objects-of-one",
        "One client may have all places of DeleteObjects.",
        (Edit("bucketfront.server.handlers.uploads:UploadHandler.with_document", "current_client()", "None"),),
        (FAIR_SHARES + "test_delete_objects_beyond_the_share",),
    ),
    Bug(
        34,
        "staging-area-of-one",
        "One client may fill the staging area of resumable uploads.",
        (Edit("bucketfront.tus.staging:PartStaging.reserve", "upload.record.client", "None"),),
        (FAIR_SHARES + "test_staged_bytes_of_one_client",),
    ),
    Bug(
        34,
        "cache-for-uploads-of-one",
        "The uploads of one client may push out all that is cached.",
        (Edit("bucketfront.cache.upload:Upload._reserve", "is UsedUp.SHARE", "is None and False"),),
        ("tests/cache/test_cache_upload.py::test_uploads_of_one_client_take_half_of_the_cache",),
    ),
    Bug(
        34,
        "places-of-uploads-for-the-first",
        "The connections for uploads go to those that ask first, whichever client they are of.",
        (Edit("bucketfront.s3.upload.upload_slots:UploadSlots._acquire", "current_client()", "None"),),
        (FAIR_SHARES + "test_uploads_of_one_client_delay_no_other",),
    ),
    Bug(
        34,
        "all-behind-a-front-are-one",
        "The client that a PROXY header names keeps the place of its front, and has no share of its own.",
        (
            Edit(
                "bucketfront.server.http1.listener:BoundedSite._continue",
                "client != accepted.client and factory is not RefusedConnection",
                "False",
            ),
        ),
        (SERVER + "test_proxy_headers.py::test_each_client_has_its_share",),
    ),
    Bug(
        34,
        "strangers-name-themselves",
        "Clients that are no fronts are believed their PROXY headers.",
        (
            Edit(
                "bucketfront.server.http1.proxy_headers:ProxyHeaders.are_due",
                "peer == UNIX_PEER or peer in self._fronts",
                "True",
            ),
        ),
        (SERVER + "test_proxy_headers.py::test_a_stranger_names_nobody",),
    ),
    Bug(
        31,
        "an-old-certificate",
        "A client certificate counts beyond its end, as long as its connection or its session lasts.",
        (
            Edit(
                "bucketfront.server.access.certificate:CertificateRule.examine",
                "not certificate.not_before <= request.now <= certificate.not_after",
                "False",
            ),
        ),
        (SERVER + "test_access_certificate.py::test_the_certificate_expires_on_its_connection",),
    ),
    Bug(
        24,
        "a-header-and-then-some",
        "Bytes behind a PROXY header are taken with it.",
        (
            Edit(
                "bucketfront.server.http1.proxy_headers:_read",
                "len(seen) if header is None else header.length - len(held)",
                "len(seen)",
            ),
        ),
        (SERVER + "test_proxy_headers.py::test_what_follows_a_header_stays",),
    ),
    Bug(
        33,
        "an-uploaded-page-is-shown",
        "An uploaded page runs with the rights of the origin that serves it.",
        (Edit("bucketfront.http.presentation:_downloaded", "media_types.is_active(kind) and", "False and"),),
        (SERVER + "test_inline_types.py::test_active_types_of_uploads",),
    ),
    Bug(
        33,
        "uploads-by-their-path",
        "An uploaded page is shown by another mount of the same objects.",
        (
            Edit(
                "bucketfront.server.inner_mounts:InnerMounts.inline_types",
                "mount.place in self._places_of_uploads",
                '"PUT" in mount.methods',
            ),
        ),
        (SERVER + "test_inline_types.py::test_uploads_through_another_mount",),
    ),
    Bug(
        32,
        "versions-by-the-path",
        "A mount above serves old versions of a key whose own mount does not.",
        (Edit("bucketfront.server.router:Route._deciding", "inner is not None", "False"),),
        (SERVER + "test_query.py::test_versions_of_an_inner_mount",),
    ),
    Bug(
        31,
        "reload-leaves-the-fast-path",
        "After a reload, the fast path still serves what a new rule protects.",
        (Edit("bucketfront.server.generation:Generations.replace", "self.fast_path.adopt(generation.plain)", "pass"),),
        (RELOAD + "test_a_new_rule_holds_on_open_connections",),
    ),
    Bug(
        5,
        "take-over-hides-writes",
        "The new process does not learn of a write that ends in the old one.",
        (
            Edit(
                "bucketfront.cache.upkeep.purge:Purge.purge",
                "await self._ownership.forward(list(selection.keys))",
                "pass",
            ),
        ),
        (SERVER + "test_takeover.py::test_a_write_of_the_old_process_is_read_from_the_new_one",),
    ),
    Bug(
        8,
        "take-over-aborts-uploads",
        "The new process aborts the multipart uploads that the old one still sends.",
        (Edit("bucketfront.s3.upload.journal:UploadJournal.hand_over", "if self._uploads:", "if False:"),),
        (SERVER + "test_takeover.py::test_running_multipart_uploads_are_not_aborted",),
    ),
    Bug(
        30,
        "reload-applies-half",
        "A reload that fails leaves a part of the new configuration.",
        (
            Edit(
                "bucketfront.renewal:build_renewal",
                "renewal = await asyncio.to_thread(_build, parts, after)",
                "parts.admin.application.adopt(after); renewal = await asyncio.to_thread(_build, parts, after)",
            ),
        ),
        (RELOAD + "test_a_refused_reload_leaves_no_half",),
    ),
    Bug(
        7,
        "reload-keeps-lifetimes",
        "A lifetime that a reload shortens does not hold for what is in memory.",
        (
            Edit(
                "bucketfront.cache.entries.entry_table:EntryTable.hot",
                "entry.policy_number != self._policy_number",
                "False",
            ),
        ),
        (RELOAD + "test_freshness_holds_for_what_is_cached",),
    ),
    Bug(
        12,
        "stop-closes-without-a-word",
        "A stop closes connections whose clients have just sent their next request.",
        (
            Edit(
                "bucketfront.server.http1.aiohttp_private:DeferredHeadResponse.prepare",
                "request.protocol.is_draining",
                "False",
            ),
        ),
        (SERVER + "test_stop.py::test_a_response_that_begins_in_the_stop_is_the_last",),
    ),
    Bug(
        37,
        "a-cold-range-is-a-hit",
        "A range that comes from the origin counts as a hit, because the entry of its object is fresh.",
        (
            Edit(
                "bucketfront.cache.reader:Reader.close",
                "lacked_some=self._lacked is not None",
                "lacked_some=False",
            ),
        ),
        (SERVER + "test_cold_ranges.py::test_a_cold_range_of_a_known_object",),
    ),
    Bug(
        37,
        "a-later-range-is-not-looked-at",
        "A response of several ranges is a hit if the cache has the first one.",
        (Edit("bucketfront.server.send.sender:Sender.begin", "if later:", "if False:"),),
        (SERVER + "test_cold_ranges.py::test_several_ranges_of_which_one_is_cold",),
    ),
    Bug(
        37,
        "saved-bytes-count-twice",
        "The bytes of a hit are saved twice: once with their request and once more as bytes of the cache.",
        (
            Edit(
                "bucketfront.admin.savings:Usage.saved_bytes",
                "self.client_bytes - self.origin_bytes",
                "2 * self.client_bytes - self.origin_bytes",
            ),
        ),
        (SERVER + "test_summary.py::test_money_of_a_proxy",),
    ),
    Bug(
        37,
        "received-bytes-count-twice",
        "Bytes that a client requested count as read ahead as well.",
        (
            Edit(
                "bucketfront.cache.fetch.part_transfer:PartTransfer._note_received",
                "count - wanted",
                "count",
            ),
        ),
        (SERVER + "test_metrics.py::test_bytes_from_the_origin",),
    ),
    Bug(
        31,
        "signatures-are-not-compared",
        "A request of a client of S3 is accepted with any signature.",
        (Edit("bucketfront.http.sigv4:verify", "not hmac.compare_digest(wanted, claim.signature)", "False"),),
        ("tests/http/test_sigv4.py::test_each_part_is_signed", HEADS + "test_any_change_of_a_signed_request"),
    ),
    Bug(
        31,
        "presigned-urls-never-expire",
        "A presigned URL is accepted after its time.",
        (Edit("bucketfront.http.sigv4:check_time", "now > signed_at + claim.expires", "False"),),
        ("tests/http/test_sigv4.py::test_expiry",),
    ),
    Bug(
        31,
        "fields-need-no-signature",
        "A field that changes what a request means may be added to it.",
        (Edit("bucketfront.http.sigv4:verify", "'host' not in claim.names or unsigned", "'host' not in claim.names"),),
        (HEADS + "test_any_change_of_a_signed_request", "tests/http/test_sigv4.py::test_fields_that_are_not_signed"),
    ),
    Bug(
        8,
        "chunk-signatures-are-not-compared",
        "The chunks of a signed body are accepted with any signature.",
        (
            Edit(
                "bucketfront.http.sigv4:ChunkSignatures._verify",
                "not hmac.compare_digest(wanted.encode(), signature.encode('utf-8', 'surrogateescape'))",
                "False",
            ),
        ),
        ("tests/http/test_sigv4.py::test_signatures_of_chunks",),
    ),
    Bug(
        8,
        "a-body-may-be-cut-to-nothing",
        "A signed body that is replaced by an empty one is stored as an empty object.",
        (
            Edit(
                "bucketfront.server.s3_endpoint.forwarded_operations:ForwardedOperations._request",
                "_ForwardedBody() if is_read else",
                "_ForwardedBody() if is_read or exchange.request.content_length == 0 else",
            ),
        ),
        (S3_HOSTILE + "test_a_body_that_was_cut_to_nothing",),
    ),
    Bug(
        32,
        "copies-read-beyond-the-grant",
        "A copy of a client of S3 reads an object that its key may not read.",
        (
            Edit(
                "bucketfront.server.s3_endpoint.s3_application:S3Application._perform_on_object",
                "replace(request, resource=source.resource)",
                "replace(request, resource=source.resource, grant=Grant(None, b'', may_write=False))",
            ),
        ),
        (SERVER + "test_s3_permissions.py::test_refused",),
    ),
    Bug(
        32,
        "a-parameter-twice-is-judged-once",
        "A parameter that is given twice reaches the origin, and the last value was judged.",
        (Edit("bucketfront.http.s3_query:parse", "if known in found:", "if False:"),),
        (S3_HOSTILE + "test_a_parameter_that_is_given_twice",),
    ),
    Bug(
        32,
        "fields-in-the-query-are-not-judged",
        "A copy source in the query of a request reaches the origin, and was not judged.",
        (Edit("bucketfront.http.s3_query:parse", "lower.startswith(_FIELD)", "False"),),
        (S3_HOSTILE + "test_a_copy_source_in_the_query",),
    ),
    Bug(
        5,
        "completed-uploads-are-not-followed",
        "The cache keeps the old version after a CompleteMultipartUpload.",
        (
            Edit(
                "bucketfront.server.s3_endpoint.s3_application:S3Application._forward",
                "request.operation not in OF_PARTS",
                "request.operation not in (*OF_PARTS, Operation.COMPLETE_MULTIPART_UPLOAD)",
            ),
        ),
        (
            SERVER + "test_s3_endpoint.py::test_each_write_is_seen_on_the_other_side",
            SERVER + "test_s3_changes.py::test_a_change_whose_response_is_lost",
        ),
    ),
    Bug(
        25,
        "objects-with-keys-of-clients-are-cached",
        "An object that a client stores with a key of its own is in the cache, for all.",
        (
            Edit(
                "bucketfront.server.s3_endpoint.endpoint_application:has_key_of_client",
                "not CUSTOMER_KEY_FIELDS.isdisjoint(fields)",
                "False",
            ),
        ),
        (S3_HOSTILE + "test_objects_with_keys_of_clients",),
    ),
)

NODES = tuple(dict.fromkeys(node for bug in BUGS for node in bug.nodes))
