// Convolutions, and their adjoints for the images, as matrix products without the matrix ("implicit GEMM").
//
// Row = pixel of the result, column = its channel, k = tap and channel of the source. A tile takes any pixels, so it is
// full however short the lines are. (Zhang, Franchetti & Low, "High Performance Zero-Memory Overhead Direct
// Convolutions", 2018.) An adjoint with strides falls into phases, see taps.h; a convolution is a single phase.
#pragma once
#include "patch.h"
#include "pack.h"

namespace direct_blocks {

struct Phase {
  Axis vertical, horizontal;
  Walk walk;
  ptrdiff_t pixels;  // of the block at hand
};
static_assert(sizeof(Phase) <= 256, "scratch memory is counted in 256 bytes a phase");

// What a thread works on: some lines of the result. All pixels are listed, phase after phase: where their first tap
// reads, and which row of the result they are.
template <class T>
struct Block {
  Sides s;
  Lay lay;
  ptrdiff_t lines, phases;
  Phase* phase;
  const T** pixels;
  ptrdiff_t* ids;
  T* copy;

  Block(const Conv& conv, bool adjoint, const Team& team, void* scratch)
      : s(conv, adjoint), lay(lay_of<T>(s)), lines(block_lines<T>(s, lay)) {
    phases = s.vertical_phases() * s.horizontal_phases();
    const ptrdiff_t places = lines * s.w;
    const ptrdiff_t copied = lay.copied ? lines_copied(s, lines) * lay.line * sizeof(T) : 0;
    const ptrdiff_t bytes = phases * 256 + places * 16 + divided_up(copied, 64) * 64;
    phase = (Phase*)((char*)scratch + divided_up(bytes, 64) * 64 * team.thread);
    copy = (T*)((char*)phase + phases * 256);
    pixels = (const T**)((char*)copy + divided_up(copied, 64) * 64);
    ids = (ptrdiff_t*)(pixels + places);
    for (ptrdiff_t i = 0; i < phases; i++) {
      const Axis v = s.vertical(i / s.horizontal_phases()), h = s.horizontal(i % s.horizontal_phases());
      phase[i] = {v, h, merged({v.taps, v.reach * lay.line, h.taps, h.reach * lay.pixel, s.source_c, 1}), 0};
    }
  }
};

// List the pixels of some lines of one image in one phase, from `at` on.
template <class T>
static void list_pixels(Block<T>& b, Phase& phase, ptrdiff_t image, Range lines, ptrdiff_t first_line, const T* source,
                        ptrdiff_t at) {
  const Axis &v = phase.vertical, &h = phase.horizontal;
  const Range u = v.within(lines);
  const T** pixels = b.pixels + at + phase.pixels;
  ptrdiff_t* ids = b.ids + at + phase.pixels;
  for (ptrdiff_t i = u.begin; i < u.end; i++) {
    const ptrdiff_t line = v.source + v.source_step * i - first_line, column = h.source - b.lay.columns.begin;
    const T* pixel = source + line * b.lay.line + column * b.lay.pixel;
    const ptrdiff_t id = (image * b.s.h + v.first + v.step * i) * b.s.w + h.first;
    for (ptrdiff_t j = 0; j < h.count; j++) {
      *pixels++ = pixel + j * h.source_step * b.lay.pixel;
      *ids++ = id + j * h.step;
    }
  }
  phase.pixels += length(u) * h.count;
}

// Copy what the block reads, if it is to be copied, and list its pixels. `source` points to the group's first channel.
template <class T>
static __attribute__((noinline)) void prepare(Block<T>& b, Range lines, const T* source) {
  if (b.lay.copied) copy_block(b.s, b.lay, lines, source, b.copy);
  ptrdiff_t at = 0;
  for (Phase* phase = b.phase; phase < b.phase + b.phases; phase++) {
    const T* from = b.copy;
    phase->pixels = 0;
    each_image(b.s, lines, [&](ptrdiff_t image, Range part, Range read) {
      if (b.lay.copied) list_pixels(b, *phase, image, part, read.begin, from, at);
      else list_pixels(b, *phase, image, part, 0, source + image * b.s.source_h * b.lay.line, at);
      from += length(read) * b.lay.line;
    });
    at += phase->pixels;
  }
}

// Multiply all pixels of a block with one panel of the kernel, and put the result.
template <class T, class E>
static void multiply_block(const Block<T>& b, const T* panel, ptrdiff_t column, ptrdiff_t columns, E& e) {
  T tile[TILE_ROWS * TILE_COLUMNS<T>];
  const T** pixels = b.pixels;
  const ptrdiff_t* ids = b.ids;
  for (const Phase* phase = b.phase; phase < b.phase + b.phases; phase++) {
    for (ptrdiff_t n, left = phase->pixels; left > 0; left -= n, pixels += n, ids += n) {
      n = at_most(TILE_ROWS, left);
      multiply<T>(n, pixels, phase->walk, panel, TILE_COLUMNS<T>, columns, tile, false);
      put_tile(e, tile, n, ids, column, columns);
    }
    panel += phase->walk.steps() * TILE_COLUMNS<T>;
  }
}

template <class T, class E>
static void run(const Team& team, const Conv& conv, bool adjoint, const T* source, const T* packed, E& e,
                void* scratch) {
  Block<T> b(conv, adjoint, team, scratch);
  const Sides& s = b.s;
  constexpr ptrdiff_t N = TILE_COLUMNS<T>;
  const ptrdiff_t panels = divided_up(s.c, N), weights = s.depth() * panels * N * sizeof(T);
  const Parts mine = shared(s.lines(), panels * conv.groups, team, weights > 512 * 1024);
  for (ptrdiff_t line = mine.rows.begin; line < mine.rows.end; line += b.lines) {
    const Range lines = {line, at_most(line + b.lines, mine.rows.end)};
    ptrdiff_t prepared = -1;
    for (ptrdiff_t i = mine.panels.begin; i < mine.panels.end; i++) {
      const ptrdiff_t group = i / panels, from = i % panels * N, columns = at_most(N, s.c - from);
      if (group != prepared) prepare(b, lines, source + group * s.source_c);
      prepared = group;
      multiply_block(b, packed + i * s.depth() * N, group * s.c + from, columns, e);
      e.done(lines.begin * s.w, length(lines) * s.w, group * s.c + from, columns, team);
    }
  }
}

// The kernel as [group][panel][phase][tap][channel of the source][channel of the result].
template <class T>
static void pack(const Team& team, const Conv& conv, bool adjoint, const T* kernel, T* packed) {
  const Sides s(conv, adjoint);
  constexpr ptrdiff_t N = TILE_COLUMNS<T>;
  const ptrdiff_t panels = divided_up(s.c, N), inputs = conv.c / conv.groups;
  const ptrdiff_t row = adjoint ? 1 : conv.o, column = adjoint ? conv.o : 1;
  const Range mine = share(panels * conv.groups, team);
  for (ptrdiff_t i = mine.begin; i < mine.end; i++) {
    const ptrdiff_t from = i % panels * N, columns = at_most(N, s.c - from);
    const T* group = kernel + i / panels * (conv.o / conv.groups) + from * column;
    T* to = packed + i * s.depth() * N;
    for (ptrdiff_t phase = 0; phase < s.vertical_phases() * s.horizontal_phases(); phase++) {
      const Axis v = s.vertical(phase / s.horizontal_phases()), h = s.horizontal(phase % s.horizontal_phases());
      for (ptrdiff_t tap = 0; tap < v.taps * h.taps; tap++) {
        const ptrdiff_t a = v.tap + tap / h.taps * v.tap_step, b = h.tap + tap % h.taps * h.tap_step;
        const T* weights = group + (a * conv.kw + b) * inputs * conv.o;
        pack_panel(s.source_c, columns, weights, row, column, to);
        to += s.source_c * N;
      }
    }
  }
}

}  // namespace direct_blocks

namespace direct {

template <class T>
static void pack(const Team& team, const Conv& conv, const T* kernel, T* packed) {
  direct_blocks::pack(team, conv, false, kernel, packed);
}

template <class T, class E>
static void run(const Team& team, const Conv& conv, const T* images, const T* packed, E& e, void* scratch) {
  direct_blocks::run(team, conv, false, images, packed, e, scratch);
}

}  // namespace direct

namespace direct_transpose {

template <class T>
static void pack(const Team& team, const Conv& conv, const T* kernel, T* packed) {
  direct_blocks::pack(team, conv, true, kernel, packed);
}

template <class T, class E>
static void run(const Team& team, const Conv& conv, const T* outputs, const T* packed, E& e, void* scratch) {
  direct_blocks::run(team, conv, true, outputs, packed, e, scratch);
}

}  // namespace direct_transpose
