// Random numbers from a key and a counter: Philox4x64-10, Salmon, Moraes, Dror & Shaw, "Parallel random numbers: as
// easy as 1, 2, 3", 2011; number for number those of NumPy's generator.
#pragma once
#include "types.cuh"

struct Block {
  uint64_t words[4];
};
MG_INLINE Block philox(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t key0, uint64_t key1) {
#pragma unroll
  for (int round = 0; round < 10; round++) {
    const uint64_t high_a = __umul64hi(0xD2E7470EE14C6C93, a), low_a = 0xD2E7470EE14C6C93 * a;
    const uint64_t high_c = __umul64hi(0xCA5A826395121157, c), low_c = 0xCA5A826395121157 * c;
    a = high_c ^ b ^ key0, b = low_c;
    c = high_a ^ d ^ key1, d = low_a;
    key0 += 0x9E3779B97F4A7C15, key1 += 0xBB67AE8584CAA73B;
  }
  return {{a, b, c, d}};
}

// Number i of a block: of each word, a float takes the upper bits of either half, the low half first.
MG_INLINE void uniform(const Block& block, int i, float& y) {
  y = (float)((uint32_t)(block.words[i / 2] >> i % 2 * 32) >> 8) * 0x1p-24f;
}
MG_INLINE void uniform(const Block& block, int i, double& y) { y = (double)(block.words[i] >> 11) * 0x1p-53; }

// y = n uniform numbers in [0, 1); the counter is the high word of Philox' own.
template <class T>
MG_INLINE void random_uniform(Index n, uint64_t key0, uint64_t key1, const int64_t* counter, T* y) {
  constexpr int EACH = 32 / sizeof(T), HALF = EACH / 2;
  for (Index number = thread_index(); number * EACH < n; number += thread_count()) {
    const Block block = philox((uint64_t)number + 1, 0, 0, (uint64_t)*counter, key0, key1);
    Pack<T, HALF> halves[2];
#pragma unroll
    for (int i = 0; i < EACH; i++) uniform(block, i, halves[i / HALF].at[i % HALF]);
    T* at = y + number * EACH;
    if (number * EACH + EACH <= n) {
      store<HALF>(at, halves[0]), store<HALF>(at + HALF, halves[1]);
      continue;
    }
#pragma unroll
    for (int i = 0; i < EACH; i++)
      if (number * EACH + i < n) at[i] = halves[i / HALF].at[i % HALF];
  }
}
