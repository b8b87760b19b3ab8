// What moves elements or makes them of nothing: copies from strides to strides, fills, random numbers.
#pragma once
#include "vector.h"

// A copy: the size of each axis, and how far neighbours on it lie apart where they come from and where they go. Along
// the last axis targets are neighbours in memory, along the one before it sources, unless that is the same axis.
template <int R> struct Places { ptrdiff_t size[R], from[R], to[R]; };

// A tile of so many rows and columns is read and written within the level-1 cache, whichever side has the gaps.
constexpr ptrdiff_t TILE = 16;

template <class T>
MG_INLINE void copy_rows(Range rows, ptrdiff_t columns, const T* x, ptrdiff_t row, ptrdiff_t column, T* y,
                         ptrdiff_t to_row, ptrdiff_t to_column) {
  if (column == 1 && to_column == 1) {
    for (ptrdiff_t i = rows.begin; i < rows.end; i++) memcpy(y + i * to_row, x + i * row, columns * sizeof(T));
    return;
  }
  for (ptrdiff_t from = 0; from < columns; from += TILE)
    for (ptrdiff_t i = rows.begin; i < rows.end; i++)
      for (ptrdiff_t j = from; j < at_most(from + TILE, columns); j++)
        y[i * to_row + j * to_column] = x[i * row + j * column];
}

template <int R, class T> static void copy(const Team& team, const Places<R>& p, const T* x, T* y) {
  const ptrdiff_t rows = p.size[R - 2], tiles = divided_up(rows, TILE);
  ptrdiff_t planes = 1;
  for (int axis = 0; axis < R - 2; axis++) planes *= p.size[axis];
  const Range mine = share(planes * tiles, team);
  for (ptrdiff_t t = mine.begin; t < mine.end; t++) {
    ptrdiff_t plane = t / tiles, from = 0, to = 0;
    for (int axis = R - 3; axis >= 0; axis--) {
      from += plane % p.size[axis] * p.from[axis], to += plane % p.size[axis] * p.to[axis];
      plane /= p.size[axis];
    }
    const ptrdiff_t first = t % tiles * TILE;
    copy_rows({first, at_most(first + TILE, rows)}, p.size[R - 1], x + from, p.from[R - 2], p.from[R - 1], y + to,
              p.to[R - 2], p.to[R - 1]);
  }
}

template <class T> static void fill(const Team& team, ptrdiff_t n, T value, T* y) {
  const Range mine = share(n, team);
  for (ptrdiff_t i = mine.begin; i < mine.end; i++) y[i] = value;
}

// y[o, i] = x[o, the index i], slices of `inner` elements; an index outside 0 … size − 1 becomes the nearest one inside.
template <class T, class I>
static void gather_clipped(const Team& team, ptrdiff_t outer, ptrdiff_t size, ptrdiff_t inner, ptrdiff_t count,
                           const T* x, const I* indices, T* y) {
  const Range mine = share(outer * count, team);
  for (ptrdiff_t t = mine.begin; t < mine.end; t++) {
    const I index = indices[t % count];
    const ptrdiff_t last = size - 1, place = index < 0 ? 0 : (uint64_t)index > (uint64_t)last ? last : (ptrdiff_t)index;
    memcpy(y + t * inner, x + (t / count * size + place) * inner, inner * sizeof(T));
  }
}

// Philox4x64-10: Salmon, Moraes, Dror & Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011.
MG_INLINE void philox(uint64_t* words, uint64_t key0, uint64_t key1) {
  for (int round = 0; round < 10; round++) {
    const unsigned __int128 a = (unsigned __int128)0xD2E7470EE14C6C93 * words[0];
    const unsigned __int128 b = (unsigned __int128)0xCA5A826395121157 * words[2];
    words[0] = (uint64_t)(b >> 64) ^ words[1] ^ key0, words[1] = (uint64_t)b;
    words[2] = (uint64_t)(a >> 64) ^ words[3] ^ key1, words[3] = (uint64_t)a;
    key0 += 0x9E3779B97F4A7C15, key1 += 0xBB67AE8584CAA73B;
  }
}

// Number i of a block: of each word, a float takes the upper bits of either half, the low half first.
MG_INLINE void uniform(const uint64_t* words, ptrdiff_t i, float* y) {
  *y = (float)((uint32_t)(words[i / 2] >> i % 2 * 32) >> 8) * 0x1p-24f;
}
MG_INLINE void uniform(const uint64_t* words, ptrdiff_t i, double* y) { *y = (double)(words[i] >> 11) * 0x1p-53; }

// y = uniform numbers in [0, 1): a pure function of key and counter, which is the high word of Philox' own.
template <class T>
static void random_uniform(const Team& team, ptrdiff_t n, uint64_t key0, uint64_t key1, const int64_t* counter, T* y) {
  constexpr ptrdiff_t in_block = 32 / sizeof(T);
  const Range mine = share(divided_up(n, in_block), team);
  for (ptrdiff_t block = mine.begin; block < mine.end; block++) {
    uint64_t words[4] = {(uint64_t)block + 1, 0, 0, (uint64_t)*counter};
    philox(words, key0, key1);
    const ptrdiff_t first = block * in_block;
    for (ptrdiff_t i = 0; i < at_most(in_block, n - first); i++) uniform(words, i, y + first + i);
  }
}
