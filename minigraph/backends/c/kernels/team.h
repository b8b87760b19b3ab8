// The team of threads that runs a program, and what a step of a program knows: its team and the memory.
//
// A sleeping thread takes some 50 µs to wake, a whole small step of training. So the workers spin, between steps of a
// program and for a moment behind its end; only then do they sleep.
#pragma once
#include <pthread.h>
#include <sched.h>

#include "vector.h"

// Where a program's arrays lie: most in one arena, variables and constants outside of it.
struct Memory {
  char* arena;
  void* const* outside;
  template <class T> T* in_arena(ptrdiff_t offset) const { return (T*)(arena + offset); }
  template <class T> T* at(int index) const { return (T*)outside[index]; }
};

struct Step {
  void (*run)(const Team&, const Memory&);
  bool parallel;  // a small step is run by the first thread alone
};

inline struct Crew {
  pthread_mutex_t busy = PTHREAD_MUTEX_INITIALIZER, lock = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t wake = PTHREAD_COND_INITIALIZER;
  int workers = 0, threads = 1;
  int arrived = 0, phase = 0;  // of the barrier
  int calls = 0, sleeping = 0, finished = 0;
  const Step *first, *last;
  Memory memory;
} crew;

// Threads do not survive a fork, and what they held at that moment would be held for ever.
inline void forget_the_crew() { crew = Crew{}; }
inline const int forgets = pthread_atfork(nullptr, nullptr, forget_the_crew);

MG_INLINE void pause_a_moment(int spins) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#endif
  if (spins % 4096 == 4095) sched_yield();  // the one that we wait for may have no processor
}

inline void Team::barrier() const {
  if (threads == 1) return;
  const int now = __atomic_load_n(&crew.phase, __ATOMIC_RELAXED);
  if (__atomic_add_fetch(&crew.arrived, 1, __ATOMIC_ACQ_REL) == threads) {
    __atomic_store_n(&crew.arrived, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&crew.phase, now + 1, __ATOMIC_RELEASE);
    return;
  }
  for (int spins = 0; __atomic_load_n(&crew.phase, __ATOMIC_ACQUIRE) == now; spins++) pause_a_moment(spins);
}

inline void run_steps(const Team& team) {
  for (const Step* step = crew.first; step < crew.last; step++) {
    const bool alone = !step->parallel;
    if (alone && team.thread == 0) step->run(Team{0, 1}, crew.memory);
    if (!alone) step->run(team, crew.memory);
    const bool goes_on = alone && step + 1 < crew.last && !step[1].parallel;
    if (!goes_on) team.barrier();
  }
}

inline int next_call(int seen) {
  for (int spins = 0; spins < 100000; spins++) {
    const int calls = __atomic_load_n(&crew.calls, __ATOMIC_ACQUIRE);
    if (calls != seen) return calls;
    pause_a_moment(spins);
  }
  pthread_mutex_lock(&crew.lock);
  crew.sleeping++;
  while (__atomic_load_n(&crew.calls, __ATOMIC_ACQUIRE) == seen) pthread_cond_wait(&crew.wake, &crew.lock);
  crew.sleeping--;
  pthread_mutex_unlock(&crew.lock);
  return __atomic_load_n(&crew.calls, __ATOMIC_ACQUIRE);
}

struct Start { int thread, seen; };  // of a worker: the calls that were made before it was there are not its own
inline Start starts[256];

inline void* work(void* argument) {
  const int thread = ((Start*)argument)->thread;
  for (int seen = ((Start*)argument)->seen;;) {
    seen = next_call(seen);
    if (thread < crew.threads) run_steps(Team{thread, crew.threads});
    __atomic_add_fetch(&crew.finished, 1, __ATOMIC_RELEASE);  // the call may now be forgotten
  }
  return nullptr;
}

// Run some of a program's steps on `threads` threads, of which the caller is the first.
inline void run_program(const Step* first, const Step* last, const Memory& memory, int threads) {
  pthread_mutex_lock(&crew.busy);
  for (; crew.workers < at_most(threads - 1, 255); crew.workers++) {
    pthread_t made;
    starts[crew.workers] = {crew.workers + 1, crew.calls};
    if (pthread_create(&made, nullptr, work, &starts[crew.workers])) break;
    pthread_detach(made);
  }
  crew.threads = crew.workers + 1 < threads ? crew.workers + 1 : threads;
  crew.first = first, crew.last = last, crew.memory = memory;
  bool parallel = false;
  for (const Step* step = first; step < last; step++) parallel |= step->parallel;
  if (!parallel) crew.threads = 1;
  const bool woken = crew.threads > 1;
  if (woken) {
    crew.finished = 0;
    __atomic_add_fetch(&crew.calls, 1, __ATOMIC_RELEASE);
    pthread_mutex_lock(&crew.lock);
    if (crew.sleeping) pthread_cond_broadcast(&crew.wake);
    pthread_mutex_unlock(&crew.lock);
  }
  run_steps(Team{0, crew.threads});
  for (int spins = 0; woken && __atomic_load_n(&crew.finished, __ATOMIC_ACQUIRE) < crew.workers; spins++) pause_a_moment(spins);
  pthread_mutex_unlock(&crew.busy);
}
