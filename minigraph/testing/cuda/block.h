// The threads of a block, each on a fiber, one block at a time.
//
// A thread runs until it ends or waits. Threads that end without waiting use one stack in turn: a kernel without
// barriers is a plain loop over its threads. When all have ended or wait, those whose barrier is complete go on; if
// there are none, the kernel is wrong: on a device it would hang, or do what nobody defined.
#pragma once
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "fibers.h"

struct uint3 { unsigned x, y, z; };
struct dim3 { unsigned x = 1, y = 1, z = 1; };
static uint3 threadIdx, blockIdx;
static dim3 blockDim, gridDim;

namespace mg {

constexpr int MOST_THREADS = 1024, WARP = 32;
constexpr size_t STACK = 1 << 17, SHARED = 48 << 10;
constexpr unsigned long BOTTOM = 0x5AFE57AC5AFE57AC;  // what a stack's last bytes hold

enum State { READY, AT_BLOCK_BARRIER, AT_WARP_BARRIER, ENDED };

// Where a barrier stands in the file: its line, and a number that no other has.
struct Place { int line, number; };

struct Thread {
  uint3 index;
  State state;
  int worker;            // the fiber that it runs on, −1 before it begins
  Place place;           // of the barrier that it waits at
  unsigned mask;         // the lanes that it waits for
  int source;            // the lane whose value it asks for
  unsigned char value[8], received[8];
};

// A fiber that runs threads, one after the other.
struct Worker {
  Fiber fiber;
  bool prepared = false;
};

static Thread threads[MOST_THREADS];
static Worker workers[MOST_THREADS];
static int idle[MOST_THREADS], idle_count;
static Fiber scheduler;
static char* stack_memory;
static int current, thread_count, live;
static void (*body)(void*);
static void* body_data;
static char failure[512];
static size_t shared_bytes;
static unsigned long block_number;  // differs from block to block and from launch to launch

inline Thread& self() { return threads[current]; }

inline void stop() { Fiber::go(workers[self().worker].fiber, scheduler); }

// End the launch with a message; comes back to no thread.
inline void fail(const char* format, ...) {
  va_list values;
  va_start(values, format);
  if (!failure[0]) vsnprintf(failure, sizeof failure, format, values);
  va_end(values);
  stop();
}

inline void work() {
  for (;;) {
    body(body_data);
    self().state = ENDED;
    --live;
    stop();
  }
}

inline void resume(int i) {
  current = i;
  Thread& thread = threads[i];
  threadIdx = thread.index;
  if (thread.worker < 0) thread.worker = idle[--idle_count];
  Worker& worker = workers[thread.worker];
  unsigned long* bottom = (unsigned long*)(stack_memory + (thread.worker + 1) * STACK);
  if (!worker.prepared) {
    worker.fiber.prepare((char*)bottom, STACK, work);
    worker.prepared = true;
    *bottom = BOTTOM;
  }
  Fiber::go(scheduler, worker.fiber);
  if (*bottom != BOTTOM) snprintf(failure, sizeof failure, "thread %d: more than %zu bytes of local memory", i, STACK);
  if (thread.state == ENDED) idle[idle_count++] = thread.worker;
}

inline void wait(State state, Place place) {
  self().state = state;
  self().place = place;
  stop();
}

inline const char* barrier_name(State state) {
  return state == AT_BLOCK_BARRIER ? "__syncthreads" : "a warp's barrier";
}

// Say that two threads wait in vain.
inline void report_divergence(int one, int other) {
  const Thread &a = threads[one], &b = threads[other];
  snprintf(failure, sizeof failure, "divergent barrier: thread %d waits at %s in line %d, thread %d at %s in line %d",
           one, barrier_name(a.state), a.place.line, other, barrier_name(b.state), b.place.line);
}

inline int first_waiting(State state) {
  for (int i = 0; i < thread_count; ++i)
    if (threads[i].state == state) return i;
  return -1;
}

// Let the block go on if all its threads that have not ended wait at one __syncthreads.
inline bool release_block() {
  const int first = first_waiting(AT_BLOCK_BARRIER);
  for (int i = 0; i < thread_count; ++i) {
    if (threads[i].state == ENDED) continue;
    if (threads[i].state != AT_BLOCK_BARRIER) return false;
    if (threads[i].place.number != threads[first].place.number) {
      report_divergence(first, i);
      return false;
    }
  }
  for (int i = 0; i < thread_count; ++i)
    if (threads[i].state == AT_BLOCK_BARRIER) threads[i].state = READY;
  return true;
}

// Let the lanes of a mask go on if all that have not ended wait at one place, and give each the value it asked for.
inline bool release_lanes(int warp, unsigned mask, Place place) {
  for (int lane = 0; lane < WARP; ++lane) {
    if (!(mask >> lane & 1) || warp + lane >= thread_count || threads[warp + lane].state == ENDED) continue;
    Thread& thread = threads[warp + lane];
    if (thread.state != AT_WARP_BARRIER || thread.mask != mask || thread.place.number != place.number) return false;
  }
  auto here = [&](int lane) {
    return (mask >> lane & 1) && warp + lane < thread_count && threads[warp + lane].state == AT_WARP_BARRIER;
  };
  for (int lane = 0; lane < WARP; ++lane) {
    if (!here(lane)) continue;
    Thread& thread = threads[warp + lane];
    if (here(thread.source)) memcpy(thread.received, threads[warp + thread.source].value, sizeof thread.value);
    else memset(thread.received, 0xFF, sizeof thread.received);  // a lane that takes no part has no value
  }
  for (int lane = 0; lane < WARP; ++lane)
    if (here(lane)) threads[warp + lane].state = READY;
  return true;
}

inline bool release_warps() {
  bool any = false;
  for (int i = 0; i < thread_count; ++i)
    if (threads[i].state == AT_WARP_BARRIER) any |= release_lanes(i / WARP * WARP, threads[i].mask, threads[i].place);
  return any;
}

// Say why no thread goes on. One at least waits for lanes: if all waited at __syncthreads, release_block has said it.
inline void explain_hang() {
  const int block = first_waiting(AT_BLOCK_BARRIER), warp = first_waiting(AT_WARP_BARRIER);
  if (block >= 0) return report_divergence(block, warp);
  snprintf(failure, sizeof failure, "divergent barrier: thread %d waits at a warp's barrier in line %d with mask %08x,"
           " and not all its lanes come there", warp, threads[warp].place.line, threads[warp].mask);
}

// Run the threads of a block, from the first or from the last; false with `failure` where that cannot be done.
inline bool run_block(bool backwards) {
  ++block_number;
  shared_bytes = 0;
  live = thread_count;
  for (int i = 0; i < thread_count; ++i) threads[i].state = READY, threads[i].worker = -1;
  while (live) {
    for (int k = 0; k < thread_count; ++k) {
      const int i = backwards ? thread_count - 1 - k : k;
      if (threads[i].state == READY) resume(i);
      if (failure[0]) return false;
    }
    if (!live || release_block()) continue;
    if (failure[0]) return false;
    if (release_warps()) continue;
    explain_hang();
    return false;
  }
  return true;
}

inline void prepare(const unsigned* shape, char* stacks) {
  gridDim = {shape[0], shape[1], shape[2]};
  blockDim = {shape[3], shape[4], shape[5]};
  thread_count = blockDim.x * blockDim.y * blockDim.z;
  failure[0] = 0;
  stack_memory = stacks;
  for (int i = 0; i < thread_count; ++i)
    threads[i].index = {i % blockDim.x, i / blockDim.x % blockDim.y, i / (blockDim.x * blockDim.y)};
  idle_count = 0;
  for (int i = MOST_THREADS; i-- > 0;) {
    workers[i].prepared = false;  // others have used the memory of stacks since
    idle[idle_count++] = i;
  }
}

// Run a grid: x, y, z of it, x, y, z of its blocks, and whether from the last thread to the first; over memory for
// MOST_THREADS stacks and one more, which is left free below them. Returns null, or what failed.
inline const char* run_grid(const unsigned* shape, char* stacks) {
  prepare(shape, stacks);
  const unsigned long blocks = (unsigned long)gridDim.x * gridDim.y * gridDim.z;
  for (unsigned long k = 0; k < blocks; ++k) {
    const unsigned long i = shape[6] ? blocks - 1 - k : k;
    blockIdx = {unsigned(i % gridDim.x), unsigned(i / gridDim.x % gridDim.y), unsigned(i / gridDim.x / gridDim.y)};
    if (!run_block(shape[6])) return failure;
  }
  return nullptr;
}

// What a thread reads of shared memory before one of its block has written it.
inline void poison(unsigned long& poisoned, void* shared, size_t bytes) {
  if (poisoned == block_number) return;
  poisoned = block_number;
  memset(shared, 0xFF, bytes);
  shared_bytes += bytes;
  if (shared_bytes > SHARED) fail("%zu bytes of static shared memory: a block has %zu", shared_bytes, SHARED);
}

}  // namespace mg

// What a compiler calls where it was asked to check (-fsanitize=…) and finds a fault, told where. The kernel ends.
struct MgFault { const char* file; unsigned line, column; };
extern "C" void __ubsan_handle_type_mismatch_v1(const MgFault* fault, unsigned long address) {
  mg::fail("thread %d: address %#lx is not aligned, in line %u", mg::current, address, fault->line);
}
extern "C" void __ubsan_handle_out_of_bounds(const MgFault* fault, unsigned long index) {
  mg::fail("thread %d: index %ld is out of an array's bounds, in line %u", mg::current, (long)index, fault->line);
}
extern "C" void __ubsan_handle_divrem_overflow(const MgFault* fault, unsigned long, unsigned long) {
  mg::fail("thread %d: an integer is divided by 0, in line %u", mg::current, fault->line);
}
extern "C" void __ubsan_handle_load_invalid_value(const MgFault* fault, unsigned long value) {
  mg::fail("thread %d: a bool is neither true nor false but %lu, in line %u", mg::current, value & 0xFF, fault->line);
}
