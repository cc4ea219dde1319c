// Kernels with one bug each, that the runtime must see, and the same kernels without it.
#pragma once

namespace cuda_host::bugs {

// Every function launches one kernel on device memory of its own and waits for it. True = the result is right.
bool missing_barrier(bool fixed);
bool divergent_barrier(bool fixed);
bool barrier_after_return(bool fixed);
bool shared_overrun(bool fixed);
bool dynamic_shared_overrun(bool fixed);
bool missing_syncwarp(bool fixed);
bool non_atomic_add(bool fixed);
bool bad_shuffle_mask(bool fixed);
bool shuffle_from_absent_lane(bool fixed);
bool divergent_shuffle(bool fixed);
bool write_out_of_bounds(bool fixed);
bool read_out_of_bounds(bool fixed);
bool use_after_free(bool fixed);
bool uninitialised_read(bool fixed);
bool uninitialised_shared_read(bool fixed);
bool race_between_blocks(bool fixed);
bool race_of_filling_loops(bool fixed);
bool misaligned_read(bool fixed);
bool unsynchronised_host_read(bool fixed);
bool staging_reused_too_early(bool fixed);
bool ring_slot_reused_too_early(bool fixed);
bool missing_event(bool fixed);
bool host_read_of_device_memory(bool fixed);
bool endless_recursion(bool fixed);

}  // namespace cuda_host::bugs
