"""What fuzzing found in the package, and the test that keeps it mended."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault: the target, what happened, what happens now, and its smallest form as a test."""

    target: str
    was: str
    now: str
    test: str


FINDINGS = (
    Finding(
        "mask",
        "A mask file whose positions wrap around 64 bits was read, with a position below 0.",
        "Refused: positions are compared, not subtracted.",
        "test_positions_of_a_mask_that_wrap_are_refused",
    ),
    Finding(
        "task",
        "A task file of 7 kB held 64 MiB of JSON as its manifest, which took 11 seconds to refuse.",
        "Refused unread: a manifest is at most 1 MiB and 128 times its frame (SPEC 3.1).",
        "test_a_small_file_with_a_long_manifest_is_refused",
    ),
    Finding(
        "archive",
        "The same of the header of a weight file in an archive, up to 25 MB.",
        "Refused unread by the same clause (ARCHIVE 3.3).",
        "test_a_small_archive_with_a_long_header_is_refused",
    ),
    Finding(
        "task",
        "Entries drawn by the codec `seeded` were limited block by block, so time grew with the number of blocks.",
        "Those of all blocks count against the budget (codecs/seeded.md 3).",
        "test_entries_drawn_by_all_blocks_count",
    ),
    Finding(
        "record",
        "An undo file with positions and no bits ended in a KeyError; positions of any dtype were taken as integers.",
        "Refused with the tensor's name.",
        "test_saved_positions_without_bits_are_refused",
    ),
    Finding(
        "record",
        "A scale that is half a surrogate pair was read, and crashed the writer of the next record.",
        "Refused.",
        "test_a_scale_that_is_no_text_is_refused",
    ),
    Finding(
        "record",
        "An infinite weight or scale (`1e999`) was read; the record then written was refused.",
        "Refused.",
        "test_an_infinite_number_of_a_member_is_refused",
    ),
    Finding(
        "record",
        "A file name of more than 255 bytes in a record ended in an OSError.",
        "Refused, by the rule of shard names.",
        "test_a_file_of_a_name_that_no_system_has_is_refused",
    ),
    Finding(
        "checkpoint",
        "A shard name of more than 255 bytes in an index ended in an OSError.",
        "Refused, with the tensor that names it.",
        "test_a_shard_of_a_name_that_no_system_has_is_refused",
    ),
    Finding(
        "checkpoint",
        "`-0` was read as a dimension or an offset, which no other reader of safetensors does.",
        "Refused.",
        "test_an_integer_of_minus_0_is_refused",
    ),
    Finding(
        "store",
        "Opening a store set aside 64 MiB for a file of a few hundred bytes.",
        "As much as the file holds.",
        "test_a_small_store_file_takes_little_memory",
    ),
)
