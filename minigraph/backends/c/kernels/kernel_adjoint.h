// The adjoint of a convolution for its kernel: gradients of weights.
//
// Row = tap and channel of the image, column = channel of the output, k = pixel. A tile of the result stays in
// registers over the pixels of a block: some lines of an image, or some images. Then it is added to sums in memory, and
// the next tile has its turn with the same pixels. Where images must be copied to be padded, that goes by chunks of
// channels, so that blocks can be long although they stay in the second-level cache.
//
// Threads share the pixels, each with sums of its own, which are added up in the order of the threads. If that were
// much memory, or the pixels are few, they share the rows and columns of the result instead.
#pragma once
#include "patch.h"
#include "tile.h"

namespace kernel_adjoint_blocks {

constexpr ptrdiff_t PIXELS = 1024, BYTES = 320 * 1024;  // of a block

template <class T>
struct Plan {
  Sides s;
  Lay lay;
  ptrdiff_t lines;                  // of a block
  ptrdiff_t taps, chunks, panels;   // of a group; a chunk are lay.channels, the last may be fewer
  ptrdiff_t chunk_tiles;
  bool one_block, split_pixels;
  ptrdiff_t sums_size;
  T *copy, *panel, *sums;

  Plan(const Conv& conv, const Team& team, void* scratch) : s(conv, false), lay(lay_of<T>(s)) {
    constexpr ptrdiff_t N = TILE_COLUMNS<T>;
    lines = at_most(s.lines(), at_least(1, PIXELS / s.w));
    lines = lines >= s.h ? lines / s.h * s.h : divided_up(s.h, divided_up(s.h, lines));
    const ptrdiff_t copied_lines = lines_of(at_most(lines, s.h)) * at_least(1, lines / s.h);
    if (lay.copied) {
      const ptrdiff_t fit = BYTES / (copied_lines * length(lay.columns) * (ptrdiff_t)sizeof(T)) / 16 * 16;
      const ptrdiff_t number = divided_up(s.source_c, at_least(16, fit));
      lay = copied<T>(s, at_most(s.source_c, divided_up(divided_up(s.source_c, number), 16) * 16));
    }
    taps = conv.kh * conv.kw;
    chunks = divided_up(s.source_c, lay.channels);
    chunk_tiles = divided_up(taps * lay.channels, TILE_ROWS);
    panels = divided_up(s.c, N);
    const ptrdiff_t units = conv.groups * chunks * chunk_tiles * panels;
    const bool small = conv.groups * s.depth() * s.c * (ptrdiff_t)sizeof(T) <= 1 << 20;
    split_pixels = team.threads > 1 && s.lines() >= team.threads &&
                   (units < 4 * team.threads || (small && s.lines() * s.w >= 256 * team.threads));
    one_block = lines >= s.lines();
    sums_size = split_pixels || !one_block ? conv.groups * panels * (s.depth() + chunks) * N : 0;
    const ptrdiff_t copy_size = lay.copied ? copied_lines * lay.line : 0;
    const ptrdiff_t size = divided_up((copy_size + lines * s.w * N) * sizeof(T), 64) * 64;
    copy = (T*)((char*)scratch + size * team.thread);
    panel = copy + copy_size;
    sums = (T*)((char*)scratch + size * team.threads);
  }
  // Lines of an image that so many lines of the output read.
  ptrdiff_t lines_of(ptrdiff_t n) const { return length(s.lines_read({0, n})); }
  // Where a chunk of a panel has its sums: [rows][TILE_COLUMNS], with one row more than there are, for odd tiles.
  T* sums_of(ptrdiff_t thread, ptrdiff_t group, ptrdiff_t panel, ptrdiff_t chunk) const {
    const ptrdiff_t row = (group * panels + panel) * (s.depth() + chunks) + chunk * (taps * lay.channels + 1);
    return sums + (split_pixels ? thread : 0) * sums_size + row * TILE_COLUMNS<T>;
  }
};

// What a tile of the result is: rows of a chunk of channels, columns of a panel.
struct Place {
  ptrdiff_t group, chunk, channels, panel, row, rows;
};

// The pixels that are added up at a time: some lines of one image, or some whole images.
struct Pixels {
  Range lines;
  ptrdiff_t images;
};

template <class T>
static Pixels pixels_from(const Plan<T>& p, ptrdiff_t line, ptrdiff_t end) {
  const ptrdiff_t h = p.s.h, images = at_most(p.lines, end - line) / h;
  if (line % h == 0 && images > 0) return {{line, line + images * h}, images};
  return {{line, at_most(at_most(line + p.lines, end), (line / h + 1) * h)}, 1};
}

// The outputs of some pixels, the columns of a panel side by side.
template <class T>
static __attribute__((noinline)) void copy_panel(const Plan<T>& p, Range lines, ptrdiff_t group, ptrdiff_t panel,
                                                 const T* outputs) {
  constexpr ptrdiff_t N = TILE_COLUMNS<T>;
  const ptrdiff_t columns = at_most(N, p.s.c - panel * N);
  const T* from = outputs + lines.begin * p.s.w * p.s.conv.o + group * p.s.c + panel * N;
  T* to = p.panel;
  for (ptrdiff_t i = 0; i < length(lines) * p.s.w; i++, from += p.s.conv.o, to += N) {
    memcpy(to, from, columns * sizeof(T));
    memset(to + columns, 0, (N - columns) * sizeof(T));
  }
}

// Add the products of some pixels to a tile. `base` is where the first pixel's first tap reads the chunk's channels.
template <class T>
static void add_pixels(const Plan<T>& p, const Pixels& pixels, const Place& at, const T* base, T* tile, bool more) {
  const Conv& conv = p.s.conv;
  const T* rows[TILE_ROWS];
  ptrdiff_t tap = at.row / at.channels, channel = at.row % at.channels;
  for (ptrdiff_t i = 0; i < at.rows; tap++, channel = 0) {
    const T* from = base + tap / conv.kw * conv.dh * p.lay.line + tap % conv.kw * conv.dw * p.lay.pixel;
    for (; i < at.rows && channel < at.channels; i++, channel++) rows[i] = from + channel;
  }
  const ptrdiff_t lines = length(pixels.lines) / pixels.images;
  const ptrdiff_t image = p.lay.copied ? p.lines_of(lines) : p.s.source_h;
  const Walk walk = {pixels.images, image * p.lay.line, lines, conv.sh * p.lay.line, p.s.w, conv.sw * p.lay.pixel};
  const ptrdiff_t columns = p.s.c - at.panel * TILE_COLUMNS<T>;
  multiply<T>(at.rows, rows, merged(walk), p.panel, TILE_COLUMNS<T>, columns, tile, more);
}

// Put a tile: row after row of one tap, then of the next.
template <class T, class E>
static __attribute__((noinline)) void put_sums(const Plan<T>& p, const Place& at, const T* tile, E& e, const Team& team) {
  constexpr ptrdiff_t N = TILE_COLUMNS<T>;
  const ptrdiff_t column = at.group * p.s.c + at.panel * N, columns = at_most(N, p.s.c - at.panel * N);
  ptrdiff_t tap = at.row / at.channels, channel = at.row % at.channels;
  for (ptrdiff_t n, i = 0; i < at.rows; i += n, tap++, channel = 0) {
    n = at_most(at.rows - i, at.channels - channel);
    const ptrdiff_t row = tap * p.s.source_c + at.chunk * p.lay.channels + channel;
    ptrdiff_t ids[TILE_ROWS];
    for (ptrdiff_t j = 0; j < n; j++) ids[j] = row + j;
    put_tile(e, tile + i * N, n, ids, column, columns);
    e.done(row, n, column, columns, team);
  }
}

// Call f for the tiles in a range that belong to one panel of a chunk; they are numbered through all chunks and groups.
template <class T, class F>
static void each_tile(const Plan<T>& p, Range tiles, ptrdiff_t group, ptrdiff_t chunk, ptrdiff_t panel, const F& f) {
  const ptrdiff_t channels = at_most(p.lay.channels, p.s.source_c - chunk * p.lay.channels), all = p.taps * channels;
  const ptrdiff_t before = (group * p.chunks + chunk) * p.chunk_tiles;
  const ptrdiff_t end = at_most(all, (tiles.end - before) * TILE_ROWS);
  for (ptrdiff_t row = at_least(0, tiles.begin - before) * TILE_ROWS; row < end; row += TILE_ROWS)
    f(Place{group, chunk, channels, panel, row, at_most(TILE_ROWS, all - row)});
}

// Add up the pixels of a block for a thread's share of the result; put it if these are the last.
template <class T, class E>
static void add_block(Plan<T>& p, const Pixels& pixels, const Parts& mine, const T* images, const T* outputs,
                      bool more, bool last, E& e, const Team& team) {
  T held[TILE_ROWS * TILE_COLUMNS<T>];
  const ptrdiff_t line = p.s.source_w * p.s.conv.c, first = pixels.lines.begin;
  for (ptrdiff_t i = mine.rows.begin / p.chunk_tiles; i * p.chunk_tiles < mine.rows.end; i++) {
    const ptrdiff_t group = i / p.chunks, chunk = i % p.chunks;
    const T* from = images + group * p.s.source_c + chunk * p.lay.channels;
    Lay lay = p.lay;
    lay.channels = at_most(p.lay.channels, p.s.source_c - chunk * p.lay.channels);
    if (lay.copied) copy_block(p.s, lay, pixels.lines, from, p.copy);
    const T* base = lay.copied ? p.copy : from + (first / p.s.h * p.s.source_h + first % p.s.h * p.s.conv.sh) * line;
    for (ptrdiff_t panel = mine.panels.begin; panel < mine.panels.end; panel++) {
      copy_panel(p, pixels.lines, group, panel, outputs);
      T* sums = p.sums_of(team.thread, group, panel, chunk);
      each_tile(p, mine.rows, group, chunk, panel, [&](const Place& at) {
        T* tile = p.sums_size ? sums + at.row * TILE_COLUMNS<T> : held;
        add_pixels(p, pixels, at, base, tile, more);
        if (last && !p.split_pixels) put_sums(p, at, tile, e, team);
      });
    }
  }
}

// Add up a tile of all threads.
template <class T>
static __attribute__((noinline)) void add_threads(const Plan<T>& p, const Place& at, int threads, T* tile) {
  for (ptrdiff_t j = 0; j < at.rows * TILE_COLUMNS<T>; j++) tile[j] = 0;
  for (int thread = 0; thread < threads; thread++) {
    const T* sums = p.sums_of(thread, at.group, at.panel, at.chunk) + at.row * TILE_COLUMNS<T>;
    for (ptrdiff_t j = 0; j < at.rows * TILE_COLUMNS<T>; j++) tile[j] += sums[j];
  }
}

// Put the sums of all threads.
template <class T, class E>
static void put_all(Plan<T>& p, E& e, const Team& team) {
  T tile[TILE_ROWS * TILE_COLUMNS<T>];
  const Parts mine = shared(p.s.conv.groups * p.chunks * p.chunk_tiles, p.panels, team, false);
  for (ptrdiff_t i = mine.rows.begin / p.chunk_tiles; i * p.chunk_tiles < mine.rows.end; i++)
    for (ptrdiff_t panel = mine.panels.begin; panel < mine.panels.end; panel++)
      each_tile(p, mine.rows, i / p.chunks, i % p.chunks, panel, [&](const Place& at) {
        add_threads(p, at, team.threads, tile);
        put_sums(p, at, tile, e, team);
      });
}

}  // namespace kernel_adjoint_blocks

namespace kernel_adjoint {

template <class T, class E>
static void run(const Team& team, const Conv& conv, const T* images, const T* outputs, E& e, void* scratch) {
  using namespace kernel_adjoint_blocks;
  Plan<T> p(conv, team, scratch);
  const ptrdiff_t tiles = conv.groups * p.chunks * p.chunk_tiles;
  const Range lines = p.split_pixels ? share(p.s.lines(), team) : Range{0, p.s.lines()};
  const Parts mine = p.split_pixels ? Parts{{0, tiles}, {0, p.panels}} : shared(tiles, p.panels, team, false);
  for (ptrdiff_t line = lines.begin; line < lines.end;) {
    const Pixels pixels = pixels_from(p, line, lines.end);
    add_block(p, pixels, mine, images, outputs, line > lines.begin, pixels.lines.end == lines.end, e, team);
    line = pixels.lines.end;
  }
  if (!p.split_pixels) return;
  team.barrier();
  put_all(p, e, team);
}

}  // namespace kernel_adjoint
